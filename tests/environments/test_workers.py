"""Environments in worker processes: exact, refused by worker, their pipes in order."""

import json
import pickle
import subprocess
import sys

import pytest

from elementsckpt.environments import workers

from support.boxes import ROOT, environment

BOTH = [
    "resumes",
    "what_workers_cannot_save_is_refused",
    "a_step_under_way_is_refused",
    "closed_environments_are_refused",
    "a_dead_worker_is_named",
    "a_worker_that_dies_meanwhile_is_named",
    "another_number_of_workers_is_refused",
    "nothing_changes_if_one_worker_does_not_fit",
    "an_interrupt_leaves_no_answer_behind",
    "parts_reach_the_workers",
    "leaves_have_names",
]
GYMNASIUM = [
    "without_shared_memory_it_resumes",
    "with_same_step_it_resumes",
    "a_step_that_was_put_in_stays",
]


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    """Return what was wrong in trials with a library; one process tries them all."""
    found = {}

    def trials(library):
        pytest.importorskip(library)
        if library not in found:
            result = subprocess.run(
                [sys.executable, ROOT / "tests/support/worker_trials.py", library],
                env=environment(),
                cwd=tmp_path_factory.mktemp(library),
                capture_output=True,
                text=True,
            )
            assert result.returncode == 0, result.stderr
            found[library] = json.loads(result.stdout)
        return found[library]

    return trials


@pytest.mark.parametrize("trial", [*BOTH, *GYMNASIUM])
def test_workers_of_gymnasium(tried, trial):
    assert tried("gymnasium")[trial] == ""


@pytest.mark.torch
@pytest.mark.parametrize("trial", BOTH)
def test_workers_of_stable_baselines(tried, trial):
    assert tried("stable_baselines3")[trial] == ""


class Pipe:
    """A pipe to a worker that lives, which answers at once, or fails."""

    def __init__(self, answer, sends=True):
        self.answer, self.sends, self.unread = answer, sends, 0

    def is_alive(self):
        return True

    def send(self, message):
        if not self.sends:
            raise pickle.PicklingError("cannot be sent")
        self.unread += 1

    def poll(self, timeout=0):
        return self.unread > 0

    def recv(self):
        self.unread -= 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    "pipe", [Pipe(AttributeError("no such class")), Pipe(None, sends=False)]
)
def test_all_answers_are_read_if_one_cannot_be(pipe):
    """One that stays in its pipe would be taken for that to the next message."""
    pytest.importorskip("cloudpickle")
    good = workers.Answer(data=1)
    pipes = [Pipe(good), pipe, Pipe(good), Pipe(ValueError("later"))]
    asked = workers.Workers(
        pipes, pipes, request=lambda *message: message, result=lambda answer: answer
    )
    with pytest.raises((AttributeError, pickle.PicklingError)):
        asked.save(None)
    assert [x.unread for x in pipes] == [0, 0, 0, 0]

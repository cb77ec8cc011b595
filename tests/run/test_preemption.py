"""Saving when it is time, and losing at most a step to a preemption."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from datetime import timedelta

import pytest

import elementsckpt
from elementsckpt import Every
from elementsckpt.storage import disk

from support import library_threads
from support.boxes import ROOT, python


class Clock:
    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


class Slow:
    """A component whose save takes its time."""

    def __init__(self, clock, seconds):
        self.clock, self.seconds = clock, seconds

    def save(self):
        self.clock.now += self.seconds
        return 0

    def load(self, data):
        pass


def make(directory, every, **options):
    cp = elementsckpt.Checkpoint(directory, keep=None, every=every, **options)
    cp.step = elementsckpt.Counter()
    return cp


def train(cp, steps, before=lambda: None):
    """Return the steps at which it saved."""
    saved = []
    for _ in range(steps):
        cp.step.increment()
        before()
        if cp.save_if_due() is not None:
            saved.append(int(cp.step))
    return saved


def test_steps_are_due_at_their_multiples(tmp_path):
    cp = make(tmp_path, Every(steps=10))
    assert not cp.load_or_save()
    assert train(cp, 35) == [10, 20, 30]
    assert [info.step for info in cp.saves()] == [0, 10, 20, 30]


def test_seconds_are_due_when_they_have_passed(tmp_path, monkeypatch):
    clock = Clock(monkeypatch)
    cp = make(tmp_path, Every(seconds=60))
    cp.load_or_save()

    def work():
        clock.now += 7

    assert train(cp, 30, work) == [9, 18, 27]


def test_saves_stay_within_their_share_of_the_run(tmp_path, monkeypatch):
    clock = Clock(monkeypatch)
    cp = make(tmp_path, Every(overhead=0.1))
    cp.slow = Slow(clock, 2.0)
    cp.load_or_save()

    def work():
        clock.now += 1

    start = clock.now
    saved = train(cp, 200, work)
    share = 2.0 * len(saved) / (clock.now - start)
    assert 0.05 < share <= 0.11


def test_a_save_by_hand_is_not_made_again(tmp_path):
    cp = make(tmp_path, Every(steps=10))
    cp.load_or_save()
    cp.step.load(10)
    cp.save()
    assert cp.save_if_due() is None


def test_the_final_save_is_made_unless_the_step_has_been_saved(tmp_path):
    cp = make(tmp_path, Every(steps=10))
    cp.load_or_save()
    assert train(cp, 10) == [10]
    assert cp.save_if_due(final=True) is None
    assert train(cp, 5) == []
    assert cp.save_if_due(final=True).step == 15
    assert [info.step for info in cp.saves()] == [0, 10, 15]


def test_without_a_step_the_final_save_is_made(tmp_path):
    cp = elementsckpt.Checkpoint(tmp_path, every=Every(seconds=1000))
    cp.other = elementsckpt.Counter()
    cp.load_or_save()
    assert cp.save_if_due(final=True) is not None


def test_a_save_of_some_or_elsewhere_is_no_substitute(tmp_path):
    cp = make(tmp_path / "ckpt", Every(steps=10))
    cp.other = elementsckpt.Counter()
    cp.load_or_save()
    cp.step.load(10)
    cp.save(keys=["step"])
    cp.save(path=tmp_path / "own")
    assert cp.save_if_due() is not None


def test_the_schedule_goes_on_where_it_stopped(tmp_path):
    cp = make(tmp_path, Every(steps=10))
    cp.load_or_save()
    train(cp, 25)
    resumed = make(tmp_path, Every(steps=10))
    assert resumed.load_or_save()
    assert int(resumed.step) == 20
    assert train(resumed, 25) == [30, 40]


def test_what_was_saved_without_a_schedule_resumes_with_one(tmp_path):
    cp = make(tmp_path, None)
    cp.step.load(15)
    cp.save()
    resumed = make(tmp_path, Every(steps=10))
    resumed.load_or_save()
    assert train(resumed, 10) == [20]


def test_a_save_that_failed_is_still_due(tmp_path):
    cp = make(tmp_path, Every(steps=10))
    cp.load_or_save()
    cp.broken = elementsckpt.Saveable(save=lambda: 1 / 0, load=print)
    cp.step.load(10)
    with pytest.raises(ZeroDivisionError):
        cp.save_if_due()
    del cp.broken
    assert cp.save_if_due() is not None


def test_metrics_and_metadata_go_with_it(tmp_path):
    cp = make(tmp_path, Every(steps=1))
    report = cp.save_if_due(metrics={"return": 2.0}, metadata={"a": 1})
    info = elementsckpt.info(report.path)
    assert (info.metrics, info.metadata) == ({"return": 2.0}, {"a": 1})


def test_without_a_schedule_nothing_is_due(tmp_path):
    with pytest.raises(ValueError, match=r"pass every=Every\(steps=1000\)"):
        make(tmp_path, None).save_if_due()


def test_steps_need_a_step(tmp_path):
    cp = elementsckpt.Checkpoint(tmp_path, every=Every(steps=10))
    cp.other = elementsckpt.Counter()
    with pytest.raises(ValueError, match="step"):
        cp.save_if_due()


@pytest.mark.parametrize("every", [1000, "1000", lambda step: True])
def test_a_schedule_is_an_every(tmp_path, every):
    with pytest.raises(ValueError, match=r"pass elementsckpt\.Every\("):
        elementsckpt.Checkpoint(tmp_path, every=every)


# Signals


@pytest.fixture
def watching(tmp_path):
    cp = make(tmp_path, Every(steps=1000))
    cp.load_or_save()
    cp.watch_signals()
    yield cp
    cp.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_says_that_the_run_is_preempted(watching, number):
    assert not watching.preempted
    signal.raise_signal(number)
    assert watching.preempted


def test_a_preempted_run_saves_once_more(watching):
    assert train(watching, 3) == []
    signal.raise_signal(signal.SIGTERM)
    assert train(watching, 3) == [4]


def test_what_was_saved_since_the_signal_is_not_saved_again(watching):
    signal.raise_signal(signal.SIGTERM)
    watching.save()
    assert watching.save_if_due() is None


def test_a_signal_in_the_middle_of_a_save_is_due_for_another(watching):
    def interrupt():
        signal.raise_signal(signal.SIGTERM)
        return 0

    watching.odd = elementsckpt.Saveable(save=interrupt, load=print)
    watching.save()
    assert watching.save_if_due() is not None
    assert watching.save_if_due() is None


def test_closing_puts_the_handlers_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)
    with make(tmp_path, Every(steps=1)) as cp:
        cp.watch_signals()
        cp.watch_signals()
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (
        signal.getsignal(signal.SIGTERM),
        signal.getsignal(signal.SIGUSR1),
    ) == before


def test_a_deadline_preempts(tmp_path):
    cp = make(tmp_path, Every(steps=1000, deadline=timedelta(microseconds=1)))
    cp.load_or_save()
    assert cp.preempted
    cp = make(tmp_path, Every(steps=1000, deadline=timedelta(days=100)))
    assert not cp.preempted


LOOP = """
import sys, elementsckpt
cp = elementsckpt.Checkpoint(sys.argv[1], every=elementsckpt.Every(steps=1_000_000))
cp.step = step = elementsckpt.Counter()
cp.load_or_save()
cp.watch_signals()
while not cp.preempted:
    step.increment()
    if step == 1000:
        print("training", flush=True)
    cp.save_if_due()
cp.save_if_due(final=True)
print(int(step))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_preempted_process_loses_no_step(tmp_path, number):
    command = [sys.executable, "-c", LOOP, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "training\n"
        os.kill(process.pid, number)
        step = int(process.stdout.readline())
    assert process.returncode == 0
    assert elementsckpt.info(tmp_path).step == step >= 1000


# What counts as saved


@pytest.fixture
def refuse(monkeypatch):
    """Returns a function that makes the disk refuse to commit, or not."""
    is_refusing = []
    original = disk.syscall

    def syscall(call, *args):
        if is_refusing and call is os.replace and args[1].name == "manifest.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(call, *args)

    monkeypatch.setattr(disk, "syscall", syscall)
    return lambda yes: is_refusing.append(1) if yes else is_refusing.clear()


def failed_in_the_background(tmp_path, refuse):
    """Return a checkpoint whose save at step 10 failed; the disk refuses still."""
    cp = make(tmp_path, Every(steps=10), background=True)
    cp.load_or_save()
    cp.wait()
    refuse(True)
    assert train(cp, 10) == [10]
    library_threads.join()
    return cp


def test_a_save_that_failed_in_the_background_is_raised_and_due_at_once(
    tmp_path, refuse
):
    cp = failed_in_the_background(tmp_path, refuse)
    refuse(False)
    cp.step.increment()
    with pytest.raises(elementsckpt.WriteError, match="No space left"):
        cp.save_if_due()
    assert train(cp, 3) == [12]
    cp.wait()
    assert [info.step for info in cp.saves()] == [0, 12]


def test_the_last_save_of_a_run_is_made_though_the_one_before_failed(tmp_path, refuse):
    cp = failed_in_the_background(tmp_path, refuse)
    refuse(False)
    cp.step.load(15)
    with pytest.raises(elementsckpt.WriteError, match="No space left"):
        cp.save_if_due(final=True)
    assert [info.step for info in cp.saves()] == [0, 15]


def test_failing_saves_do_not_take_more_than_their_share(tmp_path, monkeypatch, refuse):
    clock = Clock(monkeypatch)
    cp = make(tmp_path, Every(overhead=0.1))
    cp.load_or_save()
    cp.slow = Slow(clock, 2.0)
    refuse(True)
    start, failed = clock.now, 0
    for _ in range(200):
        clock.now += 1
        try:
            cp.save_if_due()
        except elementsckpt.WriteError:
            failed += 1
    assert failed > 5
    assert 2.0 * failed / (clock.now - start) <= 0.11


def test_a_partial_load_leaves_the_schedule_alone(tmp_path):
    cp = make(tmp_path, Every(steps=10))
    cp.agent = elementsckpt.Saveable(["w"])
    cp.agent.w = 1
    cp.load_or_save()
    cp.step.load(55)
    cp.save()
    cp.load(step=0, regex="w")
    assert cp.save_if_due() is None


def test_a_preempted_run_is_that_after_it_was_closed(tmp_path):
    with make(tmp_path, Every(steps=10)) as cp:
        cp.watch_signals()
        signal.raise_signal(signal.SIGTERM)
    assert cp.preempted


def test_other_signals_can_be_watched_later(tmp_path):
    cp = make(tmp_path, Every(steps=10))
    cp.watch_signals()
    cp.watch_signals([signal.SIGUSR2])
    signal.raise_signal(signal.SIGUSR2)
    assert cp.preempted
    cp.close()


def test_metrics_can_be_a_function_that_is_called_when_it_is_time(tmp_path):
    calls = []

    def evaluate():
        calls.append(int(cp.step))
        return {"return": 2.0}

    cp = make(tmp_path, Every(steps=10))
    cp.load_or_save()
    for _ in range(25):
        cp.step.increment()
        cp.save_if_due(metrics=evaluate)
    assert calls == [10, 20]
    assert cp.saves()[-1].metrics == {"return": 2.0}


def test_a_step_can_be_a_value(tmp_path):
    cp = elementsckpt.Checkpoint(tmp_path, every=Every(steps=2), keep=None)
    cp.step = elementsckpt.Value(0)
    cp.load_or_save()
    for cp.step.value in (1, 2, 3, 4):
        cp.save_if_due()
    assert [info.step for info in cp.saves()] == [0, 2, 4]


# Signals to the whole process group

WORKERS = """
import multiprocessing, os, signal, sys
import elementsckpt, gymnasium, numpy as np

def make_env():
    return gymnasium.make("CartPole-v1")

wrap, context, directory = sys.argv[1:]
multiprocessing.set_start_method(context)
if wrap == "none":
    apart = lambda make_env: make_env
cp = elementsckpt.Checkpoint(directory, keep=None)
envs = make_envs()
envs.reset(seed=0)
cp.envs = elementsckpt.Saveable(
    save=lambda: envs.step(np.zeros(envs.num_envs, int))[0], load=print
)
for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
    cp.watch_signals([signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])  # Once more.
    os.killpg(0, number)
    print(number.name, cp.preempted, flush=True)
    print(cp.save().path == cp.latest(), flush=True)
envs.close()
print("closed")
"""


def signal_group(tmp_path, wrap, context):
    """Signal a program with workers, and all of these, before each save."""
    pytest.importorskip("gymnasium")
    (apart,) = re.findall(
        r"```python\n([^`]*?def apart.*?)```", (ROOT / "README.md").read_text(), re.S
    )
    script = apart.replace("* 8", "* 2") + WORKERS
    options = {"start_new_session": True, "timeout": 120}
    return python(script, wrap, context, tmp_path / "ckpt", **options)


SIGNALLED = ["SIGINT", "True", "True", "SIGUSR1", "True", "True", "SIGTERM", "True"]


@pytest.mark.parametrize("context", ["fork", "spawn", "forkserver"])
def test_workers_that_the_readme_sets_apart_outlive_their_group(tmp_path, context):
    child = signal_group(tmp_path, "apart", context)
    assert child.stdout.split() == [*SIGNALLED, "True", "closed"], child.stderr
    assert "resource_tracker" not in child.stderr  # It is Python's, and in the group.
    assert child.returncode == 0
    assert len(list(tmp_path.glob("ckpt/2*"))) == 3


def test_workers_that_are_not_set_apart_die_before_the_final_save(tmp_path):
    child = signal_group(tmp_path, "none", "fork")
    assert child.stdout.split() == SIGNALLED
    assert "Raised while saving the component 'envs'" in child.stderr

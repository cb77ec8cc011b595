"""Several processes of one job: all resume the same save, and one of them writes."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import boxes
import pytest
import ranks

from elementsckpt import Counter
from elementsckpt.group import Group


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(
    scope="module", params=[pytest.param("torch", marks=pytest.mark.torch), "jax"]
)
def results(request, tmp_path_factory):
    """Return what each of two processes found wrong with each claim."""
    pytest.importorskip(request.param)
    folder, port = tmp_path_factory.mktemp("ranks"), free_port()
    script = pathlib.Path(__file__).with_name("ranks.py")
    path = os.pathsep.join(
        [str(boxes.ROOT), str(script.parent), *filter(None, sys.path)]
    )
    env = {**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
    processes = [
        subprocess.Popen(
            [sys.executable, script, request.param, str(rank), str(port), folder],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=240) for process in processes]
    for output, errors in outputs:
        assert output, errors
    return [json.loads(output) for output, _ in outputs]


@pytest.mark.parametrize("claim", [claim.__name__ for claim in ranks.CLAIMS])
def test_in_two_processes(results, claim):
    for result in results:
        assert claim in result, "an earlier claim failed"
        assert not result[claim], result[claim]


@pytest.fixture
def job(monkeypatch):
    """Return what makes this one of two processes, and what the other one said."""

    def make(rank, answers=()):
        said, left = {}, iter(answers)
        group = Group(
            "jax.distributed", rank, 2, said.__setitem__, lambda _: next(left)
        )
        monkeypatch.setattr("elementsckpt.group.current", lambda: group)
        return said

    return make


def test_a_process_that_is_first_waits_for_what_process_0_resumes(tmp_path, job):
    saved = boxes.make(tmp_path, 1, keep=None)
    path = saved.save().path
    saved.agent.state = 2
    saved.save()
    cp = boxes.make(tmp_path, 0, write=False)
    job(1, [None, None, None, json.dumps({"save": path.name})])
    assert cp.load_or_save() is True
    assert cp.agent.state == 1


def test_a_process_that_writes_decides_by_itself(tmp_path, job, caplog):
    job(1, [None])
    assert boxes.make(tmp_path, 1).load_or_save() is False
    assert caplog.messages == []


def test_process_0_tells_once_for_each_resume(tmp_path, job):
    said = job(0, [None, None, None, None])
    for count in range(1, 3):
        cp = boxes.make(tmp_path, 1, keep=None)
        cp.step = Counter()
        resumed = cp.load_or_save()
        assert resumed is (count > 1)
        cp.save()
        cp.load(cp.saves()[0].path)
        told = [json.loads(said[key]) for key in said if key.endswith("/save")]
        assert len(told) == count
    assert told[0] == {"save": None}
    assert told[1]["save"] == cp.saves()[1].path.name


def test_other_directories_are_told_of_by_themselves(tmp_path, job):
    said = job(0, [None, None])
    for name in "ab":
        boxes.make(tmp_path / name, 1).load_or_save()
    keys = [key for key in said if key.endswith("/save")]
    assert len({key.split("/")[1] for key in keys}) == 2
    assert {key.split("/")[2] for key in keys} == {"1"}

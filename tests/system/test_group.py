"""Several processes of one job: all resume the same save, and one of them writes."""

import json
import pathlib
import socket
import subprocess
import sys

import pytest

from elementsckpt import Counter
from elementsckpt.system.job import Group

import ranks
from support import boxes


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    "kind", [pytest.param("torch", marks=pytest.mark.torch), "jax"]
)
def test_in_two_processes_each_claim_holds(tmp_path, kind):
    pytest.importorskip(kind)
    script, port = pathlib.Path(__file__).with_name("ranks.py"), free_port()
    processes = [
        subprocess.Popen(
            [sys.executable, script, kind, str(rank), str(port), tmp_path],
            env=boxes.environment(JAX_PLATFORMS="cpu"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for output, errors in outputs:
        assert output, errors
        wrong = json.loads(output)
        assert not any(wrong.values()), "\n".join(wrong.values())
        assert list(wrong) == [claim.__name__ for claim in ranks.CLAIMS]


@pytest.fixture
def job(monkeypatch):
    """Return what makes this one of two processes, and what the other one said."""

    def make(rank, answers=()):
        said, left = {}, iter(answers)
        group = Group(
            "jax.distributed", rank, 2, said.__setitem__, lambda _: next(left)
        )
        monkeypatch.setattr("elementsckpt.system.job.current", lambda: group)
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


@pytest.mark.parametrize(
    ("rank", "writes", "answer"), [(0, False, "1"), (1, True, "reads")]
)
def test_a_process_that_writes_while_process_0_does_not_is_told_of(
    tmp_path, job, caplog, rank, writes, answer
):
    said = job(rank, [answer])
    boxes.make(tmp_path, 1, write=writes).load_or_save()
    (message,) = caplog.messages
    assert message.startswith(f"This is process {rank} of 2 of jax.distributed")
    assert "process 0 has write=False there, and another one writes" in message
    assert "write=rank == 0" in message
    name = "first" if rank == 0 else "others"
    (key,) = [key for key in said if key.endswith(f"/{name}")]
    assert said[key] == ("1" if writes else "reads")


def test_a_process_that_looks_for_saves_by_itself_is_told_once(tmp_path, job, caplog):
    job(1)
    cp = boxes.make(tmp_path, 1, write=False)
    assert [cp.exists(), cp.exists()] == [False, False]
    (message,) = caplog.messages
    assert message.startswith("This is process 1 of 2 of jax.distributed, and asks")
    assert "Call load_or_save() in all processes" in message
    job(0)
    assert boxes.make(tmp_path, 1).exists() is False
    assert len(caplog.messages) == 1

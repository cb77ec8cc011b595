"""Several processes, threads and objects that write to one directory."""

import errno
import fcntl
import logging
import os
import subprocess
import sys

import boxes
import pytest

import elementsckpt

WRITER = """
import sys, elementsckpt
cp = elementsckpt.Checkpoint(sys.argv[1], keep=2)
cp.step = elementsckpt.Counter(int(sys.argv[2]))
cp.save()
print("saved", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def writer(tmp_path):
    """Another process that has saved to `tmp_path` and could do so again."""
    command = [sys.executable, "-c", WRITER, str(tmp_path), "7"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "saved\n"
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def warnings(caplog):
    messages = [x.getMessage() for x in caplog.records if x.levelno >= logging.WARNING]
    return [message for message in messages if "is writing to" in message]


def test_the_second_writer_is_told_who_the_first_is(tmp_path, writer, caplog):
    cp = boxes.make(tmp_path, 1)
    for _ in range(3):
        cp.save()
    (message,) = warnings(caplog)
    host = elementsckpt.info(tmp_path).lineage.host
    assert f"Process {writer.pid} on {host} is writing to {tmp_path}" in message
    assert "a directory of its own" in message
    assert cp.load().path == cp.latest()


def test_death_frees_the_directory(tmp_path, writer, caplog):
    writer.kill()
    writer.wait()
    boxes.make(tmp_path, 1).save()
    assert warnings(caplog) == []


def test_objects_of_one_process_share_the_directory(tmp_path, caplog):
    first, second = boxes.make(tmp_path, 1), boxes.make(tmp_path, 2)
    for _ in range(3):
        first.save()
        second.save()
    assert warnings(caplog) == []
    assert first.load().path == first.latest()


def test_a_closed_or_forgotten_object_leaves_the_directory(tmp_path):
    cp = boxes.make(tmp_path, 1)
    cp.save()
    cp.close()
    forgotten = boxes.make(tmp_path, 1)
    forgotten.save()
    del forgotten
    script = WRITER.replace('print("saved"', "import logging; print('saved'")
    command = [sys.executable, "-c", script, str(tmp_path), "7"]
    done = subprocess.run(
        command, input="\n", capture_output=True, text=True, check=True
    )
    assert "is writing to" not in done.stderr


def test_reading_claims_nothing(tmp_path, writer, caplog):
    cp = boxes.make(tmp_path, 1)
    with pytest.raises(elementsckpt.MissingKeyError):
        cp.load()
    elementsckpt.read(tmp_path)
    cp.save(path=tmp_path / "elsewhere")
    assert warnings(caplog) == []


def test_a_writer_that_saved_nothing_yet_is_told_without_a_name(tmp_path, caplog):
    fd = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    boxes.make(tmp_path, 1).save()
    os.close(fd)
    (message,) = warnings(caplog)
    assert message.startswith(f"Another process is writing to {tmp_path}")


def test_a_forked_child_is_another_writer(tmp_path, caplog):
    cp = boxes.make(tmp_path, 1)
    cp.save()
    pid = os.fork()
    if not pid:
        caplog.clear()
        cp.save()
        os._exit(len(warnings(caplog)))
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 1
    cp.save()
    assert warnings(caplog) == []


def test_without_locks_nothing_is_told_and_nothing_breaks(
    tmp_path, writer, caplog, monkeypatch
):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    cp = boxes.make(tmp_path, 1)
    cp.save()
    assert warnings(caplog) == []
    assert cp.load().path == cp.latest()

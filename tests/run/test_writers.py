"""Several processes, threads and objects that write to one directory."""

import errno
import fcntl
import logging
import os
import stat
import subprocess
import sys

import numpy as np
import pytest

import elementsckpt
from elementsckpt import WriteError
from elementsckpt.loading import component, load, open_save
from elementsckpt.storage import disk

from support import boxes

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


def test_reading_locks_nothing(tmp_path, writer, caplog):
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


def test_who_the_other_writer_is_is_told_when_it_has_saved(tmp_path, caplog, request):
    fd = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    cp = boxes.make(tmp_path, 1)
    for _ in range(2):
        cp.save()
    writer = request.getfixturevalue("writer")
    for _ in range(2):
        cp.save()
    os.close(fd)
    first, second = warnings(caplog)
    assert first.startswith(f"Another process is writing to {tmp_path}")
    assert second.startswith(f"Process {writer.pid} on ")


FORKS = """
import logging, os, sys, elementsckpt
logging.basicConfig(format="%(process)d %(message)s", stream=sys.stdout)
cp = elementsckpt.Checkpoint(sys.argv[1], keep=None)
cp.step = elementsckpt.Counter()
cp.save()
pid = os.fork()
cp.save()
if not pid:
    os._exit(0)
os.waitpid(pid, 0)
print(os.getpid())
"""


def test_a_forked_child_is_another_writer(tmp_path):
    *lines, parent = boxes.python(FORKS, tmp_path).stdout.splitlines()
    (line,) = [line for line in lines if "is writing to" in line]
    pid, _, message = line.partition(" ")
    assert pid != parent
    assert message.startswith(f"Process {parent} on ")


@pytest.fixture
def no_locks(monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_without_locks_nothing_is_told_and_nothing_breaks(
    tmp_path, writer, caplog, no_locks
):
    cp = boxes.make(tmp_path, 1)
    cp.save()
    assert warnings(caplog) == []
    assert cp.load().path == cp.latest()


@pytest.mark.parametrize("is_done", [False, True])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "Broken"), KeyboardInterrupt()])
def test_without_locks_a_save_that_fails_as_it_begins_leaves_nothing(
    tmp_path, error, is_done, monkeypatch, caplog, no_locks
):
    def fail(call, *args):
        is_begun = call is os.replace and args[0].name == f".{args[1].name}"
        result = call(*args) if is_done or not is_begun else None
        if is_begun:
            raise error
        return result

    cp = boxes.make(tmp_path, 1)
    cp.save()
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(disk, "syscall", fail)
    with pytest.raises((WriteError, KeyboardInterrupt)):
        cp.save()
    assert sorted(tmp_path.rglob("*")) == before
    assert warnings(caplog) == []


@pytest.mark.parametrize("is_explicit", [False, True])
def test_what_a_dead_process_left_is_removed_where_locks_need_to_be_written(
    tmp_path, is_explicit, monkeypatch
):
    """NFS refuses to lock what is open for reading only."""
    flock, path = fcntl.flock, tmp_path / "save" if is_explicit else None
    dead = boxes.make(tmp_path, 1, keep=None).save(path).path
    (dead / "manifest.json").rename(dead / ".manifest.json")

    def as_nfs(fd, operation):
        is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        if is_file and not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_RDWR:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", as_nfs)
    report = boxes.make(tmp_path, 2).save(path)
    assert elementsckpt.read(report.path) == {"agent": 2}
    assert {x for x in tmp_path.iterdir() if x.is_dir()} == {report.path}


@pytest.mark.parametrize("has_files", [False, True])
@pytest.mark.parametrize(
    "kept", [".nfs0001", ".fuse_hidden0000000500000001", ".__afs0001", ".smbdeleteAAA0"]
)
def test_what_is_kept_of_open_files_goes_when_they_are_closed(
    tmp_path, monkeypatch, caplog, has_files, kept
):
    opened = "x", "agent-000001-00000.safetensors"

    def keep(call, *args):
        if call is os.unlink and args[0].name in opened:
            return args[0].rename(args[0].with_name(kept))
        if call is os.unlink and args[0].name == kept:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return call(*args)

    cp = boxes.make(tmp_path, np.arange(9), fsync=False)
    if has_files:
        cp.files = elementsckpt.Files(save=lambda x: (x / "x").touch(), load=print)
    old = cp.save().path
    monkeypatch.setattr(disk, "syscall", keep)
    for number in (7, 8):
        cp.agent.state = np.arange(number)
        new = cp.save().path
        assert boxes.visible(tmp_path) == [new.name, "latest"]
    monkeypatch.undo()
    assert len(list(tmp_path.rglob(kept))) > has_files
    for path in tmp_path.rglob(kept):
        path.unlink()
    cp.save()
    assert [x for x in tmp_path.iterdir() if old.name in x.name] == []
    assert caplog.messages == []


def test_a_save_that_another_process_has_just_begun_is_left_alone(
    tmp_path, monkeypatch, caplog
):
    begun = tmp_path / ".20260101T000000F000000"
    begun.mkdir()

    def syscall(call, *args):
        if call is os.rmdir and args == (begun,):
            (begun / ".manifest.json").touch()
        return call(*args)

    monkeypatch.setattr(disk, "syscall", syscall)
    boxes.make(tmp_path, 1).save()
    assert not [x for x in caplog.records if x.levelno >= logging.WARNING]
    assert (begun / ".manifest.json").exists()


# Readers, while a run saves and prunes


@pytest.fixture
def meanwhile(monkeypatch):
    """Returns a function that has something done when a save is about to be read."""

    def arrange(action, times=1):
        left = [action] * times

        class Save(open_save.OpenSave):
            def components(self, *args):
                if left:
                    left.pop()()
                return super().components(*args)

        monkeypatch.setattr(load, "OpenSave", Save)

    return arrange


def frames(step):
    return {"frames": np.full(300_000, step), "step": step}


def saving(cp):
    def save():
        cp.agent.state = frames(cp.agent.state["step"] + 1)
        cp.save()

    return save


@pytest.mark.parametrize("how", ["load", "read", "mmap", "regex", "function"])
def test_a_reader_moves_on_when_its_save_is_pruned(tmp_path, meanwhile, how):
    trainer = boxes.make(tmp_path, frames(1), keep=1, fsync=False)
    trainer.save()
    meanwhile(saving(trainer), times=3)
    reader = boxes.make(tmp_path, frames(0))
    if how == "read":
        found = elementsckpt.read(tmp_path)["agent"]
    elif how == "function":
        elementsckpt.checkpoint.load(tmp_path, {"agent": reader.agent.load})
        found = reader.agent.state
    else:
        options = {"mmap": {"mmap": True}, "regex": {"regex": ".*"}}.get(how, {})
        report = reader.load(**options)
        assert report.fell_back_from is None
        found = reader.agent.state
    assert found["step"] == 4
    assert (found["frames"] == 4).all()


def test_a_reader_that_has_opened_its_save_is_not_disturbed(tmp_path, monkeypatch):
    trainer = boxes.make(tmp_path, frames(1), keep=1, fsync=False)
    trainer.save()
    opened = component.SavedComponent.open

    def save_then(self):
        opened(self)
        saving(trainer)()

    monkeypatch.setattr(component.SavedComponent, "open", save_then)
    found = elementsckpt.read(tmp_path, mmap=False)["agent"]
    assert found["step"] == 1
    assert (found["frames"] == 1).all()
    assert [info.sequence for info in trainer.saves()] == [2]


def test_a_named_save_that_was_pruned_is_not_substituted(tmp_path, meanwhile):
    trainer = boxes.make(tmp_path, frames(1), keep=1, fsync=False)
    path = trainer.save().path
    meanwhile(saving(trainer))
    with pytest.raises(elementsckpt.SaveNotFoundError, match="not found"):
        elementsckpt.read(path)


def test_a_reader_that_is_always_too_late_gives_up(tmp_path, meanwhile):
    trainer = boxes.make(tmp_path, frames(1), keep=1, fsync=False)
    trainer.save()
    meanwhile(saving(trainer), times=100)
    with pytest.raises(elementsckpt.ReadError, match="Keep more saves with keep="):
        elementsckpt.read(tmp_path)


def test_a_save_that_is_damaged_is_not_taken_for_pruned(tmp_path):
    trainer = boxes.make(tmp_path, frames(1), keep=2, fsync=False)
    trainer.save()
    trainer.agent.state = frames(2)
    for file in trainer.save().path.glob("*.safetensors"):
        file.unlink()
    report = trainer.load()
    assert trainer.agent.state["step"] == 1
    assert report.fell_back_from is not None

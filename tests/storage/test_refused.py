"""What the system refuses to show is never taken for nothing."""

import contextlib
import errno
import fcntl
import os
import shutil

import pytest

import elementsckpt
from elementsckpt import DamagedError, ReadError, WriteError
from elementsckpt.foreign import elements
from elementsckpt.storage import disk

from support import boxes
from support.faults import Explicit, FilesAgain, First, resumed
from support.folders import unprivileged


@pytest.fixture
def path():
    """Return a folder of a user whom modes hold back."""
    with unprivileged() as path:
        yield path


@contextlib.contextmanager
def closed(path, mode):
    """Take rights to a folder away meanwhile."""
    path.chmod(mode)
    try:
        yield
    finally:
        path.chmod(0o755)


@pytest.mark.parametrize("mode", [0o000, 0o600])
@pytest.mark.parametrize("wrote", ["elementsckpt", "elements"])
def test_a_save_that_may_not_be_looked_into_never_means_a_fresh_start(
    path, mode, wrote
):
    save = path / "20260101T000000F000000"
    if wrote == "elements":
        save.mkdir()
        (save / "agent.pkl").write_bytes(b"")
        (save / "done").touch()
    else:
        save = boxes.make(path, 1).save().path
    cp = boxes.make(path, 2)
    with closed(save, mode):
        for verb in (cp.load_or_save, cp.load, lambda: cp.load(save)):
            with pytest.raises(ReadError, match=rf"{save.name}.*check who may read"):
                verb()
        assert cp.exists()
        assert cp.saves() == []
    assert cp.agent.loads == 0
    assert [x.name for x in path.iterdir() if x.is_dir()] == [save.name]


def test_what_elements_wrote_and_may_not_be_listed_never_means_a_fresh_start(path):
    save = path / "20260101T000000F000000"
    save.mkdir()
    (save / "agent.pkl").write_bytes(b"")
    (save / "done").touch()
    with closed(save, 0o300), pytest.raises(ReadError, match=save.name):
        boxes.make(path, 2).load_or_save()


def test_beside_a_save_that_may_not_be_looked_into_a_run_goes_on(path):
    hidden = boxes.make(path, 1).save().path
    cp = boxes.make(path, 2)
    with closed(hidden, 0o000):
        for cp.agent.state in (2, 3):
            cp.save()
            assert elementsckpt.read(path) == {"agent": cp.agent.state}
    assert hidden in [found.path for found in cp.saves()]


def test_a_folder_that_may_not_be_listed_is_not_taken_for_empty(path):
    save = path / "save"
    boxes.make(None, 1).save(save)
    with closed(save, 0o300), pytest.raises(ReadError, match="Permission denied"):
        boxes.make(None, 2).save(save)
    assert elementsckpt.read(save) == {"agent": 1}


def test_a_save_of_elements_that_goes_while_it_is_looked_at_is_left_out(
    tmp_path, monkeypatch
):
    save = tmp_path / "20260101T000000F000000"
    save.mkdir()
    for name in ("agent.pkl", "done"):
        (save / name).write_bytes(b"")
    cp = boxes.make(tmp_path)
    found = cp.saves()
    files = elements.files

    def remove_before(path):
        shutil.rmtree(save)
        return files(path)

    monkeypatch.setattr(elements, "files", remove_before)
    assert ([x.path for x in found], cp.saves()) == ([save], [])


def test_a_disk_that_fails_does_not_make_a_save_vanish(tmp_path, monkeypatch):
    older, newest = (boxes.make(tmp_path, n, keep=None).save().path for n in (1, 2))
    fail_below(newest, monkeypatch)
    cp = boxes.make(tmp_path)
    report = cp.load()
    assert (report.path, report.fell_back_from) == (older, newest)
    with pytest.raises(DamagedError, match=rf"{newest.name}.*Input/output error"):
        cp.load(newest)


def test_a_folder_that_cannot_be_made_is_all_that_is_said(
    tmp_path, monkeypatch, caplog
):
    boxes.make(tmp_path, 1).save()

    def refuse(call, *args):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(disk, "syscall", refuse)
    with pytest.raises(WriteError, match="Read-only file system"):
        boxes.make(tmp_path, 2).save()
    assert caplog.messages == []


@pytest.mark.parametrize("kind", [First, Explicit, FilesAgain])
def test_a_save_needs_no_status_of_its_files(kind, tmp_path, monkeypatch):
    situation = kind(tmp_path)
    situation.prepare()
    fstat = os.fstat

    def refuse(fd):
        status = fstat(fd)
        # Of files that are written; of those that are read the size is needed.
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_RDWR:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return status

    monkeypatch.setattr(os, "fstat", refuse)
    situation.save(situation.checkpoint())
    monkeypatch.undo()
    assert resumed(situation) == situation.new


@pytest.mark.parametrize("background", [False, True])
def test_what_cannot_be_removed_for_want_of_descriptors_is_said_and_removed_later(
    tmp_path, monkeypatch, caplog, background
):
    def refuse(*_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    cp = boxes.make(tmp_path, 1, background=background)
    cp.save()
    cp.wait()
    for name in ("listdir", "pwrite"):
        monkeypatch.setattr(os, name, refuse)
    with pytest.raises(elementsckpt.WriteError, match="Too many open files"):
        save_and_wait(cp)
    assert "Could not remove" in caplog.text
    monkeypatch.undo()
    save_and_wait(cp)
    names = {x.name for x in tmp_path.iterdir()}
    assert names == {"latest", *(info.path.name for info in cp.saves())}


def save_and_wait(cp):
    cp.save()
    cp.wait()


def fail_below(folder, monkeypatch):
    """Let the disk fail at everything in a folder."""

    def failing(call):
        def fail(path, *args, **options):
            if str(path).startswith(f"{folder}/"):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return call(path, *args, **options)

        return fail

    for name in ("lstat", "stat", "open"):
        monkeypatch.setattr(os, name, failing(getattr(os, name)))

"""A durable save relies on more than itself: folders above it, and files of others."""

import errno
import os
import shutil
import stat

import pytest
from boxes import make
from faults import (
    Again,
    FilesAgain,
    First,
    Link,
    Medium,
    Records,
    Rename,
    Sync,
    resumed,
    unsynced,
    use_small_segments,
)
from folders import unprivileged

import elementsckpt
from elementsckpt import disk


@pytest.fixture
def record(monkeypatch):
    """Return a function that does something and returns its calls."""

    def record(action):
        fault = Records()
        monkeypatch.setattr(disk, "syscall", fault)
        action()
        monkeypatch.setattr(disk, "syscall", unsynced)
        return fault.events

    use_small_segments(monkeypatch.setattr)
    return record


@pytest.mark.parametrize("wrote", ["folders", "a save"])
def test_folders_that_another_process_has_not_synced_are_durable(
    wrote, tmp_path, record
):
    situation = First(tmp_path / "disk")
    situation.root.mkdir()
    medium = Medium(situation.root)

    def begin():
        if wrote == "folders":  # It died then.
            disk.make_folder(situation.directory.parent)
            disk.make_folder(situation.directory)
        else:
            situation.save(situation.checkpoint(5, fsync=False))

    events = record(begin)
    events += record(lambda: situation.save(situation.checkpoint()))
    for event in events:
        medium.take(event)
    left = First(tmp_path / "left")
    medium.lose_power(left.root, lambda _: False)
    assert resumed(left) == situation.new


@pytest.mark.parametrize("copy", [shutil.copy, shutil.copy2])
@pytest.mark.parametrize("kind", [Again, FilesAgain])
def test_what_is_linked_to_a_copy_of_a_save_is_durable(kind, copy, tmp_path, record):
    original, situation = kind(tmp_path / "original"), kind(tmp_path / "copy")
    original.prepare()
    shutil.copytree(original.root, situation.root, copy_function=copy)
    events = record(lambda: situation.save(situation.checkpoint()))
    linked = {os.stat(x.target).st_ino: x for x in kept_links(events)}
    assert linked
    (commit,) = (
        n
        for n, x in enumerate(events)
        if isinstance(x, Rename) and x.target.name == "manifest.json"
    )
    assert {Sync(inode) for inode in linked} <= set(events[:commit])


def kept_links(events):
    """Return the links that are still there, but for what was renamed since."""
    return [x for x in events if isinstance(x, Link) and x.target.exists()]


def test_a_folder_above_that_may_not_be_read_does_not_stop_a_save():
    with unprivileged() as home:
        (home / "run").mkdir()
        home.chmod(0o311)
        try:
            make(home / "run", 1).save()
            make(None, 2).save(home / "run" / "export" / "best")
        finally:
            home.chmod(0o755)
        assert elementsckpt.read(home / "run") == {"agent": 1}


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_where_folders_cannot_be_synced_files_are(code, tmp_path, monkeypatch):
    synced = []

    def refuse(call, *args):
        if call is os.fsync:
            is_folder = stat.S_ISDIR(os.fstat(args[0]).st_mode)
            synced.append(is_folder)
            if is_folder:
                raise OSError(code, os.strerror(code))
        return call(*args)

    monkeypatch.setattr(disk, "syscall", refuse)
    make(tmp_path, 1).save()
    assert set(synced) == {True, False}
    assert elementsckpt.read(tmp_path) == {"agent": 1}

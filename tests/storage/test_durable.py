"""A durable save relies on more than itself: folders above it, and files of others."""

import errno
import itertools
import os
import random
import shutil
import stat

import pytest

import elementsckpt
from elementsckpt import Checkpoint, Counter, Every, Files, WriteError, checkpoint
from elementsckpt.storage import disk

from support.boxes import make
from support.faults import (
    Again,
    Fails,
    FilesAgain,
    First,
    Records,
    resumed,
    unsynced,
    use_small_segments,
)
from support.folders import unprivileged
from support.medium import Link, Medium, Rename, Sync


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


def test_folders_that_went_with_a_failed_save_are_made_durable_anew(
    tmp_path, monkeypatch, record
):
    situation = First(tmp_path / "disk")
    situation.root.mkdir()
    medium = Medium(situation.root)

    def refuse(call, *args):
        if call is os.replace and args[1].name == "manifest.json":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return call(*args)

    monkeypatch.setattr(disk, "syscall", refuse)
    with pytest.raises(WriteError):
        situation.save(situation.checkpoint())
    assert not [*situation.root.iterdir()]

    def make_folders():  # Another process does, and dies.
        disk.make_folder(situation.directory.parent)
        disk.make_folder(situation.directory)

    events = record(make_folders)
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


# Each way to save, and to remove


def counting(directory, value):
    cp = Checkpoint(directory)
    cp.step = Counter(value)
    return cp


WAYS = {
    "load_or_save": lambda path: make(path, "new").load_or_save(),
    "save_if_due": lambda path: make(path, "new", every=Every(9), step=1).save_if_due(),
    "no arrays": lambda path: counting(path, 7).save(metadata={"a": 1}),
    "some keys": lambda path: make(path, "new").save(keys=["agent"]),
    "save_pytree": lambda path: elementsckpt.save_pytree(path / "x" / "y", [1]),
    "function": lambda path: checkpoint.save(path / "x", {"a": lambda: 1}),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_to_save_outlives_power_loss_when_it_has_returned(
    way, tmp_path, record
):
    (tmp_path / "disk").mkdir()
    medium, path = Medium(tmp_path / "disk"), tmp_path / "disk" / "a" / "ckpt"
    for event in record(lambda: WAYS[way](path)):
        medium.take(event)
    medium.lose_power(tmp_path / "left", lambda _: False)
    files = [x.relative_to(tmp_path / "disk") for x in path.rglob("*") if x.is_file()]
    for file in files:
        if file.name != "latest":
            left = (tmp_path / "left" / file).read_bytes()
            assert left == (tmp_path / "disk" / file).read_bytes()
    assert len(files) > 0


@pytest.mark.parametrize("way", WAYS)
def test_each_way_to_save_fails_without_a_trace_and_works_again(
    way, tmp_path, monkeypatch
):
    for n in itertools.count(1):
        path = tmp_path / str(n) / "ckpt"
        fault = Fails(n, OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)))
        monkeypatch.setattr(disk, "syscall", fault)
        try:
            WAYS[way](path)
        except WriteError:
            assert list(tmp_path.iterdir()) == []
            WAYS[way](path)
        assert {x.name for x in tmp_path.rglob(".*")} <= {".latest"}
        shutil.rmtree(path.parent)
        if fault.count < n:
            break
    assert n > 10


REMOVALS = {
    "prune": lambda cp: cp.prune(),
    "delete": lambda cp: cp.delete("latest"),
    "delete by step": lambda cp: cp.delete(step=1),
}


def three(directory, **options):
    """Return a checkpoint of a directory in which three saves are made if none is."""
    cp = make(directory, keep=None, step=lambda: cp.agent.state, **options)
    cp.files = Files(save=lambda x: (x / "file").write_text("content"), load=print)
    for cp.agent.state in () if directory.exists() else (1, 2, 3):
        cp.save()
    return cp


def check(directory):
    """Check that each save is whole, and that the next leaves nothing else."""
    cp = three(directory)
    for info in cp.saves():
        found = elementsckpt.read(info.path)
        assert found["agent"] == info.step
        assert (found["files"] / "file").read_text() == "content"
    assert cp.load(keys=["agent"]).step in (2, 3)
    cp.save()
    saves = [info.path.name for info in cp.saves()]
    assert {x.name for x in directory.iterdir()} == {*saves, "latest"}


@pytest.mark.parametrize("removal", REMOVALS)
@pytest.mark.parametrize("sticky", [False, True])
def test_a_removal_that_fails_at_any_call_only_warns(
    removal, sticky, tmp_path, monkeypatch, caplog
):
    for n in itertools.count(1):
        path = tmp_path / str(n)
        monkeypatch.setattr(disk, "syscall", unsynced)
        three(path)
        cp = make(path, keep=1)
        fault = Fails(n, OSError(errno.EIO, os.strerror(errno.EIO)), sticky=sticky)
        monkeypatch.setattr(disk, "syscall", fault)
        caplog.clear()
        REMOVALS[removal](cp)
        monkeypatch.setattr(disk, "syscall", unsynced)
        if fault.count < n:
            break
        assert "Could not" in caplog.text
        check(path)
    assert n > 10


@pytest.mark.parametrize("removal", REMOVALS)
@pytest.mark.parametrize("kept", [0.0, 0.5])
def test_power_loss_at_any_call_of_a_removal_leaves_whole_saves(
    removal, kept, tmp_path, record
):
    (tmp_path / "disk").mkdir()
    path = tmp_path / "disk" / "ckpt"
    record(lambda: three(path))
    medium, dice = Medium(path.parent), random.Random(0)
    for n, event in enumerate(record(lambda: REMOVALS[removal](make(path, keep=1)))):
        medium.take(event)
        medium.lose_power(tmp_path / str(n), lambda _: dice.random() < kept)
        check(tmp_path / str(n) / "ckpt")

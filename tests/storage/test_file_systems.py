"""Odd file systems, and directories of several users: removed at once or not at all."""

import errno
import fcntl
import itertools
import logging
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest

import elementsckpt
from elementsckpt import Checkpoint, Files
from elementsckpt.directory import listing
from elementsckpt.storage import disk

from support.boxes import environment, make, visible
from support.faults import unsynced
from support.folders import unprivileged


def with_files(directory, state, **options):
    """Return a checkpoint of a state and of files, one of them in a folder below."""
    cp = make(directory, state, **options)

    def write(path):
        (path / "deep").mkdir()
        (path / "deep" / "file").write_text(f"{cp.agent.state}")

    cp.policy = Files(save=write, load=lambda path: None)
    return cp


def is_whole(path, state):
    found = elementsckpt.read(path)
    content = (found["policy"] / "deep" / "file").read_text()
    return (found["agent"], content) == (state, str(state))


def leftovers(directory):
    """Return the names that neither are of saves nor belong to the directory."""
    saves = {
        path.name for path in directory.iterdir() if (path / "manifest.json").exists()
    }
    return {path.name for path in directory.iterdir()} - saves - {"latest"}


# Folders that cannot be renamed


OVERLAY = """
import logging, sys
import elementsckpt

logging.basicConfig(level=logging.WARNING, format="%(message)s")
cp = elementsckpt.Checkpoint(sys.argv[1], keep=1, fsync=False)
cp.agent = elementsckpt.Saveable(save=lambda: 7, load=lambda state: None)
cp.policy = elementsckpt.Files(save=lambda x: (x / "file").touch(), load=lambda x: None)
assert cp.load_or_save()
for _ in range(2):
    path = cp.save().path
    assert [x.path for x in cp.saves()] == [path]
print(path.name)
"""
MOUNT = """
set -e
mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged
"$@"
"""


def test_saves_in_a_lower_layer_of_an_overlay_are_pruned(tmp_path):
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("only root mounts overlays, with unshare")
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    lower = tmp_path / "lower" / "ckpt"
    for state in range(3):
        with_files(lower, state, keep=None, fsync=False).save()
    unfinished = with_files(lower, 3, keep=None, fsync=False).save().path
    (unfinished / "manifest.json").rename(unfinished / ".manifest.json")
    (lower / "20260101T000000F000000").mkdir()
    command = ["unshare", "--mount", "bash", "-c", MOUNT, "bash"]
    manner = {"cwd": tmp_path, "capture_output": True, "text": True}
    if subprocess.run([*command, "true"], **manner).returncode:
        pytest.skip("no overlay can be mounted here")
    shutil.rmtree(tmp_path / "work")
    (tmp_path / "work").mkdir()
    script = f'{sys.executable} -c "$0" merged/ckpt && ls -A merged/ckpt'
    child = subprocess.run(
        [*command, "bash", "-c", script, OVERLAY],
        env=environment(),
        **manner,
    )
    assert child.returncode == 0, child.stderr
    name, *left = child.stdout.split()
    assert left == [name, "latest"]
    assert child.stderr == ""


class Died(BaseException):
    """The process is dead; nothing is done any more."""


class Dies:
    """Makes no call from the n-th on after the commit; renames no folder."""

    def __init__(self, n, code):
        self.n, self.code = n, code
        self.is_dead = self.is_committed = False

    def __call__(self, call, *args):
        if self.is_committed:
            self.n -= 1
            self.is_dead = self.is_dead or self.n < 0
        if self.is_dead:
            raise Died
        if call is os.replace and args[0].is_dir() and args[0].name[0] != ".":
            raise OSError(self.code, os.strerror(self.code))
        result = unsynced(call, *args)
        if call is os.replace and args[1].name == "manifest.json":
            self.is_committed = True
        return result


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EBUSY, errno.EACCES])
def test_where_folders_cannot_be_renamed_a_death_leaves_a_save_whole_or_gone(
    tmp_path, monkeypatch, caplog, code
):
    for n in itertools.count():
        directory = tmp_path / str(n)
        cp = with_files(directory, 1, fsync=False)
        old = cp.save().path
        cp.agent.state = 2
        monkeypatch.setattr(disk, "syscall", Dies(n, code))
        died = False
        try:
            new = cp.save().path
        except Died:
            died = True
        del cp
        monkeypatch.setattr(disk, "syscall", Dies(1 << 30, code))
        again = with_files(directory, 3, fsync=False)
        saves = again.saves()
        assert saves[-1].path != old
        assert is_whole(saves[-1].path, 2)
        for info in saves[:-1]:
            assert is_whole(info.path, 1)
        again.load()
        again.save()
        again.save()
        assert leftovers(directory) == set()
        assert len(again.saves()) == 1
        assert say(caplog) == []
        if not died:
            break
    assert new.parent == directory
    assert n >= 10


def test_files_of_others_stay_where_folders_cannot_be_renamed(
    tmp_path, monkeypatch, caplog
):
    cp = make(tmp_path, 1)
    old = cp.save().path
    (old / "notes.txt").write_text("mine")
    monkeypatch.setattr(disk, "syscall", Dies(1 << 30, errno.EXDEV))
    cp.save()
    cp.save()
    assert [x.name for x in old.iterdir()] == ["notes.txt"]
    assert len([x for x in caplog.messages if "notes" in x or str(old) in x]) == 1
    assert len(cp.saves()) == 1


# Directories of several users


def say(caplog):
    """Return the warnings."""
    return [x.getMessage() for x in caplog.records if x.levelno >= logging.WARNING]


@pytest.fixture
def group():
    """Return a directory of root, in which others are about to save."""
    if os.geteuid() != 0:
        pytest.skip("only root can be two users")
    previous = os.umask(0o022)
    with tempfile.TemporaryDirectory() as path:  # To which others find their way.
        os.chmod(path, 0o755)
        yield pathlib.Path(path) / "ckpt"
    os.umask(previous)


OTHERS = 65534
PROTECTED = {
    "as it is": lambda save: None,
    "but for a folder below": lambda save: change(save, 0o777, "policy.files/deep"),
    "but for a folder of files": lambda save: change(save, 0o777, "policy.files"),
}


def change(save, mode, but):
    for path in (save, save / "policy.files", save / "policy.files" / "deep"):
        if path != save / but:
            path.chmod(mode)


@pytest.mark.parametrize("how", PROTECTED)
@pytest.mark.parametrize("verb", ["save", "prune", "delete"])
def test_a_save_of_another_user_is_removed_at_once_or_not_at_all(
    group, caplog, how, verb
):
    theirs = with_files(group, 1).save().path
    group.chmod(0o777)
    PROTECTED[how](theirs)
    before = sorted(group.rglob("*"))
    os.seteuid(OTHERS)
    try:
        cp = with_files(group, 2, keep=None)
        if verb == "save":
            cp = with_files(group, 2)
            cp.load_or_save()
            for state in (3, 4, 5):
                cp.agent.state = state
                mine = cp.save().path
            assert {x.path for x in cp.saves()} == {theirs, mine}
        elif verb == "delete":
            cp.save()
            assert cp.delete(theirs) == []
        else:
            cp.save()
            assert with_files(group, 2).prune() == []
        assert is_whole(theirs, 1)
        assert set(before) <= set(group.rglob("*"))
        assert leftovers(group) == set()
    finally:
        os.seteuid(0)
    said = say(caplog)
    assert any(f"Could not remove {theirs}" in x and "who may write" in x for x in said)
    with_files(group, 6).save()  # Its owner can.
    assert not theirs.exists()


def test_what_turns_out_not_to_be_removable_gets_its_name_back(
    group, monkeypatch, caplog
):
    theirs = with_files(group, 1).save().path
    group.chmod(0o777)
    monkeypatch.setattr(os, "access", lambda *_, **__: True)  # As on some networks.
    os.seteuid(OTHERS)
    try:
        cp = with_files(group, 2)
        cp.load_or_save()
        mine = cp.save().path
        assert is_whole(theirs, 1)
        assert {x.path for x in cp.saves()} == {theirs, mine}
        assert leftovers(group) == set()
    finally:
        os.seteuid(0)
    assert any(f"Could not remove {theirs}" in x for x in say(caplog))


def test_a_save_of_another_user_who_lets_the_group_write_is_pruned(group, caplog):
    theirs = with_files(group, 1).save().path
    change(theirs, 0o777, ".")
    theirs.chmod(0o777)
    group.chmod(0o777)
    os.seteuid(OTHERS)
    try:
        cp = with_files(group, 2)
        cp.load_or_save()
        mine = cp.save().path
        assert [x.path for x in cp.saves()] == [mine]
        assert leftovers(group) == set()
    finally:
        os.seteuid(0)
    assert not [x for x in say(caplog) if "remove" in x]


def test_in_a_sticky_directory_a_save_of_another_user_stays_whole(group, caplog):
    theirs = with_files(group, 1).save().path
    change(theirs, 0o777, ".")
    theirs.chmod(0o777)
    group.chmod(0o1777)
    (group / "latest").unlink()
    os.seteuid(OTHERS)
    try:
        cp = with_files(group, 2)
        cp.load_or_save()
        cp.save()
        cp.save()
        assert is_whole(theirs, 1)
        assert len(cp.saves()) == 2
        assert leftovers(group) == set()
    finally:
        os.seteuid(0)
    assert any(f"Could not remove {theirs}" in x for x in say(caplog))


def test_a_save_that_a_person_protects_stays_whole(caplog):
    with unprivileged() as home:
        cp = with_files(home / "ckpt", 1)
        protected = cp.save().path
        protected.chmod(0o555)
        for state in (2, 3):
            cp.agent.state = state
            newest = cp.save().path
        assert is_whole(protected, 1)
        assert {x.path for x in cp.saves()} == {protected, newest}
        assert any("Could not remove" in x for x in say(caplog))
        protected.chmod(0o755)
        cp.save()
        assert len(cp.saves()) == 1


def test_folders_that_a_component_closes_do_not_hinder_their_removal(caplog):
    with unprivileged() as home:
        cp = with_files(home / "ckpt", 1)
        old = cp.save().path
        (old / "policy.files" / "deep").chmod(0o500)
        (old / "policy.files").chmod(0)
        cp.save()
        assert not old.exists()
        assert leftovers(home / "ckpt") == set()
    assert not [x for x in say(caplog) if "remove" in x]


# Empty folders


@pytest.mark.parametrize("step", ["", "-000000000120", "--00000000007"])
def test_an_empty_folder_with_the_name_of_a_save_is_swept(tmp_path, caplog, step):
    (tmp_path / f"20260101T000000F000000{step}").mkdir()
    others = ["mine", "20260101", "x20260101T000000F000000"]
    for name in others:
        (tmp_path / name).mkdir()
    (tmp_path / "20260102T000000F000000").symlink_to(tmp_path / "mine")
    hidden = tmp_path / "20260103T000000F000000"
    hidden.mkdir()
    (hidden / ".hidden").touch()
    path = make(tmp_path, 1).save().path
    expected = [*others, "20260102T000000F000000", hidden.name, path.name, "latest"]
    assert visible(tmp_path) == sorted(expected)
    assert say(caplog) == []


def test_an_empty_folder_that_cannot_be_removed_hinders_nothing(
    tmp_path, monkeypatch, caplog
):
    empty = tmp_path / "20260101T000000F000000"
    empty.mkdir()

    def refuse(call, *args):
        if call is os.rmdir and args == (empty,):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return call(*args)

    monkeypatch.setattr(disk, "syscall", refuse)
    cp = make(tmp_path, 1)
    cp.save()
    assert cp.load().path == cp.latest()
    assert say(caplog) == []


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("call", [os.mkdir, os.open])
def test_a_sweep_does_not_take_the_folder_of_a_save_that_begins(
    tmp_path, monkeypatch, exists, call
):
    path = tmp_path / "20260101T000000F000000"
    if exists:
        path.mkdir()
    swept, directory = [], listing.Directory(tmp_path)

    def sweep(made, *args):
        if made is call is os.open and args[0].parent == path and not swept:
            swept.append(directory.sweep(directory.look()))
        result = made(*args)
        if made is call is os.mkdir and not swept:
            swept.append(directory.sweep(directory.look()))
        return result

    monkeypatch.setattr(disk, "syscall", sweep)
    report = make(state=7).save(path)
    assert swept or exists
    assert report.path == path
    assert elementsckpt.read(path) == {"agent": 7}
    monkeypatch.undo()
    make(tmp_path, 8).save()
    assert elementsckpt.read(path) == {"agent": 7}


# Files that are removed while they are open


@pytest.mark.parametrize(
    "name", [".nfs000000000a0b0c0d00000001", ".fuse_hidden00000005"]
)
def test_a_file_that_a_component_removed_is_not_part_of_the_save(tmp_path, name):
    def write(path):
        (path / "weights").write_text("w")
        (path / name).write_text("removed, and still open")

    cp = Checkpoint(tmp_path)
    cp.policy = Files(save=write, load=lambda path: None)
    save = cp.save().path
    (save / "policy.files" / name).unlink()
    cp.load()
    assert elementsckpt.info(save).components["policy"].leaves == 1


# Caches of drives


@pytest.fixture
def mac(monkeypatch):
    """Have `fcntl` flush the cache of the drive, as on macOS; return what was."""
    command, flushed = 51, []
    real = fcntl.fcntl

    def call(fd, operation, *args):
        if operation != command:
            return real(fd, operation, *args)
        flushed.append(os.fstat(fd).st_ino)
        if mac.error is not None:
            raise OSError(mac.error, os.strerror(mac.error))
        return 0

    def mac():
        return flushed

    mac.error = None
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", command, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", call)
    return mac


def synced_by(monkeypatch, action):
    """Return the inodes of what is synced by `os.fsync`."""
    synced = []

    def syscall(call, *args):
        if call is os.fsync:
            synced.append(os.fstat(args[0]).st_ino)
        return call(*args)

    monkeypatch.setattr(disk, "syscall", syscall)
    action()
    return synced


def inodes_of(save):
    return {x.stat().st_ino for x in (save, *save.rglob("*"), save.parent)}


def test_what_is_synced_leaves_the_cache_of_the_drive(tmp_path, monkeypatch, mac):
    cp = with_files(tmp_path / "run" / "ckpt", 1)
    assert synced_by(monkeypatch, cp.save) == []
    assert inodes_of(cp.latest()) <= set(mac())
    assert tmp_path.stat().st_ino in mac()


@pytest.mark.parametrize("code", [errno.ENOTSUP, errno.ENOTTY, errno.EINVAL])
def test_where_drives_cannot_be_flushed_files_are_synced_all_the_same(
    tmp_path, monkeypatch, mac, code
):
    mac.error = code
    cp = with_files(tmp_path / "run" / "ckpt", 1)
    synced = synced_by(monkeypatch, cp.save)
    assert inodes_of(cp.latest()) <= set(synced)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_drive_that_loses_data_fails_the_save(tmp_path, mac, code):
    mac.error = code
    with pytest.raises(elementsckpt.WriteError) as caught:
        make(tmp_path / "ckpt", 1).save()
    assert caught.value.errno == code


def test_without_fsync_no_cache_is_flushed(tmp_path, mac):
    make(tmp_path, 1, fsync=False).save()
    assert mac() == []


def test_a_folder_that_another_process_removes_meanwhile_is_not_refused(
    tmp_path, monkeypatch, caplog
):
    cp = with_files(tmp_path, 1)
    old = cp.save().path
    asked = []

    def access(path, *args, **options):
        if pathlib.Path(path).is_relative_to(old) and path != old:
            asked.append(path)
            shutil.rmtree(path, ignore_errors=True)
        return real(path, *args, **options)

    real = os.access
    monkeypatch.setattr(os, "access", access)
    cp.save()
    assert asked
    assert not old.exists()
    assert say(caplog) == []

"""Files that others write, in a block that becomes a save when it ends."""

import functools
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import elementsckpt
from elementsckpt import (
    Checkpoint,
    ComponentError,
    DamagedError,
    Files,
    MetadataError,
    MissingKeyError,
    StateError,
)
from elementsckpt.storage import disk

from support import library_threads
from support.boxes import Box
from support.faults import Broken, Policy, contents
from support.folders import flip_block, inodes_of, noise


class Shards(Files):
    """A component whose files others write."""

    def __init__(self):
        super().__init__(load=self.read)
        self.state = None

    def read(self, folder):
        self.state = contents(folder)


def make(directory=None, value=0, **options):
    cp = Checkpoint(directory, **options)
    cp.policy, cp.agent = Shards(), Box(value)
    return cp


def loaded(path):
    """Return what is in a save: files, and the state of the agent."""
    cp = make(None)
    cp.load(path)
    return cp.policy.state, cp.agent.state


def stage(cp, write):
    """Make a save in whose block `write` is called with the folder."""
    with cp.staging("policy") as folder:
        write(folder)


def names_in(directory):
    return {path.name for path in directory.iterdir()}


BACKGROUND = pytest.mark.parametrize("background", [False, True])


@BACKGROUND
def test_what_is_in_the_folder_when_the_block_ends_is_saved(tmp_path, background):
    cp = make(tmp_path, background=background)
    with cp.staging("policy", metadata={"a": 1}) as folder:
        assert list(folder.iterdir()) == []
        (folder / "below").mkdir()
        (folder / "below" / "x").write_text("x")
        assert not cp.exists()
    cp.wait()
    assert cp.latest() == folder.parent
    assert loaded(folder.parent) == ({"below/x": b"x"}, 0)
    assert elementsckpt.info(tmp_path).metadata == {"a": 1}
    assert names_in(tmp_path) == {folder.parent.name, "latest"}


@BACKGROUND
def test_the_others_are_saved_as_they_are_when_the_block_ends(tmp_path, background):
    cp = make(tmp_path, 1, background=background)
    with cp.staging("policy"):
        assert cp.agent.saves == 0
        cp.agent.state = 2
    cp.wait()
    assert loaded(tmp_path) == ({}, 2)
    assert cp.agent.saves == 1


def test_other_processes_may_write(tmp_path):
    script = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text(sys.argv[1])"
    cp = make(tmp_path)
    with cp.staging("policy") as folder:
        paths = [str(folder / f"shard{number}") for number in range(3)]
        command = [sys.executable, "-c", script]
        writers = [subprocess.Popen([*command, path]) for path in paths]
        assert [writer.wait() for writer in writers] == [0, 0, 0]
    files, _ = loaded(tmp_path)
    assert files == {os.path.basename(path): path.encode() for path in paths}


def test_the_component_s_own_function_is_not_called(tmp_path):
    cp = make(tmp_path)
    cp.policy = Files(save=pytest.fail, load=lambda folder: None)
    with cp.staging("policy") as folder:
        (folder / "x").write_text("x")
    assert contents(folder) == {"x": b"x"}


def test_keys_that_make_odd_names_can_be_staged(tmp_path):
    cp = Checkpoint(tmp_path)
    keys = ["ü" * 40, "ü" * 40 + "a", "policy", "Policy"]
    for key in keys:
        setattr(cp, key, Policy({"own": key.encode()}))
    for key in keys:
        with cp.staging(key) as folder:
            (folder / "staged").write_text(key)
        found = elementsckpt.read(tmp_path)
        for other in keys:
            name = "staged" if other == key else "own"
            assert contents(found[other]) == {name: other.encode()}


def test_files_that_did_not_change_are_links(tmp_path):
    cp = make(tmp_path, keep=2)
    folders = []
    for value in range(2):
        with cp.staging("policy") as folder:
            (folder / "same").write_text("same")
            (folder / "new").write_text(str(value))
        folders.append(folder)
    first, second = folders
    assert (first / "same").stat().st_ino == (second / "same").stat().st_ino
    assert contents(second) == {"same": b"same", "new": b"1"}


# Blocks that fail


ERRORS = [RuntimeError("stop"), KeyboardInterrupt(), SystemExit(3), GeneratorExit()]


@BACKGROUND
@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_a_block_that_raises_leaves_no_trace(tmp_path, error, background):
    def fail(folder):
        (folder / "x").write_text("x")
        raise error

    cp = make(tmp_path / "ckpt", background=background)
    with pytest.raises(type(error)) as caught:
        stage(cp, fail)
    assert caught.value is error
    assert os.listdir(tmp_path) == []
    assert cp.agent.saves == 0
    with cp.staging("policy") as folder:
        (folder / "x").write_text("again")
    cp.wait()
    assert loaded(tmp_path / "ckpt") == ({"x": b"again"}, 0)


@BACKGROUND
def test_a_component_that_raises_leaves_no_trace(tmp_path, background):
    cp = make(tmp_path, background=background)
    cp.broken = Broken(RuntimeError("broken"))
    with pytest.raises(RuntimeError, match="broken"):
        stage(cp, lambda folder: (folder / "x").write_text("x"))
    assert os.listdir(tmp_path) == []


@BACKGROUND
def test_what_cannot_be_saved_is_an_error_and_leaves_no_trace(tmp_path, background):
    cp = make(tmp_path, background=background)
    with pytest.raises(StateError, match="link is a symbolic link") as caught:
        stage(cp, lambda folder: (folder / "link").symlink_to("x"))
    assert "'policy'" in caught.value.__notes__[0]
    assert os.listdir(tmp_path) == []


def test_a_process_that_dies_in_the_block_leaves_what_the_next_save_removes(
    tmp_path, forked
):
    script = """
import os, sys
from elementsckpt import Checkpoint, Files
cp = Checkpoint(sys.argv[1])
cp.policy = Files(load=print)
with cp.staging("policy") as folder:
    (folder / "below").mkdir()
    (folder / "below" / "x").write_text("x")
    os._exit(3)
"""
    assert forked(script, tmp_path).returncode == 3
    assert len(names_in(tmp_path)) == 1
    cp = make(tmp_path)
    assert not cp.exists()
    report = cp.save(keys=["agent"])
    assert names_in(tmp_path) == {report.path.name, "latest"}


def test_wrong_arguments_are_errors_before_the_block_runs(tmp_path):
    cp = make(tmp_path / "ckpt")
    for error, message, key, options in (
        (MissingKeyError, "Not registered: 'other'.*'policy'", "other", {}),
        (ComponentError, r"'agent'.*elementsckpt\.Files\(load=", "agent", {}),
        (MetadataError, "Metadata", "policy", {"metadata": object()}),
    ):
        with pytest.raises(error, match=message):
            cp.staging(key, **options).__enter__()
    with pytest.raises(ValueError, match="no directory"):
        make().staging("policy").__enter__()
    assert os.listdir(tmp_path) == []


def test_without_write_there_is_no_folder(tmp_path):
    cp = make(tmp_path / "ckpt", write=False)
    with cp.staging("policy") as folder:
        assert not folder.exists()
    assert cp.agent.saves == 1
    assert os.listdir(tmp_path) == []


# Other saves meanwhile


@BACKGROUND
def test_another_save_may_be_made_in_the_block(tmp_path, background):
    cp = make(tmp_path, 1, keep=None, background=background)
    with cp.staging("policy") as folder:
        (folder / "x").write_text("x")
        other = cp.save(keys=["agent"]).path
        cp.agent.state = 2
    cp.wait()
    assert [info.path for info in cp.saves()] == [other, folder.parent]
    assert [info.sequence for info in cp.saves()] == [1, 2]
    assert elementsckpt.read(other) == {"agent": 1}
    assert loaded(tmp_path) == ({"x": b"x"}, 2)
    assert (tmp_path / "latest").read_text() == folder.parent.name


@BACKGROUND
def test_blocks_of_a_save_made_meanwhile_are_reused(tmp_path, background):
    # Both begin as number 2, after which their files are called.
    arrays = [noise(n, 2**20) for n in range(4)]
    cp = make(tmp_path, [], keep=1, background=background, compress=None)
    with cp.staging("policy"):
        pass
    with cp.staging("policy") as folder:
        (folder / "x").write_text("x")
        cp.agent.state = arrays[:3]
        other = cp.save(keys=["agent"]).path
        cp.wait()
        before = inodes_of(other)
        cp.agent.state = arrays
    cp.wait()
    assert set(before.values()) < set(inodes_of(folder.parent).values())
    assert not other.exists()
    files, state = loaded(folder.parent)
    assert files == {"x": b"x"}
    assert np.array_equal(state, arrays)


def test_another_object_and_thread_do_not_wait_for_the_block(tmp_path):
    cp = make(tmp_path, 1, keep=None)
    with cp.staging("policy") as folder:
        (folder / "x").write_text("x")
        another = make(tmp_path, 2, keep=None)
        savers = [
            threading.Thread(target=x.save, kwargs={"keys": ["agent"]})
            for x in (cp, another)
        ]
        for saver in savers:
            saver.start()
        for saver in savers:
            saver.join()
        assert len(cp.saves()) == 2
        assert folder.exists()  # It was not swept away.
    assert len(cp.saves()) == 3
    assert cp.latest() == folder.parent
    assert loaded(tmp_path) == ({"x": b"x"}, 1)


def test_blocks_may_be_nested(tmp_path):
    cp = make(tmp_path, keep=None)
    with cp.staging("policy") as outer:
        (outer / "x").write_text("outer")
        with cp.staging("policy") as inner:
            (inner / "x").write_text("inner")
    assert [info.path for info in cp.saves()] == [inner.parent, outer.parent]
    assert loaded(inner.parent)[0] == {"x": b"inner"}
    assert loaded(outer.parent)[0] == {"x": b"outer"}


@BACKGROUND
def test_a_save_that_would_have_to_be_made_again_is_an_error(tmp_path, background):
    # The others' files are gone with it.
    array = noise(1, 2**20)
    cp = make(tmp_path, {"old": array}, background=background, compress=None)
    stage(cp, lambda folder: None)
    cp.wait()
    first = cp.latest()
    flip_block(first, 0, keep_time=True)
    # It may not stay in a segment that has its old name, and so it is read.
    cp.agent.state = {"new": array}
    with pytest.raises(DamagedError, match="the next one does without"):
        stage_and_wait(cp, lambda folder: (folder / "x").write_text("x"))
    assert names_in(tmp_path) == {first.name, "latest"}
    stage_and_wait(cp, lambda folder: (folder / "x").write_text("x"))
    files, state = loaded(tmp_path)
    assert files == {"x": b"x"}
    assert np.array_equal(state["new"], array)


def stage_and_wait(cp, write):
    stage(cp, write)
    cp.wait()


@pytest.fixture
def refuse_commits(monkeypatch):
    """Return a function that makes all commits fail, or no more."""
    real = disk.syscall

    def refuse(call, *args):
        if call is os.replace and args[1].name == "manifest.json":
            raise OSError(28, "injected")
        return real(call, *args)

    return lambda on: monkeypatch.setattr(disk, "syscall", refuse if on else real)


def test_what_failed_in_the_background_is_raised_before_the_block(
    tmp_path, refuse_commits
):
    cp = make(tmp_path, background=True)
    refuse_commits(True)
    cp.save(keys=["agent"])
    with pytest.raises(elementsckpt.WriteError, match="injected"):
        stage(cp, pytest.fail)
    refuse_commits(False)
    stage(cp, lambda folder: None)
    cp.wait()
    assert loaded(tmp_path) == ({}, 0)


def test_what_failed_in_the_background_meanwhile_is_raised_when_the_save_is_made(
    tmp_path, refuse_commits
):
    def save_meanwhile(folder):
        (folder / "x").write_text("x")
        refuse_commits(True)
        cp.save(keys=["agent"])
        library_threads.join()
        refuse_commits(False)

    cp = make(tmp_path, background=True)
    with pytest.raises(elementsckpt.WriteError, match="injected"):
        stage(cp, save_meanwhile)
    assert loaded(tmp_path) == ({"x": b"x"}, 0)


def test_keys_that_begin_alike_have_folders_of_their_own(tmp_path):
    cp, keys = Checkpoint(tmp_path, fsync=False), ["я" * 20 + end for end in "12"]
    got = {}
    for key in keys:
        load = functools.partial(got.__setitem__, key)
        setattr(cp, key, Files(load=lambda folder, load=load: load(contents(folder))))
    with cp.staging(*keys) as folders:
        for key, folder in zip(keys, folders, strict=True):
            (folder / "x").write_text(key)
    cp.load()
    assert got == {key: {"x": key.encode()} for key in keys}

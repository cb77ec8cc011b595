"""The defects of `elements.Checkpoint`: one test each of what is claimed here instead.

Where it is cheap, a test first shows that the real elements has the defect, so that
nobody has to believe it.
"""

import os
import pickle
import signal

import elements
import numpy as np
import pytest

import elementsckpt
from elementsckpt import (
    Checkpoint,
    CheckpointError,
    DamagedError,
    MissingKeyError,
    SaveNotFoundError,
)

from support.boxes import Box, LazyStream, python


def make(package, directory, **kwargs):
    cp = package.Checkpoint(str(directory), **kwargs)
    cp.agent = Box("state")
    return cp


def folders(directory):
    return [x for x in directory.iterdir() if x.is_dir()]


DIES_IN_ITS_SAVE = """
import os, signal, sys
import elementsckpt

class Replay:
    def save(self):
        yield b"shard" * 1000
        os.kill(os.getpid(), signal.SIGKILL)
        yield b"never"

    def load(self, data):
        pass

cp = elementsckpt.Checkpoint(sys.argv[1], keep=2)
cp.replay = Replay()
cp.save()
"""


def leave_an_unfinished_save(forked, directory):
    """Kill a process in the middle of its save; return what it left."""
    before = set(directory.iterdir()) if directory.exists() else set()
    child = forked(DIES_IN_ITS_SAVE, directory)
    assert child.returncode == -signal.SIGKILL, child.stderr
    return {x for x in directory.iterdir() if x.is_dir()} - before


def test_a_stray_file_that_sorts_last_does_not_cost_the_saves(tmp_path):
    theirs, ours = tmp_path / "elements", tmp_path / "ours"
    for directory in (theirs, ours):
        directory.mkdir()
        (directory / "zzz.txt").write_text("mine")
    make(elements, theirs).save()
    assert folders(theirs) == []
    cp = make(elementsckpt, ours)
    for _ in range(3):
        cp.save()
        assert folders(ours) == [cp.latest()]
    assert (ours / "zzz.txt").read_text() == "mine"
    cp.load()


def test_a_stray_file_that_sorts_first_does_not_stop_the_saves(tmp_path):
    (tmp_path / "0.txt").write_text("mine")
    cp = make(elementsckpt, tmp_path)
    for _ in range(3):
        cp.save()
        assert folders(tmp_path) == [cp.latest()]
    assert (tmp_path / "0.txt").read_text() == "mine"


# The clock of the child is replaced, wherever the library has a name for it.
SAVES_IN_ANOTHER_YEAR = """
import datetime, sys, time

offset = datetime.timedelta(days=365 * 20)
real, seconds, nanoseconds = datetime.datetime, time.time, time.time_ns

class Future(real):
    @classmethod
    def now(cls, tz=None):
        return real.now(tz) + offset

    @classmethod
    def utcnow(cls):
        return real.now(datetime.timezone.utc).replace(tzinfo=None) + offset

import elementsckpt.engine

datetime.datetime = Future
time.time = lambda: seconds() + offset.total_seconds()
time.time_ns = lambda: nanoseconds() + int(offset.total_seconds()) * 10**9
for name, module in list(sys.modules.items()):
    if name.startswith("elementsckpt") and hasattr(module, "datetime"):
        module.datetime = Future

class Box:
    def save(self):
        return "from the future"

    def load(self, data):
        pass

cp = elementsckpt.Checkpoint(sys.argv[1])
cp.agent = Box()
print(cp.save().path.name)
"""


def test_a_clock_that_steps_back_costs_the_old_save_not_the_new_one(tmp_path, forked):
    theirs, ours = tmp_path / "elements", tmp_path / "ours"
    (theirs / "20990101T000000F000000").mkdir(parents=True)
    make(elements, theirs).save()
    assert [x.name for x in folders(theirs)] == ["20990101T000000F000000"]

    child = forked(SAVES_IN_ANOTHER_YEAR, ours)
    assert child.returncode == 0, child.stderr
    (future,) = folders(ours)
    assert future.name == child.stdout.strip()
    cp = make(elementsckpt, ours)
    report = cp.save()
    assert report.path.name < future.name
    assert folders(ours) == [report.path] == [cp.latest()]
    cp.agent.state = None
    cp.load()
    assert cp.agent.state == "state"


def test_incomplete_folders_do_not_count_for_keep(tmp_path, forked):
    theirs, ours = tmp_path / "elements", tmp_path / "ours"
    cp = make(elements, theirs, keep=2)
    cp.save()
    (theirs / "20990101T000000F000000").mkdir()  # As a crash in a save leaves it.
    cp.save()
    assert sum(elements.checkpoint.exists(x) for x in folders(theirs)) == 1

    cp = make(elementsckpt, ours, keep=2)
    good = [cp.save().path]
    (left,) = leave_an_unfinished_save(forked, ours)
    assert left.is_dir()
    good.append(cp.save().path)
    assert [x.path for x in cp.saves()] == good


def test_latest_is_never_written_in_place(tmp_path):
    theirs, ours = tmp_path / "elements", tmp_path / "ours"
    changed = {}
    for package, directory in ((elements, theirs), (elementsckpt, ours)):
        cp = make(package, directory)
        cp.save()
        os.link(directory / "latest", directory / ".before")
        before = (directory / ".before").read_text()
        cp.save()
        assert (directory / "latest").read_text() != before
        changed[package] = (directory / ".before").read_text() != before
    assert changed == {elements: True, elementsckpt: False}


def test_an_empty_latest_does_not_stop_the_run(tmp_path):
    theirs, ours = tmp_path / "elements", tmp_path / "ours"
    for package, directory in ((elements, theirs), (elementsckpt, ours)):
        make(package, directory).save()
        (directory / "latest").write_text("")
    with pytest.raises(AssertionError):
        make(elements, theirs).load_or_save()
    cp = make(elementsckpt, ours)
    assert cp.load_or_save() is True
    assert cp.agent.loads == 1


def test_exists_does_not_believe_in_an_incomplete_save(tmp_path, forked):
    theirs, ours = tmp_path / "elements", tmp_path / "ours"
    make(elements, theirs).save()
    for folder in folders(theirs):
        (folder / "done").unlink()
    assert make(elements, theirs).exists() is True

    (left,) = leave_an_unfinished_save(forked, ours)
    (ours / "latest").write_text(left.name)
    cp = make(elementsckpt, ours)
    assert cp.exists() is False
    assert cp.exists(left) is False
    assert cp.latest() is None
    assert cp.load_or_save() is False


LOADS = """
import sys
import {package} as package

class Box:
    def load(self, data):
        print("loaded", data)

    def save(self):
        return None

cp = package.Checkpoint()
cp.agent = Box()
for path in sys.argv[1:]:
    try:
        cp.load(path)
    except Exception as error:
        print(type(error).__name__)
"""


def test_no_error_depends_on_assert(tmp_path, forked):
    theirs, ours = tmp_path / "elements", tmp_path / "ours"
    make(elements, theirs).save(str(tmp_path / "elements"))
    (theirs / "done").unlink()
    script = LOADS.format(package="elements")
    assert "loaded state" not in python(script, theirs).stdout
    assert "loaded state" in python(script, theirs, flags=["-O"]).stdout

    (left,) = leave_an_unfinished_save(forked, ours)
    script = LOADS.format(package="elementsckpt")
    for flags in ((), ("-OO",)):
        child = python(script, theirs, left, flags=flags)
        assert child.stdout == "SaveNotFoundError\nSaveNotFoundError\n", child.stderr


def test_more_than_ten_thousand_shards_load_in_order(tmp_path):
    # test_elements_folders.py has the same with folders that elements wrote.
    assert sorted(["x-9999.pkl", "x-10000.pkl"]) == ["x-10000.pkl", "x-9999.pkl"]
    cp = Checkpoint(tmp_path)
    cp.replay = LazyStream(range(10_002))
    cp.save()
    cp.load()
    assert list(cp.replay.got) == list(range(10_002))


def test_two_generators_that_are_read_late_yield_each_its_own_data(tmp_path):
    got = {}
    for package in (elements, elementsckpt):
        cp = package.Checkpoint(str(tmp_path / package.__name__))
        cp.one, cp.two = LazyStream([1, 11]), LazyStream([2, 22])
        cp.save()
        cp.load()
        got[package] = list(cp.one.got), list(cp.two.got)
    assert got[elements] == ([2, 22], [2, 22])
    assert got[elementsckpt] == ([1, 11], [2, 22])


def test_an_empty_generator_can_be_loaded(tmp_path):
    for package in (elements, elementsckpt):
        cp = package.Checkpoint(str(tmp_path / package.__name__))
        cp.replay = LazyStream()
        cp.save()
        if package is elements:
            with pytest.raises(KeyError):
                cp.load()
    cp.load()
    assert list(cp.replay.got) == []


def test_load_changes_nothing_when_a_later_component_is_missing(tmp_path):
    loads = {}
    for package, error in ((elements, KeyError), (elementsckpt, MissingKeyError)):
        make(package, tmp_path / package.__name__).save()
        cp = make(package, tmp_path / package.__name__)
        cp.replay = Box()
        with pytest.raises(error):
            cp.load()
        loads[package] = cp.agent.loads
    assert loads == {elements: 1, elementsckpt: 0}


def test_hasattr_answers_instead_of_raising():
    with pytest.raises(KeyError):
        hasattr(elements.Checkpoint(), "nope")
    assert not hasattr(Checkpoint(), "nope")
    with pytest.raises(AttributeError):
        _ = Checkpoint().nope


class Harmful:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_loading_a_foreign_save_runs_no_code(tmp_path):
    marker = tmp_path / "code was run"
    path = tmp_path / "elements"
    cp = elements.Checkpoint()
    cp.agent = Box(Harmful(marker))
    cp.save(str(path))
    cp.agent = Box()
    cp.load(str(path))
    assert marker.exists()
    marker.rmdir()
    ours = tmp_path / "ours"
    elementsckpt.checkpoint.save(ours, {"agent": lambda: [1, Harmful(marker)]})
    for foreign in (path, ours):
        cp = make(elementsckpt, tmp_path / "ckpt")
        with pytest.raises(elementsckpt.PickleError, match="agent"):
            cp.load(foreign)
        assert elementsckpt.read(foreign) in ({}, {"agent": [1, None]})
        elementsckpt.info(foreign)
        assert cp.agent.loads == 0
        assert not marker.exists()


COUNTS_SYNCS = """
import os, sys, threading
import elementsckpt

calls = []

def counted(sync):
    def call(*args):
        calls.append(sync)
        return sync(*args)
    return call

for name in ("fsync", "fdatasync", "sync"):
    if hasattr(os, name):
        setattr(os, name, counted(getattr(os, name)))

class Box:
    def save(self):
        return b"state" * 100_000

    def load(self, data):
        pass

cp = elementsckpt.Checkpoint(sys.argv[1], fsync=sys.argv[2] == "True")
cp.agent = Box()
cp.save()
print(len(calls))
"""


def test_a_save_is_synced_to_the_disk(tmp_path):
    child = python(COUNTS_SYNCS, tmp_path / "synced", True)
    assert child.returncode == 0, child.stderr
    (folder,) = folders(tmp_path / "synced")
    # Each file of the save, the folder itself, and the directory that names it.
    assert int(child.stdout) >= len(list(folder.iterdir())) + 2
    child = python(COUNTS_SYNCS, tmp_path / "unsynced", False)
    assert (child.returncode, child.stdout.strip()) == (0, "0"), child.stderr


def test_a_changed_byte_is_noticed(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, 100_000, np.uint8)
    pattern = noise[5000:5099].tobytes()
    for package in (elements, elementsckpt):
        path = tmp_path / package.__name__
        cp = package.Checkpoint()
        cp.agent = Box(noise)
        cp.save(str(path))
        damaged = 0
        for file in path.iterdir():
            content = file.read_bytes()
            damaged += content.count(pattern)
            file.write_bytes(content.replace(pattern, bytes(99), 1))
        assert damaged == 1
        if package is elements:
            cp.load(str(path))
            assert not cp.agent.state[5000:5099].any()
    with pytest.raises(DamagedError, match="agent"):
        cp.load(path)
    assert cp.agent.loads == 0


def test_a_save_has_metadata_that_is_read_without_its_pickles(tmp_path):
    cp = make(elementsckpt, tmp_path, step=7)
    cp.save(metadata={"config": {"seed": 3}})
    info = elementsckpt.info(tmp_path)
    assert (info.step, info.metadata) == (7, {"config": {"seed": 3}})
    assert info.time.tzinfo is not None
    (path,) = folders(tmp_path)
    for file in path.iterdir():
        with pytest.raises((pickle.UnpicklingError, ValueError, KeyError, EOFError)):
            pickle.loads(file.read_bytes())


def test_nothing_is_printed(tmp_path, capfd):
    make(elements, tmp_path / "elements").load_or_save()
    assert capfd.readouterr().out != ""
    for _ in range(2):
        make(elementsckpt, tmp_path / "ours").load_or_save()
    with pytest.raises(SaveNotFoundError):
        make(elementsckpt, tmp_path / "none").load()
    assert capfd.readouterr() == ("", "")


def test_every_error_is_of_one_family():
    names = [x for x in dir(elementsckpt) if x.endswith("Error")]
    assert len(names) >= 10
    builtins = (FileNotFoundError, FileExistsError, KeyError, ValueError, OSError)
    for name in names:
        error = getattr(elementsckpt, name)
        assert issubclass(error, CheckpointError)
        assert error is CheckpointError or issubclass(error, builtins)

"""Any sequence of saves, loads and things that people do, against a plain model."""

import copy
import dataclasses
import os
import pathlib
import shutil
import tempfile
import typing

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

import elementsckpt
from elementsckpt import (
    Checkpoint,
    DamagedError,
    MissingKeyError,
    SaveExistsError,
    SaveNotFoundError,
)
from elementsckpt.storage import disk

from support.boxes import protected
from support.faults import use_one_thread, use_small_segments
from support.folders import Gate

KEYS = ("agent", "replay", "env")
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
ROW_BYTES = 256  # A block has as many.
# What numbers stand for in an array: the lower half is compressible, the other is not.
ROWS = np.random.default_rng(0).integers(0, 256, (256, ROW_BYTES), np.uint8)
ROWS[:128] = np.arange(128)[:, None]
NUMBERS = {row.tobytes(): number for number, row in enumerate(ROWS)}

manners = st.fixed_dictionaries(
    {
        "keep": st.sampled_from([1, 2, None]),
        "background": st.booleans(),
        "compress": st.sampled_from(["auto", "auto", None, 1]),
        "fsync": st.booleans(),
        "staging_bytes": st.sampled_from([None, None, 2 * ROW_BYTES, 0]),
    }
)

states = st.fixed_dictionaries(
    {
        "x": st.lists(st.integers(0, 255), min_size=1, max_size=9),
        "n": st.integers(),
        "s": st.one_of(st.none(), st.text(max_size=3)),
        "t": st.tuples(st.booleans(), st.floats(allow_nan=False)),
    }
)
metadatas = st.dictionaries(st.text(max_size=3), st.integers(-9, 9), max_size=2)
some_keys = st.sets(st.sampled_from(KEYS), min_size=1).map(sorted)
keysets = st.one_of(st.just(list(KEYS)), some_keys)  # Mostly all of them.
all_states = st.fixed_dictionaries(dict.fromkeys(KEYS, states))
changes = st.lists(
    st.tuples(st.sampled_from(KEYS), st.integers(0, 8), st.integers(0, 255)),
    max_size=4,
)


class Box:
    """A component that holds a state, its list "x" as an array of a row per number."""

    def __init__(self):
        self.rest = self.rows = None

    @property
    def state(self):
        if self.rest is None:
            return None
        return {**self.rest, "x": [NUMBERS[row.tobytes()] for row in self.rows]}

    @state.setter
    def state(self, state):
        self.rest, self.rows = dict(state), ROWS[state["x"]]

    def change(self, index, number):
        """Change a number of the list in place; returns which one it was."""
        index %= len(self.rows)
        self.rows[index] = ROWS[number]
        return index

    def save(self):
        return {**self.rest, "x": self.rows}

    def load(self, data):
        assert data["x"].dtype == np.uint8
        # Not the mapped file: people change it below.
        self.rest, self.rows = dict(data), np.array(data["x"])


class Stream(Box):
    """A component that saves its state in shards."""

    def save(self):
        yield from super().save().items()

    def load(self, data):
        super().load(dict(data))


def make(key):
    """Return a component; one of them saves in shards."""
    return Stream() if key == "replay" else Box()


class Range(typing.NamedTuple):
    """Bytes of a file of a save."""

    name: str
    key: str
    start: int
    end: int
    is_frame: bool


def is_frame(found):
    return found.content is not None and len(found.content) != found.end - found.start


@dataclasses.dataclass
class Save:
    """What the model knows about a save.

    Attributes:
      path: Its folder.
      sequence: Its number.
      values: State by key.
      metadata: What was given with it.
      run_keys: What the run had, of which it may have saved only some.
      explicit: Whether its path was given.
      is_copy: Whether a person made it, by copying another.
      damaged: Keys whose bytes were changed; "manifest" stands for all.
      ranges: The bytes that nobody may change.
    """

    path: pathlib.Path
    sequence: int
    values: dict
    metadata: dict
    run_keys: set = dataclasses.field(default_factory=set)
    explicit: bool = False
    is_copy: bool = False
    damaged: set = dataclasses.field(default_factory=set)
    ranges: list = dataclasses.field(default_factory=list)

    def __post_init__(self):
        self.ranges = self.ranges or [
            Range(x.file.name, x.key, x.start, x.end, is_frame(x))
            for x in protected(self.path)
        ]

    @property
    def rank(self):
        # A damaged manifest does not tell, but its sequence can still be read.
        explicit = self.explicit and self.is_listed
        return not explicit, self.sequence, self.is_prunable, self.path.name

    @property
    def is_listed(self):
        return "manifest" not in self.damaged

    @property
    def is_prunable(self):
        return self.is_listed and not self.explicit and not self.is_copy


class Run(RuleBasedStateMachine):
    """A run with one directory, and the model of it."""

    def __init__(self):
        super().__init__()
        self.root = pathlib.Path(tempfile.mkdtemp(dir=MEMORY))
        self.patch = pytest.MonkeyPatch()
        use_small_segments(self.patch.setattr, ROW_BYTES)
        # With more, the order of frames in a segment would not follow from the rules.
        use_one_thread(self.patch.setattr)
        self.directory = self.root / "ckpt"
        self.saves = []  # Of the directory.
        self.exports = []  # Elsewhere.
        self.latest = None  # What the file says.
        self.strays = {}
        self.garbage = []
        self.count = 0

    def teardown(self):
        self.patch.undo()
        shutil.rmtree(self.root)

    # Model

    @property
    def ordered(self):
        return sorted(self.saves, key=lambda save: save.rank)

    @property
    def listed(self):
        return [save for save in self.ordered if save.is_listed]

    def next_sequence(self):
        return 1 + max((save.sequence for save in self.saves), default=0)

    def candidates(self, keys):
        """Return the saves that have the keys, newest first, or all if none has."""
        saves = self.ordered[::-1]
        having = [x for x in saves if not x.is_listed or set(keys) <= set(x.values)]
        return having or saves

    def expected(self, keys):
        """Return the save that a load of these keys gets, or the error."""
        if not self.saves:
            return SaveNotFoundError
        for save in self.candidates(keys):
            if not save.is_listed:
                continue
            if not set(keys) <= set(save.values):
                return MissingKeyError
            if not save.damaged & set(keys):
                return save
        return DamagedError

    def unique(self, name):
        self.count += 1
        return f"{name}{self.count}"

    # The run

    @initialize(manner=manners, keys=keysets, values=all_states)
    def start(self, manner, keys, values):
        self.reopen(manner, keys, values)

    @rule(manner=manners, keys=keysets, values=all_states)
    def reopen(self, manner, keys, values):
        self.keep = manner["keep"]
        self.left_out, self.distrusted = set(), set()
        self.cp = Checkpoint(self.directory, **manner)
        self.values = dict.fromkeys(keys)
        for key in keys:
            setattr(self.cp, key, make(key))
        self.work(values)

    @rule(values=all_states)
    def work(self, values):
        for key in self.values:
            getattr(self.cp, key).state = values[key]
            self.values[key] = copy.deepcopy(values[key])

    @rule(changes=changes)
    def change(self, changes):
        for key, index, number in changes:
            if key in self.values:
                index = getattr(self.cp, key).change(index, number)
                self.values[key]["x"][index] = number

    @rule(metadata=metadatas)
    def save(self, metadata):
        report = self.cp.save(metadata=metadata)
        self.saved(list(self.values), self.cp.wait() or report, metadata)

    @rule(keys=keysets)
    def save_some(self, keys):
        keys = [key for key in keys if key in self.values] or list(self.values)
        report = self.cp.save(keys=keys)
        self.saved(keys, self.cp.wait() or report, {})

    @rule(changes=changes, delete=st.booleans())
    def save_and_go_on(self, changes, delete):
        sequence = self.next_sequence()
        values = copy.deepcopy(self.values)
        with pytest.MonkeyPatch.context() as patch:
            gate = Gate()
            patch.setattr(disk, "syscall", gate)
            report = self.cp.save()
            self.change(changes)
            if not report.is_finished:
                assert report.path not in [info.path for info in self.cp.saves()]
                if delete and self.saves:
                    self.delete(self.ordered[-1])
            gate.open()
            report = self.cp.wait() or report
        now, self.values = self.values, values
        self.saved(list(values), report, {}, sequence)
        self.values = now

    def saved(self, keys, report, metadata, sequence=None):
        assert report.path.parent == self.directory
        assert report.sequence == (sequence or self.next_sequence())
        values = copy.deepcopy({key: self.values[key] for key in keys})
        run_keys = {*self.values, *self.left_out}
        saved = Save(report.path, report.sequence, values, metadata, run_keys)
        self.saves.append(saved)
        self.latest = report.path.name
        self.garbage.clear()
        if self.keep is not None:
            self.prune(run_keys)

    def prune(self, run_keys):
        ours = [save for save in self.ordered if save.is_prunable]
        ours = [save for save in ours if save.path not in self.found_damaged()]
        # A save of some components never costs the others.
        having = [[x for x in ours if key in x.values][-1:] for key in run_keys]
        stays = [*ours[-self.keep :], *(x for some in having for x in some)]
        for save in ours:
            if save not in stays:
                self.saves.remove(save)

    def found_damaged(self):
        """Return what loads found damaged, and what saves did, as far as they read."""
        found = set(map(pathlib.Path, self.cp._engine._directory._damaged))
        assert self.distrusted <= found
        assert all(save.damaged for save in self.saves if save.path in found)
        return found

    @rule(inside=st.booleans(), metadata=metadatas)
    def save_to_a_path(self, inside, metadata):
        parent, saves = self.root / "exports", self.exports
        if inside:
            parent, saves = self.directory, self.saves
        sequence = 1 + max((save.sequence for save in saves), default=0)
        path = parent / self.unique("best")
        report = self.cp.save(path, metadata=metadata)
        report = self.cp.wait() or report
        assert report.is_finished
        assert report.bytes_reused == 0
        assert (report.path, report.sequence) == (path, sequence)
        values = copy.deepcopy(self.values)
        run_keys = {*self.values, *self.left_out}
        saves.append(Save(path, sequence, values, metadata, run_keys, explicit=True))
        with pytest.raises(SaveExistsError):
            self.cp.save(path)

    @precondition(lambda self: self.saves)
    @rule(keys=keysets, mmap=st.booleans())
    def load(self, keys, mmap):
        keys = [key for key in self.values if key in keys] or list(self.values)
        expected = self.expected(keys)
        newest = self.tried(keys)
        if isinstance(expected, type):
            with pytest.raises(expected):
                self.cp.load(keys=keys, mmap=mmap)
            return
        report = self.cp.load(keys=keys, mmap=mmap)
        assert report.path == expected.path
        assert report.fell_back_from == (None if newest is expected else newest.path)
        for key in keys:
            self.values[key] = copy.deepcopy(expected.values[key])

    def tried(self, keys):
        """Take note of what will be found damaged; return the first that is tried."""
        tried = self.candidates(keys)
        for save in tried:
            lacks = not set(keys) <= set(save.values)
            if save.is_listed and (lacks or not save.damaged & set(keys)):
                break
            self.distrusted.add(save.path)
        return tried[0] if tried else None

    @rule()
    def resume(self):
        expected = self.expected(self.values)
        self.tried(self.values)
        if expected is SaveNotFoundError:
            assert not self.cp.load_or_save()
            self.cp.wait()
            (info,) = self.cp.saves()
            self.saved(list(self.values), info, {})
        elif isinstance(expected, type):
            with pytest.raises(expected):
                self.cp.load_or_save()
        else:
            assert self.cp.load_or_save()
            self.values = copy.deepcopy({k: expected.values[k] for k in self.values})
            self.left_out = {*expected.values, *expected.run_keys} - set(self.values)

    @precondition(lambda self: self.saves or self.exports)
    @rule(data=st.data())
    def load_a_path(self, data):
        self.check(data.draw(st.sampled_from(self.saves + self.exports)))

    def check(self, save):
        """Load a save by its path, if it can be."""
        loaded = {key: make(key) for key in save.values}
        loadfns = {key: box.load for key, box in loaded.items()}
        if save.damaged:
            with pytest.raises(DamagedError):
                elementsckpt.checkpoint.load(save.path, loadfns)
            assert not any(box.state for box in loaded.values())
        else:
            elementsckpt.checkpoint.load(save.path, loadfns)
            assert {key: box.state for key, box in loaded.items()} == save.values

    # Other people

    @precondition(lambda self: self.saves)
    @rule()
    def delete_the_newest(self):
        self.delete(self.ordered[-1])

    @precondition(lambda self: self.saves)
    @rule(data=st.data())
    def delete_any(self, data):
        self.delete(data.draw(st.sampled_from(self.saves)))

    def delete(self, save):
        shutil.rmtree(save.path)
        self.saves.remove(save)
        for other in self.saves:
            self.check(other)

    @precondition(lambda self: self.saves)
    @rule(data=st.data())
    def copy_a_save(self, data):
        save = data.draw(st.sampled_from(self.saves))
        target = self.directory / self.unique("copy")
        shutil.copytree(save.path, target)
        copied = copy.deepcopy(save)
        self.saves.append(dataclasses.replace(copied, path=target, is_copy=True))

    @precondition(lambda self: self.saves and not self.ordered[-1].damaged)
    @rule(data=st.data())
    def damage_the_newest(self, data):
        self.change_a_byte(self.ordered[-1], data)

    @precondition(lambda self: self.saves)
    @rule(data=st.data())
    def damage_any(self, data):
        save = data.draw(st.sampled_from(self.saves))
        if not save.damaged:
            self.change_a_byte(save, data)

    def change_a_byte(self, save, data):
        found = data.draw(st.sampled_from(save.ranges))
        file = save.path / found.name
        content = bytearray(file.read_bytes())
        position = data.draw(st.integers(found.start, found.end - 1))
        if found.is_frame:  # It has bits that mean nothing.
            content[found.start : found.end] = bytes(found.end - found.start)
        elif found.key != "manifest" or position not in place_of_sequence(content):
            content[position] ^= data.draw(st.integers(1, 255))
        else:  # What is damaged should not lie.
            return
        self.overwrite(file, content, range(found.start, found.end))

    def overwrite(self, file, content, changed):
        """Damage a file in all saves that have it."""
        status = file.stat()
        file.write_bytes(content)
        later = status.st_mtime_ns + 10**9  # Clocks of file systems may be coarse.
        os.utime(file, ns=(later, later))
        for save in self.saves:
            for name, key, start, end, _ in save.ranges:
                path = save.path / name
                is_same = path.exists() and path.stat().st_ino == status.st_ino
                if is_same and start < changed.stop and changed.start < end:
                    save.damaged.add(key)

    @precondition(lambda self: self.saves)
    @rule(data=st.data(), kind=st.sampled_from(["cut", "unlink"]))
    def lose_a_segment(self, data, kind):
        save = data.draw(st.sampled_from(self.saves))
        names = sorted({x.name for x in save.ranges} - {"manifest.json"})
        if save.damaged or not names:
            return
        file = save.path / data.draw(st.sampled_from(names))
        if kind == "cut":
            content = file.read_bytes()
            size = data.draw(st.integers(0, len(content) - 1))
            self.overwrite(file, content[:size], range(len(content)))
        else:
            file.unlink()
            save.damaged |= {x.key for x in save.ranges if x.name == file.name}

    @rule(name=st.sampled_from(["notes.txt", ".hidden", "logs/run.txt"]))
    def drop_a_file(self, name):
        path = self.directory / self.unique("stray") / name
        if "/" not in name:
            path = self.directory / self.unique(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        self.strays[path] = name

    @rule()
    def drop_a_manifest_of_another_program(self):
        path = self.directory / self.unique("webapp") / "manifest.json"
        path.parent.mkdir(parents=True)
        path.write_text('{"name": "app"}')
        self.strays[path] = '{"name": "app"}'

    @precondition(lambda self: self.listed)
    @rule()
    def die_in_a_save(self):
        save = self.listed[-1]
        target = self.directory / f"20200101T000000F{self.count:06d}"
        self.count += 1
        shutil.copytree(save.path, target)
        (target / "manifest.json").rename(target / ".manifest.json")
        self.garbage.append(target)

    # What always holds

    @invariant()
    def the_saves_are_those_of_the_model(self):
        infos = self.cp.saves()
        listed = self.listed
        assert [info.path for info in infos] == [save.path for save in listed]
        assert [info.sequence for info in infos] == [save.sequence for save in listed]
        for info, save in zip(infos, listed, strict=True):
            assert info.metadata == save.metadata
            assert set(info.components) == set(save.values)
        assert self.cp.latest() == (listed[-1].path if listed else None)
        assert self.cp.exists() == bool(self.saves)

    @invariant()
    def a_save_folder_holds_its_files_only(self):
        for save in self.saves:
            if not save.damaged:
                names = {found.name for found in save.ranges}
                assert set(os.listdir(save.path)) == names

    @invariant()
    def the_components_hold_what_the_model_says(self):
        assert {key: getattr(self.cp, key).state for key in self.cp} == self.values

    @invariant()
    def the_directory_holds_nothing_else(self):
        expected = {save.path for save in self.saves} | set(self.garbage)
        for path, text in self.strays.items():
            assert path.read_text() == text
            expected.add(self.directory / path.relative_to(self.directory).parts[0])
        if self.latest is not None:
            expected.add(self.directory / "latest")
            assert (self.directory / "latest").read_text() == self.latest
        found = set(self.directory.iterdir()) if self.directory.exists() else set()
        assert found == expected


def place_of_sequence(manifest):
    """Return the positions of the line that has the sequence of a save."""
    start = manifest.index(b'"sequence":')
    return range(start, manifest.index(b"\n", start))


Run.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestRun = Run.TestCase

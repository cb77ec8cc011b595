"""Any sequence of saves, loads and things that people do, against a plain model."""

import copy
import dataclasses
import json
import os
import pathlib
import shutil
import tempfile

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

KEYS = ("agent", "replay", "env")
KEEPS = st.sampled_from([1, 2, None])
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

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


class Box:
    """A component that holds a state, its list "x" as an array while it is saved."""

    def __init__(self):
        self.state = None

    def save(self):
        return {**self.state, "x": np.array(self.state["x"], np.uint8)}

    def load(self, data):
        assert data["x"].dtype == np.uint8
        self.state = {**data, "x": data["x"].tolist()}


class Stream(Box):
    """A component that saves its state in shards."""

    def save(self):
        yield from super().save().items()

    def load(self, data):
        super().load(dict(data))


def make(key):
    """Return a component; one of them saves in shards."""
    return Stream() if key == "replay" else Box()


@dataclasses.dataclass
class Save:
    """What the model knows about a save.

    Attributes:
      path: Its folder.
      sequence: Its number.
      values: State by key.
      metadata: What was given with it.
      explicit: Whether its path was given.
      is_copy: Whether a person made it, by copying another.
      damaged: Keys whose bytes were changed; "manifest" stands for all.
    """

    path: pathlib.Path
    sequence: int
    values: dict
    metadata: dict
    explicit: bool = False
    is_copy: bool = False
    damaged: set = dataclasses.field(default_factory=set)

    @property
    def rank(self):
        # A damaged manifest does not tell; the names of segments have the sequence.
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
        self.directory = self.root / "ckpt"
        self.saves = []  # Of the directory.
        self.exports = []  # Elsewhere.
        self.latest = None  # What the file says.
        self.strays = {}
        self.garbage = []
        self.count = 0

    def teardown(self):
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

    def expected(self, keys):
        """Return the save that a load of these keys gets, or the error."""
        if not self.saves:
            return SaveNotFoundError
        for save in reversed(self.ordered):
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

    @initialize(keep=KEEPS, keys=keysets, values=all_states)
    def start(self, keep, keys, values):
        self.reopen(keep, keys, values)

    @rule(keep=KEEPS, keys=keysets, values=all_states)
    def reopen(self, keep, keys, values):
        self.keep = keep
        self.cp = Checkpoint(self.directory, keep=keep, fsync=False)
        self.values = dict.fromkeys(keys)
        for key in keys:
            setattr(self.cp, key, make(key))
        self.work(values)

    @rule(values=all_states)
    def work(self, values):
        for key in self.values:
            getattr(self.cp, key).state = values[key]
            self.values[key] = copy.deepcopy(values[key])

    @rule(metadata=metadatas)
    def save(self, metadata):
        self.saved(list(self.values), self.cp.save(metadata=metadata), metadata)

    @rule(keys=keysets)
    def save_some(self, keys):
        keys = [key for key in keys if key in self.values] or list(self.values)
        self.saved(keys, self.cp.save(keys=keys), {})

    def saved(self, keys, report, metadata):
        assert report.path.parent == self.directory
        assert report.sequence == self.next_sequence()
        values = copy.deepcopy({key: self.values[key] for key in keys})
        self.saves.append(Save(report.path, report.sequence, values, metadata))
        self.latest = report.path.name
        self.garbage.clear()
        if self.keep is not None:
            ours = [save for save in self.ordered if save.is_prunable]
            for save in ours[: -self.keep]:
                self.saves.remove(save)

    @rule(inside=st.booleans(), metadata=metadatas)
    def save_to_a_path(self, inside, metadata):
        parent, saves = self.root / "exports", self.exports
        if inside:
            parent, saves = self.directory, self.saves
        sequence = 1 + max((save.sequence for save in saves), default=0)
        path = parent / self.unique("best")
        report = self.cp.save(path, metadata=metadata)
        assert (report.path, report.sequence) == (path, sequence)
        values = copy.deepcopy(self.values)
        saves.append(Save(path, sequence, values, metadata, explicit=True))
        with pytest.raises(SaveExistsError):
            self.cp.save(path)

    @precondition(lambda self: self.saves)
    @rule(keys=keysets)
    def load(self, keys):
        keys = [key for key in self.values if key in keys]
        expected = self.expected(keys)
        if isinstance(expected, type):
            with pytest.raises(expected):
                self.cp.load(keys=keys)
            return
        report = self.cp.load(keys=keys)
        assert report.path == expected.path
        newest = self.ordered[-1]
        assert report.fell_back_from == (None if newest is expected else newest.path)
        for key in keys:
            self.values[key] = copy.deepcopy(expected.values[key])

    @rule()
    def resume(self):
        expected = self.expected(self.values)
        if expected is SaveNotFoundError:
            assert not self.cp.load_or_save()
            (info,) = self.cp.saves()
            self.saved(list(self.values), info, {})
        elif isinstance(expected, type):
            with pytest.raises(expected):
                self.cp.load_or_save()
        else:
            assert self.cp.load_or_save()
            self.values = copy.deepcopy({k: expected.values[k] for k in self.values})

    @precondition(lambda self: self.saves or self.exports)
    @rule(data=st.data())
    def load_a_path(self, data):
        save = data.draw(st.sampled_from(self.saves + self.exports))
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
        shutil.rmtree(self.ordered[-1].path)
        self.saves.remove(self.ordered[-1])

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
        save = self.ordered[-1]
        places = list(protected(save.path))
        file, key, start, end = data.draw(st.sampled_from(places))
        position = data.draw(st.integers(start, end - 1))
        content = bytearray(file.read_bytes())
        content[position] ^= data.draw(st.integers(1, 255))
        file.write_bytes(content)
        save.damaged.add(key)

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


def protected(save):
    """Yield file, key, start and end of the bytes that no one may change."""
    manifest = save / "manifest.json"
    content = json.loads(manifest.read_bytes())
    yield manifest, "manifest", 0, manifest.stat().st_size
    for item in content["components"]:
        segments = item["segments"]
        for file, _, start, _ in segments:
            yield save / file, item["key"], 0, start
        for segment, offset, size, _ in item["blocks"]:
            file = save / segments[segment][0]
            yield file, item["key"], offset, offset + size


Run.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestRun = Run.TestCase

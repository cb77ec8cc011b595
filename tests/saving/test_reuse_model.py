"""After any history of changes and saves, what is loaded equals what was saved."""

import collections
import copy
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
    rule,
)

from elementsckpt import Checkpoint
from elementsckpt.storage import disk

from support.boxes import Box, Stream
from support.faults import BLOCK_BYTES, unsynced
from support.folders import bytes_new_in, check_folder, use_small_blocks
from support.strategies import assert_same

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

# Chunks: few contents, so that many are equal, of sizes around those of blocks

SMALL = BLOCK_BYTES // 2
SIZES = [1, 500, SMALL - 1, SMALL, SMALL + 1]
SIZES += [BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES + 100]


def content(seed, size, kind):
    if kind == "zeros":
        data = np.zeros(size, np.uint8)
    elif kind == "compressible":
        data = np.full(size, seed, np.uint8)
    else:
        data = np.frombuffer(np.random.default_rng(seed).bytes(size), np.uint8).copy()
    if kind == "fortran":
        return np.asfortranarray(data[: size // 2 * 2].reshape(2, -1))
    return data[::2] if kind == "strided" else data


KINDS = ["noise", "noise", "zeros", "compressible", "fortran", "strided"]
arrays = st.builds(
    content, st.integers(0, 5), st.sampled_from(SIZES), st.sampled_from(KINDS)
)
chunks = st.one_of(
    arrays,
    st.lists(arrays, max_size=4),
    st.builds(lambda array, n: {"x": array, "n": n}, arrays, st.integers(0, 9)),
    st.integers(0, 2000).map(lambda n: b"bytes" * n),
)
many_chunks = st.lists(chunks, max_size=8)
positions = st.integers(0, 30)
numbers = st.integers(0, 1)
manners = st.fixed_dictionaries(
    {
        "keep": st.sampled_from([None, None, 1, 2]),
        "compress": st.sampled_from(["auto", None, 1]),
        "fsync": st.booleans(),
        "background": st.booleans(),
    }
)


class History(RuleBasedStateMachine):
    """A list of chunks that changes, and two objects that save it in one directory."""

    kind = Box

    def __init__(self):
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        use_small_blocks(self.patch.setattr)
        self.patch.setattr(disk, "syscall", unsynced)
        self.directory = pathlib.Path(tempfile.mkdtemp(dir=MEMORY))
        self.objects = []
        self.saved = {}  # What was saved, by path.

    def teardown(self):
        for cp in self.objects:
            cp.close()
        for path in self.present():
            self.check(path)
        self.patch.undo()
        shutil.rmtree(self.directory)

    @initialize(state=many_chunks, manners=st.tuples(manners, manners))
    def begin(self, state, manners):
        self.state = copy.deepcopy(state)
        self.objects = [self.new_object(manner) for manner in manners]

    def new_object(self, manner):
        cp = Checkpoint(self.directory, staging_bytes=16 << 20, **manner)
        cp.agent = self.kind(self.state)
        return cp

    # Changes in place

    @rule(where=positions, count=st.integers(1, 3))
    def drop(self, where, count):
        del self.state[where % (len(self.state) + 1) :][:count]
        del self.state[where % (len(self.state) + 1) : where + count]

    @rule(count=st.integers(1, 3))
    def drop_front(self, count):
        del self.state[:count]

    @rule(where=positions, new=chunks)
    def insert(self, where, new):
        self.state.insert(where, copy.deepcopy(new))

    @rule(new=many_chunks)
    def append(self, new):
        self.state.extend(copy.deepcopy(new))

    @rule(where=positions)
    def rotate(self, where):
        queue = collections.deque(self.state)
        queue.rotate(where)
        self.state[:] = queue

    @rule()
    def reverse(self):
        self.state.reverse()

    @rule(where=positions)
    def duplicate(self, where):
        self.state += copy.deepcopy(self.state[where : where + 2])

    @rule(where=positions, count=st.integers(1, 100))
    def write(self, where, count):
        """Change a range of each array, as a ring buffer does."""
        for array in self.state:
            if isinstance(array, np.ndarray) and array.size:
                array.reshape(-1)[37 * where % array.size :][:count] ^= 255

    # Saves, and what people do with them

    @rule(number=numbers)
    def save(self, number):
        before = self.present()
        report = self.objects[number].save()
        self.saved[report.path] = copy.deepcopy(self.state)
        if report.is_finished:
            self.wait()  # The other object may prune.
            if all(path.exists() for path in (*before, report.path)):
                assert report.bytes_written == bytes_new_in(report.path, *before)

    @rule()
    def wait(self):
        for cp in self.objects:
            cp.wait()
        for path in self.present()[-2:]:
            self.check(path)

    @rule(number=numbers, manner=manners)
    def restart(self, number, manner):
        self.objects[number].close()
        self.objects[number] = self.new_object(manner)

    @rule(where=positions)
    def remove(self, where):
        self.wait()
        paths = self.present()
        if paths:
            shutil.rmtree(paths[where % len(paths)])

    def present(self):
        return sorted(path for path in self.saved if path.exists())

    def check(self, path):
        check_folder(path)
        for options in ({}, {"mmap": True}):
            assert_same(self.saved[path], self.loaded(path, **options))

    def loaded(self, path, **options):
        cp = Checkpoint()
        cp.agent = self.kind()
        cp.load(path, **options)
        return cp.agent.state


class StreamHistory(History):
    """The same with the chunks as the shards of a generator."""

    kind = Stream


PROPERTY = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestHistory = History.TestCase
TestHistory.settings = PROPERTY
TestStreamHistory = StreamHistory.TestCase
TestStreamHistory.settings = PROPERTY

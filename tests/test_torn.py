"""Arrays that other threads change while they are being saved: the save verifies."""

import itertools
import threading

import numpy as np
import pytest
from faults import Box, Counts, Stream

import elementsckpt
from elementsckpt import Checkpoint, disk
from elementsckpt.blocks import BLOCK_BYTES

LARGE = BLOCK_BYTES // 4 * 2 + 12345  # Elements of four bytes: three blocks.
MEDIUM = 50_000  # A block of its own.
SMALL = 1000  # Shares a block.


def make(directory=None, **options):
    """Return a checkpoint of components with large, medium and small arrays."""
    cp = Checkpoint(directory, fsync=False, **options)
    cp.buffer = Box(arrays(LARGE, MEDIUM, SMALL, SMALL))
    cp.stream = Stream([arrays(MEDIUM, SMALL) for _ in range(3)])
    return cp


def arrays(*counts):
    return {f"x{n}": np.zeros(count, np.uint32) for n, count in enumerate(counts)}


def arrays_of(cp):
    states = [cp.buffer.state, *cp.stream.state]
    return [array for state in states for array in state.values()]


def load(directory):
    """Load and verify a save; returns its arrays."""
    cp = make(directory)
    cp.load()
    assert cp.buffer.loads == cp.stream.loads == 1
    return arrays_of(cp)


@pytest.fixture
def inject(monkeypatch):
    """Return a function that puts something into the place of `disk.syscall`."""
    return lambda fault: monkeypatch.setattr(disk, "syscall", fault)


class Mutates(Counts):
    """Changes arrays in place before a write, after it, or both."""

    def __init__(self, arrays, before, after):
        super().__init__()
        self.arrays, self.before, self.after = arrays, before, after

    def make(self, call, *args):
        if call.__name__ != "pwrite":
            return super().make(call, *args)
        for array in self.arrays:
            array += np.uint32(self.before)
        result = super().make(call, *args)
        for array in self.arrays:
            array += np.uint32(self.after)
        return result


@pytest.mark.parametrize("before", [0, 1, 3])
@pytest.mark.parametrize("after", [0, 1, -1, -3], ids="after{}".format)
def test_what_changes_around_each_write_verifies(before, after, tmp_path, inject):
    cp = make(tmp_path)
    changed = [x for x in arrays_of(cp) if x.size < LARGE]
    fault = Mutates(changed, before, after % 2**32)
    inject(fault)
    cp.save()
    assert fault.count > 10
    loaded = load(tmp_path)
    assert [x.shape for x in loaded] == [x.shape for x in arrays_of(cp)]


@pytest.mark.parametrize("kind", ["hidden", "steady"])
def test_a_large_array_that_changes_around_each_write_verifies(kind, tmp_path, inject):
    cp = make(tmp_path)
    large = cp.buffer.state["x0"]
    # "hidden": after each write the array is again what it was before.
    after = -1 % 2**32 if kind == "hidden" else 1
    fault = Mutates([large[::4096]], 1, after)
    inject(fault)
    cp.save()
    values = load(tmp_path)[0]
    assert not values[1::4096].any()
    assert values[::4096].max() <= 2 * fault.count


def test_what_does_not_change_is_right_beside_what_does(tmp_path, inject):
    cp = make(tmp_path)
    still = arrays_of(cp)[1::2]
    for number, array in enumerate(still):
        array[:] = np.arange(array.size) * (number + 1)
    inject(Mutates(arrays_of(cp)[2::2], 1, 1))
    cp.save()
    for saved, array in zip(load(tmp_path)[1::2], still, strict=True):
        assert np.array_equal(saved, array)


def test_saves_while_threads_write_always_verify(tmp_path):
    cp = make(tmp_path, keep=2)
    done = threading.Event()

    def play(array, number):
        # Fast, slow and there-and-back changes, as long as saves are being made.
        for step in itertools.count():
            if done.is_set():
                return
            start = step * 8191 % array.size
            array[start : start + 4096] += np.uint32(1 + number)
            array[:16] ^= np.uint32(1)

    threads = [
        threading.Thread(target=play, args=item)
        for item in zip(arrays_of(cp)[:4], range(4), strict=True)
    ]
    for thread in threads:
        thread.start()
    try:
        saves = [cp.save().path for _ in range(2)]
        for _ in range(12):
            saves.append(cp.save().path)
            load(tmp_path)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert len(set(saves)) == 14
    for save in cp.saves():
        elementsckpt.read(save.path, mmap=False)

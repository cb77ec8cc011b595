"""Arrays that other threads change while they are being saved: the save verifies."""

import itertools
import sys
import threading

import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint
from elementsckpt.format.sizes import Sizes

from support.boxes import make_boxes
from support.faults import Box, Counts, Stream, is_link

LARGE = Sizes().block // 4 * 2 + 12345  # Elements of four bytes: three blocks.
MEDIUM = 50_000  # A block of its own.
SMALL = 1000  # Shares a block.
MANNERS = {
    "raw": {"compress": None},
    "packed": {"compress": 1},
    "background": {"background": True},
    "background, no room": {"background": True, "staging_bytes": 0},
}


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


@pytest.fixture(params=MANNERS)
def manner(request):
    """Return the options of a checkpoint."""
    return MANNERS[request.param]


@pytest.fixture
def switching():
    """Have threads take turns often: more happens in each save, which waits less."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(interval)


def owns(manner):
    """Tell whether a save has what it saves before it makes the first write."""
    return manner.get("background", False) and "staging_bytes" not in manner


class Mutates(Counts):
    """Changes arrays in place before a write or a link, after it, or both."""

    def __init__(self, arrays, before, after):
        super().__init__()
        self.arrays, self.before, self.after = arrays, before, after

    def make(self, call, *args):
        if call.__name__ != "pwrite" and not is_link(call):
            return super().make(call, *args)
        for array in self.arrays:
            array += np.uint32(self.before)
        result = super().make(call, *args)
        for array in self.arrays:
            array += np.uint32(self.after)
        return result


@pytest.mark.parametrize("before", [0, 1, 3])
@pytest.mark.parametrize("after", [0, 1, -1, -3], ids="after{}".format)
def test_what_changes_around_each_write_verifies(
    before, after, manner, tmp_path, inject
):
    cp = make(tmp_path, **manner)
    states = [x.copy() for x in arrays_of(cp)]
    changed = [x for x in arrays_of(cp) if x.size < LARGE]
    fault = Mutates(changed, before, after % 2**32)
    inject(fault)
    cp.save()
    cp.wait()
    assert fault.count > 10
    loaded = load(tmp_path)
    assert [x.shape for x in loaded] == [x.shape for x in states]
    if owns(manner):
        assert all(map(np.array_equal, loaded, states))


@pytest.mark.parametrize("change", [0, 1, 2])
def test_what_changes_around_each_link_verifies(change, manner, tmp_path, inject):
    cp = make(tmp_path, **manner)
    rng = np.random.default_rng(0)
    for array in arrays_of(cp):
        array[:] = rng.integers(0, 1000, array.size)
    cp.save()
    cp.wait()
    # Some of it as it is, some changed now, all of it changed around each link.
    arrays_of(cp)[0][0] += 1
    arrays_of(cp)[3][:] += 1
    states = [x.copy() for x in arrays_of(cp)]
    fault = Mutates(arrays_of(cp), change, change)
    inject(fault)
    report = cp.save()
    report = cp.wait() or report
    loaded = load(tmp_path)
    assert [x.shape for x in loaded] == [x.shape for x in states]
    if not change:
        assert report.bytes_reused > report.bytes_written
        assert all(map(np.array_equal, loaded, states))


@pytest.mark.parametrize("kind", ["hidden", "steady"])
def test_a_large_array_that_changes_around_each_write_verifies(
    kind, manner, tmp_path, inject
):
    cp = make(tmp_path, **manner)
    large = cp.buffer.state["x0"]
    # "hidden": after each write the array is again what it was before.
    after = -1 % 2**32 if kind == "hidden" else 1
    fault = Mutates([large[::4096]], 1, after)
    inject(fault)
    cp.save()
    cp.wait()
    values = load(tmp_path)[0]
    assert not values[1::4096].any()
    assert values[::4096].max() <= 2 * fault.count


def test_what_does_not_change_is_right_beside_what_does(manner, tmp_path, inject):
    cp = make(tmp_path, **manner)
    still = arrays_of(cp)[1::2]
    for number, array in enumerate(still):
        array[:] = np.arange(array.size) * (number + 1)
    inject(Mutates(arrays_of(cp)[2::2], 1, 1))
    for _ in range(2):  # The second finds in the first what is still the same.
        cp.save()
        cp.wait()
        for saved, array in zip(load(tmp_path)[1::2], still, strict=True):
            assert np.array_equal(saved, array)


@pytest.mark.usefixtures("switching")
def test_saves_while_threads_write_always_verify(manner, tmp_path):
    cp = make(tmp_path, keep=2, **manner)
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
        for _ in range(3):
            saves.append(cp.save().path)
            load(tmp_path)
        cp.wait()
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert len(set(saves)) == 5
    for save in cp.saves():
        elementsckpt.read(save.path, mmap=False)


@pytest.mark.usefixtures("switching")
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("compress", [None, 1])
def test_a_byte_that_a_thread_toggles_never_damages_a_save(
    tmp_path, background, compress
):
    array = np.random.default_rng(0).integers(0, 7, 8 << 20, np.uint8)
    cp = make_boxes(tmp_path, replay=array, background=background, compress=compress)
    done = threading.Event()

    def toggle():
        while not done.is_set():
            for _ in range(1000):
                array[5 << 20] ^= 1

    thread = threading.Thread(target=toggle)
    thread.start()
    try:
        for _ in range(8):
            cp.save()
            cp.wait()
            make_boxes(tmp_path, replay=None).load()
    finally:
        done.set()
        thread.join()

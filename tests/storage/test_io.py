"""Bytes go from the arrays' own memory to the disk and back, in parallel."""

import os
import threading
import tracemalloc

import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint
from elementsckpt.storage import files
from elementsckpt.system import threads

from support.boxes import Box, Stream, load_agent, make
from support.folders import HEADERS, MB, Calls, component_of, noise
from support.strategies import assert_same

RAW = {"keep": None, "fsync": False, "compress": None}


# No copies


class Sources:
    """Notes from which memory is written, by how many bytes are not an array's."""

    def __init__(self, array):
        self.array = array
        self.own = self.copied = 0
        self.lock = threading.Lock()

    def __call__(self, call, *args):
        result = None if call.__name__ == "fsync" else call(*args)
        if call.__name__ == "pwrite":
            data = np.frombuffer(args[1], np.uint8)
            with self.lock:
                if np.shares_memory(data, self.array):
                    self.own += data.size
                else:
                    self.copied += data.size
        return result


@pytest.mark.parametrize("shape", [(4 * MB,), (4, MB), (MB // 16, 8, 8)])
def test_a_jax_array_that_shares_memory_is_saved_as_it_was_at_some_moment(
    tmp_path, inject, shape
):
    jax = pytest.importorskip("jax")
    memory = aligned(4 * MB).reshape(shape)
    array = jax.device_put(memory)

    def change_and_write(call, *args):
        if call.__name__ == "pwrite":
            memory.reshape(-1)[:] += 1
        return call(*args)

    inject(change_and_write)
    cp = make(tmp_path, {"w": array}, **RAW)
    cp.save()
    cp.load()  # Verifies: what was written is what was hashed.


def aligned(size):
    """Return uint8[size] that JAX shares instead of copying it."""
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]


@pytest.mark.parametrize("background", [False, True])
def test_bytes_are_written_from_their_own_memory(tmp_path, inject, background):
    data = noise(1, 4 * MB).tobytes()
    sources = inject(Sources(np.frombuffer(data, np.uint8)))
    cp = make(tmp_path, data, background=background, **RAW)
    cp.save()
    cp.wait()
    assert sources.own == 4 * MB
    assert sources.copied < HEADERS


def _array(size=64 * MB):
    return np.arange(size // 8)


LAYOUTS = {
    "C": lambda: _array(),
    "Fortran": lambda: _array().reshape(1024, -1).T,
    "long rows": lambda: _array().reshape(2, -1),
    "columns": lambda: _array().reshape(1024, -1)[:, 1:],
    "every second": lambda: _array()[::2],
    "reversed": lambda: _array()[::-1],
    "transposed": lambda: _array().reshape(64, 64, -1).transpose(1, 0, 2),
    "Fortran, long rows": lambda: np.asfortranarray(_array().reshape(2, -1)),
    "structured": lambda: _array().view([("a", "i4"), ("b", "f4")]),
    "dates": lambda: _array().view("M8[s]"),
    "shards": lambda: [_array(MB) + n for n in range(64)],
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_no_layout_is_copied_as_a_whole(tmp_path, name):
    state = LAYOUTS[name]()
    cp = Checkpoint(fsync=False, compress=None)
    cp.agent = Stream(state) if name == "shards" else Box(state)
    cp.save(tmp_path / "first")  # What threads keep for ever is not asked for.
    tracemalloc.start()
    try:
        cp.save(tmp_path / "second")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24 * MB
    cp.load(tmp_path / "second")
    assert_same(state, cp.agent.state)


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_lies_in_the_file_as_it_does_in_memory(tmp_path, order):
    array = np.array(noise(1, 4 * MB).reshape(2048, -1), order=order)
    path = make(tmp_path, array, **RAW).save().path
    (file,) = path.glob("*.safetensors")
    assert array.tobytes(order) in file.read_bytes()


def test_rows_of_a_large_leaf_lie_together_in_one_file(tmp_path):
    path = (
        make(tmp_path, {"w": noise(1, 80 * MB), "b": noise(2, MB)}, **RAW).save().path
    )
    blocks = component_of(path)["blocks"]
    places = [(segment, offset) for segment, offset, *_ in blocks[:80]]
    segment, first = places[0]
    assert places == [(segment, first + n * MB) for n in range(80)]


# In parallel


class Meeting:
    """Lets no call of one kind end before two threads are making one."""

    def __init__(self, name):
        self.name = name
        self.lock = threading.Lock()
        self.threads = set()
        self.met = threading.Event()
        self.was_alone = False

    def __call__(self, call, *args):
        if call.__name__ == self.name:
            with self.lock:
                self.threads.add(threading.get_ident())
                if len(self.threads) > 1:
                    self.met.set()
            if not self.met.wait(60):
                self.was_alone = True
        return call(*args)


@pytest.mark.parametrize("name", ["pwrite", "fsync"])
def test_blocks_are_written_and_segments_synced_at_the_same_time(
    tmp_path, inject, name
):
    meeting = inject(Meeting(name))
    state = [noise(n, 40 * MB) for n in range(2)] + [noise(3)]
    path = make(tmp_path, state, compress=None).save().path
    assert meeting.met.is_set()
    assert not meeting.was_alone
    assert_same(state, load_agent(path))


# What is synced, and how often


def test_each_segment_that_is_written_is_synced_once(tmp_path, inject):
    make(tmp_path, 0).save()  # The first also syncs the folders above.
    cp = Checkpoint(tmp_path, keep=None)
    cp.agent = Box([noise(n, 40 * MB) for n in range(2)])
    cp.other = Box({"zeros": np.zeros(MB), "small": np.arange(9)})
    calls = inject(Calls())
    path = cp.save().path
    files = list(path.iterdir())
    assert len(files) == 5
    expected = [*files, path, path, tmp_path, tmp_path.parent]
    assert sorted(calls.synced) == sorted(x.stat().st_ino for x in expected)
    assert calls.counts["open"] == len(files) + 1


def test_without_fsync_nothing_is_synced(tmp_path, inject):
    calls = inject(Calls())
    make(tmp_path, [noise(1), np.zeros(MB)], fsync=False).save()
    assert calls.synced == []


def test_what_is_linked_is_not_synced_again(tmp_path, inject):
    cp = make(tmp_path, [noise(n) for n in range(4)], keep=None, compress=None)
    cp.save()
    cp.agent.state = [*cp.agent.state[1:], noise(9)]
    calls = inject(Calls())
    path = cp.save().path
    new = [x for x in path.iterdir() if x.stat().st_nlink == 1]
    assert len(new) == 2
    expected = [*new, path, path, tmp_path, tmp_path.parent]
    assert sorted(calls.synced) == sorted(x.stat().st_ino for x in expected)
    assert calls.counts["link"] == 1


def test_many_arrays_make_few_files_and_calls(tmp_path, inject):
    calls = inject(Calls())
    state = {str(n): np.full(20, n) for n in range(20_000)}
    path = make(tmp_path, state, **RAW).save().path
    assert len(list(path.iterdir())) == 2
    assert calls.counts["pwrite"] < 20


# Reading a part


def test_a_partial_load_reads_only_the_blocks_it_needs(tmp_path, reads):
    state = {
        f"layer{n}": {"w": noise(n, 2 * MB), "b": noise(n, 900)} for n in range(16)
    }
    path = make(tmp_path, state, **RAW).save().path
    cp = make(tmp_path, state)
    cp.load(path, regex="layer7/w")
    assert 2 * MB <= reads.segments <= 2 * MB + HEADERS
    reads.bytes.clear()
    found = elementsckpt.read(path, regex="layer1/", mmap=False)
    assert_same(state["layer1"], found["agent"]["layer1"])
    assert 2 * MB <= reads.segments <= 3 * MB + HEADERS


def test_a_partial_load_reads_only_the_blocks_it_needs_after_reuse(tmp_path, reads):
    cp = make(tmp_path, [noise(n, MB) for n in range(12)], **RAW)
    for turn in range(3):
        cp.save()
        cp.agent.state = [*cp.agent.state[1:], noise(100 + turn, MB)]
    path = cp.save().path
    reads.bytes.clear()
    cp.load(path, regex="(0|11)$")
    assert 2 * MB <= reads.segments <= 2 * MB + HEADERS


def test_other_components_are_not_read(tmp_path, reads):
    cp = Checkpoint(tmp_path, **RAW)
    cp.agent, cp.replay = Box(noise(1, MB)), Stream([noise(n, MB) for n in range(4)])
    cp.save()
    cp.load(keys=["agent"])
    assert not [name for name in reads.bytes if name.startswith("replay")]
    assert MB <= reads.segments <= MB + HEADERS


@pytest.mark.parametrize("options", [{"mmap": False}, {"mmap": True}])
def test_threads_are_started_only_for_much(tmp_path, monkeypatch, options):
    state = {"little": noise(1, 2 * MB), "much": noise(2, 9 * MB)}
    path = make(tmp_path, state, **RAW).save().path
    started = []
    start = threads.start

    def counting(*args, **kwargs):
        started.append(args)
        return start(*args, **kwargs)

    monkeypatch.setattr(threads, "start", counting)
    found = elementsckpt.read(path, regex="little", **options)
    assert_same(state["little"], found["agent"]["little"])
    assert not started
    found = elementsckpt.read(path, regex="much", **options)
    assert_same(state["much"], found["agent"]["much"])
    assert started


def test_looking_reads_no_arrays(tmp_path, reads):
    cp = make(tmp_path, noise(1, MB), **RAW)
    path = cp.save().path
    elementsckpt.info(path)
    Checkpoint(tmp_path).saves()
    assert reads.segments == 0


# Descriptors


def opened(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return files.File(path)


def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_a_file_is_closed_when_nobody_holds_it(tmp_path):
    file = opened(tmp_path)
    fd = file.fd
    assert is_open(fd)
    del file
    assert not is_open(fd)


def test_a_file_that_is_closed_again_closes_nothing_of_others(tmp_path):
    file = opened(tmp_path)
    fd = file.fd
    file.close()
    assert (file.fd, is_open(fd)) == (-1, False)
    other = os.dup2(0, fd)
    for _ in range(3):
        file.close()
    del file
    assert is_open(other)
    os.close(other)


def test_what_was_closed_is_not_read_from_what_others_opened_since(tmp_path):
    file = opened(tmp_path)
    file.close()
    other = os.open(tmp_path / "file", os.O_RDONLY)
    with pytest.raises(elementsckpt.ReadError, match="Bad file descriptor"):
        file.read(bytearray(7), 0)
    os.close(other)


def test_what_cannot_be_opened_leaves_nothing_open(tmp_path):
    before = os.listdir("/proc/self/fd")
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(elementsckpt.DamagedError):
            files.File(path)
    assert os.listdir("/proc/self/fd") == before

"""A save in the background owns what it saves when `save()` returns."""

import copy
import dataclasses
import gc
import os
import signal
import sys
import threading
import weakref

import numpy as np
import pytest

from elementsckpt import Checkpoint, StateError
from elementsckpt.storage import disk

from support import library_threads
from support.boxes import Box, LazyStream, Stream, load_agent, make
from support.folders import MB, Gate, noise
from support.strategies import assert_same

ARENA = 16 * MB  # Memory for copies grows by so much.


def background(directory, state=None, **options):
    return make(directory, state, background=True, **options)


# What may change right after


class Odd:
    """Is saved by pickle, its array out-of-band."""

    def __init__(self, array):
        self.array = array

    def __eq__(self, other):
        return np.array_equal(self.array, other.array)


@dataclasses.dataclass
class Weights:
    w: np.ndarray


def clear(array):
    array[...] = np.zeros((), array.dtype)


def clear_all(arrays):
    for array in arrays:
        clear(array)


def clear_attribute(value):
    clear(value.array)


def clear_field(value):
    clear(value.w)


def clear_first(data):
    data[0] ^= 1


def grow(data):
    data.extend(b"more")


STRUCTURED = np.dtype([("x", "f4"), ("n", "u1", (4,))])
MUTABLE = {
    "large": (lambda: noise(1, 3 * MB), clear),
    "small": (lambda: noise(1, 100), clear),
    "one element": (lambda: np.array(5.0), clear),
    "strided": (lambda: noise(1, 2 * MB)[::2], clear),
    "columns": (lambda: noise(1, 2 * MB).reshape(1024, -1)[:, 100:900], clear),
    "reversed": (lambda: noise(1, MB)[::-1], clear),
    "fortran": (lambda: np.asfortranarray(noise(1, MB).reshape(512, -1)), clear),
    "swapped": (lambda: noise(1, MB).reshape(64, 128, 128).swapaxes(0, 1), clear),
    "structured": (lambda: noise(1, MB).view(STRUCTURED), clear),
    "dates": (lambda: noise(1, MB).view("M8[s]"), clear),
    "big-endian": (lambda: noise(1, MB).view(">u4"), clear),
    "two rows": (lambda: noise(1, 4 * MB).reshape(2, -1), clear),
    "compressible": (lambda: np.ones(3 * MB, np.uint8), clear),
    "many": (lambda: [noise(n, 999) for n in range(3000)], clear_all),
    "bytearray": (lambda: bytearray(noise(1)), clear_first),
    "bytearray, longer": (lambda: bytearray(noise(1)), grow),
    "short bytearray, longer": (lambda: bytearray(b"few"), grow),
    "list": (lambda: [noise(1), 1], list.clear),
    "dict": (lambda: {"a": noise(1), "b": 2}, dict.clear),
    "dataclass": (lambda: Weights(noise(1)), clear_field),
    "pickled": (lambda: Odd(noise(1, MB)), clear_attribute),
    "generator": (lambda: np.random.default_rng(1), lambda x: x.random(7)),
}


@pytest.mark.parametrize("compress", [None, "auto", 1])
@pytest.mark.parametrize("kind", [Box, Stream])
@pytest.mark.parametrize("name", MUTABLE)
def test_promise_6_later_changes_do_not_reach_a_save_in_the_background(
    tmp_path, gate, name, kind, compress
):
    value, change = MUTABLE[name][0](), MUTABLE[name][1]
    expected = copy.deepcopy(value)
    cp = Checkpoint(tmp_path, background=True, compress=compress)
    cp.agent = kind([value])
    path = cp.save().path
    change(value)
    gate.open()
    cp.wait()
    assert_same([expected], load_agent(path, kind, path.parent))


@pytest.mark.parametrize("name", ["large", "small", "strided", "fortran", "many"])
def test_changes_do_not_reach_a_save_that_reuses_the_one_before(tmp_path, gate, name):
    value, change = MUTABLE[name][0](), MUTABLE[name][1]
    expected = copy.deepcopy(value)
    make(tmp_path, [copy.deepcopy(value)]).save()
    cp = background(tmp_path, [value])
    path = cp.save().path
    change(value)
    gate.open()
    report = cp.wait()
    assert report.bytes_reused > 0
    assert_same([expected], load_agent(path))


@pytest.mark.parametrize("size", [100, 3 * MB])
@pytest.mark.parametrize("parameter", [False, True])
@pytest.mark.torch
@pytest.mark.torch
def test_a_torch_tensor_may_change_right_after(tmp_path, gate, size, parameter):
    torch = pytest.importorskip("torch")
    tensor = torch.arange(size // 4, dtype=torch.float32)
    value = torch.nn.Parameter(tensor) if parameter else tensor
    cp = background(tmp_path, {"w": value})
    path = cp.save().path
    with torch.no_grad():
        value.zero_()
    gate.open()
    cp.wait()
    assert torch.equal(
        load_agent(path)["w"], torch.arange(size // 4, dtype=torch.float32)
    )


@pytest.mark.parametrize("size", [100, 3 * MB])
@pytest.mark.parametrize("kind", [Box, Stream])
def test_a_jax_array_may_be_deleted_right_after(tmp_path, gate, size, kind):
    jax = pytest.importorskip("jax")
    value = jax.device_put(noise(1, size, np.int32))
    expected = np.array(value)
    cp = Checkpoint(tmp_path, background=True)
    cp.agent = kind([value])
    path = cp.save().path
    value.delete()
    gate.open()
    cp.wait()
    assert np.array_equal(load_agent(path, kind)[0], expected)


@pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")
@pytest.mark.parametrize("size", [100, 3 * MB])
def test_a_jax_array_may_be_donated_right_after(tmp_path, gate, size):
    jax = pytest.importorskip("jax")
    value = jax.device_put(noise(1, size, np.int32))
    key = jax.random.key(1)
    expected = np.array(value), jax.random.key_data(key).copy()
    step = jax.jit(lambda x, key: (x * 3, jax.random.split(key)[0]), donate_argnums=0)
    cp = background(tmp_path, (value, key))
    path = cp.save().path
    for _ in range(3):
        value, key = step(value, key)
    value.block_until_ready()
    gate.open()
    cp.wait()
    array, other = load_agent(path)
    assert np.array_equal(array, expected[0])
    assert np.array_equal(jax.random.key_data(other), expected[1])


def test_several_components_may_share_the_array_that_changes(tmp_path, gate):
    array = noise(1, 2 * MB)
    expected = array.copy()
    cp = Checkpoint(tmp_path, background=True)
    cp.agent, cp.other = Box({"w": array}), Box({"half": array[:MB], "all": array})
    path = cp.save().path
    clear(array)
    gate.open()
    cp.wait()
    read = Checkpoint()
    read.agent, read.other = Box(), Box()
    read.load(path)
    assert np.array_equal(read.agent.state["w"], expected)
    assert np.array_equal(read.other.state["half"], expected[:MB])
    assert np.array_equal(read.other.state["all"], expected)


# Who calls what


def test_components_are_asked_in_the_callers_thread_before_save_returns(tmp_path, gate):
    threads = []

    class Recorder(Box):
        def save(self):
            threads.append(threading.current_thread())
            return super().save()

    class RecordingStream(Recorder):
        def save(self):
            for shard in range(3):
                threads.append(threading.current_thread())
                yield shard

    cp = Checkpoint(tmp_path, background=True)
    cp.agent, cp.replay = Recorder(1), RecordingStream()
    cp.save()
    assert threads == [threading.current_thread()] * 4
    gate.open()
    cp.wait()
    assert len(threads) == 4


@pytest.mark.parametrize("staging_bytes", [0, None])
def test_a_generator_that_reuses_its_buffer_is_used_up_on_return(
    tmp_path, monkeypatch, staging_bytes
):
    ended = []

    def shards():
        buffer = {"large": np.zeros(MB, np.uint8), "small": np.zeros(10)}
        for n in range(20):
            buffer["large"][:] = buffer["small"][:] = n
            yield buffer
        ended.append(True)

    cp = Checkpoint(tmp_path, background=True, staging_bytes=staging_bytes)
    cp.replay = LazyStream(shards())
    cp.save()
    assert ended == [True]
    cp.wait()
    cp.load()
    found = [({*np.unique(x["large"])}, {*x["small"]}) for x in cp.replay.got]
    assert found == [({n}, {n}) for n in range(20)]


def test_what_cannot_be_saved_is_an_error_of_save_itself(tmp_path):
    cp = background(tmp_path, {"deep": [threading.Lock()]})
    with pytest.raises(StateError, match="agent/deep/0"):
        cp.save()
    assert list(tmp_path.iterdir()) == []
    assert cp.wait() is None
    cp.agent.state = 1
    cp.save()
    assert cp.wait().is_finished


# Memory


def written_on_return(cp):
    """Save; return the report and how many bytes the segments have by then."""
    report = cp.save()
    return report, sum(x.stat().st_size for x in report.path.glob("*.safetensors"))


BOUNDS = [0, 1, MB, ARENA - 1, ARENA, 2 * ARENA, None]


@pytest.mark.parametrize("kind", [Box, Stream])
@pytest.mark.parametrize("staging_bytes", BOUNDS)
def test_any_bound_on_staging_gives_the_same_save(tmp_path, gate, staging_bytes, kind):
    state = [noise(n, MB) for n in range(20)] + [noise(n, 999) for n in range(200)]
    expected = copy.deepcopy(state)
    cp = Checkpoint(tmp_path, background=True, staging_bytes=staging_bytes)
    cp.agent = kind(state)
    report = cp.save()
    clear_all(state)
    assert not (report.path / "manifest.json").exists()
    gate.open()
    cp.wait()
    assert_same(expected, load_agent(report.path, kind))


def test_what_fits_into_staging_is_not_written_before_save_returns(tmp_path, gate):
    state = [noise(n, MB) for n in range(16)]
    cp = background(tmp_path, state, staging_bytes=ARENA)
    _, size = written_on_return(cp)
    assert size == 0
    gate.open()
    assert cp.wait().bytes_written >= ARENA


def test_what_does_not_fit_into_staging_is_written_before_save_returns(tmp_path, gate):
    state = [noise(n, MB) for n in range(17)]
    cp = background(tmp_path, state, staging_bytes=ARENA)
    report, size = written_on_return(cp)
    assert size >= 17 * MB
    assert not (report.path / "manifest.json").exists()


def test_what_is_reused_needs_no_room_in_staging(tmp_path, gate):
    state = [noise(n, MB) for n in range(40)]
    make(tmp_path, state, compress=None).save()
    state[3] = noise(99, MB)
    cp = background(tmp_path, state, compress=None, staging_bytes=ARENA)
    before = {x.name for x in cp.latest().iterdir()}
    report = cp.save()
    assert not {x.name for x in report.path.glob("*.safetensors")} - before
    gate.open()
    assert MB <= cp.wait().bytes_written <= 2 * MB


def test_jax_arrays_need_no_room_in_staging(tmp_path, gate):
    jax = pytest.importorskip("jax")
    if jax.__version_info__ < (0, 6):
        pytest.skip("donated arrays are copied before JAX 0.6")
    state = [jax.device_put(noise(n, MB)) for n in range(20)]
    _, size = written_on_return(background(tmp_path, state, staging_bytes=0))
    assert size == 0


@pytest.mark.parametrize("staging_bytes", [0, ARENA])
def test_a_stream_of_small_shards_makes_few_files(tmp_path, staging_bytes):
    shards = [{"x": np.full(10, n)} for n in range(500)]
    cp = Checkpoint(tmp_path, background=True, staging_bytes=staging_bytes)
    cp.agent = Stream(shards)
    cp.save()
    path = cp.wait().path
    assert len(list(path.iterdir())) <= 20


def test_arrays_are_let_go_when_save_returns(tmp_path, gate):
    large, small = noise(1, 3 * MB), noise(1, 100)
    held = weakref.ref(large), weakref.ref(small)
    cp = background(tmp_path, {"large": large, "small": small, "view": large[::2]})
    cp.save()
    cp.agent.state = None
    del large, small
    gc.collect()
    assert [x() for x in held] == [None, None]


def test_staging_is_reused_by_the_next_save(tmp_path, monkeypatch):
    cp = background(tmp_path, staging_bytes=ARENA)
    for seed in range(3):
        gate = Gate()
        monkeypatch.setattr(disk, "syscall", gate)
        cp.agent.state = noise(seed, ARENA)
        report, size = written_on_return(cp)
        gate.open()
        assert size == 0
        cp.wait()
        assert_same(cp.agent.state, load_agent(report.path))


class Broken:
    def save(self):
        raise RuntimeError("broken")

    def load(self, data):
        raise AssertionError(data)


def test_a_save_that_failed_leaves_all_room_in_staging(tmp_path, gate):
    cp = background(tmp_path, noise(1, ARENA), staging_bytes=ARENA)
    cp.broken = Broken()
    with pytest.raises(RuntimeError, match="broken"):
        cp.save()
    del cp.broken
    _, size = written_on_return(cp)
    assert size == 0
    gate.open()
    assert_same(cp.agent.state, load_agent(cp.wait().path))


def test_close_leaves_the_object_usable(tmp_path):
    cp = background(tmp_path, noise(1, MB))
    for seed in range(3):
        cp.agent.state = noise(seed, MB)
        cp.save()
        cp.close()
        cp.close()
        cp.load()
        assert_same(noise(seed, MB), cp.agent.state)


@pytest.mark.parametrize("bad", [-1, -(10**9)])
def test_staging_is_a_number_of_bytes(tmp_path, bad):
    with pytest.raises(ValueError, match="staging_bytes"):
        Checkpoint(tmp_path, background=True, staging_bytes=bad)


# Giving way


class Watched:
    """Makes the calls, and notes the priorities of the threads that write blocks.

    Args:
      is_held: Whether helpers wait there for the thread that leads the save.
    """

    def __init__(self, *, is_held=False):
        self.found = set()
        self.has_begun = threading.Event()
        self._is_held = is_held
        self._has_led = threading.Event()

    def __call__(self, call, *args):
        thread = threading.current_thread()
        if call is os.pwrite and thread.name == "elementsckpt":
            self.found.add((thread.daemon, own_nice()))
            self.has_begun.set()
            if not thread.daemon:
                self._has_led.set()
            elif self._is_held:
                assert self._has_led.wait(60), "the save is not hurried"
        return None if call is os.fsync else call(*args)


def own_nice():
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority")
def test_what_writes_in_the_background_gives_way(tmp_path, monkeypatch):
    before = own_nice()
    monkeypatch.setattr(disk, "syscall", watched := Watched())
    cp = background(tmp_path, noise(1, 8 * MB))
    cp.save()
    library_threads.join()
    assert (True, 19) in watched.found
    assert watched.found <= {(True, 19), (False, before)}  # Who leads, the manifest.
    assert own_nice() == before
    assert cp.wait().is_finished


def test_what_is_not_in_the_background_gives_no_way(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "setpriority", None)
    cp = make(tmp_path, noise(1, 8 * MB))
    cp.save()
    cp.load()
    assert_same(noise(1, 8 * MB), cp.agent.state)


@pytest.mark.parametrize("verb", ["wait", "close", "save", "load"])
def test_who_waits_hurries_the_save_in_the_background(tmp_path, monkeypatch, verb):
    cp = background(tmp_path, noise(1, 8 * MB))
    monkeypatch.setattr(disk, "syscall", watched := Watched(is_held=True))
    path = cp.save().path
    assert watched.has_begun.wait(60)
    getattr(cp, verb)()
    assert (False, own_nice()) in watched.found
    cp.close()
    assert_same(noise(1, 8 * MB), load_agent(path.parent))


def test_an_interrupt_while_waiting_leaves_a_save_that_ends(tmp_path, gate):
    def interrupt(*_):
        raise KeyboardInterrupt

    cp = background(tmp_path, noise(1, 8 * MB))
    path = cp.save().path
    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            cp.wait()  # The gate is closed.
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    gate.open()
    library_threads.join()
    assert_same(noise(1, 8 * MB), load_agent(path))
    assert cp.wait().is_finished

"""Ring buffers on accelerators: only what is new is fetched from there.

There may be none here, so these tests have arrays in memory count as far away, and
count what goes through the function that fetches.
"""

import contextlib
import errno
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import elementsckpt
from elementsckpt import Checkpoint, Ring, Saveable
from elementsckpt.kinds import jax_arrays, jax_parts
from elementsckpt.storage import disk

from support.buffers import COLUMNS, ROWS, opened, saved
from support.faults import use_small_segments
from support.strategies import PROPERTY

ROW_BYTES = 4 * COLUMNS
MANNERS = pytest.mark.parametrize("background", [False, True])


class Fetched:
    """Counts what is fetched, and how often something new is compiled for that."""

    def __init__(self, setattr):
        self.bytes = self.compiled = 0
        self.read = jax_arrays._read
        setattr(jax_arrays, "is_far", lambda value: True)
        setattr(jax_arrays, "_read", self._read)
        self.compiled_before = jax_parts._slicer()._cache_size()

    def _read(self, values, otherwise):
        self.bytes += sum(value.nbytes for value in values)
        return [np.array(x) for x in self.read(values, otherwise)]  # As a device's.

    def take(self):
        found, self.bytes = self.bytes, 0
        return found

    def shapes(self):
        """Return for how many shapes the function that slices was compiled."""
        return jax_parts._slicer()._cache_size() - self.compiled_before


@pytest.fixture
def fetched(monkeypatch):
    use_small_segments(monkeypatch.setattr)
    jax_parts._slicer.cache_clear()
    with jax.transfer_guard("disallow"):
        yield Fetched(monkeypatch.setattr)


def put(array):
    return jax.device_put(array.copy())


@MANNERS
def test_only_blocks_with_new_rows_are_fetched(tmp_path, fetched, background):
    cp = opened(tmp_path, background, kind=put)
    cp.buffer.add(1000)
    saved(cp)
    assert fetched.take() == ROWS * ROW_BYTES  # Nothing is known yet.
    for count in (1, 10, 60):
        cp.buffer.add(count)
        _, frames = saved(cp)
        assert np.array_equal(frames, cp.buffer.frames)
        checked = 4 * 2  # One or more blocks of two rows, in turn.
        assert count <= fetched.take() / ROW_BYTES <= count + 2 + checked
    assert fetched.shapes() == 1
    cp.buffer.add(250)
    saved(cp)
    assert fetched.take() >= ROWS * ROW_BYTES  # Most of it, so all at once.


def test_what_is_resumed_fetches_only_what_is_new(tmp_path, fetched):
    cp = opened(tmp_path, kind=put)
    cp.buffer.add(400)
    cp.save()
    cp = opened(tmp_path, kind=put)
    cp.load()
    fetched.take()
    cp.buffer.add(3)
    _, frames = saved(cp)
    assert np.array_equal(frames, cp.buffer.frames)
    assert fetched.take() <= 20 * ROW_BYTES


def test_the_same_array_is_not_fetched_at_all(tmp_path, fetched):
    frames = put(np.ones((ROWS, COLUMNS), np.float32))
    cp = opened(tmp_path, background=True, kind=lambda _: frames)
    for _ in range(2):
        cp.save()
        cp.wait()
    assert fetched.take() == ROWS * ROW_BYTES


def test_what_writes_nothing_fetches_nothing(tmp_path, fetched):
    cp = Checkpoint(tmp_path, write=False)
    rows = put(np.ones((ROWS, COLUMNS), np.float32))
    cp.box = Saveable(save=lambda: Ring(rows, 3), load=lambda data: None)
    cp.save()
    assert not fetched.take()


@MANNERS
def test_what_has_changed_without_being_counted_is_found(
    tmp_path, fetched, background, caplog
):
    cp = opened(tmp_path, background, kind=put)
    cp.buffer.add(400)
    saved(cp)
    cp.buffer.frames += 1
    _, frames = saved(cp)
    assert np.array_equal(frames, cp.buffer.frames)
    assert "where its Ring has added none" in caplog.text


def test_an_array_may_be_donated_when_save_has_returned(tmp_path, fetched):
    cp = opened(tmp_path, background=True, kind=put)
    cp.buffer.add(400)
    for count in (0, 7):
        cp.buffer.add(count)
        array = put(cp.buffer.frames)
        cp.buffer.kind = lambda _, array=array: array
        cp.save()
        array.delete()
        report = cp.wait()
        frames = elementsckpt.read(report.path)["buffer"]["frames"]
        assert np.array_equal(frames, cp.buffer.frames)


@MANNERS
@pytest.mark.parametrize("count", [1, 250])
def test_what_the_last_save_has_lost_is_fetched(
    tmp_path, fetched, background, count, monkeypatch
):
    cp = opened(tmp_path, background, kind=put)
    cp.buffer.add(300)
    saved(cp)
    cp.buffer.frames[290] = -1  # What the ring does not tell is saved as it is, too.
    call, links = disk.syscall, []

    def refused(function, *args, **options):
        if function is disk._link:
            links.append(args)
            raise OSError(errno.EPERM, "no links here")
        return call(function, *args, **options)

    monkeypatch.setattr(disk, "syscall", refused)
    cp.buffer.add(count)
    _, frames = saved(cp)
    assert links or count > 1  # Else too little is old for a link to be worth it.
    assert np.array_equal(frames, cp.buffer.frames)


def test_nan_may_be_in_it_whatever_jax_debugs(tmp_path, fetched):
    cp = opened(tmp_path, kind=put)
    cp.buffer.frames[:] = np.nan
    with jax.debug_nans(True):
        for _ in range(2):
            cp.buffer.added += 5
            _, frames = saved(cp)
    assert np.isnan(frames).all()


def test_types_that_other_tools_do_not_know_are_saved_whole(tmp_path, fetched):
    rows = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS).astype(np.complex64)
    cp = Checkpoint(tmp_path, fsync=False, compress=None)
    count, found = [10], []
    cp.box = Saveable(save=lambda: Ring(put(rows), count[0]), load=found.append)
    cp.save()
    rows[10:12] = -1
    count[0] = 12
    cp.save()
    cp.load()
    assert np.array_equal(found[0], rows)


@PROPERTY
@given(
    axis=st.sampled_from([0, 1, 2]),
    shape=st.tuples(*[st.integers(1, 40)] * 3),
    steps=st.lists(st.integers(0, 60), min_size=1, max_size=4),
    background=st.booleans(),
    resume_at=st.integers(0, 4),
)
def test_any_far_ring_is_saved_as_it_is(axis, shape, steps, background, resume_at):
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(jax.transfer_guard("disallow"))
        use_small_segments(patch.setattr)
        Fetched(patch.setattr)
        options = {"kind": put, "axis": axis, "shape": shape}
        cp = opened(directory, background, **options)
        for number, count in enumerate(steps):
            cp.buffer.add(count)
            _, frames = saved(cp)
            assert np.array_equal(frames, cp.buffer.frames)
            if number == resume_at:
                cp.close()
                cp = opened(directory, background, **options)
                cp.load()
        cp.close()


def test_views_of_memory_are_not_fetched(tmp_path, monkeypatch):
    """What is on the CPU is read where it lies, and only where it is new."""
    use_small_segments(monkeypatch.setattr)
    cp = opened(tmp_path, kind=jnp.asarray)
    cp.buffer.add(400)
    saved(cp)
    monkeypatch.setattr(jax_parts, "_slicer", lambda: 1 / 0)
    cp.buffer.add(3)
    _, frames = saved(cp)
    assert np.array_equal(frames, cp.buffer.frames)


@pytest.mark.torch
@MANNERS
def test_only_new_rows_of_a_tensor_are_fetched(tmp_path, background, monkeypatch):
    torch = pytest.importorskip("torch")
    from elementsckpt.kinds import torch_tensors

    use_small_segments(monkeypatch.setattr)
    fetch, count = torch_tensors.fetch, [0]

    def counted(tensor):
        count[0] += tensor.nbytes
        return fetch(tensor).copy()

    monkeypatch.setattr(torch_tensors, "is_far", lambda tensor: True)
    monkeypatch.setattr(torch_tensors, "fetch", counted)
    cp = opened(tmp_path, background, kind=lambda x: torch.tensor(x).bfloat16())
    cp.buffer.add(1000)
    for added in (0, 1, 10):
        cp.buffer.add(added)
        count[0] = 0
        cp.save()
        path = (cp.wait() or cp.saves()[-1]).path
        found = elementsckpt.read(path)["buffer"]["frames"].astype(np.float32)
        expected = torch.tensor(cp.buffer.frames).bfloat16().float()
        assert torch.equal(torch.tensor(found), expected)
        if added:
            assert count[0] / (ROW_BYTES / 2) <= added + 20

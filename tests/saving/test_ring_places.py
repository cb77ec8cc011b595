"""Ring buffers in all places where a state may have them, and what goes wrong there."""

import errno

import jax.numpy as jnp
import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint, Ring, Saveable, Value, WriteError
from elementsckpt.storage import disk

from support.boxes import Stream
from support.buffers import COLUMNS, ROWS, Buffer, opened, saved
from support.faults import use_small_segments

MANNERS = pytest.mark.parametrize("background", [False, True])
LITTLE = 60_000  # Bytes of a save of few new rows; the ring has 300,000.


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    use_small_segments(monkeypatch.setattr)


def report_of(cp):
    report = cp.save()
    return cp.wait() or report


def read(report, key="buffer"):
    return elementsckpt.read(report.path)[key]


@MANNERS
@pytest.mark.parametrize("added", [ROWS, 10 * ROWS + 3, 1 << 70])
def test_any_number_of_rows_may_be_new(tmp_path, background, added):
    cp = opened(tmp_path, background)
    cp.buffer.add(400)
    saved(cp)
    cp.buffer.frames += 1
    cp.buffer.added += added
    assert np.array_equal(saved(cp)[1], cp.buffer.frames)
    cp.buffer.frames[cp.buffer.added % ROWS] = -5
    cp.buffer.added += 1
    report, frames = saved(cp)
    assert np.array_equal(frames, cp.buffer.frames)
    assert report.bytes_written < LITTLE


@MANNERS
def test_shards_may_be_rings(tmp_path, background):
    cp = Checkpoint(tmp_path, fsync=False, background=background, compress=None)
    parts = [Buffer(), Buffer()]
    cp.stream = Stream([])
    sizes = []
    for count in (400, 3):
        for part in parts:
            part.add(count)
        cp.stream.state = [part.save() for part in parts]
        report = report_of(cp)
        sizes.append(report.bytes_written)
        for part, found in zip(parts, read(report, "stream"), strict=True):
            assert np.array_equal(found["frames"], part.frames)
    assert sizes[1] < LITTLE


def test_a_save_that_others_write_to_has_rings(tmp_path):
    cp = opened(tmp_path)
    cp.policy = elementsckpt.Files(load=lambda folder: None)
    cp.buffer.add(400)
    for count in (0, 3):
        cp.buffer.add(count)
        with cp.staging("policy") as folder:
            (folder / "x").write_text("x")
            cp.buffer.add(1)  # What is saved is what is there at the end.
        frames = elementsckpt.read(cp.latest())["buffer"]["frames"]
        assert np.array_equal(frames, cp.buffer.frames)
    assert elementsckpt.info(cp.latest()).step is None


@MANNERS
def test_two_components_may_have_one_ring(tmp_path, background):
    cp = Checkpoint(tmp_path, fsync=False, background=background, compress=None)
    cp.one = cp.two = buffer = Buffer()
    for count in (400, 3, 5):
        buffer.add(count)
        report = report_of(cp)
        for key in ("one", "two"):
            assert np.array_equal(read(report, key)["frames"], buffer.frames)
    assert report.bytes_written < 2 * LITTLE


@MANNERS
def test_an_array_may_be_a_ring_twice(tmp_path, background):
    cp = Checkpoint(tmp_path, fsync=False, background=background, compress=None)
    buffer, found = Buffer(), []

    def save():
        ring = Ring(buffer.frames, buffer.added)
        return [ring, ring, Ring(buffer.frames, buffer.added), buffer.frames]

    cp.box = Saveable(save=save, load=found.append)
    for count in (400, 3):
        buffer.add(count)
        report = report_of(cp)
    assert report.bytes_written < LITTLE
    cp.load()
    (loaded,) = found
    assert len({id(x) for x in loaded}) == 1
    assert np.array_equal(loaded[0], buffer.frames)


@MANNERS
def test_a_save_that_fails_is_not_what_the_next_one_goes_by(
    tmp_path, background, monkeypatch
):
    cp = opened(tmp_path, background)
    cp.buffer.add(400)
    saved(cp)
    cp.buffer.add(5)
    call = disk.syscall

    def full(function, *args, **options):
        if cp.buffer.added == 405:
            raise OSError(errno.ENOSPC, "full")
        return call(function, *args, **options)

    if background:  # It begins well.
        monkeypatch.setattr("elementsckpt.saving.writer.Writer.finish", lambda _: 1 / 0)
        cp.save()
        with pytest.raises(ZeroDivisionError):
            cp.wait()
        monkeypatch.undo()
        use_small_segments(monkeypatch.setattr)
    else:
        monkeypatch.setattr(disk, "syscall", full)
        with pytest.raises(WriteError):
            cp.save()
    cp.buffer.add(4)
    report, frames = saved(cp)
    assert np.array_equal(frames, cp.buffer.frames)
    assert report.bytes_written < LITTLE


def test_what_was_found_untrue_stays_so_if_the_save_fails(tmp_path, caplog):
    cp = opened(tmp_path)
    cp.buffer.add(400)
    cp.save()
    cp = opened(tmp_path)
    cp.load()
    cp.zbad = Saveable(save=lambda: 1 / 0, load=lambda data: None)
    cp.buffer.frames += 1
    with pytest.raises(ZeroDivisionError):
        cp.save()
    assert "where its Ring has added none" in caplog.text
    del cp.zbad
    cp.buffer.frames -= 1
    cp.buffer.frames[201] = -1  # Where no save looks first.
    assert np.array_equal(saved(cp)[1], cp.buffer.frames)


def test_a_copy_does_not_change_what_the_next_save_goes_by(tmp_path):
    cp = opened(tmp_path, keep=2)
    paths = []
    for count in (400, 50):
        cp.buffer.add(count)
        paths.append(cp.save().path)
    copy = cp.copy_of("buffer", paths[0])
    assert copy.added == 400
    cp.buffer.add(3)
    report, frames = saved(cp)
    assert np.array_equal(frames, cp.buffer.frames)
    assert report.bytes_written < LITTLE


@MANNERS
def test_going_back_to_an_older_save_looks_at_all(tmp_path, background):
    cp = opened(tmp_path, background, keep=2)
    paths = []
    for count in (400, 50):
        cp.buffer.add(count)
        paths.append(report_of(cp).path)
    cp.load(paths[0])
    cp.buffer.frames[::2] += 1
    cp.buffer.add(3)
    assert np.array_equal(saved(cp)[1], cp.buffer.frames)


@MANNERS
def test_what_compression_does_not_suit_is_written_as_it_is_now(tmp_path, background):
    cp = opened(tmp_path, background)
    cp.buffer.add(400)
    saved(cp)
    other = Checkpoint(tmp_path, fsync=False, background=background, compress=3)
    other.buffer = Buffer()
    other.load()
    other.buffer.frames[200] = -1  # Which the ring does not tell.
    other.buffer.add(3)
    _, frames = saved(other)  # Each block is good.
    assert np.array_equal(frames[:107], other.buffer.frames[:107])


def test_rows_may_lie_apart(tmp_path):
    cp = Checkpoint(tmp_path, fsync=False, compress=None)
    wide, count = np.zeros((ROWS, 2 * COLUMNS), np.float32), [10]
    cp.box = Saveable(lambda: Ring(wide[:, ::2], count[0]), lambda data: None)
    cp.save()
    wide[10:13] = 7
    count[0] = 13
    report = cp.save()
    assert np.array_equal(read(report, "box"), wide[:, ::2])
    assert report.bytes_written < LITTLE


def test_arrays_that_are_not_stored_by_rows_are_saved_whole(tmp_path):
    rows = np.arange(ROWS * COLUMNS, dtype=np.float32).reshape(ROWS, COLUMNS)
    objects = np.array([{"a": 1}, "text"] * 3, dtype=object)
    pairs = rows.view([("x", np.float32), ("y", np.float32)])
    texts = np.array([["a", "bc"]] * 4)
    arrays = {"F": np.asfortranarray(rows), "o": objects, "pairs": pairs, "t": texts}
    cp = Checkpoint(tmp_path, fsync=False)
    count, found = [3], []
    cp.box = Saveable(
        lambda: {k: Ring(x, count[0]) for k, x in arrays.items()}, found.append
    )
    for _ in range(2):
        cp.save()
        count[0] += 1
        for array in arrays.values():
            array[3] = array[2]
    cp.save()
    cp.load()
    for name, array in arrays.items():
        assert np.array_equal(found[0][name], array), name


FORK = """
import os, signal, sys, warnings
import numpy as np
import elementsckpt
from support.buffers import opened
from support.faults import use_small_segments, use_one_thread

use_small_segments()
use_one_thread()
cp = opened(sys.argv[1])
cp.buffer.add(400)
cp.save()
pid = os.fork()
if not pid:
    signal.alarm(60)
cp.buffer.add(7 if pid else 13)
if pid:
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    cp.buffer.frames[::2] += 1  # All is looked at, as the last save is the child's.
report = cp.save()
frames = elementsckpt.read(report.path)["buffer"]["frames"]
assert np.array_equal(frames, cp.buffer.frames)
assert pid or report.bytes_written < 60_000
os._exit(0)
"""


def test_after_a_fork_each_goes_by_its_own_saves(tmp_path, forked):
    done = forked(FORK, tmp_path)
    assert done.returncode == 0, done.stderr


def test_modules_of_nnx_may_return_rings(tmp_path):
    nnx = pytest.importorskip("flax.nnx")
    try:
        nnx.Variable(jnp.zeros(3))[...] = jnp.ones(3)
    except Exception:
        pytest.skip("variables cannot be set by index yet")

    class Replay(nnx.Module):
        def __init__(self):
            self.rows = nnx.Variable(jnp.zeros((ROWS, COLUMNS)))
            self.added = 0

        def save(self):
            return {"rows": Ring(self.rows[...], self.added), "added": self.added}

        def load(self, data):
            self.rows[...] = jnp.asarray(data["rows"])
            self.added = data["added"]

    cp = Checkpoint(tmp_path, fsync=False, compress=None)
    cp.replay = Replay()
    cp.save()
    cp.replay.rows[...] = cp.replay.rows[...].at[:3].set(1)
    cp.replay.added = 3
    assert report_of(cp).bytes_written < LITTLE
    cp.replay.rows[...] = jnp.ones((ROWS, COLUMNS))
    cp.load()
    assert cp.replay.rows[...].sum() == 3 * COLUMNS


@MANNERS
def test_a_value_resumes_with_its_ring(tmp_path, background):
    rows = np.zeros((ROWS, COLUMNS), np.float32)

    def made(rows, added):
        cp = Checkpoint(tmp_path, fsync=False, background=background, compress=None)
        cp.state = Value({"rows": Ring(rows, added), "added": added})
        return cp

    cp = made(rows, 0)
    report_of(cp)
    cp = made(np.ones_like(rows), 0)  # As a template, a ring is its array.
    cp.load()
    loaded = cp.state.value["rows"]
    assert np.array_equal(loaded, rows)
    loaded[:2] = 3
    cp.state.value = {"rows": Ring(loaded, 2), "added": 2}
    report = report_of(cp)
    assert report.bytes_written < LITTLE
    assert np.array_equal(read(report, "state")["rows"], loaded)

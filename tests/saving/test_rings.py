"""Ring buffers: a save looks at the blocks with new rows, and at a few others."""

import tempfile

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import elementsckpt
from elementsckpt import Checkpoint, DamagedError, Ring, Value

from support.buffers import COLUMNS, ROWS, Buffer, opened, saved
from support.faults import use_small_segments
from support.folders import forge
from support.strategies import PROPERTY, assert_same


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    use_small_segments(monkeypatch.setattr)


def said(caplog):
    return [x for x in caplog.messages if "where its Ring has added none" in x]


KINDS = {"numpy": np.asarray, "jax": jnp.asarray}
MANNERS = pytest.mark.parametrize("background", [False, True])


@MANNERS
@pytest.mark.parametrize("kind", KINDS)
def test_only_blocks_with_new_rows_are_written(tmp_path, background, kind):
    cp = opened(tmp_path, background, kind=KINDS[kind])
    cp.buffer.add(1000)
    cp.save()
    cp.wait()
    for count in (0, 1, 10, 299, 300, 301, 5000):
        cp.buffer.add(count)
        report, frames = saved(cp)
        assert np.array_equal(frames, cp.buffer.frames)
        new = min(count + 2, ROWS) * 4 * COLUMNS
        assert report.bytes_written <= new + 30_000


def overwrite_unseen(buffer, row):
    """Write to a row that is not the next one, and count nothing."""
    buffer.frames[row] = -1


@MANNERS
def test_memory_without_new_rows_is_not_looked_at_but_in_turn(
    tmp_path, background, caplog
):
    cp = opened(tmp_path, background)
    cp.buffer.add(400)
    cp.save()
    found = []
    overwrite_unseen(cp.buffer, 7)
    while not said(caplog):
        assert len(found) < 65
        cp.buffer.add(1)
        _, frames = saved(cp)
        found.append(np.array_equal(frames, cp.buffer.frames))
    assert found.count(True) == 1  # Until then row 7 is what it was.
    assert said(caplog) == [
        "buffer/frames has changed in rows 6 to 7, where its Ring has added none since "
        "the last save. From now on it is saved whole. Count in `added` each row that "
        "is written, or save the array without Ring. This warning is logged once."
    ]
    overwrite_unseen(cp.buffer, 9)
    assert np.array_equal(saved(cp)[1], cp.buffer.frames)


def test_what_is_loaded_and_read_is_the_array(tmp_path):
    cp = opened(tmp_path)
    cp.buffer.add(5)
    path = cp.save().path
    found = elementsckpt.read(path)["buffer"]
    assert type(found["frames"]) is np.ndarray
    cp.load(regex="frames")
    assert type(cp.buffer.frames) is np.ndarray


def test_what_loads_a_save_goes_on_at_once(tmp_path):
    cp = opened(tmp_path)
    cp.buffer.add(400)
    cp.save()
    cp = opened(tmp_path)
    cp.load()
    overwrite_unseen(cp.buffer, 40)  # Others are looked at first.
    cp.buffer.add(3)
    report, frames = saved(cp)
    assert (frames[40] == 341).all()
    assert report.bytes_written < 40_000


def whole(cp):
    """Return whether a save looks at all rows."""
    before = cp.buffer.frames.copy()
    for row in range(0, ROWS, 2):  # In each block.
        overwrite_unseen(cp.buffer, row)
    _, frames = saved(cp)
    is_whole = np.array_equal(frames, cp.buffer.frames)
    cp.buffer.frames = before
    return is_whole


def of_another_object(cp, directory):
    other = opened(directory)
    other.load()
    other.save()


def loaded_from_another_directory(cp, directory):
    other = opened(f"{directory}-2")
    other.buffer.add(400)
    cp.load(other.save().path)


def loaded_in_part(cp, directory):
    cp.load(regex="frames")


def another_capacity(cp, directory):
    cp.buffer.frames = np.zeros((ROWS + 1, COLUMNS), np.float32)


def another_type(cp, directory):
    cp.buffer.frames = cp.buffer.frames.astype(np.int32)


def added_goes_back(cp, directory):
    cp.buffer.added -= 1


def replaced(cp, directory):
    before = cp.buffer
    cp.buffer = Buffer()
    cp.buffer.frames, cp.buffer.added = before.frames.copy(), before.added


def a_load_that_fails_halfway(cp, directory):
    other = opened(f"{directory}-3")
    other.buffer.add(401)
    path = other.save().path
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Buffer, "load", lambda self, data: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cp.load(path)


def never_saved_as_a_ring(cp, directory):
    cp.buffer.is_ring = False
    cp.save()
    cp.buffer.is_ring = True


def all_rows_are_new(cp, directory):
    cp.buffer.added += ROWS


@pytest.mark.parametrize(
    "change",
    [
        of_another_object,
        loaded_from_another_directory,
        loaded_in_part,
        another_capacity,
        another_type,
        added_goes_back,
        replaced,
        a_load_that_fails_halfway,
        never_saved_as_a_ring,
        all_rows_are_new,
    ],
    ids=lambda change: change.__name__,
)
def test_otherwise_it_is_saved_whole(tmp_path, change):
    cp = opened(tmp_path / "run")
    cp.buffer.add(400)
    cp.save()
    change(cp, tmp_path / "run")
    assert whole(cp)


def test_a_fresh_run_over_an_old_one_saves_its_own(tmp_path):
    old = opened(tmp_path)
    old.buffer.add(100)
    old.save()
    cp = opened(tmp_path)
    cp.buffer.add(101)
    cp.buffer.frames[:101] += 0.5
    _, frames = saved(cp)
    assert np.array_equal(frames, cp.buffer.frames)


def test_a_failed_save_is_not_what_the_next_one_goes_by(tmp_path):
    cp = opened(tmp_path)
    cp.buffer.add(100)
    cp.save()
    cp.buffer.add(100)
    cp.bad = elementsckpt.Saveable(save=lambda: 1 / 0, load=lambda data: None)
    with pytest.raises(ZeroDivisionError):
        cp.save()
    del cp.bad
    cp.buffer.add(100)
    _, frames = saved(cp)
    assert np.array_equal(frames, cp.buffer.frames)


@PROPERTY
@given(
    axis=st.sampled_from([0, 1, 2]),
    shape=st.tuples(*[st.integers(1, 40)] * 3),
    steps=st.lists(st.integers(0, 60), min_size=1, max_size=6),
    kind=st.sampled_from(sorted(KINDS)),
    background=st.booleans(),
    resume_at=st.integers(0, 6),
)
def test_any_ring_is_saved_as_it_is(axis, shape, steps, kind, background, resume_at):
    with tempfile.TemporaryDirectory() as directory:
        options = {"kind": KINDS[kind], "axis": axis, "shape": shape}
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


def test_a_value_may_hold_one(tmp_path):
    cp = Checkpoint(tmp_path, fsync=False, compress=None)
    frames = np.arange(ROWS * COLUMNS, dtype=np.float32).reshape(ROWS, COLUMNS)
    cp.state = Value({"frames": Ring(frames, 10), "count": 10})
    cp.save()
    frames[10:12] = -1
    cp.state.value = {"frames": Ring(frames, 12), "count": 12}
    report = cp.save()
    assert report.bytes_written < 40_000
    cp.state.value = {"frames": np.zeros_like(frames), "count": 0}
    cp.load()
    assert np.array_equal(cp.state.value["frames"], frames)
    assert type(cp.state.value["frames"]) is np.ndarray


def test_one_array_in_two_places_is_one_ring(tmp_path):
    cp = Checkpoint(tmp_path, fsync=False, compress=None)
    frames = np.zeros((ROWS, COLUMNS), np.float32)
    cp.box = elementsckpt.Saveable(
        save=lambda: [frames, Ring(frames, 3), frames[::-1], "last"],
        load=lambda data: found.append(data),
    )
    found = []
    for _ in range(2):
        cp.save()
        cp.load()
    one, other, view, text = found[-1]
    assert one is other
    one[0] = 5
    assert view[-1, 0] == 5
    assert text == "last"


@pytest.mark.parametrize("is_resumed", [False, True])
def test_rings_of_one_name_are_not_taken_for_each_other(tmp_path, is_resumed):
    frames = {"a/b": np.zeros((ROWS, COLUMNS)), "a": {"b": np.zeros((ROWS, COLUMNS))}}
    frames["a"]["b"][201] = 7

    def state():
        return {"a/b": Ring(frames["a/b"], 9), "a": {"b": Ring(frames["a"]["b"], 9)}}

    cp = Checkpoint(tmp_path, fsync=False)
    cp.box = Value({"a/b": state()["a/b"]})
    for _ in range(3):
        save = cp.save().path
        if is_resumed:
            cp = Checkpoint(tmp_path, fsync=False)
            cp.box = Value(elementsckpt.read(save)["box"])
            cp.load()
        cp.box.value = state()
    assert_same(elementsckpt.read(cp.save().path)["box"], frames)


def test_a_number_of_one_element_is_no_ring():
    with pytest.raises(ValueError, match="with at least one axis"):
        Ring(np.float32(3), 3)


def test_added_may_be_a_number_of_numpy_or_jax():
    assert Ring(np.zeros(3), np.int64(5)).added == 5
    assert Ring(np.zeros(3), jnp.int32(5)).added == 5


@pytest.mark.torch
def test_tensors_are_rings_if_their_rows_lie_in_order(tmp_path):
    torch = pytest.importorskip("torch")
    cp = Checkpoint(tmp_path, fsync=False, compress=None)
    rows = torch.arange(ROWS * ROWS, dtype=torch.bfloat16).reshape(ROWS, ROWS)
    box, found = {"added": 10}, []
    cp.box = elementsckpt.Saveable(
        save=lambda: [Ring(x, box["added"]) for x in (rows, rows.T.clone().T)],
        load=found.extend,
    )
    cp.save()
    rows[10:12] = -1
    box["added"] = 12
    cp.save()
    cp.load()
    assert all(torch.equal(x, rows) for x in found)


def test_check_resume_looks_at_all_of_a_ring(caplog):
    def make():
        buffer = Buffer()
        buffer.add(400)
        cp = Checkpoint()
        cp.buffer = buffer
        return cp

    def step(cp):
        overwrite_unseen(cp.buffer, 40)
        cp.buffer.add(1)

    elementsckpt.testing.check_resume(make, step)
    assert said(caplog)


@MANNERS
def test_damage_to_the_last_save_costs_one_save_at_most(tmp_path, background):
    cp = opened(tmp_path, background)
    cp.buffer.add(400)
    cp.save()
    path = (cp.wait() or cp.saves()[-1]).path
    for file in path.glob("*.safetensors"):
        content = bytearray(file.read_bytes())
        content[-500:] = bytes(500)
        file.write_bytes(content)
    cp.buffer.add(3)
    report = cp.save()
    if background:  # The rows were taken as known before that was found.
        with pytest.raises(DamagedError, match="Save again: the next one does without"):
            cp.wait()
        assert not report.path.exists()
        report = cp.save()
        cp.wait()
    frames = elementsckpt.read(report.path)["buffer"]["frames"]
    assert np.array_equal(frames, cp.buffer.frames)


@pytest.mark.parametrize(
    "fields", [{"shape": [1 << 61, 1 << 61]}, {"dtype": "not_installed_here"}]
)
def test_a_ring_of_the_last_save_that_cannot_be_loaded_stops_no_save(tmp_path, fields):
    cp = opened(tmp_path)
    cp.buffer.add(400)
    path = cp.save().path

    def change(content):
        (leaf,) = (
            x
            for x in content["components"][0]["trees"][0]["leaves"]
            if x["names"] == ["frames"]
        )
        leaf.update(fields)

    forge(path, change)
    cp = opened(tmp_path)
    cp.buffer.add(401)
    _, frames = saved(cp)
    assert np.array_equal(frames, cp.buffer.frames)

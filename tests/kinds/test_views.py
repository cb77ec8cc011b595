"""Arrays that share memory come back sharing it, those that do not come back apart."""

import logging
import sys
import tempfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import elementsckpt
from elementsckpt import Checkpoint, CheckpointError, DamagedError, ReadError, Value

from support.boxes import Box, Stream, make
from support.faults import use_small_segments
from support.folders import forge, manifest_of, noise
from support.strategies import NUMPY, PROPERTY, arrays, assert_same, round_trip


def assert_alike(expected, actual):
    """Fail unless both are the same, and stay so when some arrays are written to."""
    assert_same(expected, actual)
    pairs = list(zip(*map(arrays_in, (expected, actual)), strict=True))
    pairs = [pair for pair in pairs if pair[0].flags.writeable]
    for number, pair in enumerate(pairs[:: 1 + len(pairs) // 5]):
        for array in pair:
            write(array, number % 2)
        assert_same(expected, actual)


def arrays_in(state):
    if isinstance(state, np.ndarray):
        yield state
    elif isinstance(state, (dict, list, tuple)):
        for value in state.values() if isinstance(state, dict) else state:
            yield from arrays_in(value)


def write(array, byte):
    """Set all of an array to bytes that are valid in each dtype of these tests."""
    for name in array.dtype.names or ():
        write(array[name], byte)
    if array.dtype.kind == "U":
        array[...] = chr(byte)
    elif array.size and not array.dtype.names:
        array[...] = np.frombuffer(bytes([byte] * array.itemsize), array.dtype)[0]


# All forms that views of a contiguous array can have

BASES = {
    "vector": lambda: np.arange(60.0),
    "matrix": lambda: np.arange(60.0).reshape(6, 10),
    "Fortran order": lambda: np.asfortranarray(np.arange(60.0).reshape(6, 10)),
    "bytes": lambda: np.arange(96, dtype=np.uint8),
    "booleans": lambda: np.arange(64) % 2 == 0,
    "short floats": lambda: np.ones((8, 8), ml_dtypes.bfloat16),
    "dates": lambda: np.arange(64).astype("M8[s]"),
    "other byte order": lambda: np.arange(60, dtype=">i4"),
    "text": lambda: np.array([f"{n}" for n in range(40)]),
    "several blocks": lambda: noise(3, 3 * 2**19, np.float32).reshape(-1, 64),
    "large rows": lambda: noise(4, 2**21 + 16).reshape(2, -1),
}
VIEWS = {
    "a part": lambda x: x[1:3],
    "itself": lambda x: x[:],
    "reversed": lambda x: x[::-1],
    "every other": lambda x: x[::2],
    "transposed": lambda x: x.T,
    "flat": lambda x: x.reshape(-1, order="A"),
    "columns": lambda x: x[..., 1:4],
    "one element": lambda x: x[(0,) * x.ndim + (...,)],
    "more axes": lambda x: x[None, ..., None],
    "read-only": lambda x: np.broadcast_to(x, x.shape),
    "another dtype": lambda x: x.reshape(-1, order="A").view("u1"),
}


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("view", VIEWS)
def test_a_view_comes_back_as_one(base, view):
    whole = BASES[base]()
    state = {"whole": whole, "part": VIEWS[view](whole), "other": whole.copy()}
    assert_alike(state, round_trip(state))


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("options", [{"mmap": True}, {"compress": 1}, {"own": True}])
def test_views_come_back_in_other_ways(base, options):
    whole = BASES[base]()
    state = [[view(whole) for view in VIEWS.values()], {"whole": whole}]
    assert_alike(state, round_trip(state, **options))


# Others


def overlapping():
    memory = np.arange(10.0)
    return {"low": memory[:7], "high": memory[3:], "back": memory[::-1]}


def neighbours():
    memory = np.arange(40.0).reshape(4, 10)
    return {"rows": [memory[0], memory[1]], "rest": memory[2:]}


def interleaved():
    memory = np.arange(40.0)
    return {"even": memory[::2], "odd": memory[1::2]}


def columns(count=50):
    memory = np.arange(2.0 * count).reshape(2, count)
    return [memory[:, column] for column in range(count)]


def fields():
    memory = np.zeros(4, [("a", "?"), ("b", "<f8"), ("c", "<i4", (2,))])
    return {"whole": memory, "b": memory["b"], "c": memory["c"][1:]}


def fields_alone():
    memory = np.zeros(4, [("a", "<f8"), ("b", "<f8")])
    return [memory["a"], memory["b"], memory["b"][1:]]


def transposed_blocks():
    memory = np.arange(60.0).reshape(3, 4, 5)
    return [memory[:2].transpose(2, 0, 1), memory[1:], memory[:, 1:3, ::-1]]


def two_of_each():
    return [overlapping(), overlapping(), fields(), fields()]


def larger_alignment():
    memory = np.zeros(64 + 5, np.uint8)
    begin = -memory.__array_interface__["data"][0] % 8
    return [memory, memory[begin : begin + 16].view("<f8"), np.ones(1, "?"), memory[3:]]


def of_other_objects(directory):
    mapped = np.memmap(directory / "memory", np.float32, "w+", shape=(8,))
    mapped[:] = np.arange(8)
    raw = bytearray(range(64))
    return {
        "mapped": [np.asarray(mapped), np.asarray(mapped[2:4])],
        "buffer": [np.frombuffer(raw, "u1"), np.frombuffer(raw, "<i4", 3, 8)],
        "unlike": [np.frombuffer(raw, "<i4"), np.zeros(0), mapped[:0].view(np.ndarray)],
    }


STATES = {
    "overlapping": overlapping,
    "neighbours": neighbours,
    "interleaved": interleaved,
    "columns": columns,
    "many columns": lambda: columns(300),
    "fields": fields,
    "fields alone": fields_alone,
    "transposed blocks": transposed_blocks,
    "two of each": two_of_each,
    "larger alignment": larger_alignment,
    "nothing": lambda: [np.zeros(3)[:0], np.zeros(3)[1:1], np.zeros((0, 3)).T],
}


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize("mmap", [False, True])
def test_arrays_share_what_they_shared(caplog, name, mmap):
    state = STATES[name]()
    loaded = round_trip(state, mmap=mmap)
    assert_alike(state, loaded)
    # And once more, as what is loaded lies in other memory.
    assert_alike(state, round_trip(loaded))
    assert caplog.records == []


def test_very_many_columns_come_back_apart_though_stored_together(tmp_path):
    state = columns(500)
    assert make(tmp_path, state).save().bytes_total == 500 * 2 * 8
    loaded = round_trip(state)
    for number, (expected, actual) in enumerate(zip(state, loaded, strict=True)):
        assert expected.tolist() == actual.tolist()
        actual[:] = expected[:] = number
    assert [x.tolist() for x in loaded] == [[n, n] for n in range(500)]


def test_views_of_memory_that_is_no_array_come_back(tmp_path, caplog):
    state = of_other_objects(tmp_path)
    assert_alike(state, round_trip(state))
    assert caplog.records == []


def test_memory_is_stored_once(tmp_path):
    whole = noise(0, 2**20, np.float32)
    parts = [whole[n:] for n in range(0, 1000, 10)]
    report = make(tmp_path, {"whole": whole, "parts": parts}).save()
    assert report.bytes_total == whole.nbytes
    without = make(tmp_path / "without", {"parts": parts[1:]}).save()
    assert without.bytes_total == whole.nbytes - 40


def test_a_view_takes_no_more_than_it_shows_where_its_base_is_not_saved(tmp_path):
    memory = np.zeros((1000, 1000))
    state = [memory[:, 0], memory[5], memory[:10].T]
    path = make(tmp_path, state[:1]).save()
    assert path.bytes_total == 8000


@pytest.mark.parametrize("order", "CF")
def test_a_view_of_bytes_shows_what_lies_between_fields(order):
    dtype = np.dtype({"names": ["a", "b"], "formats": ["i1", "<f8"], "offsets": [0, 8]})
    memory = np.arange(6 * 16, dtype=np.uint8)
    structured = memory.view(dtype).reshape((2, 3), order=order)
    # Small leaves lie at any odd place of a block, and so this one is moved.
    state = {"odd": np.ones(3, np.uint8), "structured": structured, "bytes": memory}
    assert_alike(state, round_trip(state))


@st.composite
def states_of_views(draw):
    """States of views of views of some arrays, most of them without these."""
    bases = draw(st.lists(arrays().filter(lambda x: x.size), min_size=1, max_size=3))
    pool = [array.copy("K") for array in bases]
    for _ in range(draw(st.integers(1, 6))):
        pool.append(draw(view_of(draw(st.sampled_from(pool)))))
    chosen = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=6))
    return {"some": chosen, "more": {str(n): x for n, x in enumerate(chosen[::2])}}


@st.composite
def view_of(draw, array):
    slices = st.builds(
        slice,
        st.none() | st.integers(0, 2),
        st.none() | st.integers(1, 4),
        st.sampled_from([None, 1, 2, -1]),
    )
    view = array[(*(draw(slices) for _ in range(array.ndim)), ...)]
    if draw(st.booleans()):
        view = view.transpose(draw(st.permutations(range(view.ndim))))
    if view.dtype.names and draw(st.booleans()):
        return view[draw(st.sampled_from(view.dtype.names))]
    if view.flags.c_contiguous and view.ndim and draw(st.booleans()):
        return view.reshape(-1).view("u1" if view.itemsize else view.dtype)
    return view


@PROPERTY
@given(states_of_views(), st.booleans(), st.sampled_from([None, 1]))
def test_any_views_come_back_as_views(state, mmap, compress):
    assert_alike(state, round_trip(state, mmap=mmap, compress=compress))


@PROPERTY
@given(states_of_views())
def test_any_views_in_small_blocks_come_back_from_the_background(state):
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as path:
        use_small_segments(patch.setattr, block_bytes=32)
        with Checkpoint(path, fsync=False, background=True) as cp:
            cp.box = Box(state)
            cp.save()
            cp.save()
        cp.load()
        assert_alike(state, cp.box.state)


@PROPERTY
@given(st.lists(states_of_views(), min_size=1, max_size=3))
def test_any_views_in_shards_come_back_as_views(shards):
    with tempfile.TemporaryDirectory() as path:
        cp = Checkpoint(path, fsync=False)
        cp.stream = Stream(shards)
        cp.save()
        cp.stream = Stream()
        cp.load()
        for expected, actual in zip(shards, cp.stream.state, strict=True):
            assert_same(expected, actual)


# A part of a save


def views_of_one(n=10.0):
    whole = np.arange(n)
    return {"whole": whole, "part": whole[2:5], "other": whole[4:], "alone": whole * 2}


def test_selected_views_share_memory_with_what_else_is_selected(tmp_path):
    path = make(tmp_path, views_of_one()).save().path
    zeros = {name: np.zeros_like(x) for name, x in views_of_one().items()}
    for regex in (".*", "whole|part", "part|other", "(?!alone)"):
        cp = make(state=dict(zeros))
        loaded = cp.load(path, regex=regex).loaded
        names = [name.removeprefix("agent/") for name in loaded]
        expected = {name: views_of_one()[name] for name in names}
        state = views_of_one()
        assert_alike(
            {name: state[name] for name in names},
            {name: cp.agent.state[name] for name in names},
        )
        read = elementsckpt.read(path, regex=regex)["agent"]
        assert_same(
            {name: x.copy() for name, x in expected.items()}.keys(), read.keys()
        )
        state = views_of_one()
        assert_alike({name: state[name] for name in read}, read)


def test_a_selected_view_holds_no_more_memory_than_it_shows(tmp_path):
    memory = np.arange(1e5)
    path = (
        make(tmp_path, {"whole": memory, "f": memory[:6].reshape(2, 3).T}).save().path
    )
    cp = make(state={"whole": 5, "f": np.zeros((3, 2))})
    cp.load(path, regex="f")
    assert cp.agent.state["whole"] == 5
    for loaded in cp.agent.state["f"], elementsckpt.read(path, regex="f")["agent"]["f"]:
        base = loaded if loaded.base is None else loaded.base
        assert base.nbytes == 48
        assert_same(np.asfortranarray(memory[:6].reshape(2, 3).T), loaded)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("mmap", [False, True])
def test_only_the_blocks_of_selected_views_are_read(tmp_path, order, mmap):
    whole = np.asarray(noise(0, 2**24, np.float32).reshape(-1, 1024), order=order)
    views = {"rows": whole[2000:2010], "columns": whole[:, 500:503]}
    path = make(tmp_path, {"whole": whole, **views}, compress=None).save().path
    few = views["rows" if order == "C" else "columns"]
    many = views["columns" if order == "C" else "rows"]
    for name, most in (("rows", 2**21), ("columns", 2**21)):
        cp = make(state={name: np.zeros_like(views[name])})
        report = cp.load(path, regex=name, mmap=mmap)
        assert_same(views[name].copy("A"), cp.agent.state[name])
        is_small = views[name] is few
        assert report.bytes_read <= (most if is_small else whole.nbytes)
    assert many.nbytes < whole.nbytes


@PROPERTY
@given(states_of_views(), st.data())
def test_any_selected_views_come_back(state, data):
    different = {id(array): array for array in arrays_in(state)}
    named = {f"{n}": array for n, array in enumerate(different.values())}
    chosen = data.draw(st.lists(st.sampled_from(sorted(named)), min_size=1))
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as path:
        use_small_segments(patch.setattr, block_bytes=32)
        make(path, {**named, "more": 1}, fsync=False).save()
        read = elementsckpt.read(path, regex="|".join(f"{n}$" for n in chosen))["agent"]
        assert {*read} == {*chosen}
        assert_alike({name: named[name] for name in read}, read)


def test_memory_of_views_is_nothing_to_select(tmp_path):
    memory = np.arange(10.0)
    path = make(tmp_path, [memory[:7], memory[3:]]).save().path
    cp = make(state=[np.zeros(7), np.zeros(7)])
    assert cp.load(path, regex=".*").loaded == ("agent/0", "agent/1")
    assert cp.load(path).loaded == ("agent/0", "agent/1")
    assert_same([memory[:7], memory[3:]], cp.agent.state)
    assert list(elementsckpt.read(path, regex="1")["agent"]) == [1]


def test_selected_views_are_cast_and_compared_like_other_arrays(tmp_path):
    path = make(tmp_path, views_of_one()).save().path
    cp = make(state={"whole": np.zeros(10), "part": np.zeros(4)})
    with pytest.raises(elementsckpt.MismatchError, match=r"part: saved float64\[3\]"):
        cp.load(path, regex="whole|part")
    cp = make(state={"part": np.zeros(3, "f4"), "whole": np.zeros(10, "f4")})
    cp.load(path, regex="whole|part", cast=True)
    assert_same(np.arange(10, dtype="f4")[2:5], cp.agent.state["part"])


@pytest.mark.parametrize("jax", [False, True])
def test_a_value_keeps_views(monkeypatch, tmp_path, jax):
    if not jax:
        monkeypatch.delitem(sys.modules, "jax", raising=False)
    cp = Checkpoint(tmp_path, fsync=False)
    cp.state = Value(views_of_one())
    cp.save()
    cp.state.value = {name: np.zeros_like(x) for name, x in views_of_one().items()}
    cp.load()
    assert_alike(views_of_one(), cp.state.value)
    state = views_of_one()
    path = tmp_path / "tree"
    elementsckpt.save_pytree(path, state)
    assert_alike(state, elementsckpt.load_pytree(path, state))


def test_what_becomes_jax_arrays_or_tensors_shares_nothing(tmp_path):
    import jax.numpy as jnp

    whole = np.arange(64, dtype=np.float32)
    path = make(tmp_path, {"a": whole, "b": whole[:32], "c": whole[16:]}).save().path
    cp = make(state={"a": np.zeros_like(whole), "b": jnp.zeros(32), "c": np.zeros(48)})
    cp.agent.state["c"] = cp.agent.state["c"].astype("f4")
    cp.load(path, regex=".*")
    loaded = cp.agent.state
    loaded["a"][:] = loaded["c"][:] = -1
    assert loaded["b"].tolist() == whole[:32].tolist()


@pytest.mark.torch
@pytest.mark.torch
def test_tensors_made_of_views_share_nothing(tmp_path):
    torch = pytest.importorskip("torch")
    whole = np.arange(64, dtype=np.float32)
    path = make(tmp_path, {"a": whole, "b": whole[:32]}).save().path
    cp = make(state={"a": np.zeros_like(whole), "b": torch.zeros(32)})
    cp.load(path, regex=".*")
    cp.agent.state["a"][:] = -1
    assert cp.agent.state["b"].tolist() == whole[:32].tolist()


# Pickles


class Tagged(np.ndarray):
    pass


class Holder:
    """Only pickle holds it."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)


def test_views_in_pickled_objects_come_back_as_views(caplog):
    whole = np.arange(20.0)
    state = [
        Holder(part=whole[2:5], parts=[whole[4:], whole[::2]]),
        {"whole": whole, "again": Holder(part=whole[:3])},
    ]

    def arrays_of(state):
        first, second = state
        others = [second["whole"], second["again"].part]
        return [first.part, *first.parts, *others]

    loaded = round_trip(state, own=True)
    assert_alike(arrays_of(state), arrays_of(loaded))
    assert caplog.records == []


def test_views_of_masked_arrays_and_subclasses_come_back_as_views(caplog):
    masked = np.ma.MaskedArray(np.arange(6.0), [0, 1] * 3)
    tagged = np.arange(6.0).view(Tagged)
    state = {
        "masked": masked,
        "part": masked[1:3],
        "data": masked.data,
        "tagged": tagged,
        "rest": tagged[2:],
    }
    loaded = round_trip(state, own=True)
    loaded["masked"][1:3] = 7
    assert loaded["part"].tolist() == [7, 7]
    assert loaded["data"].tolist() == [0, 7, 7, 3, 4, 5]
    loaded["tagged"][2] = 9
    assert loaded["rest"][0] == 9
    assert caplog.records == []


# Where it is not kept


def objects():
    array = np.array([None, [1], "a", 2], object)
    return {"whole": array, "part": array[1:3]}, "agent/whole, agent/part"


def objects_in_a_pickle():
    array = np.array([None, [1], "a", 2], object)
    return [Holder(whole=array, part=array[1:3])], "agent/0"


def text_of_any_length():
    array = np.array(["a", "b", "c"], np.dtypes.StringDType())
    return [array, array[1:]], "agent/0, agent/1"


def records():
    array = np.rec.array([(1, 2.0)] * 3, dtype=[("a", "i4"), ("b", "f8")])
    return {"all": array, "b": array.b}, "agent/all, agent/b"


def repeated():
    array = np.arange(3.0)
    return [array, np.broadcast_to(array, (4, 3))], "agent/0, agent/1"


def windows():
    array = np.arange(9.0)
    slide = np.lib.stride_tricks.sliding_window_view
    return [slide(array, 3), np.ones(2), slide(array, 2)], "agent/0, agent/2"


def wasteful():
    array = np.zeros((1000, 100))
    return [array[:, 0], array[:, 0][5:], array[7]], "agent/0, agent/1, agent/2"


APART = {
    "objects": objects,
    "objects in a pickle": objects_in_a_pickle,
    "records": records,
    "repeated": repeated,
    "windows": windows,
    "wasteful": wasteful,
    **({} if NUMPY < "2.0.0" else {"text": text_of_any_length}),
}


@pytest.mark.parametrize("name", APART)
def test_what_comes_back_apart_is_said_once(tmp_path, caplog, name):
    state, names = APART[name]()
    cp = make(tmp_path, state)
    cp.save()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    message = record.getMessage()
    assert message.startswith(f"{names} share memory, and will come back apart: "), (
        message
    )
    cp.save()
    make(tmp_path / "other", {"x": 1}).save()
    assert len(caplog.records) == 1
    cp.load()


def test_many_that_come_back_apart_are_one_warning(tmp_path, caplog):
    array = np.arange(3.0)
    state = [[array, *(np.broadcast_to(array, (n, 3)) for n in range(2, 50))]]
    make(tmp_path, state).save()
    (record,) = caplog.records
    assert "agent/0/9 and 39 more share memory" in record.getMessage()
    assert len(record.getMessage()) < 500


def test_what_repeats_itself_alone_comes_back_whole(caplog):
    array = np.broadcast_to(np.arange(3.0), (4, 3))
    assert_same(array.copy(), round_trip(array))
    assert caplog.records == []


# Saves in the course of a run


def test_a_save_in_the_background_owns_what_views_show(tmp_path):
    whole = noise(0, 2**20, np.float32)
    before = whole.copy()
    with Checkpoint(tmp_path, background=True, fsync=False) as cp:
        cp.box = Box({"whole": whole, "part": whole[5:9]})
        cp.save()
        whole[:] = 0
    cp.load()
    assert_same({"whole": before, "part": before[5:9]}, cp.box.state)


def test_views_cost_nothing_when_nothing_changed(tmp_path):
    whole = noise(0, 2**22, np.float32)
    cp = make(tmp_path, {"whole": whole, "parts": [whole[n:] for n in range(20)]})
    cp.save()
    cp.load()
    report = cp.save()
    assert report.bytes_reused == whole.nbytes
    assert report.bytes_total == whole.nbytes
    cp.agent.state["parts"][3][0] = 7
    cp.save()
    cp.load()
    assert cp.agent.state["whole"][3] == 7


def test_views_of_jax_arrays_come_back(tmp_path, caplog):
    import jax.numpy as jnp

    array = jnp.arange(8.0)
    shown = np.asarray(array)
    loaded = round_trip({"jax": array, "all": shown, "part": shown[2:4]})
    assert loaded["jax"].tolist() == loaded["all"].tolist() == list(range(8))
    loaded["all"][:] = -1
    assert loaded["part"].tolist() == [-1, -1]
    assert loaded["jax"].tolist() == list(range(8))
    assert caplog.records == []


class Buffer:
    """A replay buffer that is divided among environments, as tianshou makes them."""

    def __init__(self, size, count):
        self.data = {"obs": np.zeros((size, 4)), "done": np.zeros(size, bool)}
        step = size // count
        self.buffers = [
            {name: x[n * step : (n + 1) * step] for name, x in self.data.items()}
            for n in range(count)
        ]

    def add(self, number, index, value):
        self.buffers[number]["obs"][index] = value


@pytest.mark.parametrize("pickled", [False, True])
def test_a_buffer_that_was_divided_works_after_a_resume(tmp_path, pickled):
    buffer = Buffer(40, 4)
    buffer.add(2, 1, 5.0)
    cp = make(tmp_path, buffer if pickled else vars(buffer))
    cp.save()
    cp.load()
    loaded = cp.agent.state
    if not pickled:
        loaded = Buffer(0, 1)
        vars(loaded).update(cp.agent.state)
    assert loaded.data["obs"][21].tolist() == [5.0] * 4
    loaded.add(3, 0, 7.0)
    assert loaded.data["obs"][30].tolist() == [7.0] * 4


# Forged


def save_of_views(tmp_path):
    whole = np.arange(8.0)
    return make(state={"w": whole, "part": whole[2:5]}).save(tmp_path / "save").path


def view_in(content):
    groups = content["components"][0]["trees"][0]["leaves"]
    (found,) = [group for group in groups if group["kind"] == "view"]
    return found


FORGED = {
    "before the memory": {"value": [[0, -8, [8]]]},
    "beyond the memory": {"value": [[0, 48, [8]]]},
    "far beyond the memory": {"value": [[0, 1 << 80, [8]]]},
    "backwards beyond the memory": {"value": [[0, 8, [-8]]]},
    "large strides": {"value": [[0, 0, [1 << 62]]]},
    "strides beyond all numbers": {"value": [[0, 0, [1 << 90]]], "shape": [1]},
    "of one element many times": {"value": [[0, 0, [0]]], "shape": [1 << 40]},
    "of elements that overlap": {"value": [[0, 0, [1]]], "shape": [40]},
    "of rows that overlap": {"value": [[0, 0, [8, 8]]], "shape": [4, 4]},
    "of too many elements": {"value": [[0, 0, [8]]], "shape": [1 << 61]},
    "of nothing": {"value": [[0, 0, [8]]], "shape": [0]},
    "of nothing, often": {"value": [[0, 0, [8, 8]]], "shape": [1 << 61, 0]},
    "of bytes that are none": {"value": [[0, 0, [0]]], "dtype": "|V0"},
    "of fewer axes": {"value": [[0, 0, []]]},
    "of more axes": {"value": [[0, 0, [8, 8]]]},
    "of itself": {"value": [[1, 0, [8]]]},
    "of a leaf that is not there": {"value": [[2, 0, [8]]]},
    "of a container": {"value": [[-1, 0, [8]]]},
    "of a list": {"value": [[[0], 0, [8]]]},
    "of a number and a half": {"value": [[0.5, 0, [8]]]},
    "at no number": {"value": [[0, "0", [8]]]},
    "at half a number": {"value": [[0, 0.5, [8]]]},
    "along half a number": {"value": [[0, 0, [8.5]]]},
    "along nothing": {"value": [[0, 0, None]]},
    "of less": {"value": [[0]]},
    "more than leaves": {"value": [[0, 0, [8]]] * 2},
    "of no list": {"value": 0},
    "of nowhere": {"value": []},
    "of strings": {"dtype": {"string": {"coerce": True}}},
    "of objects": {"dtype": "|O8"},
    "with bytes of its own": {"block": 0, "offset": 8},
}
HARMLESS = {"with bytes of its own"}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_view_is_refused(tmp_path, name):
    path = save_of_views(tmp_path)
    forge(path, lambda content: view_in(content).update(FORGED[name]))
    ways = [
        elementsckpt.read,
        lambda x: elementsckpt.read(x, mmap=False),
        lambda x: elementsckpt.read(x, regex="part"),
        make().load,
        lambda x: make(state={"part": np.zeros(3)}).load(x, regex="part"),
    ]
    for way in ways:
        if name in HARMLESS:
            way(path)
            continue
        with pytest.raises(CheckpointError) as caught:
            way(path)
        # A pattern may leave the view out; NumPy 1 has no such strings.
        assert caught.type is not ReadError or NUMPY < "2.0.0"


def test_a_view_of_what_is_no_plain_array_is_refused(tmp_path):
    import jax.numpy as jnp

    others = [b"b" * 2000, jnp.arange(8.0), "a" * 2000, {1, 2}]
    whole = np.arange(8.0)
    state = {"w": whole, "part": whole[2:5], "others": others}
    path = make(state=state).save(tmp_path / "save").path
    groups = manifest_of(path)["components"][0]["trees"][0]["leaves"]
    numbers, first = {}, 0
    for group in groups:
        numbers |= {name: first + n for n, name in enumerate(group["names"])}
        first += len(group["names"])
    for number in range(4):
        value = [[numbers[f"others/{number}"], 0, [8]]]
        forge(path, lambda content, value=value: view_in(content).update(value=value))
        with pytest.raises(DamagedError, match="that has no plain array"):
            elementsckpt.read(path)


def test_views_of_one_array_take_no_memory_of_their_own(tmp_path):
    path = save_of_views(tmp_path)

    def change(content):
        group, count = view_in(content), 5000
        group.update(value=[[0, 0, [8]]] * count, names=["part"] * count, shape=[8])
        tree = content["components"][0]["trees"][0]
        number = next(n for n, x in enumerate(tree["leaves"]) if x is group)
        first = sum(len(x["names"]) for x in tree["leaves"][:number])
        tree["nodes"][0].update(
            kind="list", keys=[], children=[*range(first, first + count)]
        )

    forge(path, change)
    loaded = elementsckpt.read(path, mmap=False)["agent"]
    assert len(loaded) == 5000
    assert all(np.shares_memory(loaded[0], x) for x in loaded)

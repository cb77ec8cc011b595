"""What was saved comes back exactly: NumPy, Python scalars and containers.

Every load here, unless it says otherwise, is by an object that does not own the
directory and so may not use pickle: that it succeeds shows that none was needed.
"""

import math
import struct
import tempfile
from collections import Counter, OrderedDict, defaultdict, deque

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import elementsckpt
from elementsckpt import Checkpoint

from support.boxes import Box, Stream, make_boxes
from support.strategies import (
    LAYOUTS,
    NUMPY,
    PROPERTY,
    Empty,
    Frozen,
    Pair,
    Point,
    Slotted,
    arrays,
    assert_same,
    lay_out,
    round_trip,
    scalars,
    states,
)

# Properties


@PROPERTY
@given(states())
def test_any_state_comes_back_the_same(state):
    assert_same(state, round_trip(state))


@PROPERTY
@given(states())
def test_any_state_comes_back_the_same_when_mapped(state):
    assert_same(state, round_trip(state, mmap=True))


@PROPERTY
@given(states())
def test_any_state_comes_back_the_same_when_compressed(state):
    assert_same(state, round_trip(state, compress=1))


@PROPERTY
@given(states(), states())
def test_any_state_comes_back_the_same_from_the_background(state, before):
    with tempfile.TemporaryDirectory() as directory:
        cp = Checkpoint(directory, fsync=False, background=True)
        cp.box = Box(before)
        for cp.box.state in (before, state, state):
            cp.save()
        cp.wait()
        cp.load()
        assert_same(state, cp.box.state)


@PROPERTY
@given(states())
def test_any_state_comes_back_the_same_in_the_own_directory(state):
    assert_same(state, round_trip(state, own=True))


@PROPERTY
@given(states(), st.booleans())
def test_any_state_comes_back_the_same_through_functions(state, mmap):
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/save"
        elementsckpt.checkpoint.save(
            path, {"any key/at all": lambda: state}, fsync=False
        )
        loaded = []
        functions = {"any key/at all": loaded.append}
        elementsckpt.checkpoint.load(path, functions, mmap=mmap)
        assert_same([state], loaded)


@PROPERTY
@given(st.lists(states(), max_size=4))
def test_any_shards_come_back_the_same_and_in_order(shards):
    with tempfile.TemporaryDirectory() as directory:
        cp = Checkpoint(directory, fsync=False)
        cp.stream = Stream(shards)
        cp.save()
        cp.stream = Stream()
        cp.load()
        assert len(cp.stream.state) == len(shards)
        for expected, actual in zip(shards, cp.stream.state, strict=True):
            assert_same(expected, actual)


@PROPERTY
@given(states())
def test_a_loaded_state_saves_to_the_same_again(state):
    once = round_trip(state)
    assert_same(once, round_trip(once))


@PROPERTY
@given(st.dictionaries(st.sampled_from("abcd"), arrays() | scalars(), max_size=4))
def test_any_leaves_read_without_objects_are_the_same(state):
    with tempfile.TemporaryDirectory() as directory:
        cp = Checkpoint(directory, fsync=False)
        cp.box = Box(state)
        cp.save()
        assert_same({"box": state}, elementsckpt.read(directory))
        assert_same({"box": state}, elementsckpt.read(directory, mmap=False))


# Scalars

SCALARS = [
    *(None, True, False, 0, 1, -1, 2**53, 2**53 + 1, -(2**63), 2**64, -(2**64) - 1),
    *(10**5000, -(10**5000), 1 << 100_000),
    *(0.0, -0.0, 0.1, 1e-320, 5e-324, 1.7976931348623157e308, math.inf, -math.inf),
    *(math.nan, -math.nan, struct.unpack("<d", b"\1\2\3\4\5\6\xf7\xff")[0]),
    *(0j, complex(-0.0, math.nan), complex(math.inf, -0.0), 1 + 2j),
    *("", "text", "\0", "a\0", "é😀", "\ud800", "\udfff tail", "\r\n\t\x7f\u2028"),
    *("$float", "nan", "x" * 100_000, "\ud800" * 1000),
    *(b"", b"\xff\xfe\0", bytes(range(256)), b"x" * 100_000),
]


@pytest.mark.parametrize("scalar", SCALARS, ids=lambda value: type(value).__name__)
def test_scalar_alone_comes_back_the_same(scalar):
    assert_same(scalar, round_trip(scalar))


def test_scalars_nested_come_back_the_same():
    assert_same(SCALARS, round_trip(SCALARS))


NUMPY_SCALARS = [
    *(np.True_, np.False_, np.int8(-1), np.uint8(255), np.int16(-2), np.uint16(3)),
    *(np.int32(-4), np.uint32(5), np.int64(-(2**63)), np.uint64(2**64 - 1)),
    *(np.float16(0.1), np.float32(-0.0), np.float64("nan"), np.float64(-0.0)),
    *(np.longdouble("0.1"), np.complex64(1 - 2j), np.complex128(complex(-0.0, 1))),
    *(np.clongdouble(3j), np.str_("text"), np.str_(""), np.str_("\ud800")),
    *(np.bytes_(b"\xff\0x"), np.bytes_(b""), np.void(b"\0\1\2")),
    *(np.datetime64("2026-11-20"), np.datetime64("NaT", "ns"), np.datetime64(7, "25s")),
    *(np.timedelta64(3, "ns"), np.timedelta64("NaT", "D"), np.timedelta64(3, "M")),
    *(ml_dtypes.bfloat16(1.5), ml_dtypes.float8_e5m2(-0.0), ml_dtypes.int4(-8)),
    np.array([(1, 2.5)], [("a", ">i4"), ("b", "<f8")])[0],
]


@pytest.mark.parametrize(
    "scalar", NUMPY_SCALARS, ids=lambda value: f"{value.dtype}-{value}"
)
def test_numpy_scalar_keeps_its_type(scalar):
    assert_same(scalar, round_trip(scalar))
    assert_same({"a": [scalar]}, round_trip({"a": [scalar]}))


def test_numpy_scalar_and_zero_dimensional_array_are_told_apart():
    state = [np.float32(1), np.array(1, np.float32), 1.0]
    assert_same(state, round_trip(state))


def test_load_is_called_with_none_when_save_returned_none():
    assert round_trip(None, into="something else") is None


# Dtypes

CODES = [
    *("?", "b", "B", "<i2", ">i2", "<u4", ">u4", "<i8", ">i8", "<u8", ">u8"),
    *("<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "<c8", ">c8", "<c16", ">c16"),
    *("g", "G", "<U3", ">U3", "S1", "S5", "V1", "V3", "V16"),
    # Times without a unit are going out of use: NumPy 2.5 warns of each.
    *(() if NUMPY >= "2.5.0" else ("<M8", "<m8")),
    *("<M8[ns]", ">M8[D]", "<M8[25s]", "<m8[us]", ">m8[7h]"),
]


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_array_keeps_dtype_byte_order_and_memory_order(code, layout):
    raw = np.arange(24 * np.dtype(code).itemsize, dtype=np.uint8) % 100
    source = np.frombuffer((raw % 2 if code == "?" else raw).tobytes(), code)
    if code[-2:] in ("U3", "g", "G"):  # Not all bits are allowed there.
        source = np.arange(24).astype(code)
    array = lay_out(source.reshape(2, 3, 4), layout)
    assert_same(array, round_trip(array))


ML_DTYPES = [
    name
    for name in (
        *("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz"),
        *("float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e3m4", "float8_e4m3"),
        *("float8_e8m0fnu", "float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn"),
        *("int4", "uint4", "int2", "uint2"),
    )
    if hasattr(ml_dtypes, name)
]


@pytest.mark.parametrize("name", ML_DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_array_of_a_short_float_or_int_comes_back_the_same(name, layout):
    source = np.ones((2, 3, 4)).astype(getattr(ml_dtypes, name))
    source[0, :, 1] = 0
    array = lay_out(source, layout)
    assert_same(array, round_trip(array))


STRUCTURES = {
    "packed": np.dtype([("a", "?"), ("b", "<f8"), ("c", ">i4")]),
    "aligned": np.dtype([("a", "?"), ("b", "<f8")], align=True),
    "nested": np.dtype([("a", [("b", "<i2"), ("c", [("d", ">f4")])])]),
    "subarrays": np.dtype([("a", "<f4", (2, 3)), ("b", "S3", (2,))]),
    "holes": np.dtype(
        {"names": ["a", "b"], "formats": ["<i4", "<f8"], "offsets": [9, 1]}
        | {"itemsize": 20}
    ),
    "overlapping": np.dtype(
        {"names": ["all", "low"], "formats": ["<u4", "<u2"], "offsets": [0, 0]}
    ),
    "titles": np.dtype([(("Title", "a"), "<i4"), (("Other", "b"), "<f4")]),
    "odd names": np.dtype([("$a", "<i4"), ("é/ ", "<f4"), ("f1", "?")]),
    "no fields": np.dtype([]),
    "text": np.dtype([("s", "<U4"), ("t", "M8[s]"), ("r", "V3")]),
}


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("layout", ["C", "F", "strided"])
def test_structured_array_keeps_every_detail_of_its_dtype(name, layout):
    dtype = STRUCTURES[name]
    raw = np.arange(6 * dtype.itemsize, dtype=np.uint8) % 2
    source = np.zeros((2, 3), dtype)
    if dtype.itemsize and name != "text":
        source = np.frombuffer(raw.tobytes(), dtype).reshape(2, 3)
    array = lay_out(source, layout)
    loaded = round_trip(array)
    assert_same(array, loaded)
    assert loaded.dtype.fields == array.dtype.fields
    assert loaded.dtype.itemsize == array.dtype.itemsize


def string_arrays():
    """Arrays of NumPy 2's strings of any length; none where NumPy is older."""
    if NUMPY < "2.0.0":
        return []
    words = ["", "short", "\0", "é😀" * 50, "x" * 5000, "end"]
    kinds = [{}, {"coerce": False}, {"na_object": None}, {"na_object": math.nan}]
    kinds += [{"na_object": "missing"}]
    made = []
    for options in kinds:
        dtype = np.dtypes.StringDType(**options)
        made.append(np.array(words, dtype))
        made.append(np.array(words, dtype).reshape(2, 3)[:, ::2])
        made.append(np.asfortranarray(np.array(words, dtype).reshape(2, 3)))
        made.append(np.array([], dtype))
        made.append(np.array("alone", dtype))
        if "na_object" in options:
            made.append(np.array([*words, options["na_object"]], dtype))
    return made


def test_strings_of_any_length_come_back_the_same():
    state = string_arrays()
    assert_same(state, round_trip(state))


# Shapes and memory


@pytest.mark.parametrize(
    "shape", [(), (0,), (1,), (0, 3), (3, 0, 2), (1, 1, 1), (0,) * 5, (1,) * 30]
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_empty_and_single_element_arrays_come_back_the_same(shape, order):
    for dtype in (np.float32, "V7", "<U2", [("a", "?")]):
        array = np.zeros(shape, dtype, order)
        assert_same(array, round_trip(array))


def test_broadcast_array_comes_back_whole():
    array = np.broadcast_to(np.arange(3.0), (4, 3))
    assert_same(array, round_trip(array))


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("compress", [None, 1])
def test_loaded_arrays_are_written_without_changing_the_save(tmp_path, mmap, compress):
    cp = Checkpoint(tmp_path, fsync=False, compress=compress)
    cp.box = Box({"small": np.arange(9), "large": np.arange(300_000)})
    cp.save()
    for _ in range(2):
        cp.load(mmap=mmap)
        np.testing.assert_array_equal(cp.box.state["small"], np.arange(9))
        np.testing.assert_array_equal(cp.box.state["large"], np.arange(300_000))
        cp.box.state["small"][:] = -1
        cp.box.state["large"][:] = -1


def test_loaded_arrays_do_not_share_memory():
    state = {str(i): np.full(10, i) for i in range(50)}
    loaded = round_trip(state)
    loaded["7"][:] = -1
    del state["7"], loaded["7"]
    assert_same(state, loaded)


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("compress", [None, 1])
def test_leaf_larger_than_a_block_comes_back_the_same(mmap, order, compress):
    size = 40 * 2**20 // 8
    array = np.random.default_rng(0).integers(0, 2**63, size).reshape(-1, 1024)
    array = np.array(array, order=order)
    state = [array, array[:3]]
    assert_same(state, round_trip(state, compress=compress, mmap=mmap))


@pytest.mark.parametrize("compress", [None, 1])
def test_row_larger_than_a_block_comes_back_the_same(compress):
    array = np.random.default_rng(0).bytes(2 * 5 * 2**20 + 2)
    array = np.frombuffer(array, np.uint8).reshape(2, -1)
    assert_same(array, round_trip(array, compress=compress))


@pytest.mark.parametrize("compress", [None, 1])
def test_element_larger_than_a_block_comes_back_the_same(compress):
    array = np.zeros(2, f"V{5 * 2**20}")
    array[1] = np.void(np.random.default_rng(0).bytes(5 * 2**20))
    assert_same(array, round_trip(array, compress=compress))


def test_strided_leaf_larger_than_a_block_comes_back_the_same():
    array = np.random.default_rng(0).random((3000, 2000))[:, ::2]
    assert_same(array, round_trip(array))


def test_text_and_bytes_larger_than_a_block_come_back_the_same():
    state = {"text": "é" * (9 * 2**20), "bytes": b"\xff" * (17 * 2**20)}
    assert_same(state, round_trip(state))


@pytest.mark.parametrize("size_bytes", [2**16 - 1, 2**16, 2**16 + 1, 2**20, 2**24])
def test_leaves_at_the_limits_of_blocks_come_back_the_same(size_bytes):
    sizes = [size_bytes - 1, size_bytes, size_bytes + 1, 1]
    rng = np.random.default_rng(0)
    state = [np.frombuffer(rng.bytes(size), np.uint8) for size in sizes]
    assert_same(state, round_trip(state))


def test_thousands_of_tiny_leaves_come_back_the_same():
    state = {f"layer{i}/kernel": np.full(i % 7, i, np.int16) for i in range(5000)}
    assert_same(state, round_trip(state))


FORMS = {
    "without axes": np.array(0.5),
    "vector": np.arange(3.0),
    "as many axes as there can be": np.ones((1,) * 30 + (2, 3), np.int16),
    "Fortran order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "every other": np.arange(12.0)[::2],
    "empty": np.zeros((0, 3)),
    "structure": np.zeros(2, [("a", "<i4"), ("b", ">f8", (2,))]),
    "structure without axes": np.zeros((), [("a", "u1"), ("b", "<f4")]),
    "dates": np.array(["2026-11-20", "NaT"], "M8[D]"),
    "text": np.array(["a", "é"]),
    "short floats": np.ones(3, ml_dtypes.bfloat16),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("mmap", [False, True])
def test_many_leaves_of_one_form_come_back_the_same(name, mmap):
    form = FORMS[name]
    arrays = [form.copy("K") for _ in range(5)]
    for number, array in enumerate(arrays):
        array.reshape(-1, order="A")[:1].view("u1")[:1] = number
    state = {"first": arrays[0], "between": 1, "more": arrays[1:], "other": np.ones(1)}
    assert_same(state, round_trip(state, mmap=mmap))


@pytest.mark.parametrize("own", [False, True])
def test_memory_mapped_array_comes_back_equal(tmp_path, own):
    array = np.memmap(tmp_path / "memory", np.float32, "w+", shape=(3, 4))
    array[:] = np.arange(12).reshape(3, 4)
    loaded = round_trip({"a": np.asarray(array)}, own=own)["a"]
    np.testing.assert_array_equal(loaded, np.arange(12).reshape(3, 4))
    assert loaded.dtype == np.float32


# Aliasing


def test_array_met_twice_is_stored_once_and_comes_back_as_one(tmp_path):
    array = np.random.default_rng(0).random(2**17)
    cp = Checkpoint(tmp_path, fsync=False)
    cp.box = Box({"online": [array], "target": {"x": array}})
    report = cp.save()
    assert report.bytes_total < 1.5 * array.nbytes
    cp.load()
    loaded = cp.box.state
    assert loaded["online"][0] is loaded["target"]["x"]
    np.testing.assert_array_equal(loaded["online"][0], array)


@pytest.mark.parametrize("size", [0, 1, 100, 100_000])
@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("compress", [None, 1])
def test_equal_but_distinct_arrays_stay_distinct(size, mmap, compress):
    state = {name: np.zeros(size) for name in "abc"}
    loaded = round_trip(state, mmap=mmap, compress=compress)
    assert_same(state, loaded)
    loaded["a"][:] = 1
    np.testing.assert_array_equal(loaded["b"], np.zeros(size))
    np.testing.assert_array_equal(loaded["c"], np.zeros(size))


def test_array_of_two_components_comes_back_as_two(tmp_path):
    array = np.arange(5)
    cp = Checkpoint(tmp_path, fsync=False)
    cp.a, cp.b = Box(array), Box(array)
    cp.save()
    cp.load()
    assert cp.a.state is not cp.b.state
    assert not np.shares_memory(cp.a.state, cp.b.state)


@pytest.mark.parametrize(
    "shared",
    [[], [1], {}, {"a": np.ones(2)}, {1}, deque([1]), Point(1), Counter("a")],
    ids=lambda value: type(value).__name__,
)
def test_container_met_twice_comes_back_as_one(shared):
    state = {"a": shared, "b": [shared, shared]}
    assert_same(state, round_trip(state))


def test_generator_met_twice_comes_back_as_one():
    rng = np.random.default_rng(0)
    loaded = round_trip({"agent": rng, "replay": rng})
    assert loaded["agent"] is loaded["replay"]


def test_empty_containers_stay_distinct():
    state = [[], [], {}, {}, set(), set(), deque(), deque()]
    assert_same(state, round_trip(state))


def test_a_dict_in_2000_places_stays_one_dict(tmp_path):
    shared = {f"x{n}": float(n) for n in range(1000)}
    make_boxes(tmp_path, agent=[shared] * 2000).save()
    cp = make_boxes(tmp_path, agent=None)
    report = cp.load()
    assert len(cp.agent.state) == 2000
    assert cp.agent.state[0] == shared
    assert all(item is cp.agent.state[0] for item in cp.agent.state)
    assert sorted(report.loaded) == sorted(f"agent/0/{name}" for name in shared)


# Containers

CONTAINERS = {
    "empty": [[], (), {}, set(), deque(), OrderedDict(), Counter(), Empty()],
    "single tuple": (1,),
    "nested tuples": ((), ((),), (((1, (2,)),),)),
    "order of keys": {"b": 1, "a": 2, "c": {"z": 1, "y": 2}},
    "order of an OrderedDict": OrderedDict([("b", 1), ("a", 2)]),
    "default factories": [
        defaultdict(list, a=[1]),
        defaultdict(None),
        defaultdict(int),
    ],
    "nested defaultdict": {"a": defaultdict(dict, b=defaultdict(float, c=1.5))},
    "counter": Counter({"a": 3, "b": -1, "c": 0.5}),
    "deque": [deque([1, 2], maxlen=2), deque(maxlen=0), deque([3])],
    "sets": [{1, 2.5, "a", None, b"b", (1, "x"), -0.0}, set()],
    "named tuple": Pair(np.ones(2), Pair(1, ())),
    "dataclasses": [Point(1, {"a": Point(2)}), Frozen(np.ones(1)), Slotted(1, 2)],
    "keys that look like encodings": {"$float": "nan"},
    "two such keys": {"$dict": [1], "$": 2},
    "key of the tensor file": {"__metadata__": np.ones(2), "__padding__": 1},
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_container_comes_back_the_same(name):
    assert_same(CONTAINERS[name], round_trip(CONTAINERS[name]))


KEYS = [
    *("", "a", "/", "a/b", "//", ".", "..", "a.b", "\0", "\ud800", "é", " ", "\n"),
    *("x" * 10_000, "__metadata__", "$key", "0", "1", "None", "True", "nan"),
    *(0, 1, -1, 2**70, 10**5000, 0.5, math.inf, math.nan, None, 2j),
    *(b"", b"\xff", b"a", (), (1, "a"), ((1,), None), frozenset([1]), ...),
    *(np.int64(7), np.float32(0.25), np.str_("np"), np.bytes_(b"np")),
]


def test_keys_of_any_hashable_scalar_come_back_the_same():
    state = {key: np.full(2, i) for i, key in enumerate(KEYS)}
    assert len(state) == len(KEYS)
    assert_same(state, round_trip(state))


@pytest.mark.parametrize("key", [True, -0.0, np.True_, np.float64("nan"), np.uint8(3)])
def test_key_is_not_taken_for_one_that_equals_it(key):
    assert_same({key: np.ones(1)}, round_trip({key: np.ones(1)}))


def test_leaves_of_equal_names_are_not_confused():
    state = {
        "a/b": np.array(1),
        "a": {"b": np.array(2), b"b": np.array(3)},
        1: np.array(4),
        "1": np.array(5),
        "": {"": np.array(6)},
        "/": np.array(7),
        "list": [np.array(8), {0: np.array(9), "0": np.array(10)}],
    }
    assert_same(state, round_trip(state))
    assert_same(state, round_trip(state, own=True))


def test_two_hundred_levels_come_back_the_same():
    state = np.arange(3)
    for i in range(50):
        state = {"a": [state, i], "b": (Pair(state, i),)} if i < 5 else {"a": [state]}
        state = deque([(state,)])
    assert_same(state, round_trip(state))


def test_all_of_it_together_comes_back_the_same():
    state = [SCALARS, NUMPY_SCALARS, CONTAINERS, string_arrays()]
    assert_same(state, round_trip(state))


# Random generators

BIT_GENERATORS = [
    *(np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937),
    *(np.random.Philox, np.random.SFC64),
]


@pytest.mark.parametrize("kind", BIT_GENERATORS)
def test_generator_goes_on_with_the_same_numbers(kind):
    rng = np.random.Generator(kind(2**100))
    rng.integers(9, size=3, dtype=np.uint32)
    loaded = round_trip({"rng": rng})["rng"]
    assert_same(rng, loaded)
    for draw in ("random", "standard_normal"):
        expected, actual = (getattr(each, draw)(99) for each in (rng, loaded))
        np.testing.assert_array_equal(expected, actual)
    expected, actual = (each.integers(9, size=9, dtype="u4") for each in (rng, loaded))
    np.testing.assert_array_equal(expected, actual)


def test_generator_spawns_the_same_children_after_the_load():
    rng = np.random.default_rng(3)
    rng.spawn(2)
    loaded = round_trip([rng])[0]
    expected, actual = (each.spawn(1)[0].random(5) for each in (rng, loaded))
    np.testing.assert_array_equal(expected, actual)


def test_legacy_generator_goes_on_with_the_same_numbers():
    rng = np.random.RandomState(3)
    rng.standard_normal(3)  # An odd number leaves one over for the next call.
    loaded = round_trip([rng], own=True)[0]
    assert_same(rng, loaded)
    np.testing.assert_array_equal(rng.standard_normal(9), loaded.standard_normal(9))


# The comparison itself

PAIRS = {
    "type": (1, True),
    "numpy type": (np.float64(1), 1.0),
    "zero": (0.0, -0.0),
    "zero in an array": (np.zeros(2), -np.zeros(2)),
    "payload": (math.nan, -math.nan),
    "dtype": (np.zeros(2), np.zeros(2, np.float32)),
    "byte order": (np.zeros(2, "<i4"), np.zeros(2, ">i4")),
    "memory order": (np.zeros((2, 3), order="F"), np.zeros((2, 3))),
    "writable": (np.zeros(2), lay_out(np.zeros(2), "readonly")),
    "shape": (np.zeros((1, 0)), np.zeros((0, 1))),
    "order of keys": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "type of keys": ({1: 0}, {True: 0}),
    "maximal length": (deque([1]), deque([1], 3)),
    "factory": (defaultdict(list), defaultdict(dict)),
    "field": (Point(1, 2), Point(1, 3)),
    "generator": (np.random.default_rng(1), np.random.default_rng(2)),
    "one as two": ([Point(1)] * 2, [Point(1), Point(1)]),
    "two as one": ([np.ones(1), np.ones(1)], [np.ones(1)] * 2),
}


@pytest.mark.parametrize("name", PAIRS)
def test_comparison_notices_a_difference_in(name):
    with pytest.raises(AssertionError):
        assert_same(*PAIRS[name])

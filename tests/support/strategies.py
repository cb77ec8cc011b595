"""Nested states to try, and what it means that one came back the same.

`states()` draws what needs no pickle, `round_trip` saves and loads, and `assert_same`
is the comparison: value to the last bit, type, dtype, byte order, memory order and
which objects are one.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import struct
import sys
import tempfile
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Mapping, Sequence, Set
from typing import Any, NamedTuple

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import elementsckpt

from support.boxes import Box

PROPERTY = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)

NUMPY = np.lib.NumpyVersion(np.__version__)


def round_trip(
    state: Any,
    *,
    own: bool = False,
    into: Any = None,
    compress: Any = "auto",
    **options: Any,
) -> Any:
    """Save a state, load it with a fresh object, and return what was loaded.

    Args:
      state: What the component's `save()` returns.
      own: Whether the loading object owns the directory, and so may use pickle. If
        not, the save is foreign to it: that it loads shows that no pickle was needed.
      into: The current state of the component that is loaded.
      compress: For the `Checkpoint` that saves.
      options: For `Checkpoint.load`.
    """
    with tempfile.TemporaryDirectory() as directory:
        writer = elementsckpt.Checkpoint(directory, fsync=False, compress=compress)
        writer.box = Box(state)
        writer.save()
        box = Box(into)
        reader = elementsckpt.Checkpoint(directory if own else None)
        reader.box = box
        reader.load(None if own else directory, **options)
        return box.state


# Classes that states may hold


class Pair(NamedTuple):
    first: Any
    second: Any


class Empty(NamedTuple):
    pass


class Noted(Pair):
    """A NamedTuple whose instances take attributes."""


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = 0


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: Any


@dataclasses.dataclass(slots=True)
class Slotted:
    x: Any
    y: Any


# Strategies, made once: to put one together takes longer than to draw from it


@functools.cache
def texts() -> st.SearchStrategy[str]:
    """Any code points: lone surrogates, slashes and the empty string too."""
    awkward = st.sampled_from(
        ["", "/", "a/b", ".", "..", "\0", "\ud800", "__metadata__"]
    )
    return awkward | st.text(st.characters(), max_size=8)


@functools.cache
def numpy_scalars() -> st.SearchStrategy[Any]:
    """One of each NumPy scalar type, with any bits where all bits are allowed."""
    sizes = {"b": 1, "h": 2, "i": 4, "l": 8, "B": 1, "H": 2, "I": 4, "L": 8}
    sizes |= {"e": 2, "f": 4, "d": 8, "F": 8, "D": 16}

    def numbers_of(code: str) -> st.SearchStrategy[Any]:
        size = np.dtype(code).itemsize
        raw = st.binary(min_size=size, max_size=size)
        return raw.map(lambda data: np.frombuffer(data, code)[0])

    kinds = {code: numbers_of(code) for code in sorted(sizes)}
    numbers = st.sampled_from([*kinds]).flatmap(kinds.__getitem__)
    other = [
        np.True_,
        np.False_,
        np.longdouble("1.1"),
        np.clongdouble(1 - 2j),
        np.str_("text"),
        np.str_("\ud800"),
        np.bytes_(b"\xff\0x"),
        np.datetime64("NaT", "s"),
        np.datetime64("2026-11-20T04:13:08", "us"),
        np.timedelta64(7, "D"),
        np.timedelta64(25, "s"),
        np.void(b"raw"),
    ]
    return numbers | st.sampled_from(other)


@functools.cache
def scalars() -> st.SearchStrategy[Any]:
    """Python and NumPy scalars: ints of any size, NaN with payloads, any bytes."""
    return st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(min_value=-(2**300), max_value=2**300),
        st.floats(),
        st.sampled_from([-0.0, math.inf, -math.inf, math.nan, -math.nan]),
        st.complex_numbers(),
        texts(),
        st.binary(max_size=8),
        numpy_scalars(),
    )


@functools.cache
def keys() -> st.SearchStrategy[Any]:
    """Keys of dicts: mostly text, but any hashable scalar."""
    return st.one_of(texts(), texts(), st.integers(), scalars())


@functools.cache
def plain_dtypes() -> st.SearchStrategy[np.dtype[Any]]:
    """Numbers, text, times and raw bytes, in both byte orders."""
    codes = ["?", "b", "B", "S1", "S3", "V1", "V5"]
    units = ["[D]", "[ns]", "[25s]"]
    for order in "<>":
        codes += [order + code for code in ("i2", "i4", "i8", "u2", "u4", "u8")]
        codes += [order + code for code in ("f2", "f4", "f8", "c8", "c16", "U1", "U3")]
        codes += [order + kind + unit for kind in ("M8", "m8") for unit in units]
    return st.sampled_from([np.dtype(code) for code in codes])


@functools.cache
def _field_dtypes() -> st.SearchStrategy[np.dtype[Any]]:
    return plain_dtypes().filter(lambda dtype: dtype.kind != "V")


@st.composite
def structured_dtypes(draw: st.DrawFn, depth: int = 1) -> np.dtype[Any]:
    """Fields of plain dtypes, subarrays and structures, packed or aligned."""
    inner = structured_dtypes(depth - 1) if depth else st.nothing()
    shapes = st.sampled_from([(), (2,), (2, 1)])
    names = draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=3, unique=True))
    fields = [(name, draw(_field_dtypes() | inner), draw(shapes)) for name in names]
    return np.dtype(fields, align=draw(st.booleans()))


@functools.cache
def dtypes() -> st.SearchStrategy[np.dtype[Any]]:
    return st.one_of(plain_dtypes(), plain_dtypes(), structured_dtypes())


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Arrays of every dtype, shape and layout, also empty ones and single elements."""
    dtype = draw(dtypes())
    shape = draw(npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
    if dtype.kind in "iufcmMV" and not dtype.names:  # Any bits, NaN's payloads too.
        size = math.prod(shape) * dtype.itemsize
        data = bytearray(draw(st.binary(min_size=size, max_size=size)))
        array = np.ndarray(shape, dtype, data)
    else:
        array = draw(npst.arrays(dtype, shape))
    return lay_out(array, draw(st.sampled_from(LAYOUTS)))


LAYOUTS = ("C", "F", "strided", "reversed", "transposed", "readonly")


def lay_out(array: np.ndarray[Any, Any], layout: str) -> np.ndarray[Any, Any]:
    """Return an array of the same values that lies in memory in another way."""
    if layout in "CF":
        return np.array(array, order=layout)  # type: ignore[call-overload]
    if layout == "strided":
        room = np.zeros(tuple(2 * side for side in array.shape), array.dtype)
        view = room[(..., *[slice(None, None, 2)] * array.ndim)]
        view[...] = array
        return view
    if layout == "reversed":
        flip = (..., *[slice(None, None, -1)] * array.ndim)
        return np.array(array[flip])[flip]
    if layout == "transposed" and array.ndim > 2:
        return np.array(array.swapaxes(0, 1)).swapaxes(0, 1)
    copy = np.array(array)
    copy.flags.writeable = False
    return copy


@functools.cache
def generators() -> st.SearchStrategy[np.random.Generator]:
    kinds = [np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937]
    kinds += [np.random.Philox, np.random.SFC64]

    def build(kind: Any, seed: int, drawn: int) -> np.random.Generator:
        rng = np.random.Generator(kind(seed))
        rng.integers(0, 9, drawn, dtype=np.uint32)  # An odd number leaves half a word.
        return rng

    return st.builds(
        build, st.sampled_from(kinds), st.integers(0, 2**130), st.integers(0, 5)
    )


@functools.cache
def sets() -> st.SearchStrategy[Any]:
    members = scalars().filter(hashable)
    return st.sets(members | st.tuples(members, members), max_size=4)


def hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def states() -> st.SearchStrategy[Any]:
    """Nested states that need no pickle, some of whose arrays occur twice."""
    return _STATES


def trees() -> st.SearchStrategy[Any]:
    """Like `states`, without attributes beside what containers hold."""
    return _TREES


def _containers(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(children, max_size=3)
    dicts = st.dictionaries(keys().filter(hashable), children, max_size=3)
    factories = st.sampled_from([None, int, list, dict])
    return st.one_of(
        lists,
        lists.map(tuple),
        dicts,
        dicts.map(OrderedDict),
        st.builds(defaultdict, factories, dicts),
        dicts.map(Counter),
        st.builds(deque, lists, st.sampled_from([None, 5])),
        st.builds(Pair, children, children),
        st.builds(Empty),
        st.builds(Point, children, children),
        st.builds(Frozen, children),
        st.builds(Slotted, children, children),
    )


def _noted(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return containers that have attributes beside what they hold."""
    dicts = st.dictionaries(keys().filter(hashable), children, max_size=2)
    # One is the name of a method; what is in the state must not be called by it.
    names = st.sampled_from(["_metadata", "note", "values", "\ud800"])
    notes = st.dictionaries(names, children, min_size=1, max_size=2)
    bases = st.one_of(
        dicts.map(OrderedDict),
        dicts.map(Counter),
        st.builds(Noted, children, children),
        st.builds(Point, children),
    )

    def note(value: Any, attributes: dict[str, Any]) -> Any:
        vars(value).update(attributes)
        return value

    return st.builds(note, bases, notes)


_LEAVES = st.one_of(
    scalars(),
    arrays(),
    st.shared(arrays(), key="an array that occurs in several places"),
    st.shared(arrays(), key="another"),
    generators(),
    sets(),
)
_TREES = st.recursive(_LEAVES, _containers, max_leaves=10)
_STATES = st.recursive(
    _LEAVES, lambda inner: _containers(inner) | _noted(inner), max_leaves=10
)


# The comparison

_IMMUTABLE = (
    *(type(None), bool, int, float, complex, str, bytes, np.generic, np.dtype),
    *(tuple, frozenset, type, types.FunctionType, types.BuiltinFunctionType),
)


def assert_same(expected: Any, actual: Any) -> None:
    """Fail unless both are the same: bits, memory order, shared objects and memory."""
    comparison = _Comparison()
    comparison.compare(expected, actual, "state")
    comparison.compare_memory()


class _Comparison:
    """Remembers which object stands for which: one for one, in both directions."""

    def __init__(self) -> None:
        self.pairs: dict[int, tuple[Any, Any]] = {}
        self.found: set[int] = set()
        self.arrays: list[tuple[Any, Any, str]] = []

    def compare(self, expected: Any, actual: Any, path: str) -> None:
        kinds = f"{path}: expected {type(expected)}, found {type(actual)}"
        assert type(expected) is type(actual), kinds
        if not isinstance(expected, _IMMUTABLE):
            if id(expected) in self.pairs:
                one = self.pairs[id(expected)][1] is actual
                assert one, f"{path}: one object came back as two"
                return
            assert id(actual) not in self.found, f"{path}: two came back as one object"
            self.pairs[id(expected)] = expected, actual
            self.found.add(id(actual))
        self._compare_content(expected, actual, path)
        if isinstance(expected, (Mapping, list, tuple, deque)):
            notes = [getattr(side, "__dict__", {}) for side in (expected, actual)]
            _compare_names(*notes, path)
            for name, value in notes[0].items():
                self.compare(value, notes[1][name], f"{path}.{name}")

    def _compare_content(self, expected: Any, actual: Any, path: str) -> None:
        if isinstance(expected, np.ndarray):
            _compare_layouts(expected, actual, path)
            self.arrays.append((expected, actual, path))
            if expected.dtype.hasobject:  # Strings too: they are kept elsewhere.
                sides = [side.ravel().tolist() for side in (expected, actual)]
                self._compare_items(*sides, path)
            else:
                _compare_values(expected, actual, path)
        elif isinstance(expected, np.generic):
            assert expected.dtype == actual.dtype, path
            _compare_values(np.asarray(expected), np.asarray(actual), path)
        elif isinstance(expected, float):
            bits = struct.pack("<d", expected), struct.pack("<d", actual)
            assert bits[0] == bits[1], f"{path}: {expected} != {actual}"
        elif isinstance(expected, complex):
            self.compare(expected.real, actual.real, path)
            self.compare(expected.imag, actual.imag, path)
        elif isinstance(expected, np.random.Generator):
            self.compare(expected.bit_generator, actual.bit_generator, path)
        elif isinstance(expected, np.random.BitGenerator):
            _Comparison().compare(expected.state, actual.state, path)
        elif isinstance(expected, np.random.RandomState):
            states = [rng.get_state(legacy=False) for rng in (expected, actual)]
            _Comparison().compare(*states, path)
        elif isinstance(expected, Mapping) and not _is_dataclass(expected):
            self._compare_mappings(expected, actual, path)
        elif isinstance(expected, Set):
            ordered = [sorted(side, key=_rank) for side in (expected, actual)]
            self._compare_items(*ordered, path)
        elif isinstance(expected, (list, tuple, deque)):
            if isinstance(expected, deque):
                assert expected.maxlen == actual.maxlen, path
            self._compare_items(expected, actual, path)
        elif _is_dataclass(expected):
            found = [_attributes(side) for side in (expected, actual)]
            _compare_names(*found, path)
            for name, value in found[0].items():
                self.compare(value, found[1][name], f"{path}.{name}")
        elif _is_of("jax", "Array", expected):
            _compare_jax(expected, actual, path)
        elif _is_of("torch", "Tensor", expected):
            _compare_torch(expected, actual, path)
        else:
            assert expected == actual, path

    def compare_memory(self) -> None:
        """Fail unless the same arrays share elements, and others are contiguous."""
        paths = [path for *_, path in self.arrays]
        shared, found = (_sharing([x[side] for x in self.arrays]) for side in (0, 1))
        assert {(paths[i], paths[j]) for i, j in shared} == {
            (paths[i], paths[j]) for i, j in found
        }
        views = {index for pair in shared for index in pair}
        for index, (expected, actual, path) in enumerate(self.arrays):
            _compare_orders(expected, actual, path, is_view=index in views)

    def _compare_items(self, expected: Any, actual: Any, path: str) -> None:
        assert len(expected) == len(actual), f"{path}: lengths"
        for i, pair in enumerate(zip(expected, actual, strict=True)):
            self.compare(*pair, f"{path}[{i}]")

    def _compare_mappings(self, expected: Any, actual: Any, path: str) -> None:
        self._compare_items(list(expected), list(actual), f"{path}.keys()")
        if isinstance(expected, defaultdict):
            assert expected.default_factory is actual.default_factory, path
        # By position: a NaN that is a key cannot be looked up.
        kind = type(expected)  # As `items` can be an attribute of theirs.
        items = zip(kind.items(expected), kind.items(actual), strict=True)
        for (key, value), (_, other) in items:
            shown = hex(key) if type(key) is int else repr(key)  # Of any length.
            self.compare(value, other, f"{path}[{shown}]")


def _rank(value: Any) -> tuple[str, str]:
    """Return what puts members of a set into an order: all of their bits."""
    if isinstance(value, np.generic):
        text = value.tobytes().hex()
    elif isinstance(value, (float, complex)):
        text = struct.pack("<2d", value.real, value.imag).hex()
    elif isinstance(value, tuple):
        text = repr([_rank(item) for item in value])
    elif isinstance(value, frozenset):
        text = repr(sorted(_rank(item) for item in value))
    else:
        text = repr(value)
    return type(value).__name__, text


def _attributes(value: Any) -> dict[str, Any]:
    """Return fields and other attributes of a dataclass, as far as they are set."""
    names = [field.name for field in dataclasses.fields(value)]
    found = {name: getattr(value, name) for name in names if hasattr(value, name)}
    return {**found, **getattr(value, "__dict__", {})}


def _compare_names(expected: Any, actual: Any, path: str) -> None:
    assert set(expected) == set(actual), f"{path}: {set(expected) ^ set(actual)}"


def _is_dataclass(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _is_of(module: str, name: str, value: Any) -> bool:
    """Say whether the value is of a class of a library that may not be there."""
    return module in sys.modules and isinstance(
        value, getattr(sys.modules[module], name)
    )


def _compare_layouts(expected: Any, actual: Any, path: str) -> None:
    assert expected.dtype == actual.dtype, f"{path}: {expected.dtype}, {actual.dtype}"
    assert expected.dtype.isalignedstruct == actual.dtype.isalignedstruct, path
    assert expected.shape == actual.shape, f"{path}: {expected.shape}, {actual.shape}"
    assert actual.flags.writeable, f"{path}: not writable"


def _compare_orders(expected: Any, actual: Any, path: str, *, is_view: bool) -> None:
    """Fail unless the elements of an array are where they should be in its memory."""
    if not is_view or expected.flags.aligned:
        assert actual.flags.aligned, f"{path}: not aligned"
    if is_view:
        pairs = zip(expected.strides, actual.strides, expected.shape, strict=True)
        assert all(a == b for a, b, n in pairs if n > 1), f"{path}: other strides"
    elif expected.nbytes:  # Elements of no bytes are in any order.
        fortran = expected.flags.f_contiguous
        if expected.flags.c_contiguous or not fortran:
            assert actual.flags.c_contiguous, f"{path}: not in C order"
        assert actual.flags.f_contiguous or not fortran, f"{path}: not in Fortran order"


def _sharing(arrays: Sequence[Any]) -> set[tuple[int, int]]:
    """Return the pairs of arrays that share elements, but for kinds that cannot."""
    reaches = []
    for index, array in enumerate(arrays):
        if array.nbytes and not array.dtype.hasobject:
            begin = array.__array_interface__["data"][0]
            steps = [
                (n - 1) * s for n, s in zip(array.shape, array.strides, strict=True)
            ]
            low = begin + sum(min(step, 0) for step in steps)
            high = begin + sum(max(step, 0) for step in steps) + array.itemsize
            reaches.append((low, high, index))
    pairs = set()
    active: list[tuple[int, int, int]] = []
    for reach in sorted(reaches):
        active = [other for other in active if other[1] > reach[0]]
        for _, _, other in active:
            if np.shares_memory(arrays[other], arrays[reach[2]]):
                pairs.add((min(other, reach[2]), max(other, reach[2])))
        active.append(reach)
    return pairs


def _compare_values(expected: Any, actual: Any, path: str) -> None:
    dtype = expected.dtype
    if dtype.names is not None:  # Padding between fields means nothing.
        for name in dtype.names:
            _compare_values(expected[name], actual[name], f"{path}[{name!r}]")
    elif dtype.type in (np.longdouble, np.clongdouble):  # Has padding too.
        np.testing.assert_array_equal(expected, actual, path)
        signs = [np.signbit(part) for part in (expected.real, expected.imag)]
        others = [np.signbit(part) for part in (actual.real, actual.imag)]
        np.testing.assert_array_equal(signs, others, path)
    else:
        assert expected.tobytes() == actual.tobytes(), f"{path}: {expected} != {actual}"


def _compare_jax(expected: Any, actual: Any, path: str) -> None:
    import jax

    assert expected.dtype == actual.dtype, f"{path}: {expected.dtype}, {actual.dtype}"
    assert expected.shape == actual.shape, f"{path}: {expected.shape}, {actual.shape}"
    if jax.dtypes.issubdtype(expected.dtype, jax.dtypes.prng_key):
        assert jax.random.key_impl(expected) == jax.random.key_impl(actual), path
        expected, actual = map(jax.random.key_data, (expected, actual))
    assert expected.weak_type == actual.weak_type, f"{path}: weak type"
    expected, actual = jax.device_get((expected, actual))
    _compare_values(np.asarray(expected), np.asarray(actual), path)


def _compare_torch(expected: Any, actual: Any, path: str) -> None:
    import torch

    assert expected.dtype == actual.dtype, f"{path}: {expected.dtype}, {actual.dtype}"
    assert expected.shape == actual.shape, f"{path}: {expected.shape}, {actual.shape}"
    assert expected.requires_grad == actual.requires_grad, f"{path}: requires_grad"
    strides = expected.stride(), actual.stride()
    is_dense = strides[0] == torch.empty_like(expected).stride()
    if is_dense and expected.numel():
        assert strides[0] == strides[1], f"{path}: strides {strides}"

    def data(tensor: Any) -> bytes:
        flat = tensor.detach().resolve_conj().resolve_neg().reshape(-1)
        return bytes(flat.contiguous().view(torch.uint8).tolist())

    assert data(expected) == data(actual), f"{path}: {expected} != {actual}"

"""Leaves ⇄ bytes: what kinds of leaf there are and how each is stored.

    kind        stored as                                   `value` in the manifest
    python      its value in the manifest                   the scalars, or sets of them
    str         UTF-8, lone surrogates included             -
    bytes       its bytes; bytearray likewise               -
    numpy       its elements                                -
    view        nothing: it is in the memory of another     its leaf number, and where
                                                            in there, and strides
    jax         its elements                                whether weakly typed
    key         uint32 data of typed PRNG keys              name of the generator
    torch       its elements, as they lie in memory         parameter, requires_grad,
                                                            strides, device
    function    "module:qualname" of an importable one      the same
    pickle      cloudpickle, its arrays out-of-band         their leaf numbers

This is where NumPy, JAX, torch and pickle meet; each has a module below this one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from msgspec import Struct

from ..errors import MismatchError, ReadError, StateError, reason
from ..format import dtypes, scalars
from ..format.manifest import OWN_VALUE, Leaves, part_of
from . import jax_arrays, references, torch_tensors

ARRAYS = frozenset({"numpy", "jax", "key", "torch"})
SAVED_ARRAYS = ARRAYS | {"view"}
# Kinds whose storage nobody can write to, and with those to which nobody should: JAX
# arrays may share memory with NumPy arrays.
FROZEN = frozenset({"str", "bytes", "pickle"})
IMMUTABLE = FROZEN | {"jax", "key"}
HOLDERS = frozenset({"pickle", "view"})  # Kinds whose leaves are made of others.
CODE = frozenset({"pickle", "function"})  # Kinds that only a trusted save may hold.
_BYTES: dict[str, type] = {"bytes": bytes, "bytearray": bytearray}
_RAW = frozenset({"str", "pickle", *_BYTES})
_AS_ARRAYS = frozenset({"jax", "key", "pickle"})
_INLINE_BYTES = 1024  # Longer strings would make the manifest slow and unreadable.
_PYTHON = (type(None), bool, int, float, complex, str, type(...), set, frozenset)
_KINDS: dict[type, str] = dict.fromkeys(_PYTHON, "python")
_KINDS |= {np.ndarray: "numpy", np.memmap: "numpy", bytes: "bytes"}
_KINDS |= {bytearray: "bytearray"}
PLAIN = _KINDS  # Types that are leaves, whatever their value.
_BY_TYPE = frozenset({"python", "jax", "key"})  # The same for all of a type.
_BYTE = "|u1"


class Form(Struct, frozen=True, gc=False):
    """What leaves that are stored together have in common, as in `manifest.Leaves`."""

    kind: str
    dtype: Any = None
    shape: tuple[int, ...] = ()
    order: Literal["C", "F"] = "C"
    value: Any = None


# Form and storage of a leaf, and the value that is its own. The storage is an array
# whose elements in C order are the leaf's bytes, or None.
Encoded = tuple[Form, np.ndarray | None, Any]
PYTHON = Form("python")  # Of all scalars.


class UnstorableError(TypeError):
    """No kind but pickle can hold the value."""


def kind_of(value: Any) -> str:
    """Return the kind of leaf that the value is, "pickle" if no other fits."""
    kind = _KINDS.get(type(value))
    if kind is None:
        kind = _classify(value)
        if kind in _BY_TYPE:
            _KINDS[type(value)] = kind
    return kind


def _classify(value: Any) -> str:
    cls = type(value)
    if issubclass(cls, np.generic):  # Others derive from these, and hold more.
        return "python" if value.dtype.type is cls else "pickle"
    if cls is jax_arrays.KeyData:
        return "key"
    if jax_arrays.is_array(value):
        return "key" if jax_arrays.is_key(value) else "jax"
    if torch_tensors.is_tensor(value):
        return "pickle" if torch_tensors.attributes(value) else "torch"
    if callable(value) and references.path_of(value) is not None:
        return "function"
    return "pickle"


def is_vacant(value: Any) -> bool:
    """Return whether the value says that nothing is there yet."""
    return value is None or torch_tensors.is_uninitialized(value)


def check(value: Any, kind: str, name: str) -> None:
    """Refuse arrays that cannot be saved.

    Raises:
      StateError: this one cannot; the message calls it by its name.
    """
    problem = None
    if kind in ("torch", "pickle"):
        problem = torch_tensors.problem(value)
    elif kind in ("jax", "key"):
        problem = jax_arrays.problem(value)
    if problem is not None:
        raise StateError(f"{name} {problem}.")


def refusal(value: Any, name: str, error: Exception) -> StateError:
    """Return what says that a leaf of this full name cannot be saved."""
    return StateError(
        f"{name}, of type {type(value).__qualname__}, cannot be saved: "
        f"{reason(error)}. Leave it out of what save() returns, and make it anew in "
        f"load()."
    )


def encode_named(
    value: Any, kind: str, name: str, fetched: np.ndarray | None = None
) -> Encoded:
    """Like `encode`, with errors that call the leaf by its full name.

    Raises:
      StateError: it cannot be saved.
      UnstorableError: it must be pickled.
    """
    try:
        return encode(value, kind, fetched)
    except RuntimeError as error:  # Of torch, for tensors without such elements.
        if kind != "torch":
            raise
        raise refusal(value, name, error) from error


def encode(value: Any, kind: str, fetched: np.ndarray | None = None) -> Encoded:
    """Describe a leaf and give its storage, without copying arrays.

    Args:
      value: The leaf.
      kind: Its kind, from `kind_of`.
      fetched: For "jax" and "key", the value on the host.

    Raises:
      UnstorableError: nothing but pickle holds it.
    """
    try:
        return _ENCODERS[kind](value, fetched)
    except (dtypes.UnknownDtypeError, scalars.NotScalarError, KeyError) as error:
        raise UnstorableError(value) from error


def has_c_order(array: np.ndarray) -> bool:
    """Tell whether the array is stored in C order; if not, its transpose is."""
    flags = array.flags
    return flags.c_contiguous or not flags.f_contiguous


def _encode_numpy(array: np.ndarray, _: Any) -> Encoded:
    code = dtypes.encode(array.dtype)
    order: Literal["C", "F"] = "C" if has_c_order(array) else "F"
    storage = array if order == "C" else array.T
    if type(code) is dict and "string" in code:
        storage = _encode_strings(storage)
        return Form("numpy", code, array.shape, order, storage.size), storage, None
    return Form("numpy", code, array.shape, order), storage, None


def has_bytes(array: np.ndarray) -> bool:
    """Return whether the elements of the array can be stored without pickle."""
    try:
        dtypes.encode(array.dtype)
    except dtypes.UnknownDtypeError:
        return False
    return True


def _encode_strings(array: np.ndarray) -> np.ndarray:
    """Return a StringDType array as int64 lengths, -1 if missing, and the text."""
    items = array.reshape(-1).tolist()
    texts = [item.encode() if isinstance(item, str) else None for item in items]
    lengths = [-1 if text is None else len(text) for text in texts]
    data = np.array(lengths, "<i8").tobytes() + b"".join(filter(None, texts))
    return np.frombuffer(data, np.uint8)


def is_long(value: Any) -> bool:
    """Tell whether a value of kind python is text too long for the manifest."""
    return type(value) is str and len(value) > _INLINE_BYTES


def _encode_python(value: Any, _: Any) -> Encoded:
    if is_long(value):
        return _encode_raw(value.encode("utf-8", "surrogatepass"), "str")
    return PYTHON, None, scalars.encode(value)


def _encode_bytes(value: Any, _: Any) -> Encoded:
    if len(value) <= _INLINE_BYTES:
        return PYTHON, None, scalars.encode(value)
    return _encode_raw(value, type(value).__name__)


def _encode_raw(data: Any, kind: str) -> Encoded:
    storage = np.frombuffer(data, np.uint8)
    return Form(kind, _BYTE, storage.shape), storage, None


def encode_pickle(payload: bytes, parts: list[int]) -> Encoded:
    """Describe a pickled leaf that refers to what is numbered in `parts`."""
    form, storage, _ = _encode_raw(payload, "pickle")
    return form, storage, parts


def _encode_jax(value: Any, fetched: Any) -> Encoded:
    weak = True if value.weak_type else None
    form = Form("jax", dtypes.encode(fetched.dtype), value.shape, value=weak)
    return form, np.asarray(fetched, order="C"), None


def _encode_key(value: Any, fetched: Any) -> Encoded:
    storage = np.asarray(fetched, order="C")
    generator = jax_arrays.implementation(value)
    code = dtypes.encode(storage.dtype)
    return Form("key", code, storage.shape, value=generator), storage, None


def _encode_torch(value: Any, _: Any) -> Encoded:
    code, shape = torch_tensors.code(value), tuple(value.shape)
    form = Form("torch", code, shape, value=torch_tensors.traits(value))
    return form, torch_tensors.fetch(value), None


def _encode_function(value: Any, _: Any) -> Encoded:
    return Form("function"), None, references.path_of(value)


_ENCODERS: dict[str, Callable[[Any, Any], Encoded]] = {
    "numpy": _encode_numpy,
    "python": _encode_python,
    "bytes": _encode_bytes,
    "bytearray": _encode_bytes,
    "jax": _encode_jax,
    "key": _encode_key,
    "torch": _encode_torch,
    "function": _encode_function,
}


# Back


# Element type and shape in which a leaf is stored, and how many bytes that is.
Layout = tuple[np.dtype[Any], tuple[int, ...], int]
_NO_BYTES: Layout = (np.dtype(np.uint8), (0,), 0)


def layout_of(group: Leaves) -> Layout:
    """Return how the elements of each leaf are stored.

    Raises:
      ValueError, TypeError, KeyError: the manifest describes no such leaves.
    """
    shape, code = group.shape, group.dtype
    if code is None or group.kind == "view":
        return _NO_BYTES
    if group.kind == "torch":
        dtype = torch_tensors.storage_dtype(code)
    elif is_strings(group):
        dtype, shape = np.dtype(np.uint8), (group.value,)
        if type(group.value) is not int or group.value < 0:
            raise ValueError("strings of no number of bytes")
    else:
        dtype = dtypes.decode(code)
    if group.kind in _RAW and (dtype != np.uint8 or len(shape) != 1):
        raise ValueError("bytes that are an array")
    return dtype, shape, dtype.itemsize * math.prod(shape)


def is_array(group: Leaves) -> bool:
    """Return whether leaves can come as NumPy arrays here."""
    if group.kind != "torch":
        return group.kind in SAVED_ARRAYS
    try:
        dtypes.decode(group.dtype)
    except ImportError:
        return False
    return True


def part(group: Leaves, start: int, stop: int) -> Leaves:
    """Return some leaves of a group that follow each other as a group.

    Raises:
      ValueError, TypeError, KeyError, IndexError: there are no such leaves.
    """
    part = part_of(group, start, stop)
    part.offset += start * layout_of(group)[2]
    return part


def is_strings(group: Leaves) -> bool:
    """Return whether the leaves are arrays of strings of variable length."""
    return type(group.dtype) is dict and "string" in group.dtype


def decode(
    group: Leaves,
    layout: Layout,
    memory: np.ndarray | None,
    offset: int,
    *,
    plain: bool = False,
    mapped: bool = False,
) -> list[Any]:
    """Return the leaves of a group, sharing `memory` where they can.

    JAX arrays and keys come as the NumPy array that `place` will transfer, pickled
    leaves as their payload, and functions as their import path.

    Args:
      group: Their entry in the manifest.
      layout: How each is stored.
      memory: uint8[n], which the leaves may keep; None if they have no bytes.
      offset: Where in `memory` the first starts.
      plain: Whether torch tensors come as NumPy arrays too.
      mapped: Whether arrays stay in `memory` wherever they begin.

    Raises:
      ValueError, TypeError, KeyError: the manifest describes no such leaves.
    """
    kind = group.kind
    if kind in OWN_VALUE and (
        type(group.value) is not list or len(group.value) != len(group.names)
    ):
        raise ValueError("a group has more or fewer values than leaves")
    if kind == "python":
        return scalars.decode_all(group.value)
    if kind == "function":
        return [str(path) for path in group.value]
    if kind == "view":  # See `view_leaves.restore`.
        return [None] * len(group.names)
    dtype, shape, size = layout
    if plain and kind == "torch":
        dtype = dtypes.decode(group.dtype)
    if memory is None:
        memory = _NOTHING
    arrays = _arrays(group, (dtype, shape, size), memory, offset)
    if kind == "numpy":
        if is_strings(group):
            return [_decode_strings(group, array) for array in arrays]
        return arrays if mapped else _aligned(arrays, memory, offset, size)
    if kind in _AS_ARRAYS or (plain and kind == "torch"):
        return arrays
    if kind == "torch":
        return [torch_tensors.build(x, group.dtype, group.value) for x in arrays]
    if kind == "str":
        return [str(x.data, "utf-8", "surrogatepass") for x in arrays]
    return [_BYTES[kind](x.tobytes()) for x in arrays]


def _arrays(
    group: Leaves, layout: Layout, memory: np.ndarray, offset: int
) -> list[np.ndarray]:
    """Return the elements of the leaves of a group, sharing `memory`."""
    dtype, shape, size = layout
    count, strides = len(group.names), None
    if group.kind == "torch":
        strides = torch_tensors.strides_in(group.value, shape)
    if strides is not None:
        strides = tuple(stride * dtype.itemsize for stride in strides)
    is_c = group.order == "C" and strides is None
    if count > 1 and is_c and len(shape) < _MAX_AXES:
        # Rows of one array: several times faster than to make each.
        rows = np.ndarray((count, *shape), dtype, memory, offset)
        return list(rows) if shape else [rows[i, ...] for i in range(count)]
    starts = range(offset, offset + count * size, size) if size else [0] * count
    return [
        np.ndarray(shape, dtype, memory, start, strides, group.order)
        for start in starts
    ]


def _aligned(
    arrays: list[np.ndarray], memory: np.ndarray, offset: int, size: int
) -> list[np.ndarray]:
    """Return arrays that begin where NumPy's own memory does.

    How torch and BLAS sum up, and so the last bit, depends on where numbers begin.
    """
    if not arrays or arrays[0].size < 2 or not size:
        return arrays
    first, count = arrays[0], len(arrays)
    is_c = first.flags.c_contiguous and first.ndim < _MAX_AXES
    if count > 1 and size % _ALIGN and is_c:
        content = np.ndarray((count, size), np.uint8, memory, offset)
        room = np.empty((count, size + -size % _ALIGN), np.uint8)
        room[:, :size] = content
        strides = (room.strides[0], *first.strides)
        return list(np.ndarray((count, *first.shape), first.dtype, room, 0, strides))
    begin = memory.__array_interface__["data"][0] + offset
    return [
        _copied(array) if (begin + number * size) % _ALIGN else array
        for number, array in enumerate(arrays)
    ]


def _copied(array: np.ndarray) -> np.ndarray:
    """Return a copy of a contiguous array.

    What lies between the fields of a structured one comes along, which NumPy leaves
    out, as a view of the array may show it.
    """
    if array.dtype.names is None:
        return array.copy("K")
    rows = array if array.flags.c_contiguous else array.T
    content = rows.reshape(-1).view(np.uint8).copy()
    return np.ndarray(array.shape, array.dtype, content, 0, array.strides)


_ALIGN = 16  # Of the memory that NumPy takes, in bytes.
_NOTHING = np.empty(0, np.uint8)
_MAX_AXES = 32  # Of NumPy before version 2.


def _decode_strings(group: Leaves, data: np.ndarray) -> np.ndarray:
    count = math.prod(group.shape)
    if 8 * count > data.size:
        raise ValueError("an array of strings is longer than its bytes")
    lengths = data[: 8 * count].view("<i8").tolist()
    array = np.empty(count, dtypes.decode(group.dtype))
    missing = getattr(array.dtype, "na_object", None)
    position = 8 * count
    for index, length in enumerate(lengths):
        if length < 0:
            array[index] = missing
            continue
        array[index] = data[position : position + length].tobytes().decode()
        position += length
    if position != data.size:
        raise ValueError("an array of strings is shorter or longer than its bytes")
    return array.reshape(group.shape, order=group.order)


def place(groups: Sequence[Leaves], decoded: list[list[Any]], key: str) -> None:
    """Turn decoded JAX leaves from NumPy arrays into what they were, in one transfer.

    Args:
      groups: Entries in the manifest.
      decoded: Decoded leaves of each; changed in place.
      key: The component's key, for errors.

    Raises:
      MismatchError: JAX would silently halve the width of an element type.
    """
    pairs = [
        (group, arrays)
        for group, arrays in zip(groups, decoded, strict=True)
        if arrays and group.kind in ("jax", "key")
    ]
    for group, arrays in pairs:
        if jax_arrays.narrows(arrays[0].dtype):
            raise MismatchError(
                f"{key}/{group.names[0]} is a JAX array of {arrays[0].dtype}, which "
                f"JAX would silently make 32 bits wide. Set jax_enable_x64, as the run "
                f"that saved it did."
            )
    if not pairs:
        return
    placed = iter(jax_arrays.put([array for _, arrays in pairs for array in arrays]))
    for group, arrays in pairs:
        arrays[:] = itertools.islice(placed, len(arrays))
        if group.kind == "key":
            arrays[:] = [_wrap_key(array, group, key) for array in arrays]
        elif group.value:
            arrays[:] = map(jax_arrays.weaken, arrays)


def _wrap_key(data: Any, group: Leaves, key: str) -> Any:
    try:
        return jax_arrays.wrap_key(data, group.value)
    except (ValueError, TypeError) as error:  # This says nothing about the save.
        raise ReadError(
            f"{key}/{group.names[0]} holds typed keys of {group.value!r}, which the "
            f"installed JAX does not make: {reason(error)}. Install one that does."
        ) from error

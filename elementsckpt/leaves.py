"""One leaf ⇄ bytes: what kinds of leaf there are and how each is stored.

    kind        stored as                                   `value` in the manifest
    python      its value in the manifest                   the scalar, or set of them
    str         UTF-8, lone surrogates included             -
    bytes       its bytes; bytearray likewise               -
    numpy       its elements                                -
    jax         its elements                                whether weakly typed
    key         uint32 data of typed PRNG keys              name of the generator
    torch       its elements                                parameter, requires_grad
    function    "module:qualname" of an importable one      the same
    pickle      cloudpickle, its arrays out-of-band         their leaf numbers

This is where NumPy, JAX, torch and pickle meet; each has a module below this one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from . import dtypes, jax_arrays, references, scalars, torch_tensors
from .errors import MismatchError, ReadError
from .manifest import Leaf

ARRAYS = frozenset({"numpy", "jax", "key", "torch"})
# Kinds whose storage nobody can write to.
IMMUTABLE = frozenset({"jax", "key", "str", "bytes", "pickle"})
_BYTES: dict[str, type] = {"bytes": bytes, "bytearray": bytearray}
_AS_ARRAYS = frozenset({"jax", "key", "pickle"})
_INLINE_BYTES = 1024  # Longer strings would make the manifest slow and unreadable.
_PYTHON = (type(None), bool, int, float, complex, str, type(...), set, frozenset)
_KINDS: dict[type, str] = dict.fromkeys(_PYTHON, "python")
_KINDS |= {np.ndarray: "numpy", np.memmap: "numpy", bytes: "bytes"}
_KINDS |= {bytearray: "bytearray"}
PLAIN = _KINDS  # Types that are leaves, whatever their value.
_BY_TYPE = frozenset({"python", "jax", "key"})  # The same for all of a type.
_BYTE = "|u1"


# A leaf's entry in the manifest, whose place is for the writer to set, and its storage:
# an array whose elements in C order are the leaf's bytes, or None.
Encoded = tuple[Leaf, np.ndarray | None]


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
    if isinstance(value, np.generic):
        return "python"
    if jax_arrays.is_array(value):
        return "key" if jax_arrays.is_key(value) else "jax"
    if torch_tensors.is_tensor(value):
        return "torch"
    if callable(value) and references.path_of(value) is not None:
        return "function"
    return "pickle"


def problem(value: Any, kind: str) -> str | None:
    """Say why the leaf cannot be saved and what to do, or return None."""
    if kind == "torch":
        return torch_tensors.problem(value)
    return jax_arrays.problem(value) if kind in ("jax", "key") else None


def encode(
    value: Any, name: str, kind: str, fetched: np.ndarray | None = None
) -> Encoded:
    """Describe a leaf and give its storage, without copying arrays.

    Args:
      value: The leaf.
      name: Its name.
      kind: Its kind, from `kind_of`.
      fetched: For "jax" and "key", the value on the host.

    Raises:
      UnstorableError: nothing but pickle holds it.
    """
    try:
        if kind == "numpy":
            return _encode_numpy(value, name)
        return _ENCODERS[kind](value, name, fetched)
    except (dtypes.UnknownDtypeError, scalars.NotScalarError, KeyError) as error:
        raise UnstorableError(value) from error


def _encode_numpy(array: np.ndarray, name: str) -> Encoded:
    code = dtypes.encode(array.dtype)
    if type(code) is dict and "string" in code:
        return _encode_strings(array, name)
    flags = array.flags
    if flags.c_contiguous or not flags.f_contiguous:
        return (Leaf(name, "numpy", code, array.shape), array)
    return (Leaf(name, "numpy", code, array.shape, "F"), array.T)


def _encode_strings(array: np.ndarray, name: str) -> Encoded:
    """Store a StringDType array as int64 lengths, -1 if missing, and the text."""
    is_transposed = array.flags.f_contiguous and not array.flags.c_contiguous
    items = (array.T if is_transposed else array).reshape(-1).tolist()
    texts = [item.encode() if isinstance(item, str) else None for item in items]
    lengths = [-1 if text is None else len(text) for text in texts]
    data = np.array(lengths, "<i8").tobytes() + b"".join(filter(None, texts))
    order: Literal["C", "F"] = "F" if is_transposed else "C"
    code = dtypes.encode(array.dtype)
    leaf = Leaf(name, "numpy", code, array.shape, order, value=len(data))
    return (leaf, np.frombuffer(data, np.uint8))


def _encode_python(value: Any, name: str, _: Any) -> Encoded:
    if type(value) is str and len(value) > _INLINE_BYTES:
        text = value.encode("utf-8", "surrogatepass")
        return _encode_raw(text, name, "str")
    return (Leaf(name, "python", value=scalars.encode(value)), None)


def _encode_bytes(value: Any, name: str, _: Any) -> Encoded:
    if len(value) <= _INLINE_BYTES:
        return (Leaf(name, "python", value=scalars.encode(value)), None)
    return _encode_raw(value, name, type(value).__name__)


def _encode_raw(data: Any, name: str, kind: str) -> Encoded:
    storage = np.frombuffer(data, np.uint8)
    return (Leaf(name, kind, _BYTE, storage.shape), storage)


def encode_pickle(payload: bytes, name: str, parts: list[int]) -> Encoded:
    """Describe a pickled leaf whose arrays are the leaves numbered in `parts`."""
    leaf, storage = _encode_raw(payload, name, "pickle")
    leaf.value = parts
    return (leaf, storage)


def _encode_jax(value: Any, name: str, fetched: Any) -> Encoded:
    weak = True if value.weak_type else None
    code = dtypes.encode(fetched.dtype)
    storage = np.asarray(fetched, order="C")
    return (Leaf(name, "jax", code, value.shape, value=weak), storage)


def _encode_key(value: Any, name: str, fetched: Any) -> Encoded:
    generator = jax_arrays.implementation(value)
    storage = np.asarray(fetched, order="C")
    code = dtypes.encode(storage.dtype)
    return (Leaf(name, "key", code, storage.shape, value=generator), storage)


def _encode_torch(value: Any, name: str, _: Any) -> Encoded:
    code, shape = torch_tensors.code(value), tuple(value.shape)
    leaf = Leaf(name, "torch", code, shape, value=torch_tensors.traits(value))
    return (leaf, torch_tensors.fetch(value))


def _encode_function(value: Any, name: str, _: Any) -> Encoded:
    return (Leaf(name, "function", value=references.path_of(value)), None)


_ENCODERS: dict[str, Callable[[Any, str, Any], Encoded]] = {
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


def layout_of(leaf: Leaf) -> Layout:
    """Return how the leaf's elements are stored.

    Raises:
      ValueError, TypeError, KeyError: the manifest describes no such leaf.
    """
    shape, code = leaf.shape, leaf.dtype
    if code is None:
        return _NO_BYTES
    if leaf.kind == "torch":
        dtype = torch_tensors.storage_dtype(code)
    elif type(code) is not str and _is_strings(leaf):
        dtype, shape = np.dtype(np.uint8), (int(leaf.value),)
    else:
        dtype = dtypes.decode(code)
    return dtype, shape, dtype.itemsize * math.prod(shape)


def _is_strings(leaf: Leaf) -> bool:
    return type(leaf.dtype) is dict and "string" in leaf.dtype


def decode(
    leaf: Leaf,
    layout: Layout,
    memory: np.ndarray | None,
    offset: int,
    *,
    plain: bool = False,
) -> Any:
    """Return the leaf, sharing `memory`.

    JAX arrays and keys come as the NumPy array that `place` will transfer, pickled
    leaves as their payload, and functions as their import path.

    Args:
      leaf: Its entry in the manifest.
      layout: How it is stored.
      memory: uint8[n], which the leaf may keep; None if it has no bytes.
      offset: Where in `memory` the leaf starts.
      plain: Whether torch tensors come as NumPy arrays too.

    Raises:
      ValueError, TypeError, KeyError: the manifest describes no such leaf.
    """
    kind = leaf.kind
    if kind == "numpy" and memory is not None and type(leaf.dtype) is str:
        return np.ndarray(layout[1], layout[0], memory, offset, None, leaf.order)
    if kind == "python":
        return scalars.decode(leaf.value)
    if kind == "function":
        return str(leaf.value)
    dtype, shape, _ = layout
    if plain and kind == "torch":
        dtype = dtypes.decode(leaf.dtype)
    if memory is None:
        array = np.empty(shape, dtype, leaf.order)
    else:
        array = np.ndarray(shape, dtype, memory, offset, order=leaf.order)
    if kind == "numpy":
        return _decode_strings(leaf, array) if _is_strings(leaf) else array
    if kind in _AS_ARRAYS or (plain and kind == "torch"):
        return array
    if kind == "torch":
        return torch_tensors.build(array, leaf.dtype, leaf.value)
    if kind == "str":
        return array.tobytes().decode("utf-8", "surrogatepass")
    return _BYTES[kind](array.tobytes())


def _decode_strings(leaf: Leaf, data: np.ndarray) -> np.ndarray:
    count = math.prod(leaf.shape)
    if not 0 <= 8 * count <= data.size:
        raise ValueError("an array of strings is longer than its bytes")
    lengths = data[: 8 * count].view("<i8").tolist()
    array = np.empty(count, dtypes.decode(leaf.dtype))
    missing = getattr(array.dtype, "na_object", None)
    position = 8 * count
    for index, length in enumerate(lengths):
        if length < 0:
            array[index] = missing
            continue
        array[index] = data[position : position + length].tobytes().decode()
        position += length
    return array.reshape(leaf.shape, order=leaf.order)


def place(leaves: Mapping[int, Leaf], values: dict[int, Any], key: str) -> None:
    """Turn decoded JAX leaves from NumPy arrays into what they were, in one transfer.

    Args:
      leaves: Leaf entries by number.
      values: Decoded leaves by number; changed in place.
      key: The component's key, for errors.

    Raises:
      MismatchError: JAX would silently halve the width of an element type.
    """
    numbers = [n for n, leaf in leaves.items() if leaf.kind in ("jax", "key")]
    for number in numbers:
        if jax_arrays.narrows(values[number].dtype):
            raise MismatchError(
                f"{key}/{leaves[number].name} is a JAX array of "
                f"{values[number].dtype}, which JAX would silently make 32 bits wide. "
                f"Set jax_enable_x64, as the run that saved it did."
            )
    if not numbers:
        return
    placed = jax_arrays.put([values[number] for number in numbers])
    for number, array in zip(numbers, placed, strict=True):
        leaf = leaves[number]
        if leaf.kind == "key":
            array = _wrap_key(array, leaf, key)
        elif leaf.value:
            array = jax_arrays.weaken(array)
        values[number] = array


def _wrap_key(data: Any, leaf: Leaf, key: str) -> Any:
    try:
        return jax_arrays.wrap_key(data, leaf.value)
    except (ValueError, TypeError) as error:  # This says nothing about the save.
        raise ReadError(
            f"{key}/{leaf.name} holds typed keys of {leaf.value!r}, which the "
            f"installed JAX does not make: {error}. Install one that does."
        ) from error

"""Arrays of NumPy, and views of these; other kinds of arrays are converted to them."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from ..format import dtypes
from ..format.manifest import LeafGroup
from . import views
from .kind import (
    MAX_AXES,
    NO_BYTES,
    ArrayKind,
    Encoded,
    Form,
    Kind,
    Layout,
    Spec,
    Stored,
    cast,
)

_ALIGN = 16  # Alignment of the memory that NumPy allocates, in bytes.


class _Arrays(ArrayKind):
    name = "numpy"
    types: tuple[type, ...] = (np.ndarray, np.memmap)
    is_foreign = False
    build = None  # type: ignore[assignment]

    def encode(self, value: Any, fetched: np.ndarray | None) -> Encoded:
        code = dtypes.encode(value.dtype)
        # What has neither order is stored in C order.
        is_c = value.flags.c_contiguous or not value.flags.f_contiguous
        order: Literal["C", "F"] = "C" if is_c else "F"
        storage = value if order == "C" else value.T
        if type(code) is dict and "string" in code:
            storage = _encode_strings(storage)
            return Form("numpy", code, value.shape, order, storage.size), storage, None
        return Form("numpy", code, value.shape, order), storage, None

    def storage(self, group: LeafGroup) -> tuple[np.dtype[Any], tuple[int, ...]]:
        if not is_strings(group):
            return dtypes.decode(group.dtype), group.shape
        if type(group.value) is not int or group.value < 0:
            raise ValueError("strings of no number of bytes")
        return np.dtype(np.uint8), (group.value,)

    def decode(self, group: LeafGroup, stored: Stored) -> list[Any]:
        arrays = stored.elements(group)
        if is_strings(group):
            return [_decode_strings(group, array) for array in arrays]
        return arrays if stored.is_mapped else _aligned(arrays, stored)

    def spec(self, value: Any) -> Spec:
        if not has_bytes(value):
            return Spec("pickle")
        return Spec("array", value.dtype, value.shape)

    def fit(self, current: Any, value: Any, kind: Kind, taken: Spec | None) -> Any:
        array = kind.numbers(value)
        return array if array.dtype.kind == "O" else cast(array, current.dtype)


class _Views(_Arrays):
    name = "view"  # See `state.view_leaves`, which makes them.
    types = ()

    def layout(self, group: LeafGroup) -> Layout:
        return NO_BYTES

    def decode(self, group: LeafGroup, stored: Stored) -> list[Any]:
        return [None] * len(group.names)


NUMPY, VIEW = _Arrays(), _Views()


def has_bytes(array: np.ndarray) -> bool:
    """Return whether the elements of the array can be stored without pickle."""
    try:
        dtypes.encode(array.dtype)
    except dtypes.UnknownDtypeError:
        return False
    return True


def is_strings(group: LeafGroup | Form) -> bool:
    """Return whether the leaves are arrays of strings of variable length."""
    return type(group.dtype) is dict and "string" in group.dtype


def _encode_strings(array: np.ndarray) -> np.ndarray:
    """Return a StringDType array as int64 lengths, -1 if missing, and the text."""
    items = array.reshape(-1).tolist()
    texts = [item.encode() if isinstance(item, str) else None for item in items]
    lengths = [-1 if text is None else len(text) for text in texts]
    data = np.array(lengths, "<i8").tobytes() + b"".join(filter(None, texts))
    return np.frombuffer(data, np.uint8)


def _decode_strings(group: LeafGroup, data: np.ndarray) -> np.ndarray:
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


def _aligned(arrays: list[np.ndarray], stored: Stored) -> list[np.ndarray]:
    """Return the arrays, copied where they are not aligned like memory of NumPy.

    The order in which torch and BLAS add numbers, and so the last bit of the result,
    depends on the alignment.
    """
    if not arrays or arrays[0].size < 2:
        return arrays
    together = aligned(arrays, stored, _ALIGN)
    if together is not None:
        return together
    places = [array.__array_interface__["data"][0] for array in arrays]
    return [
        _copied(array) if place % _ALIGN else array
        for place, array in zip(places, arrays, strict=True)
    ]


def aligned(
    arrays: list[np.ndarray], stored: Stored, align: int
) -> list[np.ndarray] | None:
    """Return several arrays in C order, copied at once where they are not aligned.

    Args:
      arrays: What `stored.elements` returned.
      stored: Their bytes.
      align: What the address of each is to be a multiple of.

    Returns:
      The arrays, or None if they must be copied one by one.
    """
    (_, _, size), memory, offset = stored[:3]
    if len(arrays) < 2 or memory is None or not size:
        return None
    first, count = arrays[0], len(arrays)
    if not first.flags.c_contiguous or first.ndim >= MAX_AXES:
        return None
    begin = memory.__array_interface__["data"][0] + offset
    if not begin % align and not size % align:
        return arrays
    step = size + -size % align
    room = np.empty(count * step + align, np.uint8)
    start = -room.__array_interface__["data"][0] % align
    rows = np.ndarray((count, size), np.uint8, room, start, (step, 1))
    rows[...] = np.ndarray((count, size), np.uint8, memory, offset)
    strides = (step, *first.strides)
    made = np.ndarray((count, *first.shape), first.dtype, room, start, strides)
    return [made[number, ...] for number in range(count)] if not first.ndim else [*made]


def _copied(array: np.ndarray) -> np.ndarray:
    """Return a copy of a contiguous array, with the bytes between fields.

    NumPy does not copy these, but a view of the array may show them.
    """
    if array.dtype.names is None:
        return array.copy("K")
    content = views.memory_of(array).copy()
    return np.ndarray(array.shape, array.dtype, content, 0, array.strides)

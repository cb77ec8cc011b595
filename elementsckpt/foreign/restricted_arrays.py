"""Pickled NumPy arrays and dtypes → new ones, built with public constructors.

NumPy restores its pickled objects without checking them.
"""

from __future__ import annotations

import functools
import importlib
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .limits import ForbiddenError, Limits, expect

_MOST_FIELDS = 1000  # NumPy processes them by recursion in C.
_ALIGNED = 0x80
_CODE = re.compile(r"[biufcmMSUVO]\d{1,10}")
_UNIT = re.compile(rb"[A-Za-z]{1,2}|generic")


class Unbuilt:
    """Stands for an array or a dtype until its state is read, then refers to it.

    Args:
      build: Builds it from its state.
    """

    def __init__(self, build: Callable[[Sequence[Any]], Any]) -> None:
        self._build = build
        self.built: Any = None

    def build(self, state: Sequence[Any]) -> Any:
        """Return the array or the dtype."""
        self.built = self._build(state)
        return self.built


def dtype(limits: Limits, code: Any, align: Any = False, copy: Any = True) -> Unbuilt:
    """Return a dtype without its state, as `numpy.dtype` would."""
    expect(isinstance(code, (str, type)), "dtype")
    return Unbuilt(functools.partial(_build_dtype, limits, code))


def reconstruct(limits: Limits, subtype: Any, shape: Any, code: Any) -> Unbuilt:
    """Return an array without its state, as `numpy.core.multiarray._reconstruct`."""
    if subtype is not np.ndarray:
        raise ForbiddenError("a subclass of arrays")
    return Unbuilt(functools.partial(_build_array, limits))


def array(
    limits: Limits, data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None
) -> np.ndarray:
    """Return an array of these bytes, as `numpy.core.numeric._frombuffer` would."""
    expect(isinstance(dtype, np.dtype), "array")
    if dtype.hasobject:
        raise ForbiddenError("objects by their address")
    expect(type(data) in (bytes, bytearray), "array")
    size = _size(shape)
    expect(size * dtype.itemsize == len(data), "array")
    limits.charge(max(size, len(data)) + limits.fields.of(dtype, 1))
    buffer = data if type(data) is bytearray else bytearray(data)
    if axes is not None:  # Order of the axes in memory, as NumPy 2 writes it.
        expect(_size(axes) == 0, "array")  # A permutation of 0 to n.
        return np.ndarray(shape, dtype, buffer).transpose(axes)
    expect(type(order) is str and order in ("C", "F"), "array")
    return np.ndarray(shape, dtype, buffer, order=order)


def scalar(limits: Limits, dtype: Any, data: Any) -> Any:
    """Return a scalar, as `numpy.core.multiarray.scalar` would."""
    return array(limits, data, dtype, (), "C")[()]


def ml_dtype(name: str) -> Any:
    """Return the scalar type of this name in ml_dtypes, or None."""
    try:
        found = getattr(importlib.import_module("ml_dtypes"), name, None)
    except ImportError:
        return None
    is_scalar = isinstance(found, type) and issubclass(found, np.generic)
    return found if is_scalar else None


def _build_array(limits: Limits, state: Sequence[Any]) -> np.ndarray:
    _, shape, dtype, is_fortran, data = state
    if type(data) is not list:
        return array(limits, data, dtype, shape, "F" if is_fortran else "C")
    expect(isinstance(dtype, np.dtype) and _size(shape) == len(data), "array")
    if dtype != np.dtype(object):
        raise ForbiddenError("an array of records with objects")
    limits.charge(8 * len(data))
    objects = np.fromiter(data, object, len(data)).reshape(shape)
    objects = np.asfortranarray(objects) if is_fortran is True else objects
    limits.check_nesting(objects, data)
    return objects


def _build_dtype(limits: Limits, code: Any, state: Sequence[Any]) -> np.dtype[Any]:
    _, order, subarray, names, fields, itemsize, _, flags, *metadata = state
    if isinstance(code, type):
        expect(issubclass(code, np.generic), "dtype")  # One of ml_dtypes.
        return np.dtype(code)
    expect(_CODE.fullmatch(code), "dtype")
    expect(type(order) is str and order in ("<", ">", "|", "="), "byte order")
    if subarray is not None:
        base, shape = subarray
        size = _size(shape)
        count = _count_fields(limits, [base]) * (1 if base.itemsize else max(1, size))
        built = np.dtype((base, shape))
    elif names is not None:
        expect(type(names) is tuple and type(fields) is dict, "dtype")
        expect(all(type(name) is str for name in names), "dtype")
        columns = [fields[name] for name in names[: _MOST_FIELDS + 1]]
        count = _count_fields(limits, [column[0] for column in columns])
        built = _structured(names, columns, itemsize, bool(flags & _ALIGNED))
    else:
        unit = _unit(*metadata) if code[0] in "mM" else ""
        return np.dtype(f"{order}{code}{unit}")
    expect(count <= _MOST_FIELDS, "dtype")
    limits.charge(count)
    limits.fields.note(built, count)
    return built


def _count_fields(limits: Limits, parts: list[Any]) -> int:
    """Return the number of fields of a new dtype, with those of its parts."""
    count = 1
    for part in parts:
        if not isinstance(part, np.dtype) or part.hasobject:
            raise ForbiddenError("a dtype with objects inside")
        count += limits.fields.of(part, 1)
    if count > _MOST_FIELDS:
        raise ForbiddenError(f"a dtype of more than {_MOST_FIELDS} fields")
    return count


def _structured(
    names: Any, columns: list[Any], itemsize: Any, align: bool
) -> np.dtype[Any]:
    titles = [column[2] if len(column) > 2 else None for column in columns]
    expect(all(title is None or type(title) is str for title in titles), "dtype")
    offsets = [column[1] for column in columns]
    expect(all(type(offset) is int for offset in [*offsets, itemsize]), "dtype")
    formats = [column[0] for column in columns]
    spec = {"names": names, "formats": formats, "offsets": offsets, "titles": titles}
    make: Any = np.dtype
    return make({**spec, "itemsize": itemsize}, align=align)  # type: ignore[no-any-return]


def _unit(metadata: Any) -> str:
    """Return the unit in the state of a dtype of dates or times, such as [25us]."""
    _, (unit, step, _, _) = metadata
    expect(type(unit) is bytes and _UNIT.fullmatch(unit), "unit")
    expect(type(step) is int and 0 < step < 1 << 31, "unit")
    return "" if unit == b"generic" else f"[{step}{unit.decode()}]"


def _size(shape: Any) -> int:
    expect(type(shape) is tuple and len(shape) <= 64, "shape")
    expect(all(type(n) is int and 0 <= n < 1 << 63 for n in shape), "shape")
    return math.prod(shape)

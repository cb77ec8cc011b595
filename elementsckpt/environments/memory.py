"""Addresses of arrays: which of them are in the same memory, and whose it is."""

from __future__ import annotations

import datetime
import functools
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import objects
from .node import MISSING


class Span(NamedTuple):
    """The addresses of an array."""

    start: int
    stop: int
    number: int
    array: Any


def between(group: Sequence[Span], start: int, stop: int) -> Any:
    """Return the memory between two addresses as an array, or None."""
    for span in group:
        base = span.array
        while isinstance(base, np.ndarray):
            first, last = bounds(base)
            is_whole = base.flags.c_contiguous or base.flags.f_contiguous
            if is_whole and first <= start and stop <= last and base.size:
                flat = base.ravel(order="K").view(np.ndarray)
                size = flat.itemsize
                if base.dtype.hasobject:
                    return None
                if (start - first) % size or (stop - first) % size:
                    flat, size = flat.view(np.uint8), 1
                return flat[(start - first) // size : (stop - first) // size]
            base = base.base
    return None


def groups(spans: Sequence[Span]) -> Iterator[list[Span]]:
    """Yield arrays whose addresses overlap, directly or by way of others."""
    group: list[Span] = []
    end = 0
    for span in sorted(spans, key=lambda span: span[:3]):
        if group and span.start >= end:
            yield group
            group = []
        group.append(span)
        end = max(end, span.stop)
    if group:
        yield group


def address(array: Any) -> int:
    start: int = array.__array_interface__["data"][0]
    return start


def bounds(array: Any) -> tuple[int, int]:
    """Return the addresses between which the elements of an array are."""
    start = address(array)
    if array.flags.c_contiguous:
        return start, start + array.nbytes
    stop = start + array.itemsize
    for count, stride in zip(array.shape, array.strides, strict=True):
        if stride > 0:
            stop += (count - 1) * stride
        else:
            start += (count - 1) * stride
    return start, stop


def is_fortran(array: Any) -> bool:
    return bool(array.flags.f_contiguous and not array.flags.c_contiguous)


def is_order(array: Any, order: str) -> bool:
    flags = array.flags
    return bool(flags.c_contiguous if order == "C" else flags.f_contiguous)


def around(array: Any, offset: int, size: int) -> Any:
    """Return the array in whose memory another one is; MISSING if none.

    Args:
      array: The other one, or MISSING.
      offset: Where it begins in the memory.
      size: Size of the memory. If the array has a larger one, a part of that is meant.
    """
    found = MISSING
    base = array
    while isinstance(getattr(base, "base", None), np.ndarray):
        found = base = base.base
    if found is MISSING or found.nbytes == size:
        return found
    start = address(array) - offset
    part = between([Span(*bounds(array), 0, array)], start, start + size)
    return found if part is None else part


class Owners:
    """Tells what owns the memory of arrays.

    Args:
      found: All objects that the environment reaches.
    """

    def __init__(self, found: Iterable[Any]) -> None:
        self._found = found

    def of(self, array: Any) -> str | None:
        """Return the type of what owns the memory of an array that can be written to.

        None if that is an array, or if nothing else sees what is written.
        """
        base: Any = array.base if array.flags.writeable else None
        while isinstance(base, np.ndarray):
            base = base.base
        if isinstance(base, memoryview):
            base = base.obj
        if base is None or isinstance(base, _PRIVATE) or _is_result(base):
            return None
        if objects.name_of(type(base)) == "torch:Tensor" and (
            base.untyped_storage().data_ptr() not in self._of_tensors
        ):
            return None  # As is the memory of an action that a network of torch chose.
        return objects.shown(type(base))

    @functools.cached_property
    def _of_tensors(self) -> set[int]:
        """Where the memory of tensors is that are among the objects."""
        cls = sys.modules["torch"].Tensor
        tensors = [x for x in self._found if issubclass(type(x), cls)]
        return {x.untyped_storage().data_ptr() for x in tensors}


# What lends memory to one array alone, or memory that does not change.
_PRIVATE = (bytes, type(datetime.datetime_CAPI))


def _is_result(owner: Any) -> bool:
    """Return whether memory was made for the result of a function, as ALE's are."""
    return objects.name_of(type(owner)) == "nanobind:nb_ndarray"

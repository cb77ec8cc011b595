"""Parts of JAX arrays on accelerators, which are fetched without the rest."""

from __future__ import annotations

import functools
import itertools
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import jax_arrays
from .remote import Range, Remote

_AT_ONCE = 64  # Parts that are on the device a second time while they are fetched.
_MOST = 1 << 31  # JAX has indices of 32 bits.

# The number of its first element in all of the array, and an array on one device.
Piece = tuple[int, Any]


def remote(value: Any) -> Remote | None:
    """Return an array that can be fetched in parts.

    None if it is in memory, or lies over devices in another way than by whole rows.
    """
    if not jax_arrays.is_far(value) or value.size >= _MOST:
        return None
    pieces = _pieces(value)
    if pieces is None:
        return None
    return Remote(
        np.dtype(value.dtype),
        tuple(value.shape),
        whole=lambda: np.asarray(jax_arrays.fetch([value])[0], order="C"),
        parts=functools.partial(_parts, pieces),
    )


def _pieces(value: Any) -> list[Piece] | None:
    """Return arrays that hold all elements one after another in C order, or None."""
    row, found = math.prod(value.shape[1:]), {}
    for shard in value.addressable_shards:
        if shard.data.shape[1:] != value.shape[1:] or _is_hosted(shard.data):
            return None
        first = shard.index[0].start or 0
        found[first * row] = shard.data  # Or a copy on another device.
    return sorted(found.items())


def _is_hosted(array: Any) -> bool:
    """Return whether an array is in memory of the host that a device can use."""
    (device,) = array.devices()
    return bool(array.sharding.memory_kind != device.default_memory().kind)


def _parts(
    pieces: Sequence[Piece], ranges: Sequence[Range], largest: int
) -> list[np.ndarray]:
    """Fetch ranges of elements; `largest` is the size of most of them."""
    found: list[np.ndarray] = []
    for start in range(0, len(ranges), _AT_ONCE):
        some = ranges[start : start + _AT_ONCE]
        cuts = [list(_cuts(pieces, one, largest)) for one in some]
        with jax_arrays.unchecked():
            fetched = iter(jax_arrays.fetch(_sliced(itertools.chain(*cuts))))
        for its_cuts in cuts:
            flat = [next(fetched).reshape(-1)[x.within] for x in its_cuts]
            found.append(flat[0] if len(flat) == 1 else np.concatenate(flat))
    return found


class _Cut(NamedTuple):
    """What one call slices: some rows of an array, merged of its first axes.

    Attributes:
      array: The array, on one device.
      axes: How many axes are merged.
      begin: The first row of these.
      rows: How many rows.
      within: Which of their elements are wanted.
    """

    array: Any
    axes: int
    begin: int
    rows: int
    within: slice


def _cuts(pieces: Sequence[Piece], wanted: Range, largest: int) -> Iterator[_Cut]:
    """Yield what to slice for a range of elements, in the order of these."""
    for first, array in pieces:
        start, stop = max(wanted[0] - first, 0), min(wanted[1] - first, array.size)
        if start < stop:
            yield _cut(array, start, stop, largest)


def _cut(array: Any, start: int, stop: int, largest: int) -> _Cut:
    """Return what to slice of an array, as many rows for each range."""
    # Merging the first axes costs no copy, wherever the last ones are tiled.
    axes, row = 1, math.prod(array.shape[1:])
    while row > largest:
        row, axes = row // array.shape[axes], axes + 1
    rows = array.size // row
    # A range that does not begin where a row does has parts of two more.
    count = min(largest // row + (2 if largest % row else 0), rows)
    begin = min(start // row, rows - count)
    offset = start - begin * row
    return _Cut(array, axes, begin, count, slice(offset, offset + stop - start))


def _sliced(cuts: Iterable[_Cut]) -> list[Any]:
    """Slice arrays on their devices; all slices of an array have one shape."""
    cuts, jax = list(cuts), sys.modules["jax"]
    places = [next(iter(x.array.devices())) for x in cuts]
    # Put there, as numbers would be an implicit transfer, and constants compile anew.
    begins = jax.device_put([np.int32(x.begin) for x in cuts], places)
    return [
        _slicer()(x.array, begin, axes=x.axes, count=x.rows)
        for x, begin in zip(cuts, begins, strict=True)
    ]


@functools.cache
def _slicer() -> Callable[..., Any]:
    """Return the compiled function that slices rows."""
    jax = sys.modules["jax"]

    def slice_rows(array: Any, begin: Any, *, axes: int, count: int) -> Any:
        rows = array.reshape(-1, *array.shape[axes:])
        return jax.lax.dynamic_slice_in_dim(rows, begin, count)

    compiled: Callable[..., Any] = jax.jit(
        slice_rows, static_argnames=("axes", "count")
    )
    return compiled

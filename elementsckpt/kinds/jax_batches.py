"""Many small JAX arrays at once, without a call or a transfer for each.

`jax.device_put` takes 30 µs for an array, and a compiled function that returns what it
is given 4 µs. So on the CPU, arrays are what such a function returns. Those of other
devices cross over packed: up to `_PIECE`² of a form are one array, which compiled
functions put together or take apart. Compiling must pay, so all this is for arrays of
which there are many alike; it moves bits, also those of a NaN.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

_SMALL_BYTES = 4096  # Of larger arrays, most of the time goes into their bytes.
_MANY = 1024  # Arrays for which compiling a function takes less time than it saves.
_ROUNDS = 16  # The fewest calls of a function that pay for each of its arguments.
_PIECE = 128  # Arrays that one call puts together, or takes apart.


def put(
    groups: Sequence[list[Any]], otherwise: Callable[[list[np.ndarray]], Sequence[Any]]
) -> None:
    """Make JAX arrays of NumPy arrays on the default device, in place.

    Args:
      groups: The arrays; those of a group have one dtype and shape.
      otherwise: Makes those that are large, or of which there are few.
    """
    small = [x for x in groups if x and _is_small(x[0])]
    if sum(map(len, small)) >= min(_MANY, _PIECE):
        # Where transfers are forbidden, even explicit ones, this one is refused.
        probe = importlib.import_module("jax").device_put(np.zeros((), np.uint8))
        with _compiled():
            (_put_packed if _is_far(probe) else _make)(small, probe)
    rest = [x for group in groups for x in group if type(x) is np.ndarray]
    made = iter(otherwise(rest) if rest else ())
    for group in groups:
        group[:] = [next(made) if type(x) is np.ndarray else x for x in group]


def _is_small(array: Any) -> bool:
    """Return whether an array is small, and has elements of whole bytes of numbers."""
    dtype, is_small = array.dtype, array.nbytes <= _SMALL_BYTES
    is_number = dtype.isbuiltin == 1 and dtype.kind in "biufc"
    return is_small and (is_number or dtype.name == "bfloat16")


def _is_far(array: Any) -> bool:
    """Return whether a JAX array is on one device, in memory that is not the host's."""
    devices = array.devices()
    return len(devices) == 1 and next(iter(devices)).platform != "cpu"


@contextlib.contextmanager
def _compiled() -> Iterator[None]:
    """Let compiled functions take NumPy arrays and return NaN, whatever JAX is told."""
    jax = sys.modules["jax"]
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.transfer_guard_host_to_device("allow"))
        stack.enter_context(jax.disable_jit(False))
        stack.enter_context(jax.debug_nans(False))
        stack.enter_context(jax.debug_infs(False))
        yield


def _make(groups: Sequence[list[Any]], probe: Any) -> None:
    """Make arrays on the CPU by a function that returns its arguments.

    In a round it makes one array of each column, and columns of like length end
    together. What does not pay stays as it is.
    """
    steps = [_ROUNDS if len(x) >= _ROUNDS**2 else 1 for x in groups]
    places = [
        (group, slice(start, None, step))
        for group, step in zip(groups, steps, strict=True)
        for start in range(step)
    ]
    columns = [group[place] for group, place in places]
    left, done = sorted(columns, key=len), 0
    while left:
        count = len(left[0]) - done
        if count >= _ROUNDS and count * len(left) >= _MANY:
            rows = zip(*(column[done : done + count] for column in left), strict=True)
            made = [_programs().same(*row) for row in rows]
            if made[0][0].sharding != probe.sharding:  # A mesh is set.
                return
            for column, arrays in zip(left, zip(*made, strict=True), strict=True):
                column[done : done + count] = arrays
            done += count
        del left[0]
    for (group, place), column in zip(places, columns, strict=True):
        group[place] = column


def _put_packed(groups: Sequence[list[Any]], probe: Any) -> None:
    """Make arrays on another device, which gets those of a group packed."""
    jax = sys.modules["jax"]
    for group in groups:
        if len(group) < _PIECE:
            continue
        dtype, made = group[0].dtype, []
        for part in _parts(group):
            packed = np.zeros((_padded(len(part)), *part[0].shape), _bits(dtype))
            np.stack(part, out=packed[: len(part)].view(dtype))
            pieces = _programs().split(jax.device_put(packed))
            arrays = [x for piece in pieces for x in _programs().unstack(piece, dtype)]
            made += arrays[: len(part)]
        if made[0].sharding == probe.sharding:  # No mesh is set.
            group[:] = made


def fetch(
    arrays: Sequence[Any], otherwise: Callable[[list[Any]], Sequence[np.ndarray]]
) -> list[np.ndarray]:
    """Return JAX arrays as NumPy arrays, small ones of other devices packed.

    Args:
      arrays: The arrays, without keys.
      otherwise: Fetches arrays, all at once.
    """
    forms: dict[Any, list[int]] = {}
    for number, array in enumerate(arrays):
        if _is_far(array) and _is_small(array):
            key = array.dtype, array.shape, array.sharding
            forms.setdefault(key, []).append(number)
    packed = []
    with _compiled() if forms else contextlib.nullcontext():
        for numbers in forms.values():
            for part in _parts(numbers) if len(numbers) >= _PIECE else ():
                whole = _pack([arrays[number] for number in part])
                if whole is not None:
                    packed.append((part, whole))
    gone = {number for part, _ in packed for number in part}
    rest = [number for number in range(len(arrays)) if number not in gone]
    fetched = otherwise([*(arrays[x] for x in rest), *(whole for _, whole in packed)])
    found: dict[int, np.ndarray] = dict(zip(rest, fetched, strict=False))
    for (part, _), whole in zip(packed, fetched[len(rest) :], strict=True):
        rows = whole.view(arrays[part[0]].dtype)
        found |= {number: rows[place, ...] for place, number in enumerate(part)}
    return [found[number] for number in range(len(arrays))]


def _pack(arrays: list[Any]) -> Any:
    """Return arrays of one form as one array of their bits; None where JAX refuses."""
    padded = arrays + arrays[-1:] * (_padded(len(arrays)) - len(arrays))
    pieces = [padded[start : start + _PIECE] for start in range(0, len(padded), _PIECE)]
    try:
        whole = _programs().join(*(_programs().stack(*piece) for piece in pieces))
    except (RuntimeError, ValueError):  # A mesh of other devices is set, for one.
        return None
    return whole if whole.devices() == arrays[0].devices() else None


def _parts(items: list[Any]) -> Iterator[list[Any]]:
    """Yield as many items at a time as are packed into one array."""
    for start in range(0, len(items), _PIECE**2):
        yield items[start : start + _PIECE**2]


def _padded(count: int) -> int:
    """Return how many rows hold so many arrays, in whole pieces."""
    return -(-count // _PIECE) * _PIECE


def _bits(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return a type for the bits of elements that compiled code may change: floats."""
    is_float = dtype.kind not in "biuc"
    return np.dtype(f"u{dtype.itemsize}") if is_float else dtype


class _Programs(NamedTuple):
    """Compiled functions, which need no elements from the host.

    Attributes:
      same: Returns its arguments, as arrays of its own.
      stack: Puts a piece of arrays together, as bits.
      join: Puts pieces together.
      split: Takes them apart again.
      unstack: Takes a piece apart, into arrays of a dtype.
    """

    same: Any
    stack: Any
    join: Any
    split: Any
    unstack: Any


@functools.cache
def _programs() -> _Programs:
    jax = importlib.import_module("jax")
    lax, numpy = jax.lax, jax.numpy

    def cast(array: Any, dtype: Any) -> Any:
        same = array.dtype == dtype
        return array if same else lax.bitcast_convert_type(array, dtype)

    def split(whole: Any) -> list[Any]:
        starts = range(0, whole.shape[0], _PIECE)
        return [lax.slice_in_dim(whole, start, start + _PIECE) for start in starts]

    def unstack(piece: Any, dtype: Any) -> list[Any]:
        rows = [lax.index_in_dim(piece, x, keepdims=False) for x in range(_PIECE)]
        return [cast(row, dtype) for row in rows]

    return _Programs(
        same=jax.jit(lambda *arrays: arrays),
        stack=jax.jit(
            lambda *arrays: numpy.stack([cast(x, _bits(x.dtype)) for x in arrays])
        ),
        join=jax.jit(lambda *pieces: lax.concatenate(pieces, 0)),
        split=jax.jit(split),
        unstack=jax.jit(unstack, static_argnums=1),
    )

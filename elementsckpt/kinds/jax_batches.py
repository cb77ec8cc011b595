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


class Group(NamedTuple):
    """Arrays of one dtype and shape.

    Attributes:
      arrays: NumPy arrays, which are replaced by those of JAX.
      is_weak: Whether they become weakly typed, if JAX makes them so in compiled code.
    """

    arrays: list[Any]
    is_weak: bool = False


def put(
    groups: Sequence[Group],
    otherwise: Callable[[list[np.ndarray]], Sequence[Any]],
    sharding: Any = None,
) -> None:
    """Make JAX arrays of NumPy arrays, in place.

    Args:
      groups: The arrays.
      otherwise: Makes those that are large, or of which there are few; never weakly
        typed.
      sharding: Of one device, to which the arrays are committed. None for the default
        device.
    """
    small = [x for x in groups if x.arrays and _is_small(x.arrays[0])]
    if sum(len(group.arrays) for group in small) >= min(_MANY, _PIECE):
        # Where transfers are forbidden, even explicit ones, this one is refused.
        jax = importlib.import_module("jax")
        probe = jax.device_put(np.zeros((), np.uint8), sharding)
        with _compiled():
            (_put_packed if _is_far(probe) else _make)(small, probe, sharding)
    rest = [x for group, _ in groups for x in group if type(x) is np.ndarray]
    made = iter(otherwise(rest) if rest else ())
    for group, _ in groups:
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


def _make(groups: Sequence[Group], probe: Any, sharding: Any) -> None:
    """Make arrays on the CPU by a function that returns its arguments.

    In a round it makes one array of each column, and columns of like length end
    together. What does not pay stays as it is.
    """
    steps = [_ROUNDS if len(x.arrays) >= _ROUNDS**2 else 1 for x in groups]
    places = [
        (group, slice(start, None, step))
        for group, step in zip(groups, steps, strict=True)
        for start in range(step)
    ]
    columns = [Group(group.arrays[place], group.is_weak) for group, place in places]
    left, done = sorted(columns, key=lambda x: len(x.arrays)), 0
    same = _same(sharding)
    while left:
        count = len(left[0].arrays) - done
        if count >= _ROUNDS and count * len(left) >= _MANY:
            kinds = tuple([column.is_weak for column in left])
            parts = [column.arrays[done : done + count] for column in left]
            made = [same(kinds, *row) for row in zip(*parts, strict=True)]
            if made[0][0].sharding != probe.sharding:  # A mesh is set.
                return
            for column, arrays in zip(left, zip(*made, strict=True), strict=True):
                column.arrays[done : done + count] = arrays
            done += count
        del left[0]
    for (group, place), column in zip(places, columns, strict=True):
        group.arrays[place] = column.arrays


def _put_packed(groups: Sequence[Group], probe: Any, sharding: Any) -> None:
    """Make arrays on another device, which gets those of a group packed."""
    jax, programs = sys.modules["jax"], _programs()
    for group, is_weak in groups:
        if len(group) < _PIECE:
            continue
        dtype, made = group[0].dtype, []
        for part in _parts(group):
            packed = np.zeros((_padded(len(part)), *part[0].shape), _bits(dtype))
            np.stack(part, out=packed[: len(part)].view(dtype))
            pieces = programs.split(jax.device_put(packed, sharding))
            arrays = [
                x for one in pieces for x in programs.unstack(one, dtype, is_weak)
            ]
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
      stack: Puts a piece of arrays together, as bits.
      join: Puts pieces together.
      split: Takes them apart again.
      unstack: Takes a piece apart, into arrays of a dtype, weakly typed or not.
    """

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

    def unstack(piece: Any, dtype: Any, is_weak: bool) -> list[Any]:
        rows = [lax.index_in_dim(piece, x, keepdims=False) for x in range(_PIECE)]
        return [_typed(cast(row, dtype), is_weak) for row in rows]

    return _Programs(
        stack=jax.jit(
            lambda *arrays: numpy.stack([cast(x, _bits(x.dtype)) for x in arrays])
        ),
        join=jax.jit(lambda *pieces: lax.concatenate(pieces, 0)),
        split=jax.jit(split),
        unstack=jax.jit(unstack, static_argnums=(1, 2)),
    )


@functools.lru_cache(4)
def _same(sharding: Any) -> Any:
    """Return a compiled function that returns arrays as arrays of its own.

    It gets whether each is to be weakly typed, and the arrays. They are committed to
    the sharding, if it is not None.
    """
    jax = importlib.import_module("jax")
    options = {} if sharding is None else {"out_shardings": sharding}

    def same(kinds: Sequence[bool], *arrays: Any) -> list[Any]:
        return list(map(_typed, arrays, kinds))

    return jax.jit(same, static_argnums=0, **options)


def _typed(array: Any, is_weak: bool) -> Any:
    """Return an array in compiled code, weakly typed if that is wanted and possible."""
    if not is_weak:
        return array
    try:  # There is no public name for it.
        convert = sys.modules["jax._src.lax.lax"]._convert_element_type
        return convert(array, weak_type=True)
    except (KeyError, AttributeError, TypeError):
        return array

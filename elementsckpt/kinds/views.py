"""NumPy arrays that share memory: finds which are views of others, and restores views.

An array is a view of another one if it lies in its memory, no matter how it was made.
Arrays that lie beside each other, as after a load, or interleaved, as columns, share
nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

# Bits of `flags.num`; with the last one, a request for writable memory would warn.
_C, _F, _WRITEABLE, _WARNS = 0x1, 0x2, 0x400, 1 << 31
_KIND, _PLAIN = _C | _WRITEABLE | _WARNS, _C | _WRITEABLE
_MOST_PAIRS = 100_000  # Pairs of arrays that are checked for a common element.
_MOST_TESTS = 10_000  # Such pairs that differ in more than their addresses.
_MOST_WORK: Any = 10_000  # Cost of the check of one pair.
_SLACK_BYTES = 4096  # Unused bytes that memory of several arrays may have in any case.
_ALIGN = 64


class View(NamedTuple):
    """An array in the memory of another.

    Attributes:
      base: Number of the other array.
      offset: Where in its memory the first element is, in bytes.
      strides: Bytes from one element to the next, along each axis.
    """

    base: int
    offset: int
    strides: tuple[int, ...]


class Grid(NamedTuple):
    """How the elements of an array lie in memory, relative to the first one."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def reach(self) -> tuple[int, int]:
        """Positions of its lowest byte, and after its highest byte."""
        pairs = zip(self.shape, self.strides, strict=True)
        steps = [(n - 1) * stride for n, stride in pairs]
        low = sum(step for step in steps if step < 0)
        high = sum(step for step in steps if step > 0)
        return low, high + self.dtype.itemsize

    @property
    def is_regular(self) -> bool:
        """Whether it has elements that are not objects and share no bytes."""
        reached = self.dtype.itemsize
        if not reached or self.dtype.hasobject or 0 in self.shape:
            return False
        steps = zip(map(abs, self.strides), self.shape, strict=True)
        for stride, n in sorted(step for step in steps if step[1] > 1):
            if stride < reached:
                return False
            reached += (n - 1) * stride
        return True


_base_of = operator.attrgetter("base")
_NONE = type(None)
_grid_of = operator.attrgetter("dtype", "shape", "strides")


def find(
    groups: Sequence[Sequence[np.ndarray]], others: Sequence[np.ndarray] = ()
) -> Found:
    """Find the arrays that are views of other ones.

    Args:
      groups: The arrays; each group has one dtype, shape and strides.
      others: Arrays after these that can be neither views nor bases.
    """
    groups = [*groups, *([array] for array in others)]
    if are_apart(list(itertools.chain.from_iterable(groups))):
        return Found([], [], 0)
    return search(groups, len(others))


def search(groups: Sequence[Sequence[np.ndarray]], others: int = 0) -> Found:
    """Find views as `find` does, by the addresses of all arrays; none is there twice.

    Args:
      groups: The arrays; each group has one dtype, shape and strides.
      others: How many of the last ones can be neither views nor bases.
    """
    arrays = list(itertools.chain.from_iterable(groups))
    places = np.concatenate([_places(group) for group in groups])
    lows, highs = places[:, 1:].T
    order = np.argsort(lows, kind="stable")
    meets = lows[order][1:] < np.maximum.accumulate(highs[order])[:-1]
    if not meets.any():
        return Found([], [], 0)
    found = Found(arrays, places.tolist(), len(arrays) - others)
    for members in np.split(order, np.flatnonzero(~meets) + 1):
        if len(members) > 1:
            found.add(members.tolist())
    return found


def are_apart(arrays: Sequence[np.ndarray]) -> bool:
    """Return whether each array has memory of its own, as most often all have.

    That is so for arrays without a base, and for one that is alone with its base, if
    none is there twice.
    """
    bases = [*map(_base_of, arrays)]
    types = {*map(type, bases)}
    if not {np.ndarray, _NONE} >= types:
        return False
    below = bases if _NONE not in types else [x for x in bases if x is not None]
    if {*map(type, map(_base_of, below))} - {_NONE}:  # They are views, too.
        return False
    owners: Sequence[np.ndarray] = bases
    if len(below) < len(bases):
        pairs = zip(arrays, bases, strict=True)
        owners = [array if base is None else base for array, base in pairs]
    return len({*map(id, owners)}) == len(owners)


def _places(group: Sequence[np.ndarray]) -> np.ndarray:
    """Return addresses, int64[n, 3], of arrays of one grid.

    The columns are the first element, the lowest byte, and the end.
    """
    grid = Grid(*_grid_of(group[0]))
    low, high = grid.reach
    if not group[0].nbytes:
        return np.zeros((len(group), 3), np.int64)
    return _addresses(group)[:, None] + [0, low, high]


def _addresses(group: Sequence[np.ndarray]) -> np.ndarray:
    """Return the addresses of the first elements, in loops of C if possible."""
    count = len(group)
    kinds = np.fromiter(map(_flags_of, group), np.int64, count) & _KIND
    if (kinds == _PLAIN).all():
        with contextlib.suppress(ValueError):  # Some dtypes have no buffer.
            memories = map(_from_buffer, group)
            return np.fromiter(map(ctypes.addressof, memories), np.int64, count)
    return np.fromiter(map(_address, group), np.int64, count)


_flags_of = operator.attrgetter("flags.num")
_from_buffer: Any = ctypes.c_char.from_buffer


def _address(array: np.ndarray) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


class Found:
    """Which arrays share memory, by their positions in the list of arrays.

    Args:
      arrays: All arrays.
      places: Their addresses.
      count: How many of the first arrays can be views or bases.

    Attributes:
      views: Arrays that are views of others.
      spans: Memory, uint8[n], that several arrays share while none covers all of it. It
        is the base of these arrays; its position comes after all arrays.
      unshared: Groups of arrays that share memory in a way that a save does not keep.
    """

    def __init__(
        self, arrays: Sequence[np.ndarray], places: Sequence[list[int]], count: int
    ) -> None:
        self.views: dict[int, View] = {}
        self.spans: list[np.ndarray] = []
        self.unshared: list[list[int]] = []
        self._count = count
        self._arrays = arrays
        self._places = places
        self._is_regular_grid = functools.cache(lambda grid: Grid(*grid).is_regular)

    def add(self, members: list[int]) -> None:
        """Examine arrays whose ranges of memory overlap, in the order of addresses."""
        if self._link(members):
            return
        for part in self._connected(members):
            if len(part) > 1 and not self._link(part) and not self._span(part):
                self.unshared.append(part)

    def _link(self, members: Sequence[int]) -> bool:
        """Note the arrays as views of one that covers all of the memory, if any."""
        bounds = self._bounds(members)
        arrays = self._arrays
        whole = [
            member
            for member in members
            if member < self._count
            and self._places[member][1:] == [*bounds]
            and arrays[member].flags.num & (_C | _F)
            and not arrays[member].dtype.hasobject
        ]
        if not whole:
            return False
        base = min(whole, key=lambda x: (-arrays[x].dtype.alignment, x))
        self._note([member for member in members if member != base], base, bounds[0])
        return True

    def _span(self, members: Sequence[int]) -> bool:
        """Note the arrays as views of their whole range of memory, if they use most."""
        kept = [member for member in members if self._is_regular(member)]
        if len(kept) < 2:
            return False
        begin, end = self._bounds(kept)
        owners = [self._arrays[member] for member in kept]
        used = sum(array.nbytes for array in owners)
        if end - begin > 2 * used + _SLACK_BYTES:
            return False
        self.spans.append(np.asarray(_Memory(begin, end - begin, owners)))
        base = len(self._arrays) + len(self.spans) - 1
        self._note(members, base, begin)
        return True

    def _note(self, members: Sequence[int], base: int, begin: int) -> None:
        """Note views of a base that begins at an address, and arrays that cannot be."""
        kept = [member for member in members if self._is_regular(member)]
        for member in kept:
            offset, strides = (
                self._places[member][0] - begin,
                self._arrays[member].strides,
            )
            self.views[member] = View(base, offset, strides)
        if len(kept) < len(members):
            known = [base] if base < len(self._arrays) else kept
            others = [member for member in members if member not in self.views]
            self.unshared.append(known + others)

    def _is_regular(self, member: int) -> bool:
        grid = _grid_of(self._arrays[member])
        return member < self._count and self._is_regular_grid(grid)

    def _bounds(self, members: Sequence[int]) -> tuple[int, int]:
        places = [self._places[member] for member in members]
        return min(low for _, low, _ in places), max(high for *_, high in places)

    def _connected(self, members: list[int]) -> list[list[int]]:
        """Divide arrays into groups that share elements, if there are not too many."""
        groups = {member: [member] for member in members}
        # Two arrays with the grids and the distance of another pair give its result.
        known: dict[Any, bool] = {}
        numbers: dict[Any, int] = {}
        marks = {
            member: numbers.setdefault(_grid_of(self._arrays[member]), len(numbers))
            for member in members
        }
        left = _MOST_PAIRS
        for index, one in enumerate(members):
            address, _, end = self._places[one]
            for other in members[index + 1 :]:
                if self._places[other][1] >= end:
                    break
                left -= 1
                if left < 0 or len(known) > _MOST_TESTS:
                    return [members]
                if groups[one] is groups[other]:
                    continue
                pair = marks[one], marks[other], self._places[other][0] - address
                if pair not in known:
                    known[pair] = self._share(one, other)
                if known[pair]:
                    groups[one] += groups[other]
                    groups.update(dict.fromkeys(groups[other], groups[one]))
        return list({id(group): group for group in groups.values()}.values())

    def _share(self, one: int, other: int) -> bool:
        arrays: Any = self._arrays
        try:
            return bool(np.shares_memory(arrays[one], arrays[other], _MOST_WORK))
        except np.exceptions.TooHardError:
            return True


class _Memory:
    """Memory of arrays, which it keeps alive, with the array interface of NumPy."""

    def __init__(self, address: int, size: int, owners: Sequence[np.ndarray]) -> None:
        self._owners = owners
        self.__array_interface__ = {
            "version": 3,
            "data": (address, True),
            "shape": (size,),
            "typestr": "|u1",
        }


# Back


def restore(
    base: np.ndarray, views: Sequence[tuple[int, Grid]]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Make views of an array.

    Args:
      base: The array.
      views: Where in its memory each view begins, and its grid.

    Returns:
      The array, copied if views would not be aligned, and the views.

    Raises:
      ValueError: a view is not in the array, or has elements that share bytes.
    """
    for offset, grid in views:
        low, high = grid.reach
        if offset + low < 0 or offset + high > base.nbytes or not grid.is_regular:
            raise ValueError("an array that is not in the memory of another")
    base = _aligned(base, {(offset, grid.dtype.alignment) for offset, grid in views})
    memory = memory_of(base)
    made = [
        np.ndarray(grid.shape, grid.dtype, memory, offset, grid.strides)
        for offset, grid in views
    ]
    return base, made


def _aligned(base: np.ndarray, needs: set[tuple[int, int]]) -> np.ndarray:
    """Return the array, copied if places in its memory are not aligned as needed."""
    memory = memory_of(base)
    needs.add((0, base.dtype.alignment))

    def fits(address: int) -> bool:
        return all((address + offset) % align == 0 for offset, align in needs)

    if fits(_address(memory)):
        return base
    shift = next((shift for shift in range(_ALIGN) if fits(shift)), 0)
    room = np.empty(memory.size + 2 * _ALIGN, np.uint8)
    begin = -_address(room) % _ALIGN + shift
    room[begin : begin + memory.size] = memory
    order: Any = "C" if base.flags.c_contiguous else "F"
    return np.ndarray(base.shape, base.dtype, room, begin, order=order)


def memory_of(array: np.ndarray) -> np.ndarray:
    """Return the bytes of a contiguous array in the order of memory."""
    rows = array if array.flags.c_contiguous else array.T
    return rows.reshape(-1).view(np.uint8)

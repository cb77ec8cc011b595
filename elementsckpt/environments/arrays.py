"""Arrays of NumPy: elements, and memory that several of them share.

Arrays share memory if they are views of each other, or of what no attribute holds. So
all arrays that an environment reaches are looked at together, by their addresses, when
it is saved and when it is loaded. Of those in the same memory, one holds all of it; the
others are places in this one. What is shared in the save is shared afterwards, and what
is not is not.

    ["array", [leaf, whether it is writable, owner of its memory], class, attributes]
    ["place", [holder, its size, offset, shape, strides, dtype], class, attributes]
    ["objects", [shape, order, items], class, attributes]

The owner is an object of a library, such as a simulator, or None.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..format import dtypes
from . import memory
from .families import Refused
from .instances import HERE, Instances, fill_attributes, pair_attributes
from .node import MISSING, Loading, Node, Saving

_ODD = "an array whose elements only pickle holds"


class Arrays(Instances):
    """Arrays; `arrange` decides what those that are saved become."""

    def save(self, walk: Saving, number: int, value: Any) -> Node:
        node: Node = ["array", None]
        if type(value) is not np.ndarray:
            node += [walk.cls(type(value)), walk.attributes(value, number)]
        if value.dtype.hasobject:
            if value.dtype != object:
                raise Refused(_ODD)
            order = "F" if memory.is_fortran(value) else "C"
            items = enumerate(value.ravel(order=order).tolist())
            codes = [walk.code(x, number, (i,)) for i, x in items]
            node[:2] = "objects", [list(value.shape), order, codes]
        else:
            try:
                dtypes.encode(value.dtype)
            except dtypes.UnknownDtypeError as error:
                raise Refused(_ODD) from error
        walk.arrays.append((number, value))
        return node

    def pair(self, walk: Loading, number: int, node: Node, live: Any) -> None:
        cls: Any = np.ndarray if len(node) == 2 else walk.cls(node[2], live)
        if cls is None:
            return
        if not issubclass(cls, np.ndarray):
            raise ValueError("another value in place of an array")
        if walk.fits(live, cls):
            walk.reserve(live)
        else:
            live = MISSING
        held = walk.arrays[number] = _KINDS[node[0]](number, node, cls, live)
        held.look(walk)
        if len(node) > 2:
            pair_attributes(walk, number, node[3], live)

    def fill(self, walk: Loading, number: int, node: Node) -> None:
        walk.arrays[number].fill(walk)
        if len(node) > 2:
            fill_attributes(walk, walk.targets[number], node[3])


class _Elements:
    """An array that holds its memory, when it is loaded.

    Attributes:
      live: The live array beside it; MISSING if that cannot take what was saved.
      is_shared: Whether others are places in it.
    """

    def __init__(self, number: int, node: Node, cls: type, live: Any) -> None:
        self.number, self.cls, self.live = number, cls, live
        self.content = node[1]
        self.is_shared = False
        self.is_writable = True

    def look(self, walk: Loading) -> None:
        name, self.is_writable, self.owner = self.content
        self.saved = walk.leaf(name)
        if not isinstance(self.saved, np.ndarray) or self.saved.dtype.hasobject:
            raise ValueError("another value in place of an array")
        self.shape, self.dtype = self.saved.shape, self.saved.dtype
        self.order: Any = "F" if memory.is_fortran(self.saved) else "C"

    def can_stay(self, owners: memory.Owners) -> bool:
        """Return whether the live array can take the elements in place."""
        live = self.live
        if live is MISSING or (live.shape, live.dtype) != (self.shape, self.dtype):
            return False
        if self.is_shared and not memory.is_order(live, self.order):
            return False
        if self.owner != owners.of(live):
            return False
        if live.flags.writeable:
            return True
        return not self.is_writable and self._is_equal(live)

    def _is_equal(self, live: Any) -> bool:
        return bool(live.tobytes() == self.saved.tobytes())

    def settle(self, walk: Loading, stays: bool) -> None:
        """Set the target: the live array, or a new one."""
        if stays:
            walk.targets[self.number] = self.live
            return
        if self.owner is not None:
            text = f"its memory belongs to {self.owner}, and there is no such array"
            walk.problem(self.number, f"{text} here; {HERE}")
        walk.targets[self.number] = self.make()

    def make(self) -> Any:
        """Return a new array."""
        made: Any = np.ndarray.__new__(
            self.cls, self.shape, self.dtype, order=self.order
        )
        made[...] = self.saved
        made.flags.writeable = self.is_writable
        return made

    def fill(self, walk: Loading) -> None:
        target = walk.targets[self.number]
        if target.flags.writeable:
            np.ndarray.__setitem__(target, ..., self.saved)
            if not self.is_writable:
                target.flags.writeable = False


class _Objects(_Elements):
    """An array of objects."""

    def look(self, walk: Loading) -> None:
        shape, order, self.items = self.content
        self.order: Any = order
        self.shape, self.dtype = tuple(shape), np.dtype(object)
        if self.order not in ("C", "F") or len(self.items) != np.prod(shape):
            raise ValueError("an array with more or fewer items")
        self.owner, now = None, []
        if self.live is not MISSING and self.live.shape == self.shape:
            now = self.live.ravel(order=self.order).tolist()
        for i, code in enumerate(self.items):
            there = now[i] if i < len(now) else MISSING
            self.items[i] = walk.visit(code, there, self.number, (i,))

    def _is_equal(self, live: Any) -> bool:
        return False

    def make(self) -> Any:
        return np.ndarray.__new__(self.cls, self.shape, object, order=self.order)

    def fill(self, walk: Loading) -> None:
        target = walk.targets[self.number]
        items: Any = np.empty(len(self.items), object)
        items[:] = [*map(walk.value, self.items)]
        items = items.reshape(self.shape, order=self.order)
        np.ndarray.__setitem__(target, ..., items)


class _Place(_Elements):
    """An array in the memory of another."""

    def look(self, walk: Loading) -> None:
        holder, size, self.offset, shape, strides, dtype = self.content
        self.shape, self.strides = tuple(shape), tuple(strides)
        self.dtype = np.dtype(object) if dtype is None else dtypes.decode(dtype)
        beside = memory.around(self.live, self.offset, size)
        self.holder = walk.visit(holder, beside, self.number, "base")
        if type(self.holder) is not list:
            raise ValueError("a place in what is not an array")

    def finish(self, walk: Loading) -> None:
        """Set the target: the live array if it is this place, or a new view."""
        holder, live = walk.value(self.holder), self.live
        if not isinstance(holder, np.ndarray):
            raise ValueError("a place in what is not an array")
        flat = holder.ravel(order="K")
        if self.dtype.hasobject != holder.dtype.hasobject:
            raise ValueError("objects in the memory of numbers")
        if not np.shares_memory(flat, holder) and holder.size:
            raise ValueError("a place in an array that is not in one piece")
        self.require_inside(flat.nbytes)
        is_here = live is not MISSING and (
            live.shape == self.shape
            and live.strides == self.strides
            and live.dtype == self.dtype
            and memory.address(live) == memory.address(flat) + self.offset
        )
        walk.targets[self.number] = live if is_here else self._view(flat)

    def require_inside(self, size: int) -> None:
        """Refuse a place that is not all in the memory.

        Raises:
          ValueError: it is not.
        """
        ends = [(n - 1) * s for n, s in zip(self.shape, self.strides, strict=True)]
        first = self.offset + sum(x for x in ends if x < 0)
        last = self.offset + sum(x for x in ends if x > 0) + self.dtype.itemsize
        if min(self.shape, default=1) < 1 or first < 0 or last > size:
            raise ValueError("a place outside of the memory")

    def _view(self, flat: Any) -> Any:
        if not self.dtype.hasobject:
            made = np.ndarray(
                self.shape, self.dtype, flat.view(np.uint8), self.offset, self.strides
            )
            return made if self.cls is np.ndarray else made.view(self.cls)
        if self.offset % flat.itemsize or any(x % flat.itemsize for x in self.strides):
            raise ValueError("a place between two objects")
        start = flat[self.offset // flat.itemsize :]
        made = np.lib.stride_tricks.as_strided(start, self.shape, self.strides)
        return made if self.cls is np.ndarray else made.view(self.cls)

    def fill(self, walk: Loading) -> None:
        pass


_KINDS = {"array": _Elements, "objects": _Objects, "place": _Place}


def settle(walk: Loading) -> None:
    """Decide which live arrays take what was saved in place, and make the others.

    An array that is live in the same memory as another one, from which it is apart in
    the save, is made anew.
    """
    holders = [x for x in walk.arrays.values() if type(x) is not _Place]
    places = [x for x in walk.arrays.values() if type(x) is _Place]
    for place in places:
        holder = walk.arrays.get(place.holder[0])
        if holder is None or type(holder) is _Place:
            raise ValueError("a place in what is not an array")
        holder.is_shared = True
    owners = memory.Owners(walk.targets)
    staying = [x for x in holders if x.can_stay(owners)]
    spans = [
        memory.Span(*memory.bounds(x.live), x.number, x.live)
        for x in staying
        if x.live.size
    ]
    taken: set[int] = set()
    for group in memory.groups(spans):
        taken.add(min(span.number for span in group))
    empty = {x.number for x in staying if not x.live.size}
    for holder in holders:
        holder.settle(walk, holder.number in taken or holder.number in empty)
    for place in places:
        place.finish(walk)


def arrange(walk: Any) -> None:
    """Say for each array that was met whether it is elements, or a place in another.

    Args:
      walk: The walk that saves, which has met all objects.
    """
    spans = [
        memory.Span(*memory.bounds(x), number, x) for number, x in walk.arrays if x.size
    ]
    owners = memory.Owners(walk.found)
    for number, array in walk.arrays:
        if not array.size:
            _hold(walk, number, array, owners)
    for group in memory.groups(spans):
        if len(group) == 1:
            _hold(walk, group[0].number, group[0].array, owners)
        else:
            _share(walk, sorted(group, key=lambda span: span.number), owners)


def _hold(walk: Any, number: int, array: Any, owners: memory.Owners) -> None:
    """Let an array hold its elements."""
    node = walk.nodes[number]
    if node is not None and node[0] == "array":
        leaf = array if type(array) is np.ndarray else array.view(np.ndarray)
        node[1] = [walk.leaf(number, leaf), array.flags.writeable, owners.of(array)]


def _share(walk: Any, group: Sequence[memory.Span], owners: memory.Owners) -> None:
    """Let one array of those in the same memory hold all of it."""
    start, stop = min(x.start for x in group), max(x.stop for x in group)
    holder = next((x for x in group if _is_all(x, start, stop)), None)
    if holder is None:
        held = memory.between(group, start, stop)
        if held is None:
            what = walk.names.path(group[0].number)
            problem = f"an array that shares memory with {what}, which no array holds"
            walk.refuse(group[1].number, Refused(problem))
            return
        number = walk.add(held, group[0].number, "base")
        walk.nodes[number] = ["array", None]
        holder = memory.Span(start, stop, number, held)
    _hold(walk, holder.number, holder.array, owners)
    for span in group:
        if span.number != holder.number:
            array = span.array
            offset = memory.address(array) - start
            place = [[holder.number], stop - start, offset]
            place += [list(array.shape), list(array.strides)]
            node = walk.nodes[span.number]
            if node is not None:
                code = None if array.dtype.hasobject else dtypes.encode(array.dtype)
                node[:2] = "place", [*place, code]


def _is_all(span: memory.Span, start: int, stop: int) -> bool:
    flags = span.array.flags
    is_whole = flags.c_contiguous or flags.f_contiguous
    return is_whole and (span.start, span.stop) == (start, stop)

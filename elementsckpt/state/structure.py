"""The structure of a state: what stays as long as only its leaves change.

Most states have at each save the structure that they had before. To see that takes a
look at types and keys, a level of containers at a time, in loops of C. Nothing is taken
for the same because an object is the same one: containers, and arrays, can be changed
in place.
"""

from __future__ import annotations

import collections
import operator
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, compress
from typing import Any

from msgspec import Struct

from ..format.manifest import Node
from ..kinds import leaves
from ..kinds.kind import Kind
from ..kinds.numpy_kinds import NUMPY
from ..user import attributes
from .flattening import Flat, is_one

_MOST_LEAVES = 100_000  # Of a structure that is kept: 160 to 320 bytes for each.
# Keys of these types are equal only if they are the same.
_KEYS = frozenset({str, int, bool, type(None)})


class Structure(Struct):
    """The containers of a state, without what is in its leaves.

    Each leaf and each container has one place; code, pickled leaves and ring buffers
    are not there.

    Attributes:
      names: Names of the leaves, as in `Flat`.
      kinds: Their kinds, which follow from their types.
      nodes: The containers, likewise.
      levels: The containers by their depth.
      arrays: Which leaves are arrays of NumPy; None for all.
      ones: Which others matter as objects, not as values.
      leaf_order: Where each leaf is among those found level by level; None for there.
      container_order: Likewise for containers.
    """

    names: list[str]
    kinds: list[Kind]
    nodes: list[Node]
    levels: list[_Level]
    arrays: list[int] | None
    ones: list[int]
    leaf_order: Sequence[int] | None
    container_order: Sequence[int] | None

    def flatten(self, state: Any) -> Flat | None:
        """Return what `flattening.flatten` would, or None if the structure differs.

        Arrays of NumPy that are met twice are there twice: ask `are_apart`.
        """
        if type(state) is not self.levels[0].cls:
            return None
        level = [state]
        containers: list[Any] = []
        values: list[Any] = []
        for known in self.levels:
            containers += level
            try:
                children = known.children(level)
            except _OtherError:
                return None
            level = list(compress(children, known.nested))
            are_leaves = map(operator.not_, known.nested)
            values += compress(children, are_leaves) if level else children
        values = _ordered(values, self.leaf_order)
        if not _are_others([*containers, *map(values.__getitem__, self.ones)]):
            return None
        return Flat(
            -len(self.nodes),
            self.nodes,
            _ordered(containers, self.container_order),
            self.names,
            self.kinds,
            values,
        )

    def are_apart(self, flat: Flat) -> bool:
        """Return whether no array of NumPy is met twice in what `flatten` returned."""
        values = flat.values
        return _are_others(
            values if self.arrays is None else [values[n] for n in self.arrays]
        )


def _are_others(objects: Sequence[Any]) -> bool:
    """Return whether no object is there twice."""
    return len({*map(id, objects)}) == len(objects)


class _OtherError(Exception):
    """A level has another structure."""


class _Level(Struct):
    """Containers of one depth.

    Attributes:
      cls: Type of the first container.
      views: What gives the children of each container; None for itself.
      sizes: How many children each has.
      keys: The keys of the mappings, one mapping after another.
      is_keyed: Which of the containers are mappings.
      types: The types of the children.
      nested: Which of these are containers; none if it is empty.
    """

    cls: type
    views: list[Callable[[Any], Any] | None]
    sizes: list[int]
    is_keyed: list[bool]
    keys: list[Any]
    types: list[type]
    nested: list[bool]

    def children(self, level: Sequence[Any]) -> list[Any]:
        """Return the children of containers of these types.

        Raises:
          _OtherError: they have others keys, or other types of children.
        """
        keys = list(chain.from_iterable(compress(level, self.is_keyed)))
        pairs = zip(self.views, level, strict=True)
        held = [x if view is None else view(x) for view, x in pairs]
        children = list(chain.from_iterable(held))
        is_same = (
            len(children) == len(self.types)
            and list(map(len, held)) == self.sizes
            and _are_same(map(type, children), self.types)
            and self._are_keys(keys)
        )
        if not is_same:
            raise _OtherError
        return children

    def _are_keys(self, keys: Sequence[Any]) -> bool:
        if len(keys) != len(self.keys):
            return False
        if _are_same(keys, self.keys):  # Most often, and sooner seen.
            return True
        types = map(type, keys)
        return _are_same(types, map(type, self.keys)) and keys == self.keys


def _are_same(types: Iterable[type], others: Iterable[type]) -> bool:
    return all(map(operator.is_, types, others))


def _ordered_values(value: Any) -> Any:
    if attributes.own(value):  # They are children, too.
        raise _OtherError
    return type(value).values(value)


# A dict can have no attributes, nor can a list.
_VIEWS: dict[type, Callable[[Any], Any] | None] = {
    dict: dict.values,
    list: None,
    tuple: None,
    collections.OrderedDict: _ordered_values,
}
_KEYED = frozenset({dict, collections.OrderedDict})


def of(flat: Flat) -> Structure | None:
    """Return the structure of a state, or None if it cannot be compared so."""
    is_tree = sum(len(x.children) for x in flat.nodes) + 1 == len(flat.nodes) + len(
        flat.names
    )
    are_plain = all(
        leaves.PLAIN.get(type(value)) is kind
        for value, kind in zip(flat.values, flat.kinds, strict=True)
    )
    if flat.root >= 0 or flat.rings or not is_tree or not are_plain:
        return None
    if len(flat.names) > _MOST_LEAVES:
        return None
    levels, numbers = [], [flat.root]
    leaf_order: list[int] = []
    container_order: list[int] = []
    while numbers:
        container_order += numbers
        level = _level(flat, numbers)
        if level is None:
            return None
        levels.append(level)
        children = [x for n in numbers for x in flat.nodes[~n].children]
        leaf_order += [n for n in children if n >= 0]
        numbers = [n for n in children if n < 0]
    kinds = flat.kinds
    ones = [n for n, x in enumerate(flat.values) if is_one(kinds[n], x)]
    arrays = [n for n in ones if kinds[n] is NUMPY]
    return Structure(
        flat.names,
        flat.kinds,
        flat.nodes,
        levels,
        None if len(arrays) == len(flat.names) else arrays,
        [n for n in ones if kinds[n] is not NUMPY],
        _inverse(leaf_order),
        _inverse([~n for n in container_order]),
    )


def _level(flat: Flat, numbers: Sequence[int]) -> _Level | None:
    containers = [flat.containers[~n] for n in numbers]
    nodes = [flat.nodes[~n] for n in numbers]
    types = [type(container) for container in containers]
    if not _VIEWS.keys() >= {*types} or any(node.attributes for node in nodes):
        return None
    # What a scalar is encoded as is the scalar itself if it has one of these types.
    keys = [key for node in nodes for key in node.keys]
    if not {*map(type, keys)} <= _KEYS:
        return None
    children = [n for node in nodes for n in node.children]
    return _Level(
        types[0],
        [_VIEWS[cls] for cls in types],
        [len(node.children) for node in nodes],
        [cls in _KEYED for cls in types],
        keys,
        [type(flat.object_at(n)) for n in children],
        [n < 0 for n in children] if min(children, default=0) < 0 else [],
    )


def _inverse(order: Sequence[int]) -> Sequence[int] | None:
    """Return the inverse of a permutation, None if it changes nothing."""
    found = [0] * len(order)
    for place, number in enumerate(order):
        found[number] = place
    return None if found == list(range(len(order))) else found


def _ordered(found: list[Any], order: Sequence[int] | None) -> list[Any]:
    return found if order is None else [found[place] for place in order]

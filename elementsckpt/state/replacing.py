"""Matched leaves → the current state with these leaves in it.

A component needs no support for this: its `load()` gets its own current state with the
matched leaves replaced. If all children of a container come from one container of the
save, it is loaded whole: it gets the attributes of the saved one, too. Otherwise it
keeps its own.
"""

from __future__ import annotations

import collections
import functools
import types
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import ReadError, reason
from ..format.manifest import Node
from ..kinds.numpy_kinds import NUMPY
from ..user import attributes
from . import containers, flattening, saved_tree, specs
from .matching import Plan

_NOTHING: Mapping[int, Any] = types.MappingProxyType({})


def apply(
    plan: Plan,
    values: Mapping[int, Any],
    key: str,
    shared: Collection[int] = (),
    *,
    places: Mapping[int, int] = _NOTHING,
    others: Mapping[int, Mapping[str, Any]] = _NOTHING,
) -> Any:
    """Return the current state with the planned leaves replaced.

    Args:
      plan: What to replace.
      values: Saved leaves by number, arrays as NumPy arrays; and saved containers that
        are also part of something else, which are used if they fit unchanged.
      key: The component's key, for errors.
      shared: Numbers of the saved leaves that share memory.
      places: The containers that are loaded whole, by number in `flat`, with their
        numbers in the save.
      others: The new attributes of some of these, by number in `flat`.

    Raises:
      ReadError: JAX cannot make a leaf.
    """
    flat, built = plan.flat, _fit(plan, values, key, shared)
    pairs = plan.replace if places else ()
    as_saved = {target for target, n in pairs if built[target] is values[n]}
    current = flat.object_at
    for index, node in enumerate(flat.nodes):
        number = ~index
        there = values.get(places[number]) if number in places else None
        is_one = type(there) is type(current(number))
        if is_one and as_saved.issuperset(node.children):
            built[number] = there
            as_saved.add(number)
        # A container without replaced leaves stays the same object.
        elif number in others or not built.keys().isdisjoint(node.children):
            children = [built[n] if n in built else current(n) for n in node.children]
            given = others.get(number)
            if given is not None:  # What it has no place for is left out.
                has_place = functools.partial(attributes.has_place, current(number))
                given = {name: x for name, x in given.items() if has_place(name)}
            built[number] = flat.rebuild(index, children, given)
    return built.get(flat.root, current(flat.root))


def _fit(
    plan: Plan, values: Mapping[int, Any], key: str, shared_memory: Collection[int]
) -> dict[int, Any]:
    """Return saved leaves, converted for those they replace, by number in `flat`."""
    counts = collections.Counter(number for _, number in plan.replace)
    shared: dict[Any, Any] = {}  # A leaf in several places stays one object if it can.
    taken: set[int] = set()
    built = {}
    for target, number in plan.replace:
        current, kind = plan.flat.values[target], plan.flat.kinds[target]
        value = values[number]
        is_shared = number in shared_memory and kind is not NUMPY
        if is_shared and isinstance(value, np.ndarray):
            value = value.copy()  # JAX and torch may keep the memory.
        is_one = counts[number] == 1
        place = number, None if is_one else specs.device_key(current, kind)
        if place not in shared:
            if number in taken and isinstance(value, np.ndarray):
                value = value.copy()  # JAX may use the memory of the other.
            taken.add(number)
            shared[place] = _fit_one(plan, target, value, key)
        built[target] = shared[place]
    return built


def _fit_one(plan: Plan, target: int, value: Any, key: str) -> Any:
    current, kind = plan.flat.values[target], plan.flat.kinds[target]
    try:
        return specs.fit(current, kind, value, plan.taken.get(target))
    except (ValueError, TypeError, RuntimeError) as error:
        current, kind = kind.unwrapped(current)
        where = kind.where(current)
        if where is None:
            raise
        name = saved_tree.full_name(key, plan.flat.names[target])
        raise ReadError(
            f"{name} cannot be put where the current one is, {where}: {reason(error)}. "
            f"Choose another device or sharding, or free memory of this one; nothing "
            f"was loaded."
        ) from error


# Containers that are loaded whole

_BOX: Any = object()  # Key of the content of a box.


class Structure(NamedTuple):
    """The children of each container of a state: numbers, as in `manifest.Node`.

    Attributes:
      root: The outermost container or leaf.
      held: The children of each container, without attributes, by name.
      attributes: The attributes of each container, by name.
    """

    root: int
    held: Sequence[Mapping[Any, int]]
    attributes: Sequence[Mapping[str, int]]


def describe(root: int, nodes: Sequence[Node], leaf_count: int) -> Structure:
    """Return the structure of a state.

    Raises:
      ValueError, TypeError, KeyError, IndexError: `flattening` makes no such state.
    """
    for number, node in enumerate(nodes):
        if not all(-number <= child < leaf_count for child in node.children):
            raise IndexError("a container holds what is not there")
    held, others = list(map(_held, nodes)), list(map(saved_tree.attributes_of, nodes))
    return Structure(root, held, others)


def _held(node: Node) -> dict[Any, int]:
    """Return the children of a node by name, without its attributes."""
    if node.kind == "" and node.children and not node.keys:
        return {_BOX: node.children[0]}
    keys = containers.child_keys(node)
    names = list(map(saved_tree.part, keys))
    if len({*names}) == len(names):
        return dict(zip(names, node.children, strict=False))
    typed = [(type(key), name) for key, name in zip(keys, names, strict=True)]
    return dict(zip(typed, node.children, strict=False))


def have_attributes(flat: flattening.Flat) -> bool:
    """Return whether some containers have attributes besides their children."""
    return any(map(flat.others, range(len(flat.nodes))))


def find_whole(plan: Plan, saved: Structure, *, is_part: bool) -> dict[int, int]:
    """Return the containers that are loaded whole, with their numbers in the save.

    Args:
      plan: What is loaded.
      saved: The structure of the saved state.
      is_part: Whether only some leaves were selected. Then a container without leaves
        is loaded only if a container around it is.
    """
    search = _Search(plan, saved)
    search.match()
    if is_part:
        search.leave_alone()
    found = search.found.items()
    return {now: then for now, then in found if now < 0 and then < 0}


class _Search:
    """Finds the saved containers of those that are loaded whole."""

    def __init__(self, plan: Plan, saved: Structure) -> None:
        self.found = dict(plan.replace)
        self._root = plan.flat.root
        self._held = [_held(node) for node in plan.flat.nodes]
        self._saved = saved
        self._around: dict[int, list[int]] = {}
        for number, items in enumerate(saved.held if plan.renamed else ()):
            for child in items.values():
                self._around.setdefault(child, []).append(~number)

    def match(self) -> None:
        places = self._places()
        for number, items in enumerate(self._held):
            place = places.get(~number)
            if _BOX in items:
                place = self.found.get(items[_BOX])
            elif place is None or not self._is_like(place, items):
                place = self._moved(items)
            if place is not None:
                self.found[~number] = place

    def _places(self) -> dict[int, int]:
        """Return the numbers that the save has in the places of containers."""
        places: dict[int, int] = {}
        stack = [(self._root, self._saved.root)]
        while stack:
            number, place = stack.pop()
            if number < 0:
                places[number] = place
                below = {} if place >= 0 else self._saved.held[~place]
                for name, child in self._held[~number].items():
                    if name is _BOX:  # The save does not have the box.
                        stack.append((child, place))
                    elif name in below:
                        stack.append((child, below[name]))
        return places

    def _is_like(self, place: int, items: Mapping[Any, int]) -> bool:
        """Return whether all children of a saved container are loaded into these."""
        if place >= 0:
            return False
        below = self._saved.held[~place]
        return below == {name: self.found.get(items[name]) for name in items}

    def _moved(self, items: Mapping[Any, int]) -> int | None:
        """Return the saved container of these items if it was renamed, or None."""
        thens = [self.found[child] for child in items.values() if child in self.found]
        around = self._around.get(thens[0], ()) if thens else ()
        return next((place for place in around if self._is_like(place, items)), None)

    def leave_alone(self) -> None:
        """Forget containers that hold no leaves, unless one around them is whole."""
        stack = [(self._root, False)]
        while stack:
            number, is_inside = stack.pop()
            if number < 0:
                items = self._held[~number]
                if not items and not is_inside:
                    self.found.pop(number, None)
                is_inside = number in self.found
                stack += [(child, is_inside) for child in items.values()]


def attributes_of_whole(
    plan: Plan, found: Mapping[int, int], saved: Structure, *, is_told: bool
) -> dict[int, Mapping[str, int]]:
    """Return the attributes of containers that are loaded whole.

    Args:
      plan: What is loaded.
      found: The containers, as from `find_whole`.
      saved: The structure of the saved state.
      is_told: Whether the save has all attributes, so that a container without any had
        none.

    Returns:
      For each container with attributes, saved or current, the saved numbers of their
      values by name.
    """
    others: dict[int, Mapping[str, int]] = {}
    for number, place in found.items():
        now, then = plan.flat.others(~number), saved.attributes[~place]
        if now is not None and (then or (now and is_told)):
            others[number] = then
    return others

"""Containers of a current state that are loaded whole, and their attributes.

Leaves are replaced one by one. If all children of a container come from one container
of the save, it gets the attributes of the saved one, too. Otherwise it keeps its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..format.manifest import Node, Tree
from . import containers, flattening, tree
from .matching import Plan

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


def describe(saved: Tree) -> Structure:
    """Return the structure of a saved state.

    Raises:
      ValueError, TypeError, KeyError, IndexError: `flattening` makes no such state.
    """
    count, held, attributes = len(tree.leaf_names(saved)), [], []
    for number, node in enumerate(saved.nodes):
        if not all(-number <= child < count for child in node.children):
            raise IndexError("a container holds what is not there")
        held.append(_held(node))
        attributes.append(tree.attributes_of(node))
    return Structure(saved.root, held, attributes)


def of_nodes(root: int, nodes: Sequence[Node]) -> Structure:
    """Return the structure of a current state, without its attributes."""
    return Structure(root, list(map(_held, nodes)), [])


def _held(node: Node) -> dict[Any, int]:
    """Return the children of a node by name, without its attributes."""
    is_box = node.kind == "" and node.children and not node.keys
    names = [_BOX] if is_box else map(tree.part, containers.child_keys(node))
    return dict(zip(names, node.children, strict=False))


def have_attributes(flat: flattening.Flat) -> bool:
    """Return whether some containers have attributes besides their children."""
    return any(map(flat.others, range(len(flat.nodes))))


def find(plan: Plan, saved: Structure, *, is_part: bool) -> dict[int, int]:
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
        below = {} if place >= 0 else self._saved.held[~place]
        return (
            place < 0
            and below.keys() == items.keys()
            and all(self.found.get(items[name]) == below[name] for name in items)
        )

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


def attributes(
    plan: Plan, found: Mapping[int, int], saved: Structure, *, is_told: bool
) -> dict[int, Mapping[str, int]]:
    """Return the attributes of containers that are loaded whole.

    Args:
      plan: What is loaded.
      found: The containers, as from `find`.
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

"""Containers of a current state that are loaded whole, and their attributes then.

Leaves are put in place one by one. A container of which all comes from one container of
the save has the attributes of that; any other keeps what it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..format.manifest import Node, Tree
from . import containers, flattening, tree
from .matching import Plan

_BOX: Any = object()  # What the content of a box is called in it.


class Structure(NamedTuple):
    """What the containers of a saved state hold: numbers, as in `manifest.Node`.

    Attributes:
      root: The outermost container or leaf.
      held: For each container what it holds, by name.
      attributes: For each container its attributes, by name.
    """

    root: int
    held: Sequence[Mapping[Any, int]]
    attributes: Sequence[Mapping[str, int]]


def describe(saved: Tree) -> Structure:
    """Return the structure of a saved state.

    Raises:
      ValueError, TypeError, KeyError, IndexError: it is not what `flattening` makes.
    """
    count, held, attributes = len(tree.leaf_names(saved)), [], []
    for number, node in enumerate(saved.nodes):
        if not all(-number <= child < count for child in node.children):
            raise IndexError("a container holds what is not there")
        held.append(_held(node))
        attributes.append(tree.attributes_of(node))
    return Structure(saved.root, held, attributes)


def of_nodes(root: int, nodes: Sequence[Node]) -> Structure:
    """Return the structure of a state that is there, without its attributes."""
    return Structure(root, list(map(_held, nodes)), [])


def _held(node: Node) -> dict[Any, int]:
    """Return what a node holds, by name; attributes come after that."""
    is_box = node.kind == "" and node.children and not node.keys
    names = [_BOX] if is_box else map(tree.part, containers.child_keys(node))
    return dict(zip(names, node.children, strict=False))


def have_attributes(flat: flattening.Flat) -> bool:
    """Return whether some containers have attributes beside what they hold."""
    return any(map(flat.others, range(len(flat.nodes))))


def find(plan: Plan, saved: Structure, *, is_part: bool) -> dict[int, int]:
    """Return the containers that are loaded whole, and what they are in the save.

    Args:
      plan: What is loaded.
      saved: The structure of the saved state.
      is_part: Whether only a part was asked for; a container without leaves is in it if
        one around it is.
    """
    search = _Search(plan, saved)
    search.match()
    if is_part:
        search.leave_alone()
    found = search.found.items()
    return {now: then for now, then in found if now < 0 and then < 0}


class _Search:
    """Finds for what is loaded whole what it is in the save."""

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
        """Return what the save has in the places of containers."""
        places: dict[int, int] = {}
        stack = [(self._root, self._saved.root)]
        while stack:
            number, place = stack.pop()
            if number < 0:
                places[number] = place
                below = {} if place >= 0 else self._saved.held[~place]
                for name, child in self._held[~number].items():
                    if name is _BOX:  # It is not in the save.
                        stack.append((child, place))
                    elif name in below:
                        stack.append((child, below[name]))
        return places

    def _is_like(self, place: int, items: Mapping[Any, int]) -> bool:
        """Tell whether a saved container is what is loaded into these items."""
        below = {} if place >= 0 else self._saved.held[~place]
        return (
            place < 0
            and below.keys() == items.keys()
            and all(self.found.get(items[name]) == below[name] for name in items)
        )

    def _moved(self, items: Mapping[Any, int]) -> int | None:
        """Return what is like these items and was renamed to their place."""
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
      is_told: Whether what has no attributes there had none when it was saved.

    Returns:
      The numbers of their values in the save, for those that take attributes and have
      some, then or now.
    """
    others: dict[int, Mapping[str, int]] = {}
    for number, place in found.items():
        now, then = plan.flat.others(~number), saved.attributes[~place]
        if now is not None and (then or (now and is_told)):
            others[number] = then
    return others

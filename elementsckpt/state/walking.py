"""Walks through a saved tree: a leaf in several places has several names."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from msgspec import Struct, structs

from ..errors import MismatchError
from ..format.manifest import Node, Tree, escape
from . import containers, saved_tree
from .same_names import Keys

_PLACE_BYTES = 64  # Memory of a place, besides its name,
_LEVEL_BYTES = 24  # and of each container around it.


class Allowance(Struct):
    """How many bytes the names of places in a save may still take."""

    left: int = 64 << 20

    def spend(self, name: str, depth: int) -> None:
        """Count a name, and the containers around the place that it names.

        Raises:
          MismatchError: there are too many names, or too long ones.
        """
        self.left -= _PLACE_BYTES + len(name) + _LEVEL_BYTES * depth
        if self.left < 0:
            raise MismatchError(
                "the same containers appear in too many places, or too deep ones, for "
                "their leaves to be selected by name. Load it whole, without regex=; "
                "nothing was loaded."
            )


class Place(NamedTuple):
    """The place of a leaf, or of a container, in a tree.

    Attributes:
      number: Its number, as in `manifest.Node`.
      nodes: The containers around it, the outermost first, and itself if it is a
        container; without their attributes.
      keys: Keys, field names or positions that lead to it, the outermost first.
      others: The attributes of each of `nodes`, as numbers by name.
    """

    number: int
    nodes: tuple[Node, ...]
    keys: tuple[Any, ...]
    others: tuple[Mapping[str, int], ...]


def names(saved: Tree, allowance: Allowance) -> list[tuple[str, int]]:
    """Return the name and number of each leaf, several for a leaf in several places.

    Args:
      saved: The tree.
      allowance: How much the names may cost.

    Raises:
      MismatchError: there are too many places; the message begins in mid-sentence.
      ValueError, IndexError: `flattening` does not make such a structure.
    """
    count = sum(len(node.children) for node in saved.nodes) + 1
    found = saved_tree.leaf_names(saved)
    without = saved_tree.hidden(saved)
    if count == len(found) - len(without) + len(saved.nodes):
        numbered = zip(found, itertools.count(), strict=False)
        return [(name, number) for name, number in numbered if number not in without]
    return [(name, number) for name, number, _ in keys(saved, allowance)]


def all_names(saved: Tree, allowance: Allowance) -> Iterator[tuple[str, int]]:
    """Yield names and numbers of all places, also in attributes, as far as allowed."""
    with contextlib.suppress(MismatchError):
        for name, place in _walk(saved, allowance, attributes=True):
            yield name, place.number


def container_names(saved: Tree, allowance: Allowance) -> dict[int, str]:
    """Return the first name of each container by its number, as far as allowed."""
    found: dict[int, str] = {}
    for name, number in all_names(saved, allowance):
        found.setdefault(number, name)
    return found


def keys(saved: Tree, allowance: Allowance) -> Iterator[tuple[str, int, Keys]]:
    """Yield the name and number of each leaf, and the keys that lead to it.

    Raises:
      MismatchError, ValueError, IndexError: as for `names`.
    """
    for name, place in _walk(saved, allowance):
        if place.number >= 0:
            yield name, place.number, place.keys


def places(saved: Tree, allowance: Allowance) -> Iterator[tuple[str, Place]]:
    """Yield name and place of each leaf and each container without children.

    Raises:
      MismatchError, ValueError, IndexError: as for `names`.
    """
    for name, place in _walk(saved, allowance):
        if place.number >= 0 or not place.nodes[-1].children:
            yield name, place


def _walk(
    saved: Tree, allowance: Allowance, *, attributes: bool = False
) -> Iterator[tuple[str, Place]]:
    """Yield name and place of containers and leaves, optionally in attributes, too."""
    # Containers that hold others twice double the places at each level.
    listed = saved_tree.leaf_names(saved)
    allowance.left += 10 * (sum(map(len, listed)) + _PLACE_BYTES * len(listed))
    stack: list[tuple[str, Place]] = [("", Place(saved.root, (), (), ()))]
    while stack:
        name, place = stack.pop()
        number, nodes, keys, others = place
        if number >= 0:
            yield escape(name), place
            continue
        node = saved.nodes[~number]
        held = node.children[: saved_tree.held(node)]
        nodes = (*nodes, structs.replace(node, children=held, attributes=[]))
        others = (*others, saved_tree.attributes_of(node))
        yield escape(name), Place(number, nodes, keys, others)
        pairs = list(zip(containers.child_keys(node), held, strict=True))
        if attributes:
            pairs += [(f".{other}", child) for other, child in others[-1].items()]
        prefix = f"{name}/" if name else ""
        for key, child in reversed(pairs):
            if child < 0 and child <= number:
                raise ValueError("a container comes before what it holds")
            below = prefix + saved_tree.part(key)
            allowance.spend(below, len(nodes))
            stack.append((below, Place(child, nodes, (*keys, key), others)))

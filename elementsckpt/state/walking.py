"""Walks through a saved tree: a leaf in several places has several names."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from msgspec import Struct, structs

from ..errors import MismatchError
from ..format import scalars
from ..format.manifest import Node, Tree, escape
from . import containers, tree
from .homonyms import Keys

_PLACE_BYTES = 64  # Memory of a place, besides its name.


class Allowance(Struct):
    """How many bytes the names of places in a save may still take."""

    left: int = 64 << 20

    def spend(self, name: str) -> None:
        """Count a name.

        Raises:
          MismatchError: there are too many names, or too long ones.
        """
        self.left -= _PLACE_BYTES + len(name)
        if self.left < 0:
            raise MismatchError(
                "the same containers appear in too many places, or too deep ones, for "
                "their leaves to be selected by name. Load it whole, without regex=; "
                "nothing was loaded."
            )


def names(saved: Tree, allowance: Allowance) -> list[tuple[str, int]]:
    """Return the name and number of each leaf, several for a leaf in several places.

    Args:
      saved: The tree.
      allowance: How much the names may cost.

    Raises:
      MismatchError: there are too many places; the message begins in mid-sentence.
      ValueError, IndexError: `flattening` does not make such a structure.
    """
    places = sum(len(node.children) for node in saved.nodes) + 1
    found = tree.leaf_names(saved)
    without = tree.hidden(saved)
    if places == len(found) - len(without) + len(saved.nodes):
        numbered = zip(found, itertools.count(), strict=False)
        return [(name, number) for name, number in numbered if number not in without]
    walk = _walk(saved, allowance)
    return [(name, number) for name, number in walk if number >= 0]


def all_names(saved: Tree, allowance: Allowance) -> Iterator[tuple[str, int]]:
    """Yield names and numbers of leaves, also in attributes, as far as allowed."""
    with contextlib.suppress(MismatchError):
        walk = _walk(saved, allowance, attributes=True)
        yield from ((name, number) for name, number in walk if number >= 0)


def container_names(saved: Tree, allowance: Allowance) -> dict[int, str]:
    """Return the first name of each container by its number, as far as allowed."""
    found: dict[int, str] = {}
    with contextlib.suppress(MismatchError):
        for name, number in _walk(saved, allowance, attributes=True):
            if number < 0:
                found.setdefault(number, name)
    return found


def _walk(
    saved: Tree, allowance: Allowance, *, attributes: bool = False
) -> Iterator[tuple[str, int]]:
    """Yield name and number of containers and leaves, optionally in attributes, too."""
    # Containers that hold others twice double the places at each level.
    listed = tree.leaf_names(saved)
    allowance.left += 10 * (sum(map(len, listed)) + _PLACE_BYTES * len(listed))
    stack = [("", saved.root)]
    while stack:
        name, number = stack.pop()
        yield escape(name), number
        if number >= 0:
            continue
        node = saved.nodes[-number - 1]
        prefix = f"{name}/" if name else ""
        names = list(map(tree.part, containers.child_keys(node)))
        names += [f".{name}" for name in scalars.decode_keys(node.attributes)]
        pairs = list(zip(names, node.children, strict=True))
        for below, child in reversed(pairs if attributes else pairs[: tree.held(node)]):
            if child < 0 and child <= number:
                raise ValueError("a container comes before what it holds")
            allowance.spend(prefix + below)
            stack.append((prefix + below, child))


def keys(saved: Tree, allowance: Allowance) -> Iterator[tuple[str, int, Keys]]:
    """Yield the name and number of each leaf, and the keys that lead to it.

    Raises:
      MismatchError, ValueError, IndexError: as for `places`.
    """
    for name, place in places(saved, allowance):
        if place.number >= 0:
            yield name, place.number, place.keys


class Place(NamedTuple):
    """The place of a leaf, or of a container without children, in a tree.

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


def places(saved: Tree, allowance: Allowance) -> Iterator[tuple[str, Place]]:
    """Yield name and place of each leaf and each container without children.

    Raises:
      MismatchError: there are too many places, as for `names`.
      ValueError, IndexError: `flattening` does not make such a structure.
    """
    listed = tree.leaf_names(saved)
    allowance.left += 10 * (sum(map(len, listed)) + _PLACE_BYTES * len(listed))
    stack: list[tuple[str, Place]] = [("", Place(saved.root, (), (), ()))]
    while stack:
        name, (number, nodes, keys, others) = stack.pop()
        if number < 0:
            node = saved.nodes[-number - 1]
            held = node.children[: tree.held(node)]
            nodes = (*nodes, structs.replace(node, children=held, attributes=[]))
            others = (*others, tree.attributes_of(node))
        if number >= 0 or not nodes[-1].children:
            yield escape(name), Place(number, nodes, keys, others)
            continue
        node, prefix = nodes[-1], f"{name}/" if name else ""
        pairs = list(zip(containers.child_keys(node), node.children, strict=True))
        for key, child in reversed(pairs):
            if child < 0 and child <= number:
                raise ValueError("a container comes before what it holds")
            below = prefix + tree.part(key)
            allowance.spend(below)
            stack.append((below, Place(child, nodes, (*keys, key), others)))

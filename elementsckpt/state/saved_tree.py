"""The leaves of a saved tree by number, and which leaves others are made from."""

from __future__ import annotations

import bisect
import itertools
import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..format import scalars
from ..format.manifest import LeafGroup, Node, Tree
from ..kinds import leaves


def part(key: Any) -> str:
    """Return the part of a name for a key, field name or position."""
    if type(key) is str:
        return key
    try:
        return str(key)
    except ValueError:  # Python limits the digits of an int in decimal.
        return hex(key) if isinstance(key, int) else type(key).__name__


def names_below(name: str, keys: Iterable[Any]) -> list[str]:
    """Return the names of what has these keys in a container of this name."""
    prefix = f"{name}/" if name else ""
    return [prefix + (key if type(key) is str else part(key)) for key in keys]


def full_name(key: str, name: str) -> str:
    """Return the name of a leaf, or of a container, with its component's key."""
    return f"{key}/{name}" if name else key


_HOLDERS = frozenset({"pickle", "view"})  # Kinds whose leaves are made from others.


def leaf_names(tree: Tree) -> list[str]:
    """Return the name of each leaf, by number."""
    return [name for group in tree.leaves for name in group.names]


def hidden(tree: Tree) -> set[int]:
    """Return the numbers of the leaves that cannot be selected by name.

    They are parts of pickles, memory of views, or in attributes of containers.
    """
    odd = not _HOLDERS.isdisjoint(map(_kind_of, tree.leaves))
    if not odd and not any(node.attributes for node in tree.nodes):
        return set()
    placed = {tree.root}
    for number, node in enumerate(reversed(tree.nodes), -len(tree.nodes)):
        if number in placed:
            placed.update(node.children[: held(node)])
    return {*range(sum(len(group.names) for group in tree.leaves))} - placed


def held(node: Node) -> int:
    """Return how many of a node's children are not attributes; these come first."""
    return len(node.children) - len(node.attributes)


def held_elsewhere(tree: Tree) -> set[int]:
    """Return the numbers of the leaves in pickles or in attributes of containers."""
    holding = [part for parts in _parts_by_pickle(tree).values() for part in parts]
    for node in tree.nodes:
        holding += node.children[held(node) :]
    return {number for number in needed(tree, holding) if number >= 0}


def attributes_of(node: Node) -> dict[str, int]:
    """Return the numbers of a node's attributes, by name."""
    last = node.children[held(node) :]
    return dict(zip(scalars.decode_keys(node.attributes), last, strict=True))


def has_pickles(tree: Tree) -> bool:
    """Return whether some leaves are pickled."""
    return "pickle" in map(_kind_of, tree.leaves)


_kind_of = operator.attrgetter("kind")
_names_of = operator.attrgetter("names")


def _parts_by_pickle(tree: Tree) -> dict[int, Sequence[int]]:
    """Return the parts of each pickled leaf: numbers of leaves and containers."""
    if not has_pickles(tree):
        return {}
    return {
        first + index: parts
        for first, group in numbered(tree)
        if group.kind == "pickle"
        for index, parts in enumerate(group.value)
    }


def pickled_names(tree: Tree) -> list[str]:
    """Return the names of the leaves that are pickled."""
    pickles = _parts_by_pickle(tree)
    if not pickles:
        return []
    placed = {tree.root, *(child for node in tree.nodes for child in node.children)}
    names = leaf_names(tree)
    return [names[number] for number in pickles if number in placed]


def needed(tree: Tree, numbers: Iterable[int]) -> list[int]:
    """Return leaves and everything that they are made from, each after what it needs.

    Pickled leaves are made from other leaves and from containers.

    Raises:
      ValueError: a pickle is made from itself.
      IndexError: there is no such container.
    """
    pickles = _parts_by_pickle(tree)
    begun: set[int] = set()
    done: dict[int, None] = {}
    stack = list(numbers)
    if not pickles and min(stack, default=0) >= 0:  # The most frequent case.
        return list(dict.fromkeys(stack))
    while stack:
        number = stack[-1]
        if number in begun:
            stack.pop()
            done[number] = None
            continue
        begun.add(number)
        is_leaf = number >= 0
        parts = pickles.get(number, ()) if is_leaf else tree.nodes[~number].children
        below = [part for part in parts if part not in done]
        if not begun.isdisjoint(below):
            raise ValueError("a pickle is made from itself")
        stack += below
    return list(done)


def numbered(tree: Tree) -> Iterator[tuple[int, LeafGroup]]:
    """Yield the number of the first leaf of each group, and the group."""
    number = 0
    for group in tree.leaves:
        yield number, group
        number += len(group.names)


def pick(tree: Tree, numbers: Iterable[int]) -> list[tuple[int, LeafGroup]]:
    """Return some leaves in groups, with the number of the first of each group.

    Raises:
      IndexError, ValueError, TypeError, KeyError: the tree has no such leaf.
    """
    wanted = sorted(set(numbers))
    if wanted and wanted[0] < 0:
        raise IndexError("a leaf has a negative number")
    picked: list[tuple[int, LeafGroup]] = []
    counts = map(len, map(_names_of, tree.leaves))
    firsts = [0, *itertools.accumulate(counts)]
    position = 0
    while position < len(wanted) and wanted[position] < firsts[-1]:
        place = bisect.bisect_right(firsts, wanted[position]) - 1
        first, stop = firsts[place : place + 2]
        group, end = tree.leaves[place], bisect.bisect_left(wanted, stop, position)
        if end - position == stop - first:
            picked.append((first, group))
        else:
            picked += _runs(first, group, wanted[position:end])
        position = end
    if position < len(wanted):
        raise IndexError("there is no leaf with this number")
    return picked


def _runs(
    first: int, group: LeafGroup, wanted: Sequence[int]
) -> Iterator[tuple[int, LeafGroup]]:
    """Yield some leaves of a group, as groups of consecutive leaves."""
    for _, run in itertools.groupby(enumerate(wanted), lambda x: x[1] - x[0]):
        numbers = [number for _, number in run]
        start, stop = numbers[0] - first, numbers[-1] - first + 1
        yield numbers[0], leaves.part(group, start, stop)


def numbers_in(picked: Iterable[tuple[int, LeafGroup]]) -> Iterator[int]:
    """Yield the numbers of the leaves in groups that come with their first number."""
    for first, group in picked:
        yield from range(first, first + len(group.names))

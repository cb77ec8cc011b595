"""Finds places in a current state for saved leaves that it does not have yet.

An optimizer makes its state at its first step. So a fresh one has no leaves that saved
leaves could be compared with, or could replace.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..format.manifest import Node
from ..kinds import leaves
from ..user import attributes
from . import containers, matching, saved_tree
from .containers import MAPPINGS, SEQUENCES
from .selection import Selection
from .walking import Place


class _Found(NamedTuple):
    """A place, its new name, and the number of keys up to the first missing object."""

    place: Place
    name: str
    begin: int


def find(
    plan: matching.Plan,
    places: Iterable[tuple[str, Place]],
    selection: Selection,
    *,
    is_complete: bool,
) -> None:
    """Find places in the current state for leaves that it does not have yet.

    A leaf can go to a new key of a mapping, into an empty list, or in place of None.
    Empty containers that the state lacks are added, too.

    Args:
      plan: The plan, which is changed.
      places: Places in the saved state, with their names.
      selection: Which leaves to load.
      is_complete: Whether the outermost mapping cannot get new keys.
    """
    old_names = {new: old for old, new in plan.renamed.items()}
    left = {(old_names.get(new, new), n): new for new, n in plan.left}
    state = plan.flat.object_at(plan.flat.root)
    found: list[_Found] = []
    for name, place in places:
        new = left.get((name, place.number))
        if place.number < 0 and selection.matches(name):
            new = selection.renamed(name)
        moved = None if new is None else _moved(place, name, new)
        if new is None or moved is None:
            continue
        begin = _begin(state, moved, is_complete=is_complete)
        if begin is not None:
            found.append(_Found(moved, new, begin))
    _note(plan, _of_whole_lists(found))


def _moved(place: Place, old: str, new: str) -> Place | None:
    """Return a place under its new name, or None if more than one key differs."""
    if old == new:
        return place
    for index, key in reversed(list(enumerate(place.keys))):
        before, after = place.keys[:index], place.keys[index + 1 :]
        start = "".join(f"{saved_tree.part(x)}/" for x in before)
        end = "".join(f"/{saved_tree.part(x)}" for x in after)
        middle = new[len(start) : len(new) - len(end)]
        is_other = new == f"{start}{middle}{end}" and middle
        if is_other and place.nodes[index].kind in MAPPINGS:
            if type(key) is str and ("/" in key or "/" not in middle):
                return place._replace(keys=(*before, middle, *after))
            if type(key) is int and middle.isdecimal():
                return place._replace(keys=(*before, int(middle), *after))
    return None


def _begin(state: Any, place: Place, *, is_complete: bool) -> int | None:
    """Return the number of keys up to the first missing object, or None."""
    for depth, (node, key) in enumerate(zip(place.nodes, place.keys, strict=False)):
        kind = containers.kind_of(state)
        if leaves.is_vacant(state) or (kind in SEQUENCES and not len(state)):
            return _unless_named(place, depth)
        if kind in MAPPINGS and node.kind in MAPPINGS:
            if key not in state:
                is_closed = is_complete and not depth
                return None if is_closed else _unless_named(place, depth + 1)
        elif kind not in SEQUENCES or kind != node.kind or key >= len(state):
            return None
        state = state[key]
    return _unless_named(place, len(place.keys)) if leaves.is_vacant(state) else None


def _unless_named(place: Place, begin: int) -> int | None:
    """Return where new containers begin, or None if one of them has a class."""
    kinds = {node.kind for node in place.nodes[begin:]}
    return None if kinds & containers.NAMED else begin


def _of_whole_lists(found: list[_Found]) -> list[_Found]:
    """Return the places that are not in new lists with missing items."""
    counts: dict[tuple[Any, ...], set[Any]] = {}
    for place, _, begin in found:
        for depth in range(begin, len(place.keys)):
            counts.setdefault(place.keys[:depth], set()).add(place.keys[depth])

    def is_whole(place: Place, depth: int) -> bool:
        node = place.nodes[depth]
        items = counts[place.keys[:depth]]
        return node.kind in MAPPINGS or len(items) == len(node.children)

    kept = [
        x
        for x in found
        if all(is_whole(x.place, depth) for depth in range(x.begin, len(x.place.keys)))
    ]
    return kept if len(kept) == len(found) else _of_whole_lists(kept)


def _note(plan: matching.Plan, found: Sequence[_Found]) -> None:
    plan.added = [place for place, _, _ in found]
    placed = {(name, place.number) for place, name, _ in found}
    plan.loaded += [name for name, number in plan.left if (name, number) in placed]
    left = [name for name, number in plan.left if (name, number) not in placed]
    plan.unexpected = [name for name in left if name not in plan.problems]
    plan.problems = {
        name: problem
        for name, problem in plan.problems.items()
        if name in left or name not in dict(plan.left)
    }
    # Values of None that they replace are not missing.
    filled = {"/".join(map(saved_tree.part, x.place.keys[: x.begin])) for x in found}
    plan.missing = [name for name in plan.missing if name not in filled]


def grow(state: Any, places: Sequence[Place], values: Mapping[int, Any]) -> Any:
    """Return a state with leaves in places that `find` found.

    Args:
      state: The current state, which does not change. Containers without new leaves are
        part of the new state.
      places: The places.
      values: The leaves, and known attributes of containers, by number.
    """
    return _grown(state, places, 0, values)


def _grown(
    state: Any, places: Sequence[Place], depth: int, values: Mapping[int, Any]
) -> Any:
    first = places[0]
    if len(first.keys) == depth:
        if first.number >= 0:
            return values[first.number]
        made = containers.put_together(first.nodes[depth], [], None)
        return _noted(made, first, depth, values)
    below: dict[Any, list[Place]] = {}
    for place in places:
        below.setdefault(place.keys[depth], []).append(place)
    kind = containers.kind_of(state)
    is_whole = len(below) == len(first.nodes[depth].children)
    if leaves.is_vacant(state) or (kind in SEQUENCES and not len(state)):
        items = {key: _grown(None, x, depth + 1, values) for key, x in below.items()}
        made = _made(first.nodes[depth], items)
        return _noted(made, first, depth, values) if is_whole else made
    other = list(state) if kind == "tuple" else copy.copy(state)
    attributes.give(other, attributes.own(state))  # Some copies lack them.
    for key, some in below.items():
        there = None if kind in MAPPINGS and key not in state else state[key]
        other[key] = _grown(there, some, depth + 1, values)
    if is_whole and not len(state):
        return _noted(other, first, depth, values)
    return tuple(other) if kind == "tuple" else other


def _noted(made: Any, place: Place, depth: int, values: Mapping[int, Any]) -> Any:
    """Return a container with the attributes that the saved one had."""
    if attributes.takes(made):
        there = {x: values[n] for x, n in place.others[depth].items() if n in values}
        attributes.give(made, there)
    return made


def _made(node: Node, items: Mapping[Any, Any]) -> Any:
    """Return a container like a saved one with these items."""
    keys = list(items) if node.kind in MAPPINGS else containers.child_keys(node)
    like = Node(node.kind, keys=containers.encode_keys(keys), value=node.value)
    return containers.put_together(like, [items[key] for key in keys], None)

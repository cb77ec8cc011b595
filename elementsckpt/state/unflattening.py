"""Structure and leaves → nested state, or a part of it."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import structs

from ..format import scalars
from ..format.manifest import Node
from . import containers, saved_tree

LEFT_OUT: Any = object()  # In place of a state without any leaf that is read.


def unflatten(
    root: int,
    nodes: Sequence[Node],
    values: Sequence[Any],
    find_class: Callable[[int, Node], type | None],
    made: Mapping[int, Any] = types.MappingProxyType({}),
) -> Any:
    """Build a state.

    Args:
      root: As in `flattening.Flat`.
      nodes: Containers, children first.
      values: The leaves.
      find_class: Returns the class for a node of kind namedtuple, dataclass or
        frozen, or None for a dict.
      made: Containers that exist already, by their numbers.

    Raises:
      ValueError, TypeError, KeyError, IndexError: `flattening` makes no such nodes.
    """
    check(nodes)
    built = dict(made)
    for number in range(len(nodes)):
        if ~number not in built:
            built[~number] = put(nodes, number, values, built, find_class)
    return values[root] if root >= 0 else built[root]


def put(
    nodes: Sequence[Node],
    index: int,
    values: Any,
    made: Mapping[int, Any],
    find_class: Callable[[int, Node], type | None],
) -> Any:
    """Build one container.

    Args:
      nodes: Containers.
      index: The position of the container in `nodes`.
      values: The leaves in it, by number.
      made: The containers in it, by number.
      find_class: As for `unflatten`.
    """
    node = nodes[index]
    children = [values[n] if n >= 0 else made[n] for n in node.children]
    cls = find_class(index, node) if node.kind in containers.NAMED else None
    return containers.put_together(node, children, cls)


def unflatten_some(root: int, nodes: Sequence[Node], values: Mapping[int, Any]) -> Any:
    """Build the part of a state that holds some of its leaves.

    Args:
      root: As in `flattening.Flat`.
      nodes: Containers, children first.
      values: The leaves, by number.

    Returns:
      Nested dicts and complete sequences; an incomplete sequence becomes a dict by
      position. None without any leaf. Attributes of containers are left out.
    """
    check(nodes)
    built: dict[int, Any] = dict(values)
    for number, node in enumerate(nodes):
        names = containers.child_keys(node)
        keys, children = _there(names, node.children[: saved_tree.held(node)], built)
        if not keys:
            continue
        items = [built[child] for child in children]
        if len(keys) == len(names) and node.kind not in containers.NAMED:
            bare = structs.replace(node, attributes=[])
            built[~number] = containers.put_together(bare, items, None)
        else:
            built[~number] = scalars.build_dict(keys, items)
    return built.get(root)


def unflatten_rest(root: int, nodes: Sequence[Node], values: Mapping[int, Any]) -> Any:
    """Build a state without some of its leaves.

    Args:
      root: As in `flattening.Flat`.
      nodes: Containers, children first.
      values: The leaves that are there, by number.

    Returns:
      The state, without classes. Missing leaves are absent from mappings and None in
      sequences, so that other items keep their positions. `LEFT_OUT` if the state is a
      missing leaf itself.
    """
    check(nodes)
    built: dict[int, Any] = dict(values)
    for number, node in enumerate(nodes):
        count = saved_tree.held(node)
        keys, held = node.keys, node.children[:count]
        if keys:
            keys, held = _there(keys, held, built)
        names, others = _there(node.attributes, node.children[count:], built)
        children = [*held, *others]
        bare = structs.replace(node, keys=keys, children=children, attributes=names)
        items = [built.get(child) for child in children]
        built[~number] = containers.put_together(bare, items, None)
    return built.get(root, LEFT_OUT)


def _there(
    keys: list[Any], children: list[int], built: Mapping[int, Any]
) -> tuple[list[Any], list[int]]:
    """Return the children that are there, with their keys."""
    pairs = zip(keys, children, strict=True)
    there = [(key, child) for key, child in pairs if child in built]
    return [key for key, _ in there], [child for _, child in there]


def check(nodes: Sequence[Node]) -> None:
    """Refuse harmful structures, which `flattening` does not make.

    Raises:
      ValueError: generators share a state, or containers are nested so deeply that
        freeing them would overflow the stack.
    """
    states: set[int] = set()
    levels: dict[int, int] = {}
    for number, node in enumerate(nodes, 1):
        if node.kind in containers.RANDOM:
            inner = {child for child in node.children if child < 0}
            if states & inner:
                raise ValueError("two generators share their state")
            states |= inner
        elif node.kind in containers.FRAGILE:
            level = 1 + max((levels.get(n, 0) for n in node.children), default=0)
            if level > _MOST_LEVELS:
                raise ValueError(f"a {node.kind} nested more than {_MOST_LEVELS} times")
            levels[-number] = level


_MOST_LEVELS = 1000  # Python's recursion limit stops deeper ones from being saved.

"""Pytrees, opened node by node: for saving as plain containers, for loading as leaves.

JAX opens the classes that are registered with it. Static parts and code, such as an
activation function, are neither saved nor loaded: they come from the template of a
load. But the arrays that code is bound to are leaves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import field

from ..format.manifest import Node
from ..kinds import classes, leaves
from ..kinds.code_kinds import FUNCTION
from . import callables, containers, flattening, tree
from .homonyms import Keys
from .opening import OPENERS, Opened, dataclass, namedtuple, stateful, unique
from .registered import is_registered, open_registered


class Flat(flattening.Flat):
    """A flattened tree, whose nodes have only keys and children."""

    opened: list[Opened] = field(default_factory=list)

    def _keys_in(self, number: int) -> list[Keys]:
        node = self.nodes[number]  # A box adds no key.
        return [(key,) for key in node.keys] or [()] * len(node.children)

    def others(self, number: int) -> Mapping[str, Any] | None:
        return self.opened[number].others

    def rebuild(
        self, number: int, children: list[Any], others: Mapping[str, Any] | None = None
    ) -> Any:
        return self.opened[number].rebuilt(children, others)


def flatten(value: Any) -> Flat:
    """Flatten a tree; an object met twice becomes two leaves or containers."""
    flat = Flat()
    (flat.root,) = _visit(flat, [""], [value])
    return flat


def _visit(flat: Flat, names: Iterable[str], values: Iterable[Any]) -> list[int]:
    """Add the children of a container; return their numbers."""
    numbers = []
    for name, value in zip(names, values, strict=True):
        kind = leaves.PLAIN.get(type(value))
        opened = None if kind is not None else open_node(value, by_name=True)
        if opened is not None:
            first = len(flat.names)
            children = _visit(flat, names_in(name, opened), opened.children)
            if opened.is_code:
                flat.in_code.update(range(first, len(flat.names)))
            flat.nodes.append(Node("", children, keys=list(opened.keys or ())))
            flat.containers.append(value)
            flat.opened.append(opened)
            numbers.append(-len(flat.nodes))
        else:
            numbers.append(len(flat.names))
            flat.names.append(name)
            flat.kinds.append(kind or leaves.kind_of(value))
            flat.values.append(value)
    return numbers


def names_in(name: str, opened: Opened) -> list[str]:
    """Return the names of the children of a container of this name."""
    if opened.keys is None:
        return [name]
    prefix = f"{name}/" if name else ""
    return [prefix + (x if type(x) is str else tree.part(x)) for x in opened.keys]


def open_node(value: Any, *, by_name: bool) -> Opened | None:
    """Open a container; return None for a leaf.

    Args:
      value: The container.
      by_name: Whether the items of a dict come in the order of their names, as after
        transformations of JAX, or in the order of the dict.
    """
    opener = OPENERS.get(type(value))
    if opener is not None:
        return opener(value, by_name)
    kind = leaves.kind_of(value)
    if kind is FUNCTION:
        return _code(value)
    if not kind.is_opaque:
        return None
    return open_registered(value, by_name) or _unregistered(value)


def _unregistered(value: Any) -> Opened | None:
    """Open a container that is not registered with JAX; return None for a leaf."""
    cls: Any = type(value)
    if classes.is_namedtuple(cls):
        return namedtuple(value, cls)
    if callables.is_code(value):
        return _code(value)
    if dataclasses.is_dataclass(cls):
        return dataclass(value)
    kind = containers.kind_of(value)
    return None if kind is None else stateful(value, kind)


def _code(value: Any) -> Opened:
    """Open code: its children are the objects with arrays that it is bound to."""
    bound = callables.bound(value)
    is_method = bound.names is None
    parts = [] if is_method and not _is_tree(bound.parts[0]) else bound.parts
    chosen = [n for n, part in enumerate(parts) if holds_arrays(part)]
    if not chosen:
        return Opened((), (), lambda _: value, is_code=True, static=value)

    def rebuild(children: list[Any]) -> Any:
        parts = list(bound.parts)
        for number, child in zip(chosen, children, strict=True):
            parts[number] = child
        return bound.bind(parts)

    children = [bound.parts[number] for number in chosen]
    keys = bound.names and unique([bound.names[number] for number in chosen])
    # Never equal to another: a comparison would have to keep the last arrays.
    return Opened(keys, children, rebuild, is_code=True, static=object())


def _is_tree(owner: Any) -> bool:
    """Return whether the object of a method is a tree that cannot hold the method."""
    if type(owner) in OPENERS or leaves.kind_of(owner).is_array:
        return True
    return callables.is_linen(owner) or is_registered(owner)


def holds_arrays(value: Any) -> bool:
    """Return whether a tree holds arrays, or code that cannot be saved."""
    kind = leaves.kind_of(value)
    if kind.is_array or kind.is_abstract:
        return True
    if callables.problem(value) is not None:
        return True
    opened = None if type(value) in leaves.PLAIN else open_node(value, by_name=True)
    return opened is not None and any(map(holds_arrays, opened.children))

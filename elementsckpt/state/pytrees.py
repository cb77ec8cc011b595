"""Pytrees, opened node by node: for saving as plain containers, for loading as leaves.

JAX opens the classes that are registered with it. Static parts and code, such as an
activation function, are neither saved nor loaded: they come from the template of a
load. But the arrays that code is bound to are leaves.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from msgspec import field

from ..format.manifest import Node
from ..kinds import classes, leaves
from ..kinds.python_kinds import FUNCTION
from ..kinds.ring import Ring
from ..user import attributes
from . import callables, containers, flattening, pytree_nodes, saved_tree
from .pytree_nodes import OPENERS, Opened, unique
from .same_names import Keys


class Flat(flattening.Flat):
    """A flattened tree, whose nodes have only keys and children."""

    opened: list[Opened] = field(default_factory=list)

    def keys_in(self, number: int) -> list[Keys]:
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
    for name, given in zip(names, values, strict=True):
        value = given.array if type(given) is Ring else given
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
    return [name] if opened.keys is None else saved_tree.names_below(name, opened.keys)


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
    return _registered(value, by_name) or _unregistered(value)


def _unregistered(value: Any) -> Opened | None:
    """Open a container that is not registered with JAX; return None for a leaf."""
    cls: Any = type(value)
    if classes.is_namedtuple(cls):
        return pytree_nodes.namedtuple(value, cls)
    if callables.is_code(value):
        return _code(value)
    if dataclasses.is_dataclass(cls):
        return pytree_nodes.dataclass(value)
    kind = containers.kind_of(value)
    return None if kind is None else pytree_nodes.stateful(value, kind)


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
    if kind.is_array or kind.is_abstract or callables.problem(value) is not None:
        return True
    opened = open_node(value, by_name=True)
    return opened is not None and any(map(holds_arrays, opened.children))


# Containers that are registered with JAX


def is_registered(value: Any) -> bool:
    """Return whether JAX can open the value."""
    return _registered(value, by_name=True) is not None


def _registered(value: Any, by_name: bool) -> Opened | None:
    """Open a container that is registered with JAX; return None for others."""
    jax = sys.modules.get("jax")
    if jax is None or not hasattr(jax, "tree_util"):
        return None
    if jax.tree_util.all_leaves([value]):  # Flattening a leaf may warn.
        return None
    pairs, structure = jax.tree_util.tree_flatten_with_path(
        value, is_leaf=lambda part: part is not value
    )
    keys: Any = [_key(path[0]) for path, _ in pairs]
    children = [child for _, child in pairs]
    rebuild = structure.unflatten
    if not by_name and isinstance(value, Mapping):
        keys, children, rebuild = _in_own_order(value, keys, children, rebuild)
    cls: Any = type(value)
    if len(keys) == 1 and _is_box(cls):
        return Opened(None, children, rebuild, static=structure)
    opened = Opened(unique(keys), children, rebuild, static=structure)
    return _with_lost(opened, value, keys)


def _with_lost(opened: Opened, value: Any, keys: list[Any]) -> Opened:
    """Add attributes that the class's own flattening does not restore."""
    cls: Any = type(value)
    fields = pytree_nodes.fields_of(cls)
    if fields is None:  # The class defines all of its content itself.
        return opened
    found = attributes.own(value).keys()
    if found <= fields:
        opened.others = {} if attributes.takes(value) else None
        return opened
    kept = fields | attributes.own(opened.rebuild([*opened.children])).keys()
    lost = {*keys} & (found - kept)
    rebuild = opened.rebuild

    def giving(parts: list[Any]) -> Any:
        made = rebuild(parts)
        pairs = zip(keys, parts, strict=True)
        attributes.give(made, {key: part for key, part in pairs if key in lost})
        return made

    if lost:  # With chex, they are children.
        opened.rebuild = giving
    return pytree_nodes.with_attributes(opened, value, kept | lost)


def _in_own_order(
    value: Mapping[Any, Any], keys: list[Any], children: list[Any], rebuild: Any
) -> tuple[list[Any], list[Any], Callable[[list[Any]], Any]]:
    """Return keys and children in the order of the mapping; JAX sorts them."""
    places = {key: place for place, key in enumerate(keys)}
    own = [key for key in value if key in places]
    if len(own) < len(keys):
        return keys, children, rebuild

    def close_in_order(parts: list[Any]) -> Any:
        by_key = dict(zip(own, parts, strict=True))
        return rebuild([by_key[key] for key in keys])

    return own, [children[places[key]] for key in own], close_in_order


@functools.cache
def _is_box(cls: Any) -> bool:
    """Return whether the class is one of Flax's boxes around one value."""
    names = [x.__name__ for x in cls.__mro__ if x.__module__.startswith("flax.")]
    return not {"Variable", "VariableState", "AxisMetadata"}.isdisjoint(names)


def _key(entry: Any) -> Any:
    """Return the key in an entry of a path of JAX."""
    for attribute in ("name", "key", "idx"):
        if hasattr(entry, attribute):
            return getattr(entry, attribute)
    return str(entry)

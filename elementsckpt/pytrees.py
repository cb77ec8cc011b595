"""Pytrees, taken apart: into plain containers for saving, into leaves for loading.

A tree is opened node by node, as JAX does where it knows the class. What is static is
neither saved nor loaded, nor is code, such as an activation function: both come from
the tree into which is loaded.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec import Struct, field

from . import attributes, classes, containers, jax_arrays, leaves, tree
from .errors import StateError
from .manifest import Node


class Opened(Struct):
    """What one container of a tree holds, without what is static.

    Attributes:
      keys: What its children are called: their positions, a range, in a sequence; None
        in a box, whose only child is called what the box is.
      children: The children.
      close: Returns a container like it that holds something else.
    """

    keys: Sequence[Any] | None
    children: Sequence[Any]
    close: Callable[[list[Any]], Any]


class Flat(tree.Flat):
    """A tree taken apart, whose nodes do not say more than what they hold."""

    closers: list[Callable[[list[Any]], Any]] = field(default_factory=list)

    def close(self, number: int, children: list[Any]) -> Any:
        return self.closers[number](children)


def plain(value: Any, name: str = "") -> Any:
    """Return a tree as nested dicts, lists and tuples, its leaves as they are.

    Args:
      value: The tree.
      name: Where in a tree this one is, for errors.

    Raises:
      StateError: a leaf has a shape and no elements.
    """
    opened = _open(value)
    if opened is None:
        if jax_arrays.is_abstract(value):
            raise StateError(
                f"{name or 'The value'} is {value}, a shape without elements: load "
                f"something into it, or set the value to arrays, before it is saved."
            )
        return value
    children = [
        child if type(child) in leaves.PLAIN else plain(child, child_name)
        for child_name, child in zip(_names(name, opened), opened.children, strict=True)
    ]
    if opened.keys is None:
        return children[0]
    if type(opened.keys) is range:
        return tuple(children) if type(value) is tuple else children
    return dict(zip(opened.keys, children, strict=True))


def flatten(value: Any) -> Flat:
    """Take a tree apart; an object met twice is two leaves or containers."""
    flat = Flat()
    (flat.root,) = _visit(flat, [""], [value])
    return flat


def _visit(flat: Flat, names: Iterable[str], values: Iterable[Any]) -> list[int]:
    """Add what a container holds; return the numbers."""
    numbers = []
    for name, value in zip(names, values, strict=True):
        kind = leaves.PLAIN.get(type(value))
        opened = None if kind is not None else _open(value)
        if opened is not None:
            children = _visit(flat, _names(name, opened), opened.children)
            flat.nodes.append(Node("", children))
            flat.containers.append(value)
            flat.closers.append(opened.close)
            numbers.append(-len(flat.nodes))
        else:
            numbers.append(len(flat.names))
            flat.names.append(name)
            flat.kinds.append(kind or leaves.kind_of(value))
            flat.values.append(value)
    return numbers


def _names(name: str, opened: Opened) -> list[str]:
    """Return the names of what a container of this name holds."""
    if opened.keys is None:
        return [name]
    prefix = f"{name}/" if name else ""
    return [prefix + (x if type(x) is str else tree.part(x)) for x in opened.keys]


# One container


def _open(value: Any) -> Opened | None:
    """Open a container; None for a leaf."""
    opener = _OPENERS.get(type(value))
    if opener is not None:
        return opener(value)
    kind = leaves.kind_of(value)
    if kind == "function":
        return _code(value)
    return _registered(value) or _unregistered(value) if kind == "pickle" else None


def _mapping(value: Any) -> Opened:
    """Open a dict in the order of its names, as transformations of JAX leave it."""
    if set(map(type, value)) <= {str}:
        names = keys = sorted(value)
    else:
        by_name = dict(zip(_unique(list(value)), value, strict=True))
        names = sorted(by_name, key=str)
        keys = [by_name[name] for name in names]

    def close(children: list[Any]) -> Any:
        other = type(value).copy(value)  # In its own order.
        for key, child in zip(keys, children, strict=True):
            other[key] = child
        return _with_attributes(other, value)

    return Opened(names, [value[key] for key in keys], close)


def _deque(value: collections.deque[Any]) -> Opened:
    def close(children: list[Any]) -> Any:
        return collections.deque(children, value.maxlen)

    return Opened(range(len(value)), value, close)


_OPENERS: dict[type, Callable[[Any], Opened]] = {
    dict: _mapping,
    collections.OrderedDict: _mapping,
    collections.Counter: _mapping,
    collections.defaultdict: _mapping,
    list: lambda value: Opened(range(len(value)), value, list),
    tuple: lambda value: Opened(range(len(value)), value, tuple),
    collections.deque: _deque,
}


def _registered(value: Any) -> Opened | None:
    """Open what JAX knows; None for anything else."""
    jax = sys.modules.get("jax")
    if jax is None or not hasattr(jax, "tree_util"):
        return None
    if jax.tree_util.all_leaves([value]):  # Flattening one may warn.
        return None
    pairs, structure = jax.tree_util.tree_flatten_with_path(
        value, is_leaf=lambda part: part is not value
    )
    entries = [path[0] for path, _ in pairs]
    children = [child for _, child in pairs]
    cls: Any = type(value)
    is_box = len(entries) == 1 and _is_box(cls)
    keys = None if is_box else _unique(list(map(_key, entries)))
    if not classes.is_namedtuple(cls) or not attributes.own(value):
        return Opened(keys, children, structure.unflatten)

    def close(parts: list[Any]) -> Any:
        return _with_attributes(structure.unflatten(parts), value)

    return Opened(keys, children, close)


@functools.cache
def _is_box(cls: Any) -> bool:
    """Tell whether objects are one of Flax's around a value, saying more about it."""
    names = [x.__name__ for x in cls.__mro__ if x.__module__.startswith("flax.")]
    return not {"Variable", "VariableState", "AxisMetadata"}.isdisjoint(names)


def _key(entry: Any) -> Any:
    """Return what is in an entry of one of JAX's paths."""
    for attribute in ("name", "key", "idx"):
        if hasattr(entry, attribute):
            return getattr(entry, attribute)
    return str(entry)


def _unregistered(value: Any) -> Opened | None:
    """Open what JAX does not know, or would not tell apart from a leaf."""
    cls: Any = type(value)
    if classes.is_namedtuple(cls):
        return _namedtuple(value, cls)
    if _is_code(value):
        return _code(value)
    if dataclasses.is_dataclass(cls):
        return _dataclass(value)
    kind = containers.kind_of(value)
    return None if kind is None else _other(value, kind)


def _namedtuple(value: Any, cls: Any) -> Opened | None:
    if tuple.__len__(value) != len(cls._fields):
        return None

    def close(children: list[Any]) -> Any:
        return _with_attributes(tuple.__new__(cls, children), value)

    return Opened(cls._fields, list(tuple.__iter__(value)), close)


def _with_attributes(other: Any, value: Any) -> Any:
    """Give a copy of a container the attributes that it has beside what it holds."""
    attributes.give(other, attributes.own(value))
    return other


def _dataclass(value: Any) -> Opened:
    cls: Any = type(value)
    fields = [x.name for x in dataclasses.fields(value) if not _is_static(x)]
    found = {name: attributes.get(value, name, _UNSET) for name in fields}
    names = [name for name in fields if found[name] is not _UNSET]

    def close(children: list[Any]) -> Any:
        if classes.is_plain_dataclass(cls):
            other = _with_attributes(object.__new__(cls), value)
        else:
            other = copy.copy(value)  # Which runs no __init__, either.
        for name, child in zip(names, children, strict=True):
            object.__setattr__(other, name, child)
        return other

    return Opened(names, [found[name] for name in names], close)


_UNSET = object()


def _is_static(field: dataclasses.Field[Any]) -> bool:
    """Tell whether a field is marked as Flax and Equinox mark theirs."""
    marks = field.metadata
    return not marks.get("pytree_node", True) or bool(marks.get("static", False))


def _other(value: Any, kind: str) -> Opened:
    """Open what the state of any component may hold, such as a NumPy Generator."""
    node, keys, children = containers.take_apart(value, kind)

    def close(parts: list[Any]) -> Any:
        return containers.put_together(node, parts, type(value))

    return Opened(keys, children, close)


def _is_code(value: Any) -> bool:
    """Tell whether the value is code, which a program has and a save does not.

    Functions, however they are wrapped, and classes have a name. Objects that can be
    called and have none may hold anything, but for modules of Flax Linen.
    """
    if not callable(value):
        return False
    linen = sys.modules.get("flax.linen")
    if linen is not None and attributes.is_instance(value, linen.Module):
        return True
    return attributes.is_instance(value, functools.partial) or (
        attributes.get(value, "__name__") is not None
    )


def _code(value: Any) -> Opened:
    return Opened((), (), lambda _: value)


def _unique(keys: list[Any]) -> list[Any]:
    """Return keys as texts and numbers that differ as names, too."""
    if set(map(type, keys)) <= {str} and len(set(keys)) == len(keys):
        return keys
    plainest = [key if type(key) is int else tree.part(key) for key in keys]
    for names in (plainest, list(map(repr, keys))):
        if len(set(map(str, names))) == len(keys):
            return names
    return list(range(len(keys)))

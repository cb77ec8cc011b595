"""Pytrees, taken apart: into plain containers for saving, into leaves for loading.

A tree is opened node by node, as JAX does where it knows the class. What is static is
neither saved nor loaded, nor is code, such as an activation function: both come from
the tree into which is loaded. But the arrays to which code is bound are leaves.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import functools
import sys
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from ..format import scalars
from ..format.manifest import Node
from ..kinds import classes, leaves, references
from ..kinds.code_kinds import FUNCTION
from ..user import attributes
from . import beside, callables, containers, flattening, tree


class Opened(Struct):
    """What one container of a tree holds, without what is static.

    Attributes:
      keys: What its children are called: their positions, a range, in a sequence; None
        in a box, whose only child is called what the box is.
      children: The children.
      close: Returns a container like it that holds something else.
      is_plain: Whether `close` makes what a save holds as it is, if it holds that.
      is_random: Whether it is a random generator, which a save holds in any case.
      is_code: Whether it is code, and its children that to which it is bound.
      static: What tells it from others of its class that hold the same.
      others: Attributes that it has beside what it holds, as far as they are part of
        the state; None if it takes none.
      rest: Those that are not.
    """

    keys: Sequence[Any] | None
    children: Sequence[Any]
    close: Callable[[list[Any]], Any]
    is_plain: bool = False
    is_random: bool = False
    is_code: bool = False
    static: Any = None
    others: Mapping[str, Any] | None = None
    rest: Mapping[Any, Any] = types.MappingProxyType({})

    def closed(
        self, children: list[Any], others: Mapping[str, Any] | None = None
    ) -> Any:
        """Return what `close` does, with attributes; by default those that it has."""
        made = self.close(children)
        given = (self.others if others is None else others) or {}
        attributes.give(made, {**self.rest, **given})
        return made


class Flat(flattening.Flat):
    """A tree taken apart, whose nodes do not say more than what they hold."""

    opened: list[Opened] = field(default_factory=list)

    def others(self, number: int) -> Mapping[str, Any] | None:
        return self.opened[number].others

    def close(
        self, number: int, children: list[Any], others: Mapping[str, Any] | None = None
    ) -> Any:
        return self.opened[number].closed(children, others)


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
    """Return the names of what a container of this name holds."""
    if opened.keys is None:
        return [name]
    prefix = f"{name}/" if name else ""
    return [prefix + (x if type(x) is str else tree.part(x)) for x in opened.keys]


# One container


def open_node(value: Any, *, by_name: bool) -> Opened | None:
    """Open a container; None for a leaf.

    Args:
      value: The container.
      by_name: Whether the items of a dict come in the order of their names, as
        transformations of JAX leave them, or in that of the dict.
    """
    opener = _OPENERS.get(type(value))
    if opener is not None:
        return opener(value, by_name)
    kind = leaves.kind_of(value)
    if kind is FUNCTION:
        return _code(value)
    if not kind.is_opaque:
        return None
    return _registered(value, by_name) or _unregistered(value)


def _mapping(value: Any, by_name: bool) -> Opened:
    if set(map(type, value)) <= {str}:
        names = keys = sorted(value) if by_name else list(value)
        is_plain = True
    else:
        names, keys = _named(list(value), by_name)
        is_plain = all(map(_is_scalar, keys)) and all(map(_is_name, names, keys))

    def close(children: list[Any]) -> Any:
        other = type(value).copy(value)  # In its own order.
        for key, child in zip(keys, children, strict=True):
            other[key] = child
        return other

    is_plain = is_plain and not by_name and _has_plain_factory(value)
    opened = Opened(names, [value[key] for key in keys], close, is_plain)
    return _with_attributes(opened, value)


def _named(keys: list[Any], by_name: bool) -> tuple[list[Any], list[Any]]:
    """Return names for keys that are not all text, and the keys."""
    names = _unique(keys)
    if not by_name:
        return names, keys
    pairs = sorted(zip(names, keys, strict=True), key=lambda pair: tree.part(pair[0]))
    return [name for name, _ in pairs], [key for _, key in pairs]


def _is_name(name: Any, key: Any) -> bool:
    """Tell whether a name is what any state's key of this kind is called."""
    return tree.part(name) == tree.part(key)


def _is_scalar(key: Any) -> bool:
    """Tell whether a save can hold the key as it is."""
    if type(key) is str:
        return True
    try:
        scalars.encode(key)
    except scalars.NotScalarError:
        return False
    return True


def _has_plain_factory(value: Any) -> bool:
    factory = getattr(value, "default_factory", None)
    return factory is None or references.factory_name(factory) is not None


def _sequence(make: Callable[[list[Any]], Any]) -> Callable[[Any, bool], Opened]:
    return lambda value, _: Opened(range(len(value)), value, make, True)


def _deque(value: collections.deque[Any], _: bool) -> Opened:
    def close(children: list[Any]) -> Any:
        return collections.deque(children, value.maxlen)

    return Opened(range(len(value)), value, close, True)


_OPENERS: dict[type, Callable[[Any, bool], Opened]] = {
    dict: _mapping,
    collections.OrderedDict: _mapping,
    collections.Counter: _mapping,
    collections.defaultdict: _mapping,
    list: _sequence(list),
    tuple: _sequence(tuple),
    collections.deque: _deque,
}


def is_registered(value: Any) -> bool:
    """Tell whether JAX knows how to open the value."""
    return _registered(value, by_name=True) is not None


def _registered(value: Any, by_name: bool) -> Opened | None:
    """Open what JAX knows; None for anything else."""
    jax = sys.modules.get("jax")
    if jax is None or not hasattr(jax, "tree_util"):
        return None
    if jax.tree_util.all_leaves([value]):  # Flattening one may warn.
        return None
    pairs, structure = jax.tree_util.tree_flatten_with_path(
        value, is_leaf=lambda part: part is not value
    )
    keys: Any = [_key(path[0]) for path, _ in pairs]
    children = [child for _, child in pairs]
    close = structure.unflatten
    if not by_name and isinstance(value, Mapping):
        keys, children, close = _in_own_order(value, keys, children, close)
    cls: Any = type(value)
    if len(keys) == 1 and _is_box(cls):
        return Opened(None, children, close, static=structure)
    opened = Opened(_unique(keys), children, close, static=structure)
    return _with_lost(opened, value, keys)


def _with_lost(opened: Opened, value: Any, keys: list[Any]) -> Opened:
    """Add the attributes that a registered class does not bring back by itself."""
    cls: Any = type(value)
    fields = _fields(cls)
    if fields is None:  # It says itself what it holds.
        return opened
    found = attributes.own(value).keys()
    if found <= fields:
        opened.others = {} if attributes.takes(value) else None
        return opened
    kept = fields | attributes.own(opened.close([*opened.children])).keys()
    lost = {*keys} & (found - kept)
    if lost:  # As chex does, for which they are children.
        opened.close = _giving(opened.close, keys, lost)
    return _with_attributes(opened, value, kept | lost)


def _giving(close: Callable[[list[Any]], Any], keys: list[Any], lost: set[Any]) -> Any:
    """Return what closes a container and gives it children that `close` drops."""

    def closed(parts: list[Any]) -> Any:
        made = close(parts)
        pairs = zip(keys, parts, strict=True)
        attributes.give(made, {key: part for key, part in pairs if key in lost})
        return made

    return closed


@functools.cache
def _fields(cls: Any) -> frozenset[str] | None:
    """Return the fields of a dataclass, none of a builtin's, None for other classes."""
    if dataclasses.is_dataclass(cls):
        return frozenset(field.name for field in dataclasses.fields(cls))
    return None if classes.builtin_base(cls) is object else frozenset()


def _in_own_order(
    value: Mapping[Any, Any], keys: list[Any], children: list[Any], close: Any
) -> tuple[list[Any], list[Any], Callable[[list[Any]], Any]]:
    """Return keys and children, which JAX sorts, in the order of a mapping."""
    places = {key: place for place, key in enumerate(keys)}
    own = [key for key in value if key in places]
    if len(own) < len(keys):
        return keys, children, close

    def close_in_order(parts: list[Any]) -> Any:
        by_key = dict(zip(own, parts, strict=True))
        return close([by_key[key] for key in keys])

    return own, [children[places[key]] for key in own], close_in_order


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
    if callables.is_code(value):
        return _code(value)
    if dataclasses.is_dataclass(cls):
        return _dataclass(value)
    kind = containers.kind_of(value)
    return None if kind is None else _other(value, kind)


def _namedtuple(value: Any, cls: Any) -> Opened | None:
    if tuple.__len__(value) != len(cls._fields):
        return None

    def close(children: list[Any]) -> Any:
        return tuple.__new__(cls, children)

    opened = Opened(cls._fields, list(tuple.__iter__(value)), close)
    return _with_attributes(opened, value)


def _with_attributes(
    opened: Opened, value: Any, restored: Collection[Any] = ()
) -> Opened:
    """Add the attributes that a container has beside what it holds.

    Args:
      opened: The container, opened.
      value: The container.
      restored: Names of those that closing it sets.
    """
    if not attributes.takes(value):
        return opened
    if opened.is_plain:  # It is saved as it is, with all of them.
        opened.others = attributes.own(value)
        return opened
    opened.others, opened.rest = beside.of(value, restored)
    if opened.rest:  # To tell others from it, one would have to compare it.
        opened.static = object()
    return opened


def _dataclass(value: Any) -> Opened:
    cls: Any = type(value)
    fields = [x.name for x in dataclasses.fields(value) if not _is_static(x)]
    found = {name: attributes.get(value, name, _UNSET) for name in fields}
    names = [name for name in fields if found[name] is not _UNSET]
    declared = _fields(cls) or frozenset()

    def close(children: list[Any]) -> Any:
        own = attributes.own(value)
        if classes.is_plain_dataclass(cls):
            other = object.__new__(cls)
            attributes.give(other, {x: own[x] for x in own if x in declared})
        else:
            other = copy.copy(value)  # Which runs no __init__, either.
            for name in own.keys() - declared:
                attributes.in_dict(other).pop(name, None)
        for name, child in zip(names, children, strict=True):
            object.__setattr__(other, name, child)
        return other

    children = [found[name] for name in names]
    opened = Opened(names, children, close, static=_static(value, names))
    return _with_attributes(opened, value, declared)


_UNSET = object()


def _static(value: Any, names: Sequence[str]) -> Any:
    """Return what a dataclass has in other fields than these, to tell it by."""
    others = [x.name for x in dataclasses.fields(value) if x.name not in names]
    found = {name: attributes.get(value, name) for name in others}
    # What can be written to is never known to be as before.
    return found if all(map(_is_fixed, found.values())) else object()


def _is_fixed(value: Any) -> bool:
    if type(value) is tuple:
        return all(map(_is_fixed, value))
    kind = leaves.PLAIN.get(type(value))
    return kind is not None and kind.is_value and type(value) is not set


def _is_static(field: dataclasses.Field[Any]) -> bool:
    """Tell whether a field is marked as Flax and Equinox mark theirs."""
    marks = field.metadata
    return not marks.get("pytree_node", True) or bool(marks.get("static", False))


def _other(value: Any, kind: str) -> Opened:
    """Open what the state of any component may hold, such as a NumPy Generator."""
    node, keys, children = containers.take_apart(value, kind)

    def close(parts: list[Any]) -> Any:
        return containers.put_together(node, parts, type(value))

    is_random = kind in containers.RANDOM
    return Opened(keys, children, close, is_random=is_random)


# Code


def _code(value: Any) -> Opened:
    """Open code, which holds the arrays to which it is bound and nothing else."""
    bound = callables.bound(value)
    is_method = bound.names is None
    parts = [] if is_method and not _is_tree(bound.parts[0]) else bound.parts
    chosen = [n for n, part in enumerate(parts) if holds_arrays(part)]
    if not chosen:
        return Opened((), (), lambda _: value, is_code=True, static=value)

    def close(children: list[Any]) -> Any:
        parts = list(bound.parts)
        for number, child in zip(chosen, children, strict=True):
            parts[number] = child
        return bound.bind(parts)

    children = [bound.parts[number] for number in chosen]
    keys = bound.names and _unique([bound.names[number] for number in chosen])
    # No two are alike: to tell, one would have to keep the arrays of the last.
    return Opened(keys, children, close, is_code=True, static=object())


def _is_tree(owner: Any) -> bool:
    """Tell whether the object of a method is a tree that cannot hold the method."""
    if type(owner) in _OPENERS or leaves.kind_of(owner).is_array:
        return True
    return callables.is_linen(owner) or is_registered(owner)


def holds_arrays(value: Any) -> bool:
    """Tell whether a tree holds arrays, or what cannot be saved, where it is open."""
    kind = leaves.kind_of(value)
    if kind.is_array or kind.is_abstract:
        return True
    if callables.problem(value) is not None:
        return True
    opened = None if type(value) in leaves.PLAIN else open_node(value, by_name=True)
    return opened is not None and any(map(holds_arrays, opened.children))


def _unique(keys: list[Any]) -> list[Any]:
    """Return keys as texts and numbers that differ as names, too."""
    if set(map(type, keys)) <= {str} and len(set(keys)) == len(keys):
        return keys
    plainest = [key if type(key) is int else tree.part(key) for key in keys]
    for names in (plainest, list(map(repr, keys))):
        if len(set(map(tree.part, names))) == len(keys):
            return names
    return list(range(len(keys)))

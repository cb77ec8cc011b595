"""One container of a pytree, opened: its children, and how to rebuild it with others.

This opens containers of Python, NamedTuples and dataclasses. Their other attributes are
part of the state if they are data. Functions, and objects that only pickle could hold,
are treated as static fields: a load keeps those of the current value.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import functools
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from msgspec import Struct

from ..errors import StateError
from ..format import scalars
from ..kinds import classes, leaves, references
from ..kinds.kind import UnstorableError
from ..user import attributes
from . import containers, flattening, saved_tree


class Opened(Struct):
    """The children of one container of a tree, without static parts.

    Attributes:
      keys: Keys of its children: a range of positions in a sequence; None for a box,
        whose only child has the name of the box.
      children: The children.
      rebuild: Returns a container like it with other children.
      is_storable: Whether a save can hold the container itself, if it can hold its
        children.
      is_random: Whether it is a random generator, which any save can hold.
      is_code: Whether it is code, whose children are the objects that it is bound to.
      static: Its static parts, to compare with other containers of its class.
      others: Its attributes that are part of the state; None if it cannot have any.
      rest: Its other attributes, except cached properties.
    """

    keys: Sequence[Any] | None
    children: Sequence[Any]
    rebuild: Callable[[list[Any]], Any]
    is_storable: bool = False
    is_random: bool = False
    is_code: bool = False
    static: Any = None
    others: Mapping[str, Any] | None = None
    rest: Mapping[Any, Any] = types.MappingProxyType({})

    def rebuilt(
        self, children: list[Any], others: Mapping[str, Any] | None = None
    ) -> Any:
        """Rebuild the container with attributes, by default its own."""
        made = self.rebuild(children)
        given = (self.others if others is None else others) or {}
        attributes.give(made, {**self.rest, **given})
        return made


def _mapping(value: Any, by_name: bool) -> Opened:
    keys = list(value)
    names = keys if {*map(type, keys)} <= {str} else unique(keys)
    if by_name and names is keys:
        names = keys = sorted(keys)
    elif by_name:
        pairs = sorted(
            zip(names, keys, strict=True), key=lambda x: saved_tree.part(x[0])
        )
        names, keys = [name for name, _ in pairs], [key for _, key in pairs]

    def rebuild(children: list[Any]) -> Any:
        other = type(value).copy(value)  # Keeps its own order.
        for key, child in zip(keys, children, strict=True):
            other[key] = child
        return other

    is_storable = not by_name and _has_plain_factory(value)
    is_storable = is_storable and (names is keys or _are_storable(names, keys))
    opened = Opened(names, [value[key] for key in keys], rebuild, is_storable)
    return with_attributes(opened, value)


def _are_storable(names: list[Any], keys: list[Any]) -> bool:
    """Return whether a save can hold the keys, and names them like this."""
    try:
        containers.encode_keys(keys)
    except scalars.NotScalarError:
        return False
    return [*map(saved_tree.part, names)] == [*map(saved_tree.part, keys)]


def _has_plain_factory(value: Any) -> bool:
    factory = getattr(value, "default_factory", None)
    return factory is None or references.factory_name(factory) is not None


def _sequence(value: Any, by_name: bool) -> Opened:
    cls: Any = type(value)
    make = cls
    if cls is collections.deque:
        make = functools.partial(cls, maxlen=value.maxlen)
    return Opened(range(len(value)), value, make, is_storable=True)


OPENERS: dict[type, Callable[[Any, bool], Opened]] = {
    cls: _mapping if kind in containers.MAPPINGS else _sequence
    for cls, kind in containers.KINDS.items()
}


def namedtuple(value: Any, cls: Any) -> Opened | None:
    if tuple.__len__(value) != len(cls._fields):
        return None

    def rebuild(children: list[Any]) -> Any:
        return tuple.__new__(cls, children)

    opened = Opened(cls._fields, list(tuple.__iter__(value)), rebuild)
    return with_attributes(opened, value)


def dataclass(value: Any) -> Opened:
    cls: Any = type(value)
    fields = [x.name for x in dataclasses.fields(value) if not _is_static(x)]
    found = {name: attributes.get(value, name, _UNSET) for name in fields}
    found = {name: x for name, x in found.items() if x is not _UNSET}
    declared = fields_of(cls) or frozenset()

    def rebuild(children: list[Any]) -> Any:
        own = attributes.own(value)
        if classes.is_plain_dataclass(cls):
            other = object.__new__(cls)
            attributes.give(other, {x: own[x] for x in own if x in declared})
        else:
            other = copy.copy(value)  # Runs no __init__, either.
            for name in own.keys() - declared:
                attributes.in_dict(other).pop(name, None)
        for name, child in zip(found, children, strict=True):
            object.__setattr__(other, name, child)
        return other

    static = _static(value, found)
    opened = Opened(list(found), list(found.values()), rebuild, static=static)
    return with_attributes(opened, value, declared)


_UNSET = object()


@functools.cache
def fields_of(cls: Any) -> frozenset[str] | None:
    """Return the fields of a dataclass, an empty set for a builtin, None for others."""
    if dataclasses.is_dataclass(cls):
        return frozenset(field.name for field in dataclasses.fields(cls))
    return None if classes.builtin_base(cls) is object else frozenset()


def _static(value: Any, names: Collection[str]) -> Any:
    """Return the values of a dataclass's other fields, for comparison."""
    others = [x.name for x in dataclasses.fields(value) if x.name not in names]
    found = {name: attributes.get(value, name) for name in others}
    # A mutable value may have changed, so it is never equal.
    return found if all(map(_is_fixed, found.values())) else object()


def _is_fixed(value: Any) -> bool:
    if type(value) is tuple:
        return all(map(_is_fixed, value))
    kind = leaves.PLAIN.get(type(value))
    return kind is not None and kind.is_value and type(value) is not set


def _is_static(field: dataclasses.Field[Any]) -> bool:
    """Return whether a field is marked as static, as Flax and Equinox do it."""
    marks = field.metadata
    return not marks.get("pytree_node", True) or bool(marks.get("static", False))


def stateful(value: Any, kind: str) -> Opened:
    """Open a container that any state may hold, such as a NumPy Generator."""
    node, keys, children = containers.take_apart(value, kind)

    def rebuild(parts: list[Any]) -> Any:
        return containers.put_together(node, parts, type(value))

    return Opened(keys, children, rebuild, is_random=kind in containers.RANDOM)


def with_attributes(
    opened: Opened, value: Any, restored: Collection[Any] = ()
) -> Opened:
    """Add the attributes that a container has besides its children.

    Args:
      opened: The container, opened.
      value: The container.
      restored: Names of attributes that rebuilding it sets.
    """
    if not attributes.takes(value):
        return opened
    if opened.is_storable:  # It is saved itself, with all attributes.
        opened.others = attributes.own(value)
        return opened
    cls: Any = type(value)
    others: dict[str, Any] = {}
    rest: dict[Any, Any] = {}
    for name, item in attributes.own(value).items():
        if name in restored:
            continue
        if type(name) is str and _is_data(item):
            others[name] = item
        elif not isinstance(attributes.get(cls, name), functools.cached_property):
            rest[name] = item
    opened.others, opened.rest = others, rest
    if rest:  # These cannot be compared, so it equals no other container.
        opened.static = object()
    return opened


def _is_data(value: Any) -> bool:
    """Return whether a save can hold the value as data: no pickle, no code to run."""
    try:
        flat = flattening.flatten(value, "")
        for kind, leaf in zip(flat.kinds, flat.values, strict=True):
            if kind.is_code:
                return False
            if not kind.is_foreign:
                leaves.encode(leaf, kind)
    except (StateError, UnstorableError):
        return False
    return True


def unique(keys: list[Any]) -> list[Any]:
    """Return keys as texts and numbers whose names are unique."""
    if set(map(type, keys)) <= {str} and len(set(keys)) == len(keys):
        return keys
    plainest = [key if type(key) is int else saved_tree.part(key) for key in keys]
    for names in (plainest, list(map(repr, keys))):
        if len(set(map(saved_tree.part, names))) == len(keys):
            return names
    return list(range(len(keys)))

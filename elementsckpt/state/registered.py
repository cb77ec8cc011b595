"""Opens containers of a pytree that are registered with JAX."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any

from ..user import attributes
from .opening import Opened, fields_of, unique, with_attributes


def is_registered(value: Any) -> bool:
    """Return whether JAX can open the value."""
    return open_registered(value, by_name=True) is not None


def open_registered(value: Any, by_name: bool) -> Opened | None:
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
    fields = fields_of(cls)
    if fields is None:  # The class defines all of its content itself.
        return opened
    found = attributes.own(value).keys()
    if found <= fields:
        opened.others = {} if attributes.takes(value) else None
        return opened
    kept = fields | attributes.own(opened.rebuild([*opened.children])).keys()
    lost = {*keys} & (found - kept)
    if lost:  # With chex, they are children.
        opened.rebuild = _giving(opened.rebuild, keys, lost)
    return with_attributes(opened, value, kept | lost)


def _giving(
    rebuild: Callable[[list[Any]], Any], keys: list[Any], lost: set[Any]
) -> Any:
    """Return a function that rebuilds a container and sets children that it dropped."""

    def rebuilt(parts: list[Any]) -> Any:
        made = rebuild(parts)
        pairs = zip(keys, parts, strict=True)
        attributes.give(made, {key: part for key, part in pairs if key in lost})
        return made

    return rebuilt


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

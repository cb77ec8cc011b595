"""Matched leaves → the current state with these leaves in it.

A component needs no support for this: its `load()` gets its own current state with the
matched leaves replaced.
"""

from __future__ import annotations

import collections
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from msgspec import Struct

from ..errors import ReadError, reason
from ..kinds.numpy_kinds import NUMPY
from ..user import attributes
from . import specs, tree
from .matching import Plan


class Whole(Struct):
    """Containers that are loaded whole, by number in `flat`.

    Attributes:
      places: Their numbers in the save.
      others: Their new attributes, if these are replaced.
    """

    places: Mapping[int, int] = {}
    others: Mapping[int, Mapping[str, Any]] = {}


def apply(
    plan: Plan,
    values: Mapping[int, Any],
    key: str,
    shared: Collection[int] = (),
    whole: Whole | None = None,
) -> Any:
    """Return the current state with the planned leaves replaced.

    Args:
      plan: What to replace.
      values: Saved leaves by number, arrays as NumPy arrays; and saved containers that
        are also part of something else, which are used if they fit unchanged.
      key: The component's key, for errors.
      shared: Numbers of the saved leaves that share memory.
      whole: The containers that are loaded whole.

    Raises:
      ReadError: JAX cannot make a leaf.
    """
    flat, whole = plan.flat, whole or Whole()
    built = _fit(plan, values, key, shared)
    pairs = plan.replace if whole.places else ()
    as_saved = {target for target, n in pairs if built[target] is values[n]}
    current = flat.object_at
    for index, node in enumerate(flat.nodes):
        number = ~index
        there = values.get(whole.places[number]) if number in whole.places else None
        is_one = type(there) is type(current(number))
        if is_one and as_saved.issuperset(node.children):
            built[number] = there
            as_saved.add(number)
        # A container without replaced leaves stays the same object.
        elif number in whole.others or not built.keys().isdisjoint(node.children):
            children = [built[n] if n in built else current(n) for n in node.children]
            others = _placed(whole.others.get(number), current(number))
            built[number] = flat.rebuild(index, children, others)
    return built.get(flat.root, current(flat.root))


def _placed(others: Mapping[str, Any] | None, value: Any) -> Any:
    """Return the attributes that a container can have, or None to keep its own."""
    if others is None:
        return None
    return {x: y for x, y in others.items() if attributes.has_place(value, x)}


def _fit(
    plan: Plan, values: Mapping[int, Any], key: str, shared_memory: Collection[int]
) -> dict[int, Any]:
    """Return saved leaves, converted for those they replace, by number in `flat`."""
    counts = collections.Counter(number for _, number in plan.replace)
    shared: dict[Any, Any] = {}  # A leaf in several places stays one object if it can.
    taken: set[int] = set()
    built = {}
    for target, number in plan.replace:
        current, kind = plan.flat.values[target], plan.flat.kinds[target]
        value = values[number]
        is_shared = number in shared_memory and kind is not NUMPY
        if is_shared and isinstance(value, np.ndarray):
            value = value.copy()  # JAX and torch may keep the memory.
        if counts[number] == 1:
            built[target] = _fit_one(plan, target, value, key)
            continue
        place = number, specs.device_key(current, kind)
        if place not in shared:
            if number in taken and isinstance(value, np.ndarray):
                value = value.copy()  # JAX may use the memory of the other.
            taken.add(number)
            shared[place] = _fit_one(plan, target, value, key)
        built[target] = shared[place]
    return built


def _fit_one(plan: Plan, target: int, value: Any, key: str) -> Any:
    current, kind = plan.flat.values[target], plan.flat.kinds[target]
    try:
        return specs.fit(current, kind, value, plan.taken.get(target))
    except (ValueError, TypeError, RuntimeError) as error:
        current, kind = kind.unwrapped(current)
        where = kind.where(current)
        if where is None:
            raise
        name = tree.full_name(key, plan.flat.names[target])
        raise ReadError(
            f"{name} cannot be put where the current one is, {where}: {reason(error)}. "
            f"Choose another device or sharding, or free memory of this one; nothing "
            f"was loaded."
        ) from error

"""Attributes of containers in pytrees, besides their children.

Data is part of the state and saved with the container. Functions, and objects that only
pickle could hold, are treated as static fields: a load keeps those of the current
value.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np

from ..errors import StateError
from ..kinds import leaves
from ..kinds.kind import UnstorableError
from ..user import attributes
from . import flattening


class Beside(NamedTuple):
    """The attributes of a container besides its children.

    Attributes:
      data: Attributes that a save can hold without pickle.
      rest: All other attributes, except cached properties.
    """

    data: dict[Any, Any]
    rest: dict[Any, Any]


NOTHING = Beside({}, {})


def of(value: Any, held: Collection[Any] = ()) -> Beside:
    """Return the attributes of a container, except those with the names in `held`."""
    found = attributes.own(value)
    if not found:
        return NOTHING
    beside = Beside({}, {})
    for name, item in found.items():
        if name in held:
            continue
        if type(name) is str and is_data(item):
            beside.data[name] = item
        elif not _is_computed(type(value), name):
            beside.rest[name] = item
    return beside


def _is_computed(cls: Any, name: Any) -> bool:
    return isinstance(attributes.get(cls, name), functools.cached_property)


def is_data(value: Any) -> bool:
    """Return whether a save can hold the value as data: no pickle, no code to run."""
    try:
        flat = flattening.flatten(value, "")
        for kind, leaf in zip(flat.kinds, flat.values, strict=True):
            if kind.is_code:
                return False
            if not kind.is_foreign and not _is_plain(leaf):
                leaves.encode(leaf, kind)
    except (StateError, UnstorableError):
        return False
    return True


def _is_plain(leaf: Any) -> bool:
    """Return whether the leaf is known to be data by its type."""
    if type(leaf) is np.ndarray:
        return not leaf.dtype.hasobject
    return type(leaf) in (bool, int, float, complex, str, bytes, type(None))

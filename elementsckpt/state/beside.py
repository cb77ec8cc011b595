"""Attributes of containers in pytrees, beside what the containers hold.

Data is part of the state and saved with the container. What only pickle could hold, and
functions, are like static fields: they stay those of the value into which is loaded.
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
    """The attributes of a container beside what it holds.

    Attributes:
      data: What a save can hold without pickle.
      rest: Everything else, but for what is computed when it is asked for.
    """

    data: dict[Any, Any]
    rest: dict[Any, Any]


NOTHING = Beside({}, {})


def of(value: Any, held: Collection[Any] = ()) -> Beside:
    """Return the attributes of a container, but for those of these names."""
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
    """Tell whether a save can hold the value without pickle, and runs no code of it."""
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
    """Tell leaves of which a look at their type is enough."""
    if type(leaf) is np.ndarray:
        return not leaf.dtype.hasobject
    return type(leaf) in (bool, int, float, complex, str, bytes, type(None))

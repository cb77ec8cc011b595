"""Functions and pickled objects, as leaves: only a trusted save may hold them.

The module `pickles` reads and writes the pickles.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..format.manifest import LeafGroup
from . import references
from .kind import Encoded, Form, Kind, Stored
from .python_kinds import encode_bytes


class _Functions(Kind):
    name = "function"
    is_code = True

    def recognise(self, value: Any) -> Kind | None:
        is_found = callable(value) and references.path_of(value) is not None
        return self if is_found else None

    def encode(self, value: Any, fetched: np.ndarray | None) -> Encoded:
        return Form("function"), None, references.path_of(value)

    def decode(self, group: LeafGroup, stored: Stored) -> list[Any]:
        return [str(path) for path in group.value]


class Opaque(Kind):
    """Objects that only pickle holds; the kinds of libraries can derive from it."""

    is_raw = True
    is_opaque = True
    is_code = True
    is_frozen = True
    is_immutable = True


FUNCTION, OBJECT = _Functions(), Opaque()


def encode_pickle(payload: bytes, parts: list[int]) -> Encoded:
    """Describe a pickled leaf that refers to the leaves and containers in `parts`."""
    form, storage, _ = encode_bytes(payload, OBJECT.name)
    return form, storage, parts

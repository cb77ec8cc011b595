"""Functions, and what only pickle holds: only a trusted save may hold them.

What makes pickles is `pickles`; this is about the leaves.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..format.manifest import Leaves
from . import references
from .kind import Encoded, Form, Kind, Layout, Stored
from .python_kinds import check_bytes, encode_bytes


class _Functions(Kind):
    name = "function"
    is_code = True

    def recognise(self, value: Any) -> Kind | None:
        is_found = callable(value) and references.path_of(value) is not None
        return self if is_found else None

    def encode(self, value: Any, fetched: np.ndarray | None) -> Encoded:
        return Form("function"), None, references.path_of(value)

    def decode(self, group: Leaves, stored: Stored) -> list[Any]:
        return [str(path) for path in group.value]


class Opaque(Kind):
    """Objects that only pickle holds; libraries derive from it for theirs."""

    is_opaque = True
    is_code = True
    is_frozen = True
    is_immutable = True

    def layout(self, group: Leaves) -> Layout:
        return check_bytes(super().layout(group))


FUNCTION, OBJECT = _Functions(), Opaque()


def encode_pickle(payload: bytes, parts: list[int]) -> Encoded:
    """Describe a pickled leaf that refers to what is numbered in `parts`."""
    form, storage, _ = encode_bytes(payload, OBJECT.name)
    return form, storage, parts

"""Values of Python, scalars of NumPy, text and bytes; functions and pickled objects.

The module `pickles` reads and writes the pickles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..format import scalars
from ..format.manifest import LeafGroup
from . import references
from .kind import Encoded, Form, Kind, Spec, Stored, cast

NUMBERS = (int, float, complex)  # Each can be converted to those after it.
FORM = Form("python")  # The form of all scalars.
_INLINE_BYTES = 1024  # Longer strings would make the manifest slow and unreadable.
_BYTE = "|u1"


class _Values(Kind):
    name = "python"
    types = (*(type(None), bool, int, float, complex, str, type(...), set, frozenset),)
    is_of_type = True
    is_value = True

    def recognise(self, value: Any) -> Kind | None:
        cls = type(value)  # Classes that derive from NumPy's hold more.
        is_scalar = issubclass(cls, np.generic) and value.dtype.type is cls
        return self if is_scalar else None

    def encode(self, value: Any, fetched: np.ndarray | None) -> Encoded:
        if is_long(value):
            return encode_bytes(value.encode("utf-8", "surrogatepass"), "str")
        return FORM, None, scalars.encode(value)

    def decode(self, group: LeafGroup, stored: Stored) -> list[Any]:
        return scalars.decode_all(group.value)

    def spec(self, value: Any) -> Spec:
        if _is_numpy_number(value):
            return Spec("array", value.dtype, ())
        is_number = type(value) in NUMBERS
        return Spec(type(value).__name__, weak=True if is_number else None)

    def specs(self, group: LeafGroup) -> list[Spec]:
        return [self.spec(scalars.decode(code)) for code in group.value]

    def is_vacant(self, value: Any) -> bool:
        return value is None

    def comparable(self, value: Any) -> Any:
        return np.asarray(value) if isinstance(value, np.generic) else value

    def fit(self, current: Any, value: Any, kind: Kind, taken: Spec | None) -> Any:
        if taken is not None:
            return value
        if _is_numpy_number(current):
            return cast(kind.numbers(value), current.dtype)[()]
        if type(current) not in (bool, *NUMBERS):
            return value
        is_number = type(value) in (bool, *NUMBERS)
        return type(current)(value if is_number else kind.numbers(value).item())


def is_long(value: Any) -> bool:
    """Return whether a value is text too long for the manifest."""
    return type(value) is str and len(value) > _INLINE_BYTES


def _is_numpy_number(value: Any) -> bool:
    cls = type(value)
    return issubclass(cls, np.generic) and not issubclass(cls, np.character)


class _Raw(Kind):
    """Text or bytes; short ones are in the manifest."""

    is_raw = True

    def __init__(
        self, name: str, make: Callable[[np.ndarray], Any], *types: type
    ) -> None:
        self.name, self.types = name, types
        self._make = make

    def encode(self, value: Any, fetched: np.ndarray | None) -> Encoded:
        if len(value) <= _INLINE_BYTES:
            return FORM, None, scalars.encode(value)
        return encode_bytes(value, self.name)

    def decode(self, group: LeafGroup, stored: Stored) -> list[Any]:
        return [self._make(x) for x in stored.elements(group)]


class _Frozen(_Raw):
    is_value = True
    is_frozen = True
    is_immutable = True


PYTHON = _Values()
STR = _Frozen("str", lambda array: str(array.data, "utf-8", "surrogatepass"))
BYTES = _Frozen("bytes", lambda array: array.tobytes(), bytes)
BYTEARRAY = _Raw("bytearray", lambda array: bytearray(array.tobytes()), bytearray)


def encode_bytes(data: Any, name: str) -> Encoded:
    """Describe bytes that are stored unchanged."""
    storage = np.frombuffer(data, np.uint8)
    return Form(name, _BYTE, storage.shape), storage, None


# Only a trusted save may hold these.


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

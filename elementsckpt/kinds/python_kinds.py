"""Values of Python, scalars of NumPy, and text and bytes, which may be long."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..format import scalars
from ..format.manifest import Leaves
from .kind import Encoded, Form, Kind, Layout, Spec, Stored, cast

NUMBERS = (int, float, complex)  # Each may become those after it.
FORM = Form("python")  # Of all scalars.
_INLINE_BYTES = 1024  # Longer strings would make the manifest slow and unreadable.
_BYTE = "|u1"


class _Values(Kind):
    name = "python"
    types = (*(type(None), bool, int, float, complex, str, type(...), set, frozenset),)
    is_of_type = True
    is_value = True

    def recognise(self, value: Any) -> Kind | None:
        cls = type(value)  # Others derive from NumPy's, and hold more.
        is_scalar = issubclass(cls, np.generic) and value.dtype.type is cls
        return self if is_scalar else None

    def encode(self, value: Any, fetched: np.ndarray | None) -> Encoded:
        if is_long(value):
            return encode_bytes(value.encode("utf-8", "surrogatepass"), "str")
        return FORM, None, scalars.encode(value)

    def decode(self, group: Leaves, stored: Stored) -> list[Any]:
        return scalars.decode_all(group.value)

    def spec(self, value: Any) -> Spec:
        if _is_numpy_number(value):
            return Spec("array", value.dtype, ())
        is_number = type(value) in NUMBERS
        return Spec(type(value).__name__, weak=True if is_number else None)

    def specs(self, group: Leaves) -> list[Spec]:
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


class _Text(Kind):
    """Text or bytes that are not in the manifest."""

    is_frozen = True
    is_immutable = True

    def __init__(self, name: str, make: Any) -> None:
        self.name = name
        self._make = make

    def encode(self, value: Any, fetched: np.ndarray | None) -> Encoded:
        if len(value) <= _INLINE_BYTES:
            return FORM, None, scalars.encode(value)
        return encode_bytes(value, self.name)

    def layout(self, group: Leaves) -> Layout:
        return check_bytes(super().layout(group))

    def decode(self, group: Leaves, stored: Stored) -> list[Any]:
        return [self._make(x) for x in stored.elements(group)]


class _Bytes(_Text):
    types = (bytes,)
    is_value = True


class _Bytearrays(_Text):
    types = (bytearray,)
    is_frozen = False
    is_immutable = False


PYTHON = _Values()
STR = _Text("str", lambda array: str(array.data, "utf-8", "surrogatepass"))
BYTES = _Bytes("bytes", lambda array: array.tobytes())
BYTEARRAY = _Bytearrays("bytearray", lambda array: bytearray(array.tobytes()))


def encode_bytes(data: Any, name: str) -> Encoded:
    """Describe bytes that are stored as they are."""
    storage = np.frombuffer(data, np.uint8)
    return Form(name, _BYTE, storage.shape), storage, None


def check_bytes(layout: Layout) -> Layout:
    """Return a layout of bytes.

    Raises:
      ValueError: it is not one.
    """
    dtype, shape, _ = layout
    if dtype != np.uint8 or len(shape) != 1:
        raise ValueError("bytes that are an array")
    return layout

"""Python and NumPy scalars, and containers of them, ⇄ JSON, exactly.

JSON has no NaN, lone surrogates, bytes or tuples, and only string keys; some readers
lose digits of long integers. A value that JSON holds exactly is written plainly, for
people to read. Any other becomes an object with one `$name`, such as
`{"$float": "nan"}`. A `dict` that could be taken for such an object is a `$dict`.
"""

from __future__ import annotations

import base64
import collections
import math
import struct
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any

_SAFE_INT = 1 << 53  # Beyond it, JSON readers that use doubles lose digits.
_NAN = struct.pack("<d", math.nan)
_MOST_TWINS = 64  # Keys of one hash; Python compares each with all before it.


class NotScalarError(TypeError):
    """The value is not a scalar that JSON can hold exactly, encoded or not."""


def encode(value: Any) -> Any:
    """Return a scalar, a tuple or a set of scalars as JSON.

    Raises:
      NotScalarError: the value, or something in it, is something else.
    """
    encoder = _ENCODERS.get(type(value))
    if encoder is not None:
        return encoder(value)
    return _encode_numpy(value)


def encode_all(values: Iterable[Any]) -> list[Any]:
    """Return scalars as JSON; floats, the most common, take a short cut."""
    return [x if type(x) is float and math.isfinite(x) else encode(x) for x in values]


def decode(code: Any) -> Any:
    """Return the scalar that `encode` encoded as `code`.

    Raises:
      ValueError, TypeError, KeyError: no scalar has this encoding.
    """
    if not isinstance(code, dict):
        if isinstance(code, list):
            raise ValueError("a bare list is not an encoded scalar")
        return code
    ((name, value),) = code.items()
    return _DECODERS[name](value)


_CODED = frozenset({dict, list})  # Types of what JSON holds in place of a scalar.


def decode_all(codes: Iterable[Any]) -> list[Any]:
    """Return the scalars with these encodings; plain ones take a short cut."""
    found = list(codes)
    if _CODED.isdisjoint(map(type, found)):
        return found
    return [decode(x) if type(x) in _CODED else x for x in found]


def build_dict(keys: Sequence[Any], values: Iterable[Any]) -> dict[Any, Any]:
    """Return the dict of these keys and values, as it was saved.

    Raises:
      ValueError: two keys are the same, or many have the same hash.
      TypeError: a key has no hash.
    """
    refuse_twins(keys)
    found = dict(zip(keys, values, strict=True))
    if len(found) != len(keys):
        raise ValueError("a dict has a key twice")
    return found


def decode_keys(codes: Iterable[Any]) -> list[str]:
    """Return the texts with these encodings.

    Raises:
      ValueError: one is not text, or two are the same.
    """
    found = decode_all(codes)
    if not {*map(type, found)} <= {str} or len({*found}) < len(found):
        raise ValueError("keys that are not text, or not all different")
    return found


def refuse_twins(keys: Collection[Any]) -> None:
    """Refuse keys forged to have the same hash: building their dict takes too long.

    Text cannot be forged like this.
    """
    if len(keys) <= _MOST_TWINS or {*map(type, keys)} == {str}:
        return
    counts = collections.Counter(map(hash, keys))
    if max(counts.values()) > _MOST_TWINS:
        raise ValueError("keys made to have the same hash")


def _encode_int(value: int) -> Any:
    # Hexadecimal: decimal takes quadratic time, and Python limits its digits.
    return value if -_SAFE_INT < value < _SAFE_INT else {"$int": hex(value)}


def _encode_float(value: float) -> Any:
    if math.isfinite(value):
        return value
    bits = struct.pack("<d", value)
    if math.isnan(value) and bits != _NAN:  # A NaN has a sign and a payload.
        return {"$float": bits.hex()}
    return {"$float": repr(value)}


def _decode_float(code: str) -> float:
    if code in ("nan", "inf", "-inf"):
        return float(code)
    return float(struct.unpack("<d", bytes.fromhex(code))[0])


def _encode_str(value: str) -> Any:
    try:
        value.encode()
    except UnicodeEncodeError:
        return {"$str": value.encode("utf-8", "surrogatepass").hex()}
    return value


def _encode_complex(value: complex) -> Any:
    return {"$complex": [_encode_float(value.real), _encode_float(value.imag)]}


def _encode_numpy(value: Any) -> Any:
    import numpy as np  # Manifests of most saves need none, and are listed without it.

    from . import dtypes

    # A class derived from one of NumPy's is none of them.
    if not isinstance(value, np.generic) or type(value) is not value.dtype.type:
        raise NotScalarError(value)
    if type(value) is np.str_:
        return {"$numpy": ["str", encode(str(value))]}
    if type(value) is np.bytes_:
        return {"$numpy": ["bytes", bytes(value).hex()]}
    try:
        return {"$numpy": [dtypes.encode(value.dtype), value.tobytes().hex()]}
    except dtypes.UnknownDtypeError as error:
        raise NotScalarError(value) from error


def _decode_numpy(code: Any) -> Any:
    import numpy as np

    from . import dtypes

    kind, value = code
    if kind == "str":
        return np.str_(decode(value))
    if kind == "bytes":
        return np.bytes_(bytes.fromhex(value))
    dtype = dtypes.decode(kind)
    if dtype.hasobject:  # Strings of variable length: the bytes are addresses.
        raise ValueError("not the type of a scalar")
    memory = bytearray.fromhex(value)  # Structured scalars are views of it.
    return np.ndarray((), dtype, memory)[()]


def _encode_items(name: str, value: Any) -> Any:
    return {name: [encode(item) for item in value]}


def _decode_set(container: Callable[[Any], Any], code: Any) -> Any:
    items = [decode(item) for item in code]
    refuse_twins(items)
    return container(items)


_ENCODERS: dict[type, Callable[[Any], Any]] = {
    type(None): lambda value: value,
    bool: lambda value: value,
    int: _encode_int,
    float: _encode_float,
    complex: _encode_complex,
    str: _encode_str,
    bytes: lambda value: {"$bytes": base64.b64encode(value).decode()},
    bytearray: lambda value: {"$bytearray": base64.b64encode(value).decode()},
    type(...): lambda value: {"$ellipsis": None},
    tuple: partial(_encode_items, "$tuple"),
    set: partial(_encode_items, "$set"),
    frozenset: partial(_encode_items, "$frozenset"),
}

_DECODERS: dict[str, Callable[[Any], Any]] = {
    "$int": lambda code: int(code, 16),
    "$float": _decode_float,
    "$complex": lambda code: complex(decode(code[0]), decode(code[1])),
    "$str": lambda code: bytes.fromhex(code).decode("utf-8", "surrogatepass"),
    "$bytes": lambda code: base64.b64decode(code, validate=True),
    "$bytearray": lambda code: bytearray(base64.b64decode(code, validate=True)),
    "$ellipsis": lambda code: ...,
    "$numpy": _decode_numpy,
    "$tuple": lambda code: tuple(decode(item) for item in code),
    "$set": partial(_decode_set, set),
    "$frozenset": partial(_decode_set, frozenset),
}

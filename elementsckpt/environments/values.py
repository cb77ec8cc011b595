"""Values that have no identity and never change ⇄ JSON.

Numbers and text as `format.scalars` has them, and a few types of the standard library
whose content C holds.
"""

from __future__ import annotations

import datetime
import decimal
import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from ..format import dtypes, scalars


def _same(value: Any) -> Any:
    return value


# Types, and what writes their values down. A type is added as `(name, write, read)`.
_WRITTEN: tuple[tuple[type, str, Callable[[Any], Any], Callable[[Any], Any]], ...] = (
    (range, "$range", lambda x: [x.start, x.stop, x.step], lambda x: range(*x)),
    (
        slice,
        "$slice",
        lambda x: [scalars.encode(y) for y in (x.start, x.stop, x.step)],
        lambda x: slice(*map(scalars.decode, x)),
    ),
    (
        datetime.datetime,
        "$datetime",
        lambda x: [x.replace(tzinfo=None).isoformat(), x.fold, _zone(x.tzinfo)],
        lambda x: datetime.datetime.fromisoformat(x[0]).replace(
            fold=x[1], tzinfo=_zone_of(x[2])
        ),
    ),
    (
        datetime.date,
        "$date",
        datetime.date.isoformat,
        datetime.date.fromisoformat,
    ),
    (
        datetime.timedelta,
        "$timedelta",
        lambda x: [x.days, x.seconds, x.microseconds],
        lambda x: datetime.timedelta(*x),
    ),
    (datetime.timezone, "$timezone", lambda x: _zone(x), lambda x: _zone_of(x)),
    (decimal.Decimal, "$decimal", str, decimal.Decimal),
    (pathlib.PosixPath, "$path", str, pathlib.PosixPath),
    (pathlib.PurePosixPath, "$purepath", str, pathlib.PurePosixPath),
    (
        re.Pattern,
        "$pattern",
        lambda x: [scalars.encode(x.pattern), x.flags],
        lambda x: re.compile(scalars.decode(x[0]), x[1]),
    ),
    (type(NotImplemented), "$notimplemented", lambda x: 0, lambda x: NotImplemented),
)


def _zone(value: Any) -> Any:
    if value is None:
        return None
    if type(value) is not datetime.timezone:
        raise scalars.NotScalarError(value)
    offset = value.utcoffset(None)
    return [offset.days, offset.seconds, offset.microseconds, value.tzname(None)]


def _zone_of(code: Any) -> Any:
    if code is None:
        return None
    offset = datetime.timedelta(*code[:3])
    plain = datetime.timezone(offset)
    return (
        plain if plain.tzname(None) == code[3] else datetime.timezone(offset, code[3])
    )


def _writer(name: str, write: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: {name: write(value)}


ENCODERS: dict[type, Callable[[Any], Any]] = {
    type(None): _same,
    bool: _same,
    **dict.fromkeys((int, float, str, complex, bytes, type(...)), scalars.encode),
    **{cls: _writer(name, write) for cls, name, write, _ in _WRITTEN},
}
_DECODERS = {name: read for _, name, _, read in _WRITTEN}
_DECODERS["$dtype"] = dtypes.decode
# Of `scalars`, but not the containers among them, which change.
_SCALARS = frozenset(
    {"$int", "$float", "$complex", "$str", "$bytes", "$ellipsis", "$numpy"}
)
LEAF = "$leaf"  # Of a number that is a leaf of its own, with the name of that.
PLAIN = frozenset({type(None), bool, int, float, str})


def encoder(cls: type) -> Callable[[Any], Any] | None:
    """Return what encodes values of a type; None if they are objects."""
    found = ENCODERS.get(cls)
    if found is None and issubclass(cls, np.generic) and cls is not np.void:
        found = scalars.encode
    elif found is None and issubclass(cls, np.dtype):
        found = _dtype
    return found


def _dtype(value: Any) -> Any:
    try:
        return {"$dtype": dtypes.encode(value)}
    except dtypes.UnknownDtypeError as error:
        raise scalars.NotScalarError(value) from error


def is_plain(items: Any) -> bool:
    """Return whether all items are numbers, text or None."""
    return PLAIN.issuperset(map(type, items))


def encode_tuple(items: tuple[Any, ...]) -> Any:
    """Encode a tuple of plain items, which has no identity that matters."""
    return {"$tuple": [ENCODERS[type(x)](x) for x in items]}


def decode(code: Any) -> Any:
    """Return the value.

    Raises:
      ValueError, TypeError, KeyError: no value has this encoding.
    """
    if type(code) is not dict:
        return code
    ((name, content),) = code.items()
    if name in _SCALARS:
        return scalars.decode(code)
    if name == "$tuple":
        return tuple([decode(x) if type(x) is dict else _scalar(x) for x in content])
    return _DECODERS[name](content)


def _scalar(code: Any) -> Any:
    if type(code) is list:
        raise ValueError("a list is not a scalar")
    return code

"""NumPy dtypes ⇄ JSON, with their structure, and their names in safetensors files.

`dtype.str` alone is not enough: it gives `<V2` for bfloat16 and forgets the fields
of structured dtypes.
"""

from __future__ import annotations

import importlib
import re
from functools import lru_cache
from typing import Any

import numpy as np
from msgspec import json

# ml_dtypes defines the scalar types that accelerators use and NumPy lacks.
_EXTENSION = "ml_dtypes"
_NAME = re.compile(r"[a-z][a-z0-9_]{1,30}")  # A name of one of its types.
# The form of `dtype.str`. NumPy accepts much more, some of it as expressions.
_OWN = re.compile(r"[<>|][biufcmMSUV][0-9]{1,10}(\[[0-9]{0,10}[A-Za-z]{1,2}\])?")
_TAGS = {
    "|b1": "BOOL",
    "|u1": "U8",
    "|i1": "I8",
    "<u2": "U16",
    "<i2": "I16",
    "<u4": "U32",
    "<i4": "I32",
    "<u8": "U64",
    "<i8": "I64",
    "<f2": "F16",
    "<f4": "F32",
    "<f8": "F64",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}
# Tags that others write, too.
_OF_TAGS = {tag: code for code, tag in _TAGS.items()} | {
    "C64": "<c8",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
}


class UnknownDtypeError(TypeError):
    """The dtype has no encoding here; its arrays are pickled."""


def encode(dtype: np.dtype[Any]) -> Any:
    """Return the dtype as JSON: a string, or an object if the dtype has parts.

    Raises:
      UnknownDtypeError: it holds Python objects or comes from an unknown package.
    """
    code = _CODES.get(dtype)
    if code is not None:
        return code
    code = _encode(dtype)
    if isinstance(code, str):
        _CODES[dtype] = code
    return code


_CODES: dict[np.dtype[Any], str] = {}


class Descriptions:
    """What describes the dtypes of one state, worked out once for each.

    Equal dtypes may differ in what describes them, and a program can rename fields in
    place. So a dtype is known by its identity, and only while the state is looked at.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[np.dtype[Any], bytes]] = {}

    def text(self, dtype: np.dtype[Any]) -> bytes:
        """Return the same text for dtypes with the same encoding only.

        Raises:
          UnknownDtypeError: as for `encode`.
        """
        known = self._known.get(id(dtype))
        if known is None:
            known = self._known[id(dtype)] = dtype, json.encode(encode(dtype))
        return known[1]


def _encode(dtype: np.dtype[Any]) -> Any:
    if dtype.hasobject and dtype.kind != "T":
        raise UnknownDtypeError(dtype)
    if dtype.kind == "T":
        return {"string": _missing_string(dtype)}
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return {"base": encode(base), "shape": list(shape)}
    if dtype.names is not None:
        if dtype.type is not np.void:  # np.record: its arrays have a class, too.
            raise UnknownDtypeError(dtype)
        return _encode_fields(dtype)
    if dtype.type.__module__.partition(".")[0] == _EXTENSION:
        return dtype.type.__name__
    if dtype.isbuiltin == 2 or dtype.kind not in "biufcmMSUV":
        raise UnknownDtypeError(dtype)
    return dtype.str


def _encode_fields(dtype: np.dtype[Any]) -> dict[str, Any]:
    fields = []
    table: Any = dtype.fields
    for name in dtype.names or ():
        field, offset, *title = table[name]
        fields.append([name, encode(field), offset, *title])
    return {
        "fields": fields,
        "itemsize": dtype.itemsize,
        "aligned": dtype.isalignedstruct,
    }


def _missing_string(dtype: Any) -> dict[str, Any]:
    """Return whether a StringDType converts other values, and its missing value."""
    description: dict[str, Any] = {"coerce": bool(dtype.coerce)}
    if hasattr(dtype, "na_object"):
        missing = dtype.na_object
        if isinstance(missing, float) and missing != missing:
            missing = {"$float": "nan"}
        elif missing is not None and type(missing) is not str:
            raise UnknownDtypeError(dtype)
        description["missing"] = missing
    return description


def decode(code: Any) -> np.dtype[Any]:
    """Return the dtype that `encode` described.

    Raises:
      ValueError, TypeError, KeyError: `code` does not describe a dtype.
      ImportError: it needs ml_dtypes, which is not installed.
    """
    # Not as a part of another dtype: NumPy would use bytes of a file as addresses.
    if isinstance(code, dict) and "string" in code:
        return _decode_string(code["string"])
    dtype = _decode(code)
    if dtype.subdtype is not None:
        raise ValueError("an element type that is an array")
    return dtype


def _decode(code: Any) -> np.dtype[Any]:
    if isinstance(code, str):
        return _decode_name(code)
    if "base" in code:
        return np.dtype((_decode(code["base"]), tuple(code["shape"])))
    names, formats, offsets, titles = [], [], [], []
    for name, field, offset, *title in code["fields"]:
        names.append(name)
        formats.append(_decode(field))
        offsets.append(offset)
        titles.append(title[0] if title else None)
    spec: dict[str, Any] = {"names": names, "formats": formats, "offsets": offsets}
    if any(title is not None for title in titles):
        spec["titles"] = titles
    spec["itemsize"] = code["itemsize"]
    make: Any = np.dtype
    return make(spec, align=bool(code["aligned"]))  # type: ignore[no-any-return]


@lru_cache(maxsize=1024)
def _decode_name(code: str) -> np.dtype[Any]:
    if _OWN.fullmatch(code):
        dtype = np.dtype(code)
        if dtype.str != code:
            raise ValueError(f"not a dtype that elementsckpt writes: {code!r}")
        return dtype
    if not _NAME.fullmatch(code):
        raise ValueError("a name that no element type has")
    scalar = getattr(importlib.import_module(_EXTENSION), code, None)
    if scalar is None:
        raise ImportError(f"{_EXTENSION} has no {code!r}")
    if not (isinstance(scalar, type) and issubclass(scalar, np.generic)):
        # NumPy would make an array of objects, and use bytes of a file as addresses.
        raise ValueError(f"not an element type: {code!r}")
    return np.dtype(scalar)


def _decode_string(description: dict[str, Any]) -> np.dtype[Any]:
    kwargs: dict[str, Any] = {"coerce": description["coerce"]}
    if "missing" in description:
        missing = description["missing"]
        kwargs["na_object"] = float("nan") if isinstance(missing, dict) else missing
    if not hasattr(np.dtypes, "StringDType"):
        raise ImportError("strings of variable length need NumPy 2")
    return np.dtypes.StringDType(**kwargs)


def tag(code: Any) -> str | None:
    """Return the name that safetensors files use for an encoded dtype, or None."""
    return _TAGS.get(code) if isinstance(code, str) else None


def of_tag(tag: str) -> np.dtype[Any]:
    """Return the dtype that safetensors files call by this name.

    Raises:
      ValueError: there is none that NumPy or ml_dtypes has.
      ImportError: it needs a newer ml_dtypes.
    """
    if tag not in _OF_TAGS:
        raise ValueError(f"no dtype that is known is called {tag!r}")
    return decode(_OF_TAGS[tag])

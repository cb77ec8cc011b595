"""The caller's information about a save: metadata and metrics → JSON.

`records` is the way back.
"""

from __future__ import annotations

import dataclasses
import enum
import os
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import MetadataError, reason
from ..format import scalars
from ..kinds import jax_arrays, torch_tensors
from ..user import attributes
from ..user.arguments import shown
from .records import decode

_PLAIN: dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__index__,
    float: float.__float__,
}
_CHANGES = 5  # In a message.
# Attributes of objects that can be made dicts, and how to make them.
_DICTS = {
    "flag_values_dict": "the result of its flag_values_dict()",
    "model_dump": "the result of its model_dump()",
    "__attrs_attrs__": "the result of attrs.asdict(it)",
    "__struct_fields__": "the result of msgspec.to_builtins(it)",
    "to_dict": "the result of its to_dict()",
}


_REMEDY = (
    "It may hold mappings, sequences, dataclasses, namespaces, paths, enumerations, "
    "numbers and text: leave the rest out, or put its name in its place"
)


def _refused(problem: str, remedy: str = "") -> MetadataError:
    advice = remedy or _REMEDY
    return MetadataError(
        f"Metadata cannot be saved: {problem}. {advice}. Nothing was written."
    )


def encode(value: Any) -> Any:
    """Return metadata as JSON.

    Args:
      value: Mappings, sequences and scalars, nested in any way: JSON types, tuples,
        dataclasses, namespaces, paths, enumerations, scalars of NumPy and JAX, element
        types, devices of torch.

    Raises:
      MetadataError: something else is in it; the message says where.
    """
    try:
        return _encode({} if value is None else value, "metadata")
    except RecursionError as error:
        raise _refused("it holds itself") from error


def _encode(value: Any, where: str) -> Any:
    try:
        plain = _simplified(value)
    except RecursionError:
        raise
    except Exception as error:  # Reading its parts may raise, as with OmegaConf.
        found = f"{type(error).__name__}: {reason(error)}"
        is_known = type(value).__module__.startswith(("absl.", "omegaconf."))
        remedy = _remedy(value) if is_known else "Set what is missing, or leave it out"
        raise _refused(f"reading {where} failed with {found}", remedy) from error
    if type(plain) is dict:
        return _encode_mapping(plain, where)
    if type(plain) is list:
        return [_encode(item, f"{where}[{i}]") for i, item in enumerate(plain)]
    if plain is None or type(plain) is bool or type(plain) in _PLAIN:
        return scalars.encode(plain)
    raise _refused(f"{where} is of type {type(value).__name__}", _remedy(value))


def _simplified(value: Any) -> Any:
    """Return a value as a scalar of Python, or as a dict or list of its items.

    Any other value is returned unchanged.
    """
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    value = _number(_named(value))
    if value is None or isinstance(value, bool):
        return value
    value = _plain(value)
    if type(value) in _PLAIN:
        return value
    value = _opened(value)
    if isinstance(value, Mapping):
        return dict(value.items())
    is_list = isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray))
    return list(value) if is_list else value


def _plain(value: Any) -> Any:
    """Return text or a number of a derived class as Python's; others unchanged."""
    for base, make in _PLAIN.items():
        if isinstance(value, base):
            return make(value)
    return value


def _remedy(value: Any) -> str:
    """Return what to pass in place of an object that can be converted, or ""."""
    cls: Any = type(value)
    if cls.__module__.startswith("omegaconf."):
        return (
            "Set what is missing, or pass OmegaConf.to_container(config), in which it "
            "is text"
        )
    if issubclass(cls, type):
        return ""
    return next((f"Pass {x}" for name, x in _DICTS.items() if hasattr(cls, name)), "")


def _named(value: Any) -> Any:
    """Return the name of an element type or device; return other values unchanged."""
    named = torch_tensors.name_of(value)
    if named is not None:
        return named
    if isinstance(value, type) and issubclass(value, np.generic):
        return np.dtype(value).name
    found = attributes.get(value, "dtype")  # jnp.float32 has a dtype and no shape.
    if isinstance(found, np.dtype) and callable(value):
        return found.name
    return value.name if isinstance(value, np.dtype) else value


def _number(value: Any) -> Any:
    """Return a scalar of NumPy, JAX or torch as Python's; return others unchanged."""
    shape = attributes.get(value, "shape")
    if not isinstance(shape, tuple) or len(shape):
        return value
    if jax_arrays.is_array(value) and jax_arrays.problem(value) is None:
        (value,) = jax_arrays.fetch([value])
    elif torch_tensors.is_tensor(value):
        return value.item()
    if not isinstance(value, (np.generic, np.ndarray)):
        return value
    number = value.item()
    # For long doubles and bfloat16, item() returns a scalar of NumPy.
    return float(number) if isinstance(number, np.generic) else number


def _opened(value: Any) -> Any:
    """Return a dataclass, namespace or mapping as a mapping; others unchanged."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: getattr(value, name) for name in names}
    arguments = getattr(sys.modules.get("argparse"), "Namespace", types.SimpleNamespace)
    if isinstance(value, (types.SimpleNamespace, arguments)):
        return vars(value)
    has = [attributes.get(value, name) for name in ("keys", "__getitem__")]
    if None not in has and not isinstance(value, type):
        return dict(value)  # Such as ml_collections.ConfigDict.
    return value


def _encode_mapping(value: dict[Any, Any], where: str) -> Any:
    items = []
    for key, item in value.items():
        code = _encode(key, f"the key {key!r} of {where}")
        if isinstance(code, list):
            raise _refused(f"the key {key!r} of {where} is a sequence")
        items.append([code, _encode(item, f"{where}[{key!r}]")])
    if any(type(key) is not str or key.startswith("$") for key, _ in items):
        return {"$dict": items}
    return dict(items)


def merge(every: Any, one: Any) -> Any:
    """Return the metadata of a save, merged into the metadata of all saves, encoded.

    Args:
      every: Encoded metadata of all saves, or None.
      one: Metadata of this save, or None.

    Raises:
      MetadataError: both are given, and one is not a mapping.
    """
    if every is None or one is None:
        return encode(one) if every is None else every
    both = decode(every), decode(encode(one))
    if not all(isinstance(item, dict) for item in both):
        kinds = [type(item).__name__ for item in both]
        raise MetadataError(
            f"The metadata of the Checkpoint is a {kinds[0]} and that of this save a "
            f"{kinds[1]}: pass mappings, which can be united. Nothing was written."
        )
    return encode(both[0] | both[1])


def changes(now: Any, saved: Any) -> list[str]:
    """Return how encoded metadata differs from what was saved, where both have a key.

    Returns:
      The first few differences, and how many more there are.
    """
    found: list[str] = []
    _compare("", decode(now), decode(saved), found)
    more = [f"and {len(found) - _CHANGES} more"] if len(found) > _CHANGES else []
    return found[:_CHANGES] + more


def _compare(name: str, now: Any, saved: Any, found: list[str]) -> None:
    if isinstance(now, dict) and isinstance(saved, dict):
        for key in now.keys() & saved.keys():
            where = f"{name}.{key}" if name else str(key)
            _compare(where, now[key], saved[key], found)
    elif repr(now) != repr(saved):
        found.append(f"{name or 'all'} was {saved!r} and is {now!r}")


def encode_metrics(metrics: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return metrics as JSON.

    Args:
      metrics: Numbers by name; scalars of NumPy, JAX and torch, too.

    Raises:
      MetadataError: one is something else; the message names it.
    """
    if not isinstance(metrics, (Mapping, type(None))):
        raise MetadataError(
            f"metrics is of type {type(metrics).__name__}: pass numbers by name, such "
            f"as metrics={{'return': 213.0}}. Nothing was written."
        )
    encoded = {}
    named: Mapping[Any, Any] = metrics or {}
    for name, value in named.items():
        if not isinstance(name, str):
            raise MetadataError(
                f"metrics has the name {shown(name)} of type {type(name).__name__}: "
                f"pass numbers by names that are text. Nothing was written."
            )
        number = _plain(_number(value))
        if type(number) not in (int, float):
            raise MetadataError(
                f"metrics[{name!r}] is {_described(value)}: pass a number. What is not "
                f"a number can be in metadata. Nothing was written."
            )
        encoded[name] = scalars.encode(number)
    return encoded


def _described(value: Any) -> str:
    shape = attributes.get(value, "shape", ())
    found = f"of type {type(value).__name__}"
    return f"{found} and shape {tuple(shape)}" if shape else found

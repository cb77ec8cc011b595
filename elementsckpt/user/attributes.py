"""Attributes of the user's objects: read, listed and set with care.

Reading an attribute can run the object's code, which may raise anything. An attribute
that cannot be read counts as missing.
"""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Mapping
from typing import Any


def get(value: Any, name: str, default: Any = None) -> Any:
    """Return an attribute, or `default` if the object has none or raises."""
    try:
        return getattr(value, name, default)
    except Exception:
        return default


def text(value: Any, name: str) -> str:
    """Return an attribute that is text, or "" for anything else."""
    found = get(value, name)
    return found if type(found) is str else ""


def is_instance(value: Any, cls: Any) -> bool:
    """Return whether the object is an instance of the class; False if it raises."""
    try:
        return isinstance(value, cls)  # May read the object's `__class__`.
    except Exception:
        return False


def own(value: Any) -> dict[Any, Any]:
    """Return the attributes in the object's `__dict__` and in its slots."""
    return {**in_dict(value), **in_slots(value)}


def in_dict(value: Any) -> dict[Any, Any]:
    """Return the object's `__dict__`, or an empty dict if it has none."""
    cls: Any = type(value)
    if not cls.__dictoffset__:
        return {}
    found: dict[Any, Any] = object.__getattribute__(value, "__dict__")
    return found


def in_slots(value: Any) -> dict[str, Any]:
    """Return the attributes that are set in the slots of the object's class."""
    found = {}
    cls: Any = type(value)
    for name, slot in slots(cls).items():
        with contextlib.suppress(AttributeError):
            found[name] = slot.__get__(value)
    return found


def takes(value: Any) -> bool:
    """Return whether instances of the object's class can have attributes."""
    cls: Any = type(value)
    return bool(cls.__dictoffset__) or bool(slots(cls))


def has_place(value: Any, name: Any) -> bool:
    """Return whether the object can have an attribute of this name."""
    cls: Any = type(value)
    return bool(cls.__dictoffset__) or name in slots(cls)


def give(value: Any, attributes: Mapping[Any, Any]) -> None:
    """Set attributes that `own` listed, without running code of the object.

    Raises:
      AttributeError: the object has no place for one.
    """
    cls: Any = type(value)
    found = slots(cls)
    for name, attribute in attributes.items():
        if name in found:
            found[name].__set__(value, attribute)
        else:  # setattr would call properties, and could set the `__class__`.
            object.__getattribute__(value, "__dict__")[name] = attribute


@functools.cache
def slots(cls: Any) -> dict[str, Any]:
    """Return the slots of a class and its bases, by name."""
    return {
        name: member
        for base in reversed(cls.__mro__)
        if "__slots__" in base.__dict__
        for name, member in base.__dict__.items()
        if type(member) is types.MemberDescriptorType
    }

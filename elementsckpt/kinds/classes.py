"""NamedTuples and dataclasses: recognises those without hidden state, and builds them.

Instances are built without running code of their class. If the fields of a class have
changed since it was saved, the changes are reported.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import ReadError, reason
from ..format.manifest import Node
from ..user import attributes
from ..user.hints import listed

_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement.
_MOST_NAMES = 10  # In a message.


def builtin_base(cls: Any) -> Any:
    """Return the closest base that was not made by a class statement."""
    while cls.__flags__ & _HEAP_TYPE:
        cls = cls.__base__
    return cls


@functools.cache
def is_namedtuple(cls: Any) -> bool:
    """Return whether instances are NamedTuples: fields, and maybe attributes."""
    fields = attributes.get(cls, "_fields")
    return (
        issubclass(cls, tuple)
        and isinstance(fields, tuple)
        and all(isinstance(field, str) for field in fields)
        and cls.__reduce_ex__ is object.__reduce_ex__
        and cls.__reduce__ is object.__reduce__
    )


@functools.cache
def is_plain_dataclass(cls: Any) -> bool:
    """Return whether instances are dataclasses that consist of their attributes.

    A class that derives from a builtin, or that defines its own pickling, is excluded.
    """
    return (
        dataclasses.is_dataclass(cls)
        and builtin_base(cls) is object
        and cls.__reduce_ex__ is object.__reduce_ex__
        and cls.__reduce__ is object.__reduce__
        and leaves_state_to_pickle(cls)
    )


@functools.cache
def leaves_state_to_pickle(cls: Any) -> bool:
    """Return whether the class does not define the state of an instance for pickle."""
    return all(_is_library_method(cls, x) for x in ("__getstate__", "__setstate__"))


def _is_library_method(cls: type, name: str) -> bool:
    method = attributes.get(cls, name)
    if method is getattr(object, name, None):
        return True
    # dataclasses adds these to frozen classes with slots, chex to all of its classes.
    module = attributes.text(method, "__module__")
    return module.partition(".")[0] in ("dataclasses", "chex")


def build_namedtuple(cls: Any, saved: Mapping[Any, Any]) -> Any:
    """Return an instance with these fields, without running `__new__`.

    New fields get their defaults. Fields that the class no longer has are left out.

    Raises:
      KeyError: a new field has no default.
    """
    defaults = cls._field_defaults
    items = [saved[x] if x in saved else defaults[x] for x in cls._fields]
    return tuple.__new__(cls, items)


def build_dataclass(cls: Any, saved: Mapping[Any, Any], declared: Sequence[str]) -> Any:
    """Return an instance with these attributes, without running `__init__`.

    New fields get their defaults. Fields that the class no longer has are left out.

    Args:
      cls: The class.
      saved: The attributes; some may not be fields, and fields may be missing.
      declared: The fields that the class had when it was saved.

    Raises:
      ValueError, AttributeError: the instance cannot have these attributes.
      ReadError: the default of a new field cannot be made.
    """
    if not all(type(name) is str for name in saved):
        raise ValueError("an attribute whose name is not text")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    lost = [name for name in declared if name not in fields]
    new = [name for name in fields if name not in declared]
    saved = {name: value for name, value in saved.items() if name not in lost}
    saved |= {name: _default(cls, fields[name]) for name in new}
    instance: Any = object.__new__(cls)
    setstate = attributes.get(cls, "__setstate__")
    if attributes.text(setstate, "__module__").startswith("chex"):
        setstate(instance, saved)  # It registers the class with JAX, too.
        return instance
    for name in [name for name in saved if name in fields]:
        object.__setattr__(instance, name, saved.pop(name))
    attributes.give(instance, saved)
    return instance


def _default(cls: Any, field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is dataclasses.MISSING:
        return field.default
    try:
        return field.default_factory()
    except Exception as error:  # The save may be good.
        raise ReadError(
            f"The new field {field.name!r} of {cls.__module__}.{cls.__qualname__} "
            f"cannot be given its default: {reason(error)}. Correct its "
            f"default_factory; nothing was loaded."
        ) from error


# What changed since a save


class Change(NamedTuple):
    """How the fields of a class have changed since it was saved.

    Attributes:
      cls: The class.
      gained: New fields.
      lost: Fields that it no longer has.
      bare: New fields without a default.
      is_nothing: Whether nothing has changed, not even the order of the fields.
    """

    cls: type
    gained: list[str]
    lost: list[str]
    bare: list[str]
    is_nothing: bool

    @property
    def is_bridgeable(self) -> bool:
        """Whether a saved instance can be converted without doubt.

        If fields were both lost and gained, one may have been renamed.
        """
        return not self.bare and not (self.gained and self.lost)

    @property
    def consequence(self) -> str:
        """What happens to a saved instance if fields were gained or lost."""
        if self.gained:
            return "where it is new, it has its default"
        return "what was saved of it is left out"

    def __str__(self) -> str:
        parts = [
            f"{what} {listed(names, most=_MOST_NAMES)}"
            for what, names in (("gained", self.gained), ("lost", self.lost))
            if names
        ]
        return " and ".join(parts) or "changed the order of its fields"


def compare(cls: Any, node: Node) -> Change | None:
    """Compare a class with the saved class of a node.

    Returns:
      The change; None if it is another kind of class, or not a class.
    """
    if not issubclass(type(cls), type):  # Not isinstance, which may run code.
        return None
    if node.kind == "namedtuple":
        if not is_namedtuple(cls) or (node.attributes and not cls.__dictoffset__):
            return None
        now, then = list(cls._fields), node.keys
        defaults = {*attributes.get(cls, "_field_defaults", ())}
    else:
        if not is_plain_dataclass(cls) or type(node.value) is not list:
            return None
        fields = dataclasses.fields(cls)
        now, then = [field.name for field in fields], node.value
        defaults = {x.name for x in fields if _has_default(x)}
    gained = [name for name in now if name not in then]
    lost = [name for name in then if name not in now]
    bare = [name for name in gained if name not in defaults]
    return Change(cls, gained, lost, bare, now == then)


def _has_default(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is not missing or field.default_factory is not missing

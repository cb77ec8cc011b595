"""What an object is: attributes, slots, and items if its class is a builtin's child.

CPython says whether that is all: objects that hold more than Python sees are larger
than that, by the `__basicsize__` of their class.
"""

from __future__ import annotations

import _random
import collections
import contextlib
import functools
import types
import weakref
from typing import Any

import numpy as np
from msgspec import Struct

from ..user import attributes

# Builtin types whose content is known; what is not here has to be without content.
BASES: tuple[type, ...] = (
    *(list, tuple, dict, set, frozenset, bytearray, types.SimpleNamespace),
    *(collections.OrderedDict, collections.defaultdict, collections.deque),
    *(_random.Random, np.ndarray, functools.partial, weakref.ref),
)
LINKS = ("env", "venv")  # Attributes by which a wrapper holds what it wraps.
_OF_ENVIRONMENTS = ("unwrapped", "action_space", "action_spec")


class Layout(Struct, frozen=True):
    """What instances of a class consist of.

    Attributes:
      name: Where it is found: "module:qualname".
      base: The builtin type that holds the content; `object` if there is none.
      slots: Descriptors of the slots, by name.
      has_dict: Whether instances have a `__dict__`.
      is_hidden: Whether they hold more than Python sees.
      is_environment: Whether they are environments or wrappers of these.
      has_unwrapped: Whether they say which environment they wrap.
    """

    name: str
    base: type
    slots: dict[str, Any]
    has_dict: bool
    is_hidden: bool
    is_environment: bool
    has_unwrapped: bool

    def attributes(self, value: Any) -> dict[Any, Any]:
        """Return the attributes that are set; the dict may be the object's own."""
        found: dict[Any, Any] = {}
        if self.has_dict:
            found = object.__getattribute__(value, "__dict__")
        if self.slots:
            found = dict(found)
            for name, slot in self.slots.items():
                with contextlib.suppress(AttributeError):
                    found[name] = slot.__get__(value)
        return found

    def give(self, value: Any, found: dict[str, Any]) -> None:
        """Replace all attributes, without running code of the class."""
        for name, slot in self.slots.items():
            if name in found:
                slot.__set__(value, found[name])
            else:
                with contextlib.suppress(AttributeError):
                    slot.__delete__(value)
        if self.has_dict:
            own = object.__getattribute__(value, "__dict__")
            if self.slots:
                found = {x: y for x, y in found.items() if x not in self.slots}
            if list(own) != list(found):  # The order is part of it.
                own.clear()
            own.update(found)


@functools.cache
def layout(cls: Any) -> Layout:
    """Return the layout of a class, which stays as it is."""
    base = next((x for x in cls.__mro__ if x in BASES), object)
    names = {name for x in cls.__mro__ for name in x.__dict__}
    return Layout(
        name_of(cls),
        base,
        attributes.slots(cls),
        bool(cls.__dictoffset__),
        _is_hidden(cls, base),
        {"step", "reset"} <= names and not names.isdisjoint(_OF_ENVIRONMENTS),
        "unwrapped" in names,
    )


def of(value: Any) -> Layout:
    """Return the layout of an object."""
    cls: Any = type(value)
    return layout(cls)


def name_of(value: Any) -> str:
    """Return "module:qualname" of a class or function."""
    name = attributes.text(value, "__qualname__") or attributes.text(value, "__name__")
    return f"{module_of(value) or '?'}:{name}"


def module_of(value: Any) -> str:
    """Return the name of the module of a class or function; "" if it says none."""
    module = attributes.text(value, "__module__")  # SWIG's types have none.
    # The main module has another name in processes that are spawned.
    return "__main__" if module == "__mp_main__" else module


def shown(cls: type) -> str:
    """Return the name of a class as errors show it, with an article."""
    module, _, name = name_of(cls).partition(":")
    if module not in ("builtins", "?"):
        name = f"{module}.{name}"
    return f"an {name}" if name[:1].lower() in "aeio" else f"a {name}"


def _is_hidden(cls: Any, base: Any) -> bool:
    """Return whether instances are larger than their attributes and their content."""
    has_dict = bool(cls.__dictoffset__) and not base.__dictoffset__
    has_weakrefs = bool(cls.__weakrefoffset__) and not base.__weakrefoffset__
    if cls is base:
        return False
    like = _like(base, has_dict, has_weakrefs)
    slots = 0
    for x in cls.__mro__:
        if "__slots__" in x.__dict__:
            found = x.__dict__.values()
            slots += sum(type(y) is types.MemberDescriptorType for y in found)
    return _size(cls) > like + slots * tuple.__itemsize__


@functools.cache
def _like(base: Any, has_dict: bool, has_weakrefs: bool) -> int:
    """Return how large instances of a class are that Python derives from a type."""
    slots = ["__dict__"] * has_dict + ["__weakref__"] * has_weakrefs
    if base.__itemsize__ and has_dict:  # Of varying size, so no slots can be named.
        return _size(type("Like", (base,), {}))
    return _size(type("Like", (base,), {"__slots__": slots}))


def _size(cls: Any) -> int:
    size: int = cls.__basicsize__
    return size


def make(cls: Any) -> Any:
    """Return an object of a class without attributes and content, by no code of it.

    Raises:
      TypeError: the class makes its objects in another way.
    """
    base: Any = layout(cls).base
    return base.__new__(cls)


def link_of(value: Any) -> str | None:
    """Return the attribute by which a wrapper holds what it wraps; None for others."""
    known = of(value)
    if not known.has_dict:
        return None
    own = object.__getattribute__(value, "__dict__")
    return next((x for x in LINKS if hasattr(type(own.get(x)), "step")), None)

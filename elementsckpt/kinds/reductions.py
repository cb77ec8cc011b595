"""Exact pickles for objects of classes that derive from builtin ones.

Pickle alone is not exact. It reads a list by iterating and a dict by `items`, which a
class may override. It leaves out attributes of a Counter, a defaultdict, an array and a
NumPy scalar. It looks up `__setstate__`, which fails for objects that look up
attributes in their own content. So objects whose class does not define its pickling are
reduced here to the content of the builtin type and the attributes.
"""

from __future__ import annotations

import collections
import functools
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..user import attributes
from . import classes

PROTOCOL = 5
_NAMES = ("__reduce_ex__", "__reduce__")
# Modules of Python's classes whose pickling leaves out attributes of derived classes.
_FORGETFUL = frozenset(
    {"datetime", "decimal", "_decimal", "_pydecimal", "fractions", "pathlib"}
)


class _Way(NamedTuple):
    """How to reduce and rebuild objects that derive from one builtin type.

    Attributes:
      take: Returns the content of an object.
      fill: Puts the content into an object; None if it is immutable.
      make: Returns an immutable object of a class with the content; None for the
        `__new__` of the builtin type.
    """

    take: Callable[[Any], Any]
    fill: Callable[[Any, Any], None] | None = None
    make: Callable[[Any, Any], Any] | None = None


def reduce(value: Any) -> tuple[Any, ...] | None:
    """Return an exact reduction of the object, or None if its own one is exact."""
    cls: Any = type(value)
    base = _base_of(cls)
    if base is None:
        return _reduce_forgotten(value) if _forgets(cls) else None
    if base is np.generic and value.dtype.type is cls:
        return None
    if base is object:
        return _reduce_object(value)
    state = _state_of(value, base)
    if cls is base and state is None:
        return None
    way = _WAYS[base]
    content = way.take(value)
    if way.fill is None:
        return make, (base, cls, content), (base, None, state), None, None, restore
    return make, (base, cls), (base, content, state), None, None, restore


def takes(value: Any) -> bool:
    """Return whether `reduce` reduces the object by its builtin type."""
    cls: Any = type(value)
    return _base_of(cls) is not None


@functools.cache
def _base_of(cls: Any) -> Any:
    """Return the builtin type that decides how objects of a class are pickled.

    Returns:
      The type; `object` if only their attributes must be restored with care; None if
      the class, or pickle, does it right.
    """
    base = next((base for base in _WAYS if issubclass(cls, base)), object)
    if issubclass(cls, type) or any(_own_method(cls, base, name) for name in _NAMES):
        return None
    if base is tuple:
        method = _own_method(cls, tuple, "__getnewargs__")
        return tuple if method is None or classes.is_namedtuple(cls) else None
    return base if base is not object or _looks_up(cls) else None


def _looks_up(cls: Any) -> bool:
    """Return whether the class overrides how attributes are looked up."""
    asked = _own_method(cls, object, "__getattribute__")
    is_own = asked is not None and type(asked) is not types.WrapperDescriptorType
    return is_own or attributes.get(cls, "__getattr__") is not None


def _own_method(cls: Any, base: Any, name: str) -> Any:
    """Return a method if the class does not inherit it from its base, else None."""
    method = attributes.get(cls, name)
    return None if method is getattr(base, name, None) else method


# Pickles in saves refer to these functions: names and arguments must stay.


def make(base: Any, cls: Any, *content: Any) -> Any:
    """Return an object of the class without running code of the class."""
    way = _WAYS.get(base)
    function = way.make if way is not None else None
    return (function or base.__new__)(cls, *content)


def restore(value: Any, whole: tuple[Any, Any, Any]) -> None:
    """Restore the content and the attributes of an object."""
    base, content, state = whole
    fill = _WAYS[base].fill
    if fill is not None:
        fill(value, content)
    if state is not None:
        put_state(value, state, base)


def put_state(value: Any, state: Any, base: Any = object) -> None:
    """Restore the attributes of an object, without looking up methods on the object."""
    setstate = _own_method(type(value), base, "__setstate__")
    if setstate is not None:
        setstate(value, state)
        return
    slots = None
    if type(state) is tuple and len(state) == 2:
        state, slots = state
    if state is value:  # A dict that is its own attributes.
        object.__setattr__(value, "__dict__", value)
    elif state is not None:
        attributes.give(value, state)
    attributes.give(value, slots or {})


# Taking apart


def _state_of(value: Any, base: Any) -> Any:
    """Return the attributes as pickle does, or the result of its `__getstate__`."""
    getstate = _own_method(type(value), base, "__getstate__")
    if getstate is not None and getstate is not getattr(object, "__getstate__", None):
        return getstate(value)
    found: Any = attributes.in_dict(value)
    slots = attributes.in_slots(value)
    found = found if dict.__len__(found) else None
    return (found, slots) if slots else found


def _reduce_object(value: Any) -> tuple[Any, ...]:
    cls: Any = type(value)
    try:
        reduced: Any = cls.__reduce_ex__(value, PROTOCOL)
    except TypeError:  # It cannot be pickled.
        raise
    except Exception:  # Python 3.10 looks up `__getstate__` on the object itself.
        base, arguments = classes.builtin_base(cls), ()
        if base is not object:
            arguments = base.__getnewargs__(value)
        state = _state_of(value, object)
        reduced = make, (base, cls, *arguments), state, None, None
    return reduced if reduced[2] is None else (*reduced[:5], put_state)


@functools.cache
def _forgets(cls: Any) -> bool:
    """Return whether a class inherits pickling that leaves out its attributes."""
    definers = [x for x in cls.__mro__ if any(name in x.__dict__ for name in _NAMES)]
    return _is_forgetful(definers[0]) and not _is_forgetful(cls)


def _is_forgetful(cls: Any) -> bool:
    return cls.__module__.partition(".")[0] in _FORGETFUL


def _reduce_forgotten(value: Any) -> tuple[Any, ...] | None:
    cls: Any = type(value)
    slots = attributes.in_slots(value)
    derived = [base for base in cls.__mro__ if not _is_forgetful(base)]
    found = attributes.in_dict(value) | {
        name: slots[name] for base in derived for name in base.__dict__ if name in slots
    }
    reduced: Any = cls.__reduce_ex__(value, PROTOCOL) if found else ()
    if len(reduced) != 2:
        return None
    return (*reduced, found, None, None, put_state)


def _take_tuple(value: Any) -> Any:
    cls: Any = type(value)
    fields = cls._fields if classes.is_namedtuple(cls) else None
    return fields, list(tuple.__iter__(value))


def _make_tuple(cls: Any, content: Any) -> Any:
    fields, items = content
    if fields is None or len(fields) != len(items) or fields == cls._fields:
        return tuple.__new__(cls, items)
    saved = dict(zip(fields, items, strict=True))
    if not saved.keys() <= {*cls._fields} <= saved.keys() | cls._field_defaults.keys():
        raise TypeError(f"{cls.__qualname__} has other fields now")
    return classes.build_namedtuple(cls, saved)


def _fill_ordered(value: Any, content: Any) -> None:
    for key, item in content:
        collections.OrderedDict.__setitem__(value, key, item)


def _take_default(value: Any) -> Any:
    cls: Any = collections.defaultdict
    return cls.default_factory.__get__(value), dict(dict.items(value))


def _take_deque(value: Any) -> Any:
    cls: Any = collections.deque
    return list(cls.__iter__(value)), cls.maxlen.__get__(value)


def _filling(cls: Any) -> Callable[[Any, Any], None]:
    """Return what fills an object by the constructor of its builtin type."""
    return lambda value, content: cls.__init__(value, *content)


def _iterating(cls: Any) -> Callable[[Any], Any]:
    """Return what takes the items that the builtin type iterates over."""
    return lambda value: list(cls.__iter__(value))


_DICT = _Way(lambda value: dict(dict.items(value)), dict.update)
_ARRAY = _Way(
    lambda value: np.ndarray.view(value, np.ndarray),
    make=lambda cls, content: np.ndarray.view(content, cls),
)
# Derived types come before their bases.
_WAYS: dict[Any, _Way] = {
    collections.Counter: _DICT,
    collections.defaultdict: _Way(_take_default, _filling(collections.defaultdict)),
    collections.OrderedDict: _Way(
        lambda value: list(collections.OrderedDict.items(value)), _fill_ordered
    ),
    dict: _DICT,
    list: _Way(_iterating(list), list.extend),
    set: _Way(_iterating(set), set.update),
    frozenset: _Way(_iterating(frozenset)),
    collections.deque: _Way(_take_deque, _filling(collections.deque)),
    tuple: _Way(_take_tuple, make=_make_tuple),
    np.ma.MaskedArray: _ARRAY,
    np.ndarray: _ARRAY,
    np.generic: _Way(
        lambda value: np.asarray(value)[()],
        make=lambda cls, content: type(content).__new__(cls, content),
    ),
}

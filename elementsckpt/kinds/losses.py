"""Finds objects whose pickle silently leaves out a part of their state.

This compares an object with its reduction: making the object again would run its code.
It reports state that a run changes and that a constructor hardly makes by itself:
arrays and random generators. If the pickle keeps only arguments of the constructor, it
also reports numbers and containers. The same holds for the items of a container. Locks,
files, viewers and other objects are left out on purpose.
"""

from __future__ import annotations

import collections
import copyreg
import functools
import operator
import random
import sys
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..user.attributes import in_dict, own
from . import generators, leaves, reductions

_CONTAINERS = (list, dict, set, bytearray, collections.deque)
_SCALARS = (type(None), bool, int, float, complex, str, bytes, np.generic, np.dtype)
_NUMBERS = (int, float, complex, np.generic)
_SOME = 100  # How many items of a container are examined.


@functools.cache
def may_lose(cls: Any) -> bool:
    """Return whether instances can change, and their class defines their pickling."""
    if getattr(cls, "__hash__", None) not in (None, object.__hash__):
        return False  # It is hashed by value, so it has no other state.
    return cls in copyreg.dispatch_table or any(
        getattr(cls, name, None) is not getattr(object, name, None)
        for name in ("__reduce_ex__", "__reduce__", "__getstate__")
    )


def lost(value: Any, reduction: Any) -> list[str]:
    """Return the attributes that are part of the state but not of the pickle.

    Args:
      value: The object, of a class that `may_lose`.
      reduction: The result of its `__reduce_ex__`, or of a reducer in its place.
    """
    if not isinstance(reduction, tuple):
        return []
    found, made = _attributes(value), _made(value, reduction)
    left = _lost_attributes(value, found, made)
    return [*left, "its items"] if _loses_items(value, found, made) else left


class _Made(NamedTuple):
    """The parts from which pickle makes an object.

    Attributes:
      given: Arguments of the function that makes it.
      is_constructor: Whether this function is the constructor.
      state: The state that is set afterwards.
      items: The items that are added afterwards.
    """

    given: list[Any]
    is_constructor: bool
    state: Any
    items: list[Any]


def _made(value: Any, reduction: tuple[Any, ...]) -> _Made:
    function, arguments, state, *items = (*reduction, *[None] * 4)[:6]
    if items.pop() is reductions.restore:
        _, content, state = state
        items = [content]
    given, is_constructor = _given(value, function, list(arguments or ()))
    return _Made(given, is_constructor, state, [x for x in items if x is not None])


def _lost_attributes(value: Any, found: Mapping[str, Any], made: _Made) -> list[str]:
    if found and is_ez_pickle(type(value)):
        return _beyond_arguments(found)
    if not made.state:
        return _not_given(value, found, made)
    saved = _by_name(made.state)
    if saved is not None and saved.keys() <= found.keys():
        return _missing(found, saved)
    parts, own = _parts(made.state), set(map(id, found.values()))
    if not all(id(x) in own or _is_bare(x) for x in parts):
        return []  # The state may hold them in another form.
    made = made._replace(given=[*made.given, *parts], is_constructor=False)
    return _not_given(value, found, made)


def _attributes(value: Any) -> dict[str, Any]:
    cls = type(value)
    if in_dict(value) is value:
        return {}  # Its attributes are its items.
    return {
        name: item
        for name, item in own(value).items()
        if not isinstance(getattr(cls, name, None), functools.cached_property)
    }


def is_ez_pickle(cls: Any) -> bool:
    """Return whether EzPickle of Gymnasium or Gym pickles the class.

    Its pickle holds the arguments of the constructor, no matter how the object has
    changed. Much of the state is in C, where it cannot be seen.
    """
    owner = next((x for x in cls.__mro__ if "__getstate__" in vars(x)), object)
    return owner.__name__ == "EzPickle" and owner.__module__.endswith("utils.ezpickle")


def _beyond_arguments(attributes: Mapping[str, Any]) -> list[str]:
    kept = {x: y for x, y in attributes.items() if x.startswith("_ezpickle_")}
    keywords = kept.get("_ezpickle_kwargs", {})
    given = [*kept.get("_ezpickle_args", ()), *keywords.values()]
    known = set(map(id, given))
    return [x for x, y in attributes.items() if x not in kept and id(y) not in known]


def _by_name(state: Any) -> dict[str, Any] | None:
    """Return the attributes in a state, by name; None if it has another form."""
    saved: dict[str, Any] = {}
    for part in state if isinstance(state, tuple) and len(state) == 2 else (state,):
        if part is not None and not isinstance(part, dict):
            return None
        saved |= part or {}
    return saved


def _parts(state: Any) -> list[Any]:
    if isinstance(state, dict):
        return list(dict.values(state))
    return list(state) if isinstance(state, (list, tuple)) else [state]


def _missing(attributes: Mapping[str, Any], saved: Mapping[str, Any]) -> list[str]:
    """Return the attributes that are missing in a state, or are empty there."""
    kept = set(map(id, saved.values()))
    return [
        name
        for name, item in attributes.items()
        if id(item) not in kept
        and (name not in saved or _is_nothing(saved[name]))
        and _is_data(item)
    ]


def _is_nothing(item: Any) -> bool:
    """Return whether the item is empty, as placeholders for left-out arrays are."""
    if isinstance(item, (str, bytes, tuple, *_CONTAINERS)):
        return not item
    return item is None or isinstance(item, bool) or getattr(item, "nbytes", 1) == 0


def _is_bare(item: Any) -> bool:
    """Return whether the item cannot hold an array in any form."""
    return isinstance(item, (*_NUMBERS, type)) or _is_nothing(item)


def _not_given(value: Any, attributes: Mapping[str, Any], made: _Made) -> list[str]:
    """Return the attributes that are missing in the arguments of an object."""
    given = made.given
    own = set(map(id, attributes.values()))
    if not all(id(x) in own or _says_nothing_else(x, value) for x in given):
        return []  # The arguments may hold them in another form.
    known = set(map(id, given))
    equal = {(type(x), x) for x in given if isinstance(x, _SCALARS)}
    return [
        name
        for name, item in attributes.items()
        if id(item) not in known
        and not (isinstance(item, _SCALARS) and (type(item), item) in equal)
        and (_is_data(item) or (made.is_constructor and _is_counted(item)))
    ]


def _loses_items(value: Any, found: Mapping[str, Any], made: _Made) -> bool:
    """Return whether a container is pickled without its items."""
    held = _held(value)
    if not held or any(operator.length_hint(x, 1) for x in made.items):
        return False
    parts = _parts_beside_attributes(value, found, made.state)
    known = set(map(id, (*made.given, *parts)))
    if all(id(x) in known for x in held):
        return False
    if isinstance(value, bytearray) and any(x == value for x in made.given):
        return False  # It is pickled as bytes.
    bare = [*map(_is_bare, parts), *(_says_nothing_else(x, None) for x in made.given)]
    if not all(bare):
        return False  # These parts may hold the items.
    return made.is_constructor or _is_data(held)


def _parts_beside_attributes(
    value: Any, found: Mapping[str, Any], state: Any
) -> list[Any]:
    """Return the parts of a state, unless it only sets attributes."""
    saved = _by_name(state)
    is_set = saved is not None and saved.keys() <= found.keys()
    if state is None or (is_set and not hasattr(type(value), "__setstate__")):
        return []
    return _parts(state)


def _held(value: Any) -> list[Any]:
    """Return some items of a container, read from the builtin type."""
    if isinstance(value, np.ndarray):
        return [np.ndarray.view(value, np.ndarray)] if value.size else []
    if isinstance(value, dict):
        return _first(dict.values(value))
    base = next((x for x in _CONTAINERS if isinstance(value, x)), None)
    return [] if base is None else _first(base.__iter__(value))


def _given(value: Any, function: Any, given: list[Any]) -> tuple[list[Any], bool]:
    """Return the arguments that make an object, and whether its constructor does."""
    if function is copyreg.__newobj__:  # type: ignore[attr-defined]
        # If `__new__` takes arguments, objects of the class do not change.
        return given[1:], len(given) == 1
    if function is copyreg.__newobj_ex__:  # type: ignore[attr-defined]
        return [*given[1], *given[2].values()], False
    while isinstance(function, functools.partial):
        given += [*function.args, *function.keywords.values()]
        function = function.func
    maker = getattr(function, "__self__", function)  # The class of a class method.
    return given, isinstance(maker, type) and isinstance(value, maker)


def _says_nothing_else(argument: Any, value: Any) -> bool:
    """Return whether an argument cannot hold an object's attributes in another form."""
    if isinstance(argument, (str, bytes)):
        return len(argument) < _SOME
    if isinstance(argument, (*_SCALARS, type)) or callable(argument):
        return True
    is_container = isinstance(argument, (tuple, *_CONTAINERS))
    return is_container and (not argument or isinstance(value, _CONTAINERS))


def _is_counted(item: Any) -> bool:
    if isinstance(item, bool):
        return False
    return isinstance(item, _NUMBERS) or (isinstance(item, _CONTAINERS) and bool(item))


def _is_data(item: Any) -> bool:
    """Return whether it is an array or a generator, or a container of these."""
    if isinstance(item, (dict, list, tuple, collections.deque)):
        items = item.values() if isinstance(item, dict) else item
        return any(map(_is_state, _first(items)))
    return _is_state(item)


def _first(items: Iterable[Any]) -> list[Any]:
    return [item for item, _ in zip(items, range(_SOME), strict=False)]


def _is_state(item: Any) -> bool:
    torch: Any = sys.modules.get("torch")
    if isinstance(item, (random.Random, getattr(torch, "Generator", ()))):
        return True
    return generators.kind_of(item) is not None or leaves.kind_of(item).is_array

"""Objects whose pickle leaves out a part of their state, without a word.

That can only be seen in what pickle is given, as making the object anew would run its
code. Told of is what a run changes and a constructor hardly makes by itself: arrays and
random generators; and where nothing but arguments of a constructor is kept, numbers and
containers, too. The same goes for the items of a container. Locks, files, viewers and
other objects are left out on purpose.
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
_SOME = 100  # Items of a container that are looked at.


@functools.cache
def may_lose(cls: Any) -> bool:
    """Tell whether instances can change, and say themselves how they are pickled."""
    if getattr(cls, "__hash__", None) not in (None, object.__hash__):
        return False  # It hashes by its value, which is all that it has.
    return cls in copyreg.dispatch_table or any(
        getattr(cls, name, None) is not getattr(object, name, None)
        for name in ("__reduce_ex__", "__reduce__", "__getstate__")
    )


def lost(value: Any, reduction: Any) -> list[str]:
    """Return the attributes that are a part of the state and not of the pickle.

    Args:
      value: The object, of a class that `may_lose`.
      reduction: What its `__reduce_ex__` returns, or what does it in its place.
    """
    if not isinstance(reduction, tuple):
        return []
    found, made = _attributes(value), _made(value, reduction)
    left = _lost_attributes(value, found, made)
    return [*left, "its items"] if _loses_items(value, found, made) else left


class _Made(NamedTuple):
    """What pickle makes an object from.

    Attributes:
      given: What the function gets that makes it.
      is_constructor: Whether that is the constructor, and gets no more.
      state: What is set then.
      items: What is added then.
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
    if found and _is_ez_pickle(type(value)):
        return _beyond_arguments(found)
    if not made.state:
        return _not_given(value, found, made)
    saved = _by_name(made.state)
    if saved is not None and saved.keys() <= found.keys():
        return _missing(found, saved)
    parts, own = _parts(made.state), set(map(id, found.values()))
    if not all(id(x) in own or _is_bare(x) for x in parts):
        return []  # They are in it in another form.
    made = made._replace(given=[*made.given, *parts], is_constructor=False)
    return _not_given(value, found, made)


def _attributes(value: Any) -> dict[str, Any]:
    cls = type(value)
    if in_dict(value) is value:
        return {}  # They are its items.
    return {
        name: item
        for name, item in own(value).items()
        if not isinstance(getattr(cls, name, None), functools.cached_property)
    }


def _is_ez_pickle(cls: Any) -> bool:
    """Tell whether the pickle is that of Gymnasium's EzPickle, or of Gym's.

    It holds the arguments of the constructor, whatever has become of the object. Much
    of that is in C, where nobody sees it.
    """
    owner = next((x for x in cls.__mro__ if "__getstate__" in vars(x)), object)
    return owner.__name__ == "EzPickle" and owner.__module__.endswith("utils.ezpickle")


def _beyond_arguments(attributes: Mapping[str, Any]) -> list[str]:
    kept = {"_ezpickle_args": (), "_ezpickle_kwargs": {}} | {
        name: item for name, item in attributes.items() if name.startswith("_ezpickle_")
    }
    given = [*kept["_ezpickle_args"], *kept["_ezpickle_kwargs"].values()]
    known = set(map(id, given))
    return [x for x, y in attributes.items() if x not in kept and id(y) not in known]


def _by_name(state: Any) -> dict[str, Any] | None:
    """Return the attributes of which a state is made; None if it is made otherwise."""
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
    """Return the attributes that are missing in a state, or are nothing there."""
    kept = set(map(id, saved.values()))
    return [
        name
        for name, item in attributes.items()
        if id(item) not in kept
        and (name not in saved or _is_nothing(saved[name]))
        and _is_data(item)
    ]


def _is_nothing(item: Any) -> bool:
    """Tell what an array is replaced by that is left out from other forms of it."""
    if isinstance(item, (str, bytes, tuple, *_CONTAINERS)):
        return not item
    return item is None or isinstance(item, bool) or getattr(item, "nbytes", 1) == 0


def _is_bare(item: Any) -> bool:
    """Tell whether no array can be in it, in whatever form."""
    return isinstance(item, (*_NUMBERS, type)) or _is_nothing(item)


def _not_given(value: Any, attributes: Mapping[str, Any], made: _Made) -> list[str]:
    """Return the attributes that are missing among what the object is made from."""
    given = made.given
    own = set(map(id, attributes.values()))
    if not all(id(x) in own or _says_nothing_else(x, value) for x in given):
        return []  # They may be in these in another form.
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
    """Tell whether a container is pickled without what it holds."""
    held = _held(value)
    if not held or any(operator.length_hint(x, 1) for x in made.items):
        return False
    parts = _parts_beside_attributes(value, found, made.state)
    known = set(map(id, (*made.given, *parts)))
    if all(id(x) in known for x in held):
        return False
    if isinstance(value, bytearray) and any(x == value for x in made.given):
        return False  # As bytes.
    if not (all(map(_is_bare, parts)) and all(map(_holds_nothing, made.given))):
        return False  # They may be in these.
    return made.is_constructor or _is_data(held)


def _parts_beside_attributes(
    value: Any, found: Mapping[str, Any], state: Any
) -> list[Any]:
    """Return what is in a state that does more than to set attributes."""
    saved = None if state is None else _by_name(state)
    is_set = saved is not None and saved.keys() <= found.keys()
    if state is None or (is_set and not hasattr(type(value), "__setstate__")):
        return []
    return _parts(state)


def _held(value: Any) -> list[Any]:
    """Return some of what is in a container, as the builtin type holds it."""
    if isinstance(value, np.ndarray):
        return [np.ndarray.view(value, np.ndarray)] if value.size else []
    if isinstance(value, dict):
        return _first(dict.values(value))
    base = next((x for x in _CONTAINERS if isinstance(value, x)), None)
    return [] if base is None else _first(base.__iter__(value))


def _holds_nothing(argument: Any) -> bool:
    """Tell whether none of the items of an object can be in an argument."""
    return _says_nothing_else(argument, None)


def _given(value: Any, function: Any, given: list[Any]) -> tuple[list[Any], bool]:
    """Return what an object is made from, and whether its constructor does that."""
    if function is copyreg.__newobj__:  # type: ignore[attr-defined]
        # With arguments for `__new__`, it is of a class whose objects do not change.
        return given[1:], len(given) == 1
    if function is copyreg.__newobj_ex__:  # type: ignore[attr-defined]
        return [*given[1], *given[2].values()], False
    while isinstance(function, functools.partial):
        given += [*function.args, *function.keywords.values()]
        function = function.func
    maker = getattr(function, "__self__", function)  # A class method is of a class.
    return given, isinstance(maker, type) and isinstance(value, maker)


def _says_nothing_else(argument: Any, value: Any) -> bool:
    """Tell whether an argument holds no attributes of an object in another form."""
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
    """Tell arrays and generators, and containers of these, from other objects."""
    if isinstance(item, dict):
        return any(map(_is_state, _first(item.values())))
    if isinstance(item, (list, tuple, collections.deque)):
        return any(map(_is_state, _first(item)))
    return _is_state(item)


def _first(items: Iterable[Any]) -> list[Any]:
    return [item for item, _ in zip(items, range(_SOME), strict=False)]


def _is_state(item: Any) -> bool:
    if isinstance(item, random.Random) or generators.kind_of(item) is not None:
        return True
    torch: Any = sys.modules.get("torch")
    generator = getattr(torch, "Generator", None)
    if generator is not None and isinstance(item, generator):
        return True
    return leaves.kind_of(item).is_array

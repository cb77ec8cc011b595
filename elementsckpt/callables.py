"""Code in a tree, and what it is bound to.

Functions, however they are wrapped, classes and modules of Flax Linen are what a
program has and a save does not. But they may be bound to arrays, which only the run
has.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import inspect
import sys
import types
from collections.abc import Callable
from typing import Any, NamedTuple

from . import attributes

_ARGUMENT = "an argument of a functools.partial"


class Bound(NamedTuple):
    """What code is bound to.

    Attributes:
      names: What each part is called: position, keyword or attribute; None if it is the
        only one, the object of a method.
      parts: The parts.
      bind: Returns the same code, bound to other parts.
    """

    names: list[Any] | None
    parts: list[Any]
    bind: Callable[[list[Any]], Any]


def is_code(value: Any) -> bool:
    """Tell whether the value is code, which a program has and a save does not.

    Functions, however they are wrapped, and classes have a name. Objects that can be
    called and have none may hold anything, but for modules of Flax Linen.
    """
    if not callable(value):
        return False
    if is_linen(value) or attributes.is_instance(value, functools.partial):
        return True
    return attributes.get(value, "__name__") is not None


def is_linen(value: Any) -> bool:
    """Tell whether the value is a module of Flax Linen."""
    linen = sys.modules.get("flax.linen")
    return linen is not None and attributes.is_instance(value, linen.Module)


def problem(value: Any) -> str | None:
    """Say why code cannot be saved and what to do, or return None."""
    if is_linen(value) and value.scope is not None:
        return (
            "is a module of Flax that is bound to its variables: save these, which "
            "unbind() returns with the module, and bind it anew"
        )
    return None


def bound(value: Any) -> Bound:
    """Return what code is bound to, in sight of everybody."""
    if isinstance(value, functools.partial):
        return _partial(value)
    if is_linen(value):
        return _linen(value)
    if isinstance(value, types.MethodType):
        function = value.__func__
        return Bound(None, [value.__self__], lambda x: types.MethodType(function, *x))
    if isinstance(value, types.BuiltinMethodType):
        name = value.__name__
        return Bound(None, [value.__self__], lambda parts: getattr(parts[0], name))
    return Bound([], [], lambda _: value)


def _partial(value: functools.partial[Any]) -> Bound:
    count = len(value.args)

    def bind(parts: list[Any]) -> Any:
        function, args = parts[0], tuple(parts[1 : count + 1])
        keywords = dict(zip(value.keywords, parts[count + 1 :], strict=True))
        other: Any = copy.copy(value)  # Of a subclass, too.
        other.__setstate__((function, args, keywords, vars(value) or None))
        return other

    names = ["func", *range(count), *value.keywords]
    return Bound(names, [value.func, *value.args, *value.keywords.values()], bind)


def _linen(value: Any) -> Bound:
    if value.scope is not None:
        return Bound([], [], lambda _: value)
    fields = [field.name for field in dataclasses.fields(value) if field.init]
    names = [name for name in fields if name not in ("parent", "name")]

    def bind(parts: list[Any]) -> Any:
        return value.clone(**dict(zip(names, parts, strict=True)))

    return Bound(names, [getattr(value, name) for name in names], bind)


def hidden(value: Any, *, with_attributes: bool) -> dict[str, Any]:
    """Return what else code is bound to, by what it is called in a message.

    Args:
      value: The code.
      with_attributes: Whether those of an object count, of which it may be a method.
    """
    found: dict[str, Any] = {}
    with contextlib.suppress(ValueError):  # It wraps itself.
        value = inspect.unwrap(value)
    while isinstance(value, functools.partial):  # In a wrapper, such as that of jit.
        bound = [*value.args, *value.keywords.values(), found.get(_ARGUMENT)]
        found[_ARGUMENT] = bound
        value = value.func
    is_method = isinstance(value, types.MethodType)
    function = value.__func__ if is_method else value
    if with_attributes and not isinstance(value, type | types.FunctionType):
        found |= _attributes(value.__self__ if is_method else value)
    if isinstance(function, types.FunctionType):
        found |= _of_function(function)
    return found


def _attributes(owner: Any) -> dict[str, Any]:
    kind, found = type(owner).__name__, attributes.in_dict(owner)
    return {f"the attribute {x!r} of a {kind}": found[x] for x in found}


def _of_function(function: types.FunctionType) -> dict[str, Any]:
    found = {}
    names, cells = function.__code__.co_freevars, function.__closure__ or ()
    for name, cell in zip(names, cells, strict=True):
        with contextlib.suppress(ValueError):  # It is empty.
            found[f"{name!r}, which it closes over"] = cell.cell_contents
    defaults = [
        *(function.__defaults__ or ()),
        *(function.__kwdefaults__ or {}).values(),
    ]
    return found | {"a default of its arguments": defaults}

"""Code in a tree, and the objects that it is bound to.

Functions, wrapped in any way, classes and modules of Flax Linen are code: the program
has them, and a save does not. But code may be bound to arrays, which only the run has.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import sys
import types
from collections.abc import Callable
from typing import Any, NamedTuple

from ..kinds import closures
from ..user import attributes

ARGUMENT = "an argument of a functools.partial"


class Bound(NamedTuple):
    """The objects that code is bound to.

    Attributes:
      names: Name of each part: position, keyword or attribute; None for a method, whose
        only part is its object.
      parts: The parts.
      bind: Returns the same code, bound to other parts.
    """

    names: list[Any] | None
    parts: list[Any]
    bind: Callable[[list[Any]], Any]


def is_code(value: Any) -> bool:
    """Return whether the value is code, which a program has and a save does not.

    Functions, wrapped in any way, and classes have a name. Callable objects without a
    name may hold any data, except modules of Flax Linen.
    """
    if not callable(value):
        return False
    if is_linen(value) or attributes.is_instance(value, functools.partial):
        return True
    return attributes.get(value, "__name__") is not None


def is_linen(value: Any) -> bool:
    """Return whether the value is a module of Flax Linen."""
    module = getattr(sys.modules.get("flax.linen"), "Module", ())
    return attributes.is_instance(value, module)


def is_nnx(value: Any) -> bool:
    """Return whether the value is an object of Flax NNX that has a state."""
    nnx = sys.modules.get("flax.nnx")
    base = getattr(nnx, "Pytree", None) or getattr(nnx, "Object", ())
    return attributes.is_instance(value, base)


def problem(value: Any) -> str | None:
    """Return why code cannot be saved and what to do, or None."""
    if is_linen(value) and value.scope is not None:
        return (
            "is a module of Flax that is bound to its variables: save these, which "
            "unbind() returns with the module, and bind it anew"
        )
    return None


def bound(value: Any) -> Bound:
    """Return the objects that code is bound to openly, not in closures."""
    if attributes.is_instance(value, functools.partial):
        return _partial(value)
    if is_linen(value) and value.scope is None:
        return _linen(value)
    if type(value) is types.MethodType:
        function = value.__func__
        return Bound(None, [value.__self__], lambda x: types.MethodType(function, *x))
    if type(value) is types.BuiltinMethodType:
        name = value.__name__
        return Bound(None, [value.__self__], lambda parts: getattr(parts[0], name))
    return Bound([], [], lambda _: value)


def _partial(value: functools.partial[Any]) -> Bound:
    count = len(value.args)

    def bind(parts: list[Any]) -> Any:
        function, args = parts[0], tuple(parts[1 : count + 1])
        keywords = dict(zip(value.keywords, parts[count + 1 :], strict=True))
        other: Any = copy.copy(value)  # Keeps a subclass.
        other.__setstate__((function, args, keywords, vars(value) or None))
        return other

    names = ["func", *range(count), *value.keywords]
    return Bound(names, [value.func, *value.args, *value.keywords.values()], bind)


def _linen(value: Any) -> Bound:
    fields = [field.name for field in dataclasses.fields(value) if field.init]
    names = [name for name in fields if name not in ("parent", "name")]

    def bind(parts: list[Any]) -> Any:
        return value.clone(**dict(zip(names, parts, strict=True)))

    return Bound(names, [getattr(value, name) for name in names], bind)


def wrapped(value: Any) -> list[Any]:
    """Return the code that `__wrapped__` refers to, in a list; [] if there is none."""
    inner = attributes.get(value, "__wrapped__")
    return [] if inner is None else [inner]


def hidden(value: Any, *, with_attributes: bool) -> dict[str, Any]:
    """Return the other objects that code is bound to, by their names for messages.

    Args:
      value: The code.
      with_attributes: Whether to include arguments of a partial and attributes, also
        attributes of a method's object.
    """
    function = value.__func__ if type(value) is types.MethodType else value
    found: dict[str, Any] = {}
    if with_attributes:
        if attributes.is_instance(value, functools.partial):
            found[ARGUMENT] = [*value.args, *value.keywords.values()]
        found |= _attributes(value)
    if type(function) is types.FunctionType:
        found |= _of_function(function)
    return found


def _attributes(value: Any) -> dict[str, Any]:
    """Return the attributes of an object, or of a method's object."""
    is_method = type(value) in (types.MethodType, types.BuiltinMethodType)
    owner = value.__self__ if is_method else value
    if issubclass(type(owner), type | types.ModuleType):
        return {}  # The program has it, with its content.
    kind, found = type(owner).__name__, attributes.own(owner)
    if is_method and not found:
        return {f"the {kind} whose method it is": owner}
    inner = wrapped(owner)
    if inner and attributes.text(type(owner), "__module__").startswith("jaxlib"):
        return {}  # In older versions, jitted functions have methods as attributes.
    return {
        f"the attribute {name!r} of a {kind}": attribute
        for name, attribute in found.items()
        if not any(attribute is x for x in inner)
    }


def _of_function(function: types.FunctionType) -> dict[str, Any]:
    cells = closures.closed_over(function).items()
    found = {f"{name!r}, which it closes over": content for name, content in cells}
    defaults = [*(function.__defaults__ or ())]
    defaults += (function.__kwdefaults__ or {}).values()
    return found | {"a default of its arguments": defaults}

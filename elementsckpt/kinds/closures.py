"""Functions without an import path ⇄ their code, with no data of the program.

What such a function calls a global is looked up in its module, also after a load, so
nothing of the module is saved with it. What it closes over has no other place, so it is
refused if that is data of the program itself, which may be large, or a secret.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any

from ..user import attributes
from . import references

_CODE = (types.ModuleType, type, types.FunctionType)
_NUMBERS = (type(None), type(...), bool, int, float, complex)
_SLOTS = (
    *("__name__", "__qualname__", "__module__", "__doc__", "__annotations__"),
    *("__defaults__", "__kwdefaults__", "__type_params__"),
)


class DataError(TypeError):
    """A function cannot be saved without data of the program."""


def reduce(function: types.FunctionType, copied: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return what pickle makes of a function.

    Args:
      function: The function.
      copied: What cloudpickle makes of it, with a copy of the globals that it uses.

    Raises:
      DataError: it would take data of the program along.
    """
    module = _module(function)
    if module in (None, "__main__"):
        _refuse_data(function, "closes over", _closed_over(function))
        _refuse_data(function, "has the attribute", vars(function).items())
    if module is None:
        _, slots = copied[2]
        _refuse_data(function, "uses", slots["__globals__"].items())
        return copied
    cells = [_content(cell) for cell in function.__closure__ or ()]
    slots = {x: getattr(function, x) for x in _SLOTS if hasattr(function, x)}
    state = cells, slots, vars(function)
    made = function.__code__, _Namespace(module), len(cells)
    return make, made, state, None, None, fill


def _module(function: types.FunctionType) -> str | None:
    """Return the name of the module whose globals a function has, or None."""
    name = function.__globals__.get("__name__")
    module = sys.modules.get(name) if type(name) is str else None
    if not issubclass(type(module), types.ModuleType):
        return None
    return name if vars(module) is function.__globals__ else None


def _closed_over(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    names = function.__code__.co_freevars
    for name, cell in zip(names, function.__closure__ or (), strict=True):
        if not name.startswith(("_dflt_", "__dataclass_")):  # Its class has it, too.
            yield from ((name, content) for content in _content(cell))


def _content(cell: types.CellType) -> tuple[Any, ...]:
    """Return what is in a cell, in a tuple; () if it is still empty."""
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()


def _refuse_data(function: types.FunctionType, verb: str, found: Any) -> None:
    for name, value in found:
        if not _is_code(value) and type(value) not in _NUMBERS:
            raise DataError(
                f"{function.__qualname__}, which cannot be imported, {verb} {name!r}, "
                f"of type {type(value).__qualname__}"
            )


def _is_code(value: Any) -> bool:
    """Whether the value is code, of which what it needs is looked at by itself."""
    if issubclass(type(value), _CODE) or type(value).__module__ == "dataclasses":
        return True
    if not callable(value):
        return False
    if issubclass(type(value), types.BuiltinFunctionType | types.MethodType):
        return issubclass(type(value.__self__), types.ModuleType | type)
    if references.path_of(value) or references.name_in_main(value):
        return True
    return type(attributes.get(value, "__wrapped__")) is types.FunctionType


class _Namespace:
    """The globals of a module, of which a pickle holds the module's name."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __reduce__(self) -> tuple[Any, ...]:
        return namespace, (self._module,)


# Functions that pickles in saves name: they stay, and so does what they take.


def namespace(module: str) -> dict[str, Any]:
    """Return the globals of a module, which is imported for it."""
    return vars(importlib.import_module(module))


def make(code: types.CodeType, found: dict[str, Any], cells: int) -> Any:
    """Return a function that closes over nothing yet, as it may close over itself."""
    closure = tuple(types.CellType() for _ in range(cells))
    return types.FunctionType(code, found, closure=closure)


def fill(function: Any, state: tuple[Any, Any, Any]) -> None:
    """Give a function what it closes over, its defaults and its attributes."""
    cells, slots, others = state
    for cell, content in zip(function.__closure__ or (), cells, strict=True):
        if content:
            (cell.cell_contents,) = content
    for name, value in slots.items():
        setattr(function, name, value)
    vars(function).update(others)

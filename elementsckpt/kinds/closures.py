"""Functions without an import path ⇄ their code, without data of the program.

The globals of such a function are looked up in its module, also after a load, so they
are not saved. Values that the function closes over are saved with it. If one is data of
the program itself, which may be large or secret, the function is refused.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

from ..user import attributes
from . import references

_CODE = (types.ModuleType, type, types.FunctionType)
_NUMBERS = (type(None), type(...), bool, int, float, complex)
_DATACLASS_NAMES = ("_dflt_", "__dataclass_")  # Of what `dataclasses` closes over.
_SLOTS = (
    *("__name__", "__qualname__", "__module__", "__doc__", "__annotations__"),
    *("__defaults__", "__kwdefaults__", "__type_params__"),
)


class DataError(TypeError):
    """A function cannot be saved without data of the program."""


def reduce(function: types.FunctionType, copied: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the reduction of a function for pickle.

    Args:
      function: The function.
      copied: Cloudpickle's reduction, with a copy of the globals that it uses.

    Raises:
      DataError: the pickle would hold data of the program.
    """
    module = _module(function)
    if module in (None, "__main__"):
        found = closed_over(function).items()
        own = [(x, y) for x, y in found if not x.startswith(_DATACLASS_NAMES)]
        _refuse_data(function, "closes over", own)
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


def closed_over(function: types.FunctionType) -> dict[str, Any]:
    """Return what a function closes over by name, except cells that are still empty."""
    names, cells = function.__code__.co_freevars, function.__closure__ or ()
    pairs = zip(names, cells, strict=True)
    return {name: content for name, cell in pairs for content in _content(cell)}


def _content(cell: types.CellType) -> tuple[Any, ...]:
    """Return the content of a cell in a tuple; () if the cell is still empty."""
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
    """Return whether the value is code, whose own data is checked separately."""
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
    """The globals of a module, which a pickle holds as the module's name."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __reduce__(self) -> tuple[Any, ...]:
        return namespace, (self._module,)


# Functions that pickles in saves name: they stay, and so does what they take.


def namespace(module: str) -> dict[str, Any]:
    """Import a module and return its globals."""
    return vars(importlib.import_module(module))


def make(code: types.CodeType, found: dict[str, Any], cells: int) -> Any:
    """Return a function with empty cells, as it may close over itself."""
    closure = tuple(types.CellType() for _ in range(cells))
    return types.FunctionType(code, found, closure=closure)


def fill(function: Any, state: tuple[Any, Any, Any]) -> None:
    """Fill the cells of a function, and set its defaults and attributes."""
    cells, slots, others = state
    for cell, content in zip(function.__closure__ or (), cells, strict=True):
        if content:
            (cell.cell_contents,) = content
    for name, value in slots.items():
        setattr(function, name, value)
    vars(function).update(others)

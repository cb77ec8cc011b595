"""Classes and functions ⇄ their import paths, "module:qualname".

Loading from a foreign path imports nothing: there a class comes from what the process
has imported already, or from the component's current state.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .manifest import Node

FROZEN_DICT = "flax.core.frozen_dict:FrozenDict"
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement.
# Builtins that a defaultdict of a foreign save may call.
_FACTORIES: tuple[type, ...] = (
    int,
    float,
    complex,
    bool,
    str,
    bytes,
    list,
    dict,
    set,
    tuple,
)
_FACTORY_NAMES = {factory: factory.__name__ for factory in _FACTORIES}


def name_of(cls: type) -> str:
    """Return the import path under which a class is recorded."""
    return f"{cls.__module__}:{cls.__qualname__}"


def path_of(value: Any) -> str | None:
    """Return the import path that leads to this very object, or None."""
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return None
    if module == "__main__":  # Another program's would be another object.
        return None
    path = f"{module}:{name}"
    return path if _find(path) is value else None


def name_in_main(value: Any) -> str | None:
    """Return the name of a class or function of the program itself, or None."""
    if getattr(value, "__module__", None) != "__main__":
        return None
    name = getattr(value, "__qualname__", None)
    if not isinstance(name, str):
        return None
    return name if find_in_main(name) is value else None


def find_in_main(name: str) -> Any:
    """Return the class or function of the program with this name, or None."""
    return _find(f"__main__:{name}")


def factory_name(factory: Any) -> str | None:
    """Return the name of a builtin that defaultdicts use, or None."""
    return _FACTORY_NAMES.get(factory) if isinstance(factory, type) else None


def factory(name: str) -> type:
    """Return the builtin of this name; KeyError if it is not one of the few."""
    return {name: factory for factory, name in _FACTORY_NAMES.items()}[name]


def _find(path: str) -> Any:
    """Return what an import path leads to in the modules imported so far, or None."""
    module, _, name = path.partition(":")
    value: Any = sys.modules.get(module)
    for part in name.split("."):
        value = _namespace(value).get(part)
    return value


def _namespace(value: Any) -> Mapping[str, Any]:
    """Return what is in a module or class, running no code of it.

    Not by getattr: modules can import what is asked for, and proxies, which are in some
    of them, make what they stand for, also when they are asked for their class.
    """
    cls = type(value)
    if issubclass(cls, types.ModuleType):
        found: Mapping[str, Any] = object.__getattribute__(value, "__dict__")
        return found
    return type.__dict__["__dict__"].__get__(value) if issubclass(cls, type) else {}


@functools.cache
def is_namedtuple(cls: Any) -> bool:
    """Tell whether instances of the class are a NamedTuple's fields and no more."""
    fields = getattr(cls, "_fields", None)
    return (
        issubclass(cls, tuple)
        and isinstance(fields, tuple)
        and all(isinstance(field, str) for field in fields)
        and cls.__reduce_ex__ is object.__reduce_ex__
        and cls.__reduce__ is object.__reduce__
    )


@functools.cache
def is_plain_dataclass(cls: Any) -> bool:
    """Tell whether instances are a dataclass's attributes and no more.

    One that derives from a builtin, or that says itself how to be pickled, is not.
    """
    if not dataclasses.is_dataclass(cls):
        return False
    base: Any = cls
    while base.__flags__ & _HEAP_TYPE:
        base = base.__base__
    return (
        base is object
        and cls.__reduce_ex__ is object.__reduce_ex__
        and cls.__reduce__ is object.__reduce__
        and _is_library_method(cls, "__getstate__")
        and _is_library_method(cls, "__setstate__")
    )


def _is_library_method(cls: type, name: str) -> bool:
    method = getattr(cls, name, None)
    if method is getattr(object, name, None):
        return True
    # dataclasses makes these for frozen ones with slots, chex for all of its own.
    module = str(getattr(method, "__module__", ""))
    return module.partition(".")[0] in ("dataclasses", "chex")


def build_dataclass(cls: type, attributes: dict[str, Any]) -> Any:
    """Return an instance with these attributes, without running `__init__`.

    Raises:
      ValueError, AttributeError: it cannot have them.
    """
    if not all(type(name) is str for name in attributes):
        raise ValueError("an attribute whose name is no text")
    instance: Any = object.__new__(cls)
    setstate = getattr(cls, "__setstate__", None)
    if setstate is not None and str(setstate.__module__).startswith("chex"):
        setstate(instance, attributes)  # It registers the class with JAX, too.
        return instance
    declared = {field.name for field in dataclasses.fields(cls)}
    for name, value in attributes.items():
        if name in declared:
            object.__setattr__(instance, name, value)
        else:  # As it was; set, it could be a property's or the `__class__`.
            instance.__dict__[name] = value
    return instance


class Resolver:
    """Finds the classes and functions that a saved state names.

    Args:
      imports: Whether modules may be imported, which runs their code.
      current: Gives the classes and functions in the component's current state. It
        is called once and only when something is not found otherwise, because it may
        be expensive.
    """

    def __init__(
        self, *, imports: bool, current: Callable[[], Iterable[Any]] | None = None
    ) -> None:
        self._imports = imports
        self._current = current
        self._known: list[Any] | None = None
        self._functions: dict[str | None, Any] | None = None

    def container(self, node: Node) -> type | None:
        """Return the class of a NamedTuple, dataclass or FrozenDict, or None.

        Only a class with the very fields of the manifest counts. One that moved to
        another module is found in the current state, by its name and fields.
        """
        found = self._find(node.name)
        if node.kind == "frozen":
            return found if node.name == FROZEN_DICT else None
        if _fits(found, node):
            return found  # type: ignore[no-any-return]
        qualname = node.name.partition(":")[2]
        for known in self._from_current():
            if getattr(known, "__qualname__", "") == qualname and _fits(known, node):
                return known  # type: ignore[no-any-return]
        return None

    def function(self, path: str) -> Any:
        """Return the function, or None.

        On a foreign path only the current state's own count: any other, such as
        `os.system`, would be called by the code that uses the state.
        """
        if self._imports:
            return self._find(path)
        if self._functions is None:
            known = filter(callable, self._from_current())
            self._functions = {path_of(x): x for x in known}
        return self._functions.get(path)

    def _find(self, path: str) -> Any:
        if self._imports and not path.startswith("__main__:"):
            try:
                importlib.import_module(path.partition(":")[0])
            except Exception:  # Whatever its code raises: it is not to be had.
                return None
        return _find(path)

    def _from_current(self) -> list[Any]:
        if self._known is None:
            found = self._current() if self._current else []
            self._known = list({id(x): x for x in found}.values())
        return self._known


def _fits(cls: Any, node: Node) -> bool:
    if not issubclass(type(cls), type):  # Not isinstance; see `_namespace`.
        return False
    if node.kind == "namedtuple":
        return is_namedtuple(cls) and list(cls._fields) == node.keys
    if not is_plain_dataclass(cls):
        return False
    declared = [field.name for field in dataclasses.fields(cls)]
    return bool(declared == node.value)

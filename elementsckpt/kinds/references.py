"""Classes and functions ⇄ their import paths, "module:qualname".

A load from a foreign path imports nothing: it takes a class from modules that the
process has imported already, or from the component's current state.
"""

from __future__ import annotations

import functools
import importlib
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ..format.manifest import Node
from ..user import attributes
from . import classes
from .classes import Change

FROZEN_DICT = "flax.core.frozen_dict:FrozenDict"
# Builtins that a defaultdict of a foreign save may call.
BUILTINS = (int, float, complex, bool, str, bytes, list, dict, set, tuple)
_FACTORIES: dict[str, type] = {factory.__name__: factory for factory in BUILTINS}


def name_of(cls: type) -> str:
    """Return the import path under which a class is recorded."""
    return f"{cls.__module__}:{cls.__qualname__}"


def path_of(value: Any) -> str | None:
    """Return the import path that leads to exactly this object, or None."""
    module = attributes.text(value, "__module__")
    name = attributes.text(value, "__qualname__") or attributes.text(value, "__name__")
    if not module or not name:
        return None
    if module == "__main__":  # In another program, the path leads elsewhere.
        return None
    path = f"{module}:{name}"
    return path if find(path) is value else None


def name_in_main(value: Any) -> str | None:
    """Return the name of a class or function that `__main__` defines, or None."""
    if attributes.text(value, "__module__") != "__main__":
        return None
    name = attributes.text(value, "__qualname__")
    return name if name and find_in_main(name) is value else None


def is_jax_array_class(value: Any) -> bool:
    """Return whether it is `jax.Array`, which is not in the module that it names."""
    return isinstance(value, type) and value is find("jax:Array")


def find_in_main(name: str) -> Any:
    """Return the class or function with this name in `__main__`, or None."""
    return find(f"__main__:{name}")


def factory_name(factory: Any) -> str | None:
    """Return the name of a builtin that defaultdicts use, or None."""
    return next((name for name, x in _FACTORIES.items() if x is factory), None)


def factory(name: str) -> type:
    """Return the builtin of this name; KeyError if it is not in `_FACTORIES`."""
    return _FACTORIES[name]


def find(path: str) -> Any:
    """Return the object at an import path in the modules imported so far, or None."""
    module, _, name = path.partition(":")
    value: Any = sys.modules.get(module)
    for part in name.split("."):
        value = _namespace(value).get(part)
    return value


def _namespace(value: Any) -> Mapping[str, Any]:
    """Return the content of a module or class, without running its code.

    `getattr` could run code: modules can import on access, and a proxy in a module can
    create its object, even if only its class is read.
    """
    cls = type(value)
    if issubclass(cls, types.ModuleType):
        found: Mapping[str, Any] = object.__getattribute__(value, "__dict__")
        return found
    return type.__dict__["__dict__"].__get__(value) if issubclass(cls, type) else {}


class Resolver:
    """Finds the classes and functions that a saved state names.

    Args:
      imports: Whether to import modules and make defaults of fields, which runs code.
      current: Returns the classes and functions in the component's current state. It
        may be expensive, so it is called once, and only if something is not found
        otherwise.

    Attributes:
      changes: How the classes that were found have changed since the save, by path.
      reasons: Why other classes that were found are not used, by path.
    """

    def __init__(
        self, *, imports: bool, current: Callable[[], Iterable[Any]] | None = None
    ) -> None:
        self.changes: dict[str, Change] = {}
        self.reasons: dict[str, str] = {}
        self._imports = imports
        self._current = current

    def container(self, node: Node) -> type | None:
        """Return the class of a NamedTuple, dataclass or FrozenDict, or None.

        A class with exactly the fields in the manifest comes first. A class that moved
        to another module is found in the current state by its name and fields. If code
        may run, a class whose new fields have defaults is accepted, too.
        """
        if node.kind == "frozen":
            return self._find(node.name) if node.name == FROZEN_DICT else None
        found = []
        for cls in self._candidates(node.name):
            change = classes.compare(cls, node)
            if change is not None and change.is_nothing:
                return change.cls
            found.append(change)
        for change in found if self._imports else ():
            if change is not None and change.is_bridgeable:
                if change.gained or change.lost:
                    self.changes[node.name] = change
                return change.cls
        if found:
            self.reasons[node.name] = self._reason(found[0])
        return None

    def _reason(self, change: Change | None) -> str:
        """Return why a class that was found is not used."""
        if change is None:
            return "is another kind of class now"
        said = f"has {change} since it was saved"
        if change.is_bridgeable:
            return f"{said}, and only allow_pickle=True loads it all the same"
        if change.bare:
            return f"{said}, and has no default for {change.bare[0]!r}"
        return f"{said}, and that may be one field with a new name"

    def _candidates(self, path: str) -> Iterator[Any]:
        """Yield the class at this path, then those of its name in the current state."""
        found = self._find(path)
        if found is not None:
            yield found
        name = path.partition(":")[2]
        for known in self._known:
            if known is not found and attributes.text(known, "__qualname__") == name:
                yield known

    def function(self, path: str) -> Any:
        """Return the function, or None.

        On a foreign path, only functions in the current state are accepted. Code that
        uses the state would call any other one, such as `os.system`.
        """
        if self._imports:
            return self._find(path)
        return self._functions.get(path)

    @functools.cached_property
    def _functions(self) -> dict[str | None, Any]:
        return {path_of(x): x for x in filter(callable, self._known)}

    def _find(self, path: str) -> Any:
        if self._imports and not path.startswith("__main__:"):
            try:
                importlib.import_module(path.partition(":")[0])
            except Exception:  # The code of a module may raise anything.
                return None
        return find(path)

    @functools.cached_property
    def _known(self) -> list[Any]:
        """The classes and functions in the current state."""
        found = self._current() if self._current else []
        return list({id(x): x for x in found}.values())

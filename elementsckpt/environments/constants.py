"""Constants: objects that classes hold, and modules under names in capitals.

The modules are those of the environment's classes, and what these import as a whole.

An environment may hold one of several, such as a direction or an empty tile. A load
takes the one that its class or module has in the same place. The one that the
environment holds at the moment may be another, which has to stay as it is.

    DIRECTIONS = [np.array([0, 1]), np.array([1, 0])]  # ("game:DIRECTIONS", 0)
"""

from __future__ import annotations

import enum
import inspect
import random
import sys
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

import numpy as np

from . import objects, values

Place = tuple[Any, ...]  # A name, and the keys that lead on from there.

_DEEPEST = 4
_MOST = 1000  # Items of one container.
# Packages whose constants no environment changes.
FOREIGN = {"numpy", "jax", "jaxlib", "torch", "gymnasium", "stable_baselines3"}
FOREIGN |= {"mujoco", "ale_py"} | (sys.stdlib_module_names - {"__main__"})
# What is drawn from is a part of the state, wherever it is held.
_DRAWN = (np.random.Generator, np.random.RandomState, random.Random)


class Constants:
    """The constants of some classes and of their modules.

    Args:
      classes: The classes; those that they derive from count, too.
    """

    def __init__(self, classes: Iterable[type]) -> None:
        self._objects: dict[Place, Any] = {}
        self._places: dict[int, Place] = {}
        modules: dict[str, ModuleType] = {}
        bases: list[Any] = [x for cls in classes for x in cls.__mro__]
        for base in dict.fromkeys(bases):
            module = sys.modules.get(objects.module_of(base))
            if module is None or _is_foreign(module) or issubclass(base, enum.Enum):
                continue
            modules[module.__name__] = module
            for name, value in list(vars(base).items()):
                if not name.startswith("__"):
                    self._add((f"{objects.layout(base).name}.{name}",), value)
        for module in list(modules.values()):
            found = [x for x in list(vars(module).values()) if type(x) is ModuleType]
            modules.update({x.__name__: x for x in found if not _is_foreign(x)})
        for module in modules.values():
            for name, value in list(vars(module).items()):
                if name.isupper():
                    self._add((f"{module.__name__}:{name}",), value)

    def place_of(self, value: Any) -> Place | None:
        """Return where a constant is; None for other objects."""
        return self._places.get(id(value))

    def at(self, place: Place) -> Any:
        """Return the constant that is at a place; None if there is none."""
        return self._objects.get(place)

    def _add(self, place: Place, value: Any) -> None:
        if type(value) is not tuple:
            if id(value) in self._places or not _is_constant(value):
                return
            self._objects[place] = value
            self._places[id(value)] = place
        if len(place) <= _DEEPEST:
            for key, item in _items(value):
                self._add((*place, key), item)


def _is_foreign(module: ModuleType) -> bool:
    return module.__name__.partition(".")[0] in FOREIGN


def _is_constant(value: Any) -> bool:
    if values.encoder(type(value)) is not None or isinstance(value, _DRAWN):
        return False
    if inspect.isroutine(value) or isinstance(value, type) or inspect.ismodule(value):
        return False
    is_descriptor = hasattr(type(value), "__get__")
    return not is_descriptor and not objects.of(value).is_environment


def _items(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield keys and values of a container that is not too large."""
    if isinstance(value, dict):
        keyed = dict.items(value)
        found: Iterable[Any] = [x for x in keyed if type(x[0]) in (str, int)]
    elif isinstance(value, list):
        found = enumerate(list.__iter__(value))
    elif isinstance(value, tuple):
        found = enumerate(tuple.__iter__(value))
    else:
        return
    if len(value) <= _MOST:
        yield from found

"""What a save may name: code that the live environment reaches, and harmless code.

A save could name any function, such as `os.system`, and the environment would call it.
"""

from __future__ import annotations

import inspect
import sys
import types
from typing import Any

import numpy as np

from ..kinds import references
from . import callables, objects
from .capturing import Capture
from .families import Parts

_HARMLESS = frozenset({*references.BUILTINS, frozenset, object, np.ndarray})
_HARMLESS_METHODS = (
    *("random:Random.", "collections:", "threading:Condition."),
    *("numpy.random._generator:Generator.", "numpy.random.mtrand:RandomState."),
)
# Libraries whose functions could do harm, as some of the standard library do.
_LIBRARIES = frozenset({"numpy", "jax", "jaxlib", "torch"})


class Reached:
    """Code that a live environment reaches.

    Args:
      env: The environment.
      parts: The parts.

    Attributes:
      functions: Functions by name and digest of their code.
    """

    def __init__(self, env: Any, parts: Parts) -> None:
        walk = Capture(parts.left_alone())
        walk.walk(env)
        self.functions: dict[tuple[str, str], Any] = {}
        self._code: dict[int, Any] = {}
        self._modules: set[str] = set()
        for value in walk.found:
            cls = type(value)
            self._code[id(cls)] = cls
            module = objects.module_of(cls)
            root = module.partition(".")[0]
            if root not in sys.stdlib_module_names and root not in _LIBRARIES:
                self._modules.add(module)
            if inspect.isroutine(value) or isinstance(value, type | types.ModuleType):
                self._code[id(value)] = value
            if type(value) is types.FunctionType:
                key = objects.name_of(value), callables.digest(value.__code__)
                self.functions[key] = value

    def has(self, value: Any) -> bool:
        """Return whether the environment reaches a class, a function or a module."""
        return id(value) in self._code

    def knows(self, value: Any) -> bool:
        """Return whether it does, or a module has it that has one of its classes."""
        if isinstance(value, type):
            if value in _HARMLESS or issubclass(value, np.generic):
                return True
        elif isinstance(value, np.ufunc):
            return True
        return self.has(value) or objects.module_of(value) in self._modules

    def knows_method(self, function: Any) -> bool:
        """Return the same of the function of a method."""
        name = objects.name_of(function)
        return name.startswith(_HARMLESS_METHODS) or self.knows(function)

    def named(self, name: str) -> Any:
        """Return what a module has under a name; None if it is not known."""
        if name.endswith(":"):
            found = sys.modules.get(name[:-1])
            return found if self.has(found) else None
        found = references.find(name)
        is_known = found is not None and (self.knows(found) or not callable(found))
        return found if is_known else None

"""Pickles of objects that only pickle can hold; arrays in them are stored elsewhere.

Cloudpickle writes them: it also takes functions and classes of `__main__`. Pickle reads
them, which runs code, so the caller must have allowed it.
"""

from __future__ import annotations

import contextlib
import copyreg
import functools
import importlib
import io
import operator
import pickle
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

from ..user import attributes
from . import closures, losses, reductions, references, torch_kinds

_IN_MEMORY = (io.BytesIO, io.StringIO)
# Modules that pickles in older saves refer to, and where they are now.
_MOVED = {
    f"elementsckpt.{name}": f"elementsckpt.{package}.{name}"
    for package, names in {
        "kinds": ("pickles", "closures", "reductions"),
        "components": ("files", "rng", "value", "wrappers"),
        "directory": ("retention",),
        "run": ("schedule",),
    }.items()
    for name in names
}


# Where an object is that is stored outside of the pickle: a position among the parts of
# the pickle; or such a position, and an index into the list that is this part.
Place = int | tuple[int, int]


def dump(
    value: Any,
    out_of_band: Callable[[Any], Place | None],
    lost: Callable[[type, list[str]], None] | None = None,
    *,
    by_path: bool = False,
) -> bytes:
    """Pickle a value.

    Args:
      value: The object to pickle.
      out_of_band: Called with each object inside; returns where the object is stored
        outside of the pickle, or None to pickle it.
      lost: Called with the class of an object whose own pickling leaves out a part of
        its state, and the names of these attributes.
      by_path: Whether to pickle classes and functions of the program by name only, and
        functions without an import path without data of the program.

    Raises:
      DataError: `by_path` is set, and a function needs such data.
      Exception: an object's own pickling may raise anything.
    """
    file = io.BytesIO()
    # True: buffers go into the pickle. Arrays are stored outside by persistent_id.
    pickler = _pickler_class()(
        file, protocol=reductions.PROTOCOL, buffer_callback=lambda _: True
    )
    pickler.out_of_band, pickler.lost, pickler.by_path = out_of_band, lost, by_path
    pickler.dump(value)
    return file.getvalue()


def load(payload: Any, parts: Sequence[Any] = ()) -> Any:
    """Unpickle an object; this can run any code.

    Args:
      payload: The pickle, bytes-like.
      parts: Objects that are stored outside of the pickle, by position.

    Raises:
      Exception: the code that it runs may raise anything.
    """
    return _Unpickler(io.BytesIO(payload), parts).load()


@functools.cache
def _pickler_class() -> Any:
    """Return cloudpickle's class, with our methods added."""
    return type("Pickler", (_Pickling, _cloudpickle().Pickler), {})


def _cloudpickle() -> Any:
    # Imported when needed: importing takes a while, and most runs never need it.
    return importlib.import_module("cloudpickle")


class _Pickling(pickle.Pickler):
    """Our methods of a pickler, which otherwise is cloudpickle's; see `dump`."""

    out_of_band: Callable[[Any], Place | None]
    lost: Callable[[type, list[str]], None] | None
    by_path: bool

    def persistent_id(self, value: Any) -> Place | None:
        return self.out_of_band(value)

    def reducer_override(self, value: Any) -> Any:
        if attributes.is_instance(value, io.IOBase) and type(value) not in _IN_MEMORY:
            raise TypeError("an open file")  # Cloudpickle would save its content.
        # Everything with an import path is pickled by reference: jitted functions, for
        # example, are objects whose content pickle would save.
        path = references.path_of(value) if callable(value) else None
        if self.by_path and references.is_jax_array_class(value):
            return getattr, (sys.modules["jax"], "Array")
        if path is not None:
            return path.partition(":")[2]
        name = references.name_in_main(value)
        if name is not None and self.by_path:
            return _in_main, (name,)
        if name is not None:
            return _of_main, (name, _cloudpickle().dumps(value))
        reduced: Any = torch_kinds.reduce(value)
        if reduced is None and type(value) not in self.dispatch_table:
            reduced = reductions.reduce(value)
        if reduced is None:
            reduction: Any = super().reducer_override(value)
            if self.by_path and type(value) is types.FunctionType:
                return closures.reduce(value, reduction)
            if self.lost is None or reduction is not NotImplemented:
                return reduction
        if not self._may_lose(type(value)):
            return NotImplemented if reduced is None else reduced
        if reduced is None:
            reduce = self.dispatch_table.get(type(value))
            own = operator.methodcaller("__reduce_ex__", reductions.PROTOCOL)
            reduced = (reduce or own)(value)
        self._tell_of_losses(value, reduced)
        return reduced

    def _may_lose(self, cls: Any) -> bool:
        if self.lost is None:
            return False
        if self.dispatch_table.get(cls) is not copyreg.dispatch_table.get(cls):
            return False  # Cloudpickle has its own reduction.
        with contextlib.suppress(Exception):  # Metaclasses may raise anything,
            return losses.may_lose(cls)
        return False

    def _tell_of_losses(self, value: Any, reduction: Any) -> None:
        found = []
        with contextlib.suppress(Exception):  # and so may attributes.
            found = losses.lost(value, reduction)
        if found and self.lost is not None:
            self.lost(type(value), found)


def _of_main(name: str, pickled: bytes) -> Any:
    """Return the object of this name in the program now, or else the saved one.

    A program that resumes has its own classes, maybe corrected ones. Another program,
    such as for evaluation, may lack them.
    """
    found = references.find_in_main(name)
    return pickle.loads(pickled) if found is None else found


def _in_main(name: str) -> Any:
    """Return the object of this name in the program now."""
    found = references.find_in_main(name)
    if found is None:
        raise AttributeError(f"this program does not define {name}")
    return found


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, parts: Sequence[Any]) -> None:
        super().__init__(file)
        self._parts = parts

    def persistent_load(self, place: Any) -> Any:
        if isinstance(place, tuple):
            position, index = place
            return self._parts[position][index]
        return self._parts[place]

    def find_class(self, module: str, name: str) -> Any:
        module = _MOVED.get(module, module)
        try:
            return super().find_class(module, name)
        except ModuleNotFoundError:  # NumPy 2 renamed the modules in pickles of arrays.
            if module.startswith("numpy._core"):
                module = module.replace("numpy._core", "numpy.core")
                return super().find_class(module, name)
            raise

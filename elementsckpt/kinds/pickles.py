"""What only pickle can hold, with the arrays in it kept out of the pickle.

Writing: cloudpickle, which also takes functions and classes of `__main__`. Reading:
pickle, which runs code, so it is allowed or refused by the caller.
"""

from __future__ import annotations

import contextlib
import copyreg
import functools
import io
import pickle
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

from ..user import attributes
from . import closures, losses, reductions, references, torch_pickles

_IN_MEMORY = (io.BytesIO, io.StringIO)
# Where saves say that something is, and where it is now.
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


# Where an object is that is stored elsewhere: a position among the parts of the pickle;
# or such a position, and a place in the list that is there.
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
      value: What to pickle.
      out_of_band: Called with each object inside; returns where the object is stored
        elsewhere, or None to pickle it.
      lost: Called with the class of an object whose own pickling leaves out a part of
        its state, and the names of these attributes.
      by_path: Whether classes and functions of the program itself are in it by their
        names alone, and others without an import path without data of the program.

    Raises:
      DataError: `by_path`, and a function cannot do without such data.
      Exception: whatever the object's own pickling raises.
    """
    file = io.BytesIO()
    _pickler_class()(file, out_of_band, lost, by_path).dump(value)
    return file.getvalue()


def load(payload: Any, parts: Sequence[Any] = ()) -> Any:
    """Unpickle, which can run any code.

    Args:
      payload: The pickle, bytes-like.
      parts: What is stored elsewhere, by position.

    Raises:
      Exception: whatever the code that it runs raises.
    """
    return _Unpickler(io.BytesIO(payload), parts).load()


@functools.cache
def _pickler_class() -> Any:
    import cloudpickle  # Here, as most runs never need it, and it takes a while.

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def __init__(
            self,
            file: Any,
            out_of_band: Callable[[Any], Place | None],
            lost: Callable[[type, list[str]], None] | None,
            by_path: bool,
        ) -> None:
            # True: buffers go into the pickle; arrays have been taken out before.
            super().__init__(
                file, protocol=reductions.PROTOCOL, buffer_callback=lambda _: True
            )
            self._out_of_band = out_of_band
            self._lost = lost
            self._by_path = by_path

        def persistent_id(self, value: Any) -> Place | None:
            return self._out_of_band(value)

        def reducer_override(self, value: Any) -> Any:
            if (
                attributes.is_instance(value, io.IOBase)
                and type(value) not in _IN_MEMORY
            ):
                raise TypeError("an open file")  # Cloudpickle would save its content.
            # By reference whatever can be found again: jitted functions, for example,
            # are objects that pickle would otherwise take apart.
            path = references.path_of(value) if callable(value) else None
            if self._by_path and references.is_jax_array_class(value):
                return getattr, (sys.modules["jax"], "Array")
            if path is not None:
                return path.partition(":")[2]
            name = references.name_in_main(value)
            if name is not None and self._by_path:
                return _in_main, (name,)
            if name is not None:
                return _of_main, (name, cloudpickle.dumps(value))
            reduced = torch_pickles.reduce(value)
            if reduced is None and type(value) not in self.dispatch_table:
                reduced = reductions.reduce(value)
            if reduced is None:
                reduction = super().reducer_override(value)
                if self._by_path and type(value) is types.FunctionType:
                    return closures.reduce(value, reduction)
                if self._lost is None or reduction is not NotImplemented:
                    return reduction
            if not self._may_lose(type(value)):
                return NotImplemented if reduced is None else reduced
            if reduced is None:
                reduce = self.dispatch_table.get(type(value))
                if reduce is None:
                    reduced = value.__reduce_ex__(reductions.PROTOCOL)
                else:
                    reduced = reduce(value)
            self._tell_of_losses(value, reduced)
            return reduced

        def _may_lose(self, cls: Any) -> bool:
            if self._lost is None:
                return False
            if self.dispatch_table.get(cls) is not copyreg.dispatch_table.get(cls):
                return False  # Cloudpickle's own.
            with contextlib.suppress(Exception):  # Metaclasses may do anything,
                return losses.may_lose(cls)
            return False

        def _tell_of_losses(self, value: Any, reduction: Any) -> None:
            found = []
            with contextlib.suppress(Exception):  # and so may attributes.
                found = losses.lost(value, reduction)
            if found and self._lost is not None:
                self._lost(type(value), found)

    return Pickler


def _of_main(name: str, pickled: bytes) -> Any:
    """Return what has this name in the program now, or else what had it then.

    A program that resumes has its classes already, and maybe mended; another one, such
    as for evaluation, may lack them.
    """
    found = references.find_in_main(name)
    return pickle.loads(pickled) if found is None else found


def _in_main(name: str) -> Any:
    """Return what has this name in the program now."""
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
        except ModuleNotFoundError:  # NumPy 2 renamed what arrays are pickled by.
            if module.startswith("numpy._core"):
                module = module.replace("numpy._core", "numpy.core")
                return super().find_class(module, name)
            raise

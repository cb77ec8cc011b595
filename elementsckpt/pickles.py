"""What only pickle can hold, with the arrays in it kept out of the pickle.

Writing: cloudpickle, which also takes functions and classes of `__main__`. Reading:
pickle, which runs code, so it is allowed or refused by the caller.
"""

from __future__ import annotations

import functools
import io
import pickle
from collections.abc import Callable
from typing import Any

from . import attributes, reductions, references

_PROTOCOL = 5
_IN_MEMORY = (io.BytesIO, io.StringIO)


def dump(value: Any, out_of_band: Callable[[Any], int | None]) -> bytes:
    """Pickle a value.

    Args:
      value: What to pickle.
      out_of_band: Called with each object inside; returns the number under which the
        object is stored elsewhere, or None to pickle it.

    Raises:
      Exception: whatever the object's own pickling raises.
    """
    file = io.BytesIO()
    _pickler_class()(file, out_of_band).dump(value)
    return file.getvalue()


def _no_parts(number: Any) -> Any:
    raise pickle.UnpicklingError("a persistent reference")


def load(payload: Any, parts: Callable[[Any], Any] = _no_parts) -> Any:
    """Unpickle, which can run any code.

    Args:
      payload: The pickle, bytes-like.
      parts: Returns an out-of-band object of what `dump` wrote, by number.

    Raises:
      Exception: whatever the code that it runs raises.
    """
    return _Unpickler(io.BytesIO(payload), parts).load()


@functools.cache
def _pickler_class() -> Any:
    import cloudpickle  # Here, as most runs never need it, and it takes a while.

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def __init__(self, file: Any, out_of_band: Callable[[Any], int | None]) -> None:
            # True: buffers go into the pickle; arrays have been taken out before.
            super().__init__(file, protocol=_PROTOCOL, buffer_callback=lambda _: True)
            self._out_of_band = out_of_band

        def persistent_id(self, value: Any) -> int | None:
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
            if path is not None:
                return path.partition(":")[2]
            name = references.name_in_main(value)
            if name is not None:
                return _of_main, (name, cloudpickle.dumps(value))
            reduced = reductions.reduce(value)
            if reduced is not None and type(value) not in self.dispatch_table:
                return reduced
            return super().reducer_override(value)

    return Pickler


def _of_main(name: str, pickled: bytes) -> Any:
    """Return what has this name in the program now, or else what had it then.

    A program that resumes has its classes already, and maybe mended; another one, such
    as for evaluation, may lack them.
    """
    found = references.find_in_main(name)
    return pickle.loads(pickled) if found is None else found


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, parts: Callable[[int], Any]) -> None:
        super().__init__(file)
        self._parts = parts

    def persistent_load(self, number: Any) -> Any:
        return self._parts(number)

    def find_class(self, module: str, name: str) -> Any:
        try:
            return super().find_class(module, name)
        except ModuleNotFoundError:  # NumPy 2 renamed what arrays are pickled by.
            if module.startswith("numpy._core"):
                module = module.replace("numpy._core", "numpy.core")
                return super().find_class(module, name)
            raise

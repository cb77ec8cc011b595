"""What the system does with a signal, which may be code that Python does not know of.

Such code is of `faulthandler.register`, of libraries written in other languages, or of
a program that embeds Python.
"""

from __future__ import annotations

import functools
from typing import Any

_BYTES = 512  # More than a `struct sigaction` has anywhere.


def get(number: int) -> bytes | None:
    """Return what the system does with a signal, or None where that cannot be told."""
    sigaction = _sigaction()
    if sigaction is None:
        return None
    import ctypes  # Here, as it takes a while, and most runs watch nothing.

    memory = ctypes.create_string_buffer(_BYTES)
    return None if sigaction(int(number), None, memory) else memory.raw


def put(number: int, action: bytes) -> None:
    """Have the system do what `get` has returned, with all its flags."""
    sigaction = _sigaction()
    if sigaction is not None:
        sigaction(int(number), action, None)


def code_of(action: bytes) -> int:
    """Return the address of the code that is run, or SIG_DFL or SIG_IGN."""
    import ctypes

    return ctypes.c_void_p.from_buffer_copy(action).value or 0


@functools.cache
def _sigaction() -> Any:
    """Return the function of the C library, or None where there is none."""
    try:
        import ctypes

        return ctypes.CDLL(None).sigaction
    except (ImportError, OSError, AttributeError):
        return None

"""Gets and sets the system's action for a signal, which Python may not know.

`faulthandler.register`, libraries written in other languages, and programs that embed
Python set such actions.
"""

from __future__ import annotations

import functools
from typing import Any

_BYTES = 512  # More than a `struct sigaction` has anywhere.


def get(number: int) -> bytes | None:
    """Return the system's action for a signal, or None if it is not known."""
    sigaction = _sigaction()
    if sigaction is None:
        return None
    import ctypes  # Importing it takes a while, and most runs watch no signals.

    memory = ctypes.create_string_buffer(_BYTES)
    return None if sigaction(int(number), None, memory) else memory.raw


def put(number: int, action: bytes) -> None:
    """Set the system's action to one that `get` returned, with all its flags."""
    sigaction = _sigaction()
    if sigaction is not None:
        sigaction(int(number), action, None)


def code_of(action: bytes) -> int:
    """Return the address of the handler, or SIG_DFL or SIG_IGN."""
    import ctypes

    return ctypes.c_void_p.from_buffer_copy(action).value or 0


@functools.cache
def _sigaction() -> Any:
    """Return the function of the C library, or None if it is not found."""
    try:
        import ctypes

        return ctypes.CDLL(None).sigaction
    except (ImportError, OSError, AttributeError):
        return None

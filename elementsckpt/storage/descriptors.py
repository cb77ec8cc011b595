"""Descriptors: each is closed exactly once, and can be locked."""

from __future__ import annotations

import fcntl
import functools
import operator
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

Buffer = Any  # One-dimensional bytes: bytes, bytearray, memoryview, uint8 ndarray.
CALL_BYTES = 1 << 30  # Linux transfers at most 2 GiB a call.
FOLDER = os.O_RDONLY | os.O_DIRECTORY | getattr(os, "O_CLOEXEC", 0)


class _Closing(functools.partial[Any]):
    """Is called when it is collected."""

    __del__ = property(operator.attrgetter("__call__"))


class Descriptor:
    """An open file or folder, closed when the object is collected.

    Ctrl-C and other handlers of signals may run between any two steps of Python: after
    a file was opened and before its number is kept, or after it was closed and before
    its number is forgotten. Here each of these pairs is one step, a call of code in C,
    and so is the collection of the object.

    Args:
      call: What opens it and returns its number.
      args: Arguments for that.

    Attributes:
      close: Closes it, once; in `finally`, no handler runs before it.
    """

    def __init__(self, call: Callable[..., int], *args: Any) -> None:
        self._numbers = [-1]  # The last one is above -1 while it is open.
        take = iter(self._numbers.pop, -1)
        self.close: Callable[[], object] = _Closing(next, map(os.close, take), None)
        self._numbers.extend(map(call, *zip(args)))

    @property
    def fd(self) -> int:
        """Its number, or -1; a thread that uses it must hold the object meanwhile."""
        return self._numbers[-1] if self._numbers else -1


def open_folder(path: Path) -> Descriptor | None:
    """Open a folder, to lock it; None if the system refuses."""
    try:
        return Descriptor(os.open, path, FOLDER)
    except OSError:
        return None


def lock(fd: int) -> bool | None:
    """Lock a file or folder without waiting; the end of the process frees the lock.

    Returns:
      Whether it was free, or None if the file system has no locks.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError:
        return None


def is_at(fd: int, path: Path) -> bool:
    """Return whether the open file or folder is the one at this path now."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        return False


def is_removed(fd: int) -> bool:
    """Return whether the open file has no name any more; False if that is refused."""
    try:
        return os.fstat(fd).st_nlink == 0
    except OSError:
        return False

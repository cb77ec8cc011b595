"""Tells of other processes that write to the same directory.

That they do corrupts nothing, with or without locks: each save has a folder of its own.
But they remove each other's saves, and which is the newest is a matter of chance.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable
from pathlib import Path

from . import disk, lineage
from .folder import Found

_logger = logging.getLogger("elementsckpt")


class Claim:
    """That this process writes to a directory, until the object is gone.

    Args:
      directory: The directory, which must exist. It is what is locked, so that no file
        is needed, and the death of the process frees it.
      newest: Its newest save, or None.

    Attributes:
      is_contested: Whether another process has one, too.
    """

    def __init__(self, directory: Path, newest: Found | None) -> None:
        self.pid = os.getpid()
        self._fd = disk.open_folder(directory)
        self.is_contested = self._fd >= 0 and disk.lock(self._fd) is False
        if self.is_contested:
            _warn(directory, newest)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if self._fd >= 0:  # Bound, as modules are empty when Python ends.
            close(self._fd)


_claims: weakref.WeakValueDictionary[str, Claim] = weakref.WeakValueDictionary()


def claim(directory: Path, newest: Found | None) -> Claim:
    """Return the claim of this process on a directory, all objects of it the same.

    If another process has one, that is logged as a warning, once.

    Args:
      directory: The directory, which must exist.
      newest: Its newest save, or None.
    """
    key = os.path.realpath(directory)
    found = _claims.get(key)
    if found is None or found.pid != os.getpid():
        found = _claims[key] = Claim(directory, newest)
    return found


def _warn(directory: Path, newest: Found | None) -> None:
    who = "Another process"
    last = None if newest is None or newest.head is None else newest.head.lineage
    if last is not None and last.pid is not None:
        is_here = last.host == lineage.host()
        if is_here and last.pid == os.getpid():
            return  # Two threads of this process, at the same moment.
        if not is_here or _is_alive(last.pid):
            who = f"Process {last.pid} on {last.host}"
    _logger.warning(
        "%s is writing to %s, too. Each save is whole, but the two remove each other's "
        "saves, and load_or_save() resumes whichever was last. End one, or give this "
        "one a directory of its own.",
        who,
        directory,
    )


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # It is somebody else's.
        return True
    return True

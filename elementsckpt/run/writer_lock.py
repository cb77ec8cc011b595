"""Warns when another process writes to the same directory.

Concurrent writers corrupt nothing, with or without locks: each save has a folder of its
own. But they remove each other's saves, and which is the newest is a matter of chance.
"""

from __future__ import annotations

import logging
import os
import weakref
from pathlib import Path

from ..directory.listing import SaveEntry
from ..storage import descriptors, paths
from ..system import forks, job
from . import provenance

_logger = logging.getLogger("elementsckpt")


class WriterLock:
    """Says that this process writes to a directory, until the object is gone.

    Args:
      directory: The directory, which must exist. It is what is locked, so that no file
        is needed, and the death of the process frees it.

    Attributes:
      is_contested: Whether another process has the lock.
    """

    def __init__(self, directory: Path) -> None:
        self.is_contested = False
        self._directory = directory
        self._is_tried = False
        self._is_told = False  # Which process has it.
        self._folder = descriptors.open_folder(directory)
        forks.watch(self)

    def acquire(self, newest: SaveEntry | None) -> None:
        """Try to lock the directory, once; warn if another process has done so.

        Which process that is, its first save tells; so the warning comes again then.

        Args:
          newest: The newest save in the directory, or None.
        """
        is_new = not self._is_tried
        if is_new:
            folder = self._folder
            self.is_contested = (
                folder is not None and descriptors.lock(folder.fd) is False
            )
            self._is_tried = True
        if self.is_contested and not self._is_told:
            who = _writer(newest)
            self._is_told = who is not None
            if is_new or who is not None:
                _warn(self._directory, who or "Another process")

    def is_of(self, directory: Path) -> bool:
        """Return whether it is of this directory, not of one that was moved away."""
        return self._folder is not None and descriptors.is_at(
            self._folder.fd, directory
        )

    def _after_fork(self) -> None:
        if self._folder is not None:
            self._folder.close()  # Or a child that outlives its parent would hold it.


_locks: weakref.WeakValueDictionary[str, WriterLock] = weakref.WeakValueDictionary()


def lock_for_writing(directory: Path, newest: SaveEntry | None) -> WriterLock:
    """Return the lock of this process on a directory, the same one for all objects.

    If another process has one, that is logged as a warning.

    Args:
      directory: The directory, which must exist.
      newest: Its newest save, or None.
    """
    key = str(paths.real(directory))
    found = _locks.get(key)
    if found is not None and not found.is_of(directory):
        _locks.pop(key, None)
        found = None
    if found is None:
        # Not simply the new one: a thread or a signal handler may have been faster.
        found = _locks.setdefault(key, WriterLock(directory))
    found.acquire(newest)
    return found


def _writer(newest: SaveEntry | None) -> str | None:
    """Return the process that made the save, if it may be the one that is met."""
    last = None if newest is None or newest.head is None else newest.head.lineage
    if last is None or last.pid is None:
        return None
    is_here = last.host == provenance.host()
    if is_here and (last.pid == os.getpid() or not _is_alive(last.pid)):
        return None
    return f"Process {last.pid} on {last.host}"


def _warn(directory: Path, who: str) -> None:
    own = job.current()
    _logger.warning(
        "%s is writing to %s, too. Each save is whole, but the two remove each other's "
        "saves, and load_or_save() resumes whichever was last. %s",
        who,
        directory,
        "End one, or give this one a directory of its own."
        if own is None
        else f"Both may be of one job, of which this is {own}: let one of them write, "
        f"with Checkpoint(..., write=rank == 0), and call the same methods in all.",
    )


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # It is another user's.
        return True
    return True

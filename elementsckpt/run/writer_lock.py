"""Warns when another process writes to the same directory.

Concurrent writers corrupt nothing, with or without locks: each save has a folder of its
own. But they remove each other's saves, and chance decides which save is the newest.
"""

from __future__ import annotations

import logging
import os
import weakref
from pathlib import Path

from ..directory.entries import SaveEntry
from ..storage import descriptors, paths
from ..system import forks, job

_logger = logging.getLogger("elementsckpt")


class WriterLock:
    """Marks a directory as one that this process writes to, while the object lives.

    Args:
      directory: The directory, which must exist. The lock is on the directory itself,
        so it needs no file, and the death of the process frees it.

    Attributes:
      is_contested: Whether another process has the lock; None before `acquire`.
    """

    def __init__(self, directory: Path) -> None:
        self.is_contested: bool | None = None
        self._directory = directory
        self._is_named = False  # Whether a warning named the other process.
        self._folder = descriptors.open_folder(directory)
        forks.watch(self)

    def acquire(self, newest: SaveEntry | None) -> None:
        """Try to lock the directory, once; warn if another process has the lock.

        The first save of the other process names it, so this warns again then.

        Args:
          newest: The newest save in the directory, or None.
        """
        is_new, folder = self.is_contested is None, self._folder
        if is_new:
            self.is_contested = (
                folder is not None and descriptors.lock(folder.fd) is False
            )
        if self.is_contested and not self._is_named:
            who = _writer(newest)
            self._is_named = who is not None
            if is_new or self._is_named:
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
    """Return the lock of this process on a directory, one for all objects.

    If another process has a lock, this logs a warning.

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
        # A thread or a signal handler may have been faster.
        found = _locks.setdefault(key, WriterLock(directory))
    found.acquire(newest)
    return found


def _writer(newest: SaveEntry | None) -> str | None:
    """Return the process that made a save, if it can be the one with the lock."""
    last = None if newest is None or newest.head is None else newest.head.lineage
    if last is None or last.pid is None:
        return None
    is_here = last.host == os.uname().nodename
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
        else f"Both may be of one job, in which this is {own}: let one of them write, "
        f"with Checkpoint(..., write=rank == 0), and call the same methods in all.",
    )


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:  # Otherwise, the process is another user's.
        return not isinstance(error, ProcessLookupError)
    return True

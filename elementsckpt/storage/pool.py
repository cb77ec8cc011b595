"""Files that stay open to be read again, with one budget for the whole process.

An open file can be read after its save was removed. So as many files stay open as leave
enough descriptors to the program.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import itertools
import mmap
import os
import resource
import sys
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import ReadError
from .descriptors import Descriptor
from .files import File
from .store import OpenSegment

if TYPE_CHECKING:
    import numpy as np

_FILES_SHARE = 4  # Of the descriptors that this process may have.
_MAPS_SHARE = 2
_MAPS_NEED_THEM = sys.version_info < (3, 13)
_SPARED = 16  # Descriptors that a map must leave free, whoever has the others.
# Owners of open files, by number of the owner and of the file, the last used at the
# end. Changed by atomic calls only, as threads, signal handlers and forked children use
# it. An owner may be gone, and its files with it.
_used: collections.OrderedDict[tuple[int, int], weakref.ref[Opened]]
_used = collections.OrderedDict()
_maps: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
_owners = itertools.count()


class Opened:
    """The open files of one owner, closed when this object is collected."""

    def __init__(self) -> None:
        self._owner = next(_owners)
        self._files: dict[int, OpenSegment] = {}

    def get(self, number: int, opens: Callable[[int], OpenSegment]) -> OpenSegment:
        """Return an open file; it stays open while the caller holds it.

        Args:
          number: Number of the file.
          opens: Opens it.
        """
        key = self._owner, number
        file = self._files.get(number)
        if file is None:
            file = self._files[number] = _opened(number, opens)
            _used[key] = weakref.ref(self)
        with contextlib.suppress(KeyError):  # Another thread may have let it go.
            _used.move_to_end(key)
        while _count() > _budget(_FILES_SHARE):
            _let_go()
        return file

    def let_go(self, number: int) -> None:
        """Close a file, unless it is in use."""
        self._files.pop(number, None)

    def close(self) -> None:
        """Close the files, which must not be in use."""
        for number in tuple(self._files):
            _used.pop((self._owner, number), None)
            file = self._files.pop(number, None)
            if file is not None:
                file.close()


def has_room() -> bool:
    """Return whether another file can be open without closing one."""
    return _count() < _budget(_FILES_SHARE)


def _count() -> int:
    """Return how many files are open, an upper bound while it is below the budget."""
    if len(_used) >= _budget(_FILES_SHARE):
        for key, owner in list(_used.items()):
            if owner() is None:
                _used.pop(key, None)
    return len(_used)


def map_file(file: File) -> np.ndarray | None:
    """Map a file copy-on-write; return None if it must be read instead."""
    import numpy as np

    if _MAPS_NEED_THEM and not _may_map(file):
        return None
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    options: Any = {} if _MAPS_NEED_THEM else {"trackfd": False}
    try:
        content = mmap.mmap(file.fd, file.size, mmap.MAP_PRIVATE, protection, **options)
    except OSError:
        return None
    _maps.add(content)
    return np.frombuffer(content, np.uint8)


def _may_map(file: File) -> bool:
    """Return whether there are descriptors for this map and enough others."""
    if len(_maps) >= _budget(_MAPS_SHARE):
        return False
    taken: list[Descriptor] = []  # Closed when this returns.
    try:
        while len(taken) <= _SPARED:
            taken.append(Descriptor(os.dup, file.fd))
    except OSError:
        return False
    return True


def _budget(share: int) -> int:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit // share


def _opened(number: int, opens: Callable[[int], OpenSegment]) -> OpenSegment:
    try:
        return opens(number)
    except ReadError as error:
        if getattr(error.__cause__, "errno", None) not in (errno.EMFILE, errno.ENFILE):
            raise
        # Too many files are open, perhaps because of these.
        while _used:
            _let_go()
        return opens(number)


def _let_go() -> None:
    """Close the file that was used least recently, unless it is in use."""
    with contextlib.suppress(KeyError):  # Another thread was faster.
        (_, number), owner = _used.popitem(last=False)
        opened = owner()
        if opened is not None:
            opened.let_go(number)

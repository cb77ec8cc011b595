"""Memory for the copies that a background save owns, reused from save to save."""

from __future__ import annotations

import contextlib
import mmap
import threading
from typing import Any

import numpy as np

from ..format.sizes import DEFAULT
from ..system import forks
from ..system.memory import has_room, may_map

_ALIGN = 64


class Arenas:
    """Holds copies, up to a limit; threads may copy at the same time.

    Args:
      limit_bytes: How many bytes there may be, as far as there is memory.
      arena_bytes: In pieces of what size.
    """

    def __init__(self, limit_bytes: int, arena_bytes: int = DEFAULT.arena) -> None:
        self._arena_bytes = arena_bytes
        self.limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._arenas: list[np.ndarray] = []
        self._current = 0  # Number of the arena in use,
        self._used = 0  # and how much of it is.
        forks.watch(self)

    def like(self) -> Arenas:
        """Return others of the same sizes."""
        return Arenas(self.limit_bytes, self._arena_bytes)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    def copy(self, data: Any) -> np.ndarray | None:
        """Return a copy of uint8[n], or None if there is no room.

        It is valid until `reset`.
        """
        memory = self._allocate(len(data))
        if memory is not None:
            np.copyto(memory, data)
        return memory

    def _allocate(self, size: int) -> np.ndarray | None:
        with self._lock:
            if self._used + size > self._arena_bytes:
                self._current, self._used = self._current + 1, 0
            if self._current == len(self._arenas) and not self._grow():
                return None
            begin = self._used
            self._used += -(-size // _ALIGN) * _ALIGN
            return self._arenas[self._current][begin : begin + size]

    def _grow(self) -> bool:
        size = (len(self._arenas) + 1) * self._arena_bytes
        has_memory = has_room(self._arena_bytes) and may_map(self._arena_bytes)
        if size > self.limit_bytes or not has_memory:
            return False
        # Private: after a fork, the child's copies are its own.
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        try:
            arena = mmap.mmap(-1, self._arena_bytes, flags=flags)
        except OSError:  # As by `ulimit -v`.
            return False
        with contextlib.suppress(AttributeError, OSError):
            arena.madvise(mmap.MADV_HUGEPAGE)  # First use costs page faults.
        self._arenas.append(np.frombuffer(arena, np.uint8))
        return True

    def reset(self) -> None:
        """Make room: all copies made so far are no longer needed."""
        with self._lock:
            self._current = self._used = 0


class Heap:
    """Memory for small copies; they are few, so none is kept."""

    def copy(self, data: Any) -> np.ndarray:
        """Return a copy of uint8[n]."""
        return np.array(data)

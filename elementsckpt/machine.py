"""How much memory there is."""

from __future__ import annotations

import contextlib
import functools
import os
from pathlib import Path

from .errors import ReadError

_LIMITS = (Path("/sys/fs/cgroup/memory.max"),)


@functools.cache
def memory_bytes() -> int:
    """Return the memory that the machine, or a container, has."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in _LIMITS:
        with contextlib.suppress(OSError, ValueError):  # Absent, or "max".
            total = min(total, int(path.read_text()))
    return total


def require_memory(size_bytes: int, path: Path, less: str) -> None:
    """Refuse to begin what cannot end: to load more than there is memory.

    Args:
      size_bytes: What must be in memory at once.
      path: The save that it is in.
      less: How to load less of it, such as " with keys=".

    Raises:
      ReadError: there is less.
    """
    there_bytes = memory_bytes()
    if size_bytes > there_bytes:
        raise ReadError(
            f"{path} does not fit into memory: what is to be loaded has {size_bytes:,} "
            f"bytes, and this machine, or container, has {there_bytes:,}. Load less of "
            f"it{less}, or map its arrays with mmap=True, which does not help where "
            f"they are compressed."
        )

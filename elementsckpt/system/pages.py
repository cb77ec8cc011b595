"""Fresh memory for arrays that are loaded, in huge pages where the system has them.

To touch memory for the first time takes four times as long as to fill it, as the system
makes each page of 4 KiB by itself. Linux makes pages of 2 MiB where it is asked to.
NumPy asks for arrays of 4 MiB or more; this does for those of one page or more.
"""

from __future__ import annotations

import contextlib
import mmap

import numpy as np

ALIGN = 64  # Of the first byte, so that JAX can use the memory without copying.
_PAGE_BYTES = 2 << 20
_NUMPY_BYTES = 4 << 20
_CAN_ASK = hasattr(mmap, "MADV_HUGEPAGE")


def memory(size_bytes: int) -> np.ndarray:
    """Return uint8[size_bytes], aligned, with anything in it.

    Raises:
      MemoryError: there is too little.
    """
    if _CAN_ASK and _PAGE_BYTES <= size_bytes < _NUMPY_BYTES:
        with contextlib.suppress(OSError):  # The limit of mappings is reached, say.
            return _asked_for(size_bytes)
    memory = np.empty(size_bytes + ALIGN, np.uint8)
    start = -memory.__array_interface__["data"][0] % ALIGN
    return memory[start : start + size_bytes]


def _asked_for(size_bytes: int) -> np.ndarray:
    """Return memory in huge pages; Linux aligns it since version 6.7."""
    content = mmap.mmap(-1, size_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    content.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(content, np.uint8)

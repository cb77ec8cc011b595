"""Digests: the xxh3-128 of all bytes of a save."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import xxhash

_PIECE_BYTES = 1 << 20


def digest(data: Any, *more: Any) -> str:
    """Return the xxh3-128 of bytes, as 32 hexadecimal digits."""
    if not more:
        return xxhash.xxh3_128_hexdigest(data)
    found = xxhash.xxh3_128(data)
    for part in more:
        found.update(part)
    return found.hexdigest()


def digest_of(read: Callable[[memoryview, int], None], size: int) -> str:
    """Return the digest of the first bytes of a file, with little of it in memory.

    Args:
      read: Fills memory with the bytes of the file from a position on.
      size: How many bytes of the file.
    """
    found = xxhash.xxh3_128()
    memory = memoryview(bytearray(min(size, _PIECE_BYTES)))
    for start in range(0, size, _PIECE_BYTES):
        piece = memory[: size - start]
        read(piece, start)
        found.update(piece)
    return found.hexdigest()

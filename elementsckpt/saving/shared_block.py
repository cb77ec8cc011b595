"""A block of many small leaves, which ends where their content says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xxhash

from ..format.header import Tensors
from ..format.sizes import Sizes
from .arenas import Arenas, Heap
from .blocks import PREFIX_BYTES, Block, Hold, flat_bytes

_ALIGN = 64


class SharedBlock(Block):
    """A block of several small leaves; leaves can be added until it is closed."""

    def __init__(self, number: int, sizes: Sizes) -> None:
        super().__init__(number, 0)
        self._sizes = sizes
        self._names: list[str] = []
        self._weight = 0
        self._tensors: list[Tensors] = []
        self._chunks: list[np.ndarray | bytes] = []
        self._owned_count = 0  # Of the chunks.
        self._is_stable = True  # The other ones.

    @property
    def leaf_count(self) -> int:  # type: ignore[override]
        """Number of leaves in the block."""
        return len(self._names)

    @property
    def hold(self) -> Hold:
        if self._owned_count == len(self._chunks):
            return Hold.OWNED
        return Hold.STABLE if self._is_stable else Hold.LIVE

    @property
    def names(self) -> list[str]:
        return self._names

    @property
    def tensors(self) -> list[Tensors]:
        return self._tensors

    def room_for(self, storages: Sequence[np.ndarray], start: int) -> tuple[int, bool]:
        """Return up to where it takes these leaves, and whether it ends there."""
        sizes = self._sizes
        weight = max(storages[0].nbytes, sizes.leaf_least)
        room = (sizes.block - _ALIGN - self._weight) // weight
        least = 0 if self._names else 1
        stop = min(len(storages), start + max(least, room))
        first = max(0, (sizes.shared_least - self._weight - 1) // weight)
        end = _end_by_content(storages, start + first, stop, weight, sizes.shared_more)
        if end is not None:
            return end, True
        return stop, stop < len(storages)

    def add(
        self,
        names: Sequence[str],
        tag: str | None,
        storages: Sequence[np.ndarray],
        *,
        is_stable: bool,
    ) -> int:
        """Append leaves of one form, aligned for their elements.

        Returns:
          Where the first begins.
        """
        first, count = storages[0], len(storages)
        size, gap = first.nbytes, -self.size % first.dtype.alignment
        if gap:
            self._chunks.append(bytes(gap))
        begin = self.size + gap
        self.size = begin + size * count
        self._weight += gap + max(size, self._sizes.leaf_least) * count
        shape = (size,) if tag is None else first.shape
        self._tensors.append(Tensors(tag or "U8", shape, begin, size, count))
        self._names += names
        self._chunks += storages
        self._is_stable = self._is_stable and is_stable
        return begin

    def copy_to(self, memory: Arenas | Heap) -> bool:
        new = _joined(self._chunks[self._owned_count :])
        copied = memory.copy(np.frombuffer(new, np.uint8))
        if copied is None:
            return False
        self._chunks[self._owned_count :] = [copied]
        self._owned_count += 1
        self._is_stable = True
        return True

    def data(self) -> np.ndarray | bytes:
        if self._owned_count == len(self._chunks) == 1:
            return self._chunks[0]
        return _joined(self._chunks)

    def first_bytes(self) -> np.ndarray | bytes:
        if self._owned_count:  # All that was there then is one chunk.
            return self.data()
        size = count = 0
        while size < PREFIX_BYTES and count < len(self._chunks):
            chunk = self._chunks[count]
            size += len(chunk) if isinstance(chunk, bytes) else chunk.nbytes
            count += 1
        return _joined(self._chunks[:count])

    def let_go(self) -> None:
        self._chunks = []


def _joined(chunks: Sequence[Any]) -> bytes:
    try:
        return b"".join(chunks)
    except (TypeError, ValueError, BufferError):  # Some are scattered.
        return b"".join(map(_bytes_of, chunks))


def _bytes_of(chunk: np.ndarray | bytes) -> bytes:
    return chunk if isinstance(chunk, bytes) else chunk.tobytes()


def _end_by_content(
    storages: Sequence[np.ndarray], start: int, stop: int, weight: int, more: int
) -> int | None:
    """Return what follows the first leaf whose hash says that a block ends."""
    hash_of: Any = xxhash.xxh3_64_intdigest
    try:
        for index in range(start, stop):
            if hash_of(storages[index]) % more < weight:
                return index + 1
    except (TypeError, ValueError, BufferError):  # They have no buffer.
        for index in range(start, stop):
            if hash_of(flat_bytes(storages[index])) % more < weight:
                return index + 1
    return None

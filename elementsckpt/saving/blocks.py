"""Leaves → blocks: large leaves are cut, small ones gathered.

Where blocks begin follows from the leaves themselves, not from what comes before them.
So data that was saved before gives the same blocks again, wherever it has moved.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import xxhash

from ..format import dtypes
from ..format.header import Tensors
from ..format.manifest import Block, LeafGroup, part_of
from ..kinds import leaves
from .staging import Staging

BLOCK_BYTES = 1 << 20  # What stays in a core's cache from copying to writing.
SMALL_BYTES = 64 << 10  # Leaves below share blocks,
_LEAST_BYTES = 512 << 10  # that from this size on end where a leaf's hash says so,
_CUT_BYTES = 256 << 10  # on average after as many more,
_LEAF_BYTES = 128  # where each leaf counts as many at least.
_ALIGN = 64
_HEAD_BYTES = 4 << 10


class Place(NamedTuple):
    """Where an earlier save holds the content of a block.

    Attributes:
      segment: Its segment's number in that save.
      block: Its entry in the manifest.
      head: `head_of` the content, or None if unknown.
    """

    segment: int
    block: Block
    head: int | None


class Gathered:
    """A block of several small leaves.

    Attributes:
      number: Which block of the component it is.
      size: Its bytes.
      names: Names of the leaves.
      place: Where an earlier save holds the block, or None.
      is_settled: Whether it was looked for in earlier saves.
      digest: Of the content, if it cannot change any more and is known.
      head: `head_of` the content, if it was looked at.
      is_stable: Whether nobody should write to the memory any more.
      is_owned: Whether nobody can, as it is a copy.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.size = 0
        self.names: list[str] = []
        self.place: Place | None = None
        self.is_settled = False
        self.digest: str | None = None
        self.head: int | None = None
        self.is_stable = True
        self._weight = 0
        self._tensors: list[Tensors] = []
        self._chunks: list[np.ndarray | bytes] = []
        self._owned_count = 0  # Of the chunks.

    @property
    def leaf_count(self) -> int:
        """Number of leaves in the block."""
        return len(self.names)

    @property
    def is_owned(self) -> bool:
        return self._owned_count == len(self._chunks)

    def room_for(self, storages: Sequence[np.ndarray], start: int) -> tuple[int, bool]:
        """Return up to where it takes these leaves, and whether it ends there."""
        weight = max(storages[0].nbytes, _LEAF_BYTES)
        room = (BLOCK_BYTES - _ALIGN - self._weight) // weight
        least = 0 if self.names else 1
        stop = min(len(storages), start + max(least, room))
        first = max(0, (_LEAST_BYTES - self._weight - 1) // weight)
        end = _end_by_content(storages, start + first, stop, weight)
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
        self._weight += gap + max(size, _LEAF_BYTES) * count
        shape = (size,) if tag is None else first.shape
        self._tensors.append(Tensors(tag or "U8", shape, begin, size, count))
        self.names += names
        self._chunks += storages
        self.is_stable = self.is_stable and is_stable
        return begin

    def own(self, memory: Staging) -> bool:
        """Copy the leaves that were added since the last call; False without room."""
        new = b"".join(map(_bytes_of, self._chunks[self._owned_count :]))
        copied = memory.copy(np.frombuffer(new, np.uint8))
        if copied is None:
            return False
        self._chunks[self._owned_count :] = [copied]
        self._owned_count += 1
        self.is_stable = True
        return True

    def data(self) -> np.ndarray | bytes:
        """Return the bytes, gathered."""
        if self._owned_count == len(self._chunks) == 1:
            return self._chunks[0]
        return b"".join(map(_bytes_of, self._chunks))

    def tensors(self, packed_size: int | None = None) -> list[Tensors]:
        """Return the leaves in the block, or one tensor for all if it is packed."""
        return self._tensors if packed_size is None else [_packed(packed_size)]

    def release(self) -> None:
        """Let go of the content."""
        self._chunks = []


class Large:
    """A leaf that has blocks of its own.

    Args:
      name: What other tools see.
      tag: Its element type in safetensors' terms, or None if it has none.
      storage: Its elements, whose C order is the order of their bytes.
      is_stable: Whether nobody should write to them any more.
      is_frozen: Whether nobody can.
      owner: Immutable object that has this content, or None; it is not kept alive.

    Attributes:
      pieces: Its blocks.
      is_packed: Whether to compress them; None if that was not asked yet.
    """

    def __init__(
        self,
        name: str,
        tag: str | None,
        storage: np.ndarray,
        *,
        is_stable: bool,
        is_frozen: bool,
        owner: Any = None,
    ) -> None:
        if tag is None and (
            storage.flags.c_contiguous or storage.itemsize > BLOCK_BYTES
        ):
            storage = flat_bytes(storage)
        self._name = name
        self._tag = tag
        self.storage: np.ndarray | None = storage
        self.is_stable = is_stable
        self.is_frozen = is_frozen
        self.owner = None if owner is None else weakref.ref(owner)
        self.is_packed: bool | None = None
        self.pieces: list[Piece] = []
        self._shape = storage.shape
        self._count = len(storage)
        self._unit = storage.nbytes // self._count
        self._is_flat = self._unit > BLOCK_BYTES
        if self._is_flat:  # A row is larger than a block: cut it between elements.
            self._count, self._unit = storage.size, storage.itemsize

    def cut(self, first: int) -> None:
        """Make its blocks, numbered from `first` on."""
        step = BLOCK_BYTES // self._unit
        for number, start in enumerate(range(0, self._count, step), first):
            stop = min(start + step, self._count)
            size = (stop - start) * self._unit
            self.pieces.append(Piece(self, number, start, stop, size))

    def part(self, start: int, stop: int) -> np.ndarray:
        """Return rows, or elements where a row is larger than a block, as bytes."""
        assert self.storage is not None
        if not self._is_flat:
            return flat_bytes(self.storage[start:stop])
        if self.storage.flags.c_contiguous:
            return flat_bytes(self.storage.reshape(-1)[start:stop])
        return flat_bytes(self.storage.flat[start:stop])

    def name_of(self, start: int, stop: int) -> str:
        """Return the name of a range of rows, or elements, or of all of them."""
        is_all = self.is_all(start, stop)
        return self._name if is_all else f"{self._name}[{start}:{stop}]"

    def is_all(self, start: int, stop: int) -> bool:
        """Tell whether a range of rows, or elements, is all of them."""
        return stop - start == self._count

    def tensor(self, start: int, stop: int) -> Tensors:
        """Return a range of rows, or elements, as a tensor."""
        size, shape = (stop - start) * self._unit, self._shape
        if self._tag is None:
            return _packed(size)
        if not self.is_all(start, stop):
            shape = (stop - start, *(() if self._is_flat else shape[1:]))
        return Tensors(self._tag, shape, 0, size, 1)

    def recall(self, digests: Sequence[str] | None) -> None:
        """Set the digests of its blocks, if they are known."""
        for piece, digest in zip(self.pieces, digests or [], strict=False):
            piece.digest = digest

    def release(self) -> None:
        """Let go of the content; its blocks still know what they were part of."""
        self.storage = self.owner = None
        self.pieces = []


class Piece:
    """A block of a large leaf; attributes as of `Gathered`.

    Args:
      leaf: The leaf.
      number: Which block of the component it is.
      start: First row, or element where a row is larger than a block.
      stop: The row or element after the last.
      size: Its bytes.
    """

    __slots__ = (
        *("number", "size", "leaf", "start", "stop"),
        *("place", "is_settled", "digest", "head", "_owned"),
    )
    leaf_count = 1

    def __init__(
        self, leaf: Large, number: int, start: int, stop: int, size: int
    ) -> None:
        self.leaf = leaf
        self.number = number
        self.start = start
        self.stop = stop
        self.size = size
        self.place: Place | None = None
        self.is_settled = False
        self.digest: str | None = None
        self.head: int | None = None
        self._owned: np.ndarray | None = None

    @property
    def is_stable(self) -> bool:
        return self._owned is not None or self.leaf.is_stable

    @property
    def is_owned(self) -> bool:
        return self._owned is not None or self.leaf.is_frozen

    def own(self, memory: Staging) -> bool:
        """Copy the bytes; False without room."""
        self._owned = memory.copy(self.data())
        return self._owned is not None

    def data(self) -> np.ndarray:
        """Return the bytes, uint8[size], without copying unless they are scattered."""
        if self._owned is not None:
            return self._owned
        return self.leaf.part(self.start, self.stop)

    @property
    def names(self) -> list[str]:
        """Name of the leaf, with its rows."""
        return [self.leaf.name_of(self.start, self.stop)]

    def tensors(self, packed_size: int | None = None) -> list[Tensors]:
        """Return the rows, packed or as they are, as one tensor."""
        if packed_size is not None:
            return [_packed(packed_size)]
        return [self.leaf.tensor(self.start, self.stop)]

    def release(self) -> None:
        """Let go of the content."""
        self._owned = None


Part = Gathered | Piece


class Cutter:
    """Gives the leaves of a component their places in blocks.

    Args:
      stem: Name of a leaf that has none.

    Attributes:
      open: The block of small leaves that may still grow, or None.
      count: How many blocks there are so far.
    """

    def __init__(self, stem: str) -> None:
        self.open: Gathered | None = None
        self.count = 0
        self._stem = stem

    def add(
        self,
        groups: Sequence[LeafGroup],
        storages: Sequence[Sequence[np.ndarray]],
        owners: Sequence[Sequence[Any]],
        prefix: str,
    ) -> tuple[list[LeafGroup], list[Part]]:
        """Give leaves their places; nothing is copied yet.

        Args:
          groups: Leaves of one form each; no padding is needed if those of larger
            alignment come first, as sizes are multiples of alignments.
          storages: Of each leaf of each group, its elements, whose C order is the order
            of the bytes; none where they have no bytes.
          owners: Of each leaf of each group, the immutable object whose content that
            is, or None; none where there are none.
          prefix: Start of the leaves' names in segments.

        Returns:
          The groups with their places, divided where their bytes are, and the blocks
          that were begun.
        """
        placed: list[LeafGroup] = []
        parts: list[Part] = []
        for group, arrays, its_owners in zip(groups, storages, owners, strict=True):
            if not arrays or not arrays[0].nbytes:
                placed.append(group)
                continue
            names = [prefix + name or self._stem for name in group.names]
            if arrays[0].nbytes < SMALL_BYTES:
                placed += self._gather(group, names, arrays, parts)
            else:
                placed += self._cut(group, names, arrays, its_owners, parts)
        return placed, parts

    def _gather(
        self,
        group: LeafGroup,
        names: Sequence[str],
        storages: Sequence[np.ndarray],
        parts: list[Part],
    ) -> Iterator[LeafGroup]:
        tag, is_stable = dtypes.tag(group.dtype), leaves.named(group).is_immutable
        start = 0
        while start < len(storages):
            if self.open is None:
                self.open = Gathered(self.count)
                self.count += 1
                parts.append(self.open)
            stop, is_end = self.open.room_for(storages, start)
            if stop > start:
                is_all = stop - start == len(storages)
                part = group if is_all else part_of(group, start, stop)
                part.block = self.open.number
                part.offset = self.open.add(
                    names[start:stop],
                    tag,
                    storages[start:stop],
                    is_stable=is_stable,
                )
                yield part
                start = stop
            if is_end:
                self.open = None

    def _cut(
        self,
        group: LeafGroup,
        names: Sequence[str],
        storages: Sequence[np.ndarray],
        owners: Sequence[Any],
        parts: list[Part],
    ) -> Iterator[LeafGroup]:
        tag, kind = dtypes.tag(group.dtype), leaves.named(group)
        for index, (name, storage) in enumerate(zip(names, storages, strict=True)):
            owner = owners[index] if owners else None
            large = Large(
                name,
                tag,
                storage,
                is_stable=kind.is_immutable,
                is_frozen=kind.is_frozen,
                owner=owner,
            )
            large.cut(self.count)
            is_only = len(storages) == 1
            part = group if is_only else part_of(group, index, index + 1)
            part.block, part.offset = self.count, 0
            self.count += len(large.pieces)
            parts += large.pieces
            yield part

    def close(self) -> None:
        """End the block of small leaves."""
        self.open = None


def head_of(data: Any) -> int:
    """Return a hash of the first bytes, which tells most contents apart."""
    return xxhash.xxh3_64_intdigest(memoryview(data)[:_HEAD_BYTES])


def flat_bytes(array: np.ndarray) -> np.ndarray:
    """Return the elements in C order as bytes, copying only what is scattered."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _packed(size: int) -> Tensors:
    return Tensors("U8", (size,), 0, size, 1)


def _bytes_of(chunk: np.ndarray | bytes) -> bytes:
    return chunk if isinstance(chunk, bytes) else chunk.tobytes()


def _end_by_content(
    storages: Sequence[np.ndarray], start: int, stop: int, weight: int
) -> int | None:
    """Return what follows the first leaf whose hash says that a block ends."""
    hash_of: Any = xxhash.xxh3_64_intdigest
    try:
        for index in range(start, stop):
            if hash_of(storages[index]) % _CUT_BYTES < weight:
                return index + 1
    except (TypeError, ValueError, BufferError):  # They have no buffer.
        for index in range(start, stop):
            if hash_of(flat_bytes(storages[index])) % _CUT_BYTES < weight:
                return index + 1
    return None

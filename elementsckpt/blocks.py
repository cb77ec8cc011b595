"""Leaves → blocks: large leaves are cut, small ones gathered.

Where blocks begin follows from the leaves themselves, not from what comes before them.
So data that was saved before gives the same blocks again, wherever it has moved.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import xxhash

from . import dtypes
from .leaves import IMMUTABLE
from .manifest import Block, Leaf

BLOCK_BYTES = 1 << 20  # What stays in a core's cache from copying to writing.
SMALL_BYTES = 64 << 10  # Leaves below share blocks,
_LEAST_BYTES = 512 << 10  # that from this size on end where a leaf's hash says so,
_CUT_BYTES = 256 << 10  # on average after as many more,
_LEAF_BYTES = 128  # where each leaf counts as many at least.
_ALIGN = 64
_HEAD_BYTES = 4 << 10


class Entry(NamedTuple):
    """A leaf or some of its rows in the header of a segment.

    Attributes:
      name: What other tools see.
      tag: Element type in safetensors' terms.
      shape: Sizes of the axes.
      begin: Where in the block, or run of blocks, it begins.
      end: Where it ends.
    """

    name: str
    tag: str
    shape: tuple[int, ...]
    begin: int
    end: int


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


class Storage(Protocol):
    """Memory for copies."""

    def copy(self, data: Any) -> np.ndarray | None:
        """Return a copy, uint8[n], or None if there is no room."""


class Group:
    """A block of several small leaves.

    Attributes:
      number: Which block of the component it is.
      size: Its bytes.
      place: Where an earlier save holds them, or None.
      is_settled: Whether it was looked for in earlier saves.
      digest: Of the content, if it cannot change any more and is known.
      head: `head_of` the content, if it was looked at.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.size = 0
        self.place: Place | None = None
        self.is_settled = False
        self.digest: str | None = None
        self.head: int | None = None
        self._weight = 0
        self._names: list[str] = []
        self._tags: list[str] = []
        self._shapes: list[tuple[int, ...]] = []
        self._begins: list[int] = []
        self._ends: list[int] = []
        self._owned: list[np.ndarray] = []  # The bytes up to the first of these:
        self._borrowed: list[np.ndarray] = []
        self._borrowed_stable = True
        self._has_gaps = False

    @property
    def leaf_count(self) -> int:
        """Number of leaves in the block."""
        return len(self._names)

    @property
    def is_stable(self) -> bool:
        """Whether nobody writes to the memory any more."""
        return self._borrowed_stable

    @property
    def is_complete(self) -> bool:
        """Whether the last leaf's content ends the block."""
        if self._weight < _LEAST_BYTES:
            return False
        last = self._borrowed[-1]
        return _hash(last) % _CUT_BYTES < max(last.nbytes, _LEAF_BYTES)

    def has_room_for(self, storage: np.ndarray) -> bool:
        """Tell whether the leaf fits, too."""
        weight = max(self._weight, self.size + _ALIGN)
        return weight + max(storage.nbytes, _LEAF_BYTES) <= BLOCK_BYTES

    def add(
        self, name: str, tag: str | None, storage: np.ndarray, *, is_stable: bool
    ) -> int:
        """Append a leaf, aligned for its elements; returns where it begins."""
        alignment, size = storage.dtype.alignment, storage.nbytes
        begin = -(-self.size // alignment) * alignment
        self._has_gaps = self._has_gaps or begin != self.size
        self._weight += max(size, _LEAF_BYTES)
        self._names.append(name)
        self._tags.append(tag or "U8")
        self._shapes.append((size,) if tag is None else storage.shape)
        self._begins.append(begin)
        self._ends.append(begin + size)
        self._borrowed.append(storage)
        self._borrowed_stable = self._borrowed_stable and is_stable
        self.size = begin + size
        return begin

    def own(self, memory: Storage) -> bool:
        """Copy the leaves that were added since the last call; False without room."""
        if not self._borrowed:
            return True
        copied = memory.copy(np.frombuffer(self._gathered(), np.uint8))
        if copied is None:
            return False
        self._owned.append(copied)
        self._borrowed.clear()
        self._borrowed_stable = True
        return True

    def data(self) -> Any:
        """Return the bytes, gathered."""
        if not self._owned:
            return self._gathered()
        if not self._borrowed and len(self._owned) == 1:
            return self._owned[0]
        return b"".join([*cast(list[Any], self._owned), self._gathered()])

    def _gathered(self) -> bytes:
        """Return the bytes of the leaves that are not owned."""
        if not self._has_gaps:
            with contextlib.suppress(TypeError, ValueError, BufferError):
                # All dtypes and layouts that have a buffer, at C speed.
                return b"".join(cast(list[Any], self._borrowed))
        first = len(self._names) - len(self._borrowed)
        position = self._ends[first - 1] if first else 0
        chunks: list[Any] = []
        for index, storage in enumerate(self._borrowed, first):
            chunks += [bytes(self._begins[index] - position), flat_bytes(storage)]
            position = self._ends[index]
        return b"".join(chunks)

    def entries(self, packed_size: int | None = None) -> Iterable[Entry]:
        """Return the leaves in the block, or one entry for all if it is packed."""
        if packed_size is None:
            names, tags, shapes = self._names, self._tags, self._shapes
            return map(Entry, names, tags, shapes, self._begins, self._ends)
        name = self._names[0]
        if len(self._names) > 1:
            name = f"{name} ... {self._names[-1]}"
        return [Entry(name, "U8", (packed_size,), 0, packed_size)]

    def release(self) -> None:
        """Let go of the content."""
        self._owned, self._borrowed = [], []


class Large:
    """A leaf that has blocks of its own.

    Args:
      name: What other tools see.
      tag: Its element type in safetensors' terms, or None if it has none.
      storage: Its elements, whose C order is the order of their bytes.
      is_stable: Whether nobody writes to them any more.
      owner: Immutable object that has this content, or None.

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
        self.owner = owner
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

    def entry(self, start: int, stop: int, packed_size: int | None = None) -> Entry:
        """Return the entry of a range of rows or elements, packed or as it is."""
        name, shape = self._name, self._shape
        if stop - start < self._count:
            name = f"{name}[{start}:{stop}]"
            shape = (stop - start, *(() if self._is_flat else shape[1:]))
        size = (stop - start) * self._unit if packed_size is None else packed_size
        if self._tag is None or packed_size is not None:
            return Entry(name, "U8", (size,), 0, size)
        return Entry(name, self._tag, shape, 0, size)

    def recall(self, digests: Sequence[str] | None) -> None:
        """Set the digests of its blocks, if they are known."""
        for piece, digest in zip(self.pieces, digests or [], strict=False):
            piece.digest = digest

    def release(self) -> None:
        """Let go of the content; its blocks still know what they were part of."""
        self.storage = self.owner = None
        self.pieces = []


class Piece:
    """A block of a large leaf; attributes as of `Group`.

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
        """Whether nobody writes to the memory any more."""
        return self._owned is not None or self.leaf.is_stable

    def own(self, memory: Storage) -> bool:
        """Copy the bytes; False without room."""
        self._owned = memory.copy(self.data())
        return self._owned is not None

    def data(self) -> np.ndarray:
        """Return the bytes, uint8[size], without copying unless they are scattered."""
        if self._owned is not None:
            return self._owned
        return self.leaf.part(self.start, self.stop)

    def release(self) -> None:
        """Let go of the content."""
        self._owned = None


Part = Group | Piece


class Cutter:
    """Gives the leaves of a component their places in blocks.

    Args:
      stem: Name of a leaf that has none.
    """

    def __init__(self, stem: str) -> None:
        self.count = 0  # Of blocks so far.
        self._stem = stem
        self._group: Group | None = None  # Where small leaves go on.

    def add(
        self,
        leaves: Sequence[Leaf],
        storages: Sequence[np.ndarray | None],
        values: Sequence[Any],
        prefix: str,
    ) -> list[Part]:
        """Set `block` and `offset` of leaves; nothing is copied yet.

        Args:
          leaves: The leaves.
          storages: Their elements, whose C order is the order of their bytes.
          values: What the first of the leaves were made from.
          prefix: Start of the leaves' names in segments.

        Returns:
          The blocks that were begun; the last group may grow in the next call.
        """
        parts: list[Part] = []
        small = []
        owned = {n for n, _ in enumerate(values) if leaves[n].kind == "jax"}
        for number, (leaf, storage) in enumerate(zip(leaves, storages, strict=True)):
            if storage is None or storage.nbytes == 0:
                continue
            if storage.nbytes < SMALL_BYTES:
                small.append((leaf, storage))
                continue
            large = Large(
                prefix + leaf.name or self._stem,
                dtypes.tag(leaf.dtype),
                storage,
                is_stable=leaf.kind in IMMUTABLE,
                owner=values[number] if number in owned else None,
            )
            large.cut(self.count)
            leaf.block = self.count
            self.count += len(large.pieces)
            parts += large.pieces
        # In this order no padding is needed: sizes are multiples of alignments.
        small.sort(key=lambda item: -item[1].dtype.alignment)
        for leaf, storage in small:
            group = self._group
            if group is None or not group.has_room_for(storage):
                group = self._group = Group(self.count)
                self.count += 1
                parts.append(group)
            name = prefix + leaf.name or self._stem
            leaf.block = group.number
            tag = dtypes.tag(leaf.dtype)
            is_stable = leaf.kind in IMMUTABLE
            leaf.offset = group.add(name, tag, storage, is_stable=is_stable)
            if group.is_complete:
                self._group = None
        return parts

    @property
    def open(self) -> Group | None:
        """The group that may still grow."""
        return self._group

    def close(self) -> None:
        """End the block of small leaves."""
        self._group = None


def head_of(data: Any) -> int:
    """Return a hash of the first bytes, which tells most contents apart."""
    return xxhash.xxh3_64_intdigest(memoryview(data)[:_HEAD_BYTES])


def flat_bytes(array: np.ndarray) -> np.ndarray:
    """Return the elements in C order as bytes, copying only what is scattered."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _hash(storage: np.ndarray) -> int:
    try:
        return xxhash.xxh3_64_intdigest(cast(Any, storage))
    except (TypeError, ValueError, BufferError):  # It has no buffer.
        return xxhash.xxh3_64_intdigest(cast(Any, flat_bytes(storage)))

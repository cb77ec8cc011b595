"""Blocks of leaves that are being saved; those of a large leaf hold a part of it."""

from __future__ import annotations

import abc
import enum
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xxhash

from ..format.digests import digest
from ..format.header import Tensors
from ..format.manifest import LeafGroup
from ..kinds.remote import Remote, Storage, in_memory
from .arenas import Arenas, Heap

PREFIX_BYTES = 4 << 10


class Hold(enum.IntEnum):
    """Who may write to the memory of a block while it is being saved.

    Attributes:
      LIVE: The program, as soon as `save()` has returned.
      STABLE: Nobody should, as the array is immutable; but memory may be shared.
      OWNED: Nobody can: it is a copy, or bytes.
    """

    LIVE = 0
    STABLE = 1
    OWNED = 2


class Content(NamedTuple):
    """What is written of a block.

    Attributes:
      data: The bytes.
      digest: Of what they hold.
      unpacked: Size of what they hold if they are a zstd frame, else 0.
    """

    data: Any
    digest: str
    unpacked: int = 0


class Block(abc.ABC):
    """A block whose content is in memory.

    Attributes:
      number: Which block of the component it is.
      size: Its bytes.
      leaf_count: Number of leaves that are in it, or that it is a part of.
      prefix_hash: Of the content, if it was looked at.
      digest: Of the content, if it cannot change any more and is known.
    """

    __slots__ = ("digest", "number", "prefix_hash", "size")
    leaf_count: int

    def __init__(self, number: int, size: int) -> None:
        self.number = number
        self.size = size
        self.prefix_hash: int | None = None
        self.digest: str | None = None

    @property
    @abc.abstractmethod
    def hold(self) -> Hold:
        """Who may write to its memory."""

    @property
    @abc.abstractmethod
    def names(self) -> Sequence[str]:
        """Names of the leaves, of a part of one with its rows."""

    @property
    @abc.abstractmethod
    def tensors(self) -> list[Tensors]:
        """The leaves, as other tools see them."""

    @abc.abstractmethod
    def data(self) -> np.ndarray | bytes:
        """Return the bytes, uint8[size]; copied only if they are scattered."""

    def first_bytes(self) -> np.ndarray | bytes:
        """Return the bytes, or as many of the first ones as `prefix_hash` takes."""
        return self.data()

    @abc.abstractmethod
    def copy_to(self, memory: Arenas | Heap) -> bool:
        """Copy what is not owned; False without room."""

    @abc.abstractmethod
    def let_go(self) -> None:
        """Let go of the content; names and size stay."""

    def content(self, scratch: np.ndarray) -> Content:
        """Return what to write.

        Other threads may write to the arrays of a live replay buffer while it is being
        saved, and JAX arrays may share memory with NumPy arrays. So what is hashed and
        written is a copy, of a size that stays in the processor's cache: the array is
        read from memory once.

        Args:
          scratch: Memory for that, uint8[n] of at least the size of the block.
        """
        data = self.data()
        is_owned = self.hold is Hold.OWNED
        if not is_owned and type(data) is not bytes:
            np.copyto(scratch[: len(data)], data)
            data = scratch[: len(data)]
        self.prefix_hash = prefix_hash(data)
        if self.digest is None or not is_owned:
            self.digest = digest(data)
        return Content(data, self.digest)


class Leaf:
    """A leaf that has blocks of its own.

    Args:
      name: What other tools see.
      tag: Its element type in safetensors' terms, or None if it has none.
      storage: Its elements, whose C order is the order of their bytes. Of those on a
        device, `fetch` gets what is needed before `save()` returns.
      hold: Who may write to them.
      block_bytes: Size of its blocks.
      owner: Immutable object that has this content, or None; it is not kept alive.

    Attributes:
      blocks: Its blocks, while their content is needed.
      is_packed: Whether to compress them; None if that was not asked yet.
      ring: Its entry in the manifest if it is a ring buffer.
    """

    def __init__(
        self,
        name: str,
        tag: str | None,
        storage: Storage,
        *,
        hold: Hold,
        block_bytes: int,
        owner: Any = None,
    ) -> None:
        if tag is None:
            storage = in_memory(storage)
            if storage.flags.c_contiguous or storage.itemsize > block_bytes:
                storage = flat_bytes(storage)
        # The program may delete what is on a device, as soon as `save()` has returned.
        self.hold = Hold.LIVE if isinstance(storage, Remote) else hold
        self.owner = None if owner is None else weakref.ref(owner)
        self.is_packed: bool | None = None
        self.ring: LeafGroup | None = None
        self.blocks: list[LeafBlock] = []
        self._storage: Storage | None = storage
        self._name = name
        self._tag = tag
        self._shape = storage.shape
        self._count = len(storage)
        self._unit = storage.nbytes // self._count
        self._is_flat = self._unit > block_bytes
        if self._is_flat:  # A row is larger than a block: cut it between elements.
            self._count, self._unit = storage.size, storage.itemsize
        self._step = block_bytes // self._unit

    def cut(self, first: int) -> list[LeafBlock]:
        """Make its blocks, numbered from `first` on."""
        for number, start in enumerate(range(0, self._count, self._step), first):
            stop = min(start + self._step, self._count)
            size = (stop - start) * self._unit
            self.blocks.append(LeafBlock(self, number, start, stop, size))
        return self.blocks

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return rows, or elements where a row is larger than a block, as bytes."""
        assert self._storage is not None
        if isinstance(self._storage, Remote):
            (fetched,) = self._fetch(self._storage, [(start, stop)])
            return fetched
        if not self._is_flat:
            return flat_bytes(self._storage[start:stop])
        if self._storage.flags.c_contiguous:
            return flat_bytes(self._storage.reshape(-1)[start:stop])
        return flat_bytes(self._storage.flat[start:stop])

    def fetch(self, blocks: Sequence[LeafBlock]) -> None:
        """Fetch blocks that are on a device; all of them, if most are asked for."""
        blocks = [block for block in blocks if block.hold is not Hold.OWNED]
        if not isinstance(self._storage, Remote) or not blocks:
            return
        if 2 * len(blocks) > len(self.blocks):
            # Not owned: digests that were recalled may be of other content.
            self._storage, self.hold = self._storage.whole(), Hold.STABLE
            return
        ranges = [(block.start, block.stop) for block in blocks]
        fetched = self._fetch(self._storage, ranges)
        for block, data in zip(blocks, fetched, strict=True):
            block.own(data)

    def _fetch(
        self, storage: Remote, ranges: Sequence[tuple[int, int]]
    ) -> list[np.ndarray]:
        """Return ranges of rows, or elements, of an array on a device as bytes."""
        each = self._unit // storage.itemsize
        elements = [(start * each, stop * each) for start, stop in ranges]
        return [flat_bytes(x) for x in storage.parts(elements, self._step * each)]

    def name_of(self, start: int, stop: int) -> str:
        """Return the name of a range of rows, or elements, or of all of them."""
        is_all = self.is_all(start, stop)
        return self._name if is_all else f"{self._name}[{start}:{stop}]"

    def is_all(self, start: int, stop: int) -> bool:
        """Return whether a range of rows, or elements, is all of them."""
        return stop - start == self._count

    def tensor(self, start: int, stop: int) -> Tensors:
        """Return a range of rows, or elements, as a tensor."""
        size, shape = (stop - start) * self._unit, self._shape
        if self._tag is None:
            return opaque_bytes(size)
        if not self.is_all(start, stop):
            shape = (stop - start, *(() if self._is_flat else shape[1:]))
        return Tensors(self._tag, shape, 0, size, 1)

    def digests(self) -> tuple[Any, list[str]] | None:
        """Return the owner of its content, and its blocks' digests, if all are known.

        The owner comes as a weak reference.
        """
        found = [block.digest for block in self.blocks if block.digest]
        if self.owner is None or self.owner() is None or len(found) < len(self.blocks):
            return None
        return self.owner, found

    def recall(self, digests: Sequence[str | None] | None) -> None:
        """Set the digests of its blocks, if they are known."""
        for block, known in zip(self.blocks, digests or [], strict=False):
            block.digest = known

    def let_go(self) -> None:
        """Let go of the array; blocks that are still needed have copies."""
        self._storage = None


class LeafBlock(Block):
    """A block of a large leaf.

    Args:
      leaf: The leaf.
      number: Which block of the component it is.
      start: First row, or element where a row is larger than a block.
      stop: The row or element after the last.
      size: Its bytes.
    """

    __slots__ = ("_copy", "leaf", "start", "stop")
    leaf_count = 1

    def __init__(
        self, leaf: Leaf, number: int, start: int, stop: int, size: int
    ) -> None:
        # As `Block` does, without the call: there may be 100,000 of them.
        self.number = number
        self.size = size
        self.prefix_hash = None
        self.digest = None
        self.leaf = leaf
        self.start = start
        self.stop = stop
        self._copy: np.ndarray | None = None

    @property
    def hold(self) -> Hold:
        return self.leaf.hold if self._copy is None else Hold.OWNED

    @property
    def names(self) -> list[str]:
        return [self.leaf.name_of(self.start, self.stop)]

    @property
    def tensors(self) -> list[Tensors]:
        return [self.leaf.tensor(self.start, self.stop)]

    def data(self) -> np.ndarray:
        return (
            self.leaf.rows(self.start, self.stop) if self._copy is None else self._copy
        )

    def own(self, data: np.ndarray) -> None:
        """Have this content, which nothing else will write to."""
        self._copy = data

    def copy_to(self, memory: Arenas | Heap) -> bool:
        self._copy = memory.copy(self.data())
        self.digest = None  # What was recalled may be of other content.
        return self._copy is not None

    def let_go(self) -> None:
        self._copy = None


def prefix_hash(data: Any) -> int:
    """Return a hash of the first bytes, which tells most contents apart."""
    return xxhash.xxh3_64_intdigest(memoryview(data)[:PREFIX_BYTES])


def flat_bytes(array: np.ndarray) -> np.ndarray:
    """Return the elements in C order as bytes, copying only what is scattered."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def opaque_bytes(size: int) -> Tensors:
    """Return what other tools see of bytes whose meaning they do not know."""
    return Tensors("U8", (size,), 0, size, 1)

"""Segment files → blocks: read in parallel into the leaves' own memory and verified."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..errors import DamagedError
from ..format.compression import unpack
from ..format.digests import digest
from ..format.manifest import Block, Component
from ..system.memory import require_memory
from ..system.progress import SILENT, Meter
from ..system.threads import run
from . import pool, streams
from .pool import Opened
from .store import OpenSegment, Source

T = TypeVar("T")
_ALIGN = 64
_PARALLEL_BYTES = 8 << 20  # To start threads takes as long as to read 1 MiB.
# Bytes of a leaf to read: the number of the block in which they begin, their offset in
# it, and how many they are.
Want = tuple[int, int, int]
# Where the bytes of a leaf are: uint8[n], which the leaf may keep, or None if it has no
# bytes; and the offset of the leaf in it.
Memory = tuple[np.ndarray | None, int]


def read_block(file: OpenSegment, block: Block, memory: np.ndarray) -> None:
    """Fill memory, uint8[block.content_size], with a block's content, verified.

    Raises:
      DamagedError: it is not what the manifest says.
    """
    if block.unpacked:
        _unpack(file.path, block, stored_bytes(file, block), memory)
    else:
        file.read(memory, block.offset)
    _verify(file.path, block, memory)


def stored_bytes(file: OpenSegment, block: Block) -> np.ndarray:
    """Return a block's bytes in the file, uint8[block.size], not verified."""
    stored = np.empty(block.size, np.uint8)
    file.read(stored, block.offset)
    return stored


def verify_stored(path: Path, block: Block, stored: np.ndarray) -> None:
    """Verify a block's bytes in the file.

    Raises:
      DamagedError: they are not what was written.
    """
    content = stored
    if block.unpacked:
        content = np.empty(block.unpacked, np.uint8)
        _unpack(path, block, stored, content)
    _verify(path, block, content)


def _unpack(path: Path, block: Block, stored: np.ndarray, memory: np.ndarray) -> None:
    try:
        unpack(stored, memory)
    except DamagedError as error:
        raise DamagedError(f"{_range(path, block)}: {error}") from error


def _verify(path: Path, block: Block, content: np.ndarray) -> None:
    found = digest(content)
    if found != block.digest:
        raise DamagedError(
            f"{_range(path, block)}: the digest is {found}, expected {block.digest}."
        )


def _range(path: Path, block: Block) -> str:
    end = block.offset + block.size
    return f"{path} is damaged between bytes {block.offset} and {end}"


class Reader:
    """Reads one component of a save.

    Args:
      source: The save.
      component: Its entry in the manifest.
      name_of: Returns the name of a leaf in a block, by number of block, for errors.
      less: Advice on how to load less of it, as for `require_memory`.
      verified: Names of segments whose headers were verified, which may be shared with
        readers of other components of the save.
      meter: Counts the content of blocks that are read.
      memory: Returns memory that need not fit into that of the host, uint8[n] for n.
    """

    def __init__(
        self,
        source: Source,
        component: Component,
        name_of: Callable[[int], str],
        less: str = "",
        verified: set[str] | None = None,
        meter: Meter = SILENT,
        memory: Callable[[int], np.ndarray] | None = None,
    ) -> None:
        self.source = source
        self._has_room = memory is not None
        self._memory = _memory if memory is None else memory
        self._meter = meter
        self._less = less
        self._component = component
        self._name_of = name_of
        self._files = Opened()
        self._verified = set() if verified is None else verified
        self._maps: dict[int, np.ndarray] = {}
        self._checked: set[int] = set()  # Blocks in the maps that were verified.
        self._recent: dict[int, np.ndarray] = {}
        self._total = sum([block.unpacked or block.size for block in component.blocks])
        self._loaded = 0

    def held_bytes(self, *, mapped: bool) -> int:
        """Return how much memory all leaves take; mapped ones take none."""
        blocks = self._component.blocks
        if self._has_room:
            return 0
        return sum(x.content_size for x in blocks if x.unpacked or not mapped)

    @property
    def size_bytes(self) -> int:
        """Size of the content of all blocks."""
        return self._total

    @property
    def is_repeating(self) -> bool:
        """Whether it has read more bytes than there are, so some more than once."""
        return self._loaded > self._total

    def hold(self) -> None:
        """Keep the save from being pruned by this process until `close`."""
        streams.hold(self)

    def open(self) -> None:
        """Open the files, up to as many as may be open at a time.

        Raises:
          DamagedError: one is not what the manifest says.
        """
        opened: set[int] = set()
        for number, block in enumerate(self._component.blocks):
            if block.segment not in opened and pool.has_room():
                with self._naming(number):
                    self._file(block.segment)
                opened.add(block.segment)

    def map(
        self, wants: Sequence[Want], mappable: Sequence[bool], *, verify: bool
    ) -> list[Memory]:
        """Map bytes copy-on-write where they lie together as they are; read the rest.

        Args:
          wants: What to map.
          mappable: Which of these may be mapped.
          verify: Whether to verify what is mapped, too.

        Returns, Raises:
          As `read`.
        """
        self._refuse_overlap(wants)
        to_check: dict[int, np.ndarray] = {}
        mapped = [
            self._map(want, to_check) if may else None
            for want, may in zip(wants, mappable, strict=True)
        ]
        if verify:
            new = [number for number in to_check if number not in self._checked]
            size = sum(to_check[number].size for number in new)
            self._run(lambda x: self._check(x, to_check[x]), new, size)
            self._checked.update(new)
        pairs = zip(wants, mapped, strict=True)
        others = iter(self.read([want for want, memory in pairs if memory is None]))
        return [next(others) if memory is None else memory for memory in mapped]

    def read(self, wants: Sequence[Want]) -> list[Memory]:
        """Read and verify bytes.

        Args:
          wants: What to read.

        Returns:
          The memory of each, which nothing else writes to.

        Raises:
          DamagedError: files are not what the manifest says.
          ValueError, IndexError: the manifest describes no such leaf.
        """
        self._refuse_overlap(wants)
        size = sum(size for _, _, size in wants)
        if size > self._total:
            raise ValueError("the leaves have more bytes than the blocks")
        self._require_memory(size)
        to_read: dict[int, np.ndarray] = {}
        # Shards that follow each other share blocks.
        shared = dict(self._recent)
        memories: list[Memory] = []
        for want in wants:
            number, offset, size = want
            data = shared.get(number)
            if data is not None and 0 < size <= data.size - offset:
                memories.append((data, offset))  # As for most small leaves.
            else:
                memories.append(self._allocate(want, to_read, shared))
        if to_read:  # Most of many small shards have nothing to read.
            with_shared = sum([memory.size for memory in to_read.values()])
            if with_shared > size:  # All of the blocks that leaves share.
                self._require_memory(with_shared)
            self._loaded += with_shared
            self._run(lambda x: self._load(*x), to_read.items(), with_shared)
        self._recent = dict(list(shared.items())[-1:])
        return memories

    def _require_memory(self, size: int) -> None:
        if not self._has_room:
            require_memory(size, self.source.path, self._less)

    def _allocate(
        self, want: Want, to_read: dict[int, np.ndarray], shared: dict[int, np.ndarray]
    ) -> Memory:
        """Give a leaf its memory and note which blocks to read into it."""
        number, offset, size = want
        if size == 0:
            return None, 0
        whole = self._component.blocks[number].content_size
        if size < whole and offset + size <= whole:
            data = shared.get(number)
            if data is None:
                data = shared[number] = to_read[number] = self._memory(whole)
            return data, offset
        last, end = self._end(want)
        if offset or end != self._component.blocks[last].content_size:
            raise ValueError("a leaf begins or ends within a block of its own")
        data = self._memory(size)
        begin = 0
        for index in range(number, last + 1):
            end = begin + self._component.blocks[index].content_size
            to_read[index] = data[begin:end]
            begin = end
        return data, 0

    def _end(self, want: Want) -> tuple[int, int]:
        """Return the number of the block in which a leaf ends, and its end in it."""
        number, offset, size = want
        end = offset + size
        while end > self._component.blocks[number].content_size:
            end -= self._component.blocks[number].content_size
            number += 1
        return number, end

    def _refuse_overlap(self, wants: Sequence[Want]) -> None:
        """Refuse leaves that share bytes: their copies could multiply the memory."""
        free = 0, 0  # The first block, and offset in it, that no leaf has claimed.
        for want in sorted(want for want in wants if want[2]):
            if want[0] < 0:
                raise IndexError("a leaf has no block")
            if want[:2] < free:
                raise ValueError("two leaves claim the same bytes")
            free = self._end(want)

    def _map(self, want: Want, to_check: dict[int, np.ndarray]) -> Memory | None:
        """Return where a leaf is in a mapped file; None if it must be read."""
        begin, offset, size = want
        if not size:
            return None
        blocks = self._component.blocks[begin : self._end(want)[0] + 1]
        segment, start = blocks[0].segment, blocks[0].offset
        place = start
        for block in blocks:
            if block.unpacked or (block.segment, block.offset) != (segment, place):
                return None
            place += block.size
        data = self._mapped_file(segment, begin)
        if data is None:
            return None
        for number, block in enumerate(blocks, begin):
            to_check[number] = data[block.offset : block.offset + block.size]
        return data, start + offset

    def _mapped_file(self, number: int, block: int) -> np.ndarray | None:
        if number not in self._maps:
            with self._naming(block):
                data = self._file(number).map()
            if data is not None:
                self._maps[number] = data
        return self._maps.get(number)

    def _load(self, number: int, memory: np.ndarray) -> None:
        block = self._component.blocks[number]
        with self._naming(number):
            read_block(self._file(block.segment), block, memory)
        self._meter.add(memory.size)

    def _check(self, number: int, memory: np.ndarray) -> None:
        block = self._component.blocks[number]
        if digest(memory) != block.digest:  # Hashing is all that takes time here.
            with self._naming(number):
                _verify(self._path(block.segment), block, memory)
        self._meter.add(memory.size)

    def _run(self, call: Callable[[T], object], items: Iterable[T], size: int) -> None:
        """Call a function for each block, in threads if there are enough bytes."""
        if size >= _PARALLEL_BYTES:
            run(call, items, meanwhile=self._meter.tell)
            return
        for item in items:
            call(item)

    @contextlib.contextmanager
    def _naming(self, block: int) -> Iterator[None]:
        """Add to an error which leaf is in the block."""
        try:
            yield
        except DamagedError as error:
            raise DamagedError(f"{error} It holds {self._name_of(block)}.") from error

    def _path(self, segment: int) -> Path:
        return self.source.path / self._component.segments[segment].file

    def _file(self, number: int) -> OpenSegment:
        return self._files.get(number, self._open)

    def _open(self, number: int) -> OpenSegment:
        segment = self._component.segments[number]
        is_verified = segment.file in self._verified
        file = self.source.open(segment, is_verified=is_verified)
        self._verified.add(segment.file)
        return file

    def close(self) -> None:
        """Close the files; the save may be pruned from now on."""
        streams.release(self)
        self._files.close()
        self._recent = {}


def _memory(size: int) -> np.ndarray:
    """Return uint8[size], aligned so that JAX can use it without copying."""
    memory = np.empty(size + _ALIGN, np.uint8)
    start = -memory.__array_interface__["data"][0] % _ALIGN
    return memory[start : start + size]

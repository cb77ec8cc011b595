"""Blocks → segment files: cut leaves into blocks, hash and write them in parallel.

A segment is a valid safetensors file: eight bytes with the size of the header, a JSON
header padded with spaces so that data starts at a multiple of 64, and the data. Each
entry of the header is a leaf, some rows of one, or padding.

Source: the layout is safetensors' (github.com/huggingface/safetensors).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from . import disk, dtypes
from .manifest import BLOCK_BYTES, Block, Leaves, Segment, digest, new_digest, part_of
from .parallel import run

SEGMENT_BYTES = 64 << 20
SMALL_BYTES = 64 << 10  # Leaves below share blocks,
GROUP_BYTES = 1 << 20  # of at most this size,
GROUP_LEAVES = 4096  # and at most this many leaves.
SEGMENT_LEAVES = 100_000  # Other tools refuse headers of more than 100 MB.
_OPEN_FILES = 16
_COPY_BYTES = 1 << 20
_ALIGN = 64  # Of blocks: a cache line, and what XLA wants to share memory.
_PADDING = "__padding_%d__"


class _Run(msgspec.Struct, gc=False):
    """Tensors of one form that follow each other: leaves, or rows of one.

    Attributes:
      dtype: Element type in safetensors' terms.
      shape: Sizes of the axes of each.
      begin: Where the first begins in the block.
      size: Bytes of each.
      leaf_count: How many there are.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    size: int
    leaf_count: int


class _Group:
    """A block of several small leaves."""

    is_first = True  # A segment may end before it.

    def __init__(self) -> None:
        self.size = 0
        self.names: list[str] = []
        self.runs: list[_Run] = []
        self._chunks: list[np.ndarray | bytes] = []
        self._owned_count = 0

    @property
    def leaf_count(self) -> int:
        """Number of leaves in the block."""
        return len(self.names)

    def room_for(self, size: int) -> int:
        """Return how many more leaves of this size it takes; none if below 1."""
        room = (GROUP_BYTES - self.size - _ALIGN) // size
        return min(room, GROUP_LEAVES - len(self.names))

    def add(
        self, names: Sequence[str], storages: Sequence[np.ndarray], tag: str | None
    ) -> int:
        """Append leaves of one form, aligned for their elements.

        Returns:
          Where the first begins.
        """
        first = storages[0]
        size, gap = first.nbytes, -self.size % first.dtype.alignment
        if gap:
            self._chunks.append(bytes(gap))
        begin = self.size + gap
        self.size = begin + size * len(storages)
        shape = (size,) if tag is None else first.shape
        self.runs.append(_Run(tag or "U8", shape, begin, size, len(storages)))
        self.names.extend(names)
        self._chunks.extend(storages)
        return begin

    def own(self, copies: dict[int, np.ndarray]) -> None:
        """Copy the leaves that were added since the last call."""
        new = self._chunks[self._owned_count :]
        self._chunks[self._owned_count :] = map(_bytes_of, new)
        self._owned_count = len(self._chunks)

    def data(self) -> bytes:
        """Return the bytes, gathered."""
        return b"".join(map(_bytes_of, self._chunks))


class _Piece:
    """A block of one large leaf: all of it, some rows, or some elements of them.

    Args:
      name: The leaf's name.
      tag: Its element type in safetensors' terms, or None if it has none.
      storage: The whole leaf.
      size: Bytes in the block.
      rows: First and last row, or element, that the block holds; None for all.
      flat: Whether `rows` are elements.
    """

    leaf_count = 1

    def __init__(
        self,
        name: str,
        tag: str | None,
        storage: np.ndarray,
        size: int,
        rows: tuple[int, int] | None = None,
        *,
        flat: bool = False,
    ) -> None:
        self._name = name
        self._tag = tag
        self._storage = storage
        self._rows = rows
        self._flat = flat
        self.is_first = rows is None or rows[0] == 0
        self.size = size

    def own(self, copies: dict[int, np.ndarray]) -> None:
        """Copy the leaf."""
        self._storage = _copy(self._storage, copies)

    def data(self) -> np.ndarray:
        """Return the bytes, uint8[size], without copying unless they are scattered."""
        return _flat_bytes(self._part())

    def _part(self) -> np.ndarray:
        if self._rows is None:
            return self._storage
        start, stop = self._rows
        if not self._flat:
            return self._storage[start:stop]
        if self._storage.flags.c_contiguous:
            return self._storage.reshape(-1)[start:stop]
        return self._storage.flat[start:stop]

    @property
    def names(self) -> list[str]:
        """The name of the leaf, with its rows."""
        if self._rows is None:
            return [self._name]
        start, stop = self._rows
        return [f"{self._name}[{start}:{stop}]"]

    @property
    def runs(self) -> list[_Run]:
        """The leaf, or its rows, as one tensor."""
        shape = self._storage.shape
        if self._rows is not None:
            start, stop = self._rows
            shape = (stop - start, *(() if self._flat else shape[1:]))
        if self._tag is None:
            shape = (self.size,)
        return [_Run(self._tag or "U8", shape, 0, self.size, 1)]


def _pieces(name: str, tag: str | None, storage: np.ndarray) -> Iterator[_Piece]:
    """Cut a large leaf into blocks: of rows, or of elements where a row is larger."""
    is_large_item = storage.itemsize > BLOCK_BYTES
    if tag is None and (storage.flags.c_contiguous or is_large_item):
        storage = _flat_bytes(storage)
    if storage.nbytes <= BLOCK_BYTES:
        yield _Piece(name, tag, storage, storage.nbytes)
        return
    count = len(storage)
    unit = storage.nbytes // count
    flat = unit > BLOCK_BYTES
    if flat:
        count, unit = storage.size, storage.itemsize
    step = BLOCK_BYTES // unit
    for start in range(0, count, step):
        stop = min(start + step, count)
        size = (stop - start) * unit
        yield _Piece(name, tag, storage, size, (start, stop), flat=flat)


def _copy(storage: np.ndarray, copies: dict[int, np.ndarray]) -> np.ndarray:
    """Return a copy, the same for the pieces of one leaf."""
    key = id(storage)
    if key not in copies:
        copies[key] = np.array(storage, order="C", subok=False)
    return copies[key]


def _bytes_of(chunk: np.ndarray | bytes) -> bytes:
    """Return the elements in C order, copied; what is copied stays as it is."""
    return chunk if isinstance(chunk, bytes) else chunk.tobytes()


def _flat_bytes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


class Writer:
    """Writes the leaves of one component into segments of a save folder.

    Args:
      folder: The save folder.
      stem: Start of the file names.
      sequence: Number of the save; part of the file names.
      fsync: Whether segments are made durable.
    """

    def __init__(self, folder: Path, stem: str, *, sequence: int, fsync: bool) -> None:
        self.segments: list[Segment] = []
        self.blocks: list[Block] = []
        self._pending_bytes = 0
        self._pending_leaves = 0
        self._stem = stem
        self._name = f"{stem}-{sequence:06d}"
        self._folder = folder
        self._fsync = fsync
        self._pending: list[_Group | _Piece] = []
        self._group: _Group | None = None  # Where small leaves go on,
        self._group_number = 0  # and which block it is.
        self._borrowed: list[_Group | _Piece] = []

    def add(
        self,
        groups: Sequence[Leaves],
        storages: Sequence[Sequence[np.ndarray]],
        prefix: str,
    ) -> list[Leaves]:
        """Give leaves their places; nothing is written and nothing copied yet.

        Args:
          groups: Leaves of one form each; no padding is needed if those of larger
            alignment come first, as sizes are multiples of alignments.
          storages: Of each leaf of each group, its elements, whose C order is the order
            of the bytes; none where they have no bytes.
          prefix: Start of their names in the segment.

        Returns:
          The groups with their places, divided where their bytes are.
        """
        placed: list[Leaves] = []
        for group, arrays in zip(groups, storages, strict=True):
            if arrays and arrays[0].nbytes:
                placed += self._place(group, arrays, prefix)
            else:
                placed.append(group)
        if self._group is not None:
            self._borrowed.append(self._group)
        return placed

    def _place(
        self, group: Leaves, storages: Sequence[np.ndarray], prefix: str
    ) -> list[Leaves]:
        """Return the group in parts, each within a block or a single large leaf."""
        count, size = len(storages), storages[0].nbytes
        self._pending_leaves += count
        self._pending_bytes += count * size
        names = [prefix + name or self._stem for name in group.names]
        tag = dtypes.tag(group.dtype)
        parts = []
        start = 0
        while start < count:
            if size >= SMALL_BYTES:
                stop, block, offset = start + 1, self._block_count, 0
                pieces = list(_pieces(names[start], tag, storages[start]))
                self._pending += pieces
                self._borrowed += pieces
            else:
                small, room = self._small_block(size)
                stop = min(count, start + room)
                block = self._group_number
                offset = small.add(names[start:stop], storages[start:stop], tag)
            part = part_of(group, start, stop) if stop - start < count else group
            part.block, part.offset = block, offset
            parts.append(part)
            start = stop
        return parts

    @property
    def _block_count(self) -> int:
        return len(self.blocks) + len(self._pending)

    def _small_block(self, size: int) -> tuple[_Group, int]:
        """Return the block for leaves of this size, and how many more it takes."""
        group = self._group
        if group is not None:
            room = group.room_for(size)
            if room > 0:
                return group, room
            self._borrowed.append(group)
        group = self._group = _Group()
        self._group_number = self._block_count
        self._pending.append(group)
        return group, group.room_for(size)

    def own(self) -> None:
        """Copy what was added since the last call, so that its arrays may change."""
        copies: dict[int, np.ndarray] = {}
        for part in self._borrowed:
            part.own(copies)
        self._borrowed.clear()

    @property
    def is_full(self) -> bool:
        """Whether what is pending fills a segment."""
        is_many = self._pending_leaves >= SEGMENT_LEAVES
        return is_many or self._pending_bytes >= SEGMENT_BYTES

    def flush(self) -> None:
        """Write all that is pending, in parallel, and make it durable.

        Raises:
          WriteError: the disk refused.
        """
        files = list(self._lay_out())
        for start in range(0, len(files), _OPEN_FILES):
            self._write(files[start : start + _OPEN_FILES])
        self._pending, self._group = [], None
        self._pending_bytes = self._pending_leaves = 0
        self._borrowed.clear()

    def _write(self, files: Sequence[_SegmentFile]) -> None:
        with contextlib.ExitStack() as stack:
            for file in files:
                file.open(stack)
            work = [(file, index) for file in files for index in range(len(file.parts))]
            digests = iter(run(lambda item: item[0].write(item[1]), work))
            if self._fsync:
                run(lambda file: file.sync(), files)
        for file in files:
            number = len(self.segments)
            self.segments.append(file.segment())
            for part, offset in zip(file.parts, file.offsets, strict=True):
                self.blocks.append(Block(number, offset, part.size, next(digests)))

    def _lay_out(self) -> Iterator[_SegmentFile]:
        """Divide the pending blocks into segments, never a leaf between two."""
        parts: list[_Group | _Piece] = []
        size, count = 0, 0
        index = len(self.segments)
        for part in self._pending:
            is_full = size + part.size > SEGMENT_BYTES
            is_full = is_full or count + part.leaf_count > SEGMENT_LEAVES
            if parts and part.is_first and is_full:
                yield _SegmentFile(self._path(index), parts)
                parts, size, count, index = [], 0, 0, index + 1
            parts.append(part)
            size += part.size
            count += part.leaf_count
        if parts:
            yield _SegmentFile(self._path(index), parts)

    def _path(self, index: int) -> Path:
        return self._folder / f"{self._name}-{index:05d}.safetensors"


class _SegmentFile:
    """One file that is being written."""

    def __init__(self, path: Path, parts: list[_Group | _Piece]) -> None:
        self.path = path
        self.parts = parts
        self.offsets: list[int] = []
        self._fd = -1
        self._header = self._plan()

    def _plan(self) -> bytes:
        position = 0
        entries: dict[str, _Entry] = {}
        for part in self.parts:
            block = _round_up(position, _ALIGN)
            self.offsets.append(block)
            names = iter(_free(part.names, entries))
            for tensors in part.runs:
                begin, size = block + tensors.begin, tensors.size
                if begin > position:
                    gap = _Entry("U8", (begin - position,), (position, begin))
                    entries[_PADDING % len(entries)] = gap
                position = begin + size * tensors.leaf_count
                begins = range(begin, position, size)
                ends = range(begin + size, position + size, size)
                places = zip(begins, ends, strict=True)
                made = map(_Entry, repeat(tensors.dtype), repeat(tensors.shape), places)
                entries.update(
                    zip(islice(names, tensors.leaf_count), made, strict=True)
                )
        header = msgspec.json.encode(entries)
        header += b" " * (-(len(header) + 8) % _ALIGN)
        self._start = len(header) + 8
        self.offsets = [self._start + offset for offset in self.offsets]
        self._size = self._start + position
        return len(header).to_bytes(8, "little") + header

    def segment(self) -> Segment:
        """Return the entry of the manifest."""
        header = digest(self._header)
        return Segment(self.path.name, self._size, self._start, header)

    def open(self, stack: contextlib.ExitStack) -> None:
        """Create the file with its header; it is closed when `stack` is."""
        self._fd = disk.create(self.path)
        stack.callback(os.close, self._fd)
        disk.write(self._fd, self._header, 0, path=self.path)

    def write(self, index: int) -> str:
        """Write a block and return its digest.

        Other threads may write to the arrays of a live replay buffer while it is
        being saved. So what is hashed and written is a copy, of a size that stays in
        the processor's cache: the array is read from memory once.

        Args:
          index: Number of the block in this file.
        """
        data, offset = self.parts[index].data(), self.offsets[index]
        if isinstance(data, bytes):
            disk.write(self._fd, data, offset, path=self.path)
            return digest(data)
        hasher = new_digest()
        memory = np.empty(min(_COPY_BYTES, data.size), np.uint8)
        for start in range(0, data.size, _COPY_BYTES):
            source = data[start : start + _COPY_BYTES]
            copy = memory[: source.size]
            np.copyto(copy, source)
            hasher.update(copy)
            disk.write(self._fd, copy, offset + start, path=self.path)
        return str(hasher.hexdigest())

    def sync(self) -> None:
        """Make the file's contents durable."""
        disk.sync(self._fd, path=self.path)


class _Entry(msgspec.Struct, gc=False):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def _free(names: Sequence[str], taken: Mapping[str, Any]) -> Sequence[str]:
    """Return the names, changed where taken or reserved by safetensors."""
    is_unique = len(set(names)) == len(names) and taken.keys().isdisjoint(names)
    if is_unique and "" not in names and "\n__" not in "\n" + "\n".join(names):
        return names
    free: dict[str, None] = {}
    for name in names:
        if name in taken or name in free or not name or name.startswith("__"):
            number = len(taken) + len(free)
            while f"{name}~{number}" in taken or f"{name}~{number}" in free:
                number += 1
            name = f"{name}~{number}"
        free[name] = None
    return list(free)


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple

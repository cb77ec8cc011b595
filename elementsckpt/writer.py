"""Blocks → segment files: cut leaves into blocks, hash and write them in parallel.

A segment is a valid safetensors file: eight bytes with the size of the header, a JSON
header padded with spaces so that data starts at a multiple of 64, and the data. Each
entry of the header is a leaf, some rows of one, or padding.

Source: the layout is safetensors' (github.com/huggingface/safetensors).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from . import disk
from .manifest import BLOCK_BYTES, Block, Segment, digest
from .parallel import run

SEGMENT_BYTES = 64 << 20
SMALL_BYTES = 64 << 10  # Leaves below share blocks,
GROUP_BYTES = 1 << 20  # of at most this size,
GROUP_LEAVES = 4096  # and at most this many leaves.
_ALIGN = 64  # Of blocks: a cache line, and what XLA wants to share memory.
_PADDING = "__padding_%d__"


class Entry(NamedTuple):
    """A leaf to write.

    Attributes:
      name: What the segment calls it.
      storage: Its elements; their C order is the order of its bytes.
      tag: Element type in safetensors' terms, or None if it has none.
    """

    name: str
    storage: np.ndarray
    tag: str | None


class Place(NamedTuple):
    """Where a leaf begins: a block and the offset in it; the block is -1 for none."""

    block: int
    offset: int


@dataclass
class _Part:
    """What one block holds: one piece of a large leaf, or several small leaves."""

    entries: list[Entry] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    rows: tuple[int, int] | None = None
    flat: bool = False
    first: bool = True  # Of its leaf, so a segment may end before it.
    size: int = 0
    owned_count: int = 0  # Entries that are copies of ours.

    def add(self, entry: Entry) -> int:
        """Append a small leaf, aligned for its element type; returns its offset."""
        offset = _round_up(self.size, max(1, entry.storage.dtype.alignment))
        self.entries.append(entry)
        self.offsets.append(offset)
        self.size = offset + entry.storage.nbytes
        return offset

    def data(self) -> np.ndarray | bytes:
        """Return the bytes, uint8[size], without copying unless they are scattered."""
        if self.rows is not None:
            return _flat_bytes(self._piece())
        if len(self.entries) == 1:
            return _flat_bytes(self.entries[0].storage)
        chunks: list[Any] = []
        position = 0
        for entry, offset in zip(self.entries, self.offsets, strict=True):
            if offset > position:
                chunks.append(bytes(offset - position))
            chunks.append(_flat_bytes(entry.storage))
            position = offset + entry.storage.nbytes
        return b"".join(chunks)

    def _piece(self) -> np.ndarray:
        assert self.rows is not None
        start, stop = self.rows
        storage = self.entries[0].storage
        if not self.flat:
            return storage[start:stop]
        if storage.flags.c_contiguous:
            return storage.reshape(-1)[start:stop]
        return storage.flat[start:stop]

    def header(self) -> Iterator[tuple[str, str, list[int], int, int]]:
        """Yield name, type, shape, start and end of each entry, relative to it."""
        if self.rows is None:
            for entry, offset in zip(self.entries, self.offsets, strict=True):
                shape = list(entry.storage.shape)
                end = offset + entry.storage.nbytes
                if entry.tag is None:
                    yield entry.name, "U8", [end - offset], offset, end
                else:
                    yield entry.name, entry.tag, shape, offset, end
            return
        (entry,), (start, stop) = self.entries, self.rows
        shape = [stop - start, *([] if self.flat else entry.storage.shape[1:])]
        name = f"{entry.name}[{start}:{stop}]"
        if entry.tag is None:
            yield name, "U8", [self.size], 0, self.size
        else:
            yield name, entry.tag, shape, 0, self.size


def _flat_bytes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


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
        self._name = f"{stem}-{sequence:06d}"
        self._folder = folder
        self._fsync = fsync
        self._pending: list[_Part] = []
        self._group: tuple[int, _Part] | None = None  # Where small leaves go on.
        self._borrowed: list[_Part] = []
        self.pending_bytes = 0

    def add(self, entries: Sequence[Entry | None]) -> list[Place]:
        """Plan where leaves go; nothing is written and nothing copied yet.

        Args:
          entries: The leaves; None for one without bytes.

        Returns:
          The place of each.
        """
        places = [Place(-1, 0)] * len(entries)
        small = []
        for number, entry in enumerate(entries):
            if entry is None or entry.storage.nbytes == 0:
                continue
            self.pending_bytes += entry.storage.nbytes
            if entry.storage.nbytes < SMALL_BYTES:
                small.append((number, entry))
                continue
            parts = list(_pieces(entry))
            places[number] = Place(len(self.blocks) + len(self._pending), 0)
            self._pending += parts
            self._borrowed += parts
        # In this order no padding is needed: sizes are multiples of alignments.
        small.sort(key=lambda item: -item[1].storage.dtype.alignment)
        for number, entry in small:
            places[number] = self._add_small(entry)
        return places

    def _add_small(self, entry: Entry) -> Place:
        if self._group is None or not _has_room(self._group[1], entry):
            self._group = len(self.blocks) + len(self._pending), _Part()
            self._pending.append(self._group[1])
        block, part = self._group
        if not self._borrowed or self._borrowed[-1] is not part:
            self._borrowed.append(part)
        return Place(block, part.add(entry))

    def own(self) -> None:
        """Copy what was added since the last call, so that its arrays may change."""
        copies: dict[int, np.ndarray] = {}
        for part in self._borrowed:
            for index in range(part.owned_count, len(part.entries)):
                entry = part.entries[index]
                identity = id(entry.storage)
                if identity not in copies:
                    copies[identity] = np.array(entry.storage, order="C", subok=False)
                part.entries[index] = entry._replace(storage=copies[identity])
            part.owned_count = len(part.entries)
        self._borrowed.clear()

    def flush(self) -> None:
        """Write all that is pending, in parallel, and make it durable.

        Raises:
          WriteError: the disk refused.
        """
        with contextlib.ExitStack() as stack:
            planned = run(lambda part: digest(part.data()), self._pending)
            files = list(self._lay_out())
            for file in files:
                file.open(stack)
            places = [(file, n) for file in files for n in range(len(file.parts))]
            work = zip(places, planned, strict=True)
            written = run(lambda item: item[0][0].write(item[0][1], item[1]), work)
            if self._fsync:
                run(lambda file: file.sync(), files)
        self._record(files, written)
        self._pending, self._group, self.pending_bytes = [], None, 0
        self._borrowed.clear()

    def _lay_out(self) -> Iterator[_SegmentFile]:
        """Divide the pending blocks into segments, never a leaf between two."""
        parts: list[_Part] = []
        size = 0
        index = len(self.segments)
        for part in self._pending:
            if parts and part.first and size + part.size > SEGMENT_BYTES:
                yield _SegmentFile(self._path(index), parts)
                parts, size, index = [], 0, index + 1
            parts.append(part)
            size += part.size
        if parts:
            yield _SegmentFile(self._path(index), parts)

    def _path(self, index: int) -> Path:
        return self._folder / f"{self._name}-{index:05d}.safetensors"

    def _record(self, files: list[_SegmentFile], digests: list[str]) -> None:
        remaining = iter(digests)
        for file in files:
            number = len(self.segments)
            self.segments.append(file.segment())
            for part, offset in zip(file.parts, file.offsets, strict=True):
                self.blocks.append(Block(number, offset, part.size, next(remaining)))


def _has_room(part: _Part, entry: Entry) -> bool:
    room = GROUP_BYTES - part.size - _ALIGN
    return entry.storage.nbytes <= room and len(part.entries) < GROUP_LEAVES


def _pieces(entry: Entry) -> Iterator[_Part]:
    """Cut a large leaf into blocks: of rows, or of elements where a row is larger."""
    storage = entry.storage
    if entry.tag is None and (
        storage.flags.c_contiguous or storage.itemsize > BLOCK_BYTES
    ):
        storage = _flat_bytes(storage)
        entry = Entry(entry.name, storage, None)
    if storage.nbytes <= BLOCK_BYTES:
        yield _Part([entry], [0], size=storage.nbytes)
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
        rows = start, stop
        yield _Part([entry], [0], rows, flat, first=start == 0, size=size)


class _SegmentFile:
    """One file that is being written."""

    def __init__(self, path: Path, parts: list[_Part]) -> None:
        self.path = path
        self.parts = parts
        self.offsets: list[int] = []
        self._fd = -1
        self._header = self._plan()

    def _plan(self) -> bytes:
        position, padding = 0, 0
        entries: dict[str, Any] = {}
        for part in self.parts:
            begin = _round_up(position, _ALIGN)
            self.offsets.append(begin)
            for name, tag, shape, start, end in part.header():
                start, end = begin + start, begin + end
                if start > position:
                    gap = _entry("U8", [start - position], position, start)
                    entries[_PADDING % padding] = gap
                    padding += 1
                entries[_unique(name, entries)] = _entry(tag, shape, start, end)
                position = end
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

    def write(self, index: int, planned: str) -> str:
        """Write a block and return its digest.

        Other threads may write to the arrays of a live replay buffer while it is
        being saved. What they change is in the save or not, but a block that changed
        since its digest was taken is written again from a copy, so that it always
        has the digest which the manifest says.

        Args:
          index: Number of the block in this file.
          planned: Digest that it had before.
        """
        data, offset = self.parts[index].data(), self.offsets[index]
        disk.write(self._fd, data, offset, path=self.path)
        written = digest(data)
        if written != planned and not isinstance(data, bytes):
            data = bytes(data)
            disk.write(self._fd, data, offset, path=self.path)
            written = digest(data)
        return written

    def sync(self) -> None:
        """Make the file's contents durable."""
        disk.sync(self._fd, path=self.path)


def _entry(tag: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": tag, "shape": shape, "data_offsets": [start, end]}


def _unique(name: str, taken: dict[str, Any]) -> str:
    """Return a name that no other entry has and that safetensors does not reserve."""
    if name and not name.startswith("__") and name not in taken:
        return name
    number = len(taken)
    while f"{name}~{number}" in taken:
        number += 1
    return f"{name}~{number}"

"""One segment file that is being written.

A segment is a valid safetensors file: eight bytes with the size of the header, a JSON
header padded with spaces, and the data. Each entry of the header is a leaf, some rows
of one, or padding.

Source: the layout is safetensors' (github.com/huggingface/safetensors).
"""

from __future__ import annotations

import abc
import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from . import compression, disk
from .blocks import BLOCK_BYTES, Gathered, Part, Tensors, head_of
from .compression import Compress
from .manifest import Block, Segment, digest
from .reuse import Known

_ALIGN = 64  # Of leaves: a cache line, and what XLA wants to share memory.
_PADDING = "__padding_%d__"
_ENTRY_BYTES = 256  # More than an entry takes, with its padding and without its name.
_local = threading.local()


class SegmentFile(abc.ABC):
    """A segment; there are two kinds, which differ in how they lay out data.

    Args:
      path: The file.
      runs: Blocks, of which those that lie together in a leaf are a list.
      known: Where to read blocks that are moved from a segment of an earlier save.
      fsync: Whether to make the file durable.

    Attributes:
      parts: Its blocks.
      least_bytes: What the file will take, at the least.
    """

    def __init__(
        self, path: Path, runs: Sequence[list[Part]], known: Known, *, fsync: bool
    ) -> None:
        self.path = path
        self.least_bytes = 0
        self.parts = [part for run in runs for part in run]
        self._known = known
        self._fsync = fsync
        self._lock = threading.Lock()
        self._left = len(self.parts)
        self._file: disk.Descriptor | None = None
        self._blocks: dict[int, Block] = {}
        self._header = b""
        self._size = 0

    def open(self) -> None:
        """Create the file."""
        self._file = disk.create(self.path)

    def close(self) -> None:
        """Close the file, as soon as no thread is in `write` any more."""
        self._file = None

    def write(self, index: int) -> None:
        """Write the block at this position in `parts`, and end the file after the last.

        Threads may write at the same time.
        """
        file = self._file
        assert file is not None
        self._write(file.fd, self.parts[index], index)
        with self._lock:
            self._left -= 1
            is_last = not self._left
        if is_last:
            self._end(file.fd)

    @abc.abstractmethod
    def _write(self, fd: int, part: Part, index: int) -> None:
        """Write one block, and note its entry of the manifest."""

    def _end(self, fd: int) -> None:
        """Write the header and make the file durable."""
        disk.write(fd, self._header, 0, path=self.path)
        if self._fsync:
            disk.sync(fd, path=self.path)

    def segment(self) -> Segment:
        """Return the entry of the manifest."""
        header = self._header
        return Segment(self.path.name, self._size, len(header), digest(header))

    def block(self, part: Part) -> Block:
        """Return the entry of a block that was written; its segment is not set."""
        return self._blocks[part.number]

    def _content(self, part: Part, scratch: np.ndarray) -> tuple[Any, str, int]:
        """Return what to write of a block, its digest, and its size if it is packed.

        Other threads may write to the arrays of a live replay buffer while it is being
        saved, and JAX arrays may share memory with NumPy arrays. So what is hashed and
        written is a copy, of a size that stays in the processor's cache: the array is
        read from memory once.
        """
        if part.place is not None:
            block = part.place.block
            return self._known.read(part), block.digest, block.unpacked
        data = part.data()
        if not part.is_owned and type(data) is not bytes:
            np.copyto(scratch[: len(data)], data)
            data = scratch[: len(data)]
        part.head = head_of(data)
        if part.digest is None or not part.is_owned:
            part.digest = digest(data)
        return data, part.digest, 0


class RawFile(SegmentFile):
    """A segment that holds leaves as they are; its layout is known from the start."""

    def __init__(
        self, path: Path, runs: Sequence[list[Part]], known: Known, *, fsync: bool
    ) -> None:
        super().__init__(path, runs, known, fsync=fsync)
        table = _Table()
        offsets: list[int] = []
        for run in runs:
            begin = _round_up(table.end, _ALIGN)
            position = begin
            for part in run:
                offsets.append(position)
                position += part.size
            table.add(*_tensors_of(run), begin)
        self._header = table.header()
        self._offsets = [len(self._header) + offset for offset in offsets]
        self._size = self.least_bytes = len(self._header) + table.end

    def _write(self, fd: int, part: Part, index: int) -> None:
        offset = self._offsets[index]
        with _scratch() as scratch:
            content, found, _ = self._content(part, scratch)
            disk.write(fd, content, offset, path=self.path)
        self._blocks[part.number] = Block(0, offset, part.size, found)


class PackedFile(SegmentFile):
    """A segment of zstd frames, which follow each other as they get ready.

    Args:
      compress: As in `compression.pack`.
    """

    def __init__(
        self,
        path: Path,
        runs: Sequence[list[Part]],
        known: Known,
        compress: Compress,
        *,
        fsync: bool,
    ) -> None:
        super().__init__(path, runs, known, fsync=fsync)
        self._compress = compress
        names = [_packed_name(part) for part in self.parts]
        room = len(msgspec.json.encode(names)) + _ENTRY_BYTES * len(names)
        self._start = _round_up(8 + room, _ALIGN)
        self._size = self._start
        self._packed: list[tuple[int, list[str], list[Tensors]]] = []

    def _write(self, fd: int, part: Part, index: int) -> None:
        with _scratch() as scratch:
            stored, found, unpacked = self._content(part, scratch)
            if part.place is None:
                frame = compression.pack(stored, self._compress)
                if frame is not None:
                    stored, unpacked = frame, part.size
            offset = self._append(part, len(stored), unpacked)
            disk.write(fd, stored, offset, path=self.path)
        size = len(stored)
        self._blocks[part.number] = Block(0, offset, size, found, unpacked)

    def _append(self, part: Part, size: int, unpacked: int) -> int:
        """Give a block its place in the file and its entry in the header."""
        names = [_packed_name(part)] if unpacked else part.names
        tensors = part.tensors(size if unpacked else None)
        with self._lock:
            offset = _round_up(self._size, _ALIGN)
            self._size = offset + size
            self._packed.append((offset - self._start, names, tensors))
        return offset

    def _end(self, fd: int) -> None:
        table = _Table()
        for begin, names, tensors in self._packed:
            table.add(names, tensors, begin)
        self._header = table.header(self._start)
        assert len(self._header) == self._start
        super()._end(fd)


@contextlib.contextmanager
def _scratch() -> Iterator[np.ndarray]:
    """Lend a block of memory that this thread uses again and again.

    It is nobody else's meanwhile, even if a signal handler saves.
    """
    memory = _local.__dict__.pop("memory", None)
    if memory is None:
        memory = np.empty(BLOCK_BYTES, np.uint8)
    try:
        yield memory
    finally:
        _local.memory = memory


def _tensors_of(run: Sequence[Part]) -> tuple[list[str], list[Tensors]]:
    """Return names and tensors of blocks that lie together in a leaf, or of one."""
    first, last = run[0], run[-1]
    if isinstance(first, Gathered) or isinstance(last, Gathered):
        return first.names, first.tensors()
    leaf, rows = first.leaf, (first.start, last.stop)
    return [leaf.name_of(*rows)], [leaf.tensor(*rows)]


def _packed_name(part: Part) -> str:
    names = part.names
    return names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]}"


class _Entry(msgspec.Struct, gc=False):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class _Table:
    """The header of a segment."""

    def __init__(self) -> None:
        self.end = 0  # Of the data so far.
        self._entries: dict[str, _Entry] = {}

    def add(self, names: Sequence[str], runs: Sequence[Tensors], block: int) -> None:
        """Add the tensors of a block that begins there; gaps become padding."""
        free = iter(_free(names, self._entries))
        for tensors in runs:
            begin, size = block + tensors.begin, tensors.size
            if begin > self.end:
                padding = _Entry("U8", (begin - self.end,), (self.end, begin))
                self._entries[_PADDING % len(self._entries)] = padding
            self.end = begin + size * tensors.count
            begins = range(begin, self.end, size)
            ends = range(begin + size, self.end + size, size)
            places = zip(begins, ends, strict=True)
            made = map(_Entry, repeat(tensors.dtype), repeat(tensors.shape), places)
            self._entries.update(zip(islice(free, tensors.count), made, strict=True))

    def header(self, size: int = 0) -> bytes:
        """Return the bytes before the data, padded to `size` or what aligns it."""
        text = msgspec.json.encode(self._entries)
        size = max(size, _round_up(8 + len(text), _ALIGN))
        return (size - 8).to_bytes(8, "little") + text.ljust(size - 8)


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

"""One segment file that is being written.

A segment is a valid safetensors file: eight bytes with the size of the header, a JSON
header padded with spaces, and the data. Each entry of the header is a leaf, some rows
of one, or padding.
"""

from __future__ import annotations

import abc
import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..format import compression
from ..format.compression import Compress
from ..format.header import ALIGN, Header, Naming, Tensors, room_for, round_up
from ..format.manifest import Block, Segment, digest
from ..storage import disk
from .blocks import BLOCK_BYTES, Gathered, Part, head_of
from .reuse import Known

_local = threading.local()


class SegmentFile(abc.ABC):
    """A segment; there are two kinds, which differ in how they lay out data.

    Args:
      path: The file.
      runs: Blocks, of which those that lie together in a leaf are a list.
      known: Where to read blocks that are moved from a segment of an earlier save.
      naming: What its tensors are called.
      fsync: Whether to make the file durable.

    Attributes:
      parts: Its blocks.
      least_bytes: What the file will take, at the least.
      written_s: When all was written but not durable, by the monotonic clock.
    """

    def __init__(
        self,
        path: Path,
        runs: Sequence[list[Part]],
        known: Known,
        naming: Naming,
        *,
        fsync: bool,
    ) -> None:
        self.path = path
        self.least_bytes = 0
        self.written_s = 0.0
        self.parts = [part for run in runs for part in run]
        self._known = known
        self._naming = naming
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
        try:
            self._write(file.fd, self.parts[index], index)
            with self._lock:
                self._left -= 1
                is_last = not self._left
            if is_last:
                self._end(file.fd)
        finally:
            del file  # Or an error would keep it open.

    @abc.abstractmethod
    def _write(self, fd: int, part: Part, index: int) -> None:
        """Write one block, and note its entry of the manifest."""

    def _end(self, fd: int) -> None:
        """Write the header and make the file durable."""
        disk.write(fd, self._header, 0, path=self.path)
        self.written_s = time.monotonic()
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
        self,
        path: Path,
        runs: Sequence[list[Part]],
        known: Known,
        naming: Naming,
        *,
        fsync: bool,
    ) -> None:
        super().__init__(path, runs, known, naming, fsync=fsync)
        header = Header(is_dated=not naming.is_plain)
        offsets: list[int] = []
        for run in runs:
            begin = round_up(header.end, ALIGN)
            position = begin
            for part in run:
                offsets.append(position)
                position += part.size
            header.add(*_tensors_of(run, naming), begin)
        self._header = header.encode()
        self._offsets = [len(self._header) + offset for offset in offsets]
        self._size = self.least_bytes = len(self._header) + header.end

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
        naming: Naming,
        compress: Compress,
        *,
        fsync: bool,
    ) -> None:
        super().__init__(path, runs, known, naming, fsync=fsync)
        self._compress = compress
        names = [_frame_name(part) for part in self.parts]
        self._start = room_for(naming.of_others(names))
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
        names = [_frame_name(part)] if unpacked else part.names
        tensors = part.tensors(size if unpacked else None)
        with self._lock:
            offset = round_up(self._size, ALIGN)
            self._size = offset + size
            self._packed.append((offset - self._start, names, tensors))
        return offset

    def _end(self, fd: int) -> None:
        header = Header(is_dated=True)
        for begin, names, tensors in self._packed:
            header.add(self._naming.of_others(names), tensors, begin)
        self._header = header.encode(self._start)
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


def _tensors_of(
    run: Sequence[Part], naming: Naming
) -> tuple[Sequence[str], list[Tensors]]:
    """Return names and tensors of blocks that lie together in a leaf, or of one."""
    first, last = run[0], run[-1]
    if isinstance(first, Gathered) or isinstance(last, Gathered):
        return naming.of_leaves(first.names), first.tensors()
    leaf, rows = first.leaf, (first.start, last.stop)
    call = naming.of_leaves if leaf.is_all(*rows) else naming.of_others
    return call([leaf.name_of(*rows)]), [leaf.tensor(*rows)]


def _frame_name(part: Part) -> str:
    names = part.names
    name = names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]}"
    return f"{name}.zst"

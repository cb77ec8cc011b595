"""One segment that is being written.

A segment is a valid safetensors file: eight bytes with the size of the header, a JSON
header padded with spaces, and the data. Each entry of the header is a leaf, some rows
of one, or padding.
"""

from __future__ import annotations

import abc
import contextlib
import functools
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from msgspec import structs

from ..format import compression, digests, manifest
from ..format.compression import Compress
from ..format.header import ALIGN, Header, Naming, Tensors, room_for, round_up
from ..format.manifest import Segment
from ..storage.store import Draft, Sink
from .blocks import LeafBlock
from .layout import Item, Layout, Run, divide, frame, runs_of, source
from .options import SaveOptions
from .reuse import Moved

_local = threading.local()


class Written(NamedTuple):
    """A block that a segment holds.

    Attributes:
      number: Which block of the component it is.
      segment: The segment's entry in the manifest.
      block: The block's entry; the number of its segment is not set.
      prefix_hash: Of the content, None if unknown.
    """

    number: int
    segment: Segment
    block: manifest.Block
    prefix_hash: int | None


class SegmentWriter(abc.ABC):
    """A segment; there are two kinds, which differ in how they lay out data.

    Args:
      name: Name of the segment.
      runs: Its blocks, those that lie together in a leaf in a list.

    Attributes:
      items: Its blocks, which may be of several components.
      size_bytes: Their size, if they are not compressed.
      least_bytes: What the segment will take, at the least.
      written_s: When all was written but not durable, by the monotonic clock.
    """

    least_bytes = 0
    written_s = 0.0

    def __init__(self, name: str, runs: Sequence[Run]) -> None:
        self.items = [item for run in runs for item in run.items]
        self.size_bytes = sum(item.size for item in self.items)
        self._name = name
        self._lock = threading.Lock()
        self._left = len(self.items)
        self._sink: Sink | None = None
        self._blocks: dict[Item, manifest.Block] = {}

    def open(self, draft: Draft) -> None:
        """Begin the segment."""
        self._sink = draft.segment(self._name, self.size_bytes)

    def close(self) -> None:
        """Let go of it, as soon as no thread is in `write` any more."""
        if self._sink is not None:
            self._sink.close()

    def write(self, index: int) -> None:
        """Write the block at this position in `items`, and end after the last.

        Threads may write at the same time.
        """
        assert self._sink is not None
        item = self.items[index]
        with _scratch(item.size) as scratch:
            stored, block = self._stored(index, scratch)
            self._sink.write(stored, block.offset)
        self._blocks[item] = block
        with self._lock:
            self._left -= 1
            is_last = not self._left
        if is_last:
            self._sink.write(self._end(), 0)
            self.written_s = time.monotonic()
            self._sink.finish()

    @property
    def left_bytes(self) -> int:
        """Size of the blocks that are not written, as if all had one size."""
        return self.size_bytes * self._left // len(self.items)

    @abc.abstractmethod
    def _stored(self, index: int, scratch: np.ndarray) -> tuple[Any, manifest.Block]:
        """Return what to write of an item, and its entry of the manifest."""

    @abc.abstractmethod
    def _end(self) -> bytes:
        """Return the header, when all blocks are written."""

    @functools.cached_property
    def segment(self) -> Segment:
        """The entry of the manifest, when all is written."""
        return self._segment()

    @abc.abstractmethod
    def _segment(self) -> Segment:
        """Return the entry of the manifest."""

    def written(self, item: Item) -> Written:
        """Return one of the blocks, when all is written."""
        return Written(item.number, self.segment, self._blocks[item], item.prefix_hash)


class RawSegment(SegmentWriter):
    """A segment that holds leaves as they are; its layout is known from the start."""

    def __init__(self, name: str, runs: Sequence[Run]) -> None:
        super().__init__(name, runs)
        self._layout = Layout(runs)
        self.least_bytes = self._layout.size

    def _stored(self, index: int, scratch: np.ndarray) -> tuple[Any, manifest.Block]:
        item, offset = self.items[index], self._layout.offsets[index]
        content = item.content(scratch)
        return content.data, manifest.Block(0, offset, item.size, content.digest)

    def _end(self) -> bytes:
        return self._layout.header

    def _segment(self) -> Segment:
        return self._layout.segment(self._name)


class PackedSegment(SegmentWriter):
    """A segment of zstd frames, which follow each other as they get ready.

    Args:
      compress: As in `compression.pack`.
    """

    def __init__(self, name: str, runs: Sequence[Run], compress: Compress) -> None:
        super().__init__(name, runs)
        self._namings = [
            structs.replace(run.naming, is_plain=False)
            for run in runs
            for _ in run.items
        ]
        self._compress = compress
        self._start = room_for(
            [
                name + naming.date
                for item, naming in zip(self.items, self._namings, strict=True)
                for name in naming.of_others(frame(item, 0)[0])
            ]
        )
        self._size = self._start
        self._packed: list[tuple[int, Sequence[str], list[Tensors]]] = []
        self._header = b""

    def _stored(self, index: int, scratch: np.ndarray) -> tuple[Any, manifest.Block]:
        item = self.items[index]
        stored, digest, unpacked = item.content(scratch)
        if not unpacked:
            packed = compression.pack(stored, self._compress)
            if packed is not None:
                stored, unpacked = packed, item.size
        offset = self._append(index, len(stored), is_packed=unpacked > 0)
        return stored, manifest.Block(0, offset, len(stored), digest, unpacked)

    def _append(self, index: int, size: int, *, is_packed: bool) -> int:
        """Give a block its place in the file and its entry in the header."""
        item, naming = self.items[index], self._namings[index]
        block = source(item)
        names, tensors = (
            frame(item, size) if is_packed else (block.names, block.tensors)
        )
        with self._lock:
            offset = round_up(self._size, ALIGN)
            self._size = offset + size
            called = naming.of_others(names)
            self._packed.append((offset - self._start, called, tensors))
        return offset

    def _end(self) -> bytes:
        header = Header(self._namings[0].date)
        for begin, names, tensors in self._packed:
            header.add(names, tensors, begin)
        self._header = header.encode(self._start)
        assert len(self._header) == self._start
        return self._header

    def _segment(self) -> Segment:
        digest = digests.digest(self._header)
        return Segment(self._name, self._size, len(self._header), digest)


Portion = tuple[Sequence[Item], Naming]  # Of a component, and how it is called.


def segments_of(
    portions: Sequence[Portion],
    name: Callable[[Item], str],
    options: SaveOptions,
    most_bytes: int,
) -> Iterator[SegmentWriter]:
    """Divide blocks among segments.

    Args:
      portions: The blocks of one component, or of several.
      name: Returns a name for the segment that begins with a block.
      options: How they are written.
      most_bytes: A segment ends before this size, unless a leaf is larger.
    """
    compress, count = options.compress, options.sizes.segment_leaves
    raw: list[Run] = []
    packed: list[Run] = []
    for items, naming in portions:
        own = [_is_packed(item, compress) for item in items]
        plain = (x for x, is_packed in zip(items, own, strict=True) if not is_packed)
        raw += runs_of(plain, naming)
        packed += [Run([x], naming) for x in itertools.compress(items, own)]
    for runs in divide(raw, most_bytes, count):
        yield RawSegment(name(runs[0].items[0]), runs)
    for runs in divide(packed, most_bytes, count):
        yield PackedSegment(name(runs[0].items[0]), runs, compress)


def _is_packed(item: Item, compress: Compress) -> bool:
    if isinstance(item, Moved):
        return item.ref.block.unpacked > 0
    if compress == "auto" and isinstance(item, LeafBlock):
        return item.leaf.is_packed is True
    return isinstance(compress, int)


@contextlib.contextmanager
def _scratch(size: int) -> Iterator[np.ndarray]:
    """Lend a block of memory that this thread uses again and again.

    Nothing else has it meanwhile, even if a signal handler saves.
    """
    memory = _local.__dict__.pop("memory", None)
    if memory is None or len(memory) < size:
        memory = np.empty(size, np.uint8)
    try:
        yield memory
    finally:
        _local.memory = memory

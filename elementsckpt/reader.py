"""Segment files → blocks: read in parallel into the leaves' own memory, and verify."""

from __future__ import annotations

import collections
import contextlib
import mmap
import resource
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import disk
from .errors import DamagedError, ReadError
from .manifest import Component, digest
from .parallel import run

_OPEN_FILES = 64  # Of each component that is being read.
_streams: weakref.WeakSet[Reader] = weakref.WeakSet()


def _map_limit() -> int:
    """Return how many files to map: before Python 3.13 each takes a descriptor."""
    if sys.version_info >= (3, 13):
        return sys.maxsize
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2


def is_streaming(folder: Path) -> bool:
    """Tell whether this process still reads a generator from the save folder."""
    return any(stream.folder == folder for stream in list(_streams))


# Bytes of a leaf to read: number of the block in which they begin, where in it, and
# how many they are.
Want = tuple[int, int, int]
# Where the bytes of a leaf are: uint8[n] that it may keep, None without any, and where
# in it the leaf begins.
Memory = tuple[np.ndarray | None, int]


class Reader:
    """Reads one component of a save.

    Args:
      folder: The save folder.
      component: Its entry in the manifest.
      name_of: Returns the name of a leaf in a block, by number of block, for errors.
    """

    def __init__(
        self, folder: Path, component: Component, name_of: Callable[[int], str]
    ) -> None:
        self.folder = folder
        self._component = component
        self._name_of = name_of
        self._lock = threading.Lock()
        self._files: collections.OrderedDict[int, disk.File] = collections.OrderedDict()
        self._maps: dict[int, np.ndarray] = {}
        self._recent: dict[int, np.ndarray] = {}
        self._total = sum(block.size for block in component.blocks)

    def hold(self) -> None:
        """Keep the save from being pruned by this process until `close`."""
        _streams.add(self)

    def read(self, wants: Sequence[Want], *, mapped: bool = False) -> list[Memory]:
        """Read and verify bytes.

        Args:
          wants: What to read.
          mapped: Whether to map files, copy-on-write, instead of reading them, for
            leaves whose bytes lie together.

        Returns:
          Where each is; nobody else writes there.

        Raises:
          DamagedError: files are not what the manifest says.
          ValueError, IndexError: the manifest describes no such leaf.
        """
        # Each byte belongs to one leaf, so leaves cannot multiply the memory.
        if sum(size for _, _, size in wants) > self._total:
            raise ValueError("the leaves have more bytes than the blocks")
        to_read: dict[int, np.ndarray] = {}
        to_check: dict[int, np.ndarray] = {}
        # Shards that follow each other share blocks.
        shared = dict(self._recent)
        memories: list[Memory] = []
        for want in wants:
            number, offset, size = want
            data = shared.get(number)
            if data is not None and 0 < size <= data.size - offset and not mapped:
                memories.append((data, offset))  # Most of many small leaves.
                continue
            memory = self._map(want, to_check) if mapped else None
            memories.append(memory or self._allocate(want, to_read, shared))
        if to_check:
            run(lambda item: self._check(*item), to_check.items())
        if to_read:  # Not for most of many small shards.
            run(lambda item: self._load(*item), to_read.items())
        self._recent = dict(list(shared.items())[-1:])
        return memories

    def _allocate(
        self, want: Want, to_read: dict[int, np.ndarray], shared: dict[int, np.ndarray]
    ) -> Memory:
        """Give a leaf its memory and note which blocks to read into it."""
        number, offset, size = want
        if size == 0:
            return None, 0
        if number < 0:
            raise IndexError("a leaf has no block")
        whole = self._component.blocks[number].size
        if size < whole and offset + size <= whole:
            data = shared.get(number)
            if data is None:
                _require_free(number, to_read)
                data = shared[number] = to_read[number] = np.empty(whole, np.uint8)
            return data, offset
        ends = self._ends(want)
        data = np.empty(size, np.uint8)
        begin = 0
        for index, end in enumerate(ends, number):
            _require_free(index, to_read)
            to_read[index] = data[begin:end]
            begin = end
        return data, 0

    def _ends(self, want: Want) -> list[int]:
        """Return where the blocks of a leaf that has its own end in it."""
        ends: list[int] = []
        number, offset, size = want
        end = 0
        while end < size:
            end += self._component.blocks[number].size
            ends.append(end)
            number += 1
        if end != size or offset:
            raise ValueError("a leaf begins or ends within a block of its own")
        return ends

    def _map(self, want: Want, to_check: dict[int, np.ndarray]) -> Memory | None:
        """Give a leaf its place in a mapped file; None if it has no single one."""
        begin, offset, size = want
        if size == 0 or begin < 0 or len(self._maps) >= _map_limit():
            return None
        first = self._component.blocks[begin]
        end, number = 0, begin
        while end < offset + size:
            block = self._component.blocks[number]
            if (block.segment, block.offset) != (first.segment, first.offset + end):
                return None
            end, number = end + block.size, number + 1
        try:
            data = self._mapped_file(first.segment, begin)
        except DamagedError:
            raise
        except OSError:  # No more maps are to be had; the rest is read.
            return None
        for index in range(begin, number):
            block = self._component.blocks[index]
            to_check[index] = data[block.offset : block.offset + block.size]
        return data, first.offset + offset

    def _mapped_file(self, number: int, block: int) -> np.ndarray:
        if number not in self._maps:
            protection = mmap.PROT_READ | mmap.PROT_WRITE
            with self._naming(block):
                file = self._file(number)
            options: Any = {} if sys.version_info < (3, 13) else {"trackfd": False}
            content = mmap.mmap(
                file.fd, file.size, mmap.MAP_PRIVATE, protection, **options
            )
            self._maps[number] = np.frombuffer(content, np.uint8)
        return self._maps[number]

    def _load(self, number: int, memory: np.ndarray) -> None:
        block = self._component.blocks[number]
        with self._naming(number):
            self._file(block.segment).read(memory, block.offset)
        self._check(number, memory)

    def _check(self, number: int, memory: np.ndarray) -> None:
        block = self._component.blocks[number]
        found = digest(memory)
        if found != block.digest:
            raise DamagedError(
                f"{self._path(block.segment)} is damaged between bytes {block.offset} "
                f"and {block.offset + block.size}: their digest is {found}, expected "
                f"{block.digest}. {self._held(number)}"
            )

    @contextlib.contextmanager
    def _naming(self, block: int) -> Iterator[None]:
        """Add to an error which leaf is in the block."""
        try:
            yield
        except DamagedError as error:
            raise DamagedError(f"{error} {self._held(block)}") from error

    def _held(self, number: int) -> str:
        return f"It holds {self._name_of(number)}."

    def _path(self, segment: int) -> Path:
        return self.folder / self._component.segments[segment].file

    def _file(self, number: int) -> disk.File:
        with self._lock:
            file = self._files.pop(number, None)
            if file is None:
                try:
                    file = self._open(number)
                except ReadError:  # Too many open files, perhaps because of these.
                    self._files.clear()
                    file = self._open(number)
            self._files[number] = file
            if len(self._files) > _OPEN_FILES:
                self._files.popitem(last=False)
            return file

    def _open(self, number: int) -> disk.File:
        segment = self._component.segments[number]
        file = disk.File(self._path(number))
        if file.size != segment.size:
            raise DamagedError(
                f"{file.path} is damaged: it has {file.size} bytes, "
                f"expected {segment.size}."
            )
        header = np.empty(segment.start, np.uint8)
        file.read(header, 0)
        if digest(header) != segment.digest:
            raise DamagedError(
                f"{file.path} is damaged in its first {segment.start} bytes: their "
                f"digest is {digest(header)}, expected {segment.digest}."
            )
        return file

    def close(self) -> None:
        """Close the files and let go of the save."""
        _streams.discard(self)
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()
            self._recent = {}


def _require_free(block: int, taken: dict[int, np.ndarray]) -> None:
    if block in taken:
        raise ValueError("two leaves claim the same bytes")

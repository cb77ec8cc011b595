"""Blocks → segments: what is known is reused, the rest written in parallel."""

from __future__ import annotations

import collections
import os
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct

from ..format import compression
from ..format.compression import Compress
from ..format.header import Naming
from ..format.manifest import Block, Component, LeafGroup, Segment
from ..storage import disk
from ..storage.filetree import FolderWriter, make_folder
from ..system.threads import run
from .blocks import Cutter, Gathered, Large, Part
from .reuse import NOTHING, Known
from .segment_writer import PackedFile, RawFile, SegmentFile
from .staging import Staging

SEGMENT_BYTES = 64 << 20
SEGMENT_LEAVES = 100_000  # Other tools refuse headers of more than 100 MB.
_OPEN_FILES = 16
_FILES_IN_TURN = min(8, os.cpu_count() or 1)
_SAMPLES = 4


class Settings(Struct, frozen=True):
    """How the components of a save are written.

    Attributes:
      folder: The save folder.
      sequence: Number of the save; part of the file names.
      fsync: Whether segments are made durable.
      compress: Which leaves are compressed.
      staging: Memory for the copies of arrays that may change.
      shards: Memory for the copies of shards, each of which must be copied or written
        before the next is made; it may be the same.
      is_alone: Whether no other save will be linked to what is written.
    """

    folder: Path
    sequence: int
    fsync: bool
    compress: Compress
    staging: Staging
    shards: Staging
    is_alone: bool = False


class Writer:
    """Writes the components of one save."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._components: list[ComponentWriter] = []
        settings.staging.reset()  # The save before may have failed.
        settings.shards.reset()

    def component(self, stem: str, known: Known = NOTHING) -> ComponentWriter:
        """Begin a component.

        Args:
          stem: Start of the names of its files.
          known: What an earlier save holds.
        """
        component = ComponentWriter(stem, known, self._settings)
        self._components.append(component)
        return component

    def own(self) -> None:
        """Make what was added so far safe from later changes to its arrays.

        What an earlier save holds is found, and the rest copied, or written if there
        is no room for a copy.
        """
        work = [(x, part) for x in self._components for part in x.fresh()]
        if not all(run(lambda item: item[0].own(item[1]), work)):
            self.flush()
        for component in self._components:
            component.let_go()

    @property
    def is_full(self) -> bool:
        """Whether more is pending of shards than should be held."""
        size = sum(component.pending_bytes for component in self._components)
        return size >= self._settings.shards.limit_bytes

    def flush(self) -> None:
        """Write all that is pending, in parallel, and make it durable.

        Raises:
          WriteError: the disk refused.
        """
        unsettled = [(x, part) for x in self._components for part in x.unsettled()]
        run(lambda item: item[0].known.find(item[1]), unsettled)
        if self._settings.compress == "auto":
            run(_probe, [leaf for x in self._components for leaf in x.unprobed()])
        self._write([file for x in self._components for file in x.lay_out()])
        for component in self._components:
            component.clear()
        self._settings.staging.reset()
        self._settings.shards.reset()

    def finish(self) -> None:
        """Write what is left, and anew what is live in segments not worth a link.

        Raises:
          WriteError: the disk refused.
          LostError: a block to be written anew is damaged.
        """
        self.flush()
        self._write([file for x in self._components for file in x.lay_out_moved()])
        for component in self._components:
            component.conclude()

    def _write(self, files: Sequence[SegmentFile]) -> None:
        least = sum(file.least_bytes for file in files)
        disk.require_space(self._settings.folder, least)
        for start in range(0, len(files), _OPEN_FILES):
            batch = files[start : start + _OPEN_FILES]
            try:
                for file in batch:
                    file.open()
                run(lambda item: item[0].write(item[1]), list(_in_turn(batch)))
            finally:
                for file in batch:
                    file.close()


class ComponentWriter:
    """Writes one component, when the `Writer` that began it says so.

    Attributes:
      known: What an earlier save holds.
      pending_bytes: Size of the leaves that are not written yet.
      segments: The component's segments, when `Writer.finish` has returned.
      blocks: Its blocks, likewise.
      heads: `blocks.head_of` each block, None where that is unknown.
      owners: Digests of the blocks of immutable arrays, by the arrays' ids.
      bytes_written: Size of the files that were written.
      bytes_reused: Size of the blocks and files that were not.
    """

    def __init__(self, stem: str, known: Known, settings: Settings) -> None:
        self.known = known
        self.pending_bytes = 0
        self.segments: list[Segment] = []
        self.blocks: list[Block] = []
        self.heads: list[int | None] = []
        self.owners: dict[int, tuple[weakref.ref[Any], list[str]]] = {}
        self.bytes_written = 0
        self.bytes_reused = 0
        self._settings = settings
        self._staging = settings.staging
        self._stem = stem
        self._name = f"{stem}-{settings.sequence:06d}"
        self._cutter = Cutter(stem)
        self._pending: list[Part] = []
        self._fresh: list[Part] = []
        self._files: list[SegmentFile] = []
        self._reused: list[Part] = []
        self._folder: FolderWriter | None = None
        self._is_closed = False
        self._repeated: set[str] = set()  # Names, if leaves may be called by them.

    def make_folder(self) -> Path:
        """Make a folder for files that the component writes itself."""
        return make_folder(self._settings.folder, self._stem)

    def add_folder(self, path: Path, component: Component) -> None:
        """Add the folder that the component wrote itself; nothing is read yet.

        Args:
          path: The folder.
          component: Its entry in the manifest, which gets its files.

        Raises:
          StateError: something in it cannot be part of a save.
        """
        self._folder = FolderWriter(
            path, component, self.known.files, fsync=self._settings.fsync
        )

    def add(
        self,
        groups: Sequence[LeafGroup],
        storages: Sequence[Sequence[np.ndarray]],
        owners: Sequence[Sequence[Any]],
        prefix: str,
    ) -> list[LeafGroup]:
        """Give leaves their places; nothing is written and nothing copied yet.

        Args, Returns:
          As for `Cutter.add`; the groups are returned.
        """
        if self._cutter.open is not None:
            self._fresh.append(self._cutter.open)
        placed, parts = self._cutter.add(groups, storages, owners, prefix)
        if self._settings.is_alone or self._cutter.count <= 1:
            names = [prefix + x or self._stem for group in groups for x in group.names]
            self._repeated |= _repeated(names)
        self._fresh += parts
        self._pending += parts
        self.pending_bytes += sum(len(x) * x[0].nbytes for x in storages if x)
        for leaf in _leaves(parts):
            owner = leaf.owner and leaf.owner()
            if owner is not None:
                leaf.recall(self.known.digests(owner))
        return placed

    def stream(self) -> None:
        """Expect shards."""
        self._staging = self._settings.shards

    def close(self) -> None:
        """End the component: nothing will be added."""
        self._cutter.close()
        self._is_closed = True

    def fresh(self) -> list[Part]:
        """Return the blocks added to since `let_go` whose arrays may still change."""
        parts = dict.fromkeys(self._fresh)
        return [part for part in parts if not part.is_stable and part.place is None]

    def own(self, part: Part) -> bool:
        """Find the block in an earlier save, or copy it; False without room."""
        if part is not self._cutter.open:
            self.known.find(part)
        if part.place is None:
            return part.own(self._staging)
        part.release()
        return True

    def let_go(self) -> None:
        """Drop the arrays of which all is owned."""
        for leaf in _leaves(self._fresh):
            if not leaf.is_stable:
                leaf.storage = None
        self._fresh = []

    def unsettled(self) -> list[Part]:
        """End the block of small leaves; return what is to be found or written."""
        self._cutter.close()
        if self.known.is_empty:
            return []
        return [part for part in self._pending if not part.is_settled]

    def unprobed(self) -> list[Large]:
        """Return leaves of which nobody knows whether to compress them."""
        new = [part for part in self._pending if part.place is None]
        return [leaf for leaf in _leaves(new) if leaf.is_packed is None]

    def lay_out(self) -> list[SegmentFile]:
        """Divide the pending blocks that are not known into files."""
        return self._lay_out([part for part in self._pending if part.place is None])

    def lay_out_moved(self) -> list[SegmentFile]:
        """Divide the live blocks of segments that are not worth a link into files."""
        left = self.known.leave(self._untrue())
        moved: list[Part] = []
        kept: list[Part] = []
        for part in self._reused:
            assert part.place is not None
            (moved if part.place.segment in left else kept).append(part)
        self._reused = kept
        return self._lay_out(moved)

    def _untrue(self) -> set[int]:
        """Return the segments in which leaves had their own names, and have others now.

        What is in such a segment must be what it would hold if it was written now.
        """
        linked: dict[int, list[Part]] = {}
        for part in self._reused:
            if part.place is not None and not self.known.is_dated(part.place.segment):
                linked.setdefault(part.place.segment, []).append(part)
        return {n for n, parts in linked.items() if not self._is_true(n, parts)}

    def _is_true(self, number: int, parts: list[Part]) -> bool:
        segment = self.known.segment(number)
        parts.sort(key=lambda part: part.place.block.offset if part.place else 0)
        naming = Naming(segment.sequence, is_plain=True, repeated=self._repeated)
        path = self._settings.folder / segment.file
        file = RawFile(path, list(_runs(parts)), self.known, naming, fsync=False)
        return file.segment() == segment

    def _lay_out(self, parts: Sequence[Part]) -> list[SegmentFile]:
        files: list[SegmentFile] = []
        packed = [part for part in parts if self._is_packed(part)]
        raw = [part for part in parts if not self._is_packed(part)]
        compress, fsync = self._settings.compress, self._settings.fsync
        naming = self._naming()
        for runs in _divide(_runs(raw)):
            path = self._path(len(files))
            files.append(RawFile(path, runs, self.known, naming, fsync=fsync))
        for runs in _divide([part] for part in packed):
            path = self._path(len(files))
            files.append(
                PackedFile(path, runs, self.known, naming, compress, fsync=fsync)
            )
        self._files += files
        return files

    def _naming(self) -> Naming:
        """Return what leaves are called: a block by itself changes only as a whole."""
        is_whole = self._is_closed and self._cutter.count == 1
        is_plain = is_whole or self._settings.is_alone
        return Naming(self._settings.sequence, is_plain, self._repeated)

    def _is_packed(self, part: Part) -> bool:
        if part.place is not None:
            return part.place.block.unpacked > 0
        compress = self._settings.compress
        if compress == "auto" and not isinstance(part, Gathered):
            return part.leaf.is_packed is True
        return isinstance(compress, int)

    def _path(self, index: int) -> Path:
        index += len(self._files)
        return self._settings.folder / f"{self._name}-{index:05d}.safetensors"

    def clear(self) -> None:
        """Let go of what was pending, all of which is written or known."""
        for leaf in _leaves(self._pending):
            digests = [piece.digest for piece in leaf.pieces if piece.digest]
            owner = leaf.owner and leaf.owner()
            if owner is not None and len(digests) == len(leaf.pieces):
                self.owners[id(owner)] = weakref.ref(owner), digests
            leaf.release()
        for part in self._pending:
            part.release()
            if part.place is not None:
                self._reused.append(part)
        self._pending, self._fresh = [], []
        self.pending_bytes = 0

    @property
    def found_damaged(self) -> Path | None:
        """The earlier save, if something in it was found damaged."""
        folder = self._folder
        is_damaged = self.known.is_damaged or (folder is not None and folder.is_damaged)
        return self.known.path if is_damaged else None

    def conclude(self) -> None:
        """List segments, blocks and files, and drop the links that are not needed."""
        self.known.settle()
        found = [self.known.listed(part) for part in self._reused]
        for file in self._files:
            segment = file.segment()
            self.bytes_written += segment.size
            found += [(x.number, segment, file.block(x), x.head) for x in file.parts]
        self.bytes_reused = sum(
            part.place.block.size for part in self._reused if part.place
        )
        numbers: dict[str, int] = {}
        for _, segment, block, head in sorted(found, key=lambda item: item[0]):
            if segment.file not in numbers:
                numbers[segment.file] = len(self.segments)
                self.segments.append(segment)
            block.segment = numbers[segment.file]
            self.blocks.append(block)
            self.heads.append(head)
        self._files, self._reused = [], []
        if self._folder is not None:
            self._folder.finish()
            self.bytes_written += self._folder.bytes_written
            self.bytes_reused += self._folder.bytes_reused


def _in_turn(files: Sequence[SegmentFile]) -> Iterator[tuple[SegmentFile, int]]:
    """Yield the blocks of a few files in turn, then those of the next few.

    Threads that write to one file wait for each other, and while the first files are
    synced, the next ones are written.
    """
    for start in range(0, len(files), _FILES_IN_TURN):
        some = files[start : start + _FILES_IN_TURN]
        for index in range(max(len(file.parts) for file in some)):
            yield from ((file, index) for file in some if index < len(file.parts))


def _repeated(names: Sequence[str]) -> set[str]:
    """Return the names that are there more than once."""
    if len(set(names)) == len(names):
        return set()
    return {name for name, count in collections.Counter(names).items() if count > 1}


def _leaves(parts: Sequence[Part]) -> list[Large]:
    """Return the large leaves that the blocks are of."""
    return list(dict.fromkeys(x.leaf for x in parts if not isinstance(x, Gathered)))


def _probe(leaf: Large) -> None:
    """Decide whether to compress the leaf, from blocks spread over it."""
    pieces = [piece for piece in leaf.pieces if piece.place is None]
    count = min(_SAMPLES, len(pieces))
    chosen = [pieces[i * len(pieces) // count] for i in range(count)]
    leaf.is_packed = compression.is_worth_it([piece.data() for piece in chosen])


def _runs(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """Put blocks that follow each other in a leaf together."""
    run: list[Part] = []
    for part in parts:
        follows = (
            bool(run)
            and not isinstance(part, Gathered)
            and not isinstance(run[-1], Gathered)
            and part.leaf is run[-1].leaf
            and part.number == run[-1].number + 1
        )
        if run and not follows:
            yield run
            run = []
        run.append(part)
    if run:
        yield run


def _divide(runs: Iterator[list[Part]]) -> Iterator[list[list[Part]]]:
    """Divide runs of blocks among segments, never a run between two."""
    chosen: list[list[Part]] = []
    size = count = 0
    for run_ in runs:
        run_size = sum(part.size for part in run_)
        run_count = sum(part.leaf_count for part in run_)
        is_full = size + run_size > SEGMENT_BYTES
        if chosen and (is_full or count + run_count > SEGMENT_LEAVES):
            yield chosen
            chosen, size, count = [], 0, 0
        chosen.append(run_)
        size += run_size
        count += run_count
    if chosen:
        yield chosen

"""Blocks of earlier saves, linked into the one being written.

A block whose content an earlier save holds is not written again: the segment that it is
in gets a second name, in the new save folder. The file system counts the names, so each
save stays complete in itself, and removing one harms no other.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct

from ..errors import CheckpointError, DamagedError, WriteError
from ..format import manifest
from ..format.compression import Compress
from ..format.header import is_dated
from ..format.manifest import Block, Files, Segment, digest
from ..storage import disk
from ..storage.reader import open_segment, stored_bytes, verify_stored
from ..system.threads import run
from .blocks import Part, Place, head_of

# Of the blocks that are linked, each save reads one in this many, others each time;
# more than so many segments, small ones are moved.
CHECK_EVERY = 16
_MANY_SEGMENTS = 64
_SMALL_BYTES = 4 << 20
# What says something about one file, not about links: it is gone, or has very many.
_ONLY_THIS = {errno.ENOENT, errno.EMLINK}
_logger = logging.getLogger("elementsckpt")


class _NoLinksError(Exception):
    """The file system refused a link for a reason that all segments share."""


class LostError(DamagedError):
    """A block that was to be reused is damaged, and its content gone from memory."""


class Remembered(Struct):
    """What a component saved last, as far as the next save may reuse it.

    Attributes:
      path: The save folder.
      sequence: Its number.
      segments: The component's segments there.
      blocks: Its blocks.
      heads: `head_of` each block, None where that is unknown.
      turn: Which of the blocks the next save that reuses them checks.
      owners: Digests of the blocks of immutable arrays, by the arrays' ids.
      files: The folder that it wrote itself, or None.
      is_synced: Whether this process made it durable. If another one did, these may be
        copies, which nobody has synced.
    """

    path: Path
    sequence: int
    segments: list[Segment]
    blocks: list[Block]
    heads: list[int | None]
    turn: int
    owners: dict[int, tuple[weakref.ref[Any], list[str]]] = {}
    files: Files | None = None
    is_synced: bool = False


class Known:
    """Blocks and files that an earlier save of a component holds.

    Args:
      remembered: What it holds.
      folder: The new save folder, into which segments are linked.
      fsync: Whether what the new save relies on must be durable.
      compress: How the new save is compressed, which its blocks should be, too.

    Attributes:
      path: The earlier save.
      turn: As of `Remembered`.
    """

    def __init__(
        self,
        remembered: Remembered,
        folder: Path,
        *,
        fsync: bool,
        compress: Compress,
    ) -> None:
        self.path = remembered.path
        self.turn = remembered.turn
        self._remembered = remembered
        self._lock = threading.Lock()
        self._segments = [
            _Linked(remembered, segment, folder, fsync=fsync)
            for segment in remembered.segments
        ]
        # Of equal blocks each is used once, and one that did not move where it was.
        self._places: dict[str, dict[int, Place]] = {}
        pairs = zip(remembered.blocks, remembered.heads, strict=True)
        for number, (block, head) in enumerate(pairs):
            self._segments[block.segment].blocks.append(block)
            if _fits(block, compress):
                place = Place(block.segment, block, head)
                self._places.setdefault(block.digest, {})[number] = place
        heads = set(remembered.heads)
        self._heads = None if None in heads else heads
        self._left: set[int] = set()

    @property
    def files(self) -> dict[str, Path]:
        """Files that the component wrote itself, by digest."""
        files = self._remembered.files
        if files is None:
            return {}
        folder = self._remembered.path / files.folder
        return {file.digest: folder / file.path for file in files.files}

    @property
    def is_damaged(self) -> bool:
        """Whether a segment of the earlier save was found damaged."""
        return any(segment.is_damaged for segment in self._segments)

    @property
    def is_empty(self) -> bool:
        """Whether no block can be found."""
        return not self._places

    def digests(self, owner: Any) -> list[str] | None:
        """Return the digests of the blocks of an immutable array, if it is known."""
        reference, digests = self._remembered.owners.get(id(owner), (None, None))
        return digests if reference is not None and reference() is owner else None

    def find(self, part: Part) -> None:
        """Set the part's place if its content is known."""
        part.is_settled = True
        if not self._places:
            return
        found = part.digest
        if found is None:
            data = part.data()
            part.head = head_of(data)
            if self._heads is not None and part.head not in self._heads:
                return
            found = digest(data)
        part.place = self._take(found, part.number)
        if part.place is not None and part.head is None:
            part.head = part.place.head
        if part.is_stable:
            part.digest = found

    def _take(self, found: str, number: int) -> Place | None:
        """Return a place with this content, which nobody else gets."""
        with self._lock:
            places = self._places.get(found)
            while places:
                place = places.pop(number if number in places else next(iter(places)))
                segment = self._segments[place.segment]
                try:
                    is_good = segment.is_good()
                except _NoLinksError as error:
                    _logger.debug("Nothing is reused in this save: %s", error)
                    self._places.clear()
                    return None
                if is_good:
                    segment.live_bytes += place.block.size
                    return place
        return None

    def segment(self, number: int) -> Segment:
        """Return a segment's entry in the manifest of the earlier save."""
        return self._remembered.segments[number]

    def is_dated(self, number: int) -> bool:
        """Tell whether the names in a segment that is linked are dated."""
        return self._segments[number].is_dated

    def leave(self, untrue: set[int]) -> set[int]:
        """Choose the segments that are not linked; return their numbers.

        Some are mostly dead, or small and many: a component that changes a little each
        time would otherwise be spread over as many files as it has blocks.

        Args:
          untrue: Numbers of those that may not be linked, for what is in them is called
            by names of other leaves.
        """
        linked = {n for n, x in enumerate(self._segments) if x.live_bytes}
        left = {n for n in linked if self._segments[n].is_thin}
        if len(linked - left) > _MANY_SEGMENTS:
            left |= {n for n in linked if self._segments[n].live_bytes < _SMALL_BYTES}
        self._left = left = left | untrue
        return left

    def listed(self, part: Part) -> tuple[int, Segment, Block, int | None]:
        """Return a part's number, its segment and block for the manifest, its head."""
        place = part.place
        assert place is not None
        segment, old = self.segment(place.segment), place.block
        block = Block(0, old.offset, old.size, old.digest, old.unpacked)
        return part.number, segment, block, part.head

    def read(self, part: Part) -> np.ndarray:
        """Return a part as it is stored, uint8[n], verified.

        Raises:
          LostError: it is damaged.
        """
        place = part.place
        assert place is not None
        try:
            return self._segments[place.segment].read(place.block)
        except DamagedError as error:
            raise LostError(
                f"{error} The save that was to reuse it was not made. Save again: the "
                f"next one does without."
            ) from error

    def settle(self) -> None:
        """Remove the links to the segments that `leave` chose."""
        for number in self._left:
            self._segments[number].drop()


def _fits(block: Block, compress: Compress) -> bool:
    if compress is None:
        return not block.unpacked
    return compress == "auto" or block.unpacked > 0


NOTHING = Known(
    Remembered(Path(), 0, [], [], [], 0), Path(), fsync=False, compress=None
)


class _Linked:
    """A segment of an earlier save, linked into the new one when it is needed.

    Attributes:
      blocks: Its blocks that are live in the earlier save.
      live_bytes: Size of those that the new save reuses.
      is_damaged: Whether it was found damaged.
      is_dated: Whether the names in it are dated, if it is linked.
    """

    def __init__(
        self, remembered: Remembered, segment: Segment, folder: Path, *, fsync: bool
    ) -> None:
        self.blocks: list[Block] = []
        self.live_bytes = 0
        self.is_damaged = False
        self.is_dated = False
        self._segment = segment
        self._source = remembered.path / segment.file
        self._path = folder / segment.file
        self._turn = remembered.turn
        self._fsync = fsync
        self._is_synced = remembered.is_synced
        self._good: bool | None = None

    @property
    def is_thin(self) -> bool:
        """Whether more than half of it would be dead bytes."""
        return 2 * self.live_bytes < self._segment.size - self._segment.start

    def is_good(self) -> bool:
        """Link and check it, once; tell whether its blocks may be reused.

        Raises:
          _NoLinksError: there are no links here.
          WriteError: it is damaged, and the link cannot be removed.
        """
        if self._good is None:
            self._good = self._link()
        return self._good

    def _link(self) -> bool:
        self._good = False
        try:
            disk.link(self._source, self._path)
        except WriteError as error:
            if error.errno not in _ONLY_THIS:
                raise _NoLinksError(error) from error
            self.is_damaged = disk.is_missing(self._source)  # Or the save is gone.
            _logger.debug("Not reused, but written again: %s", error)
            return False
        try:
            self._check()
        except CheckpointError as error:
            self.is_damaged = isinstance(error, DamagedError)
            again = "Not reused, but written again, as all of %s: %s"
            _logger.warning(again, self._source, error)
            self.drop()
            return False
        return True

    def _check(self) -> None:
        """Read some of the blocks, or all if the file is newer than its save.

        Which blocks it is their turn follows from their digests, as their positions
        change.
        """
        with open_segment(self._path, self._segment) as file:
            self.is_dated = is_dated(file.read)
            self._check_some(file)

    def _check_some(self, file: disk.File) -> None:
        try:
            saved = os.stat(self._source.parent / manifest.NAME).st_mtime_ns
            is_changed = os.fstat(file.fd).st_mtime_ns > saved
        except OSError:  # The save is being removed.
            is_changed = True
        turn = self._turn % CHECK_EVERY
        blocks = [x for x in self.blocks if int(x.digest, 16) % CHECK_EVERY == turn]
        run(lambda x: _verify(file, x), self.blocks if is_changed else blocks)
        if self._fsync and (is_changed or not self._is_synced):
            disk.sync(file.fd, path=self._path)

    def read(self, block: Block) -> np.ndarray:
        """Return a block as it is stored, verified."""
        try:
            with disk.File(self._path) as file:
                stored = stored_bytes(file, block)
            verify_stored(file.path, block, stored)
        except DamagedError:
            self.is_damaged = True
            raise
        return stored

    def drop(self) -> None:
        """Remove the link."""
        if os.path.lexists(self._path):
            disk.remove(self._path)


def _verify(file: disk.File, block: Block) -> None:
    verify_stored(file.path, block, stored_bytes(file, block))

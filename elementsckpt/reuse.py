"""Blocks of earlier saves, linked into the one being written.

A block whose content an earlier save holds is not written again: the segment that it is
in gets a second name, in the new save folder. The file system counts the names, so each
save stays complete in itself, and removing one harms no other.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct

from . import disk, manifest, scalars
from .blocks import Part, Place, head_of
from .compression import Compress
from .errors import CheckpointError, DamagedError, WriteError
from .folder import Found
from .manifest import Block, Component, Segment, digest
from .parallel import run
from .reader import open_segment, stored_bytes, verify_stored

# Of the blocks that are linked, each save reads one in this many, others each time.
CHECK_EVERY = 16
_MANY_SEGMENTS = 64
_SMALL_BYTES = 4 << 20
_logger = logging.getLogger("elementsckpt")


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
      owners: Digests of the blocks of immutable arrays, by the arrays' ids.
    """

    path: Path
    sequence: int
    segments: list[Segment]
    blocks: list[Block]
    heads: list[int | None]
    owners: dict[int, tuple[weakref.ref[Any], list[str]]] = {}


class Known:
    """Blocks that an earlier save of a component holds.

    Args:
      remembered: What it holds.
      folder: The new save folder, into which segments are linked.
      sequence: Number of the new save.
      compress: How the new save is compressed, which its blocks should be, too.
    """

    def __init__(
        self,
        remembered: Remembered,
        folder: Path,
        *,
        sequence: int,
        compress: Compress,
    ) -> None:
        self._remembered = remembered
        self._lock = threading.Lock()
        self._places: dict[str, list[Place]] = {}
        blocks: list[list[Block]] = [[] for _ in remembered.segments]
        for number, block in enumerate(remembered.blocks):
            if (number + sequence) % CHECK_EVERY == 0:
                blocks[block.segment].append(block)
            place = Place(block.segment, block, remembered.heads[number])
            if _fits(block, compress):
                self._places.setdefault(block.digest, []).append(place)
        heads = {place.head for places in self._places.values() for place in places}
        self._heads = None if None in heads else heads
        self._segments = [
            _Linked(remembered, number, folder, samples)
            for number, samples in enumerate(blocks)
        ]
        self._left: set[int] = set()

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
        part.place = self._take(found)
        if part.is_stable:
            part.digest = found

    def _take(self, found: str) -> Place | None:
        """Return a place with this content, which nobody else gets."""
        with self._lock:
            places = self._places.get(found)
            while places:
                place = places.pop()
                segment = self._segments[place.segment]
                try:
                    is_good = segment.is_good()
                except WriteError as error:
                    _logger.debug("Nothing is reused: %s", error)
                    self._places.clear()
                    return None
                if is_good:
                    segment.live_bytes += place.block.size
                    return place
        return None

    def leave(self) -> set[int]:
        """Choose the segments that are not worth a link; return their numbers.

        They are mostly dead, or small and many: a component that changes a little each
        time would otherwise be spread over as many files as it has blocks.
        """
        linked = {n for n, x in enumerate(self._segments) if x.live_bytes}
        left = {n for n in linked if self._segments[n].is_thin}
        if len(linked - left) > _MANY_SEGMENTS:
            left |= {n for n in linked if self._segments[n].live_bytes < _SMALL_BYTES}
        self._left = left
        return left

    def listed(self, part: Part) -> tuple[int, Segment, Block, int | None]:
        """Return a part's number, its segment and block for the manifest, its head."""
        place = part.place
        assert place is not None
        segment, old = self._remembered.segments[place.segment], place.block
        block = Block(0, old.offset, old.size, old.digest, old.unpacked)
        return part.number, segment, block, place.head or part.head

    def read(self, part: Part) -> np.ndarray:
        """Return a part as it is stored, uint8[n], verified.

        Raises:
          LostError: it is damaged.
        """
        place = part.place
        assert place is not None
        segment = self._segments[place.segment]
        try:
            with contextlib.closing(segment.open()) as file:
                stored = stored_bytes(file, place.block)
                verify_stored(file.path, place.block, stored)
                return stored
        except DamagedError as error:
            raise LostError(
                f"{error} The save that was to reuse it was not made; the next one "
                f"does without."
            ) from error

    def settle(self) -> None:
        """Remove the links to the segments that `leave` chose."""
        for number in self._left:
            self._segments[number].drop()


class Memory:
    """What the newest saves of a directory hold, for the next one to reuse.

    What this process saved itself is remembered; the rest is in the manifests.
    """

    def __init__(self) -> None:
        self._components: dict[str, Remembered] = {}
        self._manifest: tuple[Path, dict[Any, Component]] = (Path(), {})
        self._lost = 0  # Saves up to this sequence are not to be relied on.

    def known(
        self,
        key: str,
        saves: Sequence[Found],
        folder: Path,
        *,
        sequence: int,
        fsync: bool,
        compress: Compress,
    ) -> Known:
        """Return what the newest save with this component holds.

        Args:
          key: The component's key.
          saves: The saves of the directory, oldest first.
          folder: The new save folder.
          sequence: Number of the new save.
          fsync: Whether it is durable, and so what it relies on must be.
          compress: As in `Known`.
        """
        encoded = scalars.encode(key)
        for found in reversed(saves):
            head = found.head
            if head is None or not found.is_original or head.sequence <= self._lost:
                continue
            if not any(item.key == encoded for item in head.components):
                continue
            if fsync and not head.durable:
                continue
            remembered = self._components.get(key)
            saved = found.path, head.sequence
            if not remembered or (remembered.path, remembered.sequence) != saved:
                remembered = self._read(found, encoded)
            if remembered is None:
                continue
            return Known(remembered, folder, sequence=sequence, compress=compress)
        return NOTHING

    def _read(self, found: Found, key: Any) -> Remembered | None:
        where = found.path / manifest.NAME
        if self._manifest[0] != found.path:
            components = {}
            with contextlib.suppress(CheckpointError):
                saved = manifest.decode(disk.read_file(where), str(where))
                components = {str(item.key): item for item in saved.components}
            self._manifest = found.path, components
        component = self._manifest[1].get(str(key))
        if component is None:
            return None
        heads: list[int | None] = [None] * len(component.blocks)
        assert found.head is not None
        return Remembered(
            found.path,
            found.head.sequence,
            component.segments,
            component.blocks,
            heads,
        )

    def remember(self, components: dict[str, Remembered]) -> None:
        """Take note of what was just saved."""
        self._components |= components
        self._manifest = Path(), {}

    def distrust(self, sequence: int) -> None:
        """Reuse nothing of saves up to this sequence any more."""
        self._lost = sequence
        self._components.clear()


def _fits(block: Block, compress: Compress) -> bool:
    if compress is None:
        return not block.unpacked
    return compress == "auto" or block.unpacked > 0


NOTHING = Known(Remembered(Path(), 0, [], [], []), Path(), sequence=0, compress=None)


class _Linked:
    """A segment of an earlier save, linked into the new one when it is needed."""

    def __init__(
        self, remembered: Remembered, number: int, folder: Path, samples: list[Block]
    ) -> None:
        self.live_bytes = 0
        self._segment = remembered.segments[number]
        self._source = remembered.path / self._segment.file
        self._path = folder / self._segment.file
        self._number = number
        self._blocks = remembered.blocks
        self._samples = samples
        self._good: bool | None = None

    @property
    def is_thin(self) -> bool:
        """Whether more than half of it would be dead bytes."""
        return 2 * self.live_bytes < self._segment.size - self._segment.start

    def is_good(self) -> bool:
        """Link and check it, once; tell whether its blocks may be reused.

        Raises:
          WriteError: the file system has no links, or refused this one.
        """
        if self._good is None:
            self._good = self._link()
        return self._good

    def _link(self) -> bool:
        self._good = False
        disk.link(self._source, self._path)
        try:
            self._check()
        except CheckpointError as error:
            _logger.warning("Not reused, but written again: %s", error)
            self.drop()
            return False
        return True

    def _check(self) -> None:
        """Read a sample of the blocks, or all if the file is newer than its save."""
        file = self.open()
        try:
            saved = os.stat(self._source.parent / manifest.NAME).st_mtime_ns
            is_changed = os.fstat(file.fd).st_mtime_ns > saved
            mine = (x for x in self._blocks if x.segment == self._number)
            blocks = list(mine) if is_changed else self._samples
            run(lambda block: _verify(file, block), blocks)
        except OSError as error:
            raise DamagedError(f"Cannot check {self._path}: {error}.") from error
        finally:
            file.close()

    def open(self) -> disk.File:
        """Open the link for reading."""
        return open_segment(self._path, self._segment)

    def drop(self) -> None:
        """Remove the link."""
        if os.path.lexists(self._path):
            disk.remove(self._path)


def _verify(file: disk.File, block: Block) -> None:
    verify_stored(file.path, block, stored_bytes(file, block))

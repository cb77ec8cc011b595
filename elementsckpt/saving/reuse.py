"""Blocks of earlier saves that the save being written has, too.

A block whose content an earlier save holds is not written again: the segment that it is
in becomes one of the new save, too.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import DamagedError
from ..format import manifest
from ..format.compression import Compress
from ..format.digests import digest
from ..format.header import ALIGN, round_up
from ..format.manifest import Segment
from .blocks import Block, Content, prefix_hash
from .earlier_save import (
    EarlierSave,
    EarlierSegment,
    EarlierSegments,
    LostError,
    NoLinksError,
)
from .options import SaveOptions
from .rings import EarlierRing

_DEFAULT = SaveOptions()
_logger = logging.getLogger("elementsckpt")


class BlockRef(NamedTuple):
    """Where an earlier save holds the content of a block.

    Attributes:
      segment: Its segment's number in that save.
      block: Its entry in the manifest.
      prefix_hash: Of the content, or None if unknown.
    """

    segment: int
    block: manifest.Block
    prefix_hash: int | None

    @property
    def taken_bytes(self) -> int:
        """What the block and the gap before the next take of the segment."""
        return round_up(self.block.size, ALIGN)


class BlockIndex:
    """Finds blocks by content in an earlier save of a component.

    Args:
      earlier: What that save holds; None for nothing.
      segments: Those of earlier saves, which the new save gets.
      options: How it is written; its blocks should be compressed like this.

    Attributes:
      earlier: The same.
    """

    def __init__(
        self,
        earlier: EarlierSave | None = None,
        segments: EarlierSegments | None = None,
        options: SaveOptions = _DEFAULT,
    ) -> None:
        self.earlier = earlier
        self._sizes = options.sizes
        self._lock = threading.Lock()  # Of what can be found,
        self._keeping = self._lock if segments is None else segments.lock  # and kept.
        self._segments: list[EarlierSegment] = []
        self._blocks: list[manifest.Block] = []
        self._free = bytearray()  # Of equal blocks each is used once.
        self._places: dict[str, list[int]] | None = None  # Made when one has moved.
        self._prefix_hashes: set[int | None] | None = set()
        if earlier is None or segments is None:
            return
        self._segments = segments.of(earlier)
        self._blocks = earlier.blocks
        self._free += bytes(_fits(x, options.compress) for x in self._blocks)
        hashes = set(earlier.prefix_hashes)
        self._prefix_hashes = None if None in hashes else hashes

    @property
    def turn(self) -> int:
        """Which of the blocks this save checks, as of `EarlierSave`."""
        return 0 if self.earlier is None else self.earlier.turn

    @property
    def files(self) -> dict[str, Path]:
        """Files that the component wrote itself, by digest."""
        if self.earlier is None or self.earlier.files is None:
            return {}
        files = self.earlier.files
        folder = self.earlier.source.path / files.folder
        return {file.digest: folder / file.path for file in files.files}

    @property
    def rings(self) -> Mapping[str, EarlierRing]:
        """The ring buffers of the save."""
        return {} if self.earlier is None else self.earlier.rings

    @property
    def is_damaged(self) -> bool:
        """Whether a segment of the earlier save was found damaged."""
        return any(segment.is_damaged for segment in self._segments)

    @property
    def is_empty(self) -> bool:
        """Whether no block can be found."""
        return 1 not in self._free

    def digests(self, owner: Any) -> list[str] | None:
        """Return the digests of the blocks of an immutable array, if it is known."""
        owners = {} if self.earlier is None else self.earlier.owners
        reference, digests = owners.get(id(owner), (None, None))
        return digests if reference is not None and reference() is owner else None

    def find(self, block: Block) -> BlockRef | None:
        """Return where the earlier save holds the block; nothing else gets that place.

        Its content is let go of only if `keep` then keeps the segment.
        """
        if self.is_empty:
            return None
        found = block.digest
        if found is None:
            block.prefix_hash = prefix_hash(block.first_bytes())
            hashes = self._prefix_hashes
            if hashes is not None and block.prefix_hash not in hashes:
                return None
            found = digest(block.data())
            if block.hold:  # Else it may be other content by the time it is written.
                block.digest = found
        with self._lock:
            return self._claim(found, block.number)

    def _claim(self, found: str, number: int) -> BlockRef | None:
        """Return a block of this digest; the one of this number, if it did not move."""
        blocks, free = self._blocks, self._free
        if number >= len(free) or not free[number] or blocks[number].digest != found:
            numbers = self._numbers(found)
            while numbers and not free[numbers[-1]]:
                numbers.pop()
            if not numbers:
                return None
            number = numbers.pop()
        free[number] = 0
        assert self.earlier is not None
        block, known = blocks[number], self.earlier.prefix_hashes[number]
        return BlockRef(block.segment, block, known)

    def _numbers(self, found: str) -> list[int]:
        """Return the numbers of the blocks of this digest, the first of these last."""
        if self._places is None:
            self._places = {}
            for number in reversed(range(len(self._blocks))):
                self._places.setdefault(self._blocks[number].digest, []).append(number)
        return self._places.get(found, [])

    def keep(self, ref: BlockRef) -> bool:
        """Make the block's segment a part of the new save, once, and check it.

        Returns:
          Whether the block may be used.
        """
        with self._keeping:
            return self._keep(ref.segment, ref.taken_bytes, is_checked=True)

    def _keep(self, number: int, live_bytes: int, *, is_checked: bool) -> bool:
        segment = self._segments[number]
        try:
            is_kept = segment.keep(is_checked=is_checked)
        except NoLinksError as error:
            _logger.debug("Nothing is reused in this save: %s", error)
            with self._lock:
                self._free[:] = bytes(len(self._free))
            return False
        if is_kept:
            segment.live_bytes += live_bytes
        return is_kept

    def recall(self, blocks: Iterable[Block]) -> list[Reused]:
        """Find blocks whose digests are known, and keep what they are in.

        `check` has to follow.
        """
        with self._lock:
            pairs = ((x, self._claim(x.digest or "", x.number)) for x in blocks)
            found = [Reused(block, ref) for block, ref in pairs if ref is not None]
        live: dict[int, int] = {}
        for _, ref in found:
            live[ref.segment] = live.get(ref.segment, 0) + ref.taken_bytes
        with self._keeping:
            kept = {
                number
                for number, size in live.items()
                if self._keep(number, size, is_checked=False)
            }
        return [x for x in found if x.ref.segment in kept]

    def check(self) -> None:
        """Check the segments that are kept and were not checked.

        Raises:
          LostError: one is damaged.
        """
        for segment in self._segments:
            if segment.live_bytes:
                segment.keep()

    def want(self, refs: Iterable[BlockRef]) -> None:
        """Let `not_worth` count these, until `unwant`."""
        for ref in refs:
            self._segments[ref.segment].wanted_bytes += ref.taken_bytes

    def unwant(self, refs: Iterable[BlockRef]) -> None:
        """Undo `want`."""
        for ref in refs:
            self._segments[ref.segment].wanted_bytes -= ref.taken_bytes

    def not_worth(self) -> set[int]:
        """Return the segments of which the new save would use too little."""
        return {n for n, x in enumerate(self._segments) if x.used_bytes and x.is_thin}

    def scattered(self) -> set[int]:
        """Return segments, of the others, whose blocks should be gathered.

        A component that changes a little each time would otherwise be spread over as
        many files as it has blocks. Those of which least is used are gathered, a few in
        each save.
        """
        most = self._sizes.segments
        used = {n: x.used_bytes for n, x in enumerate(self._segments) if not x.is_thin}
        smallest = sorted(used, key=lambda n: used[n])[: max(0, len(used) - most)]
        sizes = itertools.accumulate(used[n] for n in smallest)
        room = sum(used.values()) // most
        return {n for n, size in zip(smallest, sizes, strict=True) if size <= room}

    def segment(self, number: int) -> Segment:
        """Return a segment's entry in the manifest of the earlier save."""
        return self._segments[number].entry

    def is_dated(self, number: int) -> bool:
        """Return whether the names in a segment that is kept are dated."""
        return self._segments[number].is_dated

    def read(self, ref: BlockRef) -> np.ndarray:
        """Return a block of a kept segment as it is stored, uint8[n], verified.

        Raises:
          LostError: it is damaged.
        """
        try:
            return self._segments[ref.segment].read(ref.block)
        except DamagedError as error:
            raise LostError(
                f"{error} The save that was to reuse it was not made. Save again: the "
                f"next one does without."
            ) from error

    def leave(self, refs: Iterable[BlockRef]) -> None:
        """Undo `keep`."""
        for ref in refs:
            self._segments[ref.segment].live_bytes -= ref.taken_bytes

    def drop(self, segments: Iterable[int]) -> None:
        """Give up segments that were kept, if no other component uses them."""
        for number in segments:
            if not self._segments[number].live_bytes:
                self._segments[number].drop()


class Reused(NamedTuple):
    """A block that an earlier save holds in a segment that is kept."""

    block: Block
    ref: BlockRef

    @property
    def prefix_hash(self) -> int | None:
        """Of the content, as far as it is known."""
        found = self.block.prefix_hash
        return self.ref.prefix_hash if found is None else found


class Moved:
    """A block that is written anew, from a segment that is not worth keeping.

    Args:
      reused: Where it is.
      index: Where to read it.
    """

    def __init__(self, reused: Reused, index: BlockIndex) -> None:
        self.block, self.ref = reused
        self.number = self.block.number
        self.size = self.block.size
        self.prefix_hash = reused.prefix_hash
        self._index = index

    def content(self, scratch: np.ndarray) -> Content:
        """Return what to write, as it is stored there."""
        block = self.ref.block
        return Content(self._index.read(self.ref), block.digest, block.unpacked)


def _fits(block: manifest.Block, compress: Compress) -> bool:
    if compress is None:
        return not block.unpacked
    return compress == "auto" or block.unpacked > 0


def remaining(
    reused: Sequence[Reused], left: set[int], index: BlockIndex
) -> tuple[list[Reused], list[Moved]]:
    """Divide blocks into those whose segments are kept, and those to be moved."""
    kept = [x for x in reused if x.ref.segment not in left]
    moved = [Moved(x, index) for x in reused if x.ref.segment in left]
    return kept, moved


def by_segment(reused: Iterable[Reused]) -> Mapping[int, list[Reused]]:
    """Return blocks by the number of their segment, in their order there."""
    found: dict[int, list[Reused]] = {}
    for one in sorted(reused, key=lambda x: x.ref.block.offset):
        found.setdefault(one.ref.segment, []).append(one)
    return found

"""What a component saved earlier, and its segments that become parts of a new save.

Where files can have several names a segment is linked, so each save stays complete in
itself, and removing one harms no other.
"""

from __future__ import annotations

import errno
import logging
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct

from ..errors import CheckpointError, DamagedError, WriteError
from ..format import manifest
from ..format.header import is_dated
from ..format.manifest import Files, Segment
from ..storage.reader import stored_bytes, verify_stored
from ..storage.store import Draft, OpenSegment, Source
from ..system.threads import run
from .rings import EarlierRing

# Of the blocks that are reused, each save reads one in this many, others each time.
CHECK_EVERY = 16
# What says something about one file, not about links: it is gone, has very many, or
# another earlier save has one of this name.
_ONLY_THIS = {errno.ENOENT, errno.EMLINK, errno.EEXIST}
_logger = logging.getLogger("elementsckpt")


class EarlierSave(Struct):
    """What a component saved last, as far as the next save may reuse it.

    Attributes:
      source: The save.
      sequence: Its number.
      segments: The component's segments there.
      blocks: Its blocks.
      prefix_hashes: `prefix_hash` of each block, None where that is unknown.
      turn: Which of the blocks the next save that reuses them checks.
      owners: Digests of the blocks of immutable arrays, by the arrays' ids.
      files: The folder that it wrote itself, or None.
      rings: Its ring buffers, by name.
      is_durable: Whether this process made it durable. If another one did, these may be
        copies that were never synced.
    """

    source: Source
    sequence: int
    segments: list[Segment]
    blocks: list[manifest.Block]
    prefix_hashes: list[int | None]
    turn: int
    owners: dict[int, tuple[weakref.ref[Any], list[str]]] = {}
    files: Files | None = None
    rings: Mapping[str, EarlierRing] = {}
    is_durable: bool = False


class LostError(DamagedError):
    """A block that was to be reused is damaged, and its content gone from memory."""


class NoLinksError(Exception):
    """The place refused to reuse for a reason that all segments share."""


class EarlierSegments:
    """The segments of earlier saves that a new one can reuse, each of them once.

    Small components share segments.

    Args:
      draft: The new save.

    Attributes:
      lock: Held by who keeps one.
    """

    def __init__(self, draft: Draft) -> None:
        self.lock = threading.Lock()
        self._draft = draft
        self._known: dict[tuple[Path, str], EarlierSegment] = {}

    def of(self, earlier: EarlierSave) -> list[EarlierSegment]:
        """Return the segments of a component."""
        found = []
        for entry in earlier.segments:
            key = earlier.source.path, entry.file
            if key not in self._known:
                self._known[key] = EarlierSegment(earlier, entry, self._draft)
            found.append(self._known[key])
        for block in earlier.blocks:
            found[block.segment].expect(block, earlier.turn)
        return found


class EarlierSegment:
    """A segment of an earlier save, a part of the new one when it is needed.

    Attributes:
      entry: Its entry in the manifest of the earlier save.
      live_bytes: Size of the blocks in it that the new save has kept.
      wanted_bytes: Size of those that it would use besides.
      is_damaged: Whether it was found damaged.
      is_dated: Whether the names in it are dated, if it is kept.
    """

    def __init__(self, earlier: EarlierSave, entry: Segment, draft: Draft) -> None:
        self.entry = entry
        self.live_bytes = 0
        self.wanted_bytes = 0
        self.is_damaged = False
        self.is_dated = False
        self._source, self._is_durable = earlier.source, earlier.is_durable
        self._draft = draft
        self._blocks: list[manifest.Block] = []  # Those that were not checked.
        self._due: list[manifest.Block] = []  # Of these.
        self._is_kept: bool | None = None
        self._is_linked = False
        self._is_trusted = False  # Blocks are used that were not checked.

    def expect(self, block: manifest.Block, turn: int) -> None:
        """Expect a block in it, to be checked if it is its turn.

        That follows from its digest, as positions change.
        """
        self._blocks.append(block)
        if int(block.digest, 16) % CHECK_EVERY == turn % CHECK_EVERY:
            self._due.append(block)

    @property
    def used_bytes(self) -> int:
        """Size of the blocks in it that the new save has kept, or would use."""
        return self.live_bytes + self.wanted_bytes

    @property
    def is_thin(self) -> bool:
        """Whether what is used of it should be written anew."""
        data_bytes = self.entry.size - self.entry.start
        return self.is_damaged or 2 * self.used_bytes < data_bytes

    def keep(self, *, is_checked: bool = True) -> bool:
        """Reuse it once, and check what is new; return whether its blocks may be used.

        Args:
          is_checked: Whether to check it; if not, another call has to do that.

        Raises:
          NoLinksError: nothing can be reused here.
          LostError: it is damaged, and blocks in it were used before the check.
          WriteError: it is damaged, and cannot be given up.
        """
        if self._is_kept is None:
            self._is_kept = False
            self._is_kept = self._reuse()
        if not is_checked:
            self._is_trusted = True
        elif self._is_kept and self._blocks:
            self._is_kept = self._is_good()
            if self._is_trusted and not self._is_kept:
                raise LostError(
                    f"{self._source.path / self.entry.file} was to be reused, and is "
                    f"damaged. The save was not made. Save again: the next one does "
                    f"without."
                )
            self._is_trusted = False
        return self._is_kept

    def _reuse(self) -> bool:
        source = self._source
        try:
            self._draft.reuse(source, self.entry)
        except WriteError as error:
            if error.errno not in _ONLY_THIS:
                raise NoLinksError(error) from error
            self.is_damaged = source.lacks(self.entry)  # Or the save is gone.
            _logger.debug("Not reused, but written again: %s", error)
            return False
        self._is_linked = True
        return True

    def _is_good(self) -> bool:
        try:
            with self._draft.source.open(self.entry) as file:
                self.is_dated = is_dated(file.read)
                self._check(file)
        except CheckpointError as error:
            self.is_damaged = isinstance(error, DamagedError)
            again = "Not reused, but written again, as all of %s: %s"
            _logger.warning(again, self._source.path / self.entry.file, error)
            if not self.live_bytes:  # Else what other components use is moved.
                self.drop()
            return False
        return True

    def _check(self, file: OpenSegment) -> None:
        """Read some of the blocks, or all if the file is newer than its save."""
        is_changed = self._source.may_have_changed(self.entry)
        blocks = self._blocks if is_changed else self._due
        self._blocks, self._due = [], []
        run(lambda x: verify_stored(file.path, x, stored_bytes(file, x)), blocks)
        if self._draft.fsync and (is_changed or not self._is_durable):
            file.sync()
            self._is_durable = not is_changed

    def read(self, block: manifest.Block) -> np.ndarray:
        """Return a block as it is stored, verified."""
        try:
            with self._draft.source.open(self.entry, is_verified=True) as file:
                stored = stored_bytes(file, block)
            verify_stored(file.path, block, stored)
        except DamagedError:
            self.is_damaged = True
            raise
        return stored

    def drop(self) -> None:
        """Give it up; a file of this name may be one that another save has, too."""
        if self._is_linked:
            self._draft.drop(self.entry.file)
            self._is_linked = False

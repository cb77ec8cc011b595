"""What a component saved earlier, and its segments that become parts of a new save.

Where files can have several names a segment is linked, so each save stays complete in
itself, and removing one harms no other.
"""

from __future__ import annotations

import errno
import logging
import weakref
from collections.abc import Mapping
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
# What says something about one file, not about links: it is gone, or has very many.
_ONLY_THIS = {errno.ENOENT, errno.EMLINK}
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


class EarlierSegment:
    """A segment of an earlier save, a part of the new one when it is needed.

    Attributes:
      entry: Its entry in the manifest of the earlier save.
      blocks: Its blocks that are live there.
      live_bytes: Size of those that the new save has kept.
      is_damaged: Whether it was found damaged.
      is_dated: Whether the names in it are dated, if it is kept.
    """

    def __init__(self, earlier: EarlierSave, entry: Segment, draft: Draft) -> None:
        self.entry = entry
        self.blocks: list[manifest.Block] = []
        self.live_bytes = 0
        self.is_damaged = False
        self.is_dated = False
        self._earlier = earlier
        self._draft = draft
        self._is_kept: bool | None = None
        self._is_checked = False

    @property
    def data_bytes(self) -> int:
        """Size of the blocks in it, live and dead."""
        return self.entry.size - self.entry.start

    def keep(self, *, is_checked: bool = True) -> bool:
        """Reuse it, and check it, each once; return whether its blocks may be used.

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
        if self._is_kept and is_checked and not self._is_checked:
            self._is_checked = True
            self._is_kept = self._is_good()
            if self.live_bytes and not self._is_kept:
                raise LostError(
                    f"{self._earlier.source.path / self.entry.file} was to be reused, "
                    f"and is damaged. The save was not made. Save again: the next one "
                    f"does without."
                )
        return self._is_kept

    def _reuse(self) -> bool:
        source = self._earlier.source
        try:
            self._draft.reuse(source, self.entry)
        except WriteError as error:
            if error.errno not in _ONLY_THIS:
                raise NoLinksError(error) from error
            self.is_damaged = source.lacks(self.entry)  # Or the save is gone.
            _logger.debug("Not reused, but written again: %s", error)
            return False
        return True

    def _is_good(self) -> bool:
        try:
            with self._draft.source.open(self.entry) as file:
                self.is_dated = is_dated(file.read)
                self._check(file)
        except CheckpointError as error:
            self.is_damaged = isinstance(error, DamagedError)
            again = "Not reused, but written again, as all of %s: %s"
            where = self._earlier.source.path / self.entry.file
            _logger.warning(again, where, error)
            self.drop()
            return False
        return True

    def _check(self, file: OpenSegment) -> None:
        """Read some of the blocks, or all if the file is newer than its save.

        Which blocks it is their turn follows from their digests, as their positions
        change.
        """
        earlier, blocks = self._earlier, self.blocks
        is_changed = earlier.source.may_have_changed(self.entry)
        if not is_changed:
            turn = earlier.turn % CHECK_EVERY
            blocks = [x for x in blocks if int(x.digest, 16) % CHECK_EVERY == turn]
        run(lambda x: verify_stored(file.path, x, stored_bytes(file, x)), blocks)
        if self._draft.fsync and (is_changed or not earlier.is_durable):
            file.sync()

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
        """Give it up."""
        self._draft.drop(self.entry.file)

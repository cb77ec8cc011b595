"""The saves that a load may take: it takes the first good one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from ..directory.entries import SaveEntry
from ..directory.listing import Directory
from ..errors import DamagedError
from ..system.phases import Phases
from . import refusals
from .loaded import Loaded

_ATTEMPTS = 20
_logger = logging.getLogger("elementsckpt")


class Candidates:
    """The saves that a load may take.

    Args:
      find: Returns them, the newest first.
      own: The directory of the object that loads, or None. Its saves are trusted, and
        it notes those that are damaged.
    """

    def __init__(
        self, find: Callable[[], Sequence[SaveEntry]], own: Directory | None = None
    ) -> None:
        self._find = find
        self._own = own

    def are_own(self, save: Path) -> bool:
        """Return whether the save is in the own directory, not linked there."""
        return self._own is not None and self._own.has(save)

    def first_good(self, read: Callable[[SaveEntry], Loaded], phases: Phases) -> Loaded:
        """Return what is read from the first save that is not damaged.

        If a save is removed while it is read, as a run that saves does, this starts
        again with the saves that there are then.

        Raises:
          DamagedError: all of them are damaged.
          Exception: whatever else `read` raises.
        """
        for _ in range(_ATTEMPTS):
            with phases("find"):
                saves = self._find()
            loaded = self._first_of(saves, read)
            if loaded is not None:
                return loaded
        raise refusals.always_removed(_ATTEMPTS, saves[0].path.parent)

    def _first_of(
        self, saves: Sequence[SaveEntry], read: Callable[[SaveEntry], Loaded]
    ) -> Loaded | None:
        """Return what is read from the first good save; None if one was removed."""
        damaged: list[DamagedError] = []
        for found in saves:
            try:
                loaded = read(found)
            except DamagedError as error:
                if _is_gone(found):
                    return None
                if self._own is not None:
                    self._own.distrust(found.path)
                # A traceback would keep arrays and open files alive.
                damaged.append(DamagedError(str(error)))
                if len(saves) > 1:
                    _logger.warning("The save %s is damaged: %s", found.path, error)
                continue
            if damaged:
                loaded.fell_back_from = saves[0].path
                _logger.warning("Loading the older save %s instead.", found.path)
            return loaded
        raise refusals.all_damaged(saves, damaged)


def _is_gone(found: SaveEntry) -> bool:
    """Return whether a save was removed, in the order in which this library does it."""
    if found.source.is_missing():
        return True
    return found.head is not None and found.source.has_no_manifest()

"""Where the state of a run comes from, as far as the run knows."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from msgspec.structs import replace

from ..directory.listing import Found
from ..format import manifest
from ..format.manifest import Lineage
from ..reports import SaveReport
from . import lineage

_logger = logging.getLogger("elementsckpt")


class Origin:
    """Keeps the lineage that the next save will have.

    A run goes on in the process that loads one of its saves from its own directory; any
    other object that saves is a run of its own.
    """

    def __init__(self) -> None:
        self._lineage = Lineage()
        self._begun: Path | None = None  # A save of which it is not known what became.
        self._has_saved = False
        self._has_warned = False
        lineage.commit()  # Of the program as it is now; it stays the same.

    def lineage(self) -> Lineage:
        """Return the lineage for a save by this process."""
        begun, self._begun = self._begun, None
        if begun is not None and os.path.lexists(begun / manifest.NAME):
            self._lineage = replace(self._lineage, parent=_text(begun))
        self._lineage = replace(
            self._lineage,
            run=self._lineage.run or lineage.new_run(),
            host=manifest.escape(lineage.host()),
            pid=os.getpid(),
            commit=lineage.commit(),
        )
        return self._lineage

    def begins(self, path: Path) -> None:
        """Take note of a save that is being made, as an interrupt can hide its end."""
        self._begun = path

    def saved(self, report: SaveReport) -> None:
        """Take note of a save."""
        self._has_saved = True
        self._begun = None
        self._lineage = replace(self._lineage, parent=_text(report.path))

    def loaded(self, found: Found, *, is_own: bool) -> None:
        """Take note of a load.

        Args:
          found: The save.
          is_own: Whether it is in the object's own directory.
        """
        run = found.head.lineage.run if found.head and is_own else None
        self._begun = None
        path = manifest.escape(str(found.path))
        self._lineage = replace(
            self._lineage, loaded_from=path, parent=path, run=run or self._lineage.run
        )

    def compare(self, newest: Found | None, step: int | None) -> None:
        """Warn, once, of a save over a run that is another, or was further.

        Args:
          newest: The newest save in the directory.
          step: The step to be saved.
        """
        head = None if newest is None else newest.head
        if self._has_warned or head is None:
            return
        is_other = head.lineage.run not in (None, self._lineage.run)
        if is_other and self._has_saved:
            return  # Another process saves here now, which is for others to say.
        goes_back = step is not None and head.step is not None and step < head.step
        if not is_other and not goes_back:
            return
        self._has_warned = True
        if is_other:
            whose = "another run, which this one did not load"
            remedy = (
                "To go on with it call load_or_save() before the first save(); to "
                "start anew choose another directory."
            )
        else:
            whose = "this run, which goes back"
            remedy = "That is right if an older save was loaded on purpose."
        _logger.warning(
            "Saving%s, while the newest save in %s is%s of %s: %s. What was saved last "
            "is the newest, whatever its step, and what keep= does not ask for is "
            "removed. %s",
            _at(step),
            newest and newest.path.parent,
            _at(head.step),
            whose,
            head.name,
            remedy,
        )


def _at(step: int | None) -> str:
    return "" if step is None else f" at step {step}"


def _text(path: os.PathLike[str]) -> str:
    return manifest.escape(os.fspath(path))

"""The result of a load: what was read from a save, and what the report says."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from ..components.component import Target
from ..directory.entries import SaveEntry
from ..kinds.classes import Change
from ..reports import LoadReport
from ..state import walking
from ..state.matching import Plan
from ..state.selection import Selection
from ..storage.file_view import FolderReader
from ..storage.store import Draft
from ..system.phases import Phases
from ..system.progress import SILENT, Meter
from .request import Request

_logger = logging.getLogger("elementsckpt")
_MOST_WARNINGS = 20


class Notes(Struct):
    """Notes about the components of a save, taken while they are read.

    Attributes:
      phases: The clock of the load.
      meter: Counts the bytes that are read.
      plain: Name of each container whose class was not found, to the path of the class.
        Names begin with the key.
      left_out: Names of pickled leaves that are left out.
      reasons: Why classes that were found are not used, by path.
      changes: Path of each class whose fields have changed, to the change and the name
        of the first container of the class.
      bytes_read: Size of the leaves that were read.
      allowance: How much the names of places may still cost.
    """

    phases: Phases
    meter: Meter = SILENT
    plain: dict[str, str] = {}
    left_out: dict[str, None] = {}
    reasons: dict[str, str] = {}
    changes: dict[str, tuple[Change, str]] = {}
    bytes_read: int = 0
    allowance: walking.Allowance = field(default_factory=walking.Allowance)

    def warn_of_classes(self) -> None:
        """Warn about classes that have changed or were not found."""
        for path, (change, first) in self.changes.items():
            result = change.consequence
            _logger.warning(
                "%s has %s since %s was saved: %s.", path, change, first, result
            )
        for name, path in itertools.islice(self.plain.items(), _MOST_WARNINGS):
            why = self.reasons.get(path, "was not found")
            _logger.warning("%s comes back as a dict: %s %s.", name, path, why)
        more = len(self.plain) - _MOST_WARNINGS
        if more > 0:
            _logger.warning("So do %s more; the report has all of them.", more)


class Loaded(Struct):
    """What was read from a save; names of leaves begin with their keys.

    Attributes:
      found: The save.
      request: The request for this save.
      targets: Targets of the components, by our keys.
      notes: Notes taken while its components were read.
      is_named: Whether the leaves of all components can be selected by name.
      selections: The selection in each component that is loaded leaf by leaf.
      plans: The plan for each component that is loaded into a current state.
      states: What each component's `load()` gets, by key.
      folders: The components in `states` that are folders, by key.
      streams: Functions that close the generators in `states`, by key. A generator
        holds the save until then.
      draft: The folder that holds the files for this load, or None.
      fell_back_from: The newest save, if it is damaged.
    """

    found: SaveEntry
    request: Request
    targets: Mapping[str, Target]
    notes: Notes
    is_named: bool = False
    selections: Mapping[str, Selection] = {}
    plans: dict[str, Plan] = {}
    states: dict[str, Any] = {}
    folders: dict[str, FolderReader] = {}
    streams: dict[str, Callable[[], None]] = {}
    draft: Draft | None = None
    loaded: list[str] = []
    missing: list[str] = []
    unexpected: list[str] = []
    mismatched: dict[str, str] = {}
    renamed: dict[str, str] = {}
    fell_back_from: Path | None = None

    @property
    def keys(self) -> Mapping[str, str]:
        """Our keys of the components to load, to the keys in the save."""
        return self.request.keys or {}

    def close(self) -> None:
        """Release the save."""
        if self.draft is not None:
            self.draft.abandon()
        for close in self.streams.values():
            close()

    def report(self, seconds: float) -> LoadReport:
        """Return what the caller of `load` gets."""
        return LoadReport(
            path=self.found.path,
            step=self.found.step,
            loaded=tuple(self.loaded),
            missing=tuple(self.missing),
            unexpected=tuple(self.unexpected),
            mismatched=tuple(self.mismatched),
            renamed=self.renamed,
            plain=self.notes.plain,
            fell_back_from=self.fell_back_from,
            bytes_read=self.notes.bytes_read,
            seconds=seconds,
            phases=self.notes.phases.seconds(),
        )


def full_names(key: str, names: Iterable[str]) -> list[str]:
    """Return names of leaves with the key of their component."""
    prefix = f"{key}/"
    return [prefix + name if name else key for name in names]

"""The result of a load: what was read from a save, and what the report says of it."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct, field

from ..directory.listing import SaveEntry
from ..kinds.classes import Change
from ..reports import LoadReport
from ..state import tree, walking
from ..state.matching import Plan
from ..state.selection import Selection
from ..storage.drafts import Draft
from ..system.phases import Phases
from .request import Request

_logger = logging.getLogger("elementsckpt")
_MOST_WARNINGS = 20


class Notes(Struct):
    """What components of a save note while they are read.

    Attributes:
      phases: The clock of the load.
      plain: Container to the class that was not found; names begin with the key.
      left_out: What is left out, as it is pickled.
      reasons: Why classes that were found are not used, by path.
      changes: Classes whose fields have changed, to what changed and in which
        container that was first met.
      bytes_read: Size of the leaves that were read.
      allowance: What the names of places may still cost.
    """

    phases: Phases
    plain: dict[str, str] = {}
    left_out: dict[str, None] = {}
    reasons: dict[str, str] = {}
    changes: dict[str, tuple[Change, str]] = {}
    bytes_read: int = 0
    allowance: walking.Allowance = field(default_factory=walking.Allowance)

    def warn_of_classes(self) -> None:
        """Warn of classes that have changed, or were not found."""
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


class Closable(Protocol):
    """A component of a save that is open."""

    @property
    def streams(self) -> bool: ...

    def close(self) -> None: ...


class Loaded(Struct):
    """What was read from a save; names of leaves begin with their keys.

    Attributes:
      found: The save.
      request: What was asked of it.
      notes: What was noted while its components were read.
      is_named: Whether a pattern can be for any of the components.
      selections: What is selected in those of which leaves are loaded.
      plans: What loading comes to in those that have a current state.
      states: What to give to the `load()` of each component.
      held: Those that need what is open: folders, and generators, which hold the save
        until they are closed.
      draft: What folders are in that were made for this load, or None.
      fell_back_from: The newest save, if it is damaged.
    """

    found: SaveEntry
    request: Request
    notes: Notes
    is_named: bool = False
    selections: Mapping[str, Selection] = {}
    plans: dict[str, Plan] = {}
    states: dict[str, Any] = {}
    held: dict[str, Closable] = {}
    draft: Draft | None = None
    loaded: list[str] = []
    missing: list[str] = []
    unexpected: list[str] = []
    mismatched: dict[str, str] = {}
    renamed: dict[str, str] = {}
    fell_back_from: Path | None = None

    @property
    def keys(self) -> Mapping[str, str]:
        """Our keys of all that is loaded, to those in the save."""
        return self.request.keys or {}

    def close(self) -> None:
        """Let go of the save; who keeps an error keeps this object, too."""
        try:
            if self.draft is not None:
                self.draft.abandon()
            for component in self.held.values():
                component.close()
        finally:
            if self.draft is not None:  # An interrupt may have come before.
                self.draft.unlock()

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
    return [tree.full_name(key, name) for name in names]

"""Disk space: what saves take, what removing them frees, and files that are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from ..errors import one_line
from . import figures
from .outline import (
    Column,
    Outline,
    Section,
    Table,
    names_section,
    right,
    table_section,
)
from .report import Report


class SaveUsage(Report, frozen=True):
    """The sizes of the files of a save.

    Attributes:
      path: The save folder.
      step: Step of the run; None if it has none or its manifest is damaged.
      sequence: Number of the save; None if its manifest is damaged.
      bytes_written: Of files that this save wrote.
      bytes_linked: Of files that earlier saves wrote.
      bytes_only_here: Of files that no other save of the directory has.
      bytes_freed: Of files without another link anywhere, which removing it frees.
    """

    path: Path
    step: int | None
    sequence: int | None
    bytes_written: int
    bytes_linked: int
    bytes_only_here: int
    bytes_freed: int

    def cells(self) -> list[str]:
        """Return its row in the table of a report."""
        return [
            "-" if self.sequence is None else str(self.sequence),
            figures.step(self.step),
            figures.size(self.bytes_written),
            figures.size(self.bytes_linked),
            figures.size(self.bytes_only_here),
            figures.size(self.bytes_freed),
        ]

    def outline(self) -> Outline:
        titles = [column.title for column in USAGE]
        return Outline(
            one_line(str(self.path)), [*zip(titles, self.cells(), strict=True)]
        )


USAGE = right("#", "step", "written", "linked", "only here", "freed if removed")


class UsageReport(Report, frozen=True):
    """The disk space that the saves of a directory take.

    Attributes:
      path: The directory.
      saves: The sizes of each save, the oldest first.
      bytes_on_disk: Size of all files, each counted once.
      bytes_of_state: Size of all states.
    """

    path: Path
    saves: tuple[SaveUsage, ...]
    bytes_on_disk: int
    bytes_of_state: int
    _freed: Callable[[Iterable[Path]], int]

    def freed(self, paths: Iterable[Path]) -> int:
        """Return how many bytes removing all of these saves would free."""
        return self._freed(paths)

    def outline(self) -> Outline:
        return Outline(
            f"{figures.size(self.bytes_on_disk)} on disk for "
            f"{figures.size(self.bytes_of_state)} of state, "
            f"{figures.count(len(self.saves), 'save')}",
            [("path", one_line(str(self.path)))],
            table_section(USAGE, [save.cells() for save in self.saves]),
        )


class KeptSave(Report, frozen=True):
    """A save that stays, and why.

    Attributes:
      path: The save folder.
      step: Step of the run, or None.
      sequence: Number of the save; None if its manifest is damaged.
      reasons: Some of "latest", "best", "every", "pin", "component", "explicit",
        "foreign" and "damaged".
    """

    path: Path
    step: int | None
    sequence: int | None
    reasons: tuple[str, ...]

    def cells(self) -> list[str]:
        """Return its row in the table of a report."""
        number = "-" if self.sequence is None else str(self.sequence)
        return [number, figures.step(self.step), ", ".join(self.reasons)]

    def outline(self) -> Outline:
        number, step, reasons = self.cells()
        return Outline(f"#{number}, step {step}: {reasons}")


class PruneReport(Report, frozen=True):
    """Which saves were removed, or would be.

    Attributes:
      path: The directory, or the save that was deleted.
      removed: Paths of the removed saves, the oldest first.
      kept: The saves that stay, and why; none for `delete`.
      bytes_freed: Disk space that removing them frees.
      is_dry_run: Whether nothing was removed.
    """

    path: Path
    removed: tuple[Path, ...]
    kept: tuple[KeptSave, ...]
    bytes_freed: int
    is_dry_run: bool

    def outline(self) -> Outline:
        verb = "Would remove" if self.is_dry_run else "Removed"
        columns = [*right("#", "step"), Column("stays as")]
        kept = Table(columns, [save.cells() for save in self.kept])
        heading = f"{len(self.kept):,} stay"
        return Outline(
            f"{verb} {figures.count(len(self.removed), 'save')}, "
            f"{figures.size(self.bytes_freed)}",
            [("path", one_line(str(self.path)))],
            [
                *names_section("removed", [path.name for path in self.removed]),
                *([Section(heading, kept)] if self.kept else []),
            ],
        )


class ExportReport(Report, frozen=True):
    """A file that `export` wrote.

    Attributes:
      path: The file.
      size_bytes: Its size.
      left_out: Full names of leaves that the format cannot hold.
    """

    path: Path
    size_bytes: int
    left_out: tuple[str, ...]

    def outline(self) -> Outline:
        title = f"{one_line(str(self.path))}, {figures.size(self.size_bytes)}"
        return Outline(
            title, (), names_section("left out", self.left_out, is_open=True)
        )

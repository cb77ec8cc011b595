"""What verifying saves found."""

from __future__ import annotations

from pathlib import Path

from ..errors import one_line
from . import figures
from .outline import Column, Outline, Section, Table, names_section
from .report import Report

_PAIR = Column(""), Column("")


class Problem(Report, frozen=True):
    """Damage in a save.

    Attributes:
      file: Name of the file in the save folder; also "manifest.json".
      offset: First byte of the range; 0 if the file is missing.
      size_bytes: Size of the range; of the file if it is missing.
      leaves: Full names of the leaves that it holds.
      reason: What is wrong; of what could not be read, that it may be fine.
    """

    file: str
    offset: int
    size_bytes: int
    leaves: tuple[str, ...]
    reason: str
    _is_unread: bool = False

    @property
    def is_unread(self) -> bool:
        """Whether the system refused to read it, which may be undamaged."""
        return self._is_unread

    def outline(self) -> Outline:
        where = f"{figures.size(self.size_bytes)} at byte {self.offset:,}"
        title = f"{one_line(self.file)}  {where}: {one_line(self.reason)}"
        heading = "not read" if self._is_unread else "damaged"
        return Outline(title, (), names_section(heading, self.leaves, is_open=True))


class SaveCheck(Report, frozen=True):
    """What verifying one save found.

    Attributes:
      path: The save folder.
      step: Step of the run; None if it has none or its manifest is damaged.
      sequence: Number of the save; None if its manifest is damaged.
      is_good: Whether nothing is damaged.
      problems: What is damaged.
    """

    path: Path
    step: int | None
    sequence: int | None
    is_good: bool
    problems: tuple[Problem, ...]

    def title(self) -> str:
        """Return a line about it."""
        number = "?" if self.sequence is None else f"{self.sequence}"
        step = "" if self.step is None else f"  step {figures.step(self.step)}"
        path = "" if self.sequence is not None else f"  {one_line(self.path.name)}"
        return f"{'✓' if self.is_good else '✗'} #{number}{step}{path}"

    def outline(self) -> Outline:
        rows = [problem.outline().title for problem in self.problems]
        return Outline(self.title(), (), names_section("problems", rows, is_open=True))


class VerifyReport(Report, frozen=True):
    """What verifying a save, or all of a directory, found.

    Attributes:
      path: What was verified.
      saves: What was found of each save, the oldest first.
      is_good: Whether nothing is damaged.
      newest_good: Path of the newest save that is not damaged, or None.
      bytes_read: Bytes read from files, each once.
      seconds: Time that it took.
    """

    path: Path
    saves: tuple[SaveCheck, ...]
    is_good: bool
    newest_good: Path | None
    bytes_read: int
    seconds: float

    def outline(self) -> Outline:
        damaged = [save for save in self.saves if not save.is_good]
        is_unread = any(x.is_unread for save in damaged for x in save.problems)
        word = "damaged or not read" if is_unread else "damaged"
        found = f"{len(damaged):,} {word}" if damaged else "all good"
        newest = "none" if self.newest_good is None else one_line(str(self.newest_good))
        sections = []
        for save in damaged:
            rows = [
                [problem.outline().title, one_line(", ".join(problem.leaves))]
                for problem in save.problems
            ]
            sections.append(Section(save.title(), Table(_PAIR, rows), is_open=True))
        return Outline(
            f"{figures.count(len(self.saves), 'save')}, {found}: "
            f"{figures.size(self.bytes_read)} read in {figures.seconds(self.seconds)}",
            [("path", one_line(str(self.path))), ("newest good", newest)],
            sections,
        )

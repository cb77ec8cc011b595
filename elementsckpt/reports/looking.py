"""The results of functions that look at saves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import one_line
from . import figures
from .outline import Column, Outline, Section, Table, names_section
from .report import Report, ReportList

_NAME = Column("leaf", is_kept=True)
_PAIR = Column(""), Column("")


def _right(*titles: str) -> list[Column]:
    return [Column(title, is_right=True) for title in titles]


def _table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[Section]:
    return [Section("", Table(columns, rows))] if rows else []


class LeafInfo(Report, frozen=True):
    """A leaf of a save, from the manifest alone.

    Attributes:
      key: Key of the component.
      name: Name of the leaf in its component or shard.
      full_name: `key/name`, in a shard `key/NUMBER/name`; `key` alone if the state is
        one leaf.
      shard: Number of the shard, or None if the component has none.
      kind: What kind of leaf it is, as the manifest says; "file" for a file of `Files`.
      dtype: Its dtype as NumPy writes it, or None if it is not an array.
      shape: Its shape, of typed keys that of their data; () if it is not an array.
      size_bytes: Size in memory; 0 for scalars of Python and for functions.
      stored_bytes: Size of its blocks in the files, or `size_bytes` if it shares one.
      is_compressed: Whether its blocks are compressed.
      is_pickled: Whether only pickle could hold it.
    """

    key: str
    name: str
    full_name: str
    shard: int | None
    kind: str
    dtype: str | None
    shape: tuple[int, ...]
    size_bytes: int
    stored_bytes: int
    is_compressed: bool
    is_pickled: bool

    def cells(self) -> list[str]:
        """Return its row in the table of a list."""
        notes = [
            *(["pickled"] if self.is_pickled else []),
            *(["compressed"] if self.is_compressed else []),
        ]
        return [
            one_line(self.full_name),
            figures.form(self.dtype, self.shape, self.kind),
            figures.size(self.size_bytes),
            figures.size(self.stored_bytes),
            ", ".join(notes),
        ]

    def outline(self) -> Outline:
        name, form, size, stored, notes = self.cells()
        title = f"{name}  {form}  {size}, {stored} in the file"
        return Outline(f"{title}, {notes}" if notes else title)


class LeafList(ReportList[LeafInfo]):
    """Leaves of a save, in the order of the manifest."""

    def outline(self) -> Outline:
        size = sum(leaf.size_bytes for leaf in self)
        title = f"{figures.count(len(self), 'leaf')}, {figures.size(size)}"
        columns = [_NAME, Column("form"), *_right("size", "stored"), Column("")]
        return Outline(title, (), _table(columns, [leaf.cells() for leaf in self]))


class Problem(Report, frozen=True):
    """Damage in a save.

    Attributes:
      file: Name of the file in the save folder; also "manifest.json".
      offset: First byte of the range; 0 if the file is missing.
      size_bytes: Size of the range; of the file if it is missing.
      leaves: Full names of the leaves that it holds.
      reason: What is wrong.
    """

    file: str
    offset: int
    size_bytes: int
    leaves: tuple[str, ...]
    reason: str

    def outline(self) -> Outline:
        where = f"{figures.size(self.size_bytes)} at byte {self.offset:,}"
        title = f"{one_line(self.file)}  {where}: {one_line(self.reason)}"
        return Outline(title, (), names_section("damaged", self.leaves, is_open=True))


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
        found = f"{len(damaged):,} damaged" if damaged else "all good"
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


class LeafDiff(Report, frozen=True):
    """How a leaf differs between two saves.

    Figures are of the elements that differ, where NaN equals NaN. All are None if
    dtype, shape or kind differ, or nothing is numeric.

    Attributes:
      full_name: Of the leaf, as in `LeafInfo`.
      dtype_a: Its dtype in the first save, or None.
      dtype_b: In the second.
      shape_a: Its shape in the first save.
      shape_b: In the second.
      value_a: A scalar of Python in the first save; None for anything else.
      value_b: In the second.
      changed_share: Share of elements that differ, from 0 to 1.
      relative_norm: |b - a| / |a|, of elements that are finite in both; inf from zeros.
      max_difference: The largest |b - a| of those; None without any, like the norm.
      nan_a: Count of NaN in the first save.
      nan_b: In the second.
      inf_a: Count of infinities in the first save.
      inf_b: In the second.
    """

    full_name: str
    dtype_a: str | None
    dtype_b: str | None
    shape_a: tuple[int, ...]
    shape_b: tuple[int, ...]
    value_a: Any = None
    value_b: Any = None
    changed_share: float | None = None
    relative_norm: float | None = None
    max_difference: float | None = None
    nan_a: int | None = None
    nan_b: int | None = None
    inf_a: int | None = None
    inf_b: int | None = None

    def cells(self) -> list[str]:
        """Return its row in the table of a report."""
        forms = [
            figures.form(self.dtype_a, self.shape_a, "other"),
            figures.form(self.dtype_b, self.shape_b, "other"),
        ]
        what = forms[0] if forms[0] == forms[1] else " → ".join(forms)
        values = self.value_a, self.value_b
        if self.dtype_a is None and self.dtype_b is None and values != (None, None):
            what = " → ".join(one_line(repr(value)) for value in values)
        counts = [
            f"{name} {figures.step(before)} → {figures.step(now)}"
            for name, before, now in (
                ("nan", self.nan_a, self.nan_b),
                ("inf", self.inf_a, self.inf_b),
            )
            if before or now
        ]
        return [
            one_line(self.full_name),
            what,
            figures.share(self.changed_share),
            figures.number(self.relative_norm),
            figures.number(self.max_difference),
            ", ".join(counts),
        ]

    def outline(self) -> Outline:
        titles = [column.title for column in DIFFERENCES[1:]]
        cells = self.cells()
        pairs = [
            (x, y) for x, y in zip(titles, cells[1:], strict=True) if y not in ("", "-")
        ]
        return Outline(f"~ {cells[0]}", pairs)


DIFFERENCES = (
    _NAME,
    Column("form or value"),
    *_right("changed", "norm of it", "largest"),
    Column("nan, inf"),
)


class DiffReport(Report, frozen=True):
    """How two saves differ.

    Attributes:
      a: Path of the first save.
      b: Path of the second.
      added: Full names of leaves that only the second has.
      removed: Those that only the first has.
      changed: Those that differ, with how.
      same: Those that are equal, bit for bit apart from NaN.
      is_same: Whether nothing is added, removed or changed.
      bytes_read: Bytes of blocks that were read.
      seconds: Time that it took.
    """

    a: Path
    b: Path
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[LeafDiff, ...]
    same: tuple[str, ...]
    is_same: bool
    bytes_read: int
    seconds: float

    def outline(self) -> Outline:
        counts = (
            f"{len(self.added):,} added, {len(self.removed):,} removed, "
            f"{len(self.changed):,} changed, {len(self.same):,} same"
        )
        changed = Table(DIFFERENCES, [leaf.cells() for leaf in self.changed])
        heading = f"{len(self.changed):,} changed"
        return Outline(
            f"{'The same' if self.is_same else 'Different'}: {counts}",
            [("a", one_line(str(self.a))), ("b", one_line(str(self.b)))],
            [
                *([Section(heading, changed, is_open=True)] if self.changed else []),
                *names_section("added", self.added, is_open=True),
                *names_section("removed", self.removed, is_open=True),
                *names_section("same", self.same),
            ],
        )


class LeafStats(Report, frozen=True):
    """What the elements of a leaf are like.

    Attributes:
      key: Key of the component.
      name: Name of the leaf, as in `LeafInfo`.
      full_name: Its full name.
      dtype: Its dtype as NumPy writes it.
      shape: Its shape.
      count: How many elements it has.
      nan: How many are NaN.
      inf: How many are infinite.
      min: The smallest finite element, an int for integers; None without any.
      max: The largest.
      mean: Mean of the finite elements; None without any.
      rms: Root of their mean square; None without any.
      histogram: 16 counts of finite elements, of equal width from min to max.
    """

    key: str
    name: str
    full_name: str
    dtype: str
    shape: tuple[int, ...]
    count: int
    nan: int
    inf: int
    min: float | None
    max: float | None
    mean: float | None
    rms: float | None
    histogram: tuple[int, ...]

    @property
    def is_finite(self) -> bool:
        """Whether no element is NaN or infinite."""
        return not self.nan and not self.inf

    def cells(self) -> list[str]:
        """Return its row in the table of a list."""
        return [
            one_line(self.full_name),
            figures.form(self.dtype, self.shape, ""),
            *(figures.step(x) if x else "" for x in (self.nan, self.inf)),
            *(figures.number(x) for x in (self.min, self.max, self.mean, self.rms)),
            figures.bars(self.histogram),
        ]

    def outline(self) -> Outline:
        titles = [column.title for column in STATISTICS[1:]]
        cells = self.cells()
        pairs = [(x, y) for x, y in zip(titles, cells[1:], strict=True) if y]
        return Outline(cells[0], pairs)


STATISTICS = (
    _NAME,
    Column("form"),
    *_right("nan", "inf", "min", "max", "mean", "rms"),
    Column("histogram"),
)


class StatsList(ReportList[LeafStats]):
    """Statistics of leaves, in the order of the manifest."""

    def outline(self) -> Outline:
        bad = sum(not leaf.is_finite for leaf in self)
        found = f"{bad:,} with NaN or infinities" if bad else "all finite"
        title = f"{figures.count(len(self), 'leaf')}, {found}" if self else "0 leaves"
        return Outline(title, (), _table(STATISTICS, [leaf.cells() for leaf in self]))


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


USAGE = _right("#", "step", "written", "linked", "only here", "freed if removed")


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
            _table(USAGE, [save.cells() for save in self.saves]),
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
        columns = [*_right("#", "step"), Column("stays as")]
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


class Progress(Report, frozen=True):
    """How far a function is.

    Attributes:
      work: Name of the function; "load" also for `load_or_save`.
      bytes_done: Bytes that are done.
      bytes_total: Bytes to do.
      seconds: Time since it began.
      is_finished: Whether it has ended.
    """

    work: str
    bytes_done: int
    bytes_total: int
    seconds: float
    is_finished: bool

    def outline(self) -> Outline:
        done = self.bytes_done / self.bytes_total if self.bytes_total else 1.0
        return Outline(
            f"{self.work}: {100 * done:.0f} %, {figures.size(self.bytes_done)} of "
            f"{figures.size(self.bytes_total)} in {figures.seconds(self.seconds)}"
        )

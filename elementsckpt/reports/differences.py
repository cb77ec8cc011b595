"""How the leaves of two saves differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import one_line
from . import figures
from .outline import LEAF_NAME, Column, Outline, Section, Table, names_section, right
from .report import Report


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
    LEAF_NAME,
    Column("form or value"),
    *right("changed", "norm of it", "largest"),
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

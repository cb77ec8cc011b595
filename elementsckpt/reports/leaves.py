"""Leaves of a save, and what their elements are like."""

from __future__ import annotations

from ..errors import one_line
from . import figures
from .outline import LEAF_NAME, Column, Outline, right, table_section
from .report import Report, ReportList


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
        columns = [LEAF_NAME, Column("form"), *right("size", "stored"), Column("")]
        return Outline(
            title, (), table_section(columns, [leaf.cells() for leaf in self])
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
    LEAF_NAME,
    Column("form"),
    *right("nan", "inf", "min", "max", "mean", "rms"),
    Column("histogram"),
)


class StatsList(ReportList[LeafStats]):
    """Statistics of leaves, in the order of the manifest."""

    def outline(self) -> Outline:
        bad = sum(not leaf.is_finite for leaf in self)
        found = f"{bad:,} with NaN or infinities" if bad else "all finite"
        title = f"{figures.count(len(self), 'leaf')}, {found}" if self else "0 leaves"
        return Outline(
            title, (), table_section(STATISTICS, [leaf.cells() for leaf in self])
        )

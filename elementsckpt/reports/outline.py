"""What a report shows, as text and as HTML: a title, rows, and tables below."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ..errors import one_line

ARROW = " → "  # From what was to what is.
_MOST_SHOWN = 20  # Rows of a table in a text; HTML folds what is long.
_MOST_IN_PAGE = 1000
_MOST_IN_CELL = 80  # Characters; a longer one has several lines in HTML.
# The class twice, as JupyterLab has its cells end at the right by two classes.
_STYLE = """<style>
.ckpt{line-height:1.5}.ckpt table{border-collapse:collapse;margin:4px 0}
.ckpt.ckpt tr td,.ckpt.ckpt tr th{padding:0 12px 0 0;text-align:left;border:0;
background:none;vertical-align:top;white-space:nowrap}
.ckpt.ckpt tr .long{white-space:normal;overflow-wrap:anywhere;min-width:24em}
.ckpt.ckpt tr .right{text-align:right;font-variant-numeric:tabular-nums}
.ckpt.ckpt tr th{font-weight:normal;opacity:.65}.ckpt .dim{opacity:.65}
.ckpt summary{cursor:pointer}
</style>"""


class Column(NamedTuple):
    """A column of a table.

    Attributes:
      title: What stands above it.
      is_right: Whether its cells end at the right, as those of numbers do.
      is_kept: Whether it stays where there is no room for all.
      worth: Where there is none, columns of less worth go first.
      least: If not 0, cells may be shortened before that, to no less than this width.
    """

    title: str
    is_right: bool = False
    is_kept: bool = False
    worth: int = 1
    least: int = 0


class Table(NamedTuple):
    """Rows of cells; what is of a file or of the user in a cell was made one line."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]

    def lines(
        self,
        rows: Iterable[Sequence[str]] | None = None,
        paint: Callable[[str, str], str] | None = None,
    ) -> list[str]:
        """Return lines of text, the titles first, without space at their ends.

        Args:
          rows: Those to show; all by default.
          paint: Given a cell of a row, and that padded to its column, returns what to
            print.
        """
        titles = [column.title for column in self.columns]
        shown = [*(self.rows if rows is None else rows)]
        if any(titles):
            shown = [titles, *shown]
        widths = self.widths(shown)
        lines = []
        for cells in shown:
            shape = zip(cells, widths, self.columns, strict=True)
            padded = [pad(x, size, is_right=y.is_right) for x, size, y in shape]
            while padded and not cells[len(padded) - 1]:
                padded.pop()
            padded[-1:] = [x.rstrip() for x in padded[-1:]]  # Before it is painted.
            if paint is not None and cells is not titles:
                padded = list(map(paint, cells, padded))
            lines.append("  ".join(padded))
        return lines

    def widths(self, rows: Sequence[Sequence[str]]) -> list[int]:
        """Return how wide each column is with these rows."""
        return [max(map(width, cells)) for cells in zip(*rows, strict=True)]

    def fitting(self, columns: int) -> tuple[Table, list[str]]:
        """Return the table without the columns for which there is no room.

        Cells that may be shortened are, if all fit then. Else, empty columns go first,
        then those of the least worth, of these the last. A cell that is too long for
        any line is broken over several rows.

        Args:
          columns: How wide a terminal is.

        Returns:
          The table, and the titles of what is left out.
        """
        rows = self._shortened(self._broken(columns), columns)
        widths = self.widths([[column.title for column in self.columns], *rows])
        kept = {*range(len(widths))}
        worths = [
            column.worth if any(row[n] for row in rows) else -1
            for n, column in enumerate(self.columns)
        ]
        for index in sorted(kept, key=lambda n: (worths[n], -n)):
            total = sum(widths[n] for n in kept) + 2 * (len(kept) - 1)
            if total > columns and not self.columns[index].is_kept:
                kept.remove(index)
        shown = [self.columns[n] for n in sorted(kept)]
        left_out = [x.title for n, x in enumerate(self.columns) if n not in kept]
        return Table(shown, [[row[n] for n in sorted(kept)] for row in rows]), left_out

    def _shortened(
        self, rows: Sequence[Sequence[str]], columns: int
    ) -> Sequence[Sequence[str]]:
        """Return the rows with cells shortened, where all columns fit then."""
        titles = [column.title for column in self.columns]
        widths = self.widths([titles, *rows])
        some = [any(row[n] for row in rows) for n in range(len(widths))]
        total = sum(2 + size for size, x in zip(widths, some, strict=True) if x) - 2
        for n, column in enumerate(self.columns):
            room = columns - total + widths[n]
            if some[n] and room < widths[n] and room >= column.least > 0:
                rows = [
                    [*row[:n], shortened(row[n], room), *row[n + 1 :]] for row in rows
                ]
        return rows

    def _broken(self, columns: int) -> list[Sequence[str]]:
        """Return the rows, where kept cells that no line has room for take several.

        Such a cell does not widen its column more than the other rows do.
        """
        rows = [*self.rows]
        titles = [column.title for column in self.columns]
        kept = [n for n, column in enumerate(self.columns) if column.is_kept]
        widths = self.widths([titles, *rows])
        for n in kept:
            others = sum(2 + widths[m] for m in kept if m != n)
            room = max(columns - others, columns // 3, 1)
            if widths[n] <= room:
                continue
            fine = [x for x in (width(row[n]) for row in rows) if x <= room]
            size = max([*fine, min(room, columns // 2), 1])
            rows = [part for row in rows for part in _parts(row, n, size)]
            widths[n] = max(size, width(titles[n]))
        return rows


def _parts(row: Sequence[str], index: int, size: int) -> list[Sequence[str]]:
    """Return a row as several, of which this cell is not wider than that."""
    first, *more = broken(row[index], size)
    empty = [""] * len(row)
    return [
        [*row[:index], first, *row[index + 1 :]],
        *([*empty[:index], part, *empty[index + 1 :]] for part in more),
    ]


class Section(NamedTuple):
    """A table with a heading, which is folded in HTML unless `is_open`.

    Of a long one with `is_newest_last`, a text shows the last rows.
    """

    heading: str
    table: Table
    is_open: bool = False
    is_newest_last: bool = False

    def text(self) -> list[str]:
        """Return its lines, of a long table the first rows, or the newest."""
        rows, more = self.table.rows, len(self.table.rows) - _MOST_SHOWN
        shown = rows[-_MOST_SHOWN:] if self.is_newest_last else rows[:_MOST_SHOWN]
        lines = self.table.lines(shown)
        if more > 0 and self.is_newest_last:
            at = 1 if any(column.title for column in self.table.columns) else 0
            lines.insert(at, f"{more:,} earlier")
        elif more > 0:
            lines.append(f"and {more:,} more")
        lines = _indented(lines)
        return [f"  {self.heading}", *_indented(lines)] if self.heading else lines


LEAF_NAME = Column("leaf", is_kept=True)


def right(*titles: str) -> list[Column]:
    """Return columns whose cells end at the right, with these titles."""
    return [Column(title, is_right=True) for title in titles]


def table_section(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    *,
    is_newest_last: bool = False,
) -> list[Section]:
    """Return a section of a table without a heading, or none if it has no rows."""
    table = Table(columns, rows)
    return [Section("", table, is_newest_last=is_newest_last)] if rows else []


class Outline(NamedTuple):
    """What a report shows.

    Attributes:
      title: Its first line.
      rows: Labels and what belongs to each.
      sections: The tables; one without a heading is shown as it is.
    """

    title: str
    rows: Sequence[tuple[str, str]] = ()
    sections: Sequence[Section] = ()

    def text(self) -> str:
        """Return it as a person reads it in a terminal."""
        columns = Column(""), Column("")
        lines = [self.title, *_indented(Table(columns, self.rows).lines())]
        for section in self.sections:
            lines += section.text()
        return "\n".join(lines)

    def html(self) -> str:
        """Return it for a notebook: plain HTML, without a script."""
        parts = [f'{_STYLE}<div class="ckpt"><b>{_escaped(self.title)}</b>']
        if self.rows:
            parts.append(_html(Table((Column(""), Column("")), self.rows)))
        for section in self.sections:
            table = _html(section.table)
            if section.heading:
                start = "<details open>" if section.is_open else "<details>"
                heading = _escaped(section.heading)
                table = f"{start}<summary>{heading}</summary>{table}</details>"
            parts.append(table)
        return "".join([*parts, "</div>"])


def names_section(
    heading: str, names: Sequence[str], *, is_open: bool = False
) -> list[Section]:
    """Return the section that lists names, as of leaves; none without any."""
    rows = [[one_line(name)] for name in names]
    if not rows:
        return []
    return [Section(f"{len(rows):,} {heading}", Table([Column("")], rows), is_open)]


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _escaped(text: str) -> str:
    import html  # A notebook has it; a command line that needs it not saves 10 ms.

    return html.escape(text)


def _html(table: Table) -> str:
    def cells(tag: str, texts: Sequence[str]) -> str:
        found = []
        for text, column in zip(texts, table.columns, strict=True):
            is_long = len(text) > _MOST_IN_CELL
            name = "right" if column.is_right else "long" if is_long else ""
            kind = f' class="{name}"' if name else ""
            found.append(f"<{tag}{kind}>{_escaped(text)}</{tag}>")
        return f"<tr>{''.join(found)}</tr>"

    titles = [column.title for column in table.columns]
    rows = [cells("th", titles)] if any(titles) else []
    rows += [cells("td", row) for row in table.rows[:_MOST_IN_PAGE]]
    more = len(table.rows) - _MOST_IN_PAGE
    note = f'<div class="dim">and {more:,} more</div>' if more > 0 else ""
    return f"<table>{''.join(rows)}</table>{note}"


def width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(_width(char) for char in text)


def shortened(text: str, size: int) -> str:
    """Return a text of at most `size` columns, with "…" for what its middle lacks.

    Of two sides of an arrow, each is shortened. There must be 4 columns for a side.
    """
    sides = text.split(ARROW)
    if len(sides) != 2 or width(text) <= size:
        return _shortened(text, size)
    return ARROW.join(_shortened(side, (size - len(ARROW)) // 2) for side in sides)


def _shortened(text: str, size: int) -> str:
    if width(text) <= size:
        return text
    end = size // 2 - 1 if size >= 6 else 0  # At least 2, for wide characters.
    last = broken(text[::-1], end)[0][::-1] if end else ""
    return f"{broken(text, size - 1 - end)[0]}…{last}"


def broken(text: str, size: int) -> list[str]:
    """Return the parts of a text, each at most `size` columns of a terminal wide."""
    parts, used = [""], 0
    for char in text:
        used += width(char)
        if used > size and parts[-1]:
            parts.append("")
            used = width(char)
        parts[-1] += char
    return parts


def _width(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def pad(text: str, size: int, *, is_right: bool = False) -> str:
    """Return a text with spaces, as wide as `size` columns of a terminal."""
    if text.isascii():
        return text.rjust(size) if is_right else text.ljust(size)
    space = " " * (size - width(text))
    return space + text if is_right else text + space

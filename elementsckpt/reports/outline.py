"""What a report shows, as text and as HTML: a title, rows, and tables below."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ..errors import one_line

_MOST_SHOWN = 20  # Rows of a table in a text; HTML folds what is long.
_MOST_IN_PAGE = 1000
_STYLE = """<style>
.ckpt{line-height:1.5}.ckpt table{border-collapse:collapse;margin:4px 0}
.ckpt td,.ckpt th{padding:0 12px 0 0;text-align:left;border:0;background:none}
.ckpt th{font-weight:normal;opacity:.65}.ckpt .right{text-align:right;
font-variant-numeric:tabular-nums}.ckpt .dim{opacity:.65}.ckpt summary{cursor:pointer}
.ckpt i{display:inline-block;height:.6em;background:currentColor;opacity:.45}
</style>"""


class Column(NamedTuple):
    """A column of a table.

    Attributes:
      title: What stands above it.
      is_right: Whether its cells end at the right, as those of numbers do.
      is_kept: Whether it stays where there is no room for all.
    """

    title: str
    is_right: bool = False
    is_kept: bool = False


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

        Args:
          columns: How wide a terminal is.

        Returns:
          The table, and the titles of what is left out: the last first.
        """
        titles = [column.title for column in self.columns]
        widths = self.widths([titles, *self.rows])
        kept, left_out = [*range(len(widths))], []
        for index in reversed(range(len(widths))):
            total = sum(widths[n] for n in kept) + 2 * (len(kept) - 1)
            if total > columns and not self.columns[index].is_kept:
                kept.remove(index)
                left_out.append(titles[index])
        shown = [self.columns[n] for n in kept]
        return Table(shown, [[row[n] for n in kept] for row in self.rows]), left_out


class Section(NamedTuple):
    """A table with a heading, which is folded in HTML unless `is_open`."""

    heading: str
    table: Table
    is_open: bool = False


LEAF_NAME = Column("leaf", is_kept=True)


def right(*titles: str) -> list[Column]:
    """Return columns whose cells end at the right, with these titles."""
    return [Column(title, is_right=True) for title in titles]


def table_section(
    columns: Sequence[Column], rows: Sequence[Sequence[str]]
) -> list[Section]:
    """Return a section of a table without a heading, or none if it has no rows."""
    return [Section("", Table(columns, rows))] if rows else []


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
            table, is_plain = section.table, not section.heading
            lines += [] if is_plain else [f"  {section.heading}"]
            shown = _indented(table.lines(table.rows[:_MOST_SHOWN]))
            lines += shown if is_plain else _indented(shown)
            more = len(table.rows) - _MOST_SHOWN
            if more > 0:
                lines.append(
                    f"  and {more:,} more" if is_plain else f"    and {more:,} more"
                )
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
            kind = ' class="right"' if column.is_right else ""
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


def _width(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def pad(text: str, size: int, *, is_right: bool = False) -> str:
    """Return a text with spaces, as wide as `size` columns of a terminal."""
    space = " " * (size - width(text))
    return space + text if is_right else text + space

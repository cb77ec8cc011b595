"""Where a verb prints: a terminal, a pipe or a file, with what each can show."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TextIO

from ..reports.outline import Table, broken, width

if TYPE_CHECKING:
    from ..reports.report import Report

FOUND, FAILED, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141  # Exit statuses.
_COLUMNS = 80  # Of a terminal that does not say.
SCHEMA = 1  # Of the objects that --json prints.
_STYLES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
}
# Whole cells and signs that are painted, on terminals that have colours.
_PAINTED = {
    "best": "green",
    "latest": "bold",
    "damaged": "red",
    "unreadable": "red",
    "nan": "yellow",
    "inf": "yellow",
    "-inf": "yellow",
}
_MARKS = {"✓": "green", "✗": "red"}
# What stands for our own signs where the encoding lacks them.
_ASCII = str.maketrans(
    {
        "✓": "ok",
        "✗": "x",
        "→": "->",
        "…": "~",
        "↑": "^",
        "↓": "v",
        "│": "|",
        "├": "|",
        "└": "`",
        "─": "-",
        **dict.fromkeys("▁▂", "."),
        **dict.fromkeys("▃▄▅", "o"),
        **dict.fromkeys("▆▇█", "#"),
        "▓": "+",
        "░": ".",
    }
)


class Screen:
    """Prints for people, or objects for programs.

    Args:
      is_json: Whether objects are wanted.
      out: Where to print; standard output by default.

    Attributes:
      is_json: As given.
      is_terminal: Whether a person sees it at once.
      columns: How wide it is, or None if no line is too long.
    """

    def __init__(self, *, is_json: bool = False, out: TextIO | None = None) -> None:
        self._out = sys.stdout if out is None else out
        self.is_json = is_json
        self.is_terminal = is_terminal(self._out)
        self.columns = columns(self._out) if self.is_terminal else None
        self._has_colours = _has_colours(is_terminal=self.is_terminal)
        self._has_signs = _can_print("✓→█░…", self._out)

    def json(self, value: dict[str, Any]) -> None:
        """Print an object on a line of its own."""
        import json

        text = json.dumps({"schema": SCHEMA, **value}, allow_nan=False)
        self._out.write(f"{text}\n")
        self._out.flush()

    def write(self, text: str) -> None:
        """Print a text as it is."""
        self._out.write(text)
        self._out.flush()

    def report(self, report: Report) -> None:
        """Print a report as a person reads it, or as an object."""
        if self.is_json:
            self.json(report.to_dict())
        else:
            self.print(repr(report))

    def print(self, text: str = "", style: str = "") -> None:
        """Print lines, which on a terminal are broken between words."""
        for line in text.split("\n"):
            for part in self._wrapped(line):
                self._write(self.painted(part, style))

    def table(self, table: Table, styles: Mapping[str, str] | None = None) -> None:
        """Print a table; where it is too wide, without some columns.

        Args:
          table: The table.
          styles: Styles of rows, by their first cell.
        """
        left_out: list[str] = []
        if self.columns is not None:
            table, left_out = table.fitting(self.columns)
        lines = table.lines(paint=self._cell if self._has_colours else None)
        if any(column.title for column in table.columns):
            self._write(self.painted(lines.pop(0), "dim"))
        if styles is not None:
            rows = zip(lines, table.rows, strict=True)
            lines = [self.painted(x, styles.get(row[0], "")) for x, row in rows]
        if lines:
            self._write("\n".join(lines))
        if left_out:
            names = ", ".join(x for x in left_out if x)
            self.print(f"Hidden: {names}. A wider terminal shows more.", "dim")

    def painted(self, text: str, style: str) -> str:
        """Return a text in a style, on terminals that have colours."""
        if not style or not text or not self._has_colours:
            return text
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"

    def _cell(self, cell: str, text: str) -> str:
        style = _PAINTED.get(cell, "")
        if not style:
            words = cell.split(", ")
            style = next((_PAINTED[x] for x in reversed(words) if x in _PAINTED), "")
            if len(words) == 1:
                style = _MARKS.get(cell[:1], "")
        return self.painted(text, style)

    def _wrapped(self, line: str) -> list[str]:
        return [line] if self.columns is None else wrapped(line, self.columns)

    def _write(self, line: str) -> None:
        if not self._has_signs:
            line = line.translate(_ASCII)
        self._out.write(f"{line}\n")
        self._out.flush()


def wrapped(line: str, columns: int) -> list[str]:
    """Return the lines that a line becomes where there are only so many columns.

    It is broken between words, or within words that are too long. The lines begin with
    the space that it begins with.
    """
    if width(line) <= columns:
        return [line]
    indent = line[: len(line) - len(line.lstrip())][: columns // 2]
    lines, found = [], ""
    for word in re.findall(r"\s*\S+", line):
        if found and width(found + word) > columns:
            lines.append(found)
            word = indent + word.lstrip()
        else:
            word = found + word
        *full, found = broken(word, columns)
        lines += full
    return [*lines, found]


def is_terminal(stream: TextIO) -> bool:
    """Return whether a stream is a terminal on which one can move, as "dumb" is not."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def say(text: str) -> None:
    """Print a sentence on standard error, within the width of a terminal."""
    Screen(out=sys.stderr).print(text)


def columns(stream: TextIO) -> int:
    """Return how wide a terminal is, or is said to be."""
    said = os.environ.get("COLUMNS", "")
    if said.isdecimal() and int(said):
        return int(said)
    try:
        return os.get_terminal_size(stream.fileno()).columns or _COLUMNS
    except (OSError, ValueError):
        return _COLUMNS


def _has_colours(*, is_terminal: bool) -> bool:
    """Return whether to print colours.

    Source: no-color.org and force-color.org.
    """
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or is_terminal


def _can_print(text: str, stream: TextIO) -> bool:
    try:
        text.encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True

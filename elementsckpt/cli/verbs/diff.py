"""Compare two saves, leaf by leaf.

+ is only in B, - only in A, ~ differs: the share of elements that differ, and of these
the norm of the difference beside that of A, and the largest difference. The exit status
is 1 if there are differences.

Examples:
  elementsckpt diff runs/walker@best runs/walker@latest
  elementsckpt diff runs/walker@latest~1 runs/walker -r params
"""

from __future__ import annotations

import argparse

from ...errors import one_line
from ...reports import figures
from ...reports.outline import Column, Table
from ..screen import FOUND, Screen


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("a", metavar="A")
    parser.add_argument("b", metavar="B")
    parser.add_argument("-r", "--regex", help="only leaves whose names this matches")


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Compare saves."""
    import elementsckpt
    from elementsckpt.reports.differences import DIFFERENCES

    report = elementsckpt.diff(options.a, options.b, regex=options.regex)
    status = 0 if report.is_same else FOUND
    if screen.is_json:
        screen.json(report.to_dict())
        return status
    rows = [["+", one_line(name), *[""] * 5] for name in report.added]
    rows += [["-", one_line(name), *[""] * 5] for name in report.removed]
    rows += [["~", *leaf.cells()] for leaf in report.changed]
    if rows:
        columns = [Column("", is_kept=True), *DIFFERENCES]
        rows.sort(key=lambda row: row[1])
        screen.table(Table(columns, rows), {"+": "green", "-": "red"})
    counts = {
        "added": report.added,
        "removed": report.removed,
        "changed": report.changed,
        "same": report.same,
    }
    said = ", ".join(f"{len(found):,} {name}" for name, found in counts.items())
    read = figures.size(report.bytes_read)
    screen.print(f"{said}; {read} read in {figures.seconds(report.seconds)}")
    if any(leaf.changed_share for leaf in report.changed):
        screen.print("Norm and largest are of what changed.", "dim")
    return status

"""Compare two saves, leaf by leaf.

+ is only in B, - only in A, ~ differs: the share of elements that differ, and of these
the norm of the difference over that of A, and the largest difference. Long values are
shortened; --json and cat have them in full. The exit status is 1 if there are
differences.

Examples:
  elementsckpt diff runs/walker@best runs/walker@latest
  elementsckpt diff runs/walker@latest~1 runs/walker -r params
"""

from __future__ import annotations

import argparse

from ...errors import one_line
from ...reports import figures
from ...reports.outline import Column, Table
from .. import selection, shown
from ..screen import FOUND, Screen


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("a", metavar="A")
    parser.add_argument("b", metavar="B")
    selection.configure(parser)


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Compare saves."""
    import elementsckpt
    from elementsckpt.reports.differences import DIFFERENCES

    a, b = elementsckpt.info(options.a), elementsckpt.info(options.b)
    report = elementsckpt.diff(a.path, b.path, regex=options.regex)
    status = 0 if report.is_same else FOUND
    if screen.is_json:
        screen.json(report.to_dict())
        return status
    screen.print(f"A  {shown.line(a)}", "bold")
    screen.print(f"B  {shown.line(b)}", "bold")
    rows = [
        [sign, one_line(name), report.form(name), *[""] * 4]
        for sign, names in (("+", report.added), ("-", report.removed))
        for name in names
    ]
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
        screen.print(
            "Of what changed: rel. norm is |B - A| / |A|, inf where A is zeros, and "
            "largest is the largest |B - A|.",
            "dim",
        )
    return status

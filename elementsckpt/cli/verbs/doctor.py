"""Find out whether a directory suits saves.

It tries links, locks, renaming and syncing there, and looks at the room, the clock, and
at who else writes. It leaves no trace. The exit status is 1 if something is not good.

Examples:
  elementsckpt doctor runs/walker
"""

from __future__ import annotations

import argparse

from ...errors import one_line
from ...reports.outline import Column, Table
from ..screen import FOUND, Screen


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("directory", metavar="DIR")


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Examine a directory."""
    from ...inspection.doctor import examine

    findings = examine(options.directory)
    if screen.is_json:
        for finding in findings:
            screen.json(finding._asdict())
    else:
        columns = [Column("", is_kept=True)] * 3
        rows = [
            ["✓" if x.is_good else "✗", one_line(x.check), one_line(x.found)]
            for x in findings
        ]
        screen.table(Table(columns, rows))
        for finding in findings:
            if finding.advice:
                screen.print(one_line(finding.advice))
    return 0 if all(finding.is_good for finding in findings) else FOUND

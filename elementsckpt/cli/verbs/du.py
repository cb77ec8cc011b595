"""Show the disk space that the saves of a directory take.

A bar for each save: what only it has, what later saves link to, and what it links to.
What is freed if a save is removed has no other link anywhere.

Examples:
  elementsckpt du runs/walker
"""

from __future__ import annotations

import argparse

from ...errors import one_line
from ...reports import figures
from ...reports.outline import Column, Table
from ..screen import Screen

_BAR = 16


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("directory", metavar="DIR")


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Show sizes."""
    import elementsckpt
    from elementsckpt.reports.disk import USAGE

    report = elementsckpt.usage(options.directory)
    if screen.is_json:
        screen.json(report.to_dict())
        return 0
    disk, state = report.bytes_on_disk, report.bytes_of_state
    times = f": {state / disk:.1f} times" if disk and state > disk else ""
    screen.print(
        f"{one_line(options.directory)}  {figures.size(disk)} on disk for "
        f"{figures.size(state)} of state{times}"
    )
    most = max(x.bytes_written + x.bytes_linked for x in report.saves) or 1
    rows = []
    for save in report.saves:
        parts = [
            save.bytes_only_here,
            save.bytes_written + save.bytes_linked - save.bytes_only_here,
            0,
        ]
        later = max(0, save.bytes_written - save.bytes_only_here)
        parts[1:] = [later, parts[1] - later]
        number, step, *sizes = save.cells()
        rows.append([number, step, _bar(parts, most), *sizes])
    kept = [Column(x.title, is_right=True, is_kept=True) for x in USAGE[:2]]
    screen.table(Table([*kept, Column(""), *USAGE[2:]], rows))
    screen.print("█ only here  ▓ later saves link to it  ░ linked", "dim")
    return 0


def _bar(parts: list[int], most: int) -> str:
    ends = [round(_BAR * sum(parts[: n + 1]) / most) for n in range(len(parts))]
    begins = [0, *ends]
    signs = zip("█▓░", begins, ends, strict=False)
    return "".join(sign * (end - begin) for sign, begin, end in signs)

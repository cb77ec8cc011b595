"""Read every byte of saves, and say what is damaged.

A directory means all its saves; bytes that several saves link to are read once. The
exit status is 1 if something is damaged.

Examples:
  elementsckpt verify runs/walker
  elementsckpt verify runs/walker@latest
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ...errors import one_line
from ...reports import figures
from ..screen import FOUND, Screen

if TYPE_CHECKING:
    from ...reports.checks import VerifyReport

_MOST_LEAVES = 8  # In a line.


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("paths", nargs="+", metavar="PATH")


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Verify saves."""
    import elementsckpt

    is_good = True
    for path in options.paths:
        report = elementsckpt.verify(path)
        is_good = is_good and report.is_good
        if screen.is_json:
            screen.json(report.to_dict())
        else:
            _print(screen, path, report)
    return 0 if is_good else FOUND


def _print(screen: Screen, path: str, report: VerifyReport) -> None:
    count = figures.count(len(report.saves), "save")
    read, seconds = figures.size(report.bytes_read), figures.seconds(report.seconds)
    screen.print(f"{one_line(path)}  {count}, {read} read in {seconds}")
    for save in report.saves:
        screen.print(f"  {save.title()}", "" if save.is_good else "red")
        for problem in save.problems:
            where = f"{figures.size(problem.size_bytes)} at byte {problem.offset:,}"
            screen.print(f"      {one_line(problem.file)}  {where}")
            # The file was just named.
            reason = problem.reason.removeprefix(f"{save.path}/{problem.file} ")
            screen.print(f"      {one_line(reason)}", "dim")
            if problem.leaves:
                some = [one_line(name) for name in problem.leaves[:_MOST_LEAVES]]
                more = len(problem.leaves) - _MOST_LEAVES
                some += [f"{more:,} more"] if more > 0 else []
                screen.print(f"      damaged: {', '.join(some)}")
    damaged = sum(not save.is_good for save in report.saves)
    if not damaged:
        screen.print("Nothing is damaged.", "green")
    elif report.newest_good is None:
        screen.print("All are damaged. Restore one from a copy.", "red")
    else:
        newest = next(x for x in report.saves if x.path == report.newest_good)
        step = "" if newest.step is None else f", of step {figures.step(newest.step)}"
        verb = "is" if damaged == 1 else "are"
        screen.print(
            f"{damaged:,} of {count} {verb} damaged. The newest good one is "
            f"#{newest.sequence}{step}, which load() takes."
        )

"""Read every byte that saves consist of, and say what is damaged.

A directory means all its saves; bytes that several saves link to are read once. Bytes
of a file that are of no save, as between blocks, are not read. The exit status is 1 if
something is damaged, and 2 if something cannot be read; the rest is verified, too. The
reason of what cannot be read says that it may be fine.

Examples:
  elementsckpt verify runs/walker
  elementsckpt verify runs/walker@latest
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ...errors import CheckpointError, one_line
from ...reports import figures
from ..screen import FAILED, FOUND, Screen, say

if TYPE_CHECKING:
    from ...reports.checks import VerifyReport

_MOST_LEAVES = 8  # In a line.


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("paths", nargs="+", metavar="PATH")


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Verify saves."""
    import elementsckpt

    status = 0
    for path in options.paths:
        try:
            report = elementsckpt.verify(path)
        except CheckpointError as error:  # Those that follow are verified, too.
            say(f"elementsckpt: {error}")
            status = FAILED
            continue
        problems = [problem for save in report.saves for problem in save.problems]
        is_read = not any(problem.is_unread for problem in problems)
        status = max(status, (FOUND if is_read else FAILED) if problems else 0)
        if screen.is_json:
            screen.json(report.to_dict())
        else:
            _print(screen, path, report)
    return status


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
                word = "not read" if problem.is_unread else "damaged"
                screen.print(f"      {word}: {', '.join(some)}")
    unread = sum(any(x.is_unread for x in save.problems) for save in report.saves)
    if unread:
        screen.print(f"{unread:,} of {count} cannot be read, and may be good.", "red")
    damaged = sum(not all(x.is_unread for x in save.problems) for save in report.saves)
    if unread and not damaged:
        screen.print("Of what can be read, nothing is damaged.")
    elif not damaged:
        screen.print("Nothing is damaged.", "green")
    elif all(save.path.parent != report.path for save in report.saves):
        # It is the only one that was looked at.
        place = one_line(str(report.saves[0].path.parent))
        screen.print(f"It is damaged. See which are not: elementsckpt verify {place}")
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

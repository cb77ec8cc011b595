"""Asks before something is removed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import one_line
from ..reports import figures
from ..reports.outline import Column, Table
from .screen import FAILED, Screen

if TYPE_CHECKING:
    from ..reports.disk import PruneReport


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of verbs that remove."""
    parser.add_argument(
        *("-n", "--dry-run"), action="store_true", help="only show what would go"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(
    remove: Callable[[bool], PruneReport], options: argparse.Namespace, screen: Screen
) -> int:
    """Show what would be removed, ask, and remove it.

    Args:
      remove: Removes, or with True only reports what would go.
      options: Has the arguments that `configure` adds.
      screen: Where to print.
    """
    plan = remove(True)
    if options.dry_run or not plan.removed:
        _show(plan, screen)
        return 0
    if not options.yes:
        if not (sys.stdin.isatty() and screen.is_terminal):
            raise ValueError(
                "nobody can be asked here, so nothing was removed: pass --yes to "
                "remove, or -n to see what would go"
            )
        _show(plan, screen)
        answer = input(f"Remove {figures.count(len(plan.removed), 'save')}? [y/N] ")
        if answer.strip().lower() not in ("y", "yes"):
            screen.print("Nothing was removed.")
            return FAILED
    report = remove(False)
    _show(report, screen)
    # What the disk refused was logged.
    return 0 if {*plan.removed} <= {*report.removed} else FAILED


def _show(report: PruneReport, screen: Screen) -> None:
    if screen.is_json:
        screen.json(report.to_dict())
        return
    if report.kept:
        columns = [
            Column("#", is_right=True, is_kept=True),
            Column("step", is_right=True, is_kept=True),
            Column("stays as", is_kept=True),
        ]
        screen.table(Table(columns, [save.cells() for save in report.kept]))
    verb = "Would remove" if report.is_dry_run else "Removed"
    for path in report.removed:
        screen.print(f"{verb} {one_line(path.name)}", "red")
    count = figures.count(len(report.removed), "save")
    freed = figures.size(report.bytes_freed)
    word = "would be freed" if report.is_dry_run else "freed"
    screen.print(f"{verb} {count}, {freed} {word}.")

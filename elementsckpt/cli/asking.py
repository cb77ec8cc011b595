"""Asks before something is removed."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from ..reports import figures
from ..reports.outline import Column, Table
from .screen import FAILED, Screen

if TYPE_CHECKING:
    from ..inspection.removal import Plan
    from ..reports.disk import PruneReport


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of verbs that remove."""
    parser.add_argument(
        *("-n", "--dry-run"), action="store_true", help="only show what would go"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(plan: Plan, options: argparse.Namespace, screen: Screen) -> int:
    """Show what would be removed, ask, and remove it.

    Args:
      plan: What would be removed.
      options: Has the arguments that `configure` adds.
      screen: Where to print.
    """
    if options.dry_run:
        _show(plan.report(), screen)
        return 0
    if plan.gone and not options.yes:
        # A program that is started without standard input has no stream.
        is_asked = sys.stdin is not None and sys.stdin.isatty()
        if not (is_asked and screen.is_terminal):
            raise ValueError(
                "without a terminal this cannot ask, so nothing was removed: pass "
                "--yes to remove, or -n to see what would go"
            )
        _show(plan.report(), screen)
        answer = input(f"Remove {figures.count(len(plan.gone), 'save')}? [y/N] ")
        if answer.strip().lower() not in ("y", "yes"):
            screen.print("Nothing was removed.")
            return FAILED
    report = plan.carry_out()
    _show(report, screen)
    # What the disk refused was logged.
    return 0 if {x.path for x in plan.gone} <= {*report.removed} else FAILED


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
    for line in report.lines():
        screen.print(f"{verb} {line}", "red")
    count = figures.count(len(report.removed), "save")
    freed = figures.size(report.bytes_freed)
    word = "would be freed" if report.is_dry_run else "freed"
    screen.print(f"{verb} {count}, {freed} {word}.")
    if report.note():
        screen.print(f"{report.note()}.")

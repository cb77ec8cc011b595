"""Remove the saves of a directory that no rule keeps.

The newest save and pinned saves stay in any case. First, every byte of the newest one
that stays is verified; if it is damaged, it stays, but does not count. What is better
is what the run records for that metric, or else must be said. What killed processes
left unfinished goes, too. A save that stays as "component" is the newest with one that
the run still has. It asks before it removes; without a terminal, it needs --yes.

Examples:
  elementsckpt prune runs/walker --latest 3 -n
  elementsckpt prune runs/walker --latest 3 --best 2 --metric return --yes
"""

from __future__ import annotations

import argparse
from typing import Literal

from .. import asking
from ..screen import Screen


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("directory", metavar="DIR")
    parser.add_argument("--latest", type=int, metavar="N", help="keep the N newest")
    parser.add_argument("--best", type=int, metavar="N", help="keep the N best")
    parser.add_argument("--metric", metavar="M", help="by which to rank them")
    parser.add_argument(
        "--mode", choices=["max", "min"], help="what is better, unless recorded"
    )
    parser.add_argument(
        "--every", type=int, metavar="N", help="keep those at multiples of N steps"
    )
    asking.configure(parser)


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Remove saves."""
    import elementsckpt

    from ...inspection.removal import plan_prune

    if options.latest is None and options.best is None and options.every is None:
        raise ValueError(
            "no rule says what stays, so nothing was removed: pass --latest N, --best "
            "N with --metric M, or --every N"
        )
    if options.best and options.metric is None:
        raise ValueError("--best needs --metric M, the metric by which to rank saves")
    if not options.best and (options.metric or options.mode):
        raise ValueError(
            "--metric and --mode rank saves for --best N, so nothing was removed: pass "
            "that, too, or leave them out"
        )
    keep = elementsckpt.Keep(
        latest=1 if options.latest is None else options.latest,
        best=options.best or 0,
        metric=options.metric,
        mode=options.mode or _mode(options),
        every=options.every,
    )
    return asking.run(plan_prune(options.directory, keep), options, screen)


def _mode(options: argparse.Namespace) -> Literal["max", "min"]:
    """Return what is better, by what the newest save records."""
    from ...inspection import infos

    if not options.best:
        return "max"  # It decides nothing.
    found = infos.listed(options.directory)
    there = {name for save in found.saves for name in save.info.metrics}
    if found.metric != options.metric and options.metric in there:
        raise ValueError(
            f"no save records whether more or less of {options.metric!r} is better: "
            f"pass --mode max or --mode min"
        )
    return "min" if found.mode == "min" else "max"

"""Show what the elements of leaves are like.

A row for each leaf of bools, integers or floats: NaN and infinities, extremes, mean,
root mean square, and a histogram from the smallest to the largest. Below, leaves with
NaN or infinities are named.

Examples:
  elementsckpt stats runs/walker -r 'params/'
  elementsckpt stats runs/walker --fail-on-nonfinite
"""

from __future__ import annotations

import argparse

from ...reports.outline import Table
from .. import selection, shown
from ..screen import FOUND, Screen

_MOST_NAMED = 8


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("save", metavar="SAVE")
    selection.configure(parser)
    parser.add_argument(
        "--fail-on-nonfinite",
        action="store_true",
        help="exit with 1 if there are NaN or infinities",
    )


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Show statistics."""
    import elementsckpt
    from elementsckpt.reports.leaves import STATISTICS

    info = elementsckpt.info(options.save)
    found = elementsckpt.stats(info.path, regex=options.regex)
    if screen.is_json:
        for leaf in found:
            screen.json(leaf.to_dict())
    else:
        screen.print(shown.line(info), "bold")
        bad = {leaf.cells()[0]: "yellow" for leaf in found if not leaf.is_finite}
        screen.table(Table(STATISTICS, [leaf.cells() for leaf in found]), bad)
        screen.print(found.outline().title)
        if bad:
            names = [*bad][:_MOST_NAMED]
            more = (
                f" and {len(bad) - len(names):,} more" if len(bad) > len(names) else ""
            )
            screen.print(f"Not finite: {', '.join(names)}{more}.", "yellow")
    is_bad = not all(leaf.is_finite for leaf in found)
    return FOUND if is_bad and options.fail_on_nonfinite else 0

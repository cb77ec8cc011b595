"""Show what the elements of leaves are like.

A row for each leaf of bools, integers or floats: NaN and infinities, extremes, mean,
root mean square, and a histogram from the smallest to the largest.

Examples:
  elementsckpt stats runs/walker -r 'params/'
  elementsckpt stats runs/walker --fail-on-nonfinite
"""

from __future__ import annotations

import argparse

from ...reports.outline import Table
from ..screen import FOUND, Screen


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("save", metavar="SAVE")
    parser.add_argument("-r", "--regex", help="only leaves whose names this matches")
    parser.add_argument(
        "--fail-on-nonfinite",
        action="store_true",
        help="exit with 1 if there are NaN or infinities",
    )


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Show statistics."""
    import elementsckpt
    from elementsckpt.reports.leaves import STATISTICS

    found = elementsckpt.stats(options.save, regex=options.regex)
    if screen.is_json:
        for leaf in found:
            screen.json(leaf.to_dict())
    else:
        screen.table(Table(STATISTICS, [leaf.cells() for leaf in found]))
        screen.print(found.outline().title)
    is_bad = not all(leaf.is_finite for leaf in found)
    return FOUND if is_bad and options.fail_on_nonfinite else 0

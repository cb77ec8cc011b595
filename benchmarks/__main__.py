"""Measure elementsckpt, its peers and the raw limits in one interleaved run.

Each row is shown as it is done: median, smallest and largest of its rounds, the median
divided by that of elementsckpt, and what was reached of each target. On a noisy machine
ratios hold where times do not. docs/performance.md says how each number is made.
"""

from __future__ import annotations

import argparse
import gc
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from . import machine, report
from .against import compare
from .cases import Setting
from .peers import Peer, installed
from .rounds import measure
from .rows import ROWS


def main() -> None:
    options = arguments()
    options.folder.mkdir(parents=True, exist_ok=True)
    about = machine.describe(options.folder)
    print("\n".join(f"{key}: {value}" for key, value in about.items()))
    names = [name for name in ROWS if re.search(options.only, name)]
    if options.against:
        sys.exit(compare(options.against, names, options))
    peers = installed()
    # What the imports left behind shall not slow the garbage collector.
    gc.collect()
    gc.freeze()
    rows = []
    for name in names:
        rows.append(row(name, peers, options))
        print(report.text(rows[-1]), flush=True)
    result = {
        "about": about,
        "quick": options.quick,
        "rounds": options.rounds,
        "rows": rows,
    }
    if options.quick:
        print(f"\n{report.QUICK}")
    if options.write:
        from .publish import publish  # Needs matplotlib.

        publish(result)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the data")
    parser.add_argument("--only", default="", help="pattern of row names", metavar="X")
    parser.add_argument("--rounds", type=int, help="of each row, by default 5 or 2")
    parser.add_argument("--folder", type=Path, default=Path(), help="where to save")
    parser.add_argument(
        "--write",
        action="store_true",
        help="rewrite benchmarks/results and docs/performance.md",
    )
    parser.add_argument(
        "--against",
        help="print what became slower than with this revision, and exit with 1 if "
        "anything did",
        metavar="REV",
    )
    options = parser.parse_args()
    if options.against and options.write:
        parser.error("--against compares, and --write rewrites: give one of them.")
    options.rounds = options.rounds or (2 if options.quick else 5)
    return options


def row(
    name: str, peers: dict[str, Peer | None], options: argparse.Namespace
) -> dict[str, Any]:
    """Make one row and measure it; its arrays go when it is done."""
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary).absolute()
        setting = Setting(peers, folder, 10 if options.quick else 1)
        return measure(name, ROWS[name](setting), options.rounds, folder)


if __name__ == "__main__":
    main()

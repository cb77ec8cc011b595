"""Measure elementsckpt, its peers and the raw limit in one interleaved run.

Every round runs each case of a row once, in random order, so that what else the machine
does strikes all alike. The table gives median, smallest and largest of the rounds in
milliseconds, how often the median of elementsckpt goes into each median, and ratios of
medians beside their targets. On a noisy machine ratios hold where times do not; with
--quick, fixed costs weigh ten times as much and targets are only a hint.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import os
import platform
import random
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from .peers import PEERS, Peer
from .rows import ROWS, Row, Setting

PACKAGES = "numpy", "elementsckpt", "elements", "safetensors", "orbax-checkpoint"


def main() -> None:
    parser = argparse.ArgumentParser("benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the data")
    parser.add_argument("--repeats", type=int, default=5, help="rounds of each row")
    parser.add_argument("--folder", type=Path, default=Path(), help="where to write")
    parser.add_argument("--json", type=Path, help="also write what was measured there")
    options = parser.parse_args()
    peers = installed()
    options.folder.mkdir(parents=True, exist_ok=True)
    about = {"python": platform.python_version(), "cores": os.cpu_count()}
    found = {x.metadata["Name"]: x.version for x in importlib.metadata.distributions()}
    about |= {name: found[name] for name in PACKAGES if name in found}
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    # What the peers' imports left behind shall not slow the garbage collector.
    gc.collect()
    gc.freeze()
    rows = []
    for make in ROWS:
        with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
            folder = Path(temporary).absolute()
            row = make(Setting(peers, folder, 10 if options.quick else 1))
            rows.append(measure(row, options.repeats, folder))
        show(rows[-1])
        del row  # And its arrays, before the next row makes its own.
    if options.json is not None:
        result = {"about": about, "quick": options.quick, "rows": rows}
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def installed() -> dict[str, Peer]:
    """Return the peers that can be imported, and say which cannot."""
    peers = {}
    for name, make in PEERS.items():
        try:
            peers[name] = make()
        except ImportError:
            print(f"{name} is not installed and left out.")
    return peers


def measure(row: Row, repeats: int, folder: Path) -> dict[str, Any]:
    """Run the rounds, and return the row as it is written to JSON."""
    samples: dict[str, list[float]] = {name: [] for name in row.cases}
    order = random.Random(0)
    for _ in range(repeats):
        for name in order.sample(list(row.cases), len(row.cases)):
            with tempfile.TemporaryDirectory(dir=folder) as empty:
                samples[name].append(row.cases[name](Path(empty)))
    middle = {name: median(times) for name, times in samples.items()}
    ratios = [
        {"of": of, "to": to, "ratio": middle[of] / middle[to], "target": target}
        for (of, to), target in row.targets.items()
        if to in middle
    ]
    return {"title": row.title, "note": row.note, "ms": samples, "ratios": ratios}


def show(row: dict[str, Any]) -> None:
    """Print one row."""
    unit = median(row["ms"]["elementsckpt"])
    print(f"\n{row['title']} ({row['note']})")
    print(f"{'':26}{'median':>9}{'min':>10}{'max':>10}{'x elementsckpt':>18}")
    for name, times in row["ms"].items():
        middle = median(times)
        print(
            f"  {name:24}{middle:9.1f}{min(times):10.1f}{max(times):10.1f}"
            f"{middle / unit:18.2f}"
        )
    for ratio in row["ratios"]:
        name = "{of} / {to}".format(**ratio)
        print(f"  {name:44}{ratio['ratio']:9.3f}   target <= {ratio['target']:g}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

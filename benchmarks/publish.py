"""Keep a result: as JSON, as a plot, and in the documentation.

    python -m benchmarks.publish

makes the plot and the documentation again from the JSON.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from . import plot, report

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- Measured: `make bench` rewrites this. -->", "<!-- End. -->"


def publish(result: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(result, indent=1)
    # One line for each list of numbers.
    text = re.sub(
        r"\[\s+([-\d.e,\s]+?)\s+\]", lambda x: f"[{' '.join(x[1].split())}]", text
    )
    (RESULTS / "results.json").write_text(text + "\n", encoding="utf-8")
    illustrate(result)


def illustrate(result: dict[str, Any]) -> None:
    """Make the plot and the documentation."""
    plot.draw(result, RESULTS / "results.png")
    before, rest = PAGE.read_text("utf-8").split(BEGIN)
    after = rest.split(END)[1]
    measured = f"{BEGIN}\n\n{report.markdown(result)}\n\n{END}"
    PAGE.write_text(before + measured + after, encoding="utf-8")


if __name__ == "__main__":
    illustrate(json.loads((RESULTS / "results.json").read_text("utf-8")))

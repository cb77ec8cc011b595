"""The results as a picture of four panels."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

Rows = list[dict[str, Any]]
COLORS = {"elementsckpt": "#0b6e99", "elements": "#c4622d", "raw": "#888888"}
GOOD, BAD = "#0b6e99", "#b3261e"


def draw(result: dict[str, Any], path: Path) -> None:
    figure, panels = plt.subplots(2, 2, figsize=(14, 10), layout="constrained")
    rows: Rows = result["rows"]
    targets(panels[0, 0], rows)
    replay(panels[0, 1], rows)
    curve(panels[1, 0], rows, "scaling with size", "bytes")
    curve(panels[1, 1], rows, "scaling with leaf count", "leaves")
    if result["quick"]:
        figure.suptitle("Quick run at a tenth of the size")
    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)


def targets(panel: Axes, rows: Rows) -> None:
    """Draw what part of each target was used up."""
    found = [
        (
            label(row, target),
            used(target),
        )
        for row in rows
        for target in row["targets"]
        if target["value"] is not None
    ]
    names, parts = [x for x, _ in found], [max(part, 0.01) for _, part in found]
    panel.barh(names, parts, color=[GOOD if x <= 1 else BAD for x in parts])
    panel.axvline(1, color="black", linewidth=1)
    panel.set(title="measured / target: up to 1 is met", xscale="log")
    panel.invert_yaxis()
    panel.tick_params(axis="y", labelsize=8)


def used(target: dict[str, Any]) -> float:
    """Return what part of the limit was used up; of none, how much more than all."""
    value, at_most = target["value"], target["at_most"]
    return value / at_most if at_most else 1 + value


def label(row: dict[str, Any], target: dict[str, Any]) -> str:
    to = "" if target["to"] is None else f" / {target['to']}"
    measure = "" if target["measure"] == "ms" else f", {target['measure']}"
    return f"{row['name']}: {target['of']}{to}{measure}"


def replay(panel: Axes, rows: Rows) -> None:
    """Draw the time of a save for each part that changed."""
    for row in rows:
        if row["name"] == "replay":
            times = {x: median(y["ms"]) / 1000 for x, y in row["cases"].items() if y}
            colors = [COLORS.get(x, COLORS["elementsckpt"]) for x in times]
            bars = panel.barh(list(times), list(times.values()), color=colors)
            panel.bar_label(bars, fmt="%.2f s")
            panel.set(title=row["title"], xlabel="seconds")
            panel.margins(x=0.15)
            panel.invert_yaxis()


def curve(panel: Axes, rows: Rows, title: str, unit: str) -> None:
    """Draw milliseconds over size, a line for each case."""
    points = [row for row in rows if row["curve"] == title]
    for name in points[0]["cases"] if points else ():
        some = [row for row in points if row["cases"][name]]
        library, _, verb = name.partition(", ")
        panel.loglog(
            [row["size"] for row in some],
            [median(row["cases"][name]["ms"]) for row in some],
            "o-" if verb == "save" else "s--",
            color=COLORS[library],
            label=name,
        )
    panel.set(title=title, xlabel=unit, ylabel="milliseconds")
    panel.grid(alpha=0.3)
    if points:
        panel.legend()

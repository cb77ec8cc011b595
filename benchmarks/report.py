"""Results as text for a terminal, and as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from itertools import groupby
from statistics import median
from typing import Any

from .cases import PHASE

TIME = "ms"  # In the name of a measure that is a time.
UNIT = "elementsckpt"  # What the others are compared with.
MISSED = "MISSED"
UNEXPLAINED = "The reason is not known yet."
QUICK = (
    "Quick: sizes are a tenth, fixed costs weigh ten times as much, and targets, which "
    "are for the full sizes, are only a hint."
)


def text(row: dict[str, Any]) -> str:
    """Return a row for a terminal."""
    title = ": ".join(filter(None, [row["curve"], row["title"]]))
    lines = ["", title, textwrap.fill(row["note"], 88)]
    cells = table(row)
    width = max(len(line[0]) for line in cells)
    for name, *others in cells:
        lines.append(f"  {name:{width}}" + "".join(f"{x:>16}" for x in others))
    if phases(row):
        lines.append(textwrap.indent(textwrap.fill(phases(row), 86), "  "))
    for target in row["targets"]:
        _, work, limit, value, verdict = judged(row, target)
        lines.append(f"  {work}: {value} (target {limit}) {verdict}")
        if verdict == MISSED and target["why"]:
            lines.append(textwrap.indent(textwrap.fill(target["why"], 84), "    "))
    return "\n".join(line.rstrip() for line in lines)


def markdown(result: dict[str, Any]) -> str:
    """Return what was measured on, the targets, and each row."""
    about = dict(result["about"])
    versions = about.pop("versions")
    about |= {"versions": ", ".join(f"{x} {versions[x]}" for x in versions)}
    parts = [
        grid([("measured on", ""), *((x, str(about[x])) for x in about)]),
        f"Rounds: {result['rounds']}. " + (QUICK if result["quick"] else ""),
        "### Targets",
        grid(
            [
                ("work", "measured", "target", "reached", ""),
                *(judged(x, target) for x in result["rows"] for target in x["targets"]),
            ]
        ),
    ]
    if misses(result):
        parts += ["### What is missed, and why", misses(result)]
    for title, rows in groupby(
        result["rows"], lambda row: row["curve"] or row["title"]
    ):
        first, *others = rows
        cells = curve([first, *others]) if first["curve"] else table(first)
        parts += [f"### {title[0].upper()}{title[1:]}", first["note"], grid(cells)]
        parts += [] if first["curve"] else [phases(first)]
    return "\n\n".join(part.strip() for part in parts if part.strip())


def misses(result: dict[str, Any]) -> str:
    """Return a list of the targets that are missed, each with the reason."""
    lines = []
    for row in result["rows"]:
        for target in row["targets"]:
            title, work, limit, value, verdict = judged(row, target)
            if verdict == MISSED:
                why = target.get("why") or UNEXPLAINED
                lines.append(f"- *{title}*: {work} is {value}, not {limit}. {why}")
    return "\n".join(lines)


def table(row: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return a row's heading and lines: median, smallest, largest, and what else."""
    found = [measures for measures in row["cases"].values() if measures]
    main, *others = [x for x in found[0] if PHASE not in x] if found else ["ms"]
    unit = row["cases"].get(UNIT, {}).get(main) if TIME in main else None
    lines = [("", main, "min", "max", *([f"x {UNIT}"] if unit else []), *others)]
    for name, measures in row["cases"].items():
        if not measures:
            lines.append((name, "not installed", *[""] * (len(lines[0]) - 2)))
            continue
        values = measures[main]
        middle = [median(values), min(values), max(values)]
        cells = [number(value) for value in middle]
        if unit:
            cells.append(f"{middle[0] / median(unit):.2f}")
        cells += [number(median(measures[x])) if x in measures else "" for x in others]
        lines.append((name, *cells))
    return lines


def phases(row: dict[str, Any]) -> str:
    """Return where the time went of those that report it: medians from 1 % on."""
    lines = []
    for name, measures in row["cases"].items():
        found = {x: median(measures[x]) for x in measures if PHASE in x}
        if found:
            listed = [x for x in found if found[x] >= 0.01 * sum(found.values())]
            listed.sort(key=lambda x: -found[x])
            parts = [f"{x.removeprefix(PHASE)} {number(found[x])}" for x in listed]
            lines.append(f"{name}: {', '.join(parts)}")
    return f"Phases, ms: {'; '.join(lines)}." if lines else ""


def curve(rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Return one table of rows that differ in size: medians, and those for a unit."""
    _, unit = next(iter(rows[0]["cases"].values()))
    lines = [(f"ms ({unit})", *(row["title"] for row in rows))]
    for name in rows[0]["cases"]:
        found = [row["cases"][name] for row in rows]
        cells = [
            f"{number(median(x['ms']))} ({number(median(x[unit]))})" if x else ""
            for x in found
        ]
        lines.append((name, *cells))
    return lines


def judged(row: dict[str, Any], target: dict[str, Any]) -> tuple[str, ...]:
    """Return what is demanded of which row, what was reached, and the verdict."""
    of, to, value = target["of"], target["to"], target["value"]
    measure = "" if target["measure"] == "ms" else f", {target['measure']}"
    work = (of if to is None else f"{of} / {to}") + measure
    limit = f"<= {target['at_most']:g}"
    if value is None:
        return row["title"], work, limit, "not measured", ""
    verdict = "met" if value <= target["at_most"] else MISSED
    return row["title"], work, limit, significant(value), verdict


def significant(value: float) -> str:
    """Return three digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def number(value: float) -> str:
    """Return three digits at least, and never an exponent."""
    return f"{value:,.{0 if abs(value) >= 1000 else 1 if abs(value) >= 10 else 2}f}"


def grid(lines: Iterable[Sequence[str]]) -> str:
    """Return a table of Markdown, numbers to the right."""
    first, *others = lines
    rule = ["---", *["---:"] * (len(first) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [first, rule, *others])

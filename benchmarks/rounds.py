"""The rounds that measure a row."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from .cases import Row, Sample, Target

SLOW_MS = 4000  # A case that takes longer is measured only
SLOW_ROUNDS = 2  # so many times.


def measure(name: str, row: Row, rounds: int, folder: Path) -> dict[str, Any]:
    """Run a row's rounds, and return the row as it is written to JSON.

    Each round runs each case once, in random order, so that what else the machine does
    strikes all alike. The first round warms up and does not count.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in row.cases}
    left = {x: rounds for x, case in row.cases.items() if case is not None}
    order = random.Random(0)
    for number in range(rounds + 1):
        for case_name in order.sample(list(left), len(left)):
            case = row.cases[case_name]
            assert case is not None
            if number > left[case_name]:
                continue
            with tempfile.TemporaryDirectory(dir=folder) as empty:
                sample = case(Path(empty))
            if number:
                samples[case_name].append(sample)
            elif sample.get("ms", 0) > SLOW_MS:
                left[case_name] = min(rounds, SLOW_ROUNDS)
    cases = {x: by_measure(found) for x, found in samples.items()}
    return {
        "name": name,
        "title": row.title,
        "note": row.note,
        "curve": row.curve,
        "size": row.size,
        "cases": cases,
        "targets": [judge(target, cases) for target in row.targets],
    }


def by_measure(samples: Sequence[Sample]) -> dict[str, list[float]]:
    """Return the values of each measure."""
    measures = dict.fromkeys(x for sample in samples for x in sample)
    return {x: [round(one.get(x, 0), 4) for one in samples] for x in measures}


def judge(target: Target, cases: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """Return a target with the value that was reached: a ratio of medians."""
    value = None
    names = [target.of] if target.to is None else [target.of, target.to]
    if all(target.measure in cases[name] for name in names):
        of, *to = (median(cases[name][target.measure]) for name in names)
        value = of / to[0] if to else of
    return {**target._asdict(), "value": value}

"""Rows about how the cost grows: with the bytes, and with the leaves."""

from __future__ import annotations

import os
from pathlib import Path

from .cases import Case, Row, Sample, Setting
from .states import State, noise, size_bytes

LEAVES = 10, 100, 1_000, 10_000, 100_000
LEAVES_BYTES = 64 << 20  # In all leaves together.


def megabytes() -> list[int]:
    """Return the sizes for which files and copies fit into memory."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return [size for size in (64, 256, 1024, 4096) if 5 * size << 20 < memory_bytes]


def size(setting: Setting, megabytes: int) -> Row:
    state = noise(1, megabytes // setting.divisor, 512, 512)
    gigabytes = size_bytes(state) / 1e9
    return Row(
        f"{1000 * gigabytes:,.0f} MB",
        "In leaves of 1 MB. Linear is: each GB takes the same time.",
        both(setting, state, ["elementsckpt"], "ms per GB", gigabytes),
        curve="scaling with size",
        size=size_bytes(state),
    )


def leaf_count(setting: Setting, count: int) -> Row:
    state = noise(1, count, LEAVES_BYTES // setting.divisor // 4 // count)
    return Row(
        f"{count:,} leaves",
        f"{size_bytes(state) / 1e6:.0f} MB in all. Linear is: a fixed time for the "
        "bytes, and for each further leaf the same.",
        both(setting, state, ["elementsckpt", "elements"], "µs per leaf", count / 1000),
        curve="scaling with leaf count",
        size=count,
    )


def both(
    setting: Setting, state: State, names: list[str], measure: str, amount: float
) -> dict[str, Case | None]:
    """Return the cases that save and that load, with the time for one unit, too."""
    saves, loads = setting.saves(state, *names), setting.loads(state, *names)
    cases = {f"{x}, save": case for x, case in saves.items()}
    cases |= {f"{x}, load": case for x, case in loads.items()}
    return {x: case and per(case, measure, amount) for x, case in cases.items()}


def per(case: Case, measure: str, amount: float) -> Case:
    def divided(folder: Path) -> Sample:
        sample = case(folder)
        return {**sample, measure: sample["ms"] / amount}

    return divided

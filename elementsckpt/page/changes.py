"""How much each leaf changed between saves, as far as the budget for reading goes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct

from ..errors import CheckpointError, one_line
from ..inspection.contents import Blocks, Contents, Leaf
from ..inspection.statistics import is_numeric, widened
from ..inspection.values import pieces

_MOST_SAVES = 100  # Columns.
_MOST_LEAVES = 60  # Rows.
_LARGE_BYTES = 256 << 20  # Two of a leaf are in memory at a time.


class Budget(Struct):
    """How many bytes of arrays may be read, and were."""

    limit: int
    read: int = 0

    def take(self, size_bytes: int) -> bool:
        """Return whether so many bytes may be read, and count them."""
        if self.read + size_bytes > self.limit:
            return False
        self.read += size_bytes
        return True


class _Row(Struct):
    """A leaf over the saves: relative change, count of not finite elements, rms."""

    name: str
    size: int
    change: list[float | None]
    bad: list[int | None]
    rms: list[float | None]


def gather(contents: Sequence[Contents], budget: Budget) -> dict[str, Any]:
    """Return how much leaves changed, small leaves first.

    Args:
      contents: The saves, oldest first.
      budget: How much may be read.
    """
    found: dict[str, Any] = {"columns": [], "rows": [], "left_out": [], "damaged": []}
    found |= {"not_finite": 0, "unread": 0}
    if not contents:
        return found
    columns = _columns(len(contents))
    chosen = [contents[n] for n in columns]
    named = [
        {x.full_name: x for x in one.leaves() if is_numeric(x) and x.size_bytes}
        for one in chosen
    ]
    newest = named[-1] if named else {}
    candidates = [
        name
        for name, leaf in sorted(newest.items(), key=lambda item: item[1].size_bytes)
        if np.dtype(leaf.dtype).kind not in "biu"
    ]
    not_finite, unread = _not_finite(chosen[-1], newest, candidates, budget)
    rows: list[_Row] = []
    left_out, damaged = [], []
    for name in candidates:
        is_shown = len(rows) < _MOST_LEAVES and newest[name].size_bytes <= _LARGE_BYTES
        cost = _cost(chosen, [x.get(name) for x in named]) if is_shown else 0
        if not is_shown or not budget.take(cost):
            left_out.append(one_line(name))
            continue
        try:
            rows.append(_row(name, chosen, [x.get(name) for x in named]))
        except CheckpointError:
            damaged.append(one_line(name))
    return {
        "columns": columns,
        "rows": [
            {
                "name": one_line(row.name),
                "change": [_short(x) for x in row.change],
                "bad": row.bad,
                "rms": [_short(x) for x in row.rms],
            }
            for row in sorted(rows, key=lambda x: (-(x.bad[-1] or 0), x.name))
        ],
        "not_finite": not_finite,
        "unread": unread,
        "left_out": left_out,
        "damaged": damaged,
    }


def _not_finite(
    contents: Contents, leaves: Mapping[str, Leaf], names: Sequence[str], budget: Budget
) -> tuple[int, int]:
    """Return how many leaves have NaN or infinities, and how many were not read."""
    count = unread = 0
    for name in names:
        leaf, blocks = leaves[name], Blocks(contents, leaves[name].key)
        if not budget.take(leaf.size_bytes):
            unread += 1
            continue
        try:
            found = pieces(contents, leaf, blocks)
            count += not all(np.isfinite(widened(x)).all() for x in found)
        except CheckpointError:
            unread += 1
        finally:
            blocks.close()
    return count, unread


def _columns(count: int) -> list[int]:
    """Return which saves are shown: all, or some at equal distances, and the last."""
    if count <= _MOST_SAVES:
        return list(range(count))
    return sorted(
        {round(n * (count - 1) / (_MOST_SAVES - 1)) for n in range(_MOST_SAVES)}
    )


def _short(value: float | None) -> float | None:
    """Return a number of three digits, so that the page is small."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.3g}")


def _cost(contents: Sequence[Contents], leaves: Sequence[Leaf | None]) -> int:
    """Return how many bytes reading the leaf in all saves takes."""
    before, total = None, 0
    for one, leaf in zip(contents, leaves, strict=True):
        digests = None if leaf is None else _digests(one, leaf)
        if leaf is not None and digests != before:
            total += leaf.size_bytes
        before = digests
    return total


def _digests(contents: Contents, leaf: Leaf) -> tuple[Any, ...]:
    blocks = contents.components[leaf.key].blocks
    ranges = contents.blocks(leaf)
    return tuple((blocks[number].digest, begin, end) for number, begin, end in ranges)


def _row(
    name: str, contents: Sequence[Contents], leaves: Sequence[Leaf | None]
) -> _Row:
    row = _Row(name, 0, [], [], [])
    known: tuple[Any, ...] | None = None
    array: np.ndarray | None = None
    for one, leaf in zip(contents, leaves, strict=True):
        if leaf is None:
            known, array = None, None
            for column in (row.change, row.bad, row.rms):
                column.append(None)
            continue
        row.size = leaf.size_bytes
        digests = _digests(one, leaf)
        if array is not None and digests == known and leaf.kind != "view":
            row.change.append(0.0)
            row.bad.append(row.bad[-1])
            row.rms.append(row.rms[-1])
            continue
        current = _read(one, leaf)
        _add(row, array, current)
        known, array = digests, current
    return row


def _read(contents: Contents, leaf: Leaf) -> np.ndarray:
    blocks = Blocks(contents, leaf.key)
    try:
        found = [widened(x) for x in pieces(contents, leaf, blocks)]
    finally:
        blocks.close()
    return np.concatenate(found)


def _add(row: _Row, before: np.ndarray | None, now: np.ndarray) -> None:
    finite = np.isfinite(now)
    row.bad.append(int(now.size - np.count_nonzero(finite)))
    values = now[finite].astype(np.float64)
    row.rms.append(float(np.sqrt(np.mean(np.square(values)))) if values.size else None)
    change = None
    if before is not None and before.shape == now.shape:
        both = finite & np.isfinite(before)
        old = before[both].astype(np.float64)
        norm, difference = _norm(old), _norm(now[both] - old)
        change = difference / norm if norm else (0.0 if not difference else None)
    row.change.append(change)


def _norm(values: np.ndarray) -> float:
    # That of `np.linalg` wakes the threads of BLAS, which costs more than it saves.
    return float(np.sqrt(np.sum(np.square(values))))

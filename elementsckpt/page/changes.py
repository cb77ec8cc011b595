"""How much each leaf changed between saves, as far as the budget for reading goes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import asdict

from ..errors import CheckpointError, one_line
from ..inspection.contents import Blocks, Contents, Leaf
from ..inspection.statistics import is_numeric, widened
from ..inspection.values import pieces

NO_RATIO = "no ratio"  # A change from zeros, or from NaN.
DAMAGED = "damaged"

_MOST_SAVES = 100  # Columns.
_MOST_LEAVES = 60  # Rows.
_LARGE_BYTES = 256 << 20  # Two of a leaf are in memory at a time.


class Budget(Struct):
    """How many bytes of arrays may be read, are taken for leaves, and were read."""

    limit: int
    taken: int = 0
    read: int = 0

    def take(self, size_bytes: int) -> bool:
        """Return whether so many bytes may be read, and take them."""
        if self.taken + size_bytes > self.limit:
            return False
        self.taken += size_bytes
        return True


class _Row(Struct):
    """A leaf over the saves: relative change, count of not finite elements, rms.

    A change is None where there is nothing to compare with, and `bad` where the leaf
    is absent or damaged.
    """

    name: str
    change: list[float | str | None]
    bad: list[int | None]
    rms: list[float | str | None]

    def add(self, change: float | str | None, bad: int | None, rms: Any) -> None:
        """Add what is known of one save."""
        self.change.append(_short(change))
        self.bad.append(bad)
        self.rms.append(_short(rms))


def gather(contents: Sequence[Contents], budget: Budget) -> dict[str, Any]:
    """Return how much leaves changed, small leaves first.

    Args:
      contents: The saves, oldest first.
      budget: How much may be read.
    """
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
    found = (
        _newest(chosen[-1], [newest[x] for x in candidates], budget) if named else {}
    )
    rows: list[_Row] = []
    left_out, hidden = [], []
    for name in candidates:
        if len(rows) >= _MOST_LEAVES or newest[name].size_bytes > _LARGE_BYTES:
            hidden.append(one_line(name))
            continue
        leaves = [x.get(name) for x in named]
        if budget.take(_cost(chosen, leaves)):
            rows.append(_row(name, chosen, leaves, budget))
        else:
            left_out.append(one_line(name))
    rows.sort(key=lambda row: (-(row.bad[-1] or 0), row.name))
    damaged = {n for row in rows for n, x in enumerate(row.change) if x == DAMAGED}
    if found.get("damaged"):
        damaged.add(len(columns) - 1)
    return {
        "columns": columns,
        "rows": [asdict(row) for row in rows],
        "newest": found,
        "left_out": left_out,
        "hidden": hidden,
        "damaged": sorted(columns[n] for n in damaged),
    }


def _newest(
    contents: Contents, leaves: Sequence[Leaf], budget: Budget
) -> dict[str, Any]:
    """Return which leaves of floats are not finite, were not read, or are damaged."""
    bad: list[list[Any]] = []
    unread, damaged = [], []
    for leaf in leaves:
        name = one_line(leaf.full_name)
        if not budget.take(leaf.size_bytes):
            unread.append(name)
            continue
        try:
            count = sum(_bad(x) for x in _pieces(contents, leaf, budget))
        except CheckpointError:
            damaged.append(name)
            continue
        if count:
            bad.append([name, count])
    found = {"count": len(leaves), "bad": bad, "unread": unread, "damaged": damaged}
    return {**found, "sequence": sequence(contents)}


def sequence(contents: Contents) -> int | None:
    """Return the number of a save, or None if its folder has none."""
    head = contents.found.head
    return None if head is None else head.sequence


def _columns(count: int) -> list[int]:
    """Return which saves are shown: all, or some at equal distances, and the last."""
    if count <= _MOST_SAVES:
        return list(range(count))
    return sorted(
        {round(n * (count - 1) / (_MOST_SAVES - 1)) for n in range(_MOST_SAVES)}
    )


def _short(value: float | str | None) -> float | str | None:
    """Return a number of three digits, so that the page is small."""
    if value is None or isinstance(value, str):
        return value
    return float(f"{value:.3g}") if math.isfinite(value) else None


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
    name: str,
    contents: Sequence[Contents],
    leaves: Sequence[Leaf | None],
    budget: Budget,
) -> _Row:
    row = _Row(one_line(name), [], [], [])
    known: tuple[Any, ...] | None = None
    before: np.ndarray | None = None
    for one, leaf in zip(contents, leaves, strict=True):
        if leaf is None:
            known, before = None, None
            row.add(None, None, None)
            continue
        digests = _digests(one, leaf)
        if before is not None and digests == known and leaf.kind != "view":
            row.add(0.0, row.bad[-1], row.rms[-1])
            continue
        try:
            now = np.concatenate(list(_pieces(one, leaf, budget)))
        except CheckpointError:
            known, before = None, None
            row.add(DAMAGED, None, None)
            continue
        values = now[np.isfinite(now)].astype(np.float64)
        rms = _norm(values) / math.sqrt(values.size) if values.size else None
        row.add(_change(before, now), _bad(now), rms)
        known, before = digests, now
    return row


def _pieces(contents: Contents, leaf: Leaf, budget: Budget) -> Iterator[np.ndarray]:
    blocks = Blocks(contents, leaf.key)
    try:
        for piece in pieces(contents, leaf, blocks):
            budget.read += piece.nbytes
            yield widened(piece)
    finally:
        blocks.close()


def _bad(values: np.ndarray) -> int:
    return int(values.size - np.count_nonzero(np.isfinite(values)))


def _change(before: np.ndarray | None, now: np.ndarray) -> float | str | None:
    """Return the norm of the difference, relative to what was there before."""
    if before is None or before.shape != now.shape:
        return None
    finite, was_finite = np.isfinite(now), np.isfinite(before)
    both = finite & was_finite
    old = before[both].astype(np.float64)
    norm, difference = _norm(old), _norm(now[both] - old)
    if norm and difference:
        return min(difference / norm, 1e300)
    is_same = not difference and np.array_equal(finite, was_finite)
    return 0.0 if is_same else NO_RATIO


def _norm(values: np.ndarray) -> float:
    # That of `np.linalg` wakes the threads of BLAS, which costs more than it saves.
    with np.errstate(over="ignore", under="ignore"):
        total = float(np.sum(np.square(values)))
        if 1e-280 < total < 1e280 or not values.size:
            return math.sqrt(total)
        largest = float(np.max(np.abs(values)))
        scaled = values / largest if largest and math.isfinite(largest) else values
        return largest * math.sqrt(float(np.sum(np.square(scaled))))

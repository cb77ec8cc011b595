"""What the elements of leaves are like: counts, extremes, means, histograms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ..errors import damage
from ..reports.leaves import LeafStats, StatsList
from ..system.progress import Meter
from ..user.arguments import AnyPath
from .contents import Blocks, Contents, Leaf, newest
from .values import pieces

BINS = 16
_NUMERIC = "biuf"  # Kinds of dtypes: bool, int, unsigned, float.


def stats(
    path: AnyPath, keys: Iterable[str] | None = None, regex: str | None = None
) -> StatsList:
    """Return what the elements of leaves are like, in the order of the manifest.

    Only leaves of bools, integers and floats have statistics. What is read is verified.

    Args:
      path: A save or its address, or a directory, for its newest save.
      keys: Components; all by default.
      regex: As for `leaves`.

    Raises:
      SaveNotFoundError: there is no save.
      MissingKeyError: the save lacks a component.
      MismatchError: the pattern matches nothing.
      DamagedError: what is read is damaged; the message has the leaves.
      ValueError: `keys` is text.
    """
    contents = Contents(newest(path), keys)
    found = StatsList()
    readers: dict[str, Blocks] = {}
    leaves = [leaf for leaf in contents.leaves(regex) if is_numeric(leaf)]
    with Meter("stats") as meter:
        # The second time for the histogram, as its range is known then.
        meter.begin(2 * sum(leaf.size_bytes for leaf in leaves))
        for leaf in leaves:
            if leaf.key not in readers:
                readers[leaf.key] = Blocks(contents, leaf.key, meter)
            found.append(describe(contents, leaf, readers[leaf.key]))
    return found


def is_numeric(leaf: Leaf) -> bool:
    """Return whether a leaf has elements that can be counted and added up."""
    dtype = leaf.dtype
    if dtype is None or isinstance(dtype, str):
        return False
    return dtype.kind in _NUMERIC or is_small_float(dtype)


def is_small_float(dtype: np.dtype[Any]) -> bool:
    """Return whether it is a float of ml_dtypes, such as bfloat16."""
    return dtype.kind == "V" and dtype.names is None and "float" in dtype.name


def describe(contents: Contents, leaf: Leaf, blocks: Blocks) -> LeafStats:
    """Return the statistics of one leaf.

    Raises:
      DamagedError: it is damaged.
    """
    with damage(contents.where):
        return _describe(leaf, lambda: pieces(contents, leaf, blocks))


def _describe(leaf: Leaf, read: Callable[[], Iterator[np.ndarray]]) -> LeafStats:
    count = nan = inf = 0
    least: Any = None
    most: Any = None
    total = squares = 0.0
    finite = 0
    for piece in read():
        values = widened(piece)
        count += values.size
        if values.dtype.kind == "f":
            nan += int(np.isnan(values).sum())
            inf += int(np.isinf(values).sum())
            values = values[np.isfinite(values)]
        if not values.size:
            continue
        finite += values.size
        low, high = values.min().item(), values.max().item()
        least = low if least is None else min(least, low)
        most = high if most is None else max(most, high)
        with np.errstate(over="ignore"):
            wide = values.astype(np.float64)
            total += float(wide.sum())
            squares += float(np.square(wide).sum())
    histogram = (0,) * BINS
    if finite:
        histogram = _histogram(read(), float(least), float(most))
    assert leaf.dtype is not None
    return LeafStats(
        key=leaf.key,
        name=leaf.name,
        full_name=leaf.full_name,
        dtype=str(leaf.dtype),
        shape=leaf.shape,
        count=count,
        nan=nan,
        inf=inf,
        min=least,
        max=most,
        mean=total / finite if finite else None,
        rms=math.sqrt(squares / finite) if finite else None,
        histogram=histogram,
    )


def widened(piece: np.ndarray) -> np.ndarray:
    """Return elements of a dtype that NumPy can compute with: bools as uint8."""
    if piece.dtype.kind == "b":
        return piece.view(np.uint8)
    is_half = piece.dtype.kind == "f" and piece.dtype.itemsize == 2
    if is_half or piece.dtype.kind == "V":
        return piece.astype(np.float32)
    return piece


def _histogram(
    chunks: Iterable[np.ndarray], least: float, most: float
) -> tuple[int, ...]:
    counts = np.zeros(BINS, np.int64)
    # A range whose width is not finite is halved, so that no bin is infinite.
    scale = 1.0 if math.isfinite(most - least) else 0.5
    span = most * scale - least * scale
    for piece in chunks:
        values = widened(piece).astype(np.float64)
        values = values[np.isfinite(values)]
        if span > 0:
            bins = ((values * scale - least * scale) / span * BINS).astype(np.int64)
            counts += np.bincount(np.minimum(bins, BINS - 1), minlength=BINS)
        else:
            counts[0] += values.size
    return tuple(counts.tolist())

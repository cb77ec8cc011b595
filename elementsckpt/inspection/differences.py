"""Compares two saves leaf by leaf; blocks that have one digest are not read."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from ..errors import MismatchError, damage
from ..format.manifest import Block
from ..reports.differences import DiffReport, LeafDiff
from ..system.progress import Meter
from ..user.arguments import AnyPath
from .contents import Blocks, Contents, Leaf, elements, newest
from .statistics import is_numeric, widened
from .values import array


def diff(
    a: AnyPath,
    b: AnyPath,
    keys: Iterable[str] | None = None,
    regex: str | None = None,
) -> DiffReport:
    """Compare two saves.

    A leaf is the same if its kind, dtype, shape and elements are the same, bit for bit
    apart from NaN. How it is cut, compressed or ordered makes no difference.

    Args:
      a: A save or its address, or a directory, for its newest save.
      b: The other one.
      keys: Components; all by default.
      regex: As for `leaves`, in either save.

    Raises:
      SaveNotFoundError: there is no save.
      MissingKeyError: a save lacks a component.
      MismatchError: the pattern matches nothing in either save.
      DamagedError: what must be read is damaged; the message has the leaves.
      ValueError: `keys` is text.
    """
    start = time.monotonic()
    first, second = _Side(a, keys), _Side(b, keys)
    in_a, in_b = _selected(first, second, regex)
    changed: list[LeafDiff] = []
    same: list[str] = []
    both = {name: leaf for name, leaf in in_a.items() if name in in_b}
    with Meter("diff") as meter:
        meter.begin(sum(leaf.size_bytes for leaf in both.values()))
        for name, leaf in both.items():
            found = _compare(first, leaf, second, in_b[name], meter)
            if found is None:
                same.append(name)
            else:
                changed.append(found)
    added = tuple(name for name in in_b if name not in in_a)
    removed = tuple(name for name in in_a if name not in in_b)
    return DiffReport(
        a=first.contents.found.path,
        b=second.contents.found.path,
        added=added,
        removed=removed,
        changed=tuple(changed),
        same=tuple(same),
        is_same=not (added or removed or changed),
        bytes_read=first.bytes_read + second.bytes_read,
        seconds=time.monotonic() - start,
    )


class _Side:
    """One of the two saves, and the readers of its components."""

    def __init__(self, path: AnyPath, keys: Iterable[str] | None) -> None:
        self.contents = Contents(newest(path), keys)
        self._blocks: dict[str, Blocks] = {}

    def blocks(self, leaf: Leaf) -> Blocks:
        """Return what reads the blocks of the component of a leaf."""
        if leaf.key not in self._blocks:
            self._blocks[leaf.key] = Blocks(self.contents, leaf.key)
        return self._blocks[leaf.key]

    @property
    def bytes_read(self) -> int:
        """How many bytes of blocks were read."""
        return sum(blocks.bytes_read for blocks in self._blocks.values())


_Named = dict[str, Leaf]


def _selected(a: _Side, b: _Side, regex: str | None) -> tuple[_Named, _Named]:
    """Return the leaves to compare, by full name; one side may have none."""
    found: list[_Named] = []
    errors = []
    for side in (a, b):
        try:
            named = {leaf.full_name: leaf for leaf in side.contents.leaves(regex)}
        except MismatchError as error:
            errors.append(error)
            named = {}
        found.append(named)
    if len(errors) == 2:
        raise errors[0]
    return found[0], found[1]


def _compare(
    a: _Side, one: Leaf, b: _Side, other: Leaf, meter: Meter
) -> LeafDiff | None:
    """Return how two leaves of one name differ, or None if they do not."""
    if _form(one) != _form(other):
        meter.add(one.size_bytes)
        return _unlike(one, other)
    if one.group is None or other.group is None:  # Files.
        meter.add(one.size_bytes)
        return None if one.file == other.file else _unlike(one, other)
    if one.kind in ("python", "function"):
        is_same = repr(one.group.value) == repr(other.group.value)
        return None if is_same else _unlike(one, other)
    with damage(f"{a.contents.where} or {b.contents.where}"):
        pairs = _pairs(a, one, b, other, meter)
        if is_numeric(one) or _is_complex(one):
            return _figures(one, other, pairs)
        is_same = all(np.array_equal(x, y) for x, y in pairs)
    return None if is_same else _unlike(one, other)


def _form(leaf: Leaf) -> tuple[object, ...]:
    """Return what must be equal for elements to be compared."""
    generator = leaf.group.value if leaf.group and leaf.kind == "key" else None
    size = None if leaf.is_array else leaf.size_bytes
    return leaf.kind, leaf.dtype, leaf.shape, generator, size


def _unlike(one: Leaf, other: Leaf) -> LeafDiff:
    dtypes = [None if x.dtype is None else str(x.dtype) for x in (one, other)]
    return LeafDiff(
        full_name=one.full_name,
        dtype_a=dtypes[0],
        dtype_b=dtypes[1],
        shape_a=one.shape,
        shape_b=other.shape,
        value_a=one.value,
        value_b=other.value,
    )


def _is_complex(leaf: Leaf) -> bool:
    return isinstance(leaf.dtype, np.dtype) and leaf.dtype.kind == "c"


_Pairs = Iterator[tuple[np.ndarray, np.ndarray]]


def _pairs(a: _Side, one: Leaf, b: _Side, other: Leaf, meter: Meter) -> _Pairs:
    """Yield the bytes of both leaves, uint8[n], where they may differ."""
    if _lies(one) != _lies(other) or one.kind == "view":
        arrays = [array(side.contents, leaf) for side, leaf in ((a, one), (b, other))]
        yield _bytes_of(arrays[0]), _bytes_of(arrays[1])
        meter.add(one.size_bytes)
        return
    blocks_a, blocks_b = a.blocks(one), b.blocks(other)
    ranges_a, ranges_b = a.contents.blocks(one), b.contents.blocks(other)
    sizes = [[end - begin for _, begin, end in x] for x in (ranges_a, ranges_b)]
    if sizes[0] != sizes[1]:
        whole = [
            np.concatenate(list(blocks.chunks(ranges)))
            for blocks, ranges in ((blocks_a, ranges_a), (blocks_b, ranges_b))
        ]
        yield whole[0], whole[1]
        meter.add(one.size_bytes)
        return
    for range_a, range_b in zip(ranges_a, ranges_b, strict=True):
        number_a, begin_a, end_a = range_a
        number_b, begin_b, end_b = range_b
        is_known = begin_a == begin_b and _is_equal(
            blocks_a.block(number_a), blocks_b.block(number_b)
        )
        if not is_known:
            content_a, content_b = (
                blocks_a.content(number_a),
                blocks_b.content(number_b),
            )
            yield content_a[begin_a:end_a], content_b[begin_b:end_b]
        meter.add(end_a - begin_a)


def _is_equal(one: Block, other: Block) -> bool:
    return one.digest == other.digest and one.content_size == other.content_size


def _lies(leaf: Leaf) -> tuple[object, ...]:
    """Return what says how elements lie in memory."""
    group = leaf.group
    assert group is not None
    return group.order, group.value if leaf.kind == "torch" else None


def _bytes_of(value: np.ndarray) -> np.ndarray:
    return np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)


class _Sums(Struct):
    """Sums over the elements that differ."""

    changed: int = 0
    finite: int = 0
    largest: float = 0.0
    squares: float = 0.0
    squares_a: float = 0.0
    nan_a: int = 0
    nan_b: int = 0
    inf_a: int = 0
    inf_b: int = 0

    def add(self, a: np.ndarray, b: np.ndarray) -> None:
        """Add elements that differ, of both leaves."""
        self.changed += a.size
        if a.dtype.kind in "fc":
            self.nan_a += int(np.isnan(a).sum())
            self.nan_b += int(np.isnan(b).sum())
            self.inf_a += int(np.isinf(a).sum())
            self.inf_b += int(np.isinf(b).sum())
            both = np.isfinite(a) & np.isfinite(b)
            a, b = a[both], b[both]
        if not a.size:
            return
        wide = np.complex128 if a.dtype.kind == "c" else np.float64
        with np.errstate(over="ignore"):
            before, difference = a.astype(wide), b.astype(wide) - a.astype(wide)
            self.finite += a.size
            self.largest = max(self.largest, float(np.abs(difference).max()))
            self.squares += float(np.square(np.abs(difference)).sum())
            self.squares_a += float(np.square(np.abs(before)).sum())

    @property
    def relative_norm(self) -> float | None:
        """|b - a| / |a|; inf from zeros, None without finite elements."""
        if not self.finite:
            return None
        if not self.squares_a:
            return float("inf") if self.squares else 0.0
        return float(np.sqrt(self.squares) / np.sqrt(self.squares_a))


def _figures(one: Leaf, other: Leaf, pairs: _Pairs) -> LeafDiff | None:
    sums, dtype = _Sums(), one.dtype
    for bytes_a, bytes_b in pairs:
        if np.array_equal(bytes_a, bytes_b):
            continue
        for a, b in zip(
            elements([bytes_a], dtype), elements([bytes_b], dtype), strict=True
        ):
            differ = _differ(a, b)
            if differ.any():
                sums.add(widened(a[differ]), widened(b[differ]))
    if not sums.changed:
        return None
    found = _unlike(one, other)
    count = int(np.prod(one.shape, dtype=object))
    return replace(
        found,
        changed_share=sums.changed / count,
        relative_norm=sums.relative_norm,
        max_difference=sums.largest if sums.finite else None,
        nan_a=sums.nan_a,
        nan_b=sums.nan_b,
        inf_a=sums.inf_a,
        inf_b=sums.inf_b,
    )


def _differ(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return where elements differ in their bits, NaN apart; bool[n]."""
    if a.dtype.itemsize in (1, 2, 4, 8):
        bits = np.dtype(f"u{a.dtype.itemsize}")
        found = a.view(bits) != b.view(bits)
    else:  # Complex numbers, and long doubles, which have bits without a meaning.
        found = a != b
    values_a, values_b = widened(a), widened(b)
    if values_a.dtype.kind in "fc":
        found &= ~(np.isnan(values_a) & np.isnan(values_b))
    return np.asarray(found)

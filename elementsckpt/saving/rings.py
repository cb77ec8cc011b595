"""Which blocks of a ring buffer have new rows since an earlier save."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from msgspec import Struct

from ..format.manifest import Block, LeafGroup
from ..kinds import leaves


class EarlierRing(Struct, frozen=True):
    """A ring buffer in an earlier save.

    Attributes:
      group: Its entry in the manifest.
      digests: Of its blocks.
      sizes: Of its blocks, in bytes.
    """

    group: LeafGroup
    digests: Sequence[str]
    sizes: Sequence[int]

    def rows(self, position: int) -> tuple[int, int]:
        """Return the first and the last row in a block, along the first axis."""
        row_bytes = sum(self.sizes) // self.group.shape[0]
        start = sum(self.sizes[:position])
        return start // row_bytes, (start + self.sizes[position] - 1) // row_bytes

    def unchanged(self, group: LeafGroup, sizes: Sequence[int]) -> list[int]:
        """Return which blocks have no new rows in a later save, by position.

        Args:
          group: The ring in the later save.
          sizes: Of its blocks there.
        """
        old, ring = self.group.ring, group.ring
        assert old is not None
        assert ring is not None
        (before, _), (now, axis) = old, ring
        form = self.group.kind, self.group.dtype, self.group.shape, self.group.value
        is_same = form == (group.kind, group.dtype, group.shape, group.value)
        count, capacity = now - before, group.shape[axis]
        if not is_same or old[1] != axis or self.sizes != sizes:
            return []
        if not 0 <= count < capacity:
            return []
        row_bytes = sum(sizes) // math.prod(group.shape[: axis + 1])
        found, start = [], 0
        for position, size in enumerate(sizes):
            if not _overlaps(
                (start // row_bytes) % capacity,
                -(-(start + size) // row_bytes) - start // row_bytes,
                before % capacity,
                count,
                capacity,
            ):
                found.append(position)
            start += size
        return found


def _overlaps(first: int, count: int, other: int, others: int, capacity: int) -> bool:
    """Return whether two ranges of positions in a ring have one in common."""
    if not count or not others:
        return False
    return (other - first) % capacity < count or (first - other) % capacity < others


def rings_of(
    groups: Sequence[LeafGroup], blocks: Sequence[Block], prefix: str
) -> Iterator[tuple[str, EarlierRing]]:
    """Yield the rings among leaves with their full names.

    Args:
      groups: The leaves.
      blocks: Those of their component.
      prefix: Start of their names in the component.
    """
    for group in groups:
        if group.ring is None or group.block < 0:
            continue
        if group.ring[1] < len(group.shape) and 0 not in group.shape:
            some = _blocks_of(group, blocks)
            digests = [block.digest for block in some]
            sizes = [block.content_size for block in some]
            yield prefix + group.names[0], EarlierRing(group, digests, sizes)


def _blocks_of(group: LeafGroup, blocks: Sequence[Block]) -> Sequence[Block]:
    """Return the blocks of a leaf, none if it shares one with others."""
    left = leaves.layout_of(group)[2]
    for end, block in enumerate(blocks[group.block :], group.block + 1):
        left -= block.content_size
        if left <= 0:
            return blocks[group.block : end] if left == 0 else []
    return []


def due(positions: Sequence[int], turn: int, every: int) -> list[int]:
    """Return which of the blocks without new rows are to be looked at.

    Args:
      positions: The blocks.
      turn: A number that grows by one from save to save.
      every: One in this many is looked at, but at least one.
    """
    found = [x for x in positions if x % every == turn % every]
    return found or [positions[turn % len(positions)]] if positions else []

"""Which blocks of a ring buffer have new rows since an earlier save."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from msgspec import Struct, structs

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
        """Return the first and the last row in a block; if it goes around, of all."""
        capacity, spans = self._capacity, self._spans()
        first, count = spans[position]
        last = first + count - 1
        return (first, last) if last < capacity else (0, capacity - 1)

    def unchanged(self, group: LeafGroup, sizes: Sequence[int]) -> list[int]:
        """Return which blocks have no new rows in a later save, by position.

        Args:
          group: The ring in the later save.
          sizes: Of its blocks there.
        """
        count = _ring(group)[0] - _ring(self.group)[0]
        is_same = _form(self.group) == _form(group) and self.sizes == sizes
        if not is_same or not 0 <= count < self._capacity:
            return []
        new = _ring(self.group)[0] % self._capacity, count
        return [
            position
            for position, span in enumerate(self._spans())
            if not _overlap(span, new, self._capacity)
        ]

    @property
    def _capacity(self) -> int:
        return self.group.shape[_ring(self.group)[1]]

    def _spans(self) -> list[tuple[int, int]]:
        """Return the first row in each block, and how many follow with it."""
        steps = math.prod(self.group.shape[: _ring(self.group)[1] + 1])
        step_bytes, start = sum(self.sizes) // steps, 0
        spans = []
        for size in self.sizes:
            first, end = start // step_bytes, -(-(start + size) // step_bytes)
            spans.append((first % self._capacity, end - first))
            start += size
        return spans


def _form(group: LeafGroup) -> LeafGroup:
    """Return a ring without the count of its rows and its place among the blocks."""
    return structs.replace(group, ring=(0, _ring(group)[1]), block=0)


def _ring(group: LeafGroup) -> tuple[int, int]:
    assert group.ring is not None
    return group.ring


def _overlap(one: tuple[int, int], other: tuple[int, int], capacity: int) -> bool:
    """Return whether two ranges, first position and size, have a position in common."""
    (first, count), (begin, size) = one, other
    if not count or not size:
        return False
    return (begin - first) % capacity < count or (first - begin) % capacity < size


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

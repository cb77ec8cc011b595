"""Which blocks of a ring buffer have new rows since an earlier save."""

from __future__ import annotations

import collections
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
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
        capacity = self._capacity
        first, count = (int(x[position]) for x in self._spans())
        last = first + count - 1
        return (first, last) if last < capacity else (0, capacity - 1)

    def unchanged(self, group: LeafGroup, sizes: Sequence[int]) -> list[int]:
        """Return which blocks have no new rows in a later save, by position.

        Args:
          group: The ring in the later save.
          sizes: Of its blocks there.
        """
        before, capacity = _ring(self.group)[0], self._capacity
        new = _ring(group)[0] - before
        is_same = _form(self.group) == _form(group) and self.sizes == sizes
        if not is_same or not 0 <= new < capacity:
            return []
        if not new:
            return list(range(len(sizes)))
        # Ranges around the ring overlap where one begins in the other.
        (first, count), begin = self._spans(), before % capacity
        is_new = (first - begin) % capacity < new
        is_new |= (begin - first) % capacity < count
        unchanged: list[int] = np.flatnonzero(~is_new).tolist()
        return unchanged

    @property
    def _capacity(self) -> int:
        return self.group.shape[_ring(self.group)[1]]

    def _spans(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the first row in each block, and how many follow with it."""
        steps = math.prod(self.group.shape[: _ring(self.group)[1] + 1])
        ends = np.cumsum(self.sizes, dtype=np.int64)
        step_bytes = int(ends[-1]) // steps
        first = (ends - self.sizes) // step_bytes
        return first % self._capacity, -(-ends // step_bytes) - first


def _form(group: LeafGroup) -> LeafGroup:
    """Return a ring without the count of its rows and its place among the blocks."""
    return structs.replace(group, ring=(0, _ring(group)[1]), block=0)


def _ring(group: LeafGroup) -> tuple[int, int]:
    assert group.ring is not None
    return group.ring


def named_once(groups: Sequence[LeafGroup]) -> set[str]:
    """Return the names of ring buffers that no other leaf of the same tree has.

    An earlier save has a ring buffer under its name, so of others nothing is known.
    """
    found = {group.names[0] for group in groups if group.ring is not None}
    if not found:
        return found
    names = itertools.chain.from_iterable(group.names for group in groups)
    counts = collections.Counter(names)
    return {name for name in found if counts[name] == 1}


def rings_of(
    groups: Sequence[LeafGroup], blocks: Sequence[Block], prefix: str
) -> Iterator[tuple[str, EarlierRing]]:
    """Yield the rings among leaves with their full names, if no other has that.

    Args:
      groups: The leaves of a tree.
      blocks: Those of their component.
      prefix: Start of their names in the component.
    """
    known = named_once(groups)
    for group in groups:
        if group.ring is None or group.block < 0 or group.names[0] not in known:
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

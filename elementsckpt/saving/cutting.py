"""Leaves → blocks: large leaves are cut, small ones gathered.

Where blocks begin follows from the leaves themselves, not from what comes before them.
So data that was saved before gives the same blocks again, wherever it has moved.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..format import dtypes
from ..format.manifest import LeafGroup, part_of
from ..format.sizes import Sizes
from ..kinds import leaves
from ..kinds.remote import Remote, Storage, in_memory
from .blocks import Block, Hold, Leaf
from .shared_block import SharedBlock


class Cutter:
    """Gives the leaves of a component their places in blocks.

    Args:
      stem: Name of a leaf that has none.
      sizes: How large blocks are.

    Attributes:
      open: The block of small leaves that may still grow, or None.
      count: How many blocks there are so far.
    """

    def __init__(self, stem: str, sizes: Sizes) -> None:
        self.open: SharedBlock | None = None
        self.count = 0
        self._stem = stem
        self._sizes = sizes

    def add(
        self,
        groups: Sequence[LeafGroup],
        storages: Sequence[Sequence[Storage]],
        owners: Sequence[Sequence[Any]],
        prefix: str,
    ) -> tuple[list[LeafGroup], list[Block], list[Leaf]]:
        """Give leaves their places; nothing is copied yet.

        Args:
          groups: Leaves of one form each; no padding is needed if those of larger
            alignment come first, as sizes are multiples of alignments.
          storages: Of each leaf of each group, its elements, whose C order is the order
            of the bytes, in memory or on a device; none where they have no bytes.
          owners: Of each leaf of each group, the immutable object whose content that
            is, or None; none where there are none.
          prefix: Start of the leaves' names in segments.

        Returns:
          The groups with their places, divided where their bytes are; the blocks that
          were begun; and the leaves that have blocks of their own.
        """
        placed: list[LeafGroup] = []
        blocks: list[Block] = []
        large: list[Leaf] = []
        for group, arrays, its_owners in zip(groups, storages, owners, strict=True):
            if not arrays or not arrays[0].nbytes:
                placed.append(group)
                continue
            names = group.names
            if prefix or "" in names:
                names = [prefix + name or self._stem for name in names]
            if arrays[0].nbytes < self._sizes.small:
                near: Any = arrays
                if Remote in {*map(type, arrays)}:
                    near = [in_memory(x) for x in arrays]
                placed += self._gather(group, names, near, blocks)
            else:
                made = list(self._large(group, names, arrays, its_owners))
                placed += self._cut(group, made, blocks)
                large += made
        return placed, blocks, large

    def _gather(
        self,
        group: LeafGroup,
        names: Sequence[str],
        storages: Sequence[np.ndarray],
        blocks: list[Block],
    ) -> Iterator[LeafGroup]:
        tag, is_stable = dtypes.tag(group.dtype), leaves.named(group).is_stable
        start = 0
        while start < len(storages):
            if self.open is None:
                self.open = SharedBlock(self.count, self._sizes)
                self.count += 1
                blocks.append(self.open)
            stop, is_end = self.open.room_for(storages, start)
            if stop > start:
                is_all = stop - start == len(storages)
                part = group if is_all else part_of(group, start, stop)
                part.block = self.open.number
                part.offset = self.open.add(
                    names[start:stop], tag, storages[start:stop], is_stable=is_stable
                )
                yield part
                start = stop
            if is_end:
                self.open = None

    def _large(
        self,
        group: LeafGroup,
        names: Sequence[str],
        storages: Sequence[Storage],
        owners: Sequence[Any],
    ) -> Iterator[Leaf]:
        tag, hold = dtypes.tag(group.dtype), Hold.LIVE
        kind = leaves.named(group)
        if kind.is_stable:
            hold = Hold.OWNED if kind.is_frozen else Hold.STABLE
        for index, (name, storage) in enumerate(zip(names, storages, strict=True)):
            yield Leaf(
                name,
                tag,
                storage,
                hold=hold,
                block_bytes=self._sizes.block,
                owner=owners[index] if owners else None,
            )

    def _cut(
        self, group: LeafGroup, large: Sequence[Leaf], blocks: list[Block]
    ) -> Iterator[LeafGroup]:
        for index, leaf in enumerate(large):
            is_only = len(large) == 1
            part = group if is_only else part_of(group, index, index + 1)
            part.block, part.offset = self.count, 0
            leaf.ring = None if part.ring is None else part
            made = leaf.cut(self.count)
            self.count += len(made)
            blocks += made
            yield part

    def close(self) -> None:
        """End the block of small leaves."""
        self.open = None

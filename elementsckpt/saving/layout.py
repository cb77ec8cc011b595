"""Blocks to be written → segments: which goes where, and what it is called there."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ..format.digests import digest
from ..format.header import ALIGN, Header, Naming, Tensors, round_up
from ..format.manifest import Segment
from .blocks import Block, LeafBlock, opaque_bytes
from .reuse import Moved

Item = Block | Moved


class Run(NamedTuple):
    """Blocks that lie together in a leaf, or one block.

    Attributes:
      items: The blocks.
      naming: What the tensors are called.
    """

    items: list[Item]
    naming: Naming


class Layout:
    """Where the blocks of a segment that holds leaves as they are lie in it.

    Args:
      runs: The blocks.

    Attributes:
      header: What comes before the data.
      offsets: Where each block begins in the file.
      size: Of the file, in bytes.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        header = Header(runs[0].naming.date)
        offsets: list[int] = []
        for run in runs:
            begin = round_up(header.end, ALIGN)
            position = begin
            for item in run.items:
                offsets.append(position)
                position += item.size
            header.add(*_tensors_of(run), begin)
        self.header = header.encode()
        self.offsets = [len(self.header) + offset for offset in offsets]
        self.size = len(self.header) + header.end

    def segment(self, name: str) -> Segment:
        """Return the entry of the manifest."""
        return Segment(name, self.size, len(self.header), digest(self.header))


def source(item: Item) -> Block:
    """Return the block of which leaves and names are known, be it moved or not."""
    return item.block if isinstance(item, Moved) else item


def _tensors_of(run: Run) -> tuple[Sequence[str], list[Tensors]]:
    """Return names and tensors of blocks that lie together in a leaf, or of one."""
    first, last = source(run.items[0]), source(run.items[-1])
    if not isinstance(first, LeafBlock) or not isinstance(last, LeafBlock):
        return run.naming.of_leaves(first.names), first.tensors
    leaf, rows = first.leaf, (first.start, last.stop)
    call = run.naming.of_leaves if leaf.is_all(*rows) else run.naming.of_others
    return call([leaf.name_of(*rows)]), [leaf.tensor(*rows)]


def frame(item: Item, size: int) -> tuple[list[str], list[Tensors]]:
    """Return name and tensor of a block that is stored as a zstd frame."""
    names = source(item).names
    name = names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]}"
    return [f"{name}.zst"], [opaque_bytes(size)]


def runs_of(items: Iterable[Item], naming: Naming) -> Iterator[Run]:
    """Put blocks that follow each other in a leaf together."""
    together: list[Item] = []
    for item in items:
        if together and not _follows(source(together[-1]), source(item)):
            yield Run(together, naming)
            together = []
        together.append(item)
    if together:
        yield Run(together, naming)


def _follows(one: Block, other: Block) -> bool:
    if not isinstance(one, LeafBlock) or not isinstance(other, LeafBlock):
        return False
    return one.leaf is other.leaf and other.number == one.number + 1


def _cut(run: Run, most_bytes: int) -> Iterator[Run]:
    """Cut blocks of a leaf that has others elsewhere, so that it cannot be mapped."""
    first, last = source(run.items[0]), source(run.items[-1])
    if (
        isinstance(first, LeafBlock)
        and isinstance(last, LeafBlock)
        and not first.leaf.is_all(first.start, last.stop)
    ):
        step = max(1, most_bytes // first.size)
        for start in range(0, len(run.items), step):
            yield Run(run.items[start : start + step], run.naming)
    else:
        yield run


def divide(
    runs: Iterable[Run], most_bytes: int, most_leaves: int
) -> Iterator[list[Run]]:
    """Divide runs of blocks among segments, never a whole leaf between two."""
    chosen: list[Run] = []
    size = count = 0
    for run in itertools.chain.from_iterable(_cut(x, most_bytes) for x in runs):
        run_size = sum(item.size for item in run.items)
        run_count = sum(source(item).leaf_count for item in run.items)
        is_full = size + run_size > most_bytes
        if chosen and (is_full or count + run_count > most_leaves):
            yield chosen
            chosen, size, count = [], 0, 0
        chosen.append(run)
        size += run_size
        count += run_count
    if chosen:
        yield chosen

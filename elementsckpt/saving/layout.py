"""Blocks to be written → segments: which goes where, and what it is called there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..format.digests import digest
from ..format.header import ALIGN, Header, Naming, Tensors, round_up
from ..format.manifest import Segment
from ..format.sizes import Sizes
from .blocks import Block, LeafBlock, opaque_bytes
from .reuse import Moved

Item = Block | Moved
# Blocks that lie together in a leaf.
Run = list[Item]


class Layout:
    """Where the blocks of a segment that holds leaves as they are lie in it.

    Args:
      runs: The blocks.
      naming: What the tensors are called.

    Attributes:
      header: What comes before the data.
      offsets: Where each block begins in the file.
      size: Of the file, in bytes.
    """

    def __init__(self, runs: Sequence[Run], naming: Naming) -> None:
        header = Header(naming.date)
        offsets: list[int] = []
        for run in runs:
            begin = round_up(header.end, ALIGN)
            position = begin
            for item in run:
                offsets.append(position)
                position += item.size
            header.add(*_tensors_of(run, naming), begin)
        self.header = header.encode()
        self.offsets = [len(self.header) + offset for offset in offsets]
        self.size = len(self.header) + header.end

    def segment(self, name: str) -> Segment:
        """Return the entry of the manifest."""
        return Segment(name, self.size, len(self.header), digest(self.header))


def source(item: Item) -> Block:
    """Return the block of which leaves and names are known, be it moved or not."""
    return item.block if isinstance(item, Moved) else item


def _tensors_of(run: Run, naming: Naming) -> tuple[Sequence[str], list[Tensors]]:
    """Return names and tensors of blocks that lie together in a leaf, or of one."""
    first, last = source(run[0]), source(run[-1])
    if not isinstance(first, LeafBlock) or not isinstance(last, LeafBlock):
        return naming.of_leaves(first.names), first.tensors
    leaf, rows = first.leaf, (first.start, last.stop)
    call = naming.of_leaves if leaf.is_all(*rows) else naming.of_others
    return call([leaf.name_of(*rows)]), [leaf.tensor(*rows)]


def frame(item: Item, size: int) -> tuple[list[str], list[Tensors]]:
    """Return name and tensor of a block that is stored as a zstd frame."""
    names = source(item).names
    name = names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]}"
    return [f"{name}.zst"], [opaque_bytes(size)]


def runs_of(items: Iterable[Item]) -> Iterator[Run]:
    """Put blocks that follow each other in a leaf together."""
    run: Run = []
    for item in items:
        if run and not _follows(source(run[-1]), source(item)):
            yield run
            run = []
        run.append(item)
    if run:
        yield run


def _follows(one: Block, other: Block) -> bool:
    if not isinstance(one, LeafBlock) or not isinstance(other, LeafBlock):
        return False
    return one.leaf is other.leaf and other.number == one.number + 1


def divide(runs: Iterable[Run], sizes: Sizes) -> Iterator[list[Run]]:
    """Divide runs of blocks among segments, never a run between two."""
    chosen: list[Run] = []
    size = count = 0
    for run in runs:
        run_size = sum(item.size for item in run)
        run_count = sum(source(item).leaf_count for item in run)
        is_full = size + run_size > sizes.segment
        if chosen and (is_full or count + run_count > sizes.segment_leaves):
            yield chosen
            chosen, size, count = [], 0, 0
        chosen.append(run)
        size += run_size
        count += run_count
    if chosen:
        yield chosen

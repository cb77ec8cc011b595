"""How states are divided into blocks and segments."""

from __future__ import annotations

from msgspec import Struct

from .manifest import MAX_BLOCK_BYTES


class Sizes(Struct, frozen=True):
    """Sizes in bytes, one value for a whole save; a reader accepts any sizes.

    Attributes:
      block: Size of the blocks of a large leaf. A block stays in a core's cache from
        copying to writing.
      small: Leaves smaller than this share blocks.
      shared_least: A shared block from this size on ends where a leaf's hash says so.
      shared_more: Average size of a shared block beyond `shared_least`. If `block` is
        less than both together, most blocks end where they are full.
      leaf_least: Least size that a leaf counts for in a shared block.
      segment: A segment ends before this size, unless a leaf that is written as a
        whole is larger.
      segment_leaves: Most leaves of a segment; other tools refuse headers of more than
        100 MB.
      segment_least: Components of which fewer bytes are new share segments, which end
        before this size.
      segments: If a component uses more segments of earlier saves, the smallest of them
        are gathered, at most the average size of so many in each save.
      arena: Memory for copies is allocated in pieces of this size.
      shards: Most bytes that a save may copy of the shards of a generator.

    Raises:
      ValueError: these do not go together.
    """

    block: int = 1 << 20
    small: int = 64 << 10
    shared_least: int = 512 << 10
    shared_more: int = 256 << 10
    leaf_least: int = 128
    segment: int = 64 << 20
    segment_leaves: int = 100_000
    segment_least: int = 4 << 20
    segments: int = 76
    arena: int = 16 << 20
    shards: int = 48 << 20

    def __post_init__(self) -> None:
        if not self.small <= self.block <= min(self.arena, MAX_BLOCK_BYTES):
            raise ValueError("a block holds each small leaf, and fits into an arena")


DEFAULT = Sizes()

"""How states are divided into blocks and segments."""

from __future__ import annotations

from msgspec import Struct


class Sizes(Struct, frozen=True):
    """Sizes in bytes, one value for a whole save; readers take any.

    Attributes:
      block: Blocks of large leaves: what stays in a core's cache from copying to
        writing.
      small: Leaves below share blocks,
      shared_least: that from this size on end where a leaf's hash says so,
      shared_more: on average after as many more,
      leaf_least: where each leaf counts as many at least.
      segment: Segments end before this size, unless a leaf is larger.
      segment_leaves: How many leaves a segment has at most; other tools refuse headers
        of more than 100 MB.
      segment_least: Segments of which less is live are written anew where there are
      segments: more segments than this that an earlier save wrote.
      arena: Memory for copies is taken in pieces of this size.
      shards: What any save may copy of the shards of a generator.
    """

    block: int = 1 << 20
    small: int = 64 << 10
    shared_least: int = 512 << 10
    shared_more: int = 256 << 10
    leaf_least: int = 128
    segment: int = 64 << 20
    segment_leaves: int = 100_000
    segment_least: int = 4 << 20
    segments: int = 64
    arena: int = 16 << 20
    shards: int = 48 << 20


DEFAULT = Sizes()

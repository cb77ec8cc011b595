"""Lists the leaves of a save by its manifest."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import damage
from ..reports.leaves import LeafInfo, LeafList
from ..user.arguments import AnyPath
from .contents import Contents, Leaf, newest


def leaves(
    path: AnyPath, keys: Iterable[str] | None = None, regex: str | None = None
) -> LeafList:
    """Return the leaves of a save, in the order of its manifest; no array is read.

    Leaves inside pickled objects are leaves, too. A leaf in several places is listed
    once, by its first name.

    Args:
      path: A save or its address, or a directory, for its newest save.
      keys: Components; all by default.
      regex: Lists only leaves whose names it matches from their start; where it
        matches none, those whose full names it matches.

    Raises:
      SaveNotFoundError: there is no save.
      MissingKeyError: the save lacks a component.
      MismatchError: the pattern matches nothing; the message has the nearest names.
      DamagedError: the manifest is not valid.
      ValueError: `keys` is text.
    """
    contents = Contents(newest(path), keys)
    with damage(contents.where):
        return LeafList(describe(contents, x) for x in contents.leaves(regex))


def describe(contents: Contents, leaf: Leaf) -> LeafInfo:
    """Return the description of a leaf."""
    ranges = contents.blocks(leaf)
    blocks = [contents.components[leaf.key].blocks[number] for number, *_ in ranges]
    is_alone = all(
        end - begin == block.content_size
        for (_, begin, end), block in zip(ranges, blocks, strict=True)
    )
    size_bytes = leaf.size_bytes
    stored_bytes = size_bytes if leaf.file is not None else 0
    if blocks:
        stored_bytes = sum(x.size for x in blocks) if is_alone else size_bytes
    dtype = leaf.dtype
    return LeafInfo(
        key=leaf.key,
        name=leaf.name,
        full_name=leaf.full_name,
        shard=leaf.shard,
        kind=leaf.kind,
        dtype=None if dtype is None else str(dtype),
        shape=leaf.shape,
        size_bytes=size_bytes,
        stored_bytes=stored_bytes,
        is_compressed=any(block.unpacked for block in blocks),
        is_pickled=leaf.kind == "pickle",
    )

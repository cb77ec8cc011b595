"""Reads the elements of leaves, a piece at a time where they lie in blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import MismatchError, damage
from ..kinds.references import Resolver
from ..loading.component import SavedComponent
from ..loading.decoding import Decoder
from ..loading.loaded import Notes
from ..loading.request import Request
from ..loading.verbs import READ
from ..reports.leaves import LeafInfo
from ..storage.reader import Reader
from ..system.phases import Phases
from ..user.arguments import AnyPath
from .contents import Blocks, Contents, Leaf, elements, newest
from .listed import describe


def pieces(contents: Contents, leaf: Leaf, blocks: Blocks) -> Iterator[np.ndarray]:
    """Yield the elements of an array in pieces, in the order of memory.

    Raises:
      DamagedError: it is damaged; the message has the leaves.
    """
    if leaf.kind == "view":
        yield array(contents, leaf).reshape(-1)
        return
    ranges = contents.blocks(leaf)
    yield from elements(blocks.chunks(ranges), leaf.dtype)


def array(contents: Contents, leaf: Leaf) -> Any:
    """Return a leaf as NumPy array, or as the scalar, text or bytes that it is.

    Raises:
      DamagedError: it is damaged.
      PickleError: it is pickled.
    """
    entry = contents.components[leaf.key]
    notes = Notes(Phases())
    request = Request(READ, allow_pickle=False, plain=True)
    reader = Reader(contents.found.source, entry, lambda number: leaf.full_name)
    decoder = Decoder(
        entry, leaf.key, contents.where, reader, Resolver(imports=False), request, notes
    )
    assert leaf.tree is not None
    try:
        return decoder.some(leaf.tree, [leaf.number])[leaf.number]
    finally:
        SavedComponent(decoder).close()


def read_leaf(path: AnyPath, name: str) -> tuple[LeafInfo, Any]:
    """Return a leaf by its full name: its description, and its value.

    Returns:
      An array as NumPy array, a scalar, text or bytes as Python has it; of a function
      its import path, of a file its path.

    Raises:
      SaveNotFoundError: there is no save.
      MismatchError: it has no such leaf; the message has the nearest names.
      PickleError: the leaf is pickled.
      DamagedError: the leaf is damaged.
    """
    contents = Contents(newest(path))
    found = next((x for x in contents.leaves() if x.full_name == name), None)
    if found is None:
        contents.leaves(f"{re.escape(name)}$")  # Says which names are near.
        raise MismatchError(
            f"{contents.found.path} has no leaf of the name {name!r}. Pass a full "
            f"name, which begins with the key of its component."
        )
    with damage(contents.where):
        info = describe(contents, found)
        if found.file is not None:
            files = contents.components[found.key].files
            assert files is not None
            return info, str(contents.found.path / files.folder / found.name)
        return info, array(contents, found)

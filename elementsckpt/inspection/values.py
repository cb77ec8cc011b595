"""Reads the elements of leaves, a piece at a time where they lie in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..kinds.references import Resolver
from ..loading.component import SavedComponent
from ..loading.decoding import Decoder
from ..loading.loaded import Notes
from ..loading.request import Request
from ..loading.verbs import READ
from ..storage.reader import Reader
from ..system.phases import Phases
from .contents import Blocks, Contents, Leaf, elements


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

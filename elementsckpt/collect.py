"""Calls the components' `save()` and writes what they return.

The counterpart of `stored`: there a component's state comes out of a save.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from . import scalars, tree
from .errors import add_note
from .manifest import Component, Tree, encode_tree
from .writer import Writer

_STEM_LENGTH = 80  # File names may have 255 bytes.


def collect(
    savefns: Mapping[str, Callable[[], Any]],
    folder: Path | None,
    *,
    sequence: int,
    fsync: bool,
) -> Iterator[tuple[Component, list[str]]]:
    """Call each function and write what it returns, one after the other.

    Args:
      savefns: What returns the state of a component, by key.
      folder: The save folder, or None to do everything but write.
      sequence: Number of the save.
      fsync: Whether to make the segments durable.

    Yields:
      The manifest entry of each component, whose segments are written, and the names
      of its leaves that only pickle holds.

    Raises:
      StateError: a state cannot be saved.
      WriteError: the disk refused.
    """
    stems = _stems(list(savefns))
    for key, savefn in savefns.items():
        writer = None
        if folder is not None:
            writer = Writer(folder, stems[key], sequence=sequence, fsync=fsync)
        collecting = _Collecting(key, writer)
        yield collecting.run(savefn), collecting.pickled


class _Collecting:
    """Writes one component."""

    def __init__(self, key: str, writer: Writer | None) -> None:
        self._key = key
        self._writer = writer
        self._leaf_count = 0
        self.pickled: list[str] = []
        self._size_bytes = 0

    def run(self, savefn: Callable[[], Any]) -> Component:
        state = self._call(savefn)
        shards = None
        if inspect.isgenerator(state):
            trees = list(self._shards(state))
            shards = len(trees)
        else:
            trees = [encode_tree(self._add(state, ""))]
            del state
        if self._writer is not None:
            self._writer.flush()
        return Component(
            key=scalars.encode(self._key),
            shards=shards,
            leaf_count=self._leaf_count,
            size_bytes=self._size_bytes,
            segments=[] if self._writer is None else self._writer.segments,
            blocks=[] if self._writer is None else self._writer.blocks,
            trees=trees,
        )

    def _call(self, function: Callable[[], Any]) -> Any:
        """Call the component's code; its errors get a note that names the key."""
        try:
            return function()
        except StopIteration:
            raise
        except Exception as error:
            add_note(error, f"Raised while saving the component {self._key!r}.")
            raise

    def _shards(self, generator: Any) -> Iterator[Any]:
        """Store shard by shard; the generator may reuse its arrays after each."""
        index = 0
        while True:
            try:
                shard = self._call(generator.__next__)
            except StopIteration:
                return
            yield encode_tree(self._add(shard, f"{index}/"))
            del shard
            index += 1
            if self._writer is None:
                continue
            if self._writer.is_full:
                self._writer.flush()
            else:
                self._writer.own()

    def _add(self, state: Any, prefix: str) -> Tree:
        flat = tree.flatten(state, self._key)
        saved, storages = tree.encode(flat, self._key)
        for group, arrays in zip(saved.leaves, storages, strict=True):
            self._leaf_count += len(group.names)
            if arrays:
                self._size_bytes += len(arrays) * arrays[0].nbytes
            if group.kind == "pickle":
                names = [prefix + name for name in group.names]
                self.pickled += [tree.full_name(self._key, name) for name in names]
        if self._writer is not None:
            saved.leaves = self._writer.add(saved.leaves, storages, prefix)
        return saved


def _stems(keys: list[str]) -> dict[str, str]:
    """Return a start of file names for each key, safe and different in any case."""
    stems: dict[str, str] = {}
    taken: set[str] = set()
    for number, key in enumerate(keys):
        # What quote leaves as it is, without the dot: no hidden files, no "..".
        safe = quote(key, safe="", errors="surrogatepass").replace(".", "%2E")
        stem = re.sub(r"%[0-9A-F]?$", "", safe[:_STEM_LENGTH]) or "component"
        if stem.casefold() in taken or stem != safe:
            stem = f"{stem}~{number}"
        taken.add(stem.casefold())
        stems[key] = stem
    return stems

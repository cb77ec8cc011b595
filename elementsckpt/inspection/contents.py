"""The leaves of a save by name, and the bytes of each; no object is built.

Leaves inside pickles, and memory that only views have, are leaves like others here.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from msgspec import Struct

from ..directory import choice, lookup
from ..directory.entries import SaveEntry
from ..errors import DamagedError, MismatchError, MissingKeyError, damage
from ..format import codec, dtypes, names, scalars
from ..format.manifest import Block, Component, File, LeafGroup, Tree
from ..kinds import leaves
from ..kinds.kind import dtype_of
from ..loading.component import names_in_block
from ..loading.request import require_pattern
from ..state.saved_tree import full_name
from ..storage.pool import Opened
from ..storage.reader import read_block
from ..storage.store import Source
from ..system.progress import SILENT, Meter
from ..user import arguments, hints
from ..user.arguments import AnyPath, local, shown

_NEAREST = 5


class Leaf(Struct, frozen=True):
    """A leaf, or a file of a component that writes files itself.

    Attributes:
      key: Key of the component.
      shard: Number of the shard, or None.
      name: Name in its component or shard.
      number: Its number in the tree.
      tree: The tree that it is in; None for a file.
      group: Its entry in the manifest, a group of one; None for a file.
      file: The entry of a file, or None.
    """

    key: str
    shard: int | None
    name: str
    number: int = 0
    tree: Tree | None = None
    group: LeafGroup | None = None
    file: File | None = None

    @property
    def full_name(self) -> str:
        """Its name with the key, and the number of its shard."""
        if self.shard is None:
            return full_name(self.key, self.name)
        return full_name(f"{self.key}/{self.shard}", self.name)

    @property
    def kind(self) -> str:
        """Name of its kind."""
        return "file" if self.group is None else self.group.kind

    @property
    def is_array(self) -> bool:
        """Whether it has elements, a dtype and a shape."""
        return self.group is not None and leaves.named(self.group).is_array

    @property
    def dtype(self) -> Any:
        """Its dtype, or the name of one that NumPy lacks; None if it is no array."""
        if self.group is None or not self.is_array:
            return None
        return dtype_of(self.group.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape; () if it is no array."""
        return self.group.shape if self.group is not None and self.is_array else ()

    @property
    def size_bytes(self) -> int:
        """Its size in memory, or of the file; 0 if the manifest holds its value."""
        if self.group is None:
            return self.file.size if self.file is not None else 0
        if self.group.kind == "view":
            itemsize: int = dtypes.decode(self.group.dtype).itemsize
            return itemsize * math.prod(self.group.shape)
        return leaves.layout_of(self.group)[2]

    @property
    def value(self) -> Any:
        """The scalar of Python that it is; None for anything else."""
        if self.group is None or self.group.kind != "python":
            return None
        return scalars.decode_all(self.group.value)[0]


class Contents:
    """The components and leaves of one save.

    Args:
      found: The save.
      keys: Keys of components; all by default.

    Attributes:
      found: The save.
      components: Entries in the manifest, by key.

    Raises:
      DamagedError, VersionError: its manifest is not valid.
      MissingKeyError: it lacks a component.
      ValueError: `keys` is not a list of keys.
    """

    def __init__(self, found: SaveEntry, keys: Iterable[str] | None = None) -> None:
        if found.error is not None:
            raise found.error
        self.found = found
        self.where = str(found.path / names.MANIFEST)
        if found.head is None:
            raise DamagedError(
                f"{found.path} was written by elements, and its leaves are in pickles. "
                f"Load it with Checkpoint, and save it again."
            )
        entries = codec.decode(found.source.manifest(), self.where).components
        with damage(self.where):
            all_keys = scalars.decode_keys(entry.key for entry in entries)
        self.components = dict(zip(all_keys, entries, strict=True))
        if keys is not None:
            wanted = arguments.keys(keys)
            missing = [key for key in wanted if key not in self.components]
            if missing:
                raise MissingKeyError(
                    f"{found.path} has no {', '.join(map(shown, missing))}. It has "
                    f"{hints.listed(all_keys, 'no components')}: choose from these."
                )
            self.components = {key: self.components[key] for key in wanted}

    def leaves(self, regex: str | None = None) -> list[Leaf]:
        """Return the leaves, in the order of the manifest.

        Args:
          regex: Matches names of leaves from their start, or where it matches none,
            full names.

        Raises:
          DamagedError: the manifest is not valid.
          MismatchError: the pattern is not valid, or matches nothing.
        """
        with damage(self.where):
            found = [x for key in self.components for x in self.of(key)]
        if regex is None:
            return found
        require_pattern(regex)
        chosen = [leaf for leaf in found if re.match(regex, leaf.name)]
        chosen = chosen or [leaf for leaf in found if re.match(regex, leaf.full_name)]
        if not chosen:
            near = hints.nearest(regex, [leaf.full_name for leaf in found], _NEAREST)
            raise MismatchError(
                f"regex={regex!r} matches no leaf of {self.found.path}. Choose one of "
                f"the nearest names: {hints.listed(near, 'none, as it has no leaves')}."
            )
        return chosen

    def of(self, key: str) -> Iterator[Leaf]:
        """Yield the leaves of a component."""
        entry = self.components[key]
        if entry.files is not None:
            for file in entry.files.files:
                yield Leaf(key, None, file.path, file=file)
            return
        for index in range(len(entry.trees)):
            tree = entry.tree(index)
            shard = None if entry.shards is None else index
            numbers = itertools.count()
            for group in tree.leaves:
                for place, name in enumerate(group.names):
                    one = leaves.part(group, place, place + 1)
                    yield Leaf(key, shard, name, next(numbers), tree, one)

    def blocks(self, leaf: Leaf) -> list[tuple[int, int, int]]:
        """Return where the bytes of a leaf are: numbers of blocks, and ranges in each.

        Returns:
          For each block its number, and where in its content the leaf begins and ends.

        Raises:
          IndexError: there are no such blocks.
        """
        group = leaf.group
        left = 0 if group is None or group.kind == "view" else leaf.size_bytes
        if group is None or not left:
            return []
        found, number, begin = [], group.block, group.offset
        every = self.components[leaf.key].blocks
        while left:
            if number < 0:
                raise IndexError("a leaf has no block")
            end = min(begin + left, every[number].content_size)
            found.append((number, begin, end))
            left -= end - begin
            number, begin = number + 1, 0
        return found


class Blocks:
    """Reads blocks of one component, one at a time.

    Args:
      contents: The save.
      key: Key of the component.
      meter: Counts the bytes of leaves.

    Attributes:
      bytes_read: How many bytes of files were read.
    """

    def __init__(self, contents: Contents, key: str, meter: Meter = SILENT) -> None:
        self._meter = meter
        self._source: Source = contents.found.source
        self._key = key
        self._entry: Component = contents.components[key]
        self._files = Opened()
        self._last: tuple[int, np.ndarray] = -1, np.empty(0, np.uint8)
        self.bytes_read = 0

    def content(self, number: int) -> np.ndarray:
        """Return the content of a block, uint8[n], verified.

        Raises:
          DamagedError: it is not what was written; the message has leaves.
        """
        if self._last[0] == number:
            return self._last[1]
        block = self.block(number)
        memory = np.empty(block.content_size, np.uint8)
        try:
            file = self._files.get(block.segment, self._open)
            read_block(file, block, memory)
        except DamagedError as error:
            holds = names_in_block(self._entry, self._key, number)
            raise DamagedError(
                f"{error} It holds {holds}. Restore the save from a copy, or choose "
                f"another."
            ) from error
        self.bytes_read += block.size
        self._last = number, memory
        return memory

    def block(self, number: int) -> Block:
        """Return the entry of a block."""
        return self._entry.blocks[number]

    def _open(self, segment: int) -> Any:
        return self._source.open(self._entry.segments[segment])

    def close(self) -> None:
        """Close the files."""
        self._files.close()

    def chunks(self, ranges: Sequence[tuple[int, int, int]]) -> Iterator[np.ndarray]:
        """Yield the bytes of a leaf, uint8[n], block by block."""
        for number, begin, end in ranges:
            yield self.content(number)[begin:end]
            self._meter.add(end - begin)


def elements(
    chunks: Iterable[np.ndarray], dtype: np.dtype[Any]
) -> Iterator[np.ndarray]:
    """Yield elements, dtype[n], from chunks of their bytes, which may split some."""
    rest = np.empty(0, np.uint8)
    for chunk in chunks:
        data = np.concatenate([rest, chunk]) if rest.size else chunk
        whole = data.size - data.size % dtype.itemsize
        rest = data[whole:]
        if whole:
            yield data[:whole].view(dtype)


def newest(path: AnyPath) -> SaveEntry:
    """Return the save at a path or address, or the newest of a directory.

    Raises:
      SaveNotFoundError: there is no save.
      DamagedError, VersionError, ReadError: its manifest cannot be read.
    """
    return choice.newest(lookup.find(local(path)))

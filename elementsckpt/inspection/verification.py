"""Verifies saves: reads every byte once, and says what is damaged."""

from __future__ import annotations

import functools
import time
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ..directory import lookup
from ..directory.entries import SaveEntry
from ..errors import CheckpointError, DamagedError, VersionError, damage
from ..format import names
from ..format.manifest import Block, Component, File, Segment
from ..reports.checks import Problem, SaveCheck, VerifyReport
from ..state import saved_tree
from ..storage import component_files, files
from ..storage.reader import read_block
from ..storage.store import OpenSegment
from ..system.progress import Meter
from ..user import arguments
from ..user.arguments import AnyPath, local
from .contents import Contents


def verify(path: AnyPath, *, keys: Iterable[str] | None = None) -> VerifyReport:
    """Verify a save, or all saves of a directory; this takes at most 64 MB of memory.

    Bytes that several saves link to are read once. A save that elements wrote has no
    digests, so nothing of it is verified.

    Args:
      path: A save or its address, or a directory.
      keys: Components to verify; all by default.

    Returns:
      What is damaged: file, range of bytes and leaves. Damage is not an error.

    Raises:
      SaveNotFoundError: there is no save.
      MissingKeyError: a save lacks a component.
      ReadError: the system refused to read.
      ValueError: `keys` is text.
    """
    start, place = time.monotonic(), local(path)
    wanted = None if keys is None else arguments.keys(keys)
    found = lookup.find(place)[::-1]
    with Meter("verify") as meter:
        if meter.is_on:
            meter.begin(_stored_bytes(found))
        work = _Work(meter)
        saves = [work.check(save, wanted) for save in found]
    good = [save.path for save in saves if save.is_good]
    return VerifyReport(
        path=place,
        saves=tuple(saves),
        is_good=len(good) == len(saves),
        newest_good=good[-1] if good else None,
        bytes_read=work.bytes_read,
        seconds=time.monotonic() - start,
    )


class _Work:
    """Verifies saves one after another, and remembers what it has read.

    Args:
      meter: Counts what is read.

    Attributes:
      bytes_read: How many bytes were read.
    """

    def __init__(self, meter: Meter) -> None:
        self.bytes_read = 0
        self._meter = meter
        # What is wrong with what was read, by file and range; "" if nothing is.
        self._known: dict[Hashable, str] = {}

    def check(self, found: SaveEntry, keys: list[str] | None) -> SaveCheck:
        """Verify one save."""
        problems: list[Problem] = []
        try:
            if found.head is not None or found.error is not None:
                contents = Contents(found, keys)
                for key in contents.components:
                    problems += self._component(contents, key)
        except (DamagedError, VersionError) as error:
            size_bytes = _size_of(found.path / names.MANIFEST)
            problems = [Problem(names.MANIFEST, 0, size_bytes, (), str(error))]
        return SaveCheck(
            path=found.path,
            step=found.step,
            sequence=None if found.head is None else found.head.sequence,
            is_good=not problems,
            problems=tuple(problems),
        )

    def _component(self, contents: Contents, key: str) -> Iterator[Problem]:
        component = contents.components[key]
        with damage(contents.where):
            blocks: list[list[int]] = [[] for _ in component.segments]
            for number, block in enumerate(component.blocks):
                blocks[block.segment].append(number)
            holders = _Holders(contents, key)
        for segment, numbers in zip(component.segments, blocks, strict=True):
            yield from self._segment(contents, component, segment, numbers, holders)
        if component.files is not None:
            for file in component.files.files:
                yield from self._file(contents, component.files.folder, file, key)

    def _segment(
        self,
        contents: Contents,
        component: Component,
        segment: Segment,
        numbers: Sequence[int],
        holders: _Holders,
    ) -> Iterator[Problem]:
        source = contents.found.source
        try:
            opened = source.open(segment)
        except DamagedError as error:
            is_missing = source.lacks(segment)
            size = segment.size if is_missing else segment.start
            yield Problem(segment.file, 0, size, holders.of(numbers), str(error))
            return
        with opened:
            self.bytes_read += segment.start
            for number in sorted(numbers, key=lambda x: component.blocks[x].offset):
                block = component.blocks[number]
                reason = self._block(opened, block)
                if reason:
                    leaves = holders.of([number])
                    yield Problem(
                        segment.file, block.offset, block.size, leaves, reason
                    )

    def _block(self, file: OpenSegment, block: Block) -> str:
        """Return what is wrong with a block, or ""."""
        place = file.signature, block.offset, block.size, block.digest, block.unpacked
        known = self._known.get(place)
        if known is None:
            try:
                memory = np.empty(block.content_size, np.uint8)
                read_block(file, block, memory)
                known = ""
            except DamagedError as error:
                known = str(error)
            self.bytes_read += block.size
            self._meter.add(block.size)
            self._known[place] = known
        return known

    def _file(
        self, contents: Contents, folder: str, entry: File, key: str
    ) -> Iterator[Problem]:
        name = f"{folder}/{entry.path}"
        path = contents.found.path / name
        try:
            with files.File(path) as file:
                place = file.signature, entry.digest
                if self._known.get(place) is None:
                    component_files.check(file, entry, meter=self._meter)
                    self.bytes_read += entry.size
                self._known[place] = ""
        except DamagedError as error:
            leaves = (saved_tree.full_name(key, entry.path),)
            yield Problem(name, 0, entry.size, leaves, str(error))


class _Holders:
    """The leaves in each block of a component, found when they are asked for."""

    def __init__(self, contents: Contents, key: str) -> None:
        self._contents = contents
        self._key = key

    @functools.cached_property
    def _by_block(self) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        with damage(self._contents.where):
            for leaf in self._contents.of(self._key):
                for number, *_ in self._contents.blocks(leaf):
                    found.setdefault(number, []).append(leaf.full_name)
        return found

    def of(self, numbers: Iterable[int]) -> tuple[str, ...]:
        """Return the full names of the leaves in these blocks."""
        names = (name for x in numbers for name in self._by_block.get(x, ()))
        return tuple(dict.fromkeys(names))


def _stored_bytes(saves: Iterable[SaveEntry]) -> int:
    """Return the size of the files of saves, oldest first, each file once.

    Of a save that follows the one before, the head says how much it wrote. Of others,
    files count that were written since: their names say by which save.
    """
    total, before = 0, -1
    for save in saves:
        head = save.head
        follows = head is not None and 0 <= before == head.sequence - 1
        if head is not None and follows and head.bytes_written is not None:
            total += head.bytes_written
        else:
            files = save.source.stored_files()
            written = [(names.sequence_of(x.name), x.size_bytes) for x in files]
            total += sum(size for n, size in written if n is None or n > before)
        before = before if head is None else head.sequence
    return total


def _size_of(path: Path) -> int:
    try:
        return files.status(path).st_size
    except CheckpointError:
        return 0

"""A save as a directory lists it: the head of its manifest, or why it is damaged."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct

from ..errors import CheckpointError, DamagedError, reason
from ..format import codec, manifest, names, scalars
from ..format.manifest import Head
from ..storage.store import Source, Start
from . import records

# How much of a manifest is read until its head is whole. Most heads have some 1 KiB.
_HEAD_BYTES = 8 << 10, 256 << 10
_NOTHING = Start(bytearray(), 0, None)


class SaveEntry(Struct, frozen=True):
    """A save found in a directory.

    Attributes:
      source: Reads it.
      head: The head of its manifest; None if elements wrote it or it is damaged.
      error: Why it is damaged, or None.
      sequence: Its number; 0 if elements wrote it. For a damaged save it is a guess,
        and can end in one half, between two others.
      is_link: Whether its name is a link to a save elsewhere.
      is_ours: Whether this library wrote it; a guess if it is damaged.
      signature: That of its manifest, or None if it could not be read.
      is_verified: Whether all of the manifest was verified, not its head alone.
      manifest_bytes: Size of its manifest; 0 if it is not known.
      segments: Names of its segments, if it was written by this object and has no other
        files; else None.
    """

    source: Source
    head: Head | None = None
    error: CheckpointError | None = None
    sequence: float = 0
    is_link: bool = False
    is_ours: bool = True
    signature: Hashable | None = None
    is_verified: bool = False
    manifest_bytes: int = 0
    segments: tuple[str, ...] | None = None

    @property
    def path(self) -> Path:
        """Path of the save, as users know it."""
        return self.source.path

    @property
    def step(self) -> int | None:
        """Step of the run, or None; a save of elements has it in its name."""
        return names.step_of(self.path.name) if self.head is None else self.head.step

    @property
    def is_original(self) -> bool:
        """Whether it was written here, under this name, as one of a sequence."""
        if self.head is None or self.head.explicit or self.is_link:
            return False
        return manifest.escape(self.path.name) == self.head.name

    @property
    def is_removable(self) -> bool:
        """Whether it was written here; a guess from its name if it is damaged."""
        is_damaged = self.error is not None and not self.is_link
        return self.is_original or (is_damaged and names.is_save(self.path.name))

    def has_changed(self) -> bool:
        """Return whether its manifest is another one now, or gone."""
        return self.source.signature() != self.signature

    def is_whole(self) -> bool:
        """Return whether its manifest is good beyond its head, too.

        Raises:
          ReadError: the system refused.
        """
        if self.head is None or self.is_verified:
            return self.error is None
        try:
            codec.verify(self.source.manifest(), str(self.path / names.MANIFEST))
        except DamagedError:
            return False
        return True

    def written_bytes(self) -> int:
        """Return the size of the files that it wrote."""
        head = self.head
        if head is not None and head.bytes_written is not None:
            return head.bytes_written + self.manifest_bytes
        # An earlier version does not say, nor do elements: the names of files do.
        sequence = 0 if head is None else head.sequence
        found = ((names.sequence_of(x.name), x) for x in self.source.stored_files())
        return sum(x.size_bytes for n, x in found if n is None or n >= sequence)

    @property
    def rank(self) -> tuple[Any, ...]:
        """Sorts oldest first; a copy comes before its original."""
        explicit = self.head is not None and self.head.explicit
        group = 0 if not self.sequence else 1 if explicit else 2
        return group, self.sequence, self.is_original, self.path.name


def read_entry(source: Source) -> SaveEntry | None:
    """Return a save, of which the head is read; None if it has no manifest."""
    found = _read_entry(source)
    error = None if found is None else found.error
    if error is not None and isinstance(error.__cause__, FileNotFoundError):
        found = _read_entry(source)  # It was committed just after the first look.
    return found


def _read_entry(source: Source) -> SaveEntry | None:
    where, is_link = f"{source.path}/{names.MANIFEST}", source.is_link
    start, head = _NOTHING, None
    try:
        for start in _starts(source):
            head = codec.decode_head(start.content, start.size, where)
            if head is not None:
                break
        assert head is not None  # The last start is the whole manifest.
        _check(head, where)
    except CheckpointError as error:
        if source.has_no_manifest():
            return None
        return _damaged(source, error, start, is_link=is_link)
    return SaveEntry(
        source,
        head,
        sequence=head.sequence,
        is_link=is_link,
        signature=start.signature,
        is_verified=len(start.content) == start.size,
        manifest_bytes=start.size,
    )


def _starts(source: Source) -> Iterator[Start]:
    """Yield more and more of a manifest, at last all of it."""
    for size in _HEAD_BYTES:
        start = source.start(size)
        yield start
    content = source.manifest()
    yield Start(content, len(content), start.signature)


def _damaged(
    source: Source, error: CheckpointError, start: Start, *, is_link: bool
) -> SaveEntry:
    here = source.names()
    sequences = [x for x in map(names.sequence_of, here) if x is not None]
    is_ours = bool(sequences) or manifest.FORMAT.encode() in start.content
    return SaveEntry(
        source,
        error=error,
        sequence=max([_written(start.content), *sequences]),
        is_link=is_link,
        is_ours=is_ours or names.is_save(source.path.name),
        signature=start.signature,
    )


def _written(content: bytearray) -> int:
    """Return the sequence in a damaged manifest, or 0."""
    # The first match: metadata comes later in the file and may have the same field.
    match = re.search(rb'"sequence":\s*(\d{1,12})\b', content)
    return int(match[1]) if match else 0


def _check(head: Head, where: str) -> None:
    """Refuse metrics that are not numbers and keys that are not text."""
    try:
        records.decode_metrics(head.metrics)
        scalars.decode_keys(item.key for item in head.summaries)
        scalars.decode_keys(head.keys)
    except Exception as error:
        raise DamagedError(f"{where} is not a manifest: {reason(error)}.") from error

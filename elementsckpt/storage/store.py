"""What a place that holds saves must be able to do, be it a directory or a bucket.

The seam is the save, not the file: what is above speaks of saves, segments and ranges
of bytes. `LocalStore` is the one for directories.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from ..format.manifest import Component, Segment
from .descriptors import Buffer


class Store(Protocol):
    """A place that holds saves by name.

    Attributes:
      path: Where it is, as users know it.
    """

    path: Path

    def names(self) -> list[str]:
        """Return the names of what may be saves, or drafts, or anything else.

        Raises:
          ReadError: the place refused.
        """

    def open(self, name: str) -> Source:
        """Return what has this name, or would have it; nothing is read yet."""

    def begin(self, step: int | None, *, fsync: bool) -> Draft:
        """Begin a save under a name that no other has.

        Args:
          step: Step of the run, which is a part of the name.
          fsync: Whether the save is durable when it is committed.

        Raises:
          WriteError: the place refused.
        """

    def begin_at(self, name: str, *, fsync: bool) -> Draft:
        """Begin a save under this very name.

        Raises:
          SaveExistsError: it holds something already.
          WriteError: the place refused.
        """

    def remove(self, name: str, *, fsync: bool) -> bool:
        """Remove a save, at once or not at all; failing only warns.

        Returns:
          Whether it is gone.
        """

    def sweep(self, name: str) -> None:
        """Remove what a process left under a name that died in the middle of a save.

        Nothing is done if it is something else, or is being written; failing only
        warns.
        """

    def point_latest(self, name: str, *, fsync: bool) -> None:
        """Write down which save is the newest, for people; failing only warns."""


class Draft(Protocol):
    """A save that is being written.

    Attributes:
      path: Where the save will be.
      source: Where what has been written can be read.
      fsync: Whether the save is durable when it is committed.
      unlock: Leaves it to be swept.
    """

    path: Path
    fsync: bool
    unlock: Callable[[], object]

    @property
    def source(self) -> Source: ...

    def require_room(self, size_bytes: int) -> None:
        """Refuse to begin what cannot end, as there is less room.

        Raises:
          WriteError: there is less room.
        """

    def segment(self, name: str) -> Sink:
        """Return a new segment, to be written."""

    def reuse(self, source: Source, segment: Segment) -> None:
        """Make a segment of another save one of this save, too.

        Raises:
          WriteError: the place refused, or the other save is gone.
        """

    def drop(self, segment: str) -> None:
        """Give up a segment that was reused."""

    def folder(self, name: str) -> Path:
        """Make a folder on this machine, for files that a component writes itself."""

    def files(
        self, path: Path, component: Component, earlier: Mapping[str, Path]
    ) -> FolderWriter:
        """Return what makes the files in such a folder a part of the save."""

    def commit(self, content: bytes) -> None:
        """Make it a save: complete and, with fsync, durable on return.

        Args:
          content: The manifest.

        Raises:
          WriteError: the place refused; the caller should `abandon` it.
        """

    def abandon(self) -> None:
        """Remove what was written, unless it was committed; failing only warns."""


class FolderWriter(Protocol):
    """Makes files that a component wrote itself a part of a save.

    Attributes:
      bytes_written: Size of the files that were written, when `finish` has returned.
      bytes_reused: Size of those that an earlier save holds already, likewise.
      is_damaged: Whether one that it should hold was found damaged, likewise.
    """

    bytes_written: int
    bytes_reused: int
    is_damaged: bool

    def finish(self) -> None:
        """Hash the files, reuse those that an earlier save holds.

        Raises:
          WriteError: the place refused.
          DamagedError: a file vanished.
        """


class Sink(Protocol):
    """A segment that is being written."""

    def write(self, data: Buffer, offset: int) -> None:
        """Write all of `data`; several threads may write at the same time."""

    def finish(self) -> None:
        """Take note that all is written, and make it durable if the save is to be."""

    def close(self) -> None:
        """Let go of it, as soon as no thread is in `write` any more."""


class Source(Protocol):
    """A save to be looked at and read, or what else has its name.

    Attributes:
      path: Where it is.
      is_link: Whether the name only leads to a save elsewhere.
      is_dangling: Whether it leads nowhere.
    """

    path: Path

    @property
    def is_link(self) -> bool: ...

    @property
    def is_dangling(self) -> bool: ...

    def is_missing(self) -> bool:
        """Return True only if there certainly is nothing of this name."""

    def signature(self) -> Hashable | None:
        """Return what changes whenever the manifest does; None if it cannot be had."""

    def has_no_manifest(self) -> bool:
        """Return True only if there certainly is no manifest."""

    def manifest(self) -> bytearray:
        """Return the content of the manifest, if it can be one.

        Raises:
          DamagedError, ReadError: it is something else, or refused.
        """

    def names(self) -> list[str]:
        """Return the names of what is in the save; none if they cannot be had."""

    def lacks(self, segment: Segment) -> bool:
        """Return True only if a segment certainly is not there."""

    def may_have_changed(self, segment: Segment) -> bool:
        """Return whether a segment may have been written to since the commit."""

    def open(self, segment: Segment, *, is_verified: bool = False) -> OpenSegment:
        """Open a segment for reading, its size and header verified.

        Args:
          segment: Its entry in the manifest.
          is_verified: Whether its header was verified before.

        Raises:
          DamagedError: it is not what the manifest says.
          ReadError: the place refused.
        """


class OpenSegment(Protocol):
    """A segment that is open for reading, also if the save is removed meanwhile.

    Attributes:
      path: Where it is, for errors.
      close: Lets go of it.
    """

    path: Path
    close: Callable[[], object]

    def read(self, memory: Buffer, offset: int) -> None:
        """Fill `memory`, uint8[n] and writable, with the bytes from `offset` on.

        Raises:
          DamagedError: it ends before, or cannot be read.
        """

    def map(self) -> np.ndarray | None:
        """Map it, copy-on-write, uint8[size]; None where it must be read."""

    def sync(self) -> None:
        """Make durable what others may have written.

        Raises:
          WriteError: the place refused.
        """

    def __enter__(self) -> OpenSegment: ...

    def __exit__(self, *_: object) -> None: ...

"""What a place that holds saves must be able to do, be it a directory or a bucket.

The seam is the save, not the file: what is above speaks of saves, segments and ranges
of bytes. `LocalStore` is the one for directories.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..format.manifest import Segment

Buffer = Any  # One-dimensional bytes: bytes, bytearray, memoryview, uint8 ndarray.


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
      is_committed: Whether it is a save by now, which others may rely on.
    """

    path: Path

    @property
    def is_committed(self) -> bool: ...

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
        """Make a folder on this machine, whose files become a part of the save."""

    def commit(self, manifest: bytes) -> None:
        """Make it a save: complete and, with fsync, durable on return.

        Raises:
          WriteError: the place refused; the caller should `abandon` it.
        """

    def abandon(self) -> None:
        """Remove what was written, unless it was committed; failing only warns."""


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
    """

    path: Path

    @property
    def is_link(self) -> bool: ...

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

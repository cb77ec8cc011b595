"""The protocol of a place that holds saves, such as a directory or a bucket.

The seam is the save, not the file: higher packages speak of saves, segments and ranges
of bytes. `LocalStore` implements it for directories.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..format.manifest import Component, Segment
from .descriptors import Buffer

if TYPE_CHECKING:
    import numpy as np


class Store(Protocol):
    """A place that holds saves by name.

    Attributes:
      path: Its path, as users know it.
    """

    path: Path

    def names(self) -> list[str]:
        """Return all names: of saves, of drafts, and of anything else.

        Raises:
          ReadError: the place refused.
        """

    def open(self, name: str) -> Source:
        """Return the source of this name, which need not exist; nothing is read yet."""

    def begin(self, step: int | None, *, fsync: bool) -> Draft:
        """Begin a save under a name that no other has, one of `names.save_name`.

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

    def remove(
        self, name: str, *, fsync: bool, known: Sequence[str] | None = None
    ) -> bool:
        """Remove a save, at once or not at all; failing only warns.

        Args:
          name: Its name.
          fsync: Whether that is durable before its content goes.
          known: Names of its segments if it has nothing else; None if unknown.

        Returns:
          Whether it is gone.
        """

    def sweep(self, name: str) -> None:
        """Remove the unfinished save that a dead process left under a name.

        Anything else stays, such as a save that is being written. Failing only warns.
        """

    def rewrite(self, name: str, content: bytes) -> None:
        """Replace the manifest of a save, at once or not at all, and durably.

        Raises:
          WriteError: the place refused; the save is as it was.
          DamagedError: it is not a save any more.
        """

    def point_latest(self, name: str) -> None:
        """Record the name of the newest save, for people; failing only warns."""


class Draft(Protocol):
    """A save that is being written.

    Attributes:
      path: Path of the save.
      source: Reads what has been written.
      fsync: Whether the save is durable when it is committed.
      unlock: Frees the lock, so that the draft can be swept.
    """

    path: Path
    fsync: bool
    unlock: Callable[[], object]

    @property
    def source(self) -> Source: ...

    def require_room(self, size_bytes: int) -> None:
        """Refuse a save for which there is too little room, before it is written.

        Raises:
          WriteError: there is too little room.
        """

    def segment(self, name: str, size_bytes: int) -> Sink:
        """Return a new segment to write to, which will have about this size."""

    def reuse(self, source: Source, segment: Segment) -> None:
        """Make a segment of another save a segment of this save, too.

        Raises:
          WriteError: the place refused, or the other save is gone. Only with the errno
            ENOENT, EMLINK or EEXIST is another segment tried in this save.
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


class StoredFile(NamedTuple):
    """A file in a save.

    Attributes:
      name: Its path in the save, the parts joined by "/".
      size_bytes: Its size.
      identity: Equal for names of one file, in whatever saves.
      links: How many names it has, here and elsewhere.
    """

    name: str
    size_bytes: int
    identity: Hashable
    links: int


class FolderWriter(Protocol):
    """Makes files that a component wrote itself a part of a save.

    Attributes:
      bytes_written: Size of the files that were written. This and the next two are set
        when `finish` has returned.
      bytes_reused: Size of the files that an earlier save holds already.
      is_damaged: Whether a file of the earlier save was found damaged.
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
        """Write all of `data`; several threads may write at the same time.

        Ranges come in any order, the one at offset 0 last. Gaps between them are zeros.
        """

    def finish(self) -> None:
        """End the segment, which is complete.

        With fsync, it is durable on return, or when the draft is committed.
        """

    def close(self) -> None:
        """Release it, as soon as no thread is in `write` any more."""


class Start(NamedTuple):
    """How a manifest begins.

    Attributes:
      content: Its first bytes.
      size: Its size in bytes.
      signature: Changes with the manifest, as `Source.signature`.
    """

    content: bytearray
    size: int
    signature: Hashable


class Source(Protocol):
    """Reads a save, or whatever has its name.

    Attributes:
      path: Its path.
      is_link: Whether the name is a link, perhaps to a save elsewhere.
      is_dangling: Whether the name is a link to nothing.
    """

    path: Path

    @property
    def is_link(self) -> bool: ...

    @property
    def is_dangling(self) -> bool: ...

    def is_missing(self) -> bool:
        """Return True only if there certainly is nothing of this name."""

    def signature(self) -> Hashable | None:
        """Return a value that changes with the manifest; None if there is none."""

    def has_no_manifest(self) -> bool:
        """Return True only if there certainly is no manifest."""

    def start(self, size_bytes: int) -> Start:
        """Return how the manifest begins, with as many bytes of it as there are.

        Raises:
          DamagedError, ReadError: as from `manifest`.
        """

    def manifest(self) -> bytearray:
        """Return the content of the manifest, if it can be one.

        Raises:
          DamagedError, ReadError: it cannot be one, or the place refused.
        """

    def names(self) -> list[str]:
        """Return the names in the save; none if they cannot be listed."""

    def stored_files(self) -> list[StoredFile]:
        """Return the files in the save, as far as they can be listed."""

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
      path: Its path, for errors.
      signature: Changes when it is written to; equal for the names of one file.
      close: Closes it.
    """

    close: Callable[[], object]

    @property
    def path(self) -> Path: ...

    @property
    def signature(self) -> Hashable: ...

    def read(self, memory: Buffer, offset: int) -> None:
        """Fill `memory`, uint8[n] and writable, with the bytes from `offset` on.

        Several threads may read at the same time.

        Raises:
          DamagedError: it ends too early, or cannot be read.
        """

    def map(self) -> np.ndarray | None:
        """Map it copy-on-write, uint8[size]; return None where it must be read."""

    def sync(self) -> None:
        """Make the segment durable; another process may have written it.

        Raises:
          WriteError: the place refused.
        """

    def __enter__(self) -> OpenSegment: ...

    def __exit__(self, *_: object) -> None: ...

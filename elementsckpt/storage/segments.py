"""Save folders that are read, and segment files, written and read."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CheckpointError, DamagedError
from ..format import names
from ..format.digests import digest_of
from ..format.manifest import Segment
from . import disk, files, folders, pool
from .descriptors import Buffer, Descriptor
from .paths import names_in
from .store import Start, StoredFile

if TYPE_CHECKING:
    import numpy as np

_MANIFEST_BYTES = 1 << 32


class SegmentSink:
    """A segment file that is being written.

    Args:
      path: The file, which must not exist.
      fsync: Whether to make it durable.
      later: Takes the file when it is finished, to make it durable; without, `finish`
        does.
    """

    def __init__(
        self,
        path: Path,
        *,
        fsync: bool,
        later: Callable[[Descriptor, Path], object] | None = None,
    ) -> None:
        self._path = path
        self._fsync = fsync
        self._later = later
        self._file: Descriptor | None = disk.create(path)

    def write(self, data: Buffer, offset: int) -> None:
        """Write all of `data`; several threads may write at the same time."""
        with self._open() as fd:
            disk.write(fd, data, offset, path=self._path)

    def finish(self) -> None:
        """Make the file durable, if it is to be, or have it done later."""
        if self._fsync and self._later is not None:
            assert self._file is not None
            self._later(self._file, self._path)
        elif self._fsync:
            with self._open() as fd:
                disk.sync(fd, path=self._path)

    @contextlib.contextmanager
    def _open(self) -> Iterator[int]:
        file = self._file
        assert file is not None
        try:
            yield file.fd
        finally:
            del file  # Otherwise an error would keep it open.

    def close(self) -> None:
        """Close the file, as soon as no thread is in `write` any more."""
        self._file = None


class SegmentFile(files.File):
    """A segment file that is open for reading; its size and header are verified.

    Args:
      path: The file.
      segment: Its entry in the manifest.
      is_verified: Whether its header was verified before.

    Raises:
      DamagedError: it is not what the manifest says.
      ReadError: the system refused.
    """

    def __init__(
        self, path: Path, segment: Segment, *, is_verified: bool = False
    ) -> None:
        super().__init__(path)
        try:
            self._verify(segment, is_verified=is_verified)
        except BaseException:
            self.close()
            raise

    def _verify(self, segment: Segment, *, is_verified: bool) -> None:
        if self.size != segment.size:
            raise DamagedError(
                f"{self.path} is damaged: it has {self.size} bytes, expected "
                f"{segment.size}."
            )
        if is_verified:
            return
        found = digest_of(self.read, segment.start)
        if found != segment.digest:
            raise DamagedError(
                f"{self.path} is damaged in its first {segment.start} bytes: their "
                f"digest is {found}, expected {segment.digest}."
            )

    def sync(self) -> None:
        """Make the file durable; another process may have written it.

        Raises:
          WriteError: the disk refused.
        """
        disk.sync(self.fd, path=self.path)

    def map(self) -> np.ndarray | None:
        """Map the file copy-on-write; return None if no more files can be mapped."""
        return pool.map_file(self)


class SaveFolder:
    """A folder that is a save, may be one, or is not there.

    Args:
      path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def is_link(self) -> bool:
        """Whether the path is a link, perhaps to a folder."""
        return os.path.islink(self.path)

    @property
    def is_dangling(self) -> bool:
        """Whether the path is a link that leads to nothing."""
        return self.is_link and not os.path.exists(self.path)

    def is_missing(self) -> bool:
        """Return True only if there certainly is nothing of this name."""
        return folders.is_missing(self.path)

    def signature(self) -> tuple[int, int, int] | None:
        """Return a value that changes with the manifest; None if there is none."""
        try:
            status = os.lstat(self._manifest)
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

    def has_no_manifest(self) -> bool:
        """Return True only if there certainly is no manifest."""
        return folders.is_missing(self._manifest)

    def start(self, size_bytes: int) -> Start:
        """Return how the manifest begins.

        Raises:
          DamagedError, ReadError: as from `files.read_file`.
        """
        content, file = files.read_start(self._manifest, size_bytes)
        return Start(content, file.size, file.signature)

    def manifest(self) -> bytearray:
        """Return the content of the manifest, if it can be one.

        Raises:
          DamagedError, ReadError: as from `files.read_file`.
        """
        return files.read_file(
            self._manifest, limit_bytes=_MANIFEST_BYTES, is_text=True
        )

    @property
    def _manifest(self) -> str:
        return f"{self.path}/{names.MANIFEST}"  # Joined by `Path`, it takes 10 µs.

    def names(self) -> list[str]:
        """Return the names in the folder; none if it cannot be listed."""
        return names_in(self.path)

    def stored_files(self) -> list[StoredFile]:
        """Return the files in the folder, as far as they can be listed."""
        found = []
        with contextlib.suppress(CheckpointError):  # It is being removed.
            for name, status in folders.below(self.path):
                if not stat.S_ISDIR(status.st_mode):
                    identity = status.st_dev, status.st_ino
                    size, links = status.st_size, status.st_nlink
                    found.append(StoredFile(name, size, identity, links))
        return found

    def open(self, segment: Segment, *, is_verified: bool = False) -> SegmentFile:
        """Open a segment for reading.

        Raises:
          DamagedError: it is not what the manifest says.
          ReadError: the system refused.
        """
        path = self.path / segment.file
        return SegmentFile(path, segment, is_verified=is_verified)

    def lacks(self, segment: Segment) -> bool:
        """Return True only if a segment certainly is not there."""
        return folders.is_missing(self.path / segment.file)

    def may_have_changed(self, segment: Segment) -> bool:
        """Return whether a segment may have been written to since the commit."""
        try:
            committed = os.stat(self._manifest).st_mtime_ns
            return os.stat(self.path / segment.file).st_mtime_ns > committed
        except OSError:  # The save is being removed.
            return True

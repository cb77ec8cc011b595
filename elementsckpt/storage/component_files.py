"""A folder of files that a component wrote itself → its entry in the manifest.

The counterpart of `file_view`: there the files of a save become a folder again.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import CheckpointError, DamagedError, StateError, WriteError
from ..format import manifest
from ..format.digests import digest_of
from ..format.manifest import Component, File, Files
from ..system.progress import SILENT, Meter
from ..system.threads import run
from . import disk, files, folders

_LINES = 10  # In an error.
_logger = logging.getLogger("elementsckpt")


class FolderWriter:
    """Makes what a component wrote to its folder a part of the save.

    Args:
      path: The folder, in the save folder.
      component: Its entry in the manifest; `finish` completes it.
      earlier: Files that an earlier save holds, by digest.
      fsync: Whether to make it durable.

    Attributes:
      bytes_written: Size of the files that were written. This and the next two are set
        when `finish` has returned.
      bytes_reused: Size of the files that an earlier save holds already.
      is_damaged: Whether a file of the earlier save was found damaged.

    Raises:
      StateError: something in it cannot be part of a save.
    """

    def __init__(
        self,
        path: Path,
        component: Component,
        earlier: Mapping[str, Path],
        *,
        fsync: bool,
    ) -> None:
        self.bytes_written = 0
        self.bytes_reused = 0
        self.is_damaged = False
        self._path = path
        self._component = component
        self._earlier = earlier
        self._fsync = fsync
        self._folders = [path]
        self._files = self._list()
        component.files = Files(path.name, self._files)
        component.leaf_count = len(self._files)
        component.size_bytes = sum(file.size for file in self._files)

    def _list(self) -> list[File]:
        """Return the entries of the files; the folder may hold anything."""
        if os.path.islink(self._path) or not os.path.isdir(self._path):
            raise StateError(
                f"{self._path} is not a folder any more. Write files to the folder "
                f"that the function gets, and leave the folder itself in place."
            )
        found, problems = [], []
        for path, status in folders.below(self._path):
            problem = _problem(path, status)
            if problem:
                problems.append(f"{manifest.escape(path)} {problem}")
            elif stat.S_ISDIR(status.st_mode):
                self._folders.append(self._path / path)
            else:
                found.append(File(path, status.st_size, ""))
        if problems:
            self._refuse(sorted(problems))
        return sorted(found, key=lambda file: file.path)

    def _refuse(self, problems: Sequence[str]) -> None:
        more = len(problems) - _LINES
        lines = [*problems[:_LINES], *([f"and {more} more"] if more > 0 else [])]
        listed = "".join(f"\n  {line}" for line in lines)
        raise StateError(f"{self._path} holds what cannot be part of a save:{listed}")

    def finish(self) -> None:
        """Hash the files, link those that an earlier save holds, make all durable.

        Raises:
          WriteError: the disk refused.
          DamagedError: a file vanished.
        """
        for folder in self._folders:
            disk.make_removable(folder)
        reused = run(lambda item: self._settle(*item), enumerate(self._files))
        self.bytes_reused = sum(reused)
        self._component.size_bytes = sum(file.size for file in self._files)
        self.bytes_written = self._component.size_bytes - self.bytes_reused
        if self._fsync:
            run(disk.sync_folder, self._folders)

    def _settle(self, number: int, entry: File) -> int:
        """Complete the entry of a file; return how many bytes of it are reused."""
        path = self._path / entry.path
        with files.File(path) as file:
            entry.size, entry.digest = file.size, digest_of(file.read, file.size)
            source = self._earlier.get(entry.digest)
            if source is not None and self._reuse(source, number, file, entry):
                return file.size
            disk.make_read_only(file.fd, path=path)
            if self._fsync:
                disk.sync(file.fd, path=path)
        return 0

    def _reuse(self, source: Path, number: int, file: files.File, entry: File) -> bool:
        """Replace a file by a link to an earlier one, if that is as good."""
        try:
            signature = self._checked(source, entry)
        except CheckpointError as error:
            self.is_damaged = self.is_damaged or isinstance(error, DamagedError)
            _logger.warning("Not reused, but written again: %s", error)
            return False
        if signature == file.signature:  # The component has linked it itself.
            return True
        hidden = file.path.with_name(f".elementsckpt-{number}")
        try:
            disk.link(source, hidden)
        except WriteError as error:
            _logger.debug("Not reused, but written again: %s", error)
            return False
        if signature_of(hidden) != signature:
            disk.remove(hidden)  # The earlier file has just been replaced.
            return False
        disk.rename(hidden, file.path)
        return True

    def _checked(self, source: Path, entry: File) -> tuple[int, ...]:
        """Check a file of an earlier save; return its signature."""
        with files.File(source) as earlier:
            check(earlier, entry)
            if self._fsync:  # It may be in a copy that was never synced.
                disk.sync(earlier.fd, path=source)
            return earlier.signature


def signature_of(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is written to or replaced."""
    with files.File(path) as file:
        return file.signature


def _problem(path: str, status: os.stat_result) -> str:
    try:
        path.encode()
    except UnicodeEncodeError:
        return "has a name that is not UTF-8: rename it."
    if stat.S_ISLNK(status.st_mode):
        return "is a symbolic link: copy the file instead."
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        return "is neither a file nor a folder: remove it."
    return ""


def check(
    file: files.File, entry: File, *, content: bool = True, meter: Meter = SILENT
) -> None:
    """Check that a file is what its entry in the manifest says.

    Args:
      file: The file.
      entry: Its entry.
      content: Whether to read it, not just compare its size.
      meter: Counts what is read.

    Raises:
      DamagedError: it is something else.
    """
    if file.size != entry.size:
        raise DamagedError(
            f"{file.path} is damaged: it has {file.size} bytes, expected {entry.size}."
        )

    def read(memory: memoryview, start: int) -> None:
        file.read(memory, start)
        meter.add(len(memory))

    found = digest_of(read, file.size) if content else entry.digest
    if found != entry.digest:
        raise DamagedError(
            f"{file.path} is damaged: its digest is {found}, expected {entry.digest}."
        )

"""The files that a component wrote to a save → the folder that its function loads.

The function opens files by their names, at any time. Meanwhile other processes may put
files into the folder of the save, or remove the save. So the function gets a folder of
its own beside the save, with a link to each file. That folder is a draft that never
becomes a save; it is swept if the process dies. Where links cannot be made, the
function gets the folder of the save, which must hold no other files, before and after.
"""

from __future__ import annotations

import contextlib
import logging
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import DamagedError, ReadError, SaveNotFoundError, WriteError, reason
from ..format import names
from ..format.manifest import File, Files
from ..system.progress import SILENT, Meter
from ..system.threads import run
from . import disk, drafts, files, folders
from .component_files import check, signature_of
from .drafts import Draft

_logger = logging.getLogger("elementsckpt")


def isolate(save: Path, readers: Sequence[FolderReader]) -> Draft | None:
    """Give each function a folder in which it finds its files, and no others.

    Returns:
      The draft that holds these folders, to be abandoned when the functions are done;
      None if nothing can be written there.

    Raises:
      DamagedError, ReadError: files cannot be read.
    """
    for reader in readers:
        reader.require()
    try:  # Beside the folder itself, as the path may be a link.
        directory = save.resolve().parent
        draft = drafts.begin(directory, None, fsync=False, is_hidden=True)
    except WriteError as error:
        for reader in readers:
            reader.refuse(error)
        return None
    try:
        for reader in readers:
            reader.link(draft.path)
    except BaseException:
        draft.abandon()
        raise
    return draft


class FolderReader:
    """The folder that a component wrote to a save.

    Args:
      save: The save folder.
      key: The component's key.
      entry: The folder's entry in the manifest.
      verify: Whether to verify the content of files, not just their sizes.
      meter: Counts what is read.

    Attributes:
      path: The folder that the function gets: links to the files, or that of the save.
      names: Paths of the files in it.
      size_bytes: Size of the files.
      held_bytes: How much memory a load takes.
    """

    streams = False
    held_bytes = 0

    def __init__(
        self,
        save: Path,
        key: str,
        entry: Files,
        *,
        verify: bool,
        meter: Meter = SILENT,
    ) -> None:
        self.key = key
        self.path = save / entry.folder
        self.names = [file.path for file in entry.files]
        self.size_bytes = sum(file.size for file in entry.files)
        self._own = self.path
        self._files = entry.files
        self._verifies = verify
        self._meter = meter
        self._signatures: list[tuple[int, ...]] = []
        self._refusal = ""  # Why the function gets the folder in the save.

    def bytes_to_read(self) -> int:
        """Return how many bytes a load reads."""
        return self.size_bytes if self._verifies else 0

    def open(self) -> None:
        """Open nothing: the function opens the files by their names."""

    def require(self) -> None:
        """Refuse what cannot be the folder that was saved, before links are made.

        Raises:
          DamagedError, ReadError: a file or folder is something else, or refused.
        """
        self._folders()
        for name in self.names:
            files.File(self._own / name).close()

    def link(self, parent: Path) -> None:
        """Make the folder with links, if links can be made."""
        self.path = parent / self._own.name
        try:
            for folder in self._folders():
                disk.make_folder(self.path / folder)
            run(self._link, self.names)
        except WriteError as error:
            self.path = self._own
            self.refuse(error)

    def _link(self, name: str) -> None:
        disk.link(self._own / name, self.path / name)

    def refuse(self, error: WriteError) -> None:
        """Note why there are no links."""
        self._refusal = reason(error.__cause__ or error)
        _logger.debug("No links to the files of %r: %s", self.key, error)

    def verify(self) -> None:
        """Verify each file.

        Raises:
          DamagedError: it is not what was written.
          ReadError: there are other files, which could not be left out.
        """
        self._folders()
        tell = self._meter.tell
        self._signatures = run(self._verify, self._files, meanwhile=tell)
        if self._refusal:
            self._refuse_others()

    def _verify(self, entry: File) -> tuple[int, ...]:
        with files.File(self.path / entry.path) as file:
            file.path = self._own / entry.path  # The path that errors name.
            check(file, entry, content=self._verifies, meter=self._meter)
            return file.signature

    def _folders(self) -> list[str]:
        """Return the folders that hold the files, outer ones first.

        Raises:
          DamagedError: one is something else, such as a link.
        """
        found = {"": None}
        folders.require_folder(self._own)
        for folder in (x for name in self.names for x in _above(name)):
            if folder not in found:
                folders.require_folder(self._own / folder)
                found[folder] = None
        return list(found)

    def check(self) -> None:
        """Check that the folder holds the files that were verified, unchanged.

        Raises:
          DamagedError: one has changed, so the function may have read other content.
          ReadError: there are no links, and there are other files.
          SaveNotFoundError: there are no links, and the save was removed.
        """
        for name, signature in zip(self.names, self._signatures, strict=True):
            found = None
            with contextlib.suppress(DamagedError):
                found = signature_of(self.path / name)
            if found != signature:
                self._refuse_removed()
                is_shared = found is not None and found[0] == signature[0]
                harm = ", so the save is damaged, and others that share the file"
                raise DamagedError(
                    f"{self._own / name} has changed while {self.key!r} was loaded"
                    f"{harm if is_shared or self._refusal else ''}. What loads it must "
                    f"not write to the folder that it gets: let it copy first."
                )
        if self._refusal:
            self._refuse_removed()
            self._refuse_others()

    def _refuse_removed(self) -> None:
        save = self._own.parent
        if self._refusal and folders.is_missing(save / names.MANIFEST):
            raise SaveNotFoundError(
                f"{save} was removed while {self.key!r} was loaded from it, which may "
                f"have seen some of its files only. They could not be linked elsewhere "
                f"({self._refusal}). Load again, or from another save."
            )

    def _refuse_others(self) -> None:
        files = set(self.names)
        found = [
            name
            for name, status in folders.below(self._own)
            if name not in files and not stat.S_ISDIR(status.st_mode)
        ]
        if found:
            raise ReadError(
                f"{self._own / min(found)} is not of the save, and what loads "
                f"{self.key!r} would see it. The files of the save could not be linked "
                f"elsewhere ({self._refusal}). Remove it, or copy the save to where "
                f"links can be made."
            )

    def close(self) -> None:
        """Close nothing, as nothing is open."""


def _above(path: str) -> Iterator[str]:
    """Yield the folders that a path leads through, the outermost first."""
    end = path.find("/")
    while end >= 0:
        yield path[:end]
        end = path.find("/", end + 1)

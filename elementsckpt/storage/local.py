"""Directories on this machine, or mounted on it, as places for saves."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import WriteError
from ..format import names
from ..user.notices import Notices
from . import disk, drafts, folders, removal, rewriting
from .descriptors import Descriptor
from .drafts import Draft
from .segments import SaveFolder

_LATEST_DRAFT = f".{names.LATEST}"


class LocalStore:
    """A directory that holds saves, each a folder.

    Args:
      path: The directory, which need not exist.
      notices: Logs warnings about it.
    """

    def __init__(self, path: Path, notices: Notices) -> None:
        self.path = path
        self._notices = notices

    def names(self) -> list[str]:
        """Return the names of folders and links, hidden ones too.

        Raises:
          ReadError: the system refused.
        """
        return folders.folders_in(self.path)

    def open(self, name: str) -> SaveFolder:
        """Return the folder with this name; nothing is read yet."""
        return SaveFolder(self.path / name)

    def begin(self, step: int | None, *, fsync: bool) -> Draft:
        """Begin a save under a name that no other has."""
        return drafts.begin(self.path, step, fsync=fsync)

    def begin_at(self, name: str, *, fsync: bool) -> Draft:
        """Begin a save in this very folder.

        Raises:
          SaveExistsError: it holds something already.
        """
        return drafts.begin_at(self.path / name, fsync=fsync)

    def remove(
        self, name: str, *, fsync: bool, known: Sequence[str] | None = None
    ) -> bool:
        """Remove a save folder; failing only warns.

        Returns:
          Whether it is gone.
        """
        path = self.path / name
        if os.path.islink(path):  # A user has just moved the save.
            return False
        removal.remove(path, self._notices, known=known, fsync=fsync)
        return not os.path.lexists(path)

    def sweep(self, name: str) -> None:
        """Remove a save folder that a dead process left; failing only warns."""
        removal.try_to_sweep(self.path / name, self._notices)

    def rewrite(self, name: str, content: bytes) -> None:
        """Replace the manifest of a save folder, at once or not at all."""
        rewriting.rewrite(self.path / name, content)

    def _create_latest(self, draft: Path) -> Descriptor:
        try:
            return disk.create(draft)
        except WriteError as error:
            if error.errno != errno.EEXIST:
                raise
        disk.remove(draft)  # Another process has died, or is doing the same.
        return disk.create(draft)

    def point_latest(self, name: str) -> None:
        """Write the name of the newest save to a file; failing only warns.

        It is not synced, as only people read it.
        """
        draft = self.path / _LATEST_DRAFT
        try:
            file = self._create_latest(draft)
            try:
                disk.write(file.fd, os.fsencode(name), 0, path=draft)
            finally:
                file.close()
            disk.rename(draft, self.path / names.LATEST)
            self._notices.settle(names.LATEST)
        except WriteError as error:
            # Another process that saves here was faster, and `latest` is its save.
            if error.errno not in (errno.ENOENT, errno.EEXIST):
                failed = "Could not update the file 'latest': %s"
                self._notices.warn(names.LATEST, failed, error)

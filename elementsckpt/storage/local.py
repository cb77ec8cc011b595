"""Directories on this machine, or mounted on it, as places for saves."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ..errors import WriteError
from ..format import names
from ..user.notices import Notices
from . import disk, drafts, removal
from .drafts import Draft
from .segments import SaveFolder

_LATEST_DRAFT = f".{names.LATEST}"


class LocalStore:
    """A directory that holds saves, each a folder.

    Args:
      path: The directory, which need not exist.
      notices: What is said of it, and was.
    """

    def __init__(self, path: Path, notices: Notices | None = None) -> None:
        self.path = path
        self._notices = Notices() if notices is None else notices

    def names(self) -> list[str]:
        """Return the names of the folders, hidden ones left out, and of links.

        Raises:
          ReadError: the system refused.
        """
        return [x.name for x in disk.folders_in(self.path) if x.name[0] != "."]

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

    def remove(self, name: str, *, fsync: bool) -> bool:
        """Remove a save folder; failing only warns.

        Returns:
          Whether it is gone.
        """
        path = self.path / name
        if os.path.islink(path):  # A person has just moved the save.
            return False
        removal.remove(path, fsync=fsync, notices=self._notices)
        return not os.path.lexists(path)

    def sweep(self) -> None:
        """Remove what processes that died in the middle of a save left here."""
        for path in disk.folders_in(self.path):
            is_save = names.SAVE.fullmatch(path.name) is not None
            if is_save and os.path.lexists(path / names.MANIFEST):
                continue  # Most are, and need no second look.
            if is_save or names.HIDDEN.fullmatch(path.name):
                removal.try_to_sweep(path, self._notices)

    def point_latest(self, name: str, *, fsync: bool) -> None:
        """Write the name of the newest save to a file; failing only warns."""
        draft = self.path / _LATEST_DRAFT
        try:
            if os.path.lexists(draft):  # Of a process that died, or is as far as here.
                disk.remove(draft)
            file = disk.create(draft)
            try:
                disk.write(file.fd, os.fsencode(name), 0, path=draft)
                if fsync:
                    disk.sync(file.fd, path=draft)
            finally:
                file.close()
            disk.rename(draft, self.path / names.LATEST)
            self._notices.settle(names.LATEST)
        except WriteError as error:
            # Another process that saves here was faster, and `latest` is its save.
            if error.errno not in (errno.ENOENT, errno.EEXIST):
                failed = "Could not update the file 'latest': %s"
                self._notices.warn(names.LATEST, failed, error)

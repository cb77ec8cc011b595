"""Folders: what is in them, and whether something is there."""

from __future__ import annotations

import itertools
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from ..errors import DamagedError
from .files import MISSING, status, unreadable

# Names that NFS, FUSE, AFS and SMB give to files that are removed while they are open
# somewhere; these vanish when they are closed.
_REMOVED = re.compile(
    r"\.(nfs[0-9a-f.]{4,}|fuse_hidden[0-9a-f]{4,}|__afs[0-9A-F]{4,}|smbdelete\w+)"
)


def folders_in(path: Path) -> list[str]:
    """Return the names of folders in a folder, and of links, which may lead to some.

    Returns:
      No names if there is no such folder.

    Raises:
      ReadError: the system refused.
    """
    try:
        return [x.name for x in _entries(path) if x.is_symlink() or x.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise unreadable(path, error) from error


def _entries(path: Path) -> list[os.DirEntry[str]]:
    # In one call of code in C, so that no handler of a signal leaves the folder open.
    return list(itertools.chain.from_iterable(map(os.scandir, (path,))))


def names_in(path: Path) -> list[str]:
    """Return the names in a folder; none if there is no such folder.

    Files that are removed and still open somewhere are left out.

    Raises:
      ReadError, DamagedError: the system refused.
    """
    try:
        return [name for name in os.listdir(path) if not _REMOVED.fullmatch(name)]
    except OSError as error:
        if error.errno in MISSING:
            return []
        raise unreadable(path, error) from error


def is_missing(path: str | Path) -> bool:
    """Return True only if there certainly is nothing at this path."""
    try:
        os.lstat(path)
    except OSError as error:
        return error.errno in MISSING
    return False


def require_folder(path: Path) -> None:
    """Refuse what is not a folder, such as a link to one.

    Raises:
      DamagedError: it is something else, or nothing.
      ReadError: the system refused.
    """
    if not stat.S_ISDIR(status(path).st_mode):
        raise DamagedError(f"{path} is not a folder.")


def below(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield everything in a folder and in those below it; links are not followed.

    Files that are removed and still open somewhere are left out.

    Yields:
      Its path in the folder, joined by "/", and its status. A folder is listed after it
      has been yielded.

    Raises:
      ReadError, DamagedError: the system refused, or something vanished meanwhile.
    """
    folders = [""]
    while folders:
        prefix = folders.pop()
        try:
            entries = _entries(path / prefix)
            found = [(x.name, x.stat(follow_symlinks=False)) for x in entries]
        except OSError as error:
            raise unreadable(path / prefix, error) from error
        for name, found_status in found:
            if _REMOVED.fullmatch(name):
                continue
            yield prefix + name, found_status
            if stat.S_ISDIR(found_status.st_mode):
                folders.append(f"{prefix}{name}/")

"""Removing save folders: whole saves, and what dead processes left of drafts.

A save gets a hidden name first, or becomes a draft again, so it is removed at once or
not at all. What is not of a save stays.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import CheckpointError, WriteError
from ..format import names
from ..user.notices import Notices
from . import descriptors, disk, files, folders
from .paths import names_in

TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOENT}
# What is said of folders that get no other name, as by an overlay of its lower layers.
_NO_RENAME = {errno.EXDEV, errno.EBUSY, errno.EINVAL, errno.EPERM, errno.EACCES}
_NO_RENAME |= {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_logger = logging.getLogger("elementsckpt")


def sweep(path: Path, notices: Notices | None = None) -> None:
    """Remove the folder if it is a save that a dead process left unfinished.

    An empty one is that, too: a save that is being written has its draft as soon as it
    has its name. Only `begin_at` makes its folder first, and makes it again.

    Args:
      path: The folder.
      notices: What was said of the directory before.

    Raises:
      WriteError: the disk refused.
    """
    found = names_in(path)
    is_hidden = names.HIDDEN.fullmatch(path.name) is not None
    if os.path.islink(path) or not all(map(names.is_of_save, found)):
        return
    if not found and (is_hidden or names.SAVE.fullmatch(path.name)):
        with contextlib.suppress(WriteError):  # There is nothing in it to remove.
            disk.remove_folder(path)
        return
    if not is_hidden and (names.DRAFT not in found or names.MANIFEST in found):
        return
    said = Notices() if notices is None else notices
    if names.DRAFT in found:
        _sweep_if_free(path, said)
    else:
        _sweep(path, said)


def try_to_sweep(path: Path, notices: Notices | None = None) -> None:
    """Sweep; failing only warns."""
    said = Notices() if notices is None else notices
    try:
        sweep(path, said)
    except CheckpointError as error:
        tell_of_remains(path, error, said)


def _sweep_if_free(path: Path, notices: Notices) -> None:
    try:
        file = files.File(path / names.DRAFT, to_lock=True)
    except CheckpointError:
        return
    with file:
        # Else it is being written, or has just been committed.
        if not (
            descriptors.lock(file.fd) and descriptors.is_at(file.fd, path / names.DRAFT)
        ):
            return
        where = _sweep(path, notices)
    if os.path.lexists(where):  # NFS and FUSE keep what is open.
        _remove_emptied(where)


def _sweep(path: Path, notices: Notices) -> Path:
    _logger.info("Removing %s, which was left there unfinished.", path)
    return _remove(path, notices, keep_folder=False, fsync=False)


def remove(
    path: Path,
    *,
    keep_folder: bool = False,
    fsync: bool = False,
    notices: Notices | None = None,
) -> None:
    """Remove a save folder of ours; failing only warns.

    It gets a hidden name first, so a save is removed at once or not at all. At a path
    that the caller named, or where folders cannot be renamed, it becomes a draft again,
    which can be swept, and the draft goes last. Folders that components wrote go with
    all that is in them. Files that are not ours stay, in a folder of the old name.

    Args:
      path: The folder.
      keep_folder: Whether only its contents go.
      fsync: Whether the first step is made durable before the next.
      notices: What was said of the directory before.
    """
    notices = Notices() if notices is None else notices
    try:
        _remove(path, notices, keep_folder=keep_folder, fsync=fsync)
    except (CheckpointError, OSError) as error:
        tell_of_remains(path, error, notices)


def tell_of_remains(path: Path, error: Exception, notices: Notices) -> None:
    """Warn of a folder that cannot be removed; for the same reason others cannot."""
    about = "remains", getattr(error, "errno", None)
    notices.warn(about, "Could not remove %s: %s", path, error)


def _remove(path: Path, notices: Notices, *, keep_folder: bool, fsync: bool) -> Path:
    """Remove a save folder, as far as that goes; return where it is, or was."""
    where = path
    try:
        here = folders.names_in(path)
        is_save = names.MANIFEST in here
        if is_save:
            _require_removable(path, here)
        if not keep_folder:
            where = _hide(path, fsync=fsync)
        if is_save:
            _take_back(where, path, fsync=fsync)
        _remove_contents(where, here, fsync=fsync and is_save and where == path)
        if not keep_folder and not _remove_emptied(where):
            _tell_of_others(where, path, notices)
    except CheckpointError as error:
        if not isinstance(error.__cause__, FileNotFoundError):  # Else it is gone.
            raise
    return where


def _tell_of_others(where: Path, path: Path, notices: Notices) -> None:
    """Give a folder its old name, if files are left that are not of the save."""
    left = folders.names_in(where)
    if left and names.DRAFT not in left:
        about = "files of others"
        notices.warn(about, "Files that are not of the save stay in %s.", path)
        if where != path:
            disk.rename(where, path)


def _hide(path: Path, *, fsync: bool) -> Path:
    """Give a save folder a hidden name; return where it is then."""
    if not names.SAVE.fullmatch(path.name):
        return path
    hidden = path.with_name(f".{path.name}")
    try:
        disk.rename(path, hidden)
    except WriteError as error:
        if error.errno not in _NO_RENAME:
            raise
        return path
    if fsync:
        disk.sync_folder(path.parent)
    return hidden


def _take_back(where: Path, path: Path, *, fsync: bool) -> None:
    """Make a save a draft again; one that was hidden becomes visible if that fails."""
    try:
        disk.rename(where / names.MANIFEST, where / names.DRAFT)
    except WriteError:
        # Else another process, which removes it too, was faster.
        if where != path and os.path.lexists(where / names.MANIFEST):
            with contextlib.suppress(WriteError):
                disk.rename(where, path)
        raise
    if fsync and where == path:
        disk.sync_folder(path)


def _remove_contents(path: Path, here: Sequence[str], *, fsync: bool) -> None:
    """Remove what is of a save, the draft at last, so that it can be swept till then.

    It stays if a folder of a component does, in which files are open somewhere.
    """
    last = names.DRAFT, names.MANIFEST
    for name in sorted(filter(names.is_of_save, here)):
        if name not in last:
            _remove_entry(path / name)
    has_folders = any(map(names.FOLDER.fullmatch, here))
    left = folders.names_in(path) if has_folders else []
    is_stuck = any(map(names.FOLDER.fullmatch, left))
    if any(name in here for name in last) and not is_stuck:
        if fsync:
            disk.sync_folder(path)
        disk.remove(path / names.DRAFT)


def _require_removable(path: Path, here: Sequence[str]) -> None:
    """Refuse to begin what could not end: a half of a save is neither there nor gone.

    In a directory of several users, a save of another one can be such.

    Raises:
      WriteError: a folder may not be emptied, or removed.
    """
    folders = filter(names.FOLDER.fullmatch, here)
    own = [path / name for name in folders if _is_folder(path / name)]
    inner = [x for folder in own for x, is_folder in _all_of(folder) if is_folder]
    disk.require_removable(path, inner)


def _remove_emptied(path: Path) -> bool:
    """Remove a folder; False if it is not empty, as others write to it."""
    try:
        disk.remove_folder(path)
    except WriteError as error:
        if error.errno not in TAKEN:
            raise
        return error.errno == errno.ENOENT
    return True


def _remove_entry(path: Path) -> None:
    """Remove a file, a link, or the folder of a component; other folders stay."""
    if names.FOLDER.fullmatch(path.name) and _is_folder(path):
        _remove_folder(path)
        return
    try:
        disk.remove(path)
    except WriteError:
        if not _is_folder(path):
            raise


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _remove_folder(path: Path) -> None:
    """Remove a folder with all that is in it; links are removed, not followed."""
    for inner, is_folder in reversed(list(_all_of(path))):
        (_remove_emptied if is_folder else disk.remove)(inner)


def _all_of(path: Path) -> Iterator[tuple[Path, bool]]:
    """Yield a folder and what is in it, what contains something before that.

    What is in a folder can be removed when it has been yielded.

    Yields:
      A path, and whether it is a folder.
    """
    if os.path.isdir(path):
        disk.make_removable(path)
        yield path, True
        for name, status in folders.below(path):
            is_folder = stat.S_ISDIR(status.st_mode)
            if is_folder:
                disk.make_removable(path / name)
            yield path / name, is_folder

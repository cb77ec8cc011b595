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
# Errors where a folder cannot be renamed, such as one of an overlay's lower layers.
_NO_RENAME = {errno.EXDEV, errno.EBUSY, errno.EINVAL, errno.EPERM, errno.EACCES}
_NO_RENAME |= {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_logger = logging.getLogger("elementsckpt")


def sweep(path: Path, notices: Notices) -> None:
    """Remove the folder if it is a save that a dead process left unfinished.

    An empty one is such a save, too: a save that is being written has its draft as soon
    as it has its name. Only `begin_at` makes its folder first, and makes it again.

    Args:
      path: The folder.
      notices: Logs warnings about the directory.

    Raises:
      WriteError: the disk refused.
    """
    found = names_in(path)
    is_hidden = path.name.startswith(".") and names.is_save(path.name[1:])
    if os.path.islink(path) or not all(map(names.is_of_save, found)):
        return
    if not found:
        if is_hidden or names.is_save(path.name):
            with contextlib.suppress(WriteError):  # There is nothing in it to remove.
                disk.remove_folder(path)
    elif names.DRAFT not in found:
        if is_hidden:
            _sweep(path, notices)
    elif is_hidden or names.MANIFEST not in found:
        _sweep_if_free(path, notices)


def try_to_sweep(path: Path, notices: Notices) -> None:
    """Sweep; failing only warns."""
    with _warning(path, notices):
        sweep(path, notices)


def _sweep_if_free(path: Path, notices: Notices) -> None:
    draft = path / names.DRAFT
    try:
        file = files.File(draft, to_lock=True)
    except CheckpointError:
        return
    with file:
        # Otherwise it is being written, or has just been committed.
        if not (descriptors.lock(file.fd) and descriptors.is_at(file.fd, draft)):
            return
        where = _sweep(path, notices)
    if os.path.lexists(where):  # NFS and FUSE keep what is open.
        _remove_emptied(where)


def _sweep(path: Path, notices: Notices) -> Path:
    _logger.info("Removing %s, which was left there unfinished.", path)
    return _remove(path, notices)


def remove(
    path: Path,
    notices: Notices,
    *,
    known: Sequence[str] | None = None,
    keep_folder: bool = False,
    fsync: bool = False,
) -> None:
    """Remove a save folder; failing only warns.

    It gets a hidden name first, so a save is removed at once or not at all. At a path
    that the caller named, or where folders cannot be renamed, it becomes a draft again,
    which can be swept, and the draft goes last. Folders that components wrote go with
    all that is in them. Files that are not of the save stay, in a folder of the old
    name.

    Args:
      path: The folder.
      notices: Logs warnings about the directory.
      known: Names of its segments if it is a save of nothing else; it is listed only if
        more is found there. None if they are not known.
      keep_folder: Whether only its contents go.
      fsync: Whether the first step is made durable before the next.
    """
    with _warning(path, notices):
        _remove(path, notices, known, keep_folder=keep_folder, fsync=fsync)


@contextlib.contextmanager
def _warning(path: Path, notices: Notices) -> Iterator[None]:
    """Warn of a folder that cannot be removed, once for each reason."""
    try:
        yield
    except (CheckpointError, OSError) as error:
        about = "remains", getattr(error, "errno", None)
        notices.warn(about, "Could not remove %s: %s", path, error)


def _remove(
    path: Path,
    notices: Notices,
    known: Sequence[str] | None = None,
    *,
    keep_folder: bool = False,
    fsync: bool = False,
) -> Path:
    """Remove a save folder as far as possible; return where it is, or was."""
    where = path
    try:
        here = folders.names_in(path) if known is None else [names.MANIFEST, *known]
        is_save = names.MANIFEST in here
        if is_save:
            _require_removable(path, here)
        if not keep_folder:
            where = _hide(path, fsync=fsync)
        if is_save:
            _take_back(where, path, fsync=fsync)
        if known is not None and where == path:
            here = folders.names_in(path)  # Only what is hidden goes without its draft.
        _remove_contents(where, here, fsync=fsync and is_save and where == path)
        if not keep_folder and not _remove_emptied(where):
            _remove_others(where, path, notices)
    except CheckpointError as error:
        # What is not found was removed by another process.
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
    return where


def _remove_others(where: Path, path: Path, notices: Notices) -> None:
    """Remove what else is of the save; for files of others, the old name comes back."""
    _remove_contents(where, folders.names_in(where), fsync=False)
    if not _remove_emptied(where):
        _tell_of_others(where, path, notices)


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
    if not names.is_save(path.name):
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
        # Otherwise another process, which removes it too, was faster.
        if where != path and os.path.lexists(where / names.MANIFEST):
            with contextlib.suppress(WriteError):
                disk.rename(where, path)
        raise
    if fsync and where == path:
        disk.sync_folder(path)


def _remove_contents(path: Path, here: Sequence[str], *, fsync: bool) -> None:
    """Remove what is of a save, the draft last: with a draft, the rest can be swept.

    The draft stays while a component's folder does, in which files are still open.
    """
    last = names.DRAFT, names.MANIFEST
    for name in sorted(filter(names.is_of_save, here)):
        if name not in last:
            _remove_entry(path / name)
    own = filter(names.FOLDER.fullmatch, here)
    is_stuck = any(os.path.lexists(path / name) for name in own)
    if any(name in here for name in last) and not is_stuck:
        if fsync:
            disk.sync_folder(path)
        disk.remove(path / names.DRAFT)


def _require_removable(path: Path, here: Sequence[str]) -> None:
    """Refuse to remove a save that would stay in part, such as one of another user.

    Raises:
      WriteError: a folder may not be emptied, or removed.
    """
    own = (path / name for name in here if names.FOLDER.fullmatch(name))
    inner = [x for folder in own for x, is_folder in _all_of(folder) if is_folder]
    disk.require_removable(path, inner)


def _remove_emptied(path: Path) -> bool:
    """Remove a folder; return False if it is not empty, as others write to it."""
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
        for inner, is_folder in reversed(list(_all_of(path))):
            (_remove_emptied if is_folder else disk.remove)(inner)
        return
    try:
        disk.remove(path)
    except WriteError as error:
        if error.errno != errno.ENOENT and not _is_folder(path):
            raise


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _all_of(path: Path) -> Iterator[tuple[Path, bool]]:
    """Yield a folder and all that is in it; links are not followed.

    Yields:
      A path, and whether it is a folder; a folder before its contents, which may be
      removed from then on.
    """
    if _is_folder(path):
        disk.make_removable(path)
        yield path, True
        for name, status in folders.below(path):
            is_folder = stat.S_ISDIR(status.st_mode)
            if is_folder:
                disk.make_removable(path / name)
            yield path / name, is_folder

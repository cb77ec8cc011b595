"""Save folders that are being written, and their removal.

A draft is a folder with a locked `.manifest.json` and no `manifest.json`. Renaming the
one to the other is the commit; the lock tells a save in progress from what a process
that died has left. Folders come into being under a hidden name, and vanish under one
where they can be renamed, so that whatever has a name without a dot is a save, was made
by this library for one, or belongs to somebody else and is left alone.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import stat
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

from ..errors import CheckpointError, SaveExistsError, WriteError
from ..format import manifest
from ..system import forks, job
from ..user.notices import Notices
from . import disk

SAVE = re.compile(r"\d{8}T\d{6}F\d{6}(--?\d+)?")
SEGMENT = re.compile(r".+-(\d{6,})-\d{5,}\.safetensors")
HIDDEN = re.compile(rf"\.{SAVE.pattern}")
DRAFT = ".manifest.json"
_ATTEMPTS = 100
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOENT}
# What is said of folders that get no other name, as by an overlay of its lower layers.
_NO_RENAME = {errno.EXDEV, errno.EBUSY, errno.EINVAL, errno.EPERM, errno.EACCES}
_NO_RENAME |= {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_reached: set[Path] = set()  # Folders to which durable entries lead.
_logger = logging.getLogger("elementsckpt")


class Draft:
    """A save folder that is being written.

    Args:
      path: The folder.
      made: Folders that were made for it, outermost first.
      file: Its open and locked manifest draft.
      fsync: Whether to make it durable.

    Attributes:
      unlock: Leaves it to be swept; in `finally`, no handler comes before it.
    """

    def __init__(
        self, path: Path, made: list[Path], file: disk.Descriptor, *, fsync: bool
    ) -> None:
        self.path = path
        self.unlock = file.close
        self._made = made
        self._file = file
        self._fsync = fsync
        self._is_refused = False  # It has its name, which could not be made durable.
        forks.watch(self)

    def _after_fork(self) -> None:
        # It is the parent's, to finish or abandon, and so is the lock.
        self._file.close()

    def commit(self, content: bytes) -> None:
        """Make the folder a save: complete and, with fsync, durable on return.

        Everything the manifest relies on is durable before its name is.

        Raises:
          WriteError: the disk refused; the caller should `abandon` it.
        """
        draft = self.path / DRAFT
        disk.write(self._file.fd, content, 0, path=draft)
        if self._fsync:
            disk.sync(self._file.fd, path=draft)
            disk.sync_folder(self.path)
        disk.rename(draft, self.path / manifest.NAME)
        if self._fsync:
            self._sync_name()
        self._file.close()

    def _sync_name(self) -> None:
        try:
            disk.sync_folder(self.path)
            folders = self._relied_on()
            for folder in folders:
                disk.sync_folder(folder)
        except CheckpointError:
            self._is_refused = True
            raise
        _reached.update(folders)

    def _relied_on(self) -> list[Path]:
        """Return the folders whose entries lead to this one, innermost first.

        The directory, its parent, and the parents of folders made for this save; once
        in a process, all up to where the file system begins, as another process may
        have made some of them that died, or synced nothing.
        """
        directory = self.path.parent
        made = [folder.parent for folder in reversed(self._made)]
        above = [directory.parent, *_above(directory)]
        return list(dict.fromkeys([directory, *above, *made]))

    def abandon(self) -> None:
        """Remove what was written, and the folders made for it; failing only warns.

        Nothing is done if it was committed or abandoned already. What is left after an
        interrupt is not locked, so that it can be swept.
        """
        try:
            if self._file.is_open and not self.is_committed:
                keep_folder = self.path not in self._made
                remove(self.path, keep_folder=keep_folder, fsync=self._fsync)
                _remove_folders([x for x in self._made if x != self.path])
        finally:
            self._file.close()

    @property
    def is_committed(self) -> bool:
        """Whether it is a save, which others may rely on already."""
        if self._is_refused:
            return False
        return disk.is_at(self._file.fd, self.path / manifest.NAME)


def _above(path: Path) -> Iterator[Path]:
    """Yield folders up to one that is known to be reached, or the file system's top."""
    for folder in (path, *path.parents):
        yield folder
        if folder in _reached or os.path.ismount(folder):
            return


def begin(
    directory: Path, step: int | None, *, fsync: bool, is_hidden: bool = False
) -> Draft:
    """Begin a save in a directory, under a name that no other has.

    With `is_hidden` it never becomes one: it keeps a name under which it is swept if
    the process dies.
    """
    made: list[Path] = []
    now = datetime.now(timezone.utc)
    for attempt in range(_ATTEMPTS):
        name = save_name(now + timedelta(microseconds=attempt), step)
        path = directory / (f".{name}" if is_hidden else name)
        file: disk.Descriptor | None = None
        try:
            made += _make_folders(directory)
            file = _make_draft(path)
            return Draft(path, [*made, path], file, fsync=fsync)
        except _TakenError:
            pass
        except BaseException:
            if file is not None:
                file.close()
            _remove_folders(made)
            raise
    raise WriteError(
        f"Cannot make a save folder in {directory}: {_ATTEMPTS} times something was in "
        f"the way, or the directory vanished. Check what it is and who else uses it."
    )


class _TakenError(Exception):
    """There is something of this name, or another process swept it away."""


def _make_draft(path: Path) -> disk.Descriptor:
    """Make a folder that has its locked draft from the first moment."""
    hidden = path.with_name(f".{path.name.lstrip('.')}")
    if os.path.lexists(path):
        raise _TakenError
    file: disk.Descriptor | None = None
    try:
        disk.make_folder(hidden)
        file = disk.create(hidden / DRAFT)
        if _is_lost(file):
            raise _TakenError
        if hidden != path:
            disk.rename(hidden, path)
        return file
    except BaseException as error:
        try:
            if not isinstance(error, _TakenError):
                _remove_new(file, hidden, path)
        finally:
            if file is not None:
                file.close()
        cause = error.__cause__ or error
        if isinstance(cause, OSError) and cause.errno in _TAKEN:
            raise _TakenError from error
        raise


def _remove_new(file: disk.Descriptor | None, hidden: Path, path: Path) -> None:
    """Remove what was made of a save folder, wherever it is by now."""
    if file is None:
        try_to_sweep(hidden)  # It may be somebody else's.
        return
    for folder in (hidden, path):
        if disk.is_at(file.fd, folder / DRAFT):
            remove(folder)


def _is_lost(file: disk.Descriptor) -> bool:
    """Tell whether a sweep was faster than the lock of a new draft."""
    return disk.lock(file.fd) is False or disk.is_removed(file.fd)


def begin_at(path: Path, *, fsync: bool) -> Draft:
    """Begin a save in this very folder.

    Raises:
      SaveExistsError: it holds something already.
    """
    if names_in(path):
        sweep(path)
    made = _make_folders(path.parent)
    file: disk.Descriptor | None = None
    is_lost = False
    try:
        file = _make_draft_at(path, made)
        is_lost = _is_lost(file)
        if is_lost:
            raise _busy(path)
        if disk.names_in(path) != [DRAFT]:  # Another save was faster, and is complete.
            raise _full(path)
        return Draft(path, made, file, fsync=fsync)
    except BaseException as error:
        try:
            if file is not None and not is_lost:
                _remove_draft(file, path)
            elif not isinstance(error, CheckpointError):  # It came as a file was made.
                try_to_sweep(path)
        finally:
            if file is not None:
                file.close()
            _remove_folders(made)
        raise


def _remove_draft(file: disk.Descriptor, path: Path) -> None:
    """Remove a draft that is new, and not what others have put beside it."""
    if disk.is_at(file.fd, path / DRAFT):
        with contextlib.suppress(CheckpointError):
            disk.remove(path / DRAFT)


def _make_draft_at(path: Path, made: list[Path]) -> disk.Descriptor:
    """Make the draft in a folder, and the folder if it is not there, or not any more.

    A sweep may take it for a leftover, as long as it is empty.
    """
    while True:
        with contextlib.suppress(FileExistsError):
            disk.make_folder(path)
            made.append(path)
        if disk.is_missing(path):
            continue
        if _is_being_written(path):
            raise _busy(path)
        if not os.path.isdir(path) or disk.names_in(path):
            raise _full(path)
        try:
            return disk.create(path / DRAFT)
        except WriteError as error:
            if error.errno == errno.EEXIST:
                raise _busy(path) from error
            if error.errno != errno.ENOENT or os.path.lexists(path):
                raise


def _is_being_written(path: Path) -> bool:
    try:
        with disk.File(path / DRAFT, to_lock=True) as file:
            return disk.lock(file.fd) is False
    except CheckpointError:
        return False


def _busy(path: Path) -> SaveExistsError:
    remedy = "choose another path, or wait until it is finished."
    return _taken(path, "another save is being written there", remedy)


def _full(path: Path) -> SaveExistsError:
    remedy = "choose another path or remove it first; it was not touched."
    return _taken(path, _occupied(path), remedy)


def _taken(path: Path, why: str, remedy: str) -> SaveExistsError:
    process = job.current()
    if process is None:
        return SaveExistsError(f"Cannot save to {path}: {why}. {remedy.capitalize()}")
    return SaveExistsError(
        f"Cannot save to {path}: {why}. This is {process}: if others of them save "
        f"there, too, let process 0 alone write, with Checkpoint(..., write=rank == "
        f"0), or call save_pytree() in that one only. If not, {remedy}"
    )


def _occupied(path: Path) -> str:
    if os.path.lexists(path / manifest.NAME):
        return "it holds a save already"
    if os.path.isdir(path):
        return f"it {contents(path)}"
    return leads_nowhere(path) or "it is a file"


def save_name(now: datetime, step: int | None) -> str:
    """Return the name of a save folder, as elements would."""
    stamp = now.strftime("%Y%m%dT%H%M%SF%f")
    return stamp if step is None else f"{stamp}-{step:012d}"


def _make_folders(path: Path) -> list[Path]:
    """Make a folder and its parents; return those that were made, outermost first."""
    made: list[Path] = []
    missing = [p for p in [path, *path.parents] if not os.path.exists(p)]
    why = leads_nowhere(path)
    if why:
        raise WriteError(
            f"Cannot save to {path}: {why}. Mount or make what it leads to, or choose "
            f"another directory.",
            errno.ENOENT,
        )
    try:
        for folder in reversed(missing):
            with contextlib.suppress(FileExistsError):
                disk.make_folder(folder)
                made.append(folder)
    except BaseException:
        _remove_folders(made)
        raise
    return made


def _remove_folders(made: list[Path]) -> None:
    for folder in reversed(made):
        with contextlib.suppress(CheckpointError):
            disk.remove_folder(folder)


# Removing


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
    names = names_in(path)
    is_hidden = HIDDEN.fullmatch(path.name) is not None
    if os.path.islink(path) or not all(map(_is_ours, names)):
        return
    if not names and (is_hidden or SAVE.fullmatch(path.name)):
        with contextlib.suppress(WriteError):  # There is nothing in it to remove.
            disk.remove_folder(path)
        return
    if not is_hidden and (DRAFT not in names or manifest.NAME in names):
        return
    said = Notices() if notices is None else notices
    if DRAFT in names:
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
        file = disk.File(path / DRAFT, to_lock=True)
    except CheckpointError:
        return
    with file:
        # Else it is being written, or has just been committed.
        if not (disk.lock(file.fd) and disk.is_at(file.fd, path / DRAFT)):
            return
        where = _sweep(path, notices)
    if os.path.lexists(where):  # NFS and FUSE keep what is open.
        _remove_emptied(where)


def _sweep(path: Path, notices: Notices) -> Path:
    _logger.info("Removing %s, which was left there unfinished.", path)
    return _remove(path, notices, keep_folder=False, fsync=False)


def _is_ours(name: str) -> bool:
    if name in (DRAFT, manifest.NAME):
        return True
    return any(pattern.fullmatch(name) for pattern in (SEGMENT, manifest.FOLDER))


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
        is_save = os.path.lexists(path / manifest.NAME)
        if is_save:
            _require_removable(path)
        if not keep_folder:
            where = _hide(path, fsync=fsync)
        if is_save:
            _take_back(where, path, fsync=fsync)
        _remove_contents(where, fsync=fsync and is_save and where == path)
        left = disk.names_in(where)
        if keep_folder or DRAFT in left:
            return where
        if left:
            about = "files of others"
            notices.warn(about, "Files that are not of the save stay in %s.", path)
            if where != path:
                disk.rename(where, path)
        else:
            _remove_emptied(where)
    except CheckpointError as error:
        if not isinstance(error.__cause__, FileNotFoundError):  # Else it is gone.
            raise
    return where


def _hide(path: Path, *, fsync: bool) -> Path:
    """Give a save folder a hidden name; return where it is then."""
    if not SAVE.fullmatch(path.name):
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
        disk.rename(where / manifest.NAME, where / DRAFT)
    except WriteError:
        # Else another process, which removes it too, was faster.
        if where != path and os.path.lexists(where / manifest.NAME):
            with contextlib.suppress(WriteError):
                disk.rename(where, path)
        raise
    if fsync and where == path:
        disk.sync_folder(path)


def _remove_contents(path: Path, *, fsync: bool) -> None:
    """Remove what is of a save, the draft at last, so that it can be swept till then.

    It stays if a folder of a component does, in which files are open somewhere.
    """
    for name in sorted(disk.names_in(path)):
        if _is_ours(name) and name != DRAFT:
            _remove_entry(path / name)
    left = disk.names_in(path)
    if DRAFT in left and not any(map(manifest.FOLDER.fullmatch, left)):
        if fsync:
            disk.sync_folder(path)
        disk.remove(path / DRAFT)


def _require_removable(path: Path) -> None:
    """Refuse to begin what could not end: a half of a save is neither there nor gone.

    In a directory of several users, a save of another one can be such.

    Raises:
      WriteError: a folder may not be emptied, or removed.
    """
    names = filter(manifest.FOLDER.fullmatch, disk.names_in(path))
    own = [path / name for name in names if not os.path.islink(path / name)]
    inner = [x for folder in own for x, is_folder in _all_of(folder) if is_folder]
    disk.require_removable(path, inner)


def _remove_emptied(path: Path) -> None:
    """Remove a folder, unless it is gone, or another process begins to write to it."""
    try:
        disk.remove_folder(path)
    except WriteError as error:
        if error.errno not in _TAKEN:
            raise


def _remove_entry(path: Path) -> None:
    """Remove a file, a link, or the folder of a component; other folders stay."""
    if os.path.islink(path) or not os.path.isdir(path):
        disk.remove(path)
    elif manifest.FOLDER.fullmatch(path.name):
        _remove_folder(path)


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
        for name, status in disk.below(path):
            is_folder = stat.S_ISDIR(status.st_mode)
            if is_folder:
                disk.make_removable(path / name)
            yield path / name, is_folder


# Listing


def names_in(path: Path) -> list[str]:
    """Return the names in a folder, none if it cannot be listed."""
    try:
        return disk.names_in(path)
    except CheckpointError:
        return []


def leads_nowhere(path: Path) -> str:
    """Say which link in a path leads to nothing, for errors; "" if none does."""
    link = disk.dangling(path)
    if link is None:
        return ""
    return f"{link} is a link to {os.readlink(link)}, which is not there"


def contents(path: Path) -> str:
    """Say what a folder holds, for errors."""
    names = sorted(names_in(path))
    if not names:
        return "is empty"
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"holds {', '.join(names[:8])}{more}"

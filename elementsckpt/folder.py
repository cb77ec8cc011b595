"""Directories and save folders: find, begin, commit, prune, sweep.

A save being written is a folder with a locked `.manifest.json` and no
`manifest.json`. Renaming the one to the other is the commit; the lock tells a save in
progress from what a process that died has left. Folders come into being and vanish
under a hidden name, so that whatever has a name without a dot is a save, was made by
this library for one, or belongs to somebody else and is left alone.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from . import disk, elements_folder, manifest
from .errors import CheckpointError, ReadError, SaveExistsError, SaveNotFoundError
from .manifest import Head

LATEST = "latest"
_DRAFT = ".manifest.json"
_LATEST_DRAFT = ".latest"
_SAVE = re.compile(r"\d{8}T\d{6}F\d{6}(--?\d+)?")
_HIDDEN = re.compile(rf"\.{_SAVE.pattern}")
_STEP = re.compile(r"\d{8}T\d{6}F\d{6}-(-?\d+)")
_SEGMENT = re.compile(r".+-(\d{6,})-\d{5,}\.safetensors")
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOENT}
_logger = logging.getLogger("elementsckpt")


@dataclass(frozen=True)
class Found:
    """A save found in a directory.

    Attributes:
      path: The save folder.
      head: What its manifest says; None if elements wrote it or it is damaged.
      error: Why it is damaged, or None.
      sequence: Its number; 0 if elements wrote it; a guess if it is damaged.
    """

    path: Path
    head: Head | None
    error: CheckpointError | None
    sequence: int

    @property
    def step(self) -> int | None:
        """Step of the run, which a folder of elements has in its name, or None."""
        if self.head is not None:
            return self.head.step
        match = _STEP.fullmatch(self.path.name)
        return int(match[1]) if match else None

    @property
    def is_original(self) -> bool:
        """Whether it was written here, under this name, as one of a sequence."""
        if self.head is None or self.head.explicit:
            return False
        return manifest.display(self.path.name) == self.head.name

    @property
    def rank(self) -> tuple[Any, ...]:
        """Sorts oldest first; a copy comes before its original."""
        explicit = self.head is not None and self.head.explicit
        group = 0 if not self.sequence else 1 if explicit else 2
        return group, self.sequence, self.is_original, self.path.name


class Directory:
    """The root that holds a run's saves.

    Args:
      path: The directory, which need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Manifests can be large, so each is read once, unless it changes.
        self._cache: dict[str, tuple[Any, Found]] = {}

    def saves(self) -> list[Found]:
        """Return the saves here, oldest first, damaged ones included."""
        found = [self._found(entry) for entry in _folders(self.path)]
        saves = [save for save in found if save is not None]
        names = {save.path.name for save in saves}
        self._cache = {k: v for k, v in self._cache.items() if k in names}
        return sorted(saves, key=lambda save: save.rank)

    def next_sequence(self) -> int:
        """Return the number of the next save."""
        return 1 + max((save.sequence for save in self.saves()), default=0)

    def _found(self, path: Path) -> Found | None:
        try:
            status = os.lstat(path / manifest.NAME)
        except OSError:
            is_old = elements_folder.is_save(path)
            return Found(path, None, None, 0) if is_old else None
        signature = status.st_mtime_ns, status.st_size, status.st_ino
        known = self._cache.get(path.name)
        if known is None or known[0] != signature:
            known = signature, _read_head(path)
            if not isinstance(known[1].error, ReadError):
                self._cache[path.name] = known
        found = known[1]
        return found if found.error is None or _looks_like_ours(path) else None

    def write_latest(self, name: str, *, fsync: bool) -> None:
        """Point `latest` at a save. It is for people: failing only warns."""
        draft = self.path / _LATEST_DRAFT
        try:
            fd = disk.create(draft, exclusive=False)
            try:
                disk.write(fd, os.fsencode(name), 0, path=draft)
                if fsync:
                    disk.sync(fd, path=draft)
            finally:
                os.close(fd)
            disk.rename(draft, self.path / LATEST)
        except CheckpointError as error:
            _logger.warning("Could not update the file 'latest': %s", error)

    def prune(self, keep: int) -> None:
        """Remove all but the newest `keep` saves that were written here."""
        ours = [save for save in self.saves() if save.is_original]
        for save in ours[:-keep]:
            remove(save.path)

    def sweep(self) -> None:
        """Remove what processes that died in the middle of a save left here."""
        for path in _folders(self.path):
            if _HIDDEN.fullmatch(path.name) or _SAVE.fullmatch(path.name):
                sweep(path)


def _folders(path: Path) -> Iterator[Path]:
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield path / entry.name
    except (FileNotFoundError, NotADirectoryError):
        return


def _read_head(path: Path) -> Found:
    where = path / manifest.NAME
    try:
        head = manifest.decode_head(disk.read_file(where), str(where))
    except CheckpointError as error:
        return Found(path, None, error, _guess_sequence(path))
    return Found(path, head, None, head.sequence)


def _looks_like_ours(path: Path) -> bool:
    """Tell a damaged save from a folder of others that has a `manifest.json`."""
    if _SAVE.fullmatch(path.name) or any(map(_SEGMENT.fullmatch, _names(path))):
        return True
    try:
        return manifest.FORMAT.encode() in disk.read_file(path / manifest.NAME)
    except CheckpointError:
        return False


def _guess_sequence(path: Path) -> int:
    """Return the highest sequence in the names of a damaged save's segments."""
    matches = [_SEGMENT.fullmatch(name) for name in _names(path)]
    return max((int(match[1]) for match in matches if match), default=1)


def _names(path: Path) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


# Finding


def find(path: Path, directory: Directory | None = None) -> list[Found]:
    """Return the save at a path, or those of a directory, newest first.

    Args:
      path: A save folder or a directory.
      directory: The directory, if the caller has it already.

    Raises:
      SaveNotFoundError: there is no save.
    """
    own = directory is not None and directory.path == path
    here = None if own else _save_at(path)
    if here is not None and here.error is None and here.head is not None:
        return [here]
    listing = directory if own and directory is not None else Directory(path)
    # Stray files in a directory do not hide the saves in it.
    saves = listing.saves()[::-1] or ([here] if here is not None else [])
    if not saves:
        raise SaveNotFoundError(f"There is no save in {path}: {_describe(path)}.")
    return saves


def _save_at(path: Path) -> Found | None:
    if os.path.lexists(path / manifest.NAME):
        return _read_head(path)
    return Found(path, None, None, 0) if elements_folder.is_save(path) else None


def _describe(path: Path) -> str:
    if not path.exists():
        parent = next(p for p in path.parents if p.exists())
        return f"that path was not found ({parent} is there and {_contents(parent)})"
    if not path.is_dir():
        return "it is a file, and a save is a folder"
    if (path / _DRAFT).exists():
        return "it is a save that was never finished"
    return f"the folder {_contents(path)}"


def _contents(path: Path) -> str:
    names = sorted(_names(path))
    if not names:
        return "is empty"
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"holds {', '.join(names[:8])}{more}"


# Writing


class Draft:
    """A save folder that is being written.

    Args:
      path: The folder.
      made: Folders that were made for it, outermost first.
      fd: Its open and locked manifest draft.
      fsync: Whether to make it durable.
    """

    def __init__(self, path: Path, made: list[Path], fd: int, *, fsync: bool) -> None:
        self.path = path
        self._made = made
        self._fd = fd
        self._fsync = fsync

    def commit(self, content: bytes) -> None:
        """Make the folder a save: complete and, with fsync, durable on return.

        Everything the manifest relies on is durable before its name is.

        Raises:
          WriteError: the disk refused; the caller should `abandon` it.
        """
        draft = self.path / _DRAFT
        disk.write(self._fd, content, 0, path=draft)
        if self._fsync:
            disk.sync(self._fd, path=draft)
            disk.sync_folder(self.path)
        disk.rename(draft, self.path / manifest.NAME)
        if self._fsync:
            disk.sync_folder(self.path)
            for folder in reversed(self._made or [self.path]):
                disk.sync_folder(folder.parent)
        self._close()

    def abandon(self) -> None:
        """Remove what was written, and the folders made for it; failing only warns."""
        remove(self.path, keep_folder=self.path not in self._made)
        for folder in reversed(self._made):
            if folder != self.path:
                with contextlib.suppress(CheckpointError):
                    disk.remove_folder(folder)
        self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def begin(directory: Path, step: int | None, *, fsync: bool) -> Draft:
    """Begin a save in a directory, under a name that no other has."""
    made = _make_folders(directory)
    now = datetime.now(timezone.utc)
    while True:
        path = directory / save_name(now, step)
        try:
            return Draft(path, [*made, path], _make_draft(path), fsync=fsync)
        except _TakenError:
            now += timedelta(microseconds=1)
        except CheckpointError:
            _remove_folders(made)
            raise


class _TakenError(Exception):
    """There is something of this name, or another process swept it away."""


def _make_draft(path: Path) -> int:
    """Make a save folder that has its locked draft from the first moment."""
    hidden = path.with_name(f".{path.name}")
    if os.path.lexists(path):
        raise _TakenError
    fd = -1
    try:
        disk.make_folder(hidden)
        fd = disk.create(hidden / _DRAFT)
        disk.lock(fd)
        disk.rename(hidden, path)
        return fd
    except (FileExistsError, CheckpointError) as error:
        if fd >= 0:
            os.close(fd)
        cause = error.__cause__ or error
        if isinstance(cause, OSError) and cause.errno in _TAKEN:
            raise _TakenError from error
        remove(hidden)
        raise


def begin_at(path: Path, *, fsync: bool) -> Draft:
    """Begin a save in this very folder.

    Raises:
      SaveExistsError: it holds something already.
    """
    sweep(path)
    made = _make_folders(path.parent)
    try:
        disk.make_folder(path)
        made.append(path)
    except FileExistsError:
        if not path.is_dir() or _names(path):
            raise SaveExistsError(
                f"Cannot save to {path}: {_occupied(path)}. Choose another path or "
                f"remove it first; it was not touched."
            ) from None
    try:
        fd = disk.create(path / _DRAFT)
    except CheckpointError:
        _remove_folders(made)
        raise
    disk.lock(fd)
    return Draft(path, made, fd, fsync=fsync)


def _occupied(path: Path) -> str:
    if os.path.lexists(path / manifest.NAME) or elements_folder.is_save(path):
        return "it holds a save already"
    return f"it {_contents(path)}" if path.is_dir() else "it is a file"


def save_name(now: datetime, step: int | None) -> str:
    """Return the name of a save folder, as elements would."""
    stamp = now.strftime("%Y%m%dT%H%M%SF%f")
    return stamp if step is None else f"{stamp}-{step:012d}"


def _make_folders(path: Path) -> list[Path]:
    """Make a folder and its parents; return those that were made, outermost first."""
    made: list[Path] = []
    missing = [p for p in [path, *path.parents] if not p.exists()]
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):
            disk.make_folder(folder)
            made.append(folder)
    return made


def _remove_folders(made: list[Path]) -> None:
    for folder in reversed(made):
        with contextlib.suppress(CheckpointError):
            disk.remove_folder(folder)


# Removing


def sweep(path: Path) -> None:
    """Remove the folder if it is a save that a dead process left unfinished."""
    names = _names(path)
    hidden = _HIDDEN.fullmatch(path.name) is not None
    if not hidden and (_DRAFT not in names or manifest.NAME in names):
        return
    if path.is_symlink() or not all(map(_is_ours, names)):
        return
    with contextlib.ExitStack() as stack:
        if _DRAFT in names:
            try:
                file = disk.File(path / _DRAFT)
            except CheckpointError:
                return
            stack.callback(file.close)
            if not disk.lock(file.fd):
                return
        _logger.info("Removing %s, which a process that died left there.", path)
        remove(path)


def _is_ours(name: str) -> bool:
    return name in (_DRAFT, manifest.NAME) or _SEGMENT.fullmatch(name) is not None


def remove(path: Path, *, keep_folder: bool = False) -> None:
    """Remove a save folder of ours; failing only warns.

    It gets a hidden name first, so a save is removed at once or not at all. Files
    that are not ours stay, and the folder with them.

    Args:
      path: The folder.
      keep_folder: Whether only its contents go, manifest first.
    """
    try:
        if not keep_folder and _SAVE.fullmatch(path.name):
            hidden = path.with_name(f".{path.name}")
            disk.rename(path, hidden)
            path = hidden
        for name in sorted(_names(path), key=lambda name: name != manifest.NAME):
            if _is_ours(name):
                _remove_file(path / name)
        if not keep_folder and not _names(path):
            disk.remove_folder(path)
    except CheckpointError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            _logger.warning("Could not remove %s: %s", path, error)


def _remove_file(path: Path) -> None:
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        disk.remove(path)

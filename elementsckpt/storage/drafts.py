"""Save folders that are being written.

A draft is a folder with a locked `.manifest.json` and no `manifest.json`. Renaming the
one to the other is the commit; the lock tells a save in progress from what a process
that died has left. Folders are made under a hidden name, and removed under one where
folders can be renamed. So a folder whose name begins without a dot is a save, was made
by this library for one, or belongs to others and is left alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta, timezone
from pathlib import Path

from ..errors import CheckpointError, SaveExistsError, WriteError
from ..format import names
from ..format.manifest import Component, Segment
from ..system import forks, job, threads
from ..user.notices import Notices
from ..user.times import datetime
from . import descriptors, disk, files, folders, removal
from .component_files import FolderWriter
from .descriptors import Descriptor
from .paths import contents, leads_nowhere, names_in
from .segments import SaveFolder, SegmentSink
from .store import Source

_ATTEMPTS = 100
_PAUSE_S = 0.001
_reached: set[Path] = set()  # Folders to which durable entries lead.
# Smaller files are made durable together, a few that stay open until then.
_LITTLE_BYTES = 1 << 20
_LITTLE_FILES = 8


class Draft:
    """A save folder that is being written.

    Args:
      path: The folder.
      made: Folders that were made for it, outermost first; perhaps this one, too.
      file: Its open and locked manifest draft.
      fsync: Whether to make it durable.

    Attributes:
      source: Where what has been written can be read.
      fsync: Whether it is made durable.
      unlock: Leaves it to be swept; in `finally`, no handler runs before it.
    """

    def __init__(
        self, path: Path, made: list[Path], file: Descriptor, *, fsync: bool
    ) -> None:
        self.path = path
        self.source = SaveFolder(path)
        self.unlock = file.close
        self._made = made
        self._file = file
        self.fsync = fsync
        self._room_bytes = 0  # Free, as far as is known, and not yet promised.
        self._is_refused = False  # The manifest's name could not be made durable.
        self._little_files = 0
        self._unsynced: list[tuple[Descriptor, Path]] = []  # Those that are finished.
        forks.watch(self)

    def _after_fork(self) -> None:
        # The parent finishes or abandons the draft, and keeps the lock.
        self._file.close()
        self._let_go()

    def _let_go(self) -> None:
        """Close the segments, which an error may hold, too."""
        for file, _ in self._unsynced:
            file.close()

    def require_room(self, size_bytes: int) -> None:
        """Refuse to write more than there is room for.

        Raises:
          WriteError: there is less room.
        """
        if size_bytes > self._room_bytes:
            self._room_bytes = disk.require_space(self.path, size_bytes)
        self._room_bytes -= size_bytes

    def segment(self, name: str, size_bytes: int) -> SegmentSink:
        """Return a new segment, to be written, which will have about this size."""
        is_little = size_bytes < _LITTLE_BYTES and self._little_files < _LITTLE_FILES
        self._little_files += is_little
        later = self._sync_later if is_little else None
        return SegmentSink(self.path / name, fsync=self.fsync, later=later)

    def _sync_later(self, file: Descriptor, path: Path) -> None:
        self._unsynced.append((file, path))

    def reuse(self, source: Source, segment: Segment) -> None:
        """Link a segment of another save, so that it is one of this save, too.

        Raises:
          WriteError: the disk refused, or the other save is gone.
        """
        disk.link(source.path / segment.file, self.path / segment.file)

    def drop(self, segment: str) -> None:
        """Remove the link to a segment of another save."""
        if os.path.lexists(self.path / segment):
            disk.remove(self.path / segment)

    def folder(self, name: str) -> Path:
        """Make the folder of a component that writes its files itself."""
        path = self.path / name
        disk.make_folder(path)
        return path

    def files(
        self, path: Path, component: Component, earlier: Mapping[str, Path]
    ) -> FolderWriter:
        """Return what makes the files in such a folder a part of the save."""
        return FolderWriter(path, component, earlier, fsync=self.fsync)

    def commit(self, content: bytes) -> None:
        """Make the folder a save: complete and, with fsync, durable on return.

        Everything the manifest relies on is durable before its name is.

        Raises:
          WriteError: the disk refused; the caller should `abandon` it.
        """
        draft = self.path / names.DRAFT
        disk.write(self._file.fd, content, 0, path=draft)
        relied_on = self._relied_on() if self.fsync else []
        if self.fsync:
            self._sync([*self._unsynced, (self._file, draft)], relied_on)
        disk.rename(draft, self.path / names.MANIFEST)
        if self.fsync:
            self._sync_name()
        _reached.update(relied_on)  # Until then, an error removes those made for it.
        self._file.close()
        self._let_go()

    def _sync(
        self, written: Iterable[tuple[Descriptor, Path]], relied_on: Iterable[Path]
    ) -> None:
        """Make files durable, and the folders that they and the save rely on.

        All at once, as a disk that is asked for several confirms them together.
        """
        entries = ((None, folder) for folder in (self.path, *relied_on))
        threads.run(_sync_one, [*written, *entries])

    def _sync_name(self) -> None:
        try:
            disk.sync_folder(self.path)
        except CheckpointError:
            self._is_refused = True
            raise

    def _relied_on(self) -> list[Path]:
        """Return the folders whose entries lead to this one, innermost first.

        The directory, its parent, and the parents of folders made for this save. The
        first save of a process adds all folders up to the mount point: another process
        may have made some, and died before it synced them, or synced nothing.
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
            file, manifest = self._file, self.path / names.MANIFEST
            is_save = not self._is_refused and descriptors.is_at(file.fd, manifest)
            if file.fd >= 0 and not is_save:
                keep = self.path not in self._made
                removal.remove(self.path, Notices(), keep_folder=keep, fsync=self.fsync)
                _remove_folders([x for x in self._made if x != self.path])
        finally:
            self._file.close()
            self._let_go()


def _sync_one(found: tuple[Descriptor | None, Path]) -> None:
    """Make a file durable, or a folder if no file is open there."""
    file, path = found
    if file is None:
        disk.sync_folder(path)
    else:
        disk.sync(file.fd, path=path)


def _above(path: Path) -> Iterator[Path]:
    """Yield a folder and its parents, up to a durable one or the mount point."""
    for folder in (path, *path.parents):
        yield folder
        if folder in _reached or os.path.ismount(folder):
            return


def begin(
    directory: Path, step: int | None, *, fsync: bool, is_hidden: bool = False
) -> Draft:
    """Begin a save in a directory, under a name that no other has.

    With `is_hidden` the folder keeps its hidden name, under which it is swept if the
    process dies. It never becomes a save.
    """
    made: list[Path] = []
    now = datetime.now(timezone.utc)
    file: Descriptor | None = None
    try:
        for attempt in range(_ATTEMPTS):
            name = names.save_name(now + timedelta(microseconds=attempt), step)
            path = directory / (f".{name}" if is_hidden else name)
            _make_folders(directory, made)
            file = _make_draft(path)
            if file is not None:
                return Draft(path, [*made, path], file, fsync=fsync)
    except BaseException:
        if file is not None:
            file.close()
        _remove_folders(made)
        raise
    raise WriteError(
        f"Cannot make a save folder in {directory}: {_ATTEMPTS} times something was in "
        f"the way, or the directory vanished. Check what it is and who else uses it."
    )


def _make_draft(path: Path) -> Descriptor | None:
    """Make a folder that has its locked draft from the first moment.

    Returns:
      The draft; None if the name is taken, or another process swept the folder away.
    """
    hidden = path.with_name(f".{path.name.lstrip('.')}")
    file: Descriptor | None = None
    try:
        if os.path.lexists(path) or not disk.make_folder(hidden):
            return None
        file = disk.create(hidden / names.DRAFT)
        if _is_lost(file):
            return None
        if hidden != path:
            disk.rename(hidden, path)
        return file
    except BaseException as error:
        try:
            _remove_new(file, hidden, path)
        finally:
            if file is not None:
                file.close()
        if isinstance(error, WriteError) and error.errno in removal.TAKEN:
            return None
        raise


def _remove_new(file: Descriptor | None, hidden: Path, path: Path) -> None:
    """Remove what was made of a save folder, wherever it is by now."""
    if file is None:
        removal.try_to_sweep(hidden, Notices())  # It may be of another process.
        return
    for folder in (hidden, path):
        if descriptors.is_at(file.fd, folder / names.DRAFT):
            removal.remove(folder, Notices())


def _is_lost(file: Descriptor) -> bool:
    """Return whether a sweep was faster than the lock of a new draft."""
    for _ in range(_ATTEMPTS):
        if descriptors.lock(file.fd) is not False or descriptors.is_removed(file.fd):
            return descriptors.is_removed(file.fd)
        time.sleep(_PAUSE_S)  # Another process may just be testing the lock.
    return True


def begin_at(path: Path, *, fsync: bool) -> Draft:
    """Begin a save in this very folder.

    Raises:
      SaveExistsError: it holds something already.
    """
    if names_in(path):
        removal.sweep(path, Notices())
    made: list[Path] = []
    file: Descriptor | None = None
    try:
        _make_folders(path.parent, made)
        file = _make_draft_at(path, made)
        if _is_lost(file):
            raise _busy(path)
        # Another save may have been faster, and be complete.
        if folders.names_in(path) != [names.DRAFT]:
            raise _full(path)
        return Draft(path, made, file, fsync=fsync)
    except BaseException as error:
        try:
            if file is not None:
                _remove_draft(file, path)
            elif not isinstance(error, CheckpointError):
                # An interrupt may have come when the file had just been made.
                removal.try_to_sweep(path, Notices())
        finally:
            if file is not None:
                file.close()
            _remove_folders(made)
        raise


def _remove_draft(file: Descriptor, path: Path) -> None:
    """Remove a draft that is new, and not what others have put beside it."""
    if descriptors.is_at(file.fd, path / names.DRAFT):
        with contextlib.suppress(CheckpointError):
            disk.remove(path / names.DRAFT)


def _make_draft_at(path: Path, made: list[Path]) -> Descriptor:
    """Make the draft in a folder, and the folder if it is missing.

    While the folder is empty, a sweep may take it for a leftover and remove it.
    """
    while True:
        if disk.make_folder(path):
            made.append(path)
        if folders.is_missing(path):
            continue
        if _is_being_written(path):
            raise _busy(path)
        if not os.path.isdir(path) or folders.names_in(path):
            raise _full(path)
        try:
            return disk.create(path / names.DRAFT)
        except WriteError as error:
            if error.errno == errno.EEXIST:
                raise _busy(path) from error
            if error.errno != errno.ENOENT or os.path.lexists(path):
                raise


def _is_being_written(path: Path) -> bool:
    try:
        with files.File(path / names.DRAFT, to_lock=True) as file:
            return descriptors.lock(file.fd) is False
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
    if os.path.lexists(path / names.MANIFEST):
        return "it holds a save already"
    if os.path.isdir(path):
        return f"it {contents(path)}"
    return leads_nowhere(path) or "it is a file"


def _make_folders(path: Path, made: list[Path]) -> None:
    """Make a folder and its parents; add those that were made, outermost first."""
    if os.path.isdir(path):
        return
    missing = [p for p in [path, *path.parents] if not os.path.exists(p)]
    why = leads_nowhere(path)
    if why:
        raise WriteError(
            f"Cannot save to {path}: {why}. Mount or make what it leads to, or choose "
            f"another directory.",
            errno.ENOENT,
        )
    for folder in reversed(missing):
        if disk.make_folder(folder):
            made.append(folder)


def _remove_folders(made: list[Path]) -> None:
    for folder in reversed(made):
        with contextlib.suppress(CheckpointError):
            disk.remove_folder(folder)

"""What `convert` needs of the disk: a directory that appears whole, and copies."""

from __future__ import annotations

import contextlib
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from ..errors import SaveExistsError, WriteError
from . import disk, folders, paths
from .files import File

_CHUNK = 1 << 20


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Make a directory that gets its name when all is in it.

    Yields:
      A hidden folder beside it, to write to. If an error leaves the block, nothing is
      left, and the folders above that were missing are gone, too.

    Raises:
      SaveExistsError: something is at the path that is not an empty folder.
      WriteError: the disk refused.
    """
    path = paths.real(path)
    if paths.leads_to_file(path) or folders.names_in(path):
        raise SaveExistsError(
            f"{path} is not an empty folder. Choose another path, or remove it first; "
            f"it was not touched."
        )
    was_there = paths.is_there(path)
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    made: list[Path] = []
    try:
        for parent in [*path.parents][::-1]:
            if not paths.is_there(parent) and disk.make_folder(parent):
                made.append(parent)
        disk.make_folder(new)
        yield new
        disk.sync_folder(new)
        disk.rename(new, path)
        disk.sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(WriteError):
            _undo(new, path, was_there=was_there)
        for folder in reversed(made):
            with contextlib.suppress(WriteError):
                disk.remove_folder(folder)
        raise


def _undo(new: Path, path: Path, *, was_there: bool) -> None:
    if not paths.is_there(new) and folders.names_in(path):  # It has its name already.
        disk.rename(path, new)
        if was_there:
            disk.make_folder(path)
    if paths.is_there(new):
        _remove(new)


def _remove(folder: Path) -> None:
    found = list(folders.below(folder))
    for name, status in reversed(found):
        is_folder = stat.S_ISDIR(status.st_mode)
        (disk.remove_folder if is_folder else disk.remove)(folder / name)
    disk.remove_folder(folder)


def copy_files(source: Path, target: Path) -> None:
    """Copy all files in a folder, and in those below it, to another folder.

    Raises:
      ReadError, DamagedError: the system refused to read.
      WriteError: the disk refused.
    """
    memory = bytearray(_CHUNK)
    for name, status in folders.below(source):
        if stat.S_ISDIR(status.st_mode):
            disk.make_folder(target / name)
            continue
        new = disk.create(target / name)
        try:
            with File(source / name) as file:
                for place in range(0, file.size, _CHUNK):
                    piece = memoryview(memory)[: min(_CHUNK, file.size - place)]
                    file.read(piece, place)
                    disk.write(new.fd, piece, place, path=target / name)
        finally:
            new.close()

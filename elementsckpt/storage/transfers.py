"""What `convert` needs of the disk: a directory that appears whole, and copies."""

from __future__ import annotations

import contextlib
import os
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

    A folder that is there and empty stays the same folder, as it may be where a disk is
    mounted, or a shell is: then what was written is renamed into it, name by name.

    Yields:
      A hidden folder to write to. If an error leaves the block, nothing is left, and
      the folders above that were missing are gone, too.

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
    token = os.urandom(4).hex()
    is_there = paths.is_there(path)
    new = path / f".{token}" if is_there else path.with_name(f".{path.name}.{token}")
    made: list[Path] = []
    moves: list[tuple[Path, Path]] = []
    try:
        for parent in [*path.parents][::-1]:
            if not paths.is_there(parent) and disk.make_folder(parent):
                made.append(parent)
        disk.make_folder(new)
        yield new
        disk.sync_folder(new)
        names = sorted(folders.names_in(new))
        moves += [(new / x, path / x) for x in names] if is_there else [(new, path)]
        for source, target in moves:
            disk.rename(source, target)
        if is_there:
            disk.remove_folder(new)
        disk.sync_folder(path if is_there else path.parent)
    except BaseException:
        moved = [target for source, target in moves if not paths.is_there(source)]
        for place in (*moved, new):
            with contextlib.suppress(WriteError):
                _remove(place)
        for folder in reversed(made):
            with contextlib.suppress(WriteError):
                disk.remove_folder(folder)
        raise


def _remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, if there is one."""
    if paths.leads_to_file(path):
        disk.remove(path)
    elif paths.is_there(path):
        for name, status in reversed(list(folders.below(path))):
            is_folder = stat.S_ISDIR(status.st_mode)
            (disk.remove_folder if is_folder else disk.remove)(path / name)
        disk.remove_folder(path)


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

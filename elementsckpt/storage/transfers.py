"""What `convert` needs of the disk: a directory that appears whole, scratch, copies."""

from __future__ import annotations

import contextlib
import mmap
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CheckpointError, SaveExistsError, WriteError
from . import disk, folders, hidden, paths
from .files import File

if TYPE_CHECKING:
    import numpy as np

_CHUNK = 1 << 20
_MAP_BYTES = 64 << 20
_ALIGN = 64


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
    inner = path / path.name  # Hidden, in a folder that is there.
    hidden.sweep(inner)
    if paths.leads_to_file(path) or folders.names_in(path):
        raise SaveExistsError(
            f"{path} is not an empty folder. Choose another path, or remove it first; "
            f"it was not touched."
        )
    is_there = paths.is_there(path)
    with _parents(path), hidden.new_folder(inner if is_there else path) as new:
        yield new
        disk.sync_folder(new)
        names = sorted(folders.names_in(new))
        if is_there:
            _move([(new / name, path / name) for name in names], path)
        else:
            _move([(new, path)], path.parent)


@contextlib.contextmanager
def _parents(path: Path) -> Iterator[None]:
    """Make the folders above a path; if an error leaves the block, they are gone."""
    made: list[Path] = []
    try:
        for parent in [*path.parents][::-1]:
            if not paths.is_there(parent) and disk.make_folder(parent):
                made.append(parent)
        yield
    except BaseException:
        for folder in reversed(made):
            with contextlib.suppress(WriteError):
                disk.remove_folder(folder)
        raise


def _move(moves: Sequence[tuple[Path, Path]], folder: Path) -> None:
    """Rename all into a folder, durably, or none."""
    try:
        for source, target in moves:
            disk.rename(source, target)
        disk.sync_folder(folder)
    except BaseException:
        for target in [
            target for source, target in moves if not paths.is_there(source)
        ]:
            with contextlib.suppress(CheckpointError):
                hidden.remove(target)
        raise


class Scratch:
    """Memory that a disk stands behind, so that it need not fit into that of the host.

    Args:
      folder: Where the files are made, which are removed as soon as they are mapped.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._free: np.ndarray | None = None

    def memory(self, size_bytes: int) -> np.ndarray:
        """Return uint8[size_bytes].

        Raises:
          WriteError: there is too little room on the disk.
        """
        if self._free is None or self._free.size < size_bytes:
            self._free = self._mapped(max(size_bytes, _MAP_BYTES))
        found = self._free[:size_bytes]
        self._free = self._free[size_bytes + -size_bytes % _ALIGN :]
        return found

    def _mapped(self, size_bytes: int) -> np.ndarray:
        import numpy as np

        path = self._folder / ".scratch"
        file = disk.create(path)
        try:
            disk.reserve(file.fd, size_bytes, path=path)
            return np.frombuffer(mmap.mmap(file.fd, size_bytes), np.uint8)
        finally:
            file.close()
            disk.remove(path)


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

"""Files and folders that have a hidden name until they are whole.

Each is locked by the process that makes it. A free lock is that of a process that died:
what it left is removed by the next that makes something of the same name there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import CheckpointError, SaveExistsError, WriteError
from . import descriptors, disk, files, folders, paths
from .descriptors import Descriptor

_ATTEMPTS = 100
_END = ".elementsckpt.part"  # Other programs end names in ".part", too.


def write_file(path: Path, content: bytes) -> None:
    """Write a whole file for people, in the place of what has its name, or not at all.

    Raises:
      WriteError: the disk refused; what was there stays.
    """
    with _new(path, is_folder=False) as (new, file):
        disk.write(file.fd, content, 0, path=path)
        disk.rename(new, path)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Make a file for other programs, durable, which appears when it is whole.

    Yields:
      A file to write to. If an error leaves the block, nothing is left.

    Raises:
      SaveExistsError: there is something at the path.
      WriteError: the disk refused.
    """
    if paths.is_there(path):
        raise SaveExistsError(f"{path} is there already: remove it, or choose another.")
    with _new(path, is_folder=False) as (new, file):
        with disk.refusing(path), os.fdopen(os.dup(file.fd), "wb") as stream:
            yield stream
        disk.sync(file.fd, path=path)
        try:
            disk.link(new, path)
            disk.sync_folder(path.parent)
        except BaseException:
            if descriptors.is_at(file.fd, path):
                with contextlib.suppress(WriteError):
                    disk.remove(path)
            raise


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Make a folder with a hidden name, which is removed at the end if it still has it.

    Args:
      path: Where it would be if it were not hidden.
    """
    with _new(path, is_folder=True) as (new, _):
        yield new


@contextlib.contextmanager
def _new(path: Path, *, is_folder: bool) -> Iterator[tuple[Path, Descriptor]]:
    if not paths.is_there(path.parent):
        raise WriteError(
            f"There is no folder {path.parent} in which to write {path.name}. Make it "
            f"first, or choose another place.",
            errno.ENOENT,
        )
    sweep(path)
    new, opened = _create(path, is_folder=is_folder)
    try:
        yield new, opened
    finally:
        try:
            if not is_folder or descriptors.is_at(opened.fd, new):
                with contextlib.suppress(CheckpointError):
                    remove(new)
        finally:
            opened.close()


def _create(path: Path, *, is_folder: bool) -> tuple[Path, Descriptor]:
    for _ in range(_ATTEMPTS):
        new = path.with_name(f".{path.name}.{os.urandom(4).hex()}{_END}")
        if is_folder:
            is_new = disk.make_folder(new)
            opened = descriptors.open_folder(new) if is_new else None
        else:
            opened = disk.create(new)
        if opened is None:
            continue
        # Another process may just sweep what is not locked yet.
        is_ours = descriptors.lock(opened.fd) is not False
        if is_ours and descriptors.is_at(opened.fd, new):
            return new, opened
        opened.close()
    raise WriteError(
        f"Cannot write beside {path}: another process removes what is made there, "
        f"{_ATTEMPTS} times. Check what that is, or choose another place."
    )


def sweep(path: Path) -> None:
    """Remove what dead processes left of what they were to make at a path."""
    form = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}{re.escape(_END)}")
    for name in filter(form.fullmatch, paths.names_in(path.parent)):
        with contextlib.suppress(CheckpointError):
            _remove_if_free(path.with_name(name))


def _remove_if_free(place: Path) -> None:
    opened: Descriptor | None
    if stat.S_ISDIR(files.status(place).st_mode):
        opened = descriptors.open_folder(place)
    else:
        opened = files.File(place, to_lock=True)  # Links are refused, and stay.
    if opened is None:
        return
    try:
        if descriptors.lock(opened.fd) and descriptors.is_at(opened.fd, place):
            remove(place)
    finally:
        opened.close()


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it, if there is one."""
    if not paths.is_there(path):
        return
    if not stat.S_ISDIR(files.status(path).st_mode):
        disk.remove(path)
        return
    for name, status in reversed(list(folders.below(path))):
        is_folder = stat.S_ISDIR(status.st_mode)
        (disk.remove_folder if is_folder else disk.remove)(path / name)
    disk.remove_folder(path)

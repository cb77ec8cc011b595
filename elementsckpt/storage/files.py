"""Files that are read; a path may lead to anything, and a file may end too early."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from ..errors import CheckpointError, DamagedError, ReadError, reason
from .descriptors import CALL_BYTES, Buffer, Descriptor

AnyPath = str | Path
AnyFile = TypeVar("AnyFile", bound="File")

_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)
# Links could lead out of the save folder, and opening a FIFO could wait for ever.
_READ |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_LOCK = _READ | os.O_RDWR  # NFS locks only what is open for writing.
_PIECE_BYTES = 1 << 20
MISSING = {errno.ENOENT, errno.ENOTDIR}
# Errors about the file; others are about the process. NFS reports ESTALE for an open
# file that another host has removed.
_DAMAGE = MISSING | {errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.EIO, errno.ESTALE}

# What to do about errors.
OPEN_FILES = "close files that are open, or allow more with ulimit -n"
_REMEDIES = {
    errno.EACCES: "check who may read it",
    errno.EPERM: "check who may read it",
    errno.EMFILE: OPEN_FILES,
    errno.ENFILE: OPEN_FILES,
}


class File(Descriptor):
    """A regular file that is open for reading.

    A function that opens one for itself also closes it: an exception keeps the objects
    of its frames alive.

    Args:
      path: The file. Links, FIFOs, devices and folders are refused.
      to_lock: Whether to open it such that it can be locked.

    Attributes:
      size: Its size in bytes.
      signature: Changes when the file is written to or replaced.

    Raises:
      DamagedError: there is no such file, or it is not a regular one.
      ReadError: the system refused, for lack of permission or file descriptors.
    """

    def __init__(self, path: AnyPath, *, to_lock: bool = False) -> None:
        self._path = path
        try:
            super().__init__(os.open, path, _LOCK if to_lock else _READ)
            found = os.fstat(self.fd)
        except OSError as error:
            self.close()
            raise unreadable(path, error) from error
        self.size = found.st_size
        self.signature = found.st_ino, found.st_size, found.st_mtime_ns
        if not stat.S_ISREG(found.st_mode):
            self.close()
            raise DamagedError(f"{path} is not a regular file.")

    @property
    def path(self) -> Path:
        """Path of the file, for errors."""
        return Path(self._path)

    @path.setter
    def path(self, path: Path) -> None:
        self._path = path

    def read(self, memory: Buffer, offset: int) -> None:
        """Fill `memory`, uint8[n] and writable, with the bytes from `offset` on.

        Raises:
          DamagedError: the file ends before, or the disk cannot read it.
        """
        view = memoryview(memory)
        while view:
            try:
                done = os.preadv(self.fd, [view[:CALL_BYTES]], offset)
            except OSError as error:
                raise unreadable(self.path, error) from error
            if not done:
                raise DamagedError(
                    f"{self.path} is truncated: it ends at byte {offset}, "
                    f"{len(view)} bytes early."
                )
            view, offset = view[done:], offset + done

    def stream(self) -> BinaryIO:
        """Return a stream of the file from its beginning, to be closed apart."""
        stream = os.fdopen(os.dup(self.fd), "rb")
        stream.seek(0)
        return stream

    def __enter__(self: AnyFile) -> AnyFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def status(path: Path) -> os.stat_result:
    """Return the status of what is at a path; links are not followed.

    Raises:
      DamagedError, ReadError: there is nothing, or the system refused.
    """
    try:
        return os.lstat(path)
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: AnyPath, error: OSError) -> CheckpointError:
    """Return the error to raise where the system refused to read."""
    why = reason(error)
    if error.errno == errno.ELOOP and os.path.islink(path):
        why = "it is a symbolic link, which could lead out of the save"
    message = f"Cannot read {path}: {why}."
    if error.errno in _DAMAGE:
        return DamagedError(message)
    remedy = _REMEDIES.get(error.errno or 0, "try again")
    return ReadError(f"{message} The save itself may be fine: {remedy}.")


def read_file(
    path: AnyPath,
    *,
    limit_bytes: int | None = None,
    is_text: bool = False,
    end: bytes = b"",
) -> bytearray:
    """Return the whole content of a regular file.

    Args:
      path: The file.
      limit_bytes: A larger file counts as damaged.
      is_text: Whether zero bytes in it are damage. Holes of a sparse file are zero
        bytes, so these cost neither time nor memory.
      end: What the file must end with; otherwise the rest of it is not read.

    Raises:
      DamagedError: there is no such file, it is not a regular one, or it is not what
        the arguments ask for.
      ReadError: the system refused, or it does not fit into memory.
    """
    with _open_to_hold(path) as file:
        if limit_bytes is not None and file.size > limit_bytes:
            raise DamagedError(
                f"{path} is damaged: it has {file.size} bytes, more than {limit_bytes}."
            )
        found = bytearray(min(len(end), file.size))
        file.read(found, file.size - len(found))
        if found != end:
            raise DamagedError(f"{path} is damaged: it does not end with {end!r}.")
        if is_text:
            return _text(file)
        content = bytearray(file.size)
        file.read(content, 0)
        return content


def read_start(path: AnyPath, size_bytes: int) -> tuple[bytearray, File]:
    """Return the first bytes of a regular file, and the file, which is closed.

    Raises:
      DamagedError, ReadError: as from `read_file`.
    """
    with _open_to_hold(path) as file:
        content = bytearray(min(size_bytes, file.size))
        file.read(content, 0)
        return content, file


@contextlib.contextmanager
def _open_to_hold(path: AnyPath) -> Iterator[File]:
    """Open a file of which content will be in memory."""
    with File(path) as file:
        try:
            yield file
        except MemoryError as error:
            raise ReadError(
                f"{path} does not fit into memory: it has {file.size:,} bytes. The "
                f"save itself may be fine: free memory and try again."
            ) from error


def _text(file: File) -> bytearray:
    content = bytearray()
    while len(content) < file.size:
        piece = bytearray(min(_PIECE_BYTES, file.size - len(content)))
        file.read(piece, len(content))
        if 0 in piece:
            place = len(content) + piece.index(0)
            raise DamagedError(f"{file.path} is damaged: byte {place} of it is zero.")
        content += piece
    return content

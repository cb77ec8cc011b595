"""Changes of the disk: the only module that writes, syncs, links, renames and removes.

Each call that changes the disk goes through `syscall`, the one place where a test
can make the n-th call fail, write short or be the last thing the process does.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import operator
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Set
from pathlib import Path
from typing import Any, TypeVar

from ..errors import CheckpointError, WriteError, reason
from .descriptors import CALL_BYTES, FOLDER, Buffer, Descriptor
from .files import OPEN_FILES, status

T = TypeVar("T")

_WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
# Errors of file systems that do not sync folders.
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
# Errors of a sync that are about the data; others are about the call.
_LOST = {errno.EIO, errno.ENOSPC, errno.EDQUOT}
# Errors of file systems without modes, or for files of another user.
_NO_MODES = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_AS_SELF = os.access in os.supports_effective_ids

# What to do about errors.
_SPACE = "free space, keep fewer saves with keep=, or choose another directory"
_REMEDIES = {
    errno.EACCES: "check who may write there",
    errno.EPERM: "check who may write there",
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.ENOTDIR: "a part of the path is a file, so choose another directory",
    errno.ENOENT: "it was removed or moved, so check who else uses it, and save again",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.EMFILE: OPEN_FILES,
    errno.ENFILE: OPEN_FILES,
    errno.EIO: "check the disk, or choose another directory",
}


# Makes one system call that changes the disk: syscall(call, *args). It is C code, as it
# may open a file whose number must not get lost; Python 3.10 has no such function.
if sys.version_info >= (3, 11):
    syscall: Callable[..., Any] = operator.call
else:

    def syscall(call: Callable[..., Any], *args: Any) -> Any:
        return call(*args)


def _change(path: str | Path, call: Callable[..., T], *args: Any) -> T:
    try:
        return syscall(call, *args)  # type: ignore[no-any-return]
    except OSError as error:
        raise _refused(path, error) from error


def _refused(path: str | Path, error: OSError) -> WriteError:
    remedy = _REMEDIES.get(error.errno or 0, "choose another directory")
    if error.errno != errno.ENOENT:  # Otherwise earlier saves may be gone, too.
        remedy = f"earlier saves are untouched; {remedy}"
    return WriteError(
        f"The disk refused a change to {path} ({reason(error)}): {remedy}.",
        error.errno,
    )


def make_folder(path: Path) -> bool:
    """Make one folder; its parent must exist.

    Returns:
      False if something is there already.

    Raises:
      WriteError: the disk refused.
    """
    try:
        _change(path, os.mkdir, path)
    except WriteError as error:
        if error.errno != errno.EEXIST:
            raise
        return False
    return True


@contextlib.contextmanager
def _tolerating(numbers: Set[int]) -> Iterator[None]:
    try:
        yield
    except WriteError as error:
        if error.errno not in numbers:
            raise


def require_space(path: Path, size_bytes: int) -> int:
    """Refuse to write more to a folder than its disk has room for.

    Returns:
      How many bytes are free, at least `size_bytes`.

    Raises:
      WriteError: the disk has less free space.
    """
    try:
        found = os.statvfs(path)
    except OSError:  # The write will show it.
        return size_bytes
    blocks = found.f_bfree if os.geteuid() == 0 else found.f_bavail
    free_bytes = blocks * found.f_frsize
    if found.f_blocks and free_bytes < size_bytes:
        raise WriteError(
            f"The disk has no room: {path} needs {size_bytes:,} bytes more and "
            f"{free_bytes:,} are free. Earlier saves are untouched; free space, keep "
            f"fewer saves with keep=, or choose another directory.",
            errno.ENOSPC,
        )
    return max(free_bytes, size_bytes)


def create(path: Path) -> Descriptor:
    """Open a new file for writing; none must have this name."""
    try:
        return Descriptor(syscall, os.open, path, _CREATE, 0o666)
    except OSError as error:
        raise _refused(path, error) from error


def write(fd: int, data: Buffer, offset: int, *, path: Path) -> None:
    """Write all of `data` at `offset`; a short write is continued."""
    view = memoryview(data)
    try:
        while view:
            done = syscall(os.pwrite, fd, view[:CALL_BYTES], offset)
            view, offset = view[done:], offset + done
    except OSError as error:
        raise _refused(path, error) from error


def reserve(fd: int, size_bytes: int, *, path: Path) -> None:
    """Make a file of this size, for which there is room."""
    require_space(path.parent, size_bytes)
    if hasattr(os, "posix_fallocate"):
        _change(path, os.posix_fallocate, fd, 0, size_bytes)
    else:
        _change(path, os.ftruncate, fd, size_bytes)


def sync(fd: int, *, path: Path) -> None:
    """Make the file's contents durable."""
    # What macOS calls fsync leaves them in the cache of the drive.
    command = getattr(fcntl, "F_FULLFSYNC", None)
    if command is not None:
        try:
            _change(path, fcntl.fcntl, fd, command)
            return
        except WriteError as error:  # Not all file systems know it.
            if error.errno in _LOST:
                raise
    _change(path, os.fsync, fd)


def sync_folder(path: Path) -> None:
    """Make the folder's entries durable, if it may be read and its file system can.

    It may be a folder of another user that leads to ours.
    """
    try:
        folder = Descriptor(os.open, path, FOLDER)
    except PermissionError:
        return
    except OSError as error:
        raise _refused(path, error) from error
    try:
        with _tolerating(_NO_SYNC):
            sync(folder.fd, path=path)
    finally:
        folder.close()


def rename(source: Path, target: Path) -> None:
    """Give a file its final name, replacing what has that name."""
    _change(target, os.replace, source, target)


def link(source: Path, target: Path) -> None:
    """Give a file a second name, which must be free; links are not followed."""
    _change(target, _link, source, target)


def _link(source: Path, target: Path) -> None:
    os.link(source, target, follow_symlinks=False)


def set_time(fd: int, time_ns: int, *, path: Path) -> None:
    """Set when the file was written to, in nanoseconds since the epoch."""
    _change(path, _set_time, fd, time_ns)


def _set_time(fd: int, time_ns: int) -> None:
    os.utime(fd, ns=(time_ns, time_ns))


def make_read_only(fd: int, *, path: Path) -> None:
    """Make a file read-only for all, where there are modes and it has one name.

    A file with other names is in use elsewhere, too, or is read-only already.
    """
    try:
        found = os.fstat(fd)
    except OSError:  # The mode only protects.
        return
    mode = stat.S_IMODE(found.st_mode)
    if found.st_nlink == 1 and mode & _WRITABLE:
        with _tolerating(_NO_MODES):
            _change(path, os.fchmod, fd, mode & ~_WRITABLE)


def make_removable(path: Path) -> None:
    """Let the owner of the folder remove what is in it, where there are modes."""
    mode = stat.S_IMODE(status(path).st_mode)
    if mode & stat.S_IRWXU != stat.S_IRWXU:
        with _tolerating(_NO_MODES):
            _change(path, os.chmod, path, mode | stat.S_IRWXU)


def require_removable(path: Path, inner: Iterable[Path]) -> None:
    """Refuse a folder that this process may not remove, or not empty.

    Args:
      path: The folder.
      inner: Folders in it, which are to be emptied, too.

    Raises:
      WriteError: it may not, as far as is known without trying.
    """
    is_kept = _is_kept_by_others(path)
    for folder in (path.parent, path, *inner):
        is_open = os.access(folder, os.W_OK | os.X_OK, effective_ids=_AS_SELF)
        if not is_open and not os.path.lexists(folder):
            continue  # Another process removes it, too.
        if is_kept or not is_open:
            error = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            raise _refused(folder, error)


def _is_kept_by_others(path: Path) -> bool:
    """Return whether it is in a sticky folder, and only other users may remove it."""
    parent = status(path.parent)
    owners = 0, parent.st_uid, status(path).st_uid
    return bool(parent.st_mode & stat.S_ISVTX) and os.geteuid() not in owners


def remove(path: Path) -> None:
    """Remove one file."""
    _change(path, os.unlink, path)


def remove_folder(path: Path) -> None:
    """Remove one empty folder."""
    _change(path, os.rmdir, path)


@contextlib.contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turn errors of the system while a file is written into a WriteError."""
    try:
        yield
    except CheckpointError:
        raise
    except OSError as error:
        raise _refused(path, error) from error


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Make a folder for temporary files, and remove it afterwards."""
    import tempfile  # Only `check_resume` needs it.

    with tempfile.TemporaryDirectory(prefix="elementsckpt-") as path:
        yield Path(path)

"""The only module that opens, writes, syncs, links, renames and removes.

Each call that changes the disk goes through `syscall`, the one place where a test
can make the n-th call fail, write short or be the last thing the process does.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import itertools
import operator
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from ..errors import CheckpointError, DamagedError, ReadError, WriteError, reason

T = TypeVar("T")
Buffer = Any  # One-dimensional bytes: bytes, bytearray, memoryview, uint8 ndarray.

_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)
# Links could lead out of the save folder, and opening a FIFO could wait for ever.
_READ |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_LOCK = _READ | os.O_RDWR  # NFS locks only what is open for writing.
_WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | getattr(os, "O_CLOEXEC", 0)
_CREATE = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
_MISSING = {errno.ENOENT, errno.ENOTDIR}
# Errors that tell something about the file; others tell about the process. NFS says
# ESTALE of an open file that another host has removed.
_DAMAGE = _MISSING | {errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.EIO, errno.ESTALE}
# What file systems say that sync no folders.
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
# What says something about the data, when a sync fails; the rest is about the call.
_LOST = {errno.EIO, errno.ENOSPC, errno.EDQUOT}
# What file systems say that have no modes, or for files of somebody else.
_NO_MODES = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
# Names that NFS, FUSE, AFS and SMB give to files that are removed while they are open
# somewhere; they go when they are closed.
_REMOVED = re.compile(
    r"\.(nfs[0-9a-f.]{4,}|fuse_hidden[0-9a-f]{4,}|__afs[0-9A-F]{4,}|smbdelete\w+)"
)
_AS_SELF = os.access in os.supports_effective_ids
_CALL_BYTES = 1 << 30  # Linux transfers at most 2 GiB a call.
_PIECE_BYTES = 1 << 20

# What to do about errors.
_SPACE = "free space, keep fewer saves with keep=, or choose another directory"
_OPEN_FILES = "close files that are open, or allow more with ulimit -n"
_WRITING = {
    errno.EACCES: "check who may write there",
    errno.EPERM: "check who may write there",
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.ENOTDIR: "a part of the path is a file, so choose another directory",
    errno.ENOENT: "it was removed or moved, so check who else uses it, and save again",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.EMFILE: _OPEN_FILES,
    errno.ENFILE: _OPEN_FILES,
    errno.EIO: "check the disk, or choose another directory",
}
_READING = {
    errno.EACCES: "check who may read it",
    errno.EPERM: "check who may read it",
    errno.EMFILE: _OPEN_FILES,
    errno.ENFILE: _OPEN_FILES,
}


# Makes one system call that changes the disk: syscall(call, *args). It is C code, as it
# may open a file whose number must not get lost; Python 3.10 has nothing like that.
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
    remedy = _WRITING.get(error.errno or 0, "choose another directory")
    if error.errno != errno.ENOENT:  # Else who knows what else is gone.
        remedy = f"earlier saves are untouched; {remedy}"
    return WriteError(
        f"The disk refused a change to {path} ({reason(error)}): {remedy}.",
        error.errno,
    )


class _Closing(functools.partial[Any]):
    """Is called when nobody holds it any more."""

    __del__ = property(operator.attrgetter("__call__"))


class Descriptor:
    """Something open, which is closed when nobody holds it any more.

    Ctrl-C and other handlers of signals may come between any two steps of Python: when
    something has been opened and its number not yet kept, or was closed and its number
    not yet forgotten. Here, both are one step, taken by code in C, as is what follows
    when the object is let go.

    Args:
      call: What opens it and returns its number.
      args: Arguments for that.

    Attributes:
      close: Closes it, once; in `finally`, no handler comes before it.
    """

    def __init__(self, call: Callable[..., int], *args: Any) -> None:
        self._numbers = [-1]  # It is above that while it is open.
        take = iter(self._numbers.pop, -1)
        self.close: Callable[[], object] = _Closing(next, map(os.close, take), None)
        self._numbers.extend(map(call, *zip(args)))

    @property
    def fd(self) -> int:
        """Its number; another thread that uses it must hold the object meanwhile."""
        return self._numbers[-1] if self._numbers else -1

    @property
    def is_open(self) -> bool:
        """Whether it has not been closed."""
        return self.fd >= 0


# Changes


def make_folder(path: Path) -> None:
    """Make one folder; its parent must exist.

    Raises:
      FileExistsError: something is there already.
      WriteError: the disk refused.
    """
    try:
        _change(path, os.mkdir, path)
    except WriteError as error:
        if isinstance(error.__cause__, FileExistsError):
            raise error.__cause__ from None
        raise


def require_space(path: Path, size_bytes: int) -> int:
    """Refuse to begin what cannot end: to write more to a folder than there is room.

    Returns:
      How many bytes there are, at least `size_bytes`.

    Raises:
      WriteError: the disk has less free space.
    """
    try:
        status = os.statvfs(path)
    except OSError:  # It will be tried.
        return size_bytes
    blocks = status.f_bfree if os.geteuid() == 0 else status.f_bavail
    free_bytes = blocks * status.f_frsize
    if status.f_blocks and free_bytes < size_bytes:
        raise WriteError(
            f"The disk has no room: {path} needs {size_bytes:,} bytes more and "
            f"{free_bytes:,} are free. Earlier saves are untouched; free space, keep "
            f"fewer saves with keep=, or choose another directory.",
            errno.ENOSPC,
        )
    return max(free_bytes, size_bytes)


def create(path: Path, *, exclusive: bool = True) -> Descriptor:
    """Open a file for writing, new unless `exclusive` is False."""
    flags = _CREATE | (os.O_EXCL if exclusive else os.O_TRUNC)
    try:
        return Descriptor(syscall, os.open, path, flags, 0o666)
    except OSError as error:
        raise _refused(path, error) from error


def write(fd: int, data: Buffer, offset: int, *, path: Path) -> None:
    """Write all of `data` at `offset`; a short write is continued."""
    view = memoryview(data)
    while view:
        done = _change(path, os.pwrite, fd, view[:_CALL_BYTES], offset)
        view, offset = view[done:], offset + done


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

    It may be one that leads to ours and belongs to somebody else.
    """
    try:
        folder = Descriptor(os.open, path, _FOLDER)
    except PermissionError:
        return
    except OSError as error:
        raise _refused(path, error) from error
    try:
        sync(folder.fd, path=path)
    except WriteError as error:
        if error.errno not in _NO_SYNC:
            raise
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


def make_read_only(fd: int, *, path: Path) -> None:
    """Let nobody write to the file, where there are modes and it has one name.

    With other names it is somebody else's, too, or is read-only already.
    """
    try:
        status = os.fstat(fd)
    except OSError:  # It only protects.
        return
    mode = stat.S_IMODE(status.st_mode)
    if status.st_nlink == 1 and mode & _WRITABLE:
        with _if_there_are_modes():
            _change(path, os.fchmod, fd, mode & ~_WRITABLE)


def make_removable(path: Path) -> None:
    """Let the owner of the folder remove what is in it, where there are modes."""
    mode = stat.S_IMODE(_status(path).st_mode)
    if mode & stat.S_IRWXU != stat.S_IRWXU:
        with _if_there_are_modes():
            _change(path, os.chmod, path, mode | stat.S_IRWXU)


def require_removable(path: Path, inner: Iterable[Path]) -> None:
    """Refuse a folder that this process may not remove, or not empty.

    Args:
      path: The folder.
      inner: Folders in it, which are to be emptied, too.

    Raises:
      WriteError: it may not, as far as can be told without trying.
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
    """Tell whether it is in a sticky folder, and only others may remove it."""
    parent = _status(path.parent)
    owners = 0, parent.st_uid, _status(path).st_uid
    return bool(parent.st_mode & stat.S_ISVTX) and os.geteuid() not in owners


@contextlib.contextmanager
def _if_there_are_modes() -> Iterator[None]:
    try:
        yield
    except WriteError as error:
        if error.errno not in _NO_MODES:
            raise


def remove(path: Path) -> None:
    """Remove one file."""
    _change(path, os.unlink, path)


def remove_folder(path: Path) -> None:
    """Remove one empty folder."""
    _change(path, os.rmdir, path)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Give a new folder for temporary files, which is gone afterwards."""
    import tempfile  # Here, as only tests of a training need it.

    with tempfile.TemporaryDirectory(prefix="elementsckpt-") as path:
        yield Path(path)


# Reading


class File(Descriptor):
    """A regular file open for reading, closed when nobody holds it any more.

    What opens it for itself closes it, as exceptions keep alive what was at work.

    Args:
      path: The file. Links, FIFOs, devices and folders are refused.
      to_lock: Whether to open it such that it can be locked.

    Attributes:
      size: Its size in bytes.
      signature: Changes when somebody writes to the file or replaces it.

    Raises:
      DamagedError: there is no such file, or it is not a regular one.
      ReadError: the system refused, for lack of permission or file descriptors.
    """

    def __init__(self, path: Path, *, to_lock: bool = False) -> None:
        self.path = path
        try:
            super().__init__(os.open, path, _LOCK if to_lock else _READ)
            status = os.fstat(self.fd)
        except OSError as error:
            self.close()
            raise _unreadable(path, error) from error
        self.size = status.st_size
        self.signature = status.st_ino, status.st_size, status.st_mtime_ns
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise DamagedError(f"{path} is not a regular file.")

    def read(self, memory: Buffer, offset: int) -> None:
        """Fill `memory`, uint8[n] and writable, with the bytes from `offset` on.

        Raises:
          DamagedError: the file ends before, or the disk cannot read it.
        """
        view = memoryview(memory)
        while view:
            try:
                done = os.preadv(self.fd, [view[:_CALL_BYTES]], offset)
            except OSError as error:
                raise _unreadable(self.path, error) from error
            if not done:
                raise DamagedError(
                    f"{self.path} is truncated: it ends at byte {offset}, "
                    f"{len(view)} bytes early."
                )
            view, offset = view[done:], offset + done

    def __enter__(self) -> File:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _status(path: Path) -> os.stat_result:
    try:
        return os.lstat(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    why = reason(error)
    if error.errno == errno.ELOOP and os.path.islink(path):
        why = "it is a symbolic link, which could lead out of the save"
    message = f"Cannot read {path}: {why}."
    if error.errno in _DAMAGE:
        return DamagedError(message)
    remedy = _READING.get(error.errno or 0, "try again")
    return ReadError(f"{message} The save itself may be fine: {remedy}.")


def read_file(
    path: Path,
    *,
    limit_bytes: int | None = None,
    is_text: bool = False,
    end: bytes = b"",
) -> bytearray:
    """Return the whole content of a regular file.

    Args:
      path: The file.
      limit_bytes: Size above which it is taken for damaged.
      is_text: Whether zero bytes in it are damage. They are what the holes of a sparse
        file read as, so these cost neither time nor memory.
      end: What it must end with; otherwise the rest is not even read.

    Raises:
      DamagedError: there is no such file, or it is not a regular one, or too large, or
        not what was asked for.
      ReadError: the system refused, or it does not fit into memory.
    """
    with File(path) as file:
        if limit_bytes is not None and file.size > limit_bytes:
            raise DamagedError(
                f"{path} is damaged: it has {file.size} bytes, more than {limit_bytes}."
            )
        try:
            found = bytearray(min(len(end), file.size))
            file.read(found, file.size - len(found))
            if found != end:
                raise DamagedError(f"{path} is damaged: it does not end with {end!r}.")
            return _text(file) if is_text else _content(file)
        except MemoryError as error:
            raise ReadError(
                f"{path} does not fit into memory: it has {file.size:,} bytes. The "
                f"save itself may be fine: free memory and try again."
            ) from error


def _content(file: File) -> bytearray:
    content = bytearray(file.size)
    file.read(content, 0)
    return content


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


def folders_in(path: Path) -> list[Path]:
    """Return the folders in a folder, and the links, which may lead to folders.

    Returns:
      None of them if there is no such folder.

    Raises:
      ReadError: the system refused.
    """
    try:
        found = [x.name for x in _entries(path) if x.is_symlink() or x.is_dir()]
        return [path / name for name in found]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _unreadable(path, error) from error


def _entries(path: Path) -> list[os.DirEntry[str]]:
    # In one call of code in C, which no handler of a signal leaves open.
    return list(itertools.chain.from_iterable(map(os.scandir, (path,))))


def names_in(path: Path) -> list[str]:
    """Return the names in a folder, none if there is no such folder.

    Files that are removed and still open somewhere are left out.

    Raises:
      ReadError, DamagedError: the system refused.
    """
    try:
        return [name for name in os.listdir(path) if not _REMOVED.fullmatch(name)]
    except OSError as error:
        if error.errno in _MISSING:
            return []
        raise _unreadable(path, error) from error


def is_missing(path: Path) -> bool:
    """Tell whether nothing has this path; False if the system refuses to tell."""
    try:
        os.lstat(path)
    except OSError as error:
        return error.errno in _MISSING
    return False


def dangling(path: Path) -> Path | None:
    """Return the link in a path that leads to nothing, or None."""
    links = [p for p in (path, *path.parents) if os.path.islink(p)]
    return next((link for link in links if not os.path.exists(link)), None)


def open_folder(path: Path) -> Descriptor | None:
    """Open a folder, to lock it; None if the system refuses."""
    try:
        return Descriptor(os.open, path, _FOLDER)
    except OSError:
        return None


def require_folder(path: Path) -> None:
    """Refuse what is not a folder, such as a link to one.

    Raises:
      DamagedError: it is something else, or nothing.
      ReadError: the system refused.
    """
    if not stat.S_ISDIR(_status(path).st_mode):
        raise DamagedError(f"{path} is not a folder.")


def below(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield everything in a folder and in those below it; no link is followed.

    Files that are removed and still open somewhere are left out.

    Yields:
      Its path in the folder, joined by "/", and its status; a folder before what is
      in it is looked for.

    Raises:
      ReadError, DamagedError: the system refused, or something vanished meanwhile.
    """
    folders = [""]
    while folders:
        prefix = folders.pop()
        try:
            entries = _entries(path / prefix)
            found = [(x.name, x.stat(follow_symlinks=False)) for x in entries]
        except OSError as error:
            raise _unreadable(path / prefix, error) from error
        for name, status in found:
            if _REMOVED.fullmatch(name):
                continue
            yield prefix + name, status
            if stat.S_ISDIR(status.st_mode):
                folders.append(f"{prefix}{name}/")


def lock(fd: int) -> bool | None:
    """Take the lock of a file or folder without waiting; death of the process frees it.

    Returns:
      Whether it was free, or None if the file system has no locks.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError:
        return None


def is_at(fd: int, path: Path) -> bool:
    """Tell whether what is open is what has this path now."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        return False


def is_removed(fd: int) -> bool:
    """Tell whether the open file has no name any more; False if that is refused."""
    try:
        return os.fstat(fd).st_nlink == 0
    except OSError:
        return False

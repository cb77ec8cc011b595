"""Ways to corrupt files, and whatever else has a name."""

from __future__ import annotations

import os
import shutil
import stat

_LENGTHS = 1, 2, 8, 64, 4096, 1 << 20


def is_file(path):
    """Tell whether there is a regular file, no link to one."""
    return stat.S_ISREG(os.lstat(path).st_mode)


# Each gets a source of chance, what to corrupt, and some regular file


def _flip(rng, path, other):
    with path.open("r+b") as file:
        position = rng.randrange(path.stat().st_size or 1)
        (byte,) = os.pread(file.fileno(), 1, position) or b"x"
        os.pwrite(file.fileno(), bytes([byte ^ 1 << rng.randrange(8)]), position)


def _overwrite(rng, path, other):
    _put(rng, path, rng.randbytes)


def _zero(rng, path, other):
    _put(rng, path, bytes)


def _put(rng, path, make):
    size = path.stat().st_size
    start = rng.randrange(size + 1)
    with path.open("r+b") as file:
        file.seek(start)
        file.write(make(min(size - start, rng.choice(_LENGTHS))))


def _truncate(rng, path, other):
    os.truncate(path, rng.choice([0, rng.randrange(path.stat().st_size + 1)]))


def _extend(rng, path, other):
    with path.open("ab") as file:
        file.write(rng.randbytes(rng.choice(_LENGTHS)))


def _stretch(rng, path, other):
    os.truncate(path, path.stat().st_size + (1 << rng.choice([12, 20, 33, 40])))


def _swap(rng, path, other):
    away = _rename(rng, path, other)
    if path != other:
        other.rename(path)
    away.rename(other)


def _duplicate(rng, path, other):
    new = rng.choice([path, path.with_name(f"copy-{path.name}")])
    if new != other:
        if os.path.lexists(new):
            _delete(rng, new, other)
        new.hardlink_to(other)  # As good as a copy, and files may have been stretched.


def _delete(rng, path, other):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _rename(rng, path, other):
    return path.rename(path.with_name(f"{rng.getrandbits(32)}-{path.name}"))


def _replace_by_link(rng, path, other):
    away = _rename(rng, path, other)
    path.symlink_to(rng.choice([away, other, path, "/dev/zero", "nowhere"]))


def _replace_by_fifo(rng, path, other):
    _delete(rng, path, other)
    os.mkfifo(path)


def _replace_by_folder(rng, path, other):
    _rename(rng, path, other)
    path.mkdir()


def _replace_by_device(rng, path, other):
    _delete(rng, path, other)
    if os.geteuid() == 0:  # Others cannot make one.
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))


OF_FILES = {
    "flip": _flip,
    "overwrite": _overwrite,
    "zero": _zero,
    "truncate": _truncate,
    "extend": _extend,
    "stretch": _stretch,
    "swap": _swap,
    "duplicate": _duplicate,
}
_OF_ANYTHING = {
    "delete": _delete,
    "rename": _rename,
    "link": _replace_by_link,
    "FIFO": _replace_by_fifo,
    "folder": _replace_by_folder,
    "device": _replace_by_device,
}
KINDS = {**OF_FILES, **_OF_ANYTHING}

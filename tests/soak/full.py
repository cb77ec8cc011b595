"""Saves to a disk that is full, or becomes full while they are written."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import errno
import itertools
import os
import resource
import shutil
import subprocess
import threading
import warnings

from elementsckpt import CheckpointError
from elementsckpt.storage import disk

from .processes import call
from .run import Run, check_tidy, require

_ROW = 4096
_MB = 16
_INODES = 512
_LIMIT_S = 1200
_CLONE_NEWNS, _MS_REC_PRIVATE = 0x20000, 0x44000  # Of sched.h and mount.h.


def full(root, rng, *, fills, every):
    """Let small disks become full because of saves, and while they are made.

    Args:
      root: An empty folder.
      rng: Source of chance.
      fills: How often to save until a disk is full.
      every: Besides, it becomes full at each change of the disk that a save makes, for
        2 at every other one, and so on.

    Returns:
      The figures, in words.
    """
    media = [_Limit(root, rng)]
    if os.geteuid() == 0:
        media += [_Tmpfs(root, rng), _Ext4(root, rng)]
    return " ".join(_figures(medium, fills, every) for medium in media)


def _figures(medium, fills, every):
    values = call(_attack, medium, fills, every, limit_s=_LIMIT_S)
    if not values:
        return f"{medium.name} could not be had."
    counts = collections.Counter(values[0])
    saved, times = counts["saved"], counts.total()
    codes = " or ".join(sorted(counts.keys() - {"saved"}))
    return (
        f"{medium.name} {medium.verb} {times:,} times while a save was made. "
        f"{times - saved:,} saves failed with {codes}, left nothing and cost no other "
        f"save; {saved:,} were made all the same. With room again, the next one worked "
        f"each time."
    )


def _attack(report, medium, fills, every):
    warnings.simplefilter("error")
    if not medium.mount():
        return
    directory = medium.path / "ckpt"
    counts = collections.Counter(saved=0)
    for _ in range(fills if medium.is_small else 0):
        counts[_save_until_full(directory, medium)] += 1
        shutil.rmtree(directory)
    for options in ({}, {"background": True}, {"background": True, "staging_bytes": 0}):
        _save_when_full(directory, medium, every, options, counts)
    report(counts)


def _save_until_full(directory, medium):
    medium.fill(but=medium.rng.randrange(3 << 20, 8 << 20))  # One fits.
    run = Run(step=medium.rng.randrange(100), row_bytes=_ROW)
    while True:
        run.advance()
        result = _save(run, directory, keep=None)
        if result != "saved":
            break
    saves = run.checkpoint(directory).saves()
    for save in saves[: len(saves) // 2 + 1]:
        shutil.rmtree(save.path)
    _save_with_room(run, directory)
    medium.free()
    return result


def _save_when_full(directory, medium, every, options, counts):
    run = Run(row_bytes=_ROW)
    run.checkpoint(directory).save()
    for n in itertools.count(1, every):
        run.advance()
        disk.syscall = fault = _Before(n, medium.fill)
        result = _save(run, directory, keep=2, **options)
        disk.syscall = fault.syscall
        medium.free()
        _save_with_room(run, directory)
        if fault.count < n:
            return
        counts[result] += 1


def _save(run, directory, **options):
    """Try to save; return "saved", or the name of the error.

    Nothing may have changed then.
    """
    cp = run.checkpoint(directory, **options)
    before, newest = _tree(directory), cp.latest()
    step = run.step
    try:
        report = cp.save()
        report = cp.wait() or report
    except OSError as error:
        # What a component writes by itself is an error of its own.
        is_own = "component 'policy'" in str(getattr(error, "__notes__", ""))
        require(isinstance(error, CheckpointError) or is_own, repr(error))
        require(error.errno in (errno.ENOSPC, errno.EFBIG), repr(error))
        require(_tree(directory) == before, f"something is left after {error}")
        result = errno.errorcode[error.errno]
    else:
        newest, result = report.path, "saved"
    require(run.check() == step, "the components have changed")
    if newest is not None:
        found = Run(row_bytes=_ROW)
        report = found.checkpoint(directory).load()
        require(report.path == newest, "another save is the newest")
        require(found.check() == report.step, "the save is of another step")
    return result


def _save_with_room(run, directory):
    require(_save(run, directory, keep=2) == "saved", "it does not save with room")
    check_tidy(directory, run.checkpoint(directory).saves())


def _tree(path):
    return {x.relative_to(path) for x in path.rglob("*")}


class _Before:
    """In the place of `disk.syscall`: does something just before the n-th change."""

    def __init__(self, n, action):
        self.syscall = disk.syscall
        self.count = 0
        self._n, self._action = n, action
        self._lock = threading.Lock()

    def __call__(self, call, *args):
        with self._lock:
            self.count += 1
            if self.count == self._n:
                self._action()
        return self.syscall(call, *args)


# Disks


class _Limit:
    """No disk, but a limit of the size of files, which anybody can have."""

    is_small = False
    name = "A limit of the size of files"
    verb = "was reached"

    def __init__(self, root, rng):
        self.path = root / type(self).__name__
        self.path.mkdir()
        self.rng = rng

    def mount(self):
        """Make it; return whether that worked."""
        return True

    def fill(self):
        """Leave no room for others."""
        size = self.rng.choice([0, 1, 100, self.rng.randrange(1 << 20)])
        self._set(size)

    def free(self):
        """Let there be room again."""
        self._set(resource.RLIM_INFINITY)

    def _set(self, size):
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))


class _Tmpfs(_Limit):
    """A small disk in memory, which only this process sees and which ends with it."""

    is_small = True
    name = f"A tmpfs of {_MB} MB"
    verb = "became full"
    _options = (f"size={_MB}m,nr_inodes={_INODES}", "-t", "tmpfs", "none")

    def mount(self):
        libc = ctypes.CDLL(None)
        if libc.unshare(_CLONE_NEWNS) or libc.mount(b"", b"/", b"", _MS_REC_PRIVATE, 0):
            return False
        command = ["mount", "-o", *self._options, self.path]
        done = subprocess.run(command, capture_output=True)
        return done.returncode == 0

    def fill(self, but=0):
        """Leave no room for others, except for some bytes."""
        self._ballast.mkdir()
        if not but:
            names = itertools.count()
            _until_full(lambda: (self._ballast / str(next(names))).touch())
        with (self._ballast / "0").open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 16, 1 << 12, 1):
                _until_full(lambda data=bytes(size): file.write(data))
            file.truncate(file.tell() - but)

    def free(self):
        shutil.rmtree(self._ballast, ignore_errors=True)

    @property
    def _ballast(self):
        return self.path / "ballast"


class _Ext4(_Tmpfs):
    """A small disk in a file."""

    name = f"An ext4 of {_MB} MB"

    def mount(self):
        image = self.path.with_suffix(".image")
        with image.open("wb") as file:
            file.truncate(_MB << 20)
        command = ["mkfs.ext4", "-q", "-N", str(_INODES), image]
        if subprocess.run(command, capture_output=True).returncode:
            return False
        self._options = ("loop", image)
        return super().mount()


def _until_full(action):
    with contextlib.suppress(OSError):
        while True:
            action()

"""Saves whose system calls are counted, made fatal and made to fail from outside.

What does so is strace, which sees all calls, however the library makes them.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import os
import re
import shutil
import subprocess
import threading

from elementsckpt import CheckpointError
from elementsckpt.storage import disk

from support.faults import (
    BackgroundPrunes,
    ExplicitAgain,
    FilesAgain,
    FilesBackground,
    FilesExplicitAgain,
    FilesFirst,
    FilesSweeps,
    First,
    Prunes,
    Stages,
    resumed,
    saves_again,
    use_one_thread,
    use_small_segments,
)

from .processes import Process, call
from .run import require

_KINDS = (
    *(First, FilesAgain, Prunes, FilesSweeps, Stages, ExplicitAgain),
    *(FilesBackground, BackgroundPrunes, FilesFirst, FilesExplicitAgain),
)
_ERRORS = "ENOSPC", "EIO", "EINTR"
# All that could change a file, whether or not the library makes it, where it exists.
_CHANGES = (
    *("open", "openat", "openat2", "creat", "mknod", "mknodat", "mkdir", "mkdirat"),
    *("write", "writev", "pwrite64", "pwritev", "pwritev2", "sendfile", "splice"),
    *("copy_file_range", "fallocate", "truncate", "ftruncate", "mmap", "msync"),
    *("fsync", "fdatasync", "sync", "syncfs", "sync_file_range"),
    *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat"),
    *("unlink", "unlinkat", "rmdir", "chmod", "fchmod", "fchmodat", "fchmodat2"),
    *("chown", "fchown", "lchown", "fchownat", "utime", "utimes", "utimensat"),
    *("setxattr", "lsetxattr", "fsetxattr", "removexattr", "fremovexattr"),
)
_CALL = re.compile(r"(\d+) +(\w+)\((.*)")
_WRITES = re.compile(r"O_WRONLY|O_CREAT|O_TRUNC")  # Locks need O_RDWR.
_SHARED = re.compile(r"PROT_WRITE.*MAP_SHARED")
_PR_SET_PTRACER, _ANYBODY = 0x59616D61, ctypes.c_ulong(-1)  # Of prctl.h.
_LIMIT_S = 3600


def calls(root, rng, *, kinds, every):
    """Make saves die and fail at each system call that changes the disk.

    Args:
      root: An empty folder.
      rng: Source of chance, of which this needs none.
      kinds: How many kinds of saves; None for all.
      every: 1 for each call, 2 for every other, and so on.

    Returns:
      The figures, in words.
    """
    if shutil.which("strace") is None:
        return "left out, as there is no strace."
    values = call(_attack, root, _KINDS[:kinds], every, limit_s=_LIMIT_S)
    if not values:
        return "left out, as strace may not attach to processes here."
    found, seen = map(collections.Counter, values[0])
    names = ", ".join(f"{seen[name]} {name}" for name in sorted(seen))
    return (
        f"{found['kinds']} kinds of saves made {seen.total()} calls that change files "
        f"({names}), as strace saw them, and as many through `disk.syscall`. "
        f"{found['died']:,} processes died on entering one of them; the next one "
        f"resumed from the old save or the new one, whole, and when it had saved, "
        f"nothing else was left. {found['failed'] + found['saved']:,} times one gave "
        f"{', '.join(_ERRORS)}: {found['failed']:,} times that was raised as a "
        f"CheckpointError that is an OSError, and {found['saved']:,} times the save "
        f"was made all the same."
    )


def _attack(report, root, kinds, every):
    use_small_segments()
    use_one_thread()  # So this process may fork, too.
    _warm_up(root)
    found, seen = collections.Counter(), collections.Counter()
    for kind in kinds:
        attack = _Attack(kind, root, found)
        changes = attack.count()
        if changes is None:
            return
        found["kinds"] += 1
        seen.update(name for name, _ in changes)
        for name, n in changes[::every]:
            attack.kill(name, n)
            for error in _ERRORS:
                attack.fail(name, n, error)
    report([found, seen])


def _warm_up(root):
    """Have imported what is imported when it is needed."""
    situation = FilesAgain(root / "warm")
    situation.root.mkdir()
    situation.prepare()
    saves_again(situation)


class _Attack:
    """Saves of one kind, each of which begins with the same on the disk.

    Args:
      kind: What is there, and the save.
      root: Where to put it.
      found: Where to count what happened.
    """

    def __init__(self, kind, root, found):
        self._kind, self._root, self._found = kind, root, found
        self._log = root / "strace"

    def count(self):
        """Check that every change that strace sees is made through `disk.syscall`.

        Returns:
          Name and number of each call that changes something, such as the third
          `openat`; None if strace may not attach.
        """
        values = self._save("trace=" + ",".join(f"?{name}" for name in _CHANGES))
        if values is None:
            return None
        numbers, changes = collections.Counter(), []
        for name, is_change in self._calls():
            numbers[name] += 1
            if is_change:
                changes.append((name, numbers[name]))
        seen = dict(collections.Counter(_family(name) for name, _ in changes))
        require(values == [seen], f"strace saw {seen}, the seam {values}")
        self._check({self._kind.new})
        return changes

    def _calls(self):
        """Yield the name of each call that strace saw, and whether it changes files."""
        pids = set()
        for pid, name, rest in _CALL.findall(self._log.read_text()):
            is_change = str(self._root / "run") in rest
            if name in ("open", "openat"):
                is_change &= _WRITES.search(rest) is not None
            elif name == "mmap":
                is_change &= _SHARED.search(rest) is not None
            elif name == "fsync":  # Of folders above, too.
                is_change = True
            if is_change:
                pids.add(pid)
            yield name, is_change
        require(len(pids) == 1, "several threads change files: strace counts for each")

    def kill(self, name, n):
        """Let the process die on entering a call."""
        values = self._save(*_inject(name, n, "signal=SIGKILL"))
        *_, (_, is_change) = self._calls()
        require(values == [] and is_change, f"it did not die in {name} {n}: {values}")
        self._found["died"] += 1
        self._check({self._kind.old, self._kind.new})

    def fail(self, name, n, error):
        """Let a call give an error."""
        (value,) = self._save(*_inject(name, n, f"error={error}"))
        has_failed = isinstance(value, str)
        self._found["failed" if has_failed else "saved"] += 1
        self._check({self._kind.old if has_failed else self._kind.new})

    def _save(self, *expressions):
        """Make the save; return what the process reported, None if not attached."""
        shutil.rmtree(self._root / "run", ignore_errors=True)
        situation = self._kind(self._root / "run")
        situation.root.mkdir()
        situation.prepare()
        read_fd, write_fd = os.pipe()
        process = Process(_save_when_told, situation, read_fd)
        process.read()
        options = [option for x in expressions for option in ("-e", x)]
        command = ["strace", "-f", "-y", "-s", "0", "-o", self._log, *options]
        command += ["-p", str(process.pid)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
            is_attached = "attached" in strace.stderr.readline()
            os.write(write_fd, b"x")
            values = process.end(may_die=True)
        os.close(read_fd)
        os.close(write_fd)
        return values[1:] if is_attached else None

    def _check(self, possible):
        call(_resume, self._kind(self._root / "run"), possible)


def _inject(name, n, what):
    return f"trace={name}", f"inject={name}:{what}:when={n}"


def _save_when_told(report, situation, fd):
    with contextlib.suppress(AttributeError):  # Where processes may not trace others.
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANYBODY, 0, 0, 0)
    cp = situation.checkpoint()
    disk.syscall = seam = _Seam()
    is_background = situation.options.get("background")
    if is_background:  # What its thread does is looked at.
        cp.save()
    report("ready")
    os.read(fd, 1)
    seam.open()
    try:
        if is_background:
            cp.wait()
        else:
            situation.save(cp)
    except CheckpointError as error:
        require(isinstance(error, OSError), f"{error!r} is no OSError")
        report(type(error).__name__)
    else:
        report(seam.counts)


class _Seam:
    """In the place of `disk.syscall`: counts changes, once it is open.

    Until then, threads other than the one that made it wait.
    """

    def __init__(self):
        self.counts = collections.Counter()
        self._caller = threading.get_ident()
        self._is_open = threading.Event()

    def open(self):
        self.counts.clear()
        self._is_open.set()

    def __call__(self, call, *args):
        if threading.get_ident() != self._caller:
            self._is_open.wait()
        self.counts[_family(call.__name__.strip("_"))] += 1
        return call(*args)


def _family(name):
    """Return one name for calls that do the same, by whatever means."""
    name = re.sub(r"at2?$|64$", "", name)
    return {"replace": "rename", "rmdir": "unlink", "fchmod": "chmod"}.get(name, name)


def _resume(report, situation, possible):
    require(resumed(situation) in possible, "it resumed from another save")
    saves_again(situation)

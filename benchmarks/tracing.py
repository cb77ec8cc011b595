"""The calls of this process that concern files, as strace sees them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from .cases import Sample

PTRACER, ANYONE = 0x59616D61, ctypes.c_ulong(-1)  # Of prctl, <linux/prctl.h>.
SYNCS = "fsync", "fdatasync", "sync_file_range", "syncfs"
MAKES = "mkdir", "mkdirat", "link", "linkat", "symlink", "symlinkat"
REMOVES = "unlink", "unlinkat", "rmdir"
RENAMES = "rename", "renameat", "renameat2"
LISTS = "getdents64"
CALL = re.compile(r"\d+ +(\w+)(\(.*)")  # Not "<... resumed>", the end of such a line.
NOT_A_FILE = re.compile(r"\((?:-?\d+<(?:pipe|socket|anon_inode):|-1, NULL)")
PATH = re.compile(r'(?:(?:\d+|AT_FDCWD)<([^>]*)>, )?"([^"]*)"')


class Call(NamedTuple):
    """A call: its name, and the rest of the line that strace wrote of it."""

    name: str
    text: str

    @property
    def has_failed(self) -> bool:
        return " = -1 " in self.text

    @property
    def paths(self) -> list[str]:
        """What it names, whole."""
        return [os.path.join(*found) for found in PATH.findall(self.text)]

    @property
    def ends_listing(self) -> bool:
        return self.name == LISTS and self.text.endswith(" = 0")


@cache
def note() -> str:
    """Return a sentence if calls cannot be counted here."""
    if shutil.which("strace") is None:
        return "Calls are not counted, as strace is not installed here."
    try:
        traced(bool)
    except PermissionError:
        return "Calls are not counted, as strace may not attach to processes here."
    return ""


def counts(call: Callable[[], Any]) -> Sample:
    """Return what a call asks of the file system, nothing where strace is missing."""
    return summary(traced(call)) if not note() else {}


def summary(calls: Sequence[Call]) -> Sample:
    """Return how many calls there are, and of the kinds that cost most.

    A listing counts once, however many calls its entries take: their number grows with
    the folder.
    """
    return {
        "calls": sum(x.name != LISTS or x.ends_listing for x in calls),
        "fsyncs": sum(x.name in SYNCS for x in calls),
        "listings": sum(x.ends_listing for x in calls),
        "made in vain": made_in_vain(calls),
    }


def made_in_vain(calls: Sequence[Call]) -> int:
    """Return how many files, folders and links are made and removed again."""
    made: set[str] = set()
    removed = 0
    for call in calls:
        if call.has_failed or not call.paths:
            continue
        path = call.paths[-1]
        if call.name in MAKES or "O_CREAT" in call.text:
            made.add(path)
        elif call.name in REMOVES:
            removed += path in made
            made.discard(path)
        elif call.name in RENAMES:
            before = call.paths[0]
            moved = {x for x in made if x == before or x.startswith(f"{before}/")}
            made = made - moved | {path + x[len(before) :] for x in moved}
    return removed


def traced(call: Callable[[], Any]) -> list[Call]:
    """Return the calls on files and folders that all threads make during `call`.

    Raises:
      PermissionError: strace may not attach to this process.
    """
    with contextlib.suppress(AttributeError):  # Where processes may not trace others.
        ctypes.CDLL(None).prctl(PTRACER, ANYONE, 0, 0, 0)
    begin, end = (Path(f"/{x}-of-what-is-counted") for x in ("begin", "end"))
    with tempfile.NamedTemporaryFile("r", errors="replace") as log:
        command = ["strace", "-f", "-y", "-s", "0", "-e", "trace=%file,%desc"]
        command += ["-o", log.name, "-p", str(os.getpid())]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
            assert strace.stderr is not None
            said = strace.stderr.readline()
            if "attached" not in said:
                raise PermissionError(said)
            try:
                begin.exists()
                call()
                end.exists()
            finally:
                strace.send_signal(signal.SIGINT)  # It detaches.
                strace.stderr.read()
        return between(log.read().splitlines(), str(begin), str(end))


def between(lines: Sequence[str], begin: str, end: str) -> list[Call]:
    """Return the calls after the line with a mark and before that with another one."""
    first, last = (
        next(number for number, line in enumerate(lines) if mark in line)
        for mark in (begin, end)
    )
    found = filter(None, map(CALL.match, lines[first + 1 : last]))
    return [Call(*x.groups()) for x in found if not NOT_A_FILE.match(x[2])]

"""Tries what saves need of a file system, in a folder that is removed afterwards."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import CheckpointError, WriteError, reason
from ..reports import figures
from . import disk, files, hidden
from .descriptors import lock, open_folder

_SYNCS = 5
_SLOW_S = 0.1
_CLOCK_S = 5.0


class Finding(NamedTuple):
    """What was found of a place.

    Attributes:
      check: What was looked at.
      is_good: Whether it suits saves.
      found: What was found.
      advice: What to do about it; "" if it is good.
    """

    check: str
    is_good: bool
    found: str
    advice: str = ""


def try_folder(path: Path) -> list[Finding]:
    """Try links, locks, renaming, syncing and the clock in a folder.

    Raises:
      WriteError: nothing can be written there.
    """
    with hidden.new_folder(path / "elementsckpt-doctor") as place:
        one = place / "one"
        with _new_file(one) as fd:
            disk.write(fd, b"x", 0, path=one)
        disk.make_folder(place / "folder")  # The other one is locked.
        return [
            _links(one, place / "two"),
            _locks(place / "folder"),
            _renaming(one, place / "three"),
            _syncing(place / "four"),
            _clock(place / "three"),
        ]


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[int]:
    file = disk.create(path)
    try:
        yield file.fd
    finally:
        file.close()


def _links(one: Path, two: Path) -> Finding:
    return _attempt(
        "links",
        lambda: disk.link(one, two),
        "a file can have several names",
        "Each save writes all of its files again: choose a file system with hard "
        "links if that is too much.",
    )


def _renaming(one: Path, three: Path) -> Finding:
    return _attempt(
        "renaming",
        lambda: disk.rename(one, three),
        "a file can be renamed",
        "Saves cannot be completed here: choose another directory.",
    )


def _attempt(
    check: str, call: Callable[[], object], found: str, advice: str
) -> Finding:
    try:
        call()
    except WriteError as error:
        return Finding(check, False, reason(error.__cause__ or error), advice)
    return Finding(check, True, found)


def _locks(place: Path) -> Finding:
    folder, other = open_folder(place), open_folder(place)
    try:
        is_locked = folder is not None and lock(folder.fd)
        if not is_locked or other is None:
            advice = (
                "Two programs that save here do not notice each other: let only one "
                "write."
            )
            return Finding("locks", False, "there are no locks", advice)
        is_kept = lock(other.fd) is False
        found = "a lock keeps others out" if is_kept else "a lock keeps nobody out"
        advice = "" if is_kept else "Let only one program write here."
        return Finding("locks", is_kept, found, advice)
    finally:
        for opened in (folder, other):
            if opened is not None:
                opened.close()


def _syncing(path: Path) -> Finding:
    times = []
    with _new_file(path) as fd:
        for number in range(_SYNCS):
            disk.write(fd, bytes(4096), 4096 * number, path=path)
            start = time.perf_counter()
            disk.sync(fd, path=path)
            times.append(time.perf_counter() - start)
    seconds = statistics.median(times)
    advice = (
        ""
        if seconds < _SLOW_S
        else "A save waits for several of these: save less "
        "often, or in the background, or pass fsync=False and accept that power loss "
        "may cost the last save."
    )
    return Finding("fsync", not advice, f"{1000 * seconds:.1f} ms", advice)


def _clock(path: Path) -> Finding:
    with _new_file(path.with_name("now")):
        ahead_s = files.status(path.with_name("now")).st_mtime - time.time()
    is_good = abs(ahead_s) < _CLOCK_S
    found = f"{abs(ahead_s):.1f} s {'ahead' if ahead_s > 0 else 'behind'} of this host"
    return Finding(
        "clock",
        is_good,
        "that of this host" if is_good else found,
        ""
        if is_good
        else "Names of saves tell other times than their files: set the "
        "clocks of this host and of the file server.",
    )


def room(path: Path, least_bytes: int) -> Finding:
    """Return how much room a folder has, and whether that is enough.

    Args:
      path: The folder.
      least_bytes: What the next save may need.
    """
    try:
        free_bytes = disk.require_space(path, 0)
    except CheckpointError as error:
        return Finding("room", False, reason(error), "Free space.")
    is_good = free_bytes >= least_bytes
    advice = "" if is_good else "Free space, or keep fewer saves with keep=."
    return Finding("room", is_good, f"{figures.size(free_bytes)} free", advice)


def is_locked(path: Path) -> bool:
    """Return whether another process has locked a folder, as one that saves there."""
    folder = open_folder(path)
    if folder is None:
        return False
    try:
        return lock(folder.fd) is False
    finally:
        folder.close()

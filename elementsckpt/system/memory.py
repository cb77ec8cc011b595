"""How much memory the machine has, or the job that this process belongs to.

Linux puts processes into nested control groups: of a batch system, a container, a
service. Each group may have a limit. Control groups exist in two versions, which may be
mounted side by side.
"""

from __future__ import annotations

import functools
import io
import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path

from ..errors import ReadError

_PROC = Path("/proc")
# Above a hard limit, Linux kills processes; above memory.high, it slows them down.
_HARD_LIMITS = ("memory.max", "memory.limit_in_bytes")
_LIMITS = (*_HARD_LIMITS, "memory.high")
# Memory that Linux cannot reclaim from processes: anonymous and shared memory.
_HELD = ("anon", "shmem"), ("total_rss", "total_shmem")  # In version 2, and in 1.
_HELD_BY_ALL = ("AnonPages", "Shmem", "SUnreclaim", "Hugetlb")
_SPARE_BYTES = 16 << 20  # What the process needs besides.
# Limits that `ulimit` sets, the column of /proc/self/statm that has what is in use, and
# what a few threads take: addresses that they reserve without using them, and stacks.
_ULIMITS = (
    (resource.RLIMIT_AS, 0, 256 << 20),
    (resource.RLIMIT_DATA, 5, 32 << 20),
)
# Checking takes longer than reading much less than this, which the last check has
# spared.
_OFTEN_BYTES = _SPARE_BYTES
_unseen_bytes = 0  # Requested since the last check.


@functools.cache
def memory_bytes() -> int:
    """Return the memory of the machine, or of this job if it has a lower limit."""
    total = _physical_bytes()
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        limit = resource.getrlimit(kind)[0]
        total = total if limit == resource.RLIM_INFINITY else min(total, limit)
    for group in _groups():
        total = min([total, *_numbers(group, _LIMITS)])
    return total


def left_bytes() -> int:
    """Return how much memory this process can still get, at most."""
    left = [memory_bytes()]
    machine = _table(_PROC / "meminfo")
    if "MemTotal" in machine:
        there = machine["MemTotal"] + machine.get("SwapFree", 0)
        left.append(1024 * (there - _sum(machine, _HELD_BY_ALL)))
    for group in _groups():
        for limit in _numbers(group, _HARD_LIMITS):
            if limit <= _physical_bytes():
                held = _table(group / "memory.stat")
                sums = [_sum(held, names) for names in _HELD]
                left.append(limit - max(_own_bytes(), *sums))
    return max(0, min(left))


def has_room(size_bytes: int) -> bool:
    """Return whether this process can get so much memory; assume it for a little."""
    global _unseen_bytes
    _unseen_bytes += size_bytes
    if _unseen_bytes < _OFTEN_BYTES:
        return True
    _unseen_bytes = 0
    return size_bytes + _SPARE_BYTES <= left_bytes()


def may_map(size_bytes: int) -> bool:
    """Return whether `ulimit` lets this process map so much, and start threads."""
    for kind, column, spare_bytes in _ULIMITS:
        limit = resource.getrlimit(kind)[0]
        if limit != resource.RLIM_INFINITY:
            in_use = [int(x) for x in "".join(_lines(_PROC / "self" / "statm")).split()]
            mapped = in_use[column] * os.sysconf("SC_PAGE_SIZE") if in_use else 0
            if mapped + size_bytes + spare_bytes > limit:
                return False
    return True


def require_memory(size_bytes: int, path: Path, less: str) -> None:
    """Refuse to load more than fits into memory, before the load begins.

    Args:
      size_bytes: How much must be in memory at once.
      path: The save to load.
      less: How to load less of it, such as " with keys=".

    Raises:
      ReadError: there is less memory.
    """
    if not has_room(size_bytes):
        raise ReadError(
            f"{path} does not fit into memory: what is to be loaded takes "
            f"{size_bytes:,} bytes, and of the {memory_bytes():,} of this machine, or "
            f"job, {left_bytes():,} are left. Load less of it{less}, or map its arrays "
            f"with mmap=True, which does not help where they are compressed."
        )


def _physical_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _own_bytes() -> int:
    """Return the memory of this process; groups may count it seconds later."""
    sizes = [int(x) for line in _lines(_PROC / "self" / "statm") for x in line.split()]
    return (sizes[1] - sizes[2]) * os.sysconf("SC_PAGE_SIZE") if sizes else 0


def _groups() -> list[Path]:
    """Return the folders of the control groups that this process is in.

    Source: cgroups(7), and proc(5) for the fields of mountinfo.
    """
    return _mounted(tuple(_lines(_PROC / "self" / "cgroup")))


@functools.lru_cache(1)
def _mounted(groups: tuple[str, ...]) -> list[Path]:
    """Return the folders of groups and of the groups above, as far as mounted."""
    own: dict[str, str] = {}  # Paths of groups by controller; version 2 names none.
    for line in groups:
        controllers, _, path = line.partition(":")[2].partition(":")
        own |= dict.fromkeys(controllers.split(","), path)
    found: list[Path] = []
    for line in _lines(_PROC / "self" / "mountinfo"):
        mount, _, kind = line.partition(" - ")
        is_first = kind.startswith("cgroup ") and "memory" in re.split(r"[ ,]", kind)
        controller = "memory" if is_first else ""
        if controller in own and (is_first or kind.startswith("cgroup2 ")):
            root, top = map(_unescaped, mount.split(" ")[3:5])
            found += _from(Path(top), root, own[controller])
    return found


def _from(top: Path, root: str, path: str) -> Iterator[Path]:
    """Yield the folders from a group up to the mount point."""
    inner = os.path.relpath(path, root)
    folder = top if inner.startswith("..") else top / inner  # ".." is not mounted.
    while folder != top:
        yield folder
        folder = folder.parent
    yield top


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _numbers(group: Path, names: tuple[str, ...]) -> list[int]:
    """Return the limits that are set; a file of one that is not says "max"."""
    lines = [line for name in names for line in _lines(f"{group}/{name}")]
    return [int(line) for line in lines if line.isdecimal()]


def _table(path: Path) -> dict[str, int]:
    """Return the numbers in a file of names and numbers, by name."""
    rows = [line.split() for line in _lines(path)]
    return {x[0].rstrip(":"): int(x[1]) for x in rows if x[1:] and x[1].isdecimal()}


def _sum(table: dict[str, int], names: tuple[str, ...]) -> int:
    return sum(table.get(name, 0) for name in names)


def _lines(path: str | Path) -> list[str]:
    try:
        with io.FileIO(path) as file:  # A third of what `Path.read_text` takes.
            return file.readall().decode("utf-8", "surrogateescape").splitlines()
    except OSError:
        return []

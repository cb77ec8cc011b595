"""How much memory there is: of the machine, or of the job that this process is in.

Linux puts processes into control groups, one within the other, of which each may have a
limit: those of a batch system, a container, a service. There are two versions, which
may be mounted side by side.
"""

from __future__ import annotations

import functools
import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path

from ..errors import ReadError

_PROC = Path("/proc")
# Beyond the first, processes are killed; beyond the last, they are slowed down.
_HARD_LIMITS = ("memory.max", "memory.limit_in_bytes")
_LIMITS = (*_HARD_LIMITS, "memory.high")
# What cannot be taken back from processes: anonymous and shared memory.
_HELD = ("anon", "shmem"), ("total_rss", "total_shmem")  # In version 2, and in 1.
_HELD_BY_ALL = ("AnonPages", "Shmem", "SUnreclaim", "Hugetlb")
_SPARE_BYTES = 16 << 20  # What else is needed meanwhile.
_SPARE_ADDRESSES = 256 << 20  # What threads take of these, without using it.
_OFTEN_BYTES = 8 << 20  # Looking each time would take longer than reading a little.
_unseen_bytes = 0  # What was asked for since.


@functools.cache
def memory_bytes() -> int:
    """Return the memory that the machine, or a job on it, has."""
    total = _physical_bytes()
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        limit = resource.getrlimit(kind)[0]
        total = total if limit == resource.RLIM_INFINITY else min(total, limit)
    for group in _groups():
        total = min([total, *_numbers(group, _LIMITS)])
    return total


def left_bytes() -> int:
    """Return how much of it can still be had, at the most."""
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
    """Tell whether so much memory can still be had; of a little that is assumed."""
    global _unseen_bytes
    _unseen_bytes += size_bytes
    if _unseen_bytes < _OFTEN_BYTES:
        return True
    _unseen_bytes = 0
    return size_bytes + _SPARE_BYTES <= left_bytes()


def has_addresses(size_bytes: int) -> bool:
    """Tell whether so much can be mapped, and threads have theirs: see `ulimit -v`."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return True
    pages = [int(line.split()[0]) for line in _lines(_PROC / "self" / "statm")]
    mapped = sum(pages) * os.sysconf("SC_PAGE_SIZE")
    return mapped + size_bytes + _SPARE_ADDRESSES <= limit


def require_memory(size_bytes: int, path: Path, less: str) -> None:
    """Refuse to begin what cannot end: to load more than there is memory.

    Args:
      size_bytes: What must be in memory at once.
      path: The save that it is in.
      less: How to load less of it, such as " with keys=".

    Raises:
      ReadError: there is less.
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
    """Return what this process holds, which groups may hear of only after seconds."""
    sizes = [int(x) for line in _lines(_PROC / "self" / "statm") for x in line.split()]
    return (sizes[1] - sizes[2]) * os.sysconf("SC_PAGE_SIZE") if sizes else 0


def _groups() -> list[Path]:
    """Return the folders of the control groups that this process is in.

    Source: cgroups(7), and proc(5) for the fields of mountinfo.
    """
    return _mounted(tuple(_lines(_PROC / "self" / "cgroup")))


@functools.lru_cache(1)
def _mounted(groups: tuple[str, ...]) -> list[Path]:
    """Return the folders of groups, and those above, as far as they can be seen."""
    own: dict[str, str] = {}  # Their paths, by controller; version 2 names none.
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
    """Yield the folders from that of a group up to what is mounted."""
    inner = os.path.relpath(path, root)
    folder = top if inner.startswith("..") else top / inner  # Else it is not seen.
    while folder != top:
        yield folder
        folder = folder.parent
    yield top


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _numbers(group: Path, names: tuple[str, ...]) -> list[int]:
    """Return those of these limits that are set; others are "max"."""
    lines = [line for name in names for line in _lines(group / name)]
    return [int(line) for line in lines if line.isdecimal()]


def _table(path: Path) -> dict[str, int]:
    """Return numbers by name."""
    rows = [line.split() for line in _lines(path)]
    return {x[0].rstrip(":"): int(x[1]) for x in rows if x[1:] and x[1].isdecimal()}


def _sum(table: dict[str, int], names: tuple[str, ...]) -> int:
    return sum(table.get(name, 0) for name in names)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return []

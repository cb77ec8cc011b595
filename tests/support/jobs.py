"""Control groups: made up ones, and, for root, those of the kernel."""

import contextlib
import os
import sys

import pytest

from elementsckpt.system import memory

from support.boxes import python

KB = 1 << 10
# As on a host that has both versions, of which the first has the controllers.
MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
{mounts}
38 31 0:35 / {top}/pids rw,relatime - cgroup cgroup rw,pids
"""


class Machine:
    """What Linux says in /proc and in the folders of control groups.

    Args:
      root: Folder to write it to.
    """

    def __init__(self, root, monkeypatch):
        self.top = root / "control groups"
        self._proc = root / "proc"
        (self._proc / "self").mkdir(parents=True)
        monkeypatch.setattr(memory, "_PROC", self._proc)
        monkeypatch.setattr(memory, "_OFTEN_BYTES", 0)

    def has(self, **sizes):
        """Set the sizes of `meminfo`, in bytes; otherwise it is not there."""
        lines = [f"{name}:{size // KB:>12} kB\n" for name, size in sizes.items()]
        (self._proc / "meminfo").write_text("".join(lines))

    def uses(self, size_bytes):
        """Set how much memory this process has to itself."""
        pages = size_bytes // os.sysconf("SC_PAGE_SIZE")
        (self._proc / "self" / "statm").write_text(f"99999 {pages + 7} 7 1 0 99 0\n")

    def is_in(self, own, *mounts):
        """Set the groups of this process, and where the file system of them is.

        Args:
          own: Lines of `/proc/self/cgroup`.
          mounts: Lines of `/proc/self/mountinfo`, in which {top} is `top`.
        """
        top = str(self.top).replace(" ", "\\040")
        text = MOUNTS.format(mounts="\n".join(mounts), top="{top}").format(top=top)
        (self._proc / "self" / "cgroup").write_text("".join(f"{x}\n" for x in own))
        (self._proc / "self" / "mountinfo").write_text(text)

    def set(self, group, files, **held):
        """Write the files of a group, and what is in its `memory.stat`."""
        folder = self.top / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_text(f"{content}\n")
        lines = [f"{name} {size}\n" for name, size in held.items()]
        (folder / "memory.stat").write_text("".join(lines))
        forget()

    def leaves(self, size_bytes):
        """Have a load find so much memory, and not more."""
        self.is_in(["0::/job"], "41 31 0:38 / {top} rw - cgroup2 cgroup2 rw")
        self.set("job", {"memory.max": size_bytes + memory._SPARE_BYTES}, anon=0)


@contextlib.contextmanager
def made_up(root, monkeypatch):
    """Have this process find a machine that is made up."""
    yield Machine(root / "machine", monkeypatch)
    forget()


def forget():
    """Have what is remembered of the machine be looked up again."""
    memory.memory_bytes.cache_clear()
    memory._mounted.cache_clear()


@contextlib.contextmanager
def job(limit_bytes):
    """Make a control group with a limit; yield what starts a script in a group in it.

    Skips the test where that cannot be.
    """
    folder, name = _memory_group()
    outer = folder / f"elementsckpt-{os.getpid()}"
    inner = outer / "step" / "task"
    try:
        inner.mkdir(parents=True)
        (outer / name).write_text(str(limit_bytes))
    except OSError as error:
        pytest.skip(f"no control groups can be made here: {error}")

    def start(script, *arguments):
        join = f"open({str(inner / 'cgroup.procs')!r}, 'w').write('0')\n"
        return python(join + script, *arguments)

    try:
        yield start
    finally:
        for path in (inner, inner.parent, outer):
            with contextlib.suppress(OSError):
                path.rmdir()


def _memory_group():
    """Return the innermost group of this process that has limits of memory."""
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        pytest.skip("only root makes control groups, and only on Linux")
    for folder in memory._groups():
        for name in memory._HARD_LIMITS:
            if (folder / name).exists():
                # In version 2, groups with processes have no groups with limits.
                return (folder if "bytes" in name else folder.parent), name
    pytest.skip("no control groups with limits of memory are mounted here")

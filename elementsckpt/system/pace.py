"""Work that gives way to the rest of the program, until it is hurried.

The thread that leads such work keeps its priority, and helpers without one do what
takes long: a thread that the system leaves without a processor while it holds the
interpreter's lock would hold up all others. They hold it for microseconds only.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import time
from collections.abc import Collection

# Few, as even they slow down others: by memory, caches and the interpreter's lock.
HELPERS = max(1, min(4, (os.cpu_count() or 1) // 4))
PATIENCE_S = 60.0
_LOOK_S = 0.5  # Between two looks whether the interpreter ends.
_LOWEST = 19
_leading = threading.local()


class Pace:
    """How long the helpers of some work give way: until `hurry` is called.

    They also stop when a minute has passed, so that a busy machine finishes the work,
    or when the interpreter ends, as others may kill the process soon.
    """

    def __init__(self) -> None:
        self._is_hurried = False
        self._end_s = time.monotonic() + PATIENCE_S
        self._ended: queue.SimpleQueue[object] = queue.SimpleQueue()

    def lead(self) -> None:
        """Let this be the pace of what this thread leads from now on."""
        _leading.pace = self

    def hurry(self) -> None:
        """Have the work done as fast as the machine can; signal handlers may, too."""
        self._is_hurried = True
        self._ended.put(None)

    @property
    def gives_way(self) -> bool:
        """Whether helpers should give way now."""
        has_time = time.monotonic() < self._end_s
        return has_time and not self._is_hurried and not is_ending()

    def end(self, helper: object) -> None:
        """Take note that a helper has ended."""
        self._ended.put(helper)

    def rest(self, helpers: Collection[object]) -> None:
        """Return when one of these has ended, or they should not give way any more."""
        while self.gives_way:
            with contextlib.suppress(queue.Empty):
                if self._ended.get(timeout=_LOOK_S) in helpers:
                    return


def led() -> Pace | None:
    """Return the pace of what this thread leads, or None if it gives no way."""
    return getattr(_leading, "pace", None)


def give_way() -> None:
    """Give this thread the lowest priority, for ever, where threads have their own.

    Linux lets few processes raise a priority again, and its threads begin with that of
    the thread that starts them.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # As where a sandbox forbids it.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST)


def is_ending() -> bool:
    """Return whether the main thread has ended.

    Until Python 3.12, an interrupt in its `is_alive` would mark it as ended.
    """
    main = threading.main_thread()
    stopped: bool | None = getattr(main, "_is_stopped", None)
    return not main.is_alive() if stopped is None else stopped

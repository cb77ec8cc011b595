"""Processes that are cheap to begin: forks of one that has imported everything."""

from __future__ import annotations

import atexit
import faulthandler
import json
import os
import signal
import sys
import traceback
from typing import NoReturn

from .run import require

_FAILED = 70
_running: set[Process] = set()


class Process:
    """A fork of this process that runs a function and can be killed at any moment.

    This process must have no threads, so it never saves or loads itself.

    Args:
      function: Gets a function to report values with, which JSON can hold, and `args`.
      args: Its other arguments.
      limit_s: Seconds after which it is taken to hang.
    """

    def __init__(self, function, *args, limit_s=60):
        sys.stdout.flush()
        read_fd, write_fd = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(read_fd)
            _run(function, args, write_fd, limit_s)
        os.close(write_fd)
        self._lines = os.fdopen(read_fd, "rb")
        self._values = []
        self._is_killed = False
        _running.add(self)

    @property
    def has_ended(self):
        """Whether it has ended by itself."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.pid, flags) is not None

    def read(self):
        """Return the next value that it reports; None if it has ended."""
        line = self._lines.readline()
        if not line.endswith(b"\n"):
            return None
        self._values.append(json.loads(line))
        return self._values[-1]

    def kill(self):
        """End it, wherever it is."""
        self._is_killed = True
        os.kill(self.pid, signal.SIGKILL)

    def end(self, *, may_die=False):
        """Wait for its end.

        Args:
          may_die: Whether something else may kill it.

        Returns:
          The values that it reported.

        Raises:
          AssertionError: it did not end as it should.
        """
        while self.read() is not None:
            pass
        self._lines.close()
        _, status = os.waitpid(self.pid, 0)
        _running.remove(self)
        code = os.waitstatus_to_exitcode(status)
        require(code != _FAILED, self._values and self._values[-1])
        require(code != -signal.SIGALRM, "it hangs; see above where")
        good = {0, -signal.SIGKILL} if may_die else {-9 if self._is_killed else 0}
        require(code in good, f"it ended by itself, with {code}")
        return self._values


@atexit.register
def _kill_all():
    """After a failure, let nobody go on alone."""
    for process in _running:
        process.kill()


def _run(function, args, fd, limit_s) -> NoReturn:
    def report(value):
        # Of less than a page, so it is in the pipe whole or not at all.
        os.write(fd, json.dumps(value).encode() + b"\n")

    faulthandler.register(signal.SIGALRM, chain=True)
    signal.alarm(limit_s)
    try:
        function(report, *args)
        os._exit(0)
    except BaseException:
        report(traceback.format_exc()[-3000:])
        os._exit(_FAILED)


def call(function, *args, limit_s=60):
    """Call a function in a process of its own, which gets `report`, too.

    Returns:
      The values that it reported.
    """
    return Process(function, *args, limit_s=limit_s).end()

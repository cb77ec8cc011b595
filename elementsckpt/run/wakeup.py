"""Notices signals at once, though Python calls handlers only in the main thread.

The main thread is busy for a long time while a compiled computation runs, whose
callbacks run in other threads. Python writes the number of a signal to a file
descriptor as soon as the signal comes.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable

from ..system import forks

_CALL_BYTES = 1 << 16
_NONE = -1  # Stands for no descriptor.


class Pipe:
    """Receives the numbers of signals that have handlers in Python.

    The pipe stays open while the process lives: other code that replaces it may put it
    back at any time.

    Attributes:
      signals: The signals that matter.
    """

    def __init__(self) -> None:
        self.signals: set[int] = set()
        self._ends: tuple[int, int] | None = None
        self._masks = threading.local()
        forks.watch(self)
        os.register_at_fork(
            before=self._hold, after_in_parent=self._let, after_in_child=self._let
        )

    def place(self) -> bool:
        """Have Python write to the pipe; return False if other code has its place.

        Only the main thread may call this.
        """
        if self._ends is None:
            self._ends = os.pipe()
            for end in self._ends:
                os.set_blocking(end, False)
        before = signal.set_wakeup_fd(self._ends[1], warn_on_full_buffer=False)
        if before in (_NONE, self._ends[1]):
            return True
        signal.set_wakeup_fd(before)
        return False

    def take_away(self) -> None:
        """Stop Python from writing to the pipe; only the main thread may call this."""
        before = signal.set_wakeup_fd(_NONE)
        if self._ends is None or before != self._ends[1]:
            signal.set_wakeup_fd(before)

    def numbers(self) -> Iterable[int]:
        """Return the numbers of the signals that came since the last call."""
        if self._ends is None:
            return ()
        try:
            return os.read(self._ends[0], _CALL_BYTES)
        except OSError:  # No signal came, or the program closed the pipe.
            return ()

    def _hold(self) -> None:
        """Block signals in a child until it no longer writes to its parent's pipe."""
        self._masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, self.signals)

    def _let(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.before)

    def _after_fork(self) -> None:
        self.take_away()
        if self._ends is not None:
            for end in self._ends:
                os.close(end)
        self._ends = None

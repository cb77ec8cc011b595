"""Tells of signals at once, though Python calls their handlers in the main thread only.

That is busy for long while a compiled computation runs, whose callbacks are in other
threads. Python writes the number of a signal to a descriptor as soon as it comes.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable

from ..system import forks

_CALL_BYTES = 1 << 16
_NONE = -1  # Instead of a descriptor.


class Pipe:
    """Gets the numbers of signals that have handlers in Python.

    It stays open as long as the process lives, as whoever puts something else in its
    place may put it back at any time.

    Attributes:
      signals: Those that count.
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
        """Have Python write to it; False if somebody has something else in its place.

        Only the main thread can.
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
        """Have Python write to it no more; only the main thread can."""
        before = signal.set_wakeup_fd(_NONE)
        if self._ends is None or before != self._ends[1]:
            signal.set_wakeup_fd(before)

    def numbers(self) -> Iterable[int]:
        """Return the numbers of the signals that came since the last call."""
        if self._ends is None:
            return ()
        try:
            return os.read(self._ends[0], _CALL_BYTES)
        except OSError:  # Nothing came, or the program has closed it.
            return ()

    def _hold(self) -> None:
        """Hold signals back from a child until it writes to its parent no more."""
        self._masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, self.signals)

    def _let(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.before)

    def _after_fork(self) -> None:
        self.take_away()
        if self._ends is not None:
            for end in self._ends:
                os.close(end)
        self._ends = None

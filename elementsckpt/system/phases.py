"""Where the time of a save or a load goes: seconds by the name of what was done."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator


class Phases:
    """A clock that adds up the seconds of phases, by name.

        phases = Phases()
        with phases("read"):
            ...
        phases.seconds()  # {"read": 1.5}

    The seconds of a phase inside another one count for the inner one only. Threads can
    share the clock: each nests phases of its own, and the seconds of all are added up.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._lock = threading.Lock()
        self._thread = threading.local()  # Its `inner`: seconds of phases in this one.

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add the seconds that the block takes to those of a phase."""
        with self._lock:
            self._seconds.setdefault(name, 0.0)  # In the order in which phases begin.
        before = getattr(self._thread, "inner", 0.0)
        self._thread.inner = 0.0
        start = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - start
            with self._lock:
                self._seconds[name] += spent - self._thread.inner
            self._thread.inner = before + spent

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each phase so far, in the order in which they began."""
        with self._lock:
            return dict(self._seconds)

"""Where the time of a save or a load goes: seconds by the name of the phase."""

from __future__ import annotations

import threading
import time


class Phases:
    """A clock that adds up the seconds of phases, by name.

        phases = Phases()
        with phases("read"):
            ...
        phases.seconds()  # {"read": 1.5}

    Seconds of a phase inside another phase count for the inner one only. Threads can
    share the clock: each thread nests its own phases, and the seconds of all add up.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._lock = threading.Lock()
        self._thread = threading.local()  # Its `inner`: seconds of phases in this one.

    def __call__(self, name: str) -> _Phase:
        """Return a context that adds its seconds to a phase."""
        return _Phase(self, name)

    def begin(self, name: str) -> float:
        """Begin a phase; return the seconds of earlier phases inside the outer one."""
        self._seconds.setdefault(name, 0.0)  # In the order in which phases begin.
        before: float = getattr(self._thread, "inner", 0.0)
        self._thread.inner = 0.0
        return before

    def end(self, name: str, seconds: float, before: float) -> None:
        """End a phase that took so many seconds; `begin` returned `before`."""
        with self._lock:
            self._seconds[name] += seconds - self._thread.inner
        self._thread.inner = before + seconds

    def passed(self, name: str, seconds: float) -> None:
        """Count the last seconds of the current phase for a phase inside it."""
        self.end(name, seconds, self.begin(name))

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each phase so far, in the order in which they began."""
        with self._lock:
            return dict(self._seconds)


class _Phase:
    """The context of a phase; as a generator, it would take three times as long."""

    __slots__ = ("_before", "_clock", "_name", "_start")

    def __init__(self, clock: Phases, name: str) -> None:
        self._clock = clock
        self._name = name

    def __enter__(self) -> None:
        self._before = self._clock.begin(self._name)
        self._start = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._clock.end(self._name, time.monotonic() - self._start, self._before)

"""When to save: every so many steps or seconds, or for a share of the run."""

from __future__ import annotations

import math
import numbers
import operator
import os
import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, SupportsIndex, SupportsInt

from ..system import forks
from ..user.arguments import is_integer, shown

_IMPORTED = time.monotonic()
_STARTTIME = 19  # Index of the field in /proc/self/stat, from the state as 0.
_MOMENTS = ("_ended", "_began", "_allowed")  # By the clock of this machine, or None.


class Every:
    """Says when to save: `Every(1000)` is due at the multiples of 1000 steps.

        should_save = Every(1000)
        while step < total:
            train()
            if should_save(step):
                cp.save()

    The first call is due. Where several multiples lie between two calls, the second
    call is due once. With steps and seconds, a save is due by whichever comes first,
    and counts for both.

    `Every(overhead=0.02)` chooses the interval itself, so that saving takes no more
    than that share of the run: a save that took c seconds is followed by 49 c seconds
    without one. With steps or seconds, a save is due by these, but not earlier than the
    overhead allows. `mark` says what a save costs; otherwise, the cost is the time
    until the next call, which counts a step of the training, too.

    `Every(deadline=timedelta(hours=3, minutes=45))` is due once when the process has
    lived that long, whatever the overhead. With a deadline alone, the first call is
    due, too, and no other.

    Threads and signal handlers may share a schedule; each time it is due, one of them
    gets True. Register it with a checkpoint to make it go on where it was.

    Args:
      steps: Due at each multiple of so many steps, or at the first call after it.
      seconds: Due when so many have passed since the last save; also a timedelta.
      overhead: Share of the run that saving may take, between 0 and 1.
      deadline: Seconds since the process started, also as a timedelta. If the system
        does not say when it started, seconds since this package was imported.

    Raises:
      TypeError: an argument has another type.
      ValueError: an argument is not positive or not finite, or there are no arguments.

    Sources: elements.when.Every; CheckFreq (Mohan et al., 2021) for the overhead.
    """

    def __init__(
        self,
        steps: SupportsIndex | None = None,
        *,
        seconds: float | timedelta | None = None,
        overhead: float | None = None,
        deadline: float | timedelta | None = None,
    ) -> None:
        given = {
            "steps": steps,
            "seconds": seconds,
            "overhead": overhead,
            "deadline": deadline,
        }
        self._given = {key: x for key, x in given.items() if x is not None}
        if not self._given:
            raise ValueError(
                "Every() is never due: pass steps, seconds, overhead or a deadline."
            )
        self._steps = _check_steps(steps)
        self._seconds = _check_seconds("seconds", seconds)
        self._overhead = _check_share(overhead)
        self._lifetime = _check_seconds("deadline", deadline)
        self._deadline = _deadline(self._lifetime)
        self._is_deadline_met = False
        # A signal handler may call while this thread is in here.
        self._lock = threading.RLock()
        self._step: int | None = None  # Step of the last save.
        self._ended: float | None = None  # When the last save ended; None: due.
        self._cost: float | None = None  # Seconds that the last save took.
        self._began: float | None = None  # Set while the cost is not known.
        self._allowed = -math.inf  # When the overhead allows the next save.
        forks.watch(self)

    def _after_fork(self) -> None:
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the lock, clock and deadline of this process."""
        with self._lock:
            state = self.__dict__.copy()
        del state["_lock"], state["_deadline"]
        return state | _moved(state, -time.monotonic())

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, **_moved(state, time.monotonic()))
        self._deadline = _deadline(self._lifetime)
        self._is_deadline_met = self._is_deadline_met and self.is_past_deadline
        self._after_fork()
        forks.watch(self)

    def __repr__(self) -> str:
        given = ", ".join(f"{key}={value!r}" for key, value in self._given.items())
        return f"Every({given})"

    def __call__(self, step: SupportsInt | None = None) -> bool:
        """Return whether to save now; the caller saves if it is True.

        Args:
          step: What `int()` accepts. Only needed with `steps`.

        Raises:
          ValueError: the step is needed.
        """
        with self._lock:  # Threads read a counter that they share in order.
            step = None if step is None else _number(step)
            if not self.is_due(step):
                return False
            self.mark(step)
            return True

    @property
    def is_past_deadline(self) -> bool:
        """Whether the process has lived until the deadline."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    def is_due(self, step: SupportsInt | None = None) -> bool:
        """Return whether a save is due; it stays due until `mark` is called.

        Args:
          step: What `int()` accepts. Only needed with `steps`.

        Raises:
          ValueError: the step is needed.
        """
        with self._lock:
            now = time.monotonic()
            if self._began is not None:  # The last save has cost the time since.
                self._account(self._began, now - self._began)
                self._began = None
            is_step = self._steps is not None and self._reaches(self._steps, step)
            if self._ended is None:
                return now >= self._allowed
            if self.is_past_deadline and not self._is_deadline_met:
                return True
            if now < self._allowed:
                return False
            if self._steps is None and self._seconds is None:
                return self._overhead is not None
            waited = now - self._ended
            return is_step or (self._seconds is not None and waited >= self._seconds)

    def mark(
        self, step: SupportsInt | None = None, seconds_blocked: float | None = None
    ) -> None:
        """Note that a save was made, whether it was due or not.

        Args:
          step: Step of the run, if it is known.
          seconds_blocked: How long training waited for the save. By default, the time
            until the next call.
        """
        if seconds_blocked is not None:
            _check_wait(seconds_blocked)
        with self._lock:
            now = time.monotonic()
            if step is not None:
                self._step = _number(step)
            self._ended = self._began = now
            self._is_deadline_met = self._is_deadline_met or self.is_past_deadline
            if seconds_blocked is not None:
                self._began = None
                self._account(now - seconds_blocked, seconds_blocked)

    def unmark(self, seconds_blocked: float) -> None:
        """Note that a save failed, or that the save marked last was lost.

        A save is due again, but the failed one counts for the overhead: a disk that is
        full must not stop training.

        Args:
          seconds_blocked: How long training waited for the save.
        """
        _check_wait(seconds_blocked)
        with self._lock:
            self._ended = None
            if self._overhead is not None and seconds_blocked > 0:
                self._account(time.monotonic() - seconds_blocked, seconds_blocked)

    def save(self, step: SupportsInt | None = None) -> dict[str, Any]:
        """Return the state.

        Args:
          step: Step of a save that is being made, if that counts already.
        """
        with self._lock:
            last = self._step if step is None else _number(step)
            if self._overhead is None:  # The cost would only differ between runs.
                return {"step": last}
            return {"step": last, "seconds_blocked": self._cost}

    def load(self, data: Any) -> None:
        """Go on as after the save that holds this state.

        Seconds and overhead count from now on. The state can come from a schedule with
        other arguments: parts that make no sense here are ignored.
        """
        known = data if isinstance(data, Mapping) else {}
        step, cost = known.get("step"), known.get("seconds_blocked")
        with self._lock:
            self._step = step if type(step) is int else None
            if isinstance(cost, float) and 0 <= cost < math.inf:
                self._cost = cost
            self._ended = now = time.monotonic()
            self._began, self._allowed = None, -math.inf
            if self._cost is not None:
                self._account(now - self._cost, self._cost)

    def _reaches(self, steps: int, step: SupportsInt | None) -> bool:
        """Return whether the step is at or past the next multiple."""
        if step is None:
            raise ValueError(
                f"{self!r} counts steps: pass the step, as in every(step). A "
                f"Checkpoint takes it from its argument step, or from a component "
                f"that is named step."
            )
        step = _number(step)
        # A step that is a whole interval back is that of an older save, which was
        # loaded. A step that is less far back can come from a slower thread.
        if self._step is None or step <= self._step - steps:
            self._step = step
        return step // steps > self._step // steps

    def _account(self, began: float, cost: float) -> None:
        self._cost = float(cost)
        if self._overhead is not None:
            # A save by hand can come too early, and adds to the wait.
            self._allowed = max(self._allowed, began) + cost / self._overhead


def _check_steps(steps: SupportsIndex | None) -> int | None:
    if steps is None:
        return None
    if not is_integer(steps):
        raise TypeError(f"steps={shown(steps)}: pass an integer.")
    if operator.index(steps) < 1:
        raise ValueError(f"steps={shown(steps)}: pass a positive integer.")
    return operator.index(steps)


def _check_seconds(name: str, value: float | timedelta | None) -> float | None:
    if value is None:
        return None
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if not _is_number(seconds):
        raise TypeError(
            f"{name}={shown(value)}: pass a number of seconds or a timedelta."
        )
    if not 0 < seconds < math.inf:
        raise ValueError(f"{name}={shown(value)}: pass what is positive and finite.")
    return float(seconds)


def _check_share(value: float | None) -> float | None:
    if value is None:
        return None
    if not _is_number(value):
        raise TypeError(f"overhead={shown(value)}: pass a share, such as 0.02.")
    if not 0 < value < 1:
        raise ValueError(f"overhead={shown(value)}: pass a share between 0 and 1.")
    return float(value)


def _number(step: SupportsInt) -> int:
    """Return a step as a number.

    Raises:
      TypeError, ValueError: it is not a number; the class is that of `int()`.
    """
    try:
        return int(step)
    except Exception as error:
        cls = TypeError if isinstance(error, TypeError) else ValueError
        raise cls(f"step={shown(step)}: pass a number, as int() takes it.") from error


def _check_wait(value: float) -> None:
    if not _is_number(value) or not 0 <= value < math.inf:
        raise ValueError(
            f"seconds_blocked={shown(value)}: pass a number of seconds, from 0 on."
        )


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _moved(state: Mapping[str, Any], seconds: float) -> dict[str, float | None]:
    """Return the moments in a state, by a clock that differs by some seconds."""
    moments = {name: state[name] for name in _MOMENTS}
    return {name: None if x is None else x + seconds for name, x in moments.items()}


def _deadline(lifetime: float | None) -> float | None:
    """Return when the process has lived for so many seconds."""
    return None if lifetime is None else time.monotonic() - _process_age() + lifetime


def _process_age() -> float:
    """Return the age of the process in seconds, or that of this module."""
    try:
        status = Path("/proc/self/stat").read_bytes()
        # The program's name, in parentheses, may hold anything, also parentheses.
        ticks = int(status.rpartition(b")")[2].split()[_STARTTIME])
        booted_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        return booted_s - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return time.monotonic() - _IMPORTED

"""The one thread that finishes a save after `save()` has returned."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ..errors import add_note
from ..system import forks
from ..system.threads import start

T = TypeVar("T")
_logger = logging.getLogger("elementsckpt")


class Background(Generic[T]):
    """Does one piece of work at a time while the caller goes on.

    The interpreter waits for the thread when it ends, however it ends: it is no
    daemon. What kills the process, `os._exit` included, kills the work. Signal handlers
    may call all of this: the work is there until its result has been handed over.
    """

    def __init__(self) -> None:
        # One at most, in a list as handlers run between any but atomic calls.
        self._works: list[_Work[T]] = []
        forks.watch(self)

    def _after_fork(self) -> None:
        self._works.clear()  # The thread is the parent's.

    def start(self, call: Callable[[], T | None]) -> None:
        """Begin the work; nothing may be under way.

        If this is interrupted, it may have begun: only the call itself can tell.
        """
        assert not self._works
        work = _Work(call)
        self._works.append(work)
        work.start()

    def wait(self, note: Callable[[T | BaseException | None], None]) -> T | None:
        """Return the result of the last work that was begun, when it is there.

        Args:
          note: Called with the result or error before it is handed over, and again by
            the next call if an interrupt comes before that.

        Returns:
          None if there was none, or its result was returned already.

        Raises:
          BaseException: what the work raised, once.
        """
        while works := self._works[:]:
            (work,) = works
            work.run()
            note(work.outcome)
            if self._take(work):  # Else a handler did, and may have begun another.
                return work.result()
        return None

    def _take(self, work: _Work[T]) -> bool:
        try:
            self._works.remove(work)
        except ValueError:
            return False
        return True

    @property
    def is_done(self) -> bool:
        """Whether a result is there that nobody has waited for."""
        return any(work.is_done for work in self._works[:])

    def join(self) -> None:
        """Return when nothing is under way; results and errors are for `wait`."""
        joined: list[_Work[T]] = []
        while (works := self._works[:]) != joined:  # A handler may have begun another.
            for work in works:
                work.run()
            joined = works


class _Work(Generic[T]):
    """A call that is made once, by the thread that comes first."""

    def __init__(self, call: Callable[[], T | None]) -> None:
        self.is_done = False
        self.outcome: T | BaseException | None = None
        self._calls = [call]
        # Held while the call is made. A handler that interrupts that must not wait for
        # it, and one that interrupts who waits may wait, too.
        self._busy = threading.RLock()
        self._is_begun = threading.Lock()
        self._is_begun.acquire()

    def start(self) -> None:
        if _is_ending():
            self.run()  # The interpreter waits for nobody new.
            return
        if start(_begin, weakref.ref(self), daemon=False):
            self._is_begun.acquire()
        else:
            self.run()

    def begin(self) -> None:
        """Make the call, in the thread that was started for it."""
        with self._busy:
            self._is_begun.release()
            self.run()

    def run(self) -> None:
        """Return when the call was made; make it if nobody does."""
        with self._busy:
            if not self._calls:
                return
            try:
                self.outcome = self._calls.pop()()
            except BaseException as error:
                self.outcome = error
                _logger.error("The save in the background failed: %s", error)
                add_note(
                    error, "Raised by the save in the background before this call."
                )
            finally:
                self.is_done = True

    def result(self) -> T | None:
        outcome, self.outcome = self.outcome, None
        try:
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome
        finally:
            del outcome  # An error keeps what is in its traceback, and so itself.


def _is_ending() -> bool:
    """Tell whether the main thread has ended.

    Until Python 3.12, an interrupt in its `is_alive` would end it, for Python.
    """
    main = threading.main_thread()
    stopped: bool | None = getattr(main, "_is_stopped", None)
    return not main.is_alive() if stopped is None else stopped


def _begin(ref: weakref.ref[_Work[Any]]) -> None:
    # Weak: Python keeps a thread for ever whose start was interrupted.
    work = ref()
    if work is not None:
        work.begin()

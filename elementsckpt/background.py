"""The one thread that finishes a save after `save()` has returned."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from . import forks
from .errors import add_note

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

    def start(self, call: Callable[[], T]) -> None:
        """Begin the work; nothing may be under way."""
        assert not self._works
        work = _Work(call)
        work.start()
        self._works.append(work)

    def wait(self) -> T | None:
        """Return the result of the last work that was begun, when it is there.

        Returns:
          None if there was none, or its result was returned already.

        Raises:
          BaseException: what the work raised, once.
        """
        while works := self._works[:]:
            (work,) = works
            work.join()
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
        while (works := self._works[:]) and not works[0].is_done:
            works[0].join()


class _Work(Generic[T]):
    def __init__(self, call: Callable[[], T]) -> None:
        self.is_done = False
        self._call: Callable[[], T] | None = call
        self._results: list[T] = []
        self._error: BaseException | None = None
        self._waiting: list[threading.Lock] = []

    def start(self) -> None:
        if not threading.main_thread().is_alive():
            self._run()  # The interpreter is about to end, and waits for nobody new.
            return
        thread = threading.Thread(target=self._run, name="elementsckpt", daemon=False)
        try:
            thread.start()
        except RuntimeError:  # Of late, or there are too many threads.
            self._run()

    def _run(self) -> None:
        assert self._call is not None
        try:
            self._results.append(self._call())
        except BaseException as error:
            _logger.error("The save in the background failed: %s", error)
            add_note(error, "Raised by the save in the background before this call.")
            self._error = error
        finally:
            self._call = None  # It holds what was saved.
            self.is_done = True
            for lock in self._waiting[:]:
                lock.release()

    def join(self) -> None:
        # Each caller has a lock of its own: an Event has one for all, for which a
        # handler would wait for ever that interrupts a caller who holds it.
        lock = threading.Lock()
        lock.acquire()
        self._waiting.append(lock)
        if not self.is_done:
            lock.acquire()

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._results[0]

"""The one thread that finishes a save after `save()` has returned."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ..errors import add_note
from ..system import forks
from ..system.pace import Pace, is_ending
from ..system.threads import start

T = TypeVar("T")
_LOOK_S = 0.1
_logger = logging.getLogger("elementsckpt")


class Background(Generic[T]):
    """Does one piece of work at a time while the caller goes on.

    The interpreter waits for the thread before it ends, as the thread is not a daemon.
    What kills the process, `os._exit` included, kills the work. Signal handlers may
    call all methods: the work is kept until its result has been returned.
    """

    def __init__(self) -> None:
        # At most one. A list has atomic calls, and handlers run between all others.
        self._works: list[_Work[T]] = []
        forks.watch(self)

    def _after_fork(self) -> None:
        self._works.clear()  # The child does not have the thread.

    def start(self, call: Callable[[], T | None]) -> None:
        """Begin the work; no other work may be under way.

        If an interrupt ends this, the work may have begun: only `call` itself knows.
        """
        assert not self._works
        work = _Work(call)
        self._works.append(work)
        work.start()

    def wait(
        self,
        note: Callable[[T | BaseException | None], None],
        meanwhile: Callable[[], object] | None = None,
    ) -> T | None:
        """Wait for the last work and return its result.

        Args:
          note: Called with the result or error before this returns or raises it, and
            again by the next call if an interrupt comes in between.
          meanwhile: Called now and then until the work is done.

        Returns:
          The result, or None if no work was begun, or its result was returned already.

        Raises:
          BaseException: what the work raised, once.
        """
        while works := self._works[:]:
            (work,) = works
            work.hurry()
            if meanwhile is not None:
                work.watch(meanwhile)
            work.run()
            note(work.outcome)
            try:
                self._works.remove(work)
            except ValueError:
                continue  # A handler took it, and may have begun another.
            return work.result()
        return None

    @property
    def is_busy(self) -> bool:
        """Whether `wait` has something to wait for, or to return."""
        return bool(self._works)

    @property
    def is_done(self) -> bool:
        """Whether there is a result for `wait` to return."""
        return any(work.is_done for work in self._works[:])

    def join(self) -> None:
        """Wait until no work is under way; results and errors are for `wait`."""
        joined: list[_Work[T]] = []
        while (works := self._works[:]) != joined:  # A handler may have begun another.
            for work in works:
                work.hurry()
                work.run()
            joined = works


class _Work(Generic[T]):
    """A call that is made once, by the thread that comes first."""

    def __init__(self, call: Callable[[], T | None]) -> None:
        self.is_done = False
        self.outcome: T | BaseException | None = None
        self._calls = [call]
        self._pace = Pace()
        # Held during the call. A signal handler that interrupts the call must not wait
        # for it; one that interrupts a thread that waits may wait, too.
        self._busy = threading.RLock()
        self._thread: int | None = None  # That was started for it.
        self._ended: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._is_begun = threading.Lock()
        self._is_begun.acquire()

    def start(self) -> None:
        # An interpreter that ends does not wait for new threads.
        if not is_ending() and start(_begin, weakref.ref(self), daemon=False):
            self._is_begun.acquire()
        else:
            self.run()

    def begin(self) -> None:
        """Make the call, in the thread that was started for it."""
        with self._busy:
            self._thread = threading.get_ident()
            self._is_begun.release()
            self._pace.lead()
            self.run()

    def hurry(self) -> None:
        """Let the thread not give way any more, as someone waits for it."""
        self._pace.hurry()

    def watch(self, meanwhile: Callable[[], object]) -> None:
        """Call a function now and then until another thread has made the call."""
        while self._thread not in (None, threading.get_ident()) and not self.is_done:
            with contextlib.suppress(queue.Empty):
                self._ended.get(timeout=_LOOK_S)
            meanwhile()

    def run(self) -> None:
        """Wait until the call was made; make it if no thread does."""
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
                self._ended.put(None)

    def result(self) -> T | None:
        outcome, self.outcome = self.outcome, None
        try:
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome
        finally:
            del outcome  # An error keeps its traceback, and so this frame, alive.


def _begin(ref: weakref.ref[_Work[Any]]) -> None:
    # Weak, as Python keeps a thread forever if an interrupt ended its start.
    work = ref()
    if work is not None:
        work.begin()

"""The one thread that finishes a save after `save()` has returned."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

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
        self._work: _Work[T] | None = None

    def start(self, call: Callable[[], T]) -> None:
        """Begin the work; nothing may be under way."""
        assert self._work is None
        work = _Work(call)
        work.start()
        self._work = work

    def wait(self) -> T | None:
        """Return the result of the last work that was begun, when it is there.

        Returns:
          None if there was none, or its result was returned already.

        Raises:
          BaseException: what the work raised, once.
        """
        self.join()
        work, self._work = self._work, None
        if work is None or work.process != os.getpid():
            return None
        return work.result()

    @property
    def is_done(self) -> bool:
        """Whether a result is there that nobody has waited for."""
        work = self._work
        return work is not None and work.process == os.getpid() and work.is_done

    def join(self) -> None:
        """Return when nothing is under way; results and errors are for `wait`."""
        work = self._work
        if work is not None and work.process == os.getpid():  # Threads do not fork.
            work.join()


class _Work(Generic[T]):
    def __init__(self, call: Callable[[], T]) -> None:
        self.process = os.getpid()
        self._call: Callable[[], T] | None = call
        self._results: list[T] = []
        self._error: BaseException | None = None
        self._done = threading.Event()

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
            self._done.set()

    @property
    def is_done(self) -> bool:
        return self._done.is_set()

    def join(self) -> None:
        self._done.wait()

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._results[0]

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
    daemon. What kills the process, `os._exit` included, kills the work.
    """

    def __init__(self) -> None:
        self._work: _Work[T] | None = None

    def start(self, call: Callable[[], T]) -> None:
        """Begin the work; nothing may be under way."""
        assert self._work is None
        self._work = _Work(call)
        self._work.start()

    def wait(self) -> T | None:
        """Return the result of the last work that was begun, when it is there.

        Returns:
          None if there was none, or its result was returned already.

        Raises:
          BaseException: what the work raised, once.
        """
        work, self._work = self._work, None
        if work is None or work.process != os.getpid():  # The thread did not fork.
            return None
        try:
            return work.result()
        except KeyboardInterrupt:
            if not work.is_done:
                self._work = work
            raise

    def join(self) -> None:
        """Return when nothing is under way; results and errors are for `wait`."""
        if self._work is not None and self._work.process == os.getpid():
            self._work.join()


class _Work(Generic[T]):
    def __init__(self, call: Callable[[], T]) -> None:
        self.process = os.getpid()
        self._call = call
        self._results: list[T] = []
        self._error: BaseException | None = None
        self._done = threading.Event()

    @property
    def is_done(self) -> bool:
        return self._done.is_set()

    def start(self) -> None:
        thread = threading.Thread(target=self._run, name="elementsckpt", daemon=False)
        try:
            thread.start()
        except RuntimeError:  # The interpreter is about to end: no time but now.
            self._run()

    def _run(self) -> None:
        try:
            self._results.append(self._call())
        except BaseException as error:
            _logger.error("The save in the background failed: %s", error)
            add_note(error, "Raised by the save in the background before this call.")
            self._error = error
        finally:
            self._done.set()

    def join(self) -> None:
        self._done.wait()

    def result(self) -> T:
        self.join()
        if self._error is not None:
            raise self._error
        return self._results[0]

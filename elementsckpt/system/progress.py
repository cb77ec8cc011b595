"""How far a function is: counted by all threads, told by the one that called it."""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from ..reports.work import Progress
from ..user.arguments import shown
from . import renderers

STEP_BYTES = 32_000_000  # At most this is done between two calls of a callback.
_REFRESH_S = 0.1
_LEAST_BYTES, _LEAST_COUNT = 1 << 20, 256
Callback = Callable[[Progress], object]
_chosen: ContextVar[Callback | None] = ContextVar("elementsckpt.progress")


@contextlib.contextmanager
def progress(callback: Callback | None) -> Iterator[None]:
    """Tell a function how far loads and what looks at saves are, in a `with` block.

    This replaces the bar of a terminal, the display of a notebook and the lines in the
    log. Of nested blocks the innermost counts. It holds for `load`, `load_or_save`,
    `read`, `wait`, `verify`, `stats`, `diff` and `export`.

    Args:
      callback: Gets a `Progress`: at the start, once for every 32 MB at least, and with
        `is_finished` at the end. It is called in the thread that called the function.
        What it raises ends the work and is raised; an error of the work itself ends it
        without a further call. None is silence.

    Raises:
      ValueError: `callback` is neither a function nor None.
    """
    if callback is not None and not callable(callback):
        raise ValueError(
            f"callback={shown(callback)}: pass a function of one Progress, or None for "
            f"silence."
        )
    token = _chosen.set(callback)
    try:
        yield
    finally:
        _chosen.reset(token)


class Meter:
    """Counts the bytes of one call of a function, and tells how far it is.

    A `with` block is the call. Any thread may count; only the thread of the block
    tells, when it counts itself or calls `tell`.

    Args:
      work: Name of the function.
    """

    def __init__(self, work: str) -> None:
        self._work = work
        self._tells: Callback | None = None  # None while nothing is to be told.
        self._end: Callable[[], None] = _nothing
        self._error: BaseException | None = None  # Of the callback.
        self._added: collections.deque[int] = collections.deque()
        self._done = 0
        self._told = -1  # Nothing yet.
        self._total = 0

    def __enter__(self) -> Meter:
        self._thread = threading.get_ident()
        self._begun_s = self._told_s = time.monotonic()
        try:
            self._tells = _chosen.get()
        except LookupError:
            renderer = renderers.default()
            if renderer is not None:
                self._tells, self._end = renderer, renderer.close
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        try:
            if error is None and self._tells is not None:
                self.begin(0)
                self._done = self._total
                self.tell()
                self._call(self._total, is_finished=True)
        except _StoppedError:
            pass
        finally:
            self._tells = None
            try:
                self._end()
            except BaseException:  # An interrupt, which may have come too early.
                self._end()
                raise
        if self._error is not None and (
            error is None or isinstance(error, _StoppedError)
        ):
            raise self._error

    @property
    def is_on(self) -> bool:
        """Whether what is counted is told, so that the total is worth finding out."""
        return self._tells is not None

    def begin(self, total: int) -> None:
        """Say how many bytes there are, and begin to count.

        Again if another save is read instead: then the total stays, and more is done
        only when more of the other save is.
        """
        if self._tells is None:
            return
        self._added.clear()
        self._done = 0
        if self._told < 0:
            self._total = total
            self._call(0)

    def add(self, size_bytes: int) -> None:
        """Count bytes that are done; any thread may."""
        if self._tells is not None:
            self._added.append(size_bytes)
            # Most of many small leaves only count, which costs less than to tell.
            is_enough = size_bytes >= _LEAST_BYTES or len(self._added) >= _LEAST_COUNT
            if is_enough and threading.get_ident() == self._thread:
                self.tell()

    def tell(self) -> None:
        """Tell what was counted, if that is enough; only the thread of the block may.

        Raises:
          BaseException: the callback did; the end of the block raises its error.
        """
        if self._tells is None or self._told < 0:
            return
        while self._added:
            self._done += self._added.popleft()
        done = min(self._done, self._total)
        while done - self._told >= STEP_BYTES:
            self._call(self._told + STEP_BYTES)
        if done > self._told and time.monotonic() - self._told_s >= _REFRESH_S:
            self._call(done)

    def reach(self, done_bytes: int) -> None:
        """Count up to a number of bytes that are done, and tell."""
        self._done = max(self._done, done_bytes)
        self.tell()

    def _call(self, done: int, *, is_finished: bool = False) -> None:
        tells = self._tells
        assert tells is not None
        self._told, self._told_s = done, time.monotonic()
        seconds = self._told_s - self._begun_s
        try:
            tells(Progress(self._work, done, self._total, seconds, is_finished))
        except BaseException as error:
            self._error, self._tells = error, None
            # What it raises may be what damage raises, which the work looks for.
            raise _StoppedError from error


class _StoppedError(BaseException):
    """A callback has raised something: `Meter` raises that in place of this."""


def _nothing() -> None:
    """Do nothing."""


SILENT = Meter("")  # Tells nothing, as it is never entered.

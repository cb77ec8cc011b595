"""Signals that ask a process to end: noticed, so that it can save before it does."""

from __future__ import annotations

import functools
import logging
import math
import os
import signal
import threading
import time
import weakref
from collections.abc import Iterable
from types import FrameType
from typing import Any

from ..errors import reason
from ..user.arguments import shown
from . import sigactions
from .wakeup import Pipe

# What schedulers send some time before they kill, and what they can be told to send.
_NAMES = ("SIGTERM", "SIGUSR1")
DEFAULT = tuple(getattr(signal, x) for x in _NAMES if hasattr(signal, x))
_NO_CODE = int(signal.SIG_DFL), int(signal.SIG_IGN)
_LOOK_S = 1.0  # From one look at what others have put in our place to the next.
_logger = logging.getLogger("elementsckpt")


class Watch:
    """Notices signals, which then end the process no more, from `begin` to `stop`.

    Python functions that handled them before are called still, after the signal has
    been noticed; what the system would do by default, and code that Python does not
    know of, is not. When the last watch is stopped all is as it was before; when nobody
    holds it any more, the signals do what they did before.

    A watch is of one process. In a forked child the signals do what they would do
    without it, or `multiprocessing` could not end its processes; a child that is to
    notice them begins a watch of its own.

    Args:
      signals: Which ones.

    Attributes:
      signals: The same.

    Raises:
      ValueError: one is no signal.
    """

    def __init__(self, signals: Iterable[int] = DEFAULT) -> None:
        try:
            self.signals = frozenset(map(signal.Signals, signals))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"signals={shown(signals)}: pass a list of signals, such as "
                f"[signal.SIGTERM]."
            ) from error
        self._received: signal.Signals | None = None
        self._process = os.getpid()
        self._looked = -math.inf
        self._lost: set[int] = set()  # Signals that others have taken over.

    def begin(self) -> None:
        """Begin to notice the signals; if that fails, the caller should `stop`.

        Raises:
          ValueError: not in the main thread, or a signal that cannot be watched.
        """
        if threading.current_thread() is not threading.main_thread():
            raise ValueError(
                "Signals can only be watched from the main thread, where Python "
                "handles them: call watch_signals() there, before other threads begin."
            )
        _collect()  # What came before is not for this one.
        forget = functools.partial(_watches.pop, id(self))
        _watches[id(self)] = weakref.ref(self, forget)
        for number in self.signals:
            _install(number)
        _pipe.signals.update(self.signals)
        _pipe.place()

    @property
    def received(self) -> signal.Signals | None:
        """The first of the signals that came, or None; any thread is told at once."""
        _collect()
        now = time.monotonic()
        if self.is_on and now - self._looked >= _LOOK_S:
            self._looked = now
            self._look()
        return self._received

    @property
    def is_on(self) -> bool:
        """Whether it notices signals in this process."""
        return id(self) in _watches and self._process == os.getpid()

    def notice(self, number: int) -> None:
        """Take note of a signal that came."""
        if self.is_on and number in self.signals and self._received is None:
            self._received = signal.Signals(number)

    def _look(self) -> None:
        """Warn, once, of signals that others have taken over."""
        for number in sorted(self.signals - self._lost):
            whose = _taken_by(number)
            if whose is None:
                continue
            self._lost.add(number)
            _logger.warning(
                "%s is handled by %s now, which came after watch_signals(): unless it "
                "calls what was there, the signal is not noticed any more. Call "
                "watch_signals() again, after whatever else handles signals.",
                *(signal.Signals(number).name, whose),
            )

    def stop(self) -> None:
        """Leave the signals to what was there before; more than once is harmless.

        In another thread than the main one, Python's handlers cannot be changed: ours
        stays, and passes everything on.
        """
        _collect()
        _watches.pop(id(self), None)
        if threading.current_thread() is not threading.main_thread():
            return
        for number in self.signals:
            if not _watching(number):
                _uninstall(number)
        if not any(watch.is_on for watch in _all()):
            _pipe.take_away()


# By id, and weak, so that signals do not stay without effect when nobody looks at a
# watch any more. Changed by atomic calls only: handlers run between any two others.
_watches: dict[int, weakref.ref[Watch]] = {}
_pipe = Pipe()


def _all() -> list[Watch]:
    watches = [ref() for ref in tuple(_watches.values())]
    return [watch for watch in watches if watch is not None]


def _watching(number: int) -> list[Watch]:
    return [watch for watch in _all() if watch.is_on and number in watch.signals]


def _collect() -> None:
    """Tell the watches of what came, without waiting for the main thread."""
    for number in set(_pipe.numbers()):
        for watch in _all():
            watch.notice(number)


class _Notice:
    """Handles a signal: tells the watches, and passes it on.

    Somebody else's handler may hold it and call it at any time later, so each has what
    it replaced, never to change.

    Args:
      previous: The handler that Python knew before.
      before: What the system did before, if that can be told.
    """

    def __init__(self, previous: Any, before: bytes | None) -> None:
        self.previous = previous
        self._before = before

    def __call__(self, number: int, frame: FrameType | None) -> None:
        _collect()
        watches = _watching(number)
        for watch in watches:
            watch.notice(number)
        if callable(self.previous):
            self.previous(number, frame)
        elif not watches and self.previous is not signal.SIG_IGN:
            self._do_as_before(number)

    def _do_as_before(self, number: int) -> None:
        """Do what the system did with the signal, which may end the process."""
        installed = signal.getsignal(number)
        self.put_back(number)
        os.kill(os.getpid(), number)
        signal.signal(number, installed)

    def put_back(self, number: int) -> None:
        """Put back what was there before, exactly."""
        previous = signal.SIG_DFL if self.previous is None else self.previous
        try:
            signal.signal(number, previous)
        finally:
            is_done = signal.getsignal(number) is not self
            if is_done and self._before is not None:
                sigactions.put(number, self._before)


_code: int | None = None  # What the system runs for Python, once that is known.


def _install(number: int) -> None:
    global _code
    # Over somebody else's handler another one, as that need not call what it replaced.
    if _is_on_top(number):
        return
    previous, before = signal.getsignal(number), sigactions.get(number)
    name = signal.Signals(number).name
    try:
        signal.signal(number, _Notice(previous, before))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{name} cannot be watched: {reason(error)}. Choose signals that may be "
            f"handled, such as SIGTERM."
        ) from error
    now = sigactions.get(number)
    _code = None if now is None else sigactions.code_of(now)
    is_known = before is None or sigactions.code_of(before) in (*_NO_CODE, _code)
    if previous is None or not is_known:
        _logger.warning(
            "%s has a handler that Python does not know, such as one by "
            "faulthandler.register(): it is not called while the signal is watched, "
            "and put back by close(). To have both, call watch_signals() first, and "
            "then for example faulthandler.register(signal.%s, chain=True).",
            *(name, name),
        )


def _uninstall(number: int) -> None:
    if _is_on_top(number):  # What else is there may go on to ours.
        signal.getsignal(number).put_back(number)  # type: ignore[union-attr]


def _is_on_top(number: int) -> bool:
    is_ours = isinstance(signal.getsignal(number), _Notice)
    return is_ours and _code in (None, _code_for(number))


def _code_for(number: int) -> int | None:
    """Return what the system runs, as far as it can be told."""
    action = sigactions.get(number)
    return _code if action is None else sigactions.code_of(action)


def _taken_by(number: int) -> str | None:
    """Return what handles a signal instead of us, or None if we hear of it."""
    handler, code = signal.getsignal(number), _code_for(number)
    if code in _NO_CODE:
        return "the default"
    if code != _code:
        return "code that Python does not know"
    if isinstance(handler, _Notice) or not callable(handler):
        return None
    # We hear of it before any handler in Python, unless others do instead.
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or _pipe.place():
        return None
    module = getattr(handler, "__module__", type(handler).__module__)
    return f"{module}.{getattr(handler, '__qualname__', type(handler).__qualname__)}"

"""Signals that ask a process to end: noticed, so that it can save before it does."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import weakref
from collections.abc import Iterable
from types import FrameType
from typing import Any

from .errors import reason

# What schedulers send some time before they kill, and what they can be told to send.
_NAMES = ("SIGTERM", "SIGUSR1")
DEFAULT = tuple(getattr(signal, x) for x in _NAMES if hasattr(signal, x))
_logger = logging.getLogger("elementsckpt")


class Watch:
    """Notices signals, in the process that began it, until it is stopped.

    Attributes:
      signals: Those that it is for.
      received: The first of them that came, or None.
    """

    def __init__(self, signals: Iterable[int]) -> None:
        self.signals = frozenset(map(signal.Signals, signals))
        self.received: signal.Signals | None = None
        self._process = os.getpid()
        self._ref = weakref.ref(self, _forget)

    def stop(self) -> None:
        """Leave the signals to what was there before; more than once is harmless.

        In another thread than the main one, Python's handlers cannot be changed: ours
        stays, and passes everything on.
        """
        try:
            if threading.current_thread() is threading.main_thread():
                for number in self.signals:
                    if all(watch is self for watch in _watching(number)):
                        _uninstall(number)
        finally:
            _forget(self._ref)


def watch(signals: Iterable[int] = DEFAULT) -> Watch:
    """Begin to notice signals, which then end the process no more.

    Python functions that handled them before are called still, after the signal has
    been noticed; what the system would do by default is not done. When the last watch
    is stopped, or nobody holds it any more, all is as it was before.

    A watch is of one process. In a forked child the signals do what they would do
    without it, or `multiprocessing` could not end its processes; a child that is to
    notice them begins a watch of its own.

    Args:
      signals: Which ones.

    Raises:
      ValueError: not in the main thread, or a signal that cannot be watched.
    """
    if threading.current_thread() is not threading.main_thread():
        raise ValueError(
            "Signals can only be watched from the main thread, where Python handles "
            "them: call watch_signals() there, before other threads begin."
        )
    begun = Watch(signals)
    _watches.append(begun._ref)
    try:
        for number in begun.signals:
            _install(number)
    except BaseException:
        begun.stop()
        raise
    return begun


# Weak, so that signals do not stay without effect when nobody looks at a watch any
# more. Changed by atomic calls only: handlers run between any two others.
_watches: list[weakref.ref[Watch]] = []


def _forget(
    ref: weakref.ref[Watch],
    watches: list[weakref.ref[Watch]] = _watches,
    suppress: type[contextlib.suppress] = contextlib.suppress,
) -> None:
    with suppress(ValueError):  # Bound, as modules are empty when Python ends.
        watches.remove(ref)


def _watching(number: int) -> list[Watch]:
    process = os.getpid()
    watches = [ref() for ref in tuple(_watches)]
    return [x for x in watches if x and x._process == process and number in x.signals]


class _Notice:
    """Handles a signal: tells the watches, and passes it on.

    Somebody else's handler may hold it and call it at any time later, so each has what
    it replaced, never to change.
    """

    def __init__(self, previous: Any) -> None:
        self.previous = previous

    def __call__(self, number: int, frame: FrameType | None) -> None:
        watches = _watching(number)
        for watch in watches:
            watch.received = watch.received or signal.Signals(number)
        if callable(self.previous):
            self.previous(number, frame)
        elif not watches and self.previous is not signal.SIG_IGN:
            _do_default(number)


def _do_default(number: int) -> None:
    """Do what the system does with the signal by itself, which may end the process."""
    installed = signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    signal.signal(number, installed)


def _install(number: int) -> None:
    # Over somebody else's handler another one, as that need not call what it replaced.
    previous = signal.getsignal(number)
    if isinstance(previous, _Notice):
        return
    name = signal.Signals(number).name
    try:
        signal.signal(number, _Notice(previous))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{name} cannot be watched: {reason(error)}. Choose signals that may be "
            f"handled, such as SIGTERM."
        ) from error
    if previous is None:
        _logger.warning(
            "%s had a handler that Python cannot call, and which is now replaced.", name
        )


def _uninstall(number: int) -> None:
    installed = signal.getsignal(number)
    if isinstance(installed, _Notice):
        previous = installed.previous
        signal.signal(number, signal.SIG_DFL if previous is None else previous)

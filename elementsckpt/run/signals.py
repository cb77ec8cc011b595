"""Watches the signals that ask a process to end, so that it can save before."""

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
from .wakeup import Pipe

# What job schedulers send some time before they kill, or can be told to send.
_NAMES = ("SIGTERM", "SIGUSR1")
DEFAULT = tuple(getattr(signal, x) for x in _NAMES if hasattr(signal, x))
_NO_CODE = int(signal.SIG_DFL), int(signal.SIG_IGN)
_ACTION_BYTES = 512  # More than a `struct sigaction` has anywhere.
_LOOK_S = 1.0  # Between two checks whether other code has replaced our handler.
_logger = logging.getLogger("elementsckpt")


class Watch:
    """Notices signals instead of letting them end the process, from `begin` to `stop`.

    Earlier handlers in Python are still called, after the watch has noticed the signal.
    The system's default action, and handlers that Python does not know, are not. When
    the last watch stops, everything is as before. When the program drops a watch
    without `stop`, the signals do what they did before.

    A watch belongs to one process. In a forked child the signals do what they would do
    without it, as `multiprocessing` has to end its processes. A child that is to notice
    them begins a watch of its own.

    Args:
      signals: The signals to notice.

    Attributes:
      signals: The same.

    Raises:
      ValueError: an item is not a signal.
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
        self._lost: set[int] = set()  # Signals that other code handles now.

    def begin(self) -> None:
        """Begin to notice the signals; if this raises, the caller calls `stop`.

        Raises:
          ValueError: this is not the main thread, or a signal cannot be watched.
        """
        if threading.current_thread() is not threading.main_thread():
            raise ValueError(
                "Signals can only be watched from the main thread, where Python "
                "handles them: call watch_signals() there, before other threads begin."
            )
        _collect()  # Signals that came before are not for this watch.
        forget = functools.partial(_watches.pop, id(self))
        _watches[id(self)] = weakref.ref(self, forget)
        for number in self.signals:
            _install(number)
        _pipe.signals.update(self.signals)
        _pipe.place()

    @property
    def received(self) -> signal.Signals | None:
        """The first signal that came, or None; correct at once in any thread."""
        _collect()
        now = time.monotonic()
        if self.is_on and now - self._looked >= _LOOK_S:
            self._looked = now
            self._look()
        return self._received

    @property
    def is_on(self) -> bool:
        """Whether the watch notices signals in this process."""
        return id(self) in _watches and self._process == os.getpid()

    def notice(self, number: int) -> None:
        """Note that a signal came."""
        if self.is_on and number in self.signals and self._received is None:
            self._received = signal.Signals(number)

    def _look(self) -> None:
        """Warn, once for each signal, if other code has replaced our handler."""
        for number in sorted(self.signals - self._lost):
            whose = _taken_by(number)
            if whose is not None:
                self._lost.add(number)
                _logger.warning(
                    "%s is handled by %s now, which came after watch_signals(): unless "
                    "it calls what was there, the signal is not noticed any more. Call "
                    "watch_signals() again, after whatever else handles signals.",
                    *(signal.Signals(number).name, whose),
                )

    def stop(self) -> None:
        """Put the earlier handlers back; a second call does nothing.

        Only the main thread can change Python's handlers. In another thread, our
        handler stays and passes all signals on.
        """
        _collect()
        _watches.pop(id(self), None)
        if threading.current_thread() is not threading.main_thread():
            return
        for number in self.signals:  # Over our handler, other code may still call it.
            if not _watching(number) and _is_on_top(number):
                signal.getsignal(number).put_back(number)  # type: ignore[union-attr]
        if not any(watch.is_on for watch in _all()):
            _pipe.take_away()


# By id, and weak, so that signals have an effect again when the program drops a watch.
# Only atomic calls change it, as signal handlers run between any two others.
_watches: dict[int, weakref.ref[Watch]] = {}
_pipe = Pipe()


def _all() -> list[Watch]:
    watches = [ref() for ref in tuple(_watches.values())]
    return [watch for watch in watches if watch is not None]


def _watching(number: int) -> list[Watch]:
    return [watch for watch in _all() if watch.is_on and number in watch.signals]


def _collect() -> None:
    """Notify the watches of the signals that came, also in other threads."""
    for number in set(_pipe.numbers()):
        for watch in _all():
            watch.notice(number)


class _Notice:
    """Handles a signal: notifies the watches, and calls the earlier handler.

    Another handler may hold this one and call it at any later time. So what this one
    replaced never changes.

    Args:
      previous: The earlier handler, as far as Python knows it.
      before: The earlier action of the system, or None if that is not known.
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
        """Have the system do its earlier action, which may end the process."""
        installed = signal.getsignal(number)
        self.put_back(number)
        os.kill(os.getpid(), number)
        signal.signal(number, installed)

    def put_back(self, number: int) -> None:
        """Put the earlier handler and action back, exactly."""
        previous = signal.SIG_DFL if self.previous is None else self.previous
        try:
            signal.signal(number, previous)
        finally:
            is_done = signal.getsignal(number) is not self
            if is_done and self._before is not None:
                set_action(number, self._before)


_code: int | None = None  # Address of Python's handler in C, once it is known.


def _install(number: int) -> None:
    global _code
    # A handler above ours need not call it, so another one of ours goes on top.
    if _is_on_top(number):
        return
    previous, before = signal.getsignal(number), action_of(number)
    name = signal.Signals(number).name
    try:
        signal.signal(number, _Notice(previous, before))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{name} cannot be watched: {reason(error)}. Choose signals that may be "
            f"handled, such as SIGTERM."
        ) from error
    _code = code_of(action_of(number))
    is_known = before is None or code_of(before) in (*_NO_CODE, _code)
    if previous is None or not is_known:
        _logger.warning(
            "%s has a handler that Python does not know, such as one by "
            "faulthandler.register(): it is not called while the signal is watched, "
            "and put back by close(). To have both, call watch_signals() first, and "
            "then for example faulthandler.register(signal.%s, chain=True).",
            *(name, name),
        )


def _is_on_top(number: int) -> bool:
    is_ours = isinstance(signal.getsignal(number), _Notice)
    return is_ours and _code in (None, _code_for(number))


def _code_for(number: int) -> int | None:
    """Return the address of the handler that the system calls, if it is known."""
    action = action_of(number)
    return _code if action is None else code_of(action)


def _taken_by(number: int) -> str | None:
    """Return what handles a signal instead of a watch, or None if watches get it."""
    handler, code = signal.getsignal(number), _code_for(number)
    if code in _NO_CODE:
        return "the default"
    if code != _code:
        return "code that Python does not know"
    if isinstance(handler, _Notice) or not callable(handler):
        return None
    # The pipe gets signals before handlers in Python do, if it has its place.
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or _pipe.place():
        return None
    module = getattr(handler, "__module__", type(handler).__module__)
    return f"{module}.{getattr(handler, '__qualname__', type(handler).__qualname__)}"


# The system's action for a signal. Python may not know it: `faulthandler.register`,
# libraries written in other languages, and programs that embed Python set such.


def action_of(number: int) -> bytes | None:
    """Return the system's action for a signal, or None if it is not known."""
    sigaction = _sigaction()
    if sigaction is None:
        return None
    import ctypes

    memory = ctypes.create_string_buffer(_ACTION_BYTES)
    return None if sigaction(int(number), None, memory) else memory.raw


def set_action(number: int, action: bytes) -> None:
    """Set the system's action to one that `action_of` returned, with all its flags."""
    sigaction = _sigaction()
    if sigaction is not None:
        sigaction(int(number), action, None)


def code_of(action: bytes | None) -> int | None:
    """Return the address of the handler of an action, or SIG_DFL or SIG_IGN."""
    if action is None:
        return None
    import ctypes

    return ctypes.c_void_p.from_buffer_copy(action).value or 0


@functools.cache
def _sigaction() -> Any:
    """Return the function of the C library, or None if it is not found."""
    try:
        import ctypes  # Importing it takes a while, and most runs watch no signals.

        return ctypes.CDLL(None).sigaction
    except (ImportError, OSError, AttributeError):
        return None

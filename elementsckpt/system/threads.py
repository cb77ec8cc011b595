"""A few threads for calls that release the GIL: hashing, reading and writing."""

from __future__ import annotations

import collections
import contextlib
import operator
import os
import queue
import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from . import memory, pace
from .pace import Pace

_LOOK_S = 0.1
_THREADS = min(8, (os.cpu_count() or 1) + 1)
T = TypeVar("T")
R = TypeVar("R")
_Labour = Callable[[Pace | None], None]  # At whose pace.


def run(
    call: Callable[[T], R],
    items: Iterable[T],
    *,
    alone: bool = False,
    meanwhile: Callable[[], object] | None = None,
) -> list[R]:
    """Call a function for each item, in parallel.

    The calling thread works, too. It does all of the work if Python can start no other
    thread: in exit hooks, and in threads that outlive the main one. A call that found
    too little memory is repeated when the other threads have ended. If the calling
    thread leads something at a `Pace`, helpers that give way work alone, to begin with.

    Args:
      call: The function.
      items: Its arguments.
      alone: Whether the calling thread does all, as that takes less time than to start
        another one.
      meanwhile: Called now and then while the calling thread waits for the others.

    Returns:
      The results, in order.

    Raises:
      BaseException: the first that a call raised, after all threads have ended.
    """
    work = list(items)
    results: list[Any] = [None] * len(work)
    remaining = iter(range(len(work)))
    lock = threading.Lock()
    errors: list[BaseException] = []
    put_off: list[int] = []

    def labour(led: Pace | None) -> None:
        while not errors and (led is None or led.gives_way):
            with lock:
                number = next(remaining, None)
            if number is None:
                return
            try:
                results[number] = call(work[number])
            except MemoryError:
                put_off.append(number)
                return
            except BaseException as error:
                errors.append(error)

    helping: list[threading.Lock] = []
    ended: queue.SimpleQueue[None] = queue.SimpleQueue()
    try:
        if not alone:
            _rest(labour, len(work), helping)
        left = operator.length_hint(remaining)
        _start(labour, 0 if alone else min(_THREADS, left) - 1, helping, ended=ended)
        labour(None)
        while meanwhile and not errors and any(busy.locked() for busy in helping):
            with contextlib.suppress(queue.Empty):
                ended.get(timeout=_LOOK_S)
            meanwhile()
    except BaseException as error:  # Ctrl-C, anywhere; the others stop, too.
        errors.append(error)
    finally:
        del labour  # A helper that begins from now on finds no work.
        for busy in helping:
            _wait(busy, errors)
    for number in [] if errors else [*put_off, *remaining]:
        results[number] = call(work[number])
    if errors:
        collections.deque(remaining, maxlen=0)  # Leaves nothing for late helpers.
        del errors[1:]  # Each traceback holds this list, and so the error itself.
        raise errors.pop()
    return results


def _rest(labour: _Labour, count: int, helping: list[threading.Lock]) -> None:
    """Have helpers that give way do the work, if there is a pace and time for that."""
    led = pace.led()
    if led is None or count < 2 or not led.gives_way:
        return
    if _start(labour, min(pace.HELPERS, count), helping, led):
        led.rest(helping)


def _start(
    labour: _Labour,
    count: int,
    helping: list[threading.Lock],
    led: Pace | None = None,
    ended: queue.SimpleQueue[None] | None = None,
) -> bool:
    """Start up to `count` helper threads; each holds its lock while it works.

    Returns whether there is one.

    If an interrupt in `Thread.start` hides a helper from us, the helper comes too late
    to get work, or its lock makes us wait for it. Python keeps threads that never began
    for ever, so a thread holds only a weak reference to the work.
    """
    for number in range(count):
        busy = threading.Lock()
        helping.append(busy)
        if not start(_help, busy, weakref.ref(labour), led, ended, daemon=True):
            return number > 0
    return count > 0


def start(call: Callable[..., None], *args: Any, daemon: bool) -> bool:
    """Start a thread, and return whether Python and the system allow another one.

    After an interrupt, the thread may have begun all the same. Python waits for ever
    for one that finds no memory to begin with.
    """
    if not memory.may_map(0):
        return False
    handled = sys.exc_info()[1]
    try:
        threading.Thread(
            target=call, args=args, name="elementsckpt", daemon=daemon
        ).start()
    except RuntimeError as error:
        # threading turns an interrupt into this when its lock is no longer held.
        if error.__context__ is not None and error.__context__ is not handled:
            error.__traceback__ = None  # Its frames would hold the interrupt for ever.
            raise error.__context__ from None
        return False
    return True


def _help(
    busy: threading.Lock,
    ref: weakref.ref[_Labour],
    led: Pace | None,
    ended: queue.SimpleQueue[None] | None,
) -> None:
    with busy:
        if led is not None:
            pace.give_way()
        labour = ref()
        if labour is not None:
            labour(led)
    if led is not None:
        led.end(busy)
    if ended is not None:
        ended.put(None)


def _wait(busy: threading.Lock, errors: list[BaseException]) -> None:
    """Wait for a helper, even after Ctrl-C, as it works on the caller's memory.

    A further Ctrl-C can still end the waiting at a bad moment. So the items of `run`
    must be objects that helpers may use after `run` has raised.
    """
    while True:
        try:
            with busy:
                return
        except BaseException as error:
            errors.append(error)

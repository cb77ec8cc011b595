"""A few threads for calls that release the GIL: hashing, reading and writing."""

from __future__ import annotations

import collections
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

_THREADS = min(8, (os.cpu_count() or 1) + 1)
T = TypeVar("T")
R = TypeVar("R")


def run(call: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Call a function for each item, in parallel.

    The calling thread works too, and does all of it alone where no thread can be
    started any more: in exit hooks, and in threads that outlive the main one. It also
    does alone what found no memory while others worked, as threads take some.

    Args:
      call: The function, which is called once more if it finds no memory.
      items: Its arguments.

    Returns:
      The results, in order.

    Raises:
      BaseException: the first that a call raised, when all threads have ended.
    """
    work = list(items)
    results: list[Any] = [None] * len(work)
    remaining = iter(range(len(work)))
    lock = threading.Lock()
    errors: list[BaseException] = []
    put_off: list[int] = []

    def labour() -> None:
        while not errors:
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
    try:
        _start(labour, min(_THREADS, len(work)) - 1, helping)
        labour()
    except BaseException as error:  # Ctrl-C, anywhere: stops the others, too.
        errors.append(error)
    finally:
        for busy in helping:
            _wait(busy, errors)
    for number in [] if errors else [*put_off, *remaining]:
        results[number] = call(work[number])
    if errors:
        collections.deque(remaining, maxlen=0)  # For helpers that begin too late.
        del errors[1:]  # Each keeps what is in its traceback, and so itself.
        raise errors.pop()
    return results


def _start(
    labour: Callable[[], None], count: int, helping: list[threading.Lock]
) -> None:
    """Start helpers, as many as there can be; each holds a lock while it works.

    One that an interrupt hides from us, such as in `Thread.start`, comes too late for
    any work, or its work is waited for all the same. Threads that never began are kept
    by Python for ever, so they must not keep what we work with.
    """
    for _ in range(count):
        busy = threading.Lock()
        helping.append(busy)
        if not start(_help, busy, weakref.ref(labour), daemon=True):
            return


def start(call: Callable[..., None], *args: Any, daemon: bool) -> bool:
    """Start a thread; tell whether there can be one, of late or if there are many.

    If this is interrupted, it may have begun all the same.
    """
    handled = sys.exc_info()[1]
    try:
        threading.Thread(
            target=call, args=args, name="elementsckpt", daemon=daemon
        ).start()
    except RuntimeError as error:
        # What threading makes of an interrupt when it has let go of its lock.
        if error.__context__ is not None and error.__context__ is not handled:
            raise error.__context__ from None
        return False
    return True


def _help(busy: threading.Lock, ref: weakref.ref[Callable[[], None]]) -> None:
    with busy:
        labour = ref()
        if labour is not None:
            labour()


def _wait(busy: threading.Lock, errors: list[BaseException]) -> None:
    """Wait for a helper, also after Ctrl-C, as it works with what is the caller's.

    Even so the next Ctrl-C may come at a moment in which it ends the waiting: who lets
    others help gives them what they can keep.
    """
    while True:
        try:
            with busy:
                return
        except BaseException as error:
            errors.append(error)

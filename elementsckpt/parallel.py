"""A few threads for calls that release the GIL: hashing, reading and writing."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

_THREADS = min(8, (os.cpu_count() or 1) + 1)
T = TypeVar("T")
R = TypeVar("R")


def run(call: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Call a function for each item, in parallel.

    The calling thread works too, and does all of it alone where no thread can be
    started any more: in exit hooks, and in threads that outlive the main one.

    Args:
      call: The function.
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

    def labour() -> None:
        while not errors:
            with lock:
                number = next(remaining, None)
            if number is None:
                return
            try:
                results[number] = call(work[number])
            except BaseException as error:
                errors.append(error)

    ended: list[threading.Event] = []
    try:
        _start(labour, min(_THREADS, len(work)) - 1, ended)
        labour()
    except BaseException as error:  # Ctrl-C, anywhere: stops the others, too.
        errors.append(error)
    for event in ended:
        _wait(event, errors)
    if errors:
        try:
            raise errors[0]
        finally:  # Or it would hold itself, and with it files that are open.
            errors.clear()
    return results


def _start(
    labour: Callable[[], None], count: int, ended: list[threading.Event]
) -> None:
    for _ in range(count):
        event = threading.Event()

        def work(event: threading.Event = event) -> None:
            try:
                labour()
            finally:
                event.set()

        thread = threading.Thread(target=work, name="elementsckpt", daemon=True)
        ended.append(event)
        try:
            thread.start()
        except RuntimeError:
            ended.remove(event)
            return
        except BaseException:
            if thread.ident is None:
                ended.remove(event)
            raise


def _wait(event: threading.Event, errors: list[BaseException]) -> None:
    """Wait, also after Ctrl-C: until they end, threads use the caller's files.

    Not by `Thread.join`, which takes a thread for ended when it is interrupted.
    """
    while not event.is_set():
        try:
            event.wait()
        except BaseException as error:
            errors.append(error)

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

    helpers = _start(labour, min(_THREADS, len(work)) - 1)
    labour()
    for helper in helpers:
        _join(helper, errors)
    if errors:
        raise errors[0]
    return results


def _join(thread: threading.Thread, errors: list[BaseException]) -> None:
    """Wait, also after Ctrl-C: until they end, threads use the caller's files."""
    while thread.is_alive():
        try:
            thread.join()
        except BaseException as error:
            errors.append(error)


def _start(target: Callable[[], None], count: int) -> list[threading.Thread]:
    threads: list[threading.Thread] = []
    for _ in range(count):
        thread = threading.Thread(target=target, name="elementsckpt", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            break
        threads.append(thread)
    return threads

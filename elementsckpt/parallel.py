"""A few threads for calls that release the GIL: hashing, reading and writing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Protocol, TypeVar

_THREADS = min(8, (os.cpu_count() or 1) + 1)
T = TypeVar("T")
R = TypeVar("R")


class Run(Protocol):
    """Call a function for each item, in parallel, and return the results in order."""

    def __call__(self, call: Callable[[T], R], items: Iterable[T]) -> list[R]: ...


@contextlib.contextmanager
def threads() -> Iterator[Run]:
    """Give a `Run` whose calls have all ended when it returns or raises."""
    with ThreadPoolExecutor(_THREADS, "elementsckpt") as pool:

        def run(call: Callable[[T], R], items: Iterable[T]) -> list[R]:
            work = list(items)
            if len(work) <= 1:
                return [call(item) for item in work]
            futures = [pool.submit(call, item) for item in work]
            try:
                return [future.result() for future in futures]
            except BaseException:
                for future in futures:
                    future.cancel()
                wait(futures)
                raise

        yield run

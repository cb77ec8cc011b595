"""The raw limits: the same bytes, moved with nothing that tells what they are.

Eight files and twice as many threads as cores are what wrote fastest among one to
sixteen files and one to eight threads, on two cores.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import numpy as np
import xxhash

from .states import State, leaves

CORES = os.cpu_count() or 1
FILES, THREADS = 8, 2 * CORES
CALL_BUFFERS = 1024  # At most, for writev and preadv.


def write(state: State, folder: Path) -> None:
    """Write and sync all bytes in parallel."""
    arrays = [array for _, array in leaves(state)]

    def work(number: int) -> None:
        with open(folder / str(number), "wb", buffering=0) as file:
            for part in in_calls(arrays[number::FILES]):
                done = os.writev(file.fileno(), part)
                assert done == sum(array.nbytes for array in part)
            os.fsync(file.fileno())

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(FILES)))


def read(state: State, folder: Path) -> State:
    """Read what `write` has written into fresh memory in parallel."""
    named = list(leaves(state))

    def work(number: int) -> list[tuple[str, np.ndarray]]:
        found = [(name, np.empty_like(array)) for name, array in named[number::FILES]]
        with open(folder / str(number), "rb", buffering=0) as file:
            for part in in_calls([array for _, array in found]):
                done = os.readv(file.fileno(), part)
                assert done == sum(array.nbytes for array in part)
        return found

    with ThreadPoolExecutor(THREADS) as pool:
        return dict(chain(*pool.map(work, range(FILES))))


def in_calls(arrays: Sequence[np.ndarray]) -> list[Sequence[np.ndarray]]:
    starts = range(0, len(arrays), CALL_BUFFERS)
    return [arrays[start : start + CALL_BUFFERS] for start in starts]


def copy(
    sources: Sequence[np.ndarray], targets: Sequence[np.ndarray], *, threads: int
) -> None:
    """Copy arrays into memory that is there already."""

    def work(number: int) -> None:
        pairs = zip(sources[number::threads], targets[number::threads], strict=True)
        for source, target in pairs:
            np.copyto(target, source)

    if threads == 1:
        work(0)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))


def digest(state: State) -> None:
    """Hash all bytes in memory in parallel."""
    pieces = [
        piece
        for _, array in leaves(state)
        for piece in np.split(
            array.reshape(-1).view("u1"), range(1 << 20, array.nbytes, 1 << 20)
        )
    ]
    with ThreadPoolExecutor(CORES) as pool:
        list(pool.map(lambda part: xxhash.xxh3_128(part).digest(), pieces))

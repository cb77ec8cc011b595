"""The raw limits: the same bytes, moved with nothing that tells what they are.

Eight files and twice as many threads as cores are what wrote fastest among one to
sixteen files and one to eight threads, on two cores.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from .states import State, leaves, size_bytes

CORES = os.cpu_count() or 1
FILES, THREADS = 8, 2 * CORES
ALONE_BYTES = 8 << 20  # Below, one file and no other thread.
CALL_BUFFERS = 1024  # At most, for writev and readv.


def write(state: State, folder: Path) -> None:
    """Write and sync all bytes in parallel."""
    arrays = [array for _, array in leaves(state)]
    files = file_count(state)

    def work(number: int) -> None:
        with open(folder / str(number), "wb", buffering=0) as file:
            for part in in_calls(arrays[number::files]):
                done = os.writev(file.fileno(), part)
                assert done == sum(array.nbytes for array in part)
            os.fsync(file.fileno())

    run(work, files)


def write_new_folder(arrays: Sequence[np.ndarray], parent: Path) -> None:
    """Write all bytes into one file of a new folder, and sync both and `parent`."""
    folder = parent / "raw"
    folder.mkdir()
    with open(folder / "0", "wb", buffering=0) as file:
        for part in in_calls(arrays):
            os.writev(file.fileno(), part)
        os.fsync(file.fileno())
    for path in (folder, parent):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def read(state: State, folder: Path) -> State:
    """Read what `write` has written into fresh memory in parallel."""
    named = list(leaves(state))
    files = file_count(state)

    def work(number: int) -> list[tuple[str, np.ndarray]]:
        found = [(name, np.empty_like(array)) for name, array in named[number::files]]
        with open(folder / str(number), "rb", buffering=0) as file:
            for part in in_calls([array for _, array in found]):
                done = os.readv(file.fileno(), part)
                assert done == sum(array.nbytes for array in part)
        return found

    return dict(chain(*run(work, files)))


def file_count(state: State) -> int:
    return FILES if size_bytes(state) > ALONE_BYTES else 1


def in_calls(arrays: Sequence[Any]) -> list[Sequence[Any]]:
    starts = range(0, len(arrays), CALL_BUFFERS)
    return [arrays[start : start + CALL_BUFFERS] for start in starts]


def run(work: Callable[[int], Any], count: int, threads: int = THREADS) -> list[Any]:
    """Call a function with 0 to count - 1, in parallel."""
    if count == 1:
        return [work(0)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, range(count)))


def copy(
    sources: Sequence[np.ndarray], targets: Sequence[np.ndarray], *, threads: int
) -> None:
    """Copy arrays into memory that is there already."""

    def work(number: int) -> None:
        pairs = zip(sources[number::threads], targets[number::threads], strict=True)
        for source, target in pairs:
            np.copyto(target, source)

    run(work, threads, threads)


def digest(state: State) -> None:
    """Hash all bytes in memory in parallel, each mebibyte by itself."""
    views = [array.reshape(-1).view("u1") for _, array in leaves(state)]
    pieces = [x[i : i + (1 << 20)] for x in views for i in range(0, x.size, 1 << 20)]

    def work(number: int) -> None:
        for piece in pieces[number::THREADS]:
            xxhash.xxh3_128_digest(piece)

    run(work, THREADS)

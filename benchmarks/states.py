"""The states that are saved. The same one is given to all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

import elementsckpt

State = dict[str, Any]  # Names to arrays, nested or flat.

FRAME = 64, 64, 3
FRAME_BYTES = 64 * 64 * 3


def leaves(state: State, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield name and array of each leaf."""
    for key, value in state.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}/")
        else:
            yield prefix + key, value


def size_bytes(state: State) -> int:
    return sum(array.nbytes for _, array in leaves(state))


def same(one: State, other: State) -> bool:
    """Tell whether two states have the same names and bits."""
    mine, others = dict(leaves(one)), dict(leaves(other))
    return mine.keys() == others.keys() and all(
        np.array_equal(array.view("u1"), others[name].view("u1"))
        for name, array in mine.items()
    )


def layers(
    make: Callable[[], np.ndarray], count: int, parts: int
) -> dict[str, dict[str, np.ndarray]]:
    """Return `layer000/part000` and so on."""
    return {
        f"layer{i:03d}": {f"part{k:03d}": make() for k in range(parts)}
        for i in range(count)
    }


def noise(count: int, parts: int, *shape: int) -> State:
    """Return random bits, float32[shape], which nothing can compress."""
    bits = partial(np.random.default_rng(0).integers, 0, 2**32, shape, np.uint32)
    return layers(lambda: bits().view("f4"), count, parts)


def weights(count: int, parts: int, *shape: int) -> State:
    """Return normally distributed numbers, float32[shape], as of parameters."""
    normal = partial(np.random.default_rng(0).standard_normal, shape, "f4")
    return layers(normal, count, parts)


def large(divisor: int, make: Callable[..., State] = noise) -> tuple[State, str]:
    """Return 537 MB in 256 leaves, and that as text."""
    state = make(128, 2, 512 // divisor, 1024)
    return state, f"{size_bytes(state) / 1e6:.0f} MB in 256 leaves"


def tiny(divisor: int) -> tuple[State, str]:
    """Return 10,000 leaves, and that as text."""
    state = noise(100 // divisor, 100, 8)
    return state, f"{10_000 // divisor:,} leaves of 32 bytes"


class Replay:
    """A ring buffer of random frames, actions and rewards; a component.

    Args:
      capacity: Number of frames.
    """

    def __init__(self, capacity: int) -> None:
        random = np.random.default_rng(0)
        self._added = capacity
        self._columns = {
            "image": random.integers(0, 256, (capacity, *FRAME), np.uint8),
            "action": random.standard_normal((capacity, 16), "f4"),
            "reward": random.standard_normal(capacity, "f4"),
        }

    def save(self) -> State:
        return self._columns

    def save_rings(self) -> State:
        """Return the same, as ring buffers that say which rows are new."""
        ring, added = elementsckpt.Ring, self._added
        return {x: ring(column, added) for x, column in self._columns.items()}

    def overwrite(self, fraction: float) -> None:
        """Give every number of the oldest rows another value."""
        capacity = len(self._columns["reward"])
        rows = np.arange(self._added, self._added + round(fraction * capacity))
        for start in range(0, len(rows), 1000):
            index = rows[start : start + 1000] % capacity
            for column in self._columns.values():
                column[index] += np.ones((), column.dtype)
        self._added += len(rows)


def game_frames(count: int) -> np.ndarray:
    """Return frames like those of a game drawn with tiles, uint8[count, 64, 64, 3].

    Each frame is 8 x 8 tiles out of 16 textures of noise. One tile in twenty is another
    than in the frame before, and one pixel in fifty has a random color.
    """
    random = np.random.default_rng(0)
    textures = random.integers(0, 256, (16, 8, 8, 3), np.uint8)
    board = random.integers(0, 16, (8, 8))
    frames = np.empty((count, *FRAME), np.uint8)
    for frame in frames:
        changed = random.random((8, 8)) < 1 / 20
        board[changed] = random.integers(0, 16, changed.sum())
        frame[:] = textures[board].transpose(0, 2, 1, 3, 4).reshape(FRAME)
        sparks = random.integers(0, 64, (2, 64 * 64 // 50))
        frame[tuple(sparks)] = random.integers(0, 256, (sparks.shape[1], 3), np.uint8)
    return frames

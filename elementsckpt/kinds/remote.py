"""An array on a device, of which parts can be fetched without the rest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from msgspec import Struct

Range = tuple[
    int, int
]  # Of elements in C order: the first, and the one after the last.


class Remote(Struct, frozen=True, eq=False):
    """An array that is not in memory.

    Attributes:
      dtype: Its element type in memory.
      shape: Sizes of its axes.
      whole: Returns all of it, in memory of its own.
      parts: Returns the elements in each of several ranges, likewise. It also gets the
        size that ranges have, or less, from call to call.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    whole: Callable[[], np.ndarray]
    parts: Callable[[Sequence[Range], int], list[np.ndarray]]

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.itemsize


Storage = np.ndarray | Remote


def in_memory(storage: Storage) -> np.ndarray:
    """Return all of an array, fetched if it is on a device."""
    return storage.whole() if isinstance(storage, Remote) else storage

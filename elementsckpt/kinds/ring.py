"""A ring buffer among the leaves of a state."""

from __future__ import annotations

import operator
from typing import Any

from ..user.arguments import is_integer, shown
from . import leaves


class Ring:
    """An array that is written around and around: a save looks only at what is new.

        def save(self):
            return {"frames": Ring(self.frames, self.added), "added": self.added}

    Rows are written one after another, the first at position 0, and after the last
    position again at 0: row number n, counted from 0, is at position n modulo the size
    of the axis. A save takes the blocks without new rows from the save that this
    program wrote or loaded last, without looking at memory. In each save it checks some
    of these: if one has changed all the same, a warning says so, and the array is saved
    whole from then on. Whatever is loaded, read or shown is the array alone.

    Args:
      array: NumPy array, JAX array or torch tensor.
      added: How many rows have been written since the buffer was made; a number that
        only grows, also beyond the size of the axis.
      axis: Along which the rows lie. With another axis than the first, a save writes a
        block or two of 1 MiB for each position of the axes before, however few rows
        are new.

    Raises:
      ValueError: one of these is not what it should be.
    """

    __slots__ = ("added", "array", "axis")

    def __init__(self, array: Any, added: Any, axis: int = 0) -> None:
        kind = leaves.kind_of(array)
        if not kind.is_array or not array.ndim:
            raise ValueError(
                f"Ring({shown(array)}): pass an array of NumPy or JAX, or a tensor of "
                f"torch, with at least one axis."
            )
        try:
            self.added = operator.index(added)
        except TypeError:
            self.added = -1
        if self.added < 0:
            raise ValueError(
                f"added={shown(added)}: pass how many rows have been written since the "
                f"buffer was made, an integer from 0 on."
            )
        if not is_integer(axis) or not 0 <= axis < array.ndim:
            raise ValueError(
                f"axis={shown(axis)}: pass an axis of the array, from 0 to "
                f"{array.ndim - 1}."
            )
        self.array = array
        self.axis = axis

    @property
    def is_in_order(self) -> bool:
        """Whether its rows are stored in the order of the array, if that is C order."""
        is_contiguous = getattr(self.array, "is_contiguous", None)
        return is_contiguous is None or bool(is_contiguous())

    def __repr__(self) -> str:
        return f"Ring({self.array!r}, added={self.added}, axis={self.axis})"

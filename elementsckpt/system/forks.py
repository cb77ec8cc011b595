"""Tells objects of a fork: the child has its parent's locks and files, not its threads.

A lock that another thread held at that moment would never be free in the child, and a
file lock that the child shares would outlive its parent.
"""

from __future__ import annotations

import functools
import os
import weakref
from typing import Protocol


class Inherited(Protocol):
    """What a forked child takes over from its parent."""

    def _after_fork(self) -> None:
        """Make new locks, and let go of what is the parent's."""


# By id, as what can change may have no hash. A WeakValueDictionary would run Python
# when a value dies, and an interrupt that comes meanwhile would get lost.
_inherited: dict[int, weakref.ref[Inherited]] = {}


def watch(value: Inherited) -> None:
    """Have `_after_fork` called in each child that is forked while the value lives."""
    forget = functools.partial(_inherited.pop, id(value))
    _inherited[id(value)] = weakref.ref(value, forget)


def _tell() -> None:
    for value in [ref() for ref in tuple(_inherited.values())]:
        if value is not None:
            value._after_fork()


os.register_at_fork(after_in_child=_tell)

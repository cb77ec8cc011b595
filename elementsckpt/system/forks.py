"""Notifies objects in a forked child, which has its parent's locks but not its threads.

A lock that another thread held during the fork would never become free in the child.
A file lock that the child shares would outlive the parent.
"""

from __future__ import annotations

import functools
import os
import weakref
from typing import Protocol


class Inherited(Protocol):
    """An object that a forked child takes over from its parent."""

    def _after_fork(self) -> None:
        """Make new locks, and release what belongs to the parent."""


# By id, as mutable objects may have no hash. A WeakValueDictionary would run Python
# code when a value dies, and an interrupt during that code would get lost.
_inherited: dict[int, weakref.ref[Inherited]] = {}


def watch(value: Inherited) -> None:
    """Call the value's `_after_fork` in each child forked while the value lives."""
    forget = functools.partial(_inherited.pop, id(value))
    _inherited[id(value)] = weakref.ref(value, forget)


def _tell() -> None:
    for value in [ref() for ref in tuple(_inherited.values())]:
        if value is not None:
            value._after_fork()


os.register_at_fork(after_in_child=_tell)

"""Which store a place is: the one line that a new kind of store needs is here."""

from __future__ import annotations

from pathlib import Path

from ..user.notices import Notices
from .local import LocalStore
from .store import Source, Store


def open_store(place: Path, notices: Notices) -> Store:
    """Return the store at a place; nothing is read yet.

    Args:
      place: The directory, which need not exist.
      notices: What is said of it, and was.
    """
    return LocalStore(place, notices)


def open_source(place: Path) -> Source:
    """Return what is at a place, as a save; nothing is read yet."""
    return open_store(place.parent, Notices()).open(place.name)

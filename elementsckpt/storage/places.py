"""The store of each place; a new kind of store needs one line here."""

from __future__ import annotations

from pathlib import Path

from ..user.notices import Notices
from .local import LocalStore
from .store import Source, Store


def open_store(place: Path, notices: Notices) -> Store:
    """Return the store at a place; nothing is read yet.

    Args:
      place: The directory, which need not exist.
      notices: Logs warnings about it.
    """
    return LocalStore(place, notices)


def open_source(place: Path) -> Source:
    """Return the source of the save at a place; nothing is read yet."""
    return open_store(place.parent, Notices()).open(place.name)

"""Paths without links in them, and what is at a path, for errors."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import CheckpointError
from ..format import names
from ..user import hints
from . import folders

_MOST_NAMES = 8  # In a message.
_MOST_NEAR, _NEAR = 3, 0.6


def real(path: str | os.PathLike[str]) -> Path:
    """Return a path without links in it, by which places can be compared."""
    return Path(os.path.realpath(path))


def is_there(path: Path) -> bool:
    """Return whether there is anything at a path, also a link to nothing."""
    return os.path.lexists(path)


def is_folder(path: Path) -> bool:
    """Return whether there is a folder at a path, or a link to one."""
    return os.path.isdir(path)


def leads_to_file(path: Path) -> bool:
    """Return whether there is something at a path that is not a folder."""
    return os.path.exists(path) and not os.path.isdir(path)


def describe(path: Path) -> str:
    """Say what is at a path at which there is no save."""
    if not os.path.exists(path):
        why = leads_nowhere(path)
        if why:
            return why
        parent = next(p for p in path.parents if os.path.exists(p))
        missing, *_ = path.relative_to(parent).parts
        near = hints.nearest(missing, names_in(parent), _MOST_NEAR, _NEAR)
        if near:
            return f"that path was not found, and near it are {', '.join(near)}"
        return f"that path was not found ({parent} is there and {contents(parent)})"
    if not os.path.isdir(path):
        return "it is a file, and a save is a folder"
    if os.path.lexists(path / names.DRAFT):
        return "it is a save that was never finished"
    return f"the folder {contents(path)}"


def leads_nowhere(path: Path) -> str:
    """Say which link in a path leads to nothing; "" if none does."""
    for link in filter(os.path.islink, (path, *path.parents)):
        if not os.path.exists(link):
            return f"{link} is a link to {os.readlink(link)}, which is not there"
    return ""


def contents(path: Path) -> str:
    """Say what a folder holds."""
    found = sorted(names_in(path))
    if not found:
        return "is empty"
    more = len(found) - _MOST_NAMES
    listed = ", ".join(found[:_MOST_NAMES])
    return f"holds {listed} and {more} more" if more > 0 else f"holds {listed}"


def names_in(path: Path) -> list[str]:
    """Return the names in a folder, none if it cannot be listed."""
    try:
        return folders.names_in(path)
    except CheckpointError:
        return []

"""Paths that the user gives, and texts about them for errors."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..format import names
from ..user.arguments import shown
from . import folders

AnyPath = str | os.PathLike[str]

# The start of a URL. `pathlib` keeps one slash of two, and a URL can have a prefix.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|://")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{([^}]*)\})")
_MOST_NAMES = 8  # In a message.


def local(path: AnyPath) -> Path:
    """Return a path as an absolute one on this machine, `~` and variables expanded.

    Raises:
      ValueError: it is not a path, is a URL, or names a variable or a home folder that
        does not exist.
    """
    # `os.fspath` of other libraries' paths may return a copy of what the URL leads to.
    if isinstance(path, os.PathLike):
        _refuse_url(str(path))
    expanded = _with_variables(_with_home(_text_of(path)))
    _refuse_url(expanded)
    return Path(_with_home(expanded)).absolute()


def _text_of(path: AnyPath) -> str:
    text: Any = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str):
        raise ValueError(f"{shown(path)} is not a path: pass text or a pathlib.Path.")
    if not text:
        raise ValueError(
            "The path is empty text. Pass '.' if the working directory is meant."
        )
    _refuse_url(text)
    try:
        is_possible = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        is_possible = False
    if not is_possible:
        raise ValueError(
            f"{shown(path)} is not a path: it has a character that file names cannot "
            f"have. Leave it out."
        )
    return text


def _refuse_url(text: str) -> None:
    if _URL.search(f"{text}/"):
        raise ValueError(
            f"{text} looks like a URL, as a part of it ends in a colon, and only local "
            f"paths are supported. Save to a local folder and copy that; to load a "
            f"save from elsewhere, copy its folder here first."
        )


def _with_home(text: str) -> str:
    try:
        return str(Path(text).expanduser())
    except RuntimeError as error:
        raise ValueError(
            f"{text} begins with a home that was not found. Pass the path without `~`."
        ) from error


def _with_variables(text: str) -> str:
    """Expand variables, unless there is a folder with this very name."""
    end = max((match.end() for match in _VARIABLE.finditer(text)), default=0)
    named = text[:end] + text[end:].partition("/")[0]
    if not end or os.path.lexists(named):
        return text

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match[1] or match[2])
        if not found:
            raise ValueError(
                f"{text} names the variable {match[0]}, which is not set, or empty. "
                f"Set it, or pass the path itself."
            )
        return found

    return _VARIABLE.sub(value, text)


def real(path: AnyPath) -> Path:
    """Return a path without links in it, by which places can be compared."""
    return Path(os.path.realpath(path))


def exists(path: Path) -> bool:
    """Return whether there is anything at a path, also a link to nothing."""
    return os.path.lexists(path)


def is_folder(path: Path) -> bool:
    """Return whether there is a folder at a path, or a link to one."""
    return os.path.isdir(path)


# For errors


def describe(path: Path) -> str:
    """Say what is at a path at which there is no save."""
    if not os.path.exists(path):
        why = leads_nowhere(path)
        if why:
            return why
        parent = next(p for p in path.parents if os.path.exists(p))
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

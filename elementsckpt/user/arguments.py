"""Arguments of the public functions: checked, converted, and shown in errors.

All arguments are checked before anything is done. Otherwise `write="False"` would
write, and a wrong type would raise an error deep inside the library.
"""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from . import attributes

AnyPath = str | os.PathLike[str]

# The start of a URL. `pathlib` keeps one slash of two, and a URL can have a prefix.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|://")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{([^}]*)\})")
_MOST_SHOWN = 100


def shown(value: Any) -> str:
    """Return an argument as an error shows it: on one line, shortened if it is long."""
    try:
        text = " ".join(repr(value).split())
    except Exception:
        text = "<>"
    if text.startswith("<") or " at 0x" in text:  # Says nothing.
        return f"an object of type {type(value).__name__}"
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 3]}..."


def flag(name: str, value: Any) -> bool:
    """Return an argument that is True or False, of any library, as a bool.

    Raises:
      ValueError: it is something else, such as the text "False".
    """
    if type(value) is bool:
        return value
    try:
        item = attributes.get(value, "item")
        plain = item() if callable(item) else value
    except Exception:  # An array of several elements.
        plain = None
    if isinstance(plain, int) and plain in (0, 1):
        return bool(plain)
    raise ValueError(f"{name}={shown(value)}: pass True or False.")


def is_integer(value: Any) -> bool:
    """Return whether the value is an integer of any library, and not a bool."""
    try:
        operator.index(value)
    except Exception:
        return False
    return not isinstance(value, bool)


def integer(name: str, value: Any) -> int:
    """Return an argument that is an integer of any library, as an int.

    Raises:
      ValueError: it is something else.
    """
    if not is_integer(value):
        raise ValueError(f"{name}={shown(value)}: pass an integer.")
    return operator.index(value)


def key(value: Any) -> str:
    """Return an argument that is one key.

    Raises:
      ValueError: it is not text.
    """
    if not isinstance(value, str):
        raise ValueError(
            f"key={shown(value)}: pass the key of one component, such as key='agent'."
        )
    return str.__str__(value)


def texts(value: Any) -> list[str]:
    """Return the texts that an argument lists; [] if it is not a list of texts."""
    try:
        found = [] if isinstance(value, Mapping) else list(value)
    except Exception:
        found = []
    is_text = all(isinstance(item, str) for item in found)
    return [str.__str__(item) for item in found] if is_text else []  # np.str_, too.


def keys(value: Any) -> list[str]:
    """Return an argument that lists the keys of one or more components.

    Raises:
      ValueError: it is something else, such as a single key.
    """
    if isinstance(value, str):
        raise ValueError(f"keys is a list of keys: pass keys=[{shown(value)}].")
    found = texts([*value] if isinstance(value, Mapping) else value)
    if not found:
        raise ValueError(
            f"keys={shown(value)}: pass a list of keys, such as keys=['agent'], or "
            f"leave it out for all components."
        )
    return found


def saved_keys(value: Any, keys: Iterable[str]) -> dict[str, str]:
    """Return `keys=` of a load as a mapping from our keys to the keys in the save.

    Args:
      value: The argument: None for all, what `keys` takes, or a mapping.
      keys: Our keys, as read from the argument.

    Raises:
      ValueError: a key in the save is not text.
    """
    if not isinstance(value, Mapping):
        return {key: key for key in keys}
    if not all(isinstance(item, str) for item in value.values()):
        raise ValueError(
            f"keys={shown(value)}: pass a mapping from keys here to those in the save, "
            f"such as keys={{'agent': 'params'}}."
        )
    return {ours: str.__str__(theirs) for ours, theirs in value.items()}


def functions(name: str, value: Any, verb: str) -> dict[str, Any]:
    """Return an argument that maps keys to functions, at least one.

    Args:
      name: Name of the argument.
      value: Its value.
      verb: What the functions do with a component: "save" or "load".

    Raises:
      ValueError: it is something else, or empty.
    """
    is_right = isinstance(value, Mapping) and all(
        isinstance(item, str) and callable(function) for item, function in value.items()
    )
    if not is_right or not value:
        raise ValueError(
            f"{name}={shown(value)}: pass functions that {verb} a component, by key, "
            f"such as {{'agent': agent.{verb}}}."
        )
    return {str.__str__(item): function for item, function in value.items()}


# Paths


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

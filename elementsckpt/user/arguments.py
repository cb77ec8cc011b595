"""Arguments of what users call: refused where they make no sense, and shown in errors.

That comes before anything is done. Otherwise `write="False"` would write, and a wrong
type would end in an error from deep inside.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any

from . import attributes

_MOST_SHOWN = 100


def shown(value: Any) -> str:
    """Return how an argument is shown in an error: on one line, and not all of it."""
    try:
        text = " ".join(repr(value).split())
    except Exception:
        text = "<>"
    if text.startswith("<") or " at 0x" in text:  # That tells nothing.
        return f"an object of type {type(value).__name__}"
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 3]}..."


def flag(name: str, value: Any) -> bool:
    """Return an argument that is True or False, of any library.

    Raises:
      ValueError: it is something else, such as text that says so.
    """
    if type(value) is bool:
        return value
    try:
        item = attributes.get(value, "item")
        plain = item() if callable(item) else value
    except Exception:  # It is more than one.
        plain = None
    if isinstance(plain, int) and plain in (0, 1):
        return bool(plain)
    raise ValueError(f"{name}={shown(value)}: pass True or False.")


def is_integer(value: Any) -> bool:
    """Tell integers, of any library, from truth values and everything else."""
    try:
        operator.index(value)
    except Exception:
        return False
    return not isinstance(value, bool)


def integer(name: str, value: Any) -> int:
    """Return an argument that is an integer, of any library.

    Raises:
      ValueError: it is something else.
    """
    if not is_integer(value):
        raise ValueError(f"{name}={shown(value)}: pass an integer.")
    return operator.index(value)


def key(value: Any) -> str:
    """Return an argument that is one key.

    Raises:
      ValueError: it is no text.
    """
    if not isinstance(value, str):
        raise ValueError(
            f"key={shown(value)}: pass the key of one component, such as key='agent'."
        )
    return str.__str__(value)


def texts(value: Any) -> list[str]:
    """Return the texts that an argument lists; none if it is no list of texts."""
    try:
        found = [] if isinstance(value, Mapping) else list(value)
    except Exception:
        found = []
    is_text = all(isinstance(item, str) for item in found)
    return [str.__str__(item) for item in found] if is_text else []  # NumPy's, too.


def keys(value: Any) -> list[str]:
    """Return an argument that names components, at least one.

    Raises:
      ValueError: it does not; a single key is no list.
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
    """Return `keys=` of a load as a mapping, from our keys to those in the save.

    Args:
      value: The argument, None for all; what `keys` takes, or a mapping.
      keys: Our keys, which it gives.

    Raises:
      ValueError: keys in the save are no text.
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
    """Return an argument that gives functions by key, at least one.

    Args:
      name: Its name.
      value: The argument.
      verb: What the functions do with a component, "save" or "load".

    Raises:
      ValueError: it does not.
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

"""Arguments of the public functions: checked, converted, and shown in errors.

All arguments are checked before anything is done. Otherwise `write="False"` would
write, and a wrong type would raise an error deep inside the library.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any

from . import attributes

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

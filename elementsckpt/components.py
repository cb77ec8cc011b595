"""What can be registered: objects with one of three protocols."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from .errors import ComponentError

PROTOCOLS = (
    ("save", "load"),
    ("state_dict", "load_state_dict"),
    ("to_state_dict", "from_state_dict"),
)


class Component(NamedTuple):
    """A registered object and the names of its two methods."""

    value: Any
    save_name: str
    load_name: str

    @property
    def save(self) -> Callable[[], Any]:
        """The method that returns the state."""
        return getattr(self.value, self.save_name)  # type: ignore[no-any-return]

    @property
    def load(self) -> Callable[[Any], Any]:
        """The method that takes the state."""
        return getattr(self.value, self.load_name)  # type: ignore[no-any-return]


def component(key: str, value: Any) -> Component:
    """Return the object with the first protocol that it has.

    Raises:
      ComponentError: it has none; the message says why.
    """
    reasons = []
    for save_name, load_name in PROTOCOLS:
        reason = _problem(value, save_name, load_name)
        if reason is None:
            return Component(value, save_name, load_name)
        reasons += [reason] if reason else []
    found = f" ({'; '.join(reasons)})" if reasons else ""
    raise ComponentError(
        f"Cannot register {key!r}: {_described(value)} has no usable save() and "
        f"load(data){found}, nor state_dict() and load_state_dict(d), nor "
        f"to_state_dict() and from_state_dict(d). Add two such methods, or wrap it: "
        f"elementsckpt.Saveable(save=lambda: value, load=function_that_sets_it), or, "
        f"if it writes files, elementsckpt.Files(save=function_that_gets_a_folder, "
        f"load=function_that_gets_it_back)."
    )


def _described(value: Any) -> str:
    if isinstance(value, type):
        return f"{value.__name__} is a class, not an instance, which"
    return f"an object of type {type(value).__name__}"


def _problem(value: Any, save_name: str, load_name: str) -> str | None:
    """Say why the object has not this protocol; "" if it does not even try."""
    save, load = getattr(value, save_name, None), getattr(value, load_name, None)
    if not callable(save) or not callable(load):
        return ""
    if not _accepts(save):
        return f"its {save_name}{_signature(save)} needs arguments"
    if not _accepts(load, None):
        return f"its {load_name}{_signature(load)} does not take one argument"
    return None


def _accepts(function: Callable[..., Any], *args: Any) -> bool:
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # Some builtins do not tell.
        return True
    try:
        signature.bind(*args)
    except TypeError:
        return False
    return True


def _signature(function: Callable[..., Any]) -> str:
    return str(inspect.signature(function))

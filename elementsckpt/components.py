"""What can be registered: three protocols, and helpers that have one of them."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterable
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
        f"elementsckpt.Saveable(save=lambda: value, load=function_that_sets_it)."
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


class Saveable:
    """Gives an object `save()` and `load(data)`, for named attributes or functions.

    Args:
      attrs: Names of the attributes of this object that make up its state.
      save: Returns the state.
      load: Takes the state.

    Raises:
      ValueError: neither `attrs` nor both functions are given, or all of them.

    Source: elements.Saveable.
    """

    def __init__(
        self,
        attrs: Iterable[str] | None = None,
        save: Callable[[], Any] | None = None,
        load: Callable[[Any], Any] | None = None,
    ) -> None:
        if isinstance(attrs, str):
            raise ValueError(f"attrs is a list of names: pass [{attrs!r}].")
        if (save is None) != (load is None) or (save is None) == (attrs is None):
            raise ValueError(
                "Saveable takes either attrs, names of its own attributes, or the two "
                "functions save and load."
            )
        self._attrs = None if attrs is None else tuple(attrs)
        self._save = save
        self._load = load

    def save(self) -> Any:
        """Return the state."""
        if self._save is not None:
            return self._save()
        return {name: getattr(self, name) for name in self._attrs or ()}

    def load(self, data: Any) -> Any:
        """Take the state."""
        if self._load is not None:
            return self._load(data)
        for name in self._attrs or ():
            setattr(self, name, data[name])
        return None


@functools.total_ordering
class Counter:
    """A number that threads can increment, and that compares and adds like an int.

    Attributes:
      value: The number.
      lock: Held while it changes.

    Source: elements.Counter.
    """

    def __init__(self, initial: int = 0) -> None:
        self.value = initial
        self.lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Counter({self.value})"

    def __int__(self) -> int:
        return int(self.value)

    __index__ = __int__
    __hash__ = None  # type: ignore[assignment]  # It changes.

    def __eq__(self, other: object) -> bool:
        return int(self) == other

    def __lt__(self, other: Any) -> bool:
        return bool(int(self) < other)

    def __add__(self, other: Any) -> Any:
        return int(self) + other

    def __radd__(self, other: Any) -> Any:
        return other + int(self)

    def __sub__(self, other: Any) -> Any:
        return int(self) - other

    def __rsub__(self, other: Any) -> Any:
        return other - int(self)

    def increment(self, amount: int = 1) -> None:
        """Add `amount`."""
        with self.lock:
            self.value += amount

    def reset(self) -> None:
        """Set it to zero."""
        with self.lock:
            self.value = 0

    def save(self) -> int:
        """Return the number."""
        return self.value

    def load(self, value: int) -> None:
        """Set the number."""
        self.value = value

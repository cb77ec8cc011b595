"""Objects that are components: named attributes or functions, and a counter."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable
from typing import Any

from . import forks


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

    @property
    def is_of_attributes(self) -> bool:
        """Whether its state is in its own attributes."""
        return self._attrs is not None

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
        forks.watch(self)

    def _after_fork(self) -> None:
        self.lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Counter({self.value})"

    def __getstate__(self) -> dict[str, Any]:
        # Locks can be neither copied nor pickled.
        return {name: x for name, x in self.__dict__.items() if name != "lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._after_fork()
        forks.watch(self)

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

    def __mod__(self, other: Any) -> Any:
        return int(self) % other

    def __floordiv__(self, other: Any) -> Any:
        return int(self) // other

    def __format__(self, spec: str) -> str:
        return format(int(self), spec) if spec else str(self)

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

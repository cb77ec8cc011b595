"""Objects that are components: named attributes or functions, and a counter."""

from __future__ import annotations

import functools
import math
import numbers
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..errors import MismatchError, StateError
from ..system import forks
from ..user import attributes
from ..user.arguments import is_integer, shown, texts
from ..user.hints import listed

_MOST_LISTED = 8


class Saveable:
    """Gives an object `save()` and `load(data)`, for named attributes or functions.

        cp.buffer = Saveable(["pos", "full", "rewards"], of=buffer)
        cp.norm = Saveable(norm.statistics, norm.set_statistics)

    Args:
      attrs: Names of the attributes that make up the state. Without names, `save` and
        `load` may be the first two positional arguments.
      save: Returns the state.
      load: Takes the state.
      of: The object with these attributes. By default it is this object, an instance
        of a subclass.

    Attributes:
      of: The object with the attributes, if it was given.

    Raises:
      ValueError: neither `attrs` nor both functions are given, or all three.

    Source: elements.Saveable.
    """

    def __init__(
        self,
        attrs: Iterable[str] | Callable[[], Any] | None = None,
        save: Callable[..., Any] | None = None,
        load: Callable[[Any], Any] | None = None,
        *,
        of: Any = None,
    ) -> None:
        _require_no_owner(attrs, save, of)
        functions: list[Any] = [x for x in (attrs, save, load) if callable(x)]
        if callable(attrs) and len(functions) == 2:
            attrs, (save, load) = None, functions
        if isinstance(attrs, str):
            raise ValueError(f"attrs is a list of names: pass [{shown(attrs)}].")
        is_half = callable(attrs) or (save is None) != (load is None)
        if is_half or (save is None) == (attrs is None):
            raise ValueError(
                "Saveable takes either attrs, names of attributes, or two functions, "
                "save and load."
            )
        if of is not None and attrs is None:
            raise ValueError(
                "of= is the object that has the attributes in attrs: leave it out, as "
                "two functions need no such object."
            )
        self._attrs = () if attrs is None else _names(attrs)
        self._save = save
        self._load = load
        self._of = of
        if of is not None:
            self.of = of

    @property
    def is_of_attributes(self) -> bool:
        """Whether its state is in attributes."""
        return self._save is None

    def save(self) -> Any:
        """Return the state.

        Raises:
          StateError: an attribute is missing.
        """
        if self._save is not None:
            return self._save()
        owner, state = self if self._of is None else self._of, {}
        for name in self._attrs:
            try:
                state[name] = getattr(owner, name)
            except AttributeError as error:
                raise StateError(
                    f"{type(owner).__name__} has no attribute {name!r}; it has "
                    f"{_listed(_public(owner))}. Correct the names that Saveable was "
                    f"given."
                ) from error
        return state

    def load(self, data: Any) -> Any:
        """Take the state.

        Raises:
          MismatchError: the state lacks some of the attributes; none is set.
        """
        if self._load is not None:
            return self._load(data)
        found = data if isinstance(data, Mapping) else {}
        lacking = [name for name in self._attrs if name not in found]
        if lacking:
            kind = type(data).__name__
            what = _listed(found) if found else f"an object of type {kind}"
            raise MismatchError(
                f"Saved is {what}, without {_listed(lacking)}. Load it into what it "
                f"was saved from, or load what both have with strict=False; no "
                f"attribute has changed."
            )
        values = {name: data[name] for name in self._attrs}
        for name, value in values.items():
            setattr(self if self._of is None else self._of, name, value)
        return None


def _require_no_owner(attrs: Any, save: Any, of: Any) -> None:
    """Refuse the object with the attributes if it is given before or after the names.

    Raises:
      ValueError: it is.
    """
    pairs = ((attrs, save), (save, attrs)) if of is None else ()
    for owner, names in pairs:
        if owner is not None and texts([] if isinstance(names, str) else names):
            raise ValueError(
                f"Saveable takes the object that has the attributes as of=: pass "
                f"Saveable({shown(texts(names))}, of=it), where it is the "
                f"{type(owner).__name__}."
            )


def _names(attrs: Any) -> tuple[str, ...]:
    """Return the names of attributes, at least one.

    Raises:
      ValueError: it is not a list of names, or empty.
    """
    names = tuple(texts(attrs))
    if not names:
        raise ValueError(
            f"attrs={shown(attrs)}: pass a list of names of attributes, such as "
            f"['pos', 'full']."
        )
    return names


def _public(owner: Any) -> list[str]:
    names = filter(lambda name: isinstance(name, str), attributes.own(owner))
    return sorted(name for name in names if not name.startswith("_"))


def _listed(names: Iterable[Any]) -> str:
    return listed(names, "none", _MOST_LISTED)


@functools.total_ordering
class Counter:
    """A number that threads can increment, and that compares and adds like an int.

    Attributes:
      value: The number.
      lock: Held while the number changes.

    Raises:
      ValueError: the initial value is not a number.

    Source: elements.Counter.
    """

    def __init__(self, initial: int = 0) -> None:
        self.value: int = _number("initial", initial)
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

    __radd__ = __add__

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
        amount = _number("amount", amount)
        with self.lock:
            self.value += amount

    def reset(self) -> None:
        """Set the number to zero."""
        with self.lock:
            self.value = 0

    def save(self) -> int:
        """Return the number."""
        return self.value

    def load(self, value: int) -> None:
        """Set the number.

        Raises:
          MismatchError: the value is not a number.
        """
        if not _is_number(value):
            raise MismatchError(
                f"Saved is {shown(value)}, and a Counter loads a number. Register what "
                f"it was saved from; this counter has not changed."
            )
        self.value = value


def _number(name: str, value: Any) -> Any:
    if not _is_number(value):
        raise ValueError(f"{name}={shown(value)}: pass a number.")
    return value


def _is_number(value: Any) -> bool:
    is_real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_integer(value) or (is_real and math.isfinite(value))

"""Attributes that are components."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from . import components
from .components import Component
from .errors import ComponentError, MissingKeyError


class Registry:
    """Holds components as attributes, and takes only what can be one.

    A subclass names its own attributes in `_OWN`.
    """

    _OWN: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self._components: dict[str, Component] = {}

    def __setattr__(self, key: str, value: Any) -> None:
        if key in self._OWN or key == "_components":
            object.__setattr__(self, key, value)
            return
        if key.startswith("_") or hasattr(type(self), key):
            raise ComponentError(
                f"Cannot register {key!r}: names that begin with an underscore and "
                f"names of methods are taken. Choose another attribute name."
            )
        if not key.isidentifier():
            raise ComponentError(
                f"Cannot register {key!r}: a key must be an identifier. Choose "
                f"another, or use the functions in elementsckpt.checkpoint, which take "
                f"any text."
            )
        self._components[key] = components.component(key, value)

    def __getattr__(self, key: str) -> Any:
        # Also asked before __init__ has run, by copy and pickle.
        registered = self.__dict__.get("_components", {})
        if key in registered:
            return registered[key].value
        raise AttributeError(_unknown(key, registered))

    def __delattr__(self, key: str) -> None:
        if key not in self._components:
            raise AttributeError(_unknown(key, self._components))
        del self._components[key]

    def __contains__(self, key: object) -> bool:
        return key in self._components

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._components))

    def __len__(self) -> int:
        return len(self._components)

    def __bool__(self) -> bool:
        return True  # Without components, too.

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._components})

    def _require_components(self) -> None:
        """Refuse to replace a run's state by nothing, or to resume nothing."""
        if not self._components:
            raise ComponentError(
                "Nothing is registered. Assign the components first, such as "
                "cp.agent = agent; what is registered later is not loaded."
            )

    def _select(self, keys: Iterable[str] | None) -> dict[str, Component]:
        if keys is None:
            return dict(self._components)
        if isinstance(keys, str):
            raise ValueError(f"keys is a list of keys: pass keys=[{keys!r}].")
        wanted = list(keys)
        missing = [key for key in wanted if key not in self._components]
        if missing:
            raise MissingKeyError(
                f"Not registered: {_listed(missing)}. Registered are: "
                f"{_listed(self._components)}. Register the rest first, or leave it "
                f"out of keys=."
            )
        return {key: self._components[key] for key in wanted}


def _unknown(key: str, registered: Iterable[str]) -> str:
    return f"No component {key!r} is registered; there are: {_listed(registered)}."


def _listed(keys: Iterable[str]) -> str:
    return ", ".join(map(repr, keys)) or "none"

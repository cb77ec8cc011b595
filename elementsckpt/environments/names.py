"""Names of objects: the attributes and keys that lead to them from the environment.

`unwrapped` is what the wrappers hold, as in Gymnasium, so that its leaves have the same
names below any wrappers. Names are made when they are needed, as an object may be
thousands of others away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from . import objects

_MOST_PARTS = 24
_LONG_PART = 60
# What draws numbers, and what it draws from, have one state.
_SILENT = ("bit_generator", "_bit_generator")
# The object that holds this one, and the attribute, or the key in a tuple of one.
Origin = tuple[int, Any]


class Names:
    """Gives names to objects by their numbers.

    Args:
      origins: The origin of each object; the first one is the environment.
      found: Returns the live object of a number.
    """

    def __init__(self, origins: list[Origin], found: Callable[[int], Any]) -> None:
        self._origins, self._found = origins, found
        self._used = {"", GRAPH}

    def leaf(self, number: int) -> str:
        """Return a name for an object that is a leaf: no two are the same."""
        return self._unique(self._joined(number), number)

    def below(self, number: int, steps: Iterable[str]) -> list[str]:
        """Return names for attributes of an object that are leaves."""
        prefix = self._joined(number)
        prefix = f"{prefix}/" if prefix else ""
        return [self._unique(prefix + step, number) for step in steps]

    def _joined(self, number: int) -> str:
        steps = (x for x in self._steps(number) if x not in _SILENT)
        return "/".join(x if type(x) is str else _text(x[0]) for x in steps)

    def _unique(self, name: str, number: int) -> str:
        if name in self._used:
            name = f"{name or 'self'}~{number}"
        self._used.add(name)
        return name

    def path(self, number: int) -> str:
        """Return the name of an object as code, for errors."""
        if not number:
            return "the environment"
        found = ""
        for step in self._steps(number):
            if type(step) is str:
                found += f".{step}" if found else step
            else:
                found += f"[{_text(step[0], repr)}]"
        return found

    def _steps(self, number: int) -> list[Any]:
        return [*self._upwards(number)][::-1]

    def _upwards(self, number: int) -> Iterator[Any]:
        for _ in range(_MOST_PARTS):
            parent, step = self._origins[number]
            if is_end(self._found(number)):
                yield "unwrapped"
                while number and step in objects.LINKS:
                    number = parent
                    parent, step = self._origins[number]
            if not number:
                return
            yield step
            number = parent
        if number:
            yield f"~{number}"


GRAPH = "#graph"  # The name of the leaf that holds the graph; not of an attribute.


def is_end(value: Any) -> bool:
    """Return whether an object is an environment that wraps no other."""
    known = objects.of(value)
    return known.has_unwrapped and objects.link_of(value) is None


def _text(key: Any, text: Callable[[Any], str] = str) -> str:
    try:
        return text(key)[:_LONG_PART]
    except Exception:  # The key may be of any class.
        return type(key).__name__


_MOST_LINKS = 30


def chain(value: Any) -> str:
    """Return the wrappers of an environment, from the outside in, for errors."""
    found: list[str] = []
    seen: set[int] = set()
    while id(value) not in seen and len(found) < _MOST_LINKS:
        seen.add(id(value))
        known = objects.of(value)
        own = known.attributes(value)
        found.append(link(known.name, own.get("num_envs")))
        value = own.get(objects.link_of(value), value)
    return closed(found)


def link(name: str, count: Any) -> str:
    """Return the text of one wrapper; how many environments it has is part of it."""
    name = name.rpartition(":")[2]
    return f"{name}[{count}]" if type(count) is int else name


def closed(links: list[str]) -> str:
    """Return the text of a chain of wrappers."""
    return "<".join(links) + ">" * (len(links) - 1)

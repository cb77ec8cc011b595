"""Objects of classes: their attributes, and what their builtin base holds."""

from __future__ import annotations

from typing import Any

from ..kinds import generators
from . import objects
from .node import MISSING, Code, Loading, Node, NodeKind, Saving

HERE = "reset() the environment that is here before loading, or make it as it was"


class Instances(NodeKind):
    """Objects whose state is in their attributes: [kind, content, class, attributes].

    Args:
      name: Name of the kind.
      base: The builtin type that holds what else they are.
    """

    def __init__(self, name: str, base: Any) -> None:
        self.name, self.base = name, base

    def save(self, walk: Saving, number: int, value: Any) -> Node:
        content = self.content(walk, number, value)
        if type(value) is self.base and not self.base.__dictoffset__:
            return [self.name, content]
        cls = walk.cls(type(value))
        if objects.of(value).attributes(value) is value:  # Of a dict, these are items.
            return [self.name, content, cls, None]
        return [self.name, content, cls, walk.attributes(value, number)]

    def content(self, walk: Saving, number: int, value: Any) -> Any:
        """Return what the object holds besides attributes."""
        return None

    def pair(self, walk: Loading, number: int, node: Node, live: Any) -> None:
        cls = self.base if len(node) == 2 else walk.cls(node[2], live)
        if cls is not None and objects.layout(cls).base is not self.base:
            raise ValueError(f"a {self.name} that is a {cls.__name__}")
        live = self.choose(walk, number, cls, live)
        if walk.targets[number] is None:  # A problem, and so would be what is below.
            return
        self.pair_content(walk, number, node, live)
        if len(node) > 2 and node[3] is None and cls is not None:
            known = objects.layout(cls)
            if not known.has_dict or not issubclass(self.base, dict):
                raise ValueError("items that cannot be attributes")
        elif len(node) > 2 and node[3] is not None:
            pair_attributes(walk, number, node[3], live)

    def choose(self, walk: Loading, number: int, cls: type | None, live: Any) -> Any:
        """Set the target: the live object, which is returned, or a new one."""
        if cls is None:  # It is not imported.
            return MISSING
        if walk.fits(live, cls):
            walk.claim(number, live)
            return live
        if objects.layout(cls).is_environment:
            walk.problem(number, not_here(cls, live))
            walk.targets[number] = None
        else:
            walk.targets[number] = walk.make(number, cls)
        return MISSING

    def pair_content(self, walk: Loading, number: int, node: Node, live: Any) -> None:
        """Decode the content."""

    def fill(self, walk: Loading, number: int, node: Node) -> None:
        target = walk.targets[number]
        self.put(walk, target, node[1])
        if len(node) > 2:
            fill_attributes(walk, target, node[3])

    def put(self, walk: Loading, target: Any, content: Any) -> None:
        """Replace the content of the target."""


class Built(Instances):
    """Objects that never change, which are made when what they hold is."""

    def choose(self, walk: Loading, number: int, cls: type | None, live: Any) -> Any:
        if cls is None:
            return MISSING
        if walk.fits(live, cls):
            walk.reserve(live)
        else:
            live = MISSING
        walk.pend(number, (cls, live))
        return live

    def put(self, walk: Loading, target: Any, content: Any) -> None:
        pass


def not_here(cls: type, live: Any) -> str:
    """Return the problem that an object of a class is not in its place."""
    advice = f"; {HERE}" if live is MISSING or live is None else ""
    return f"{objects.shown(cls)} was saved, {there(live)}{advice}"


def there(live: Any) -> str:
    """Return what is in the place of an object, for errors."""
    if live is MISSING or live is None:
        return "and there is none here"
    return f"and here is {objects.shown(type(live))}"


def pair_attributes(
    walk: Loading, number: int, saved: dict[str, Code], live: Any
) -> None:
    """Decode attributes beside those of a live object."""
    own = {} if live is MISSING else objects.of(live).attributes(live)
    if type(saved) is not dict:
        raise ValueError("attributes without names")
    for name, code in saved.items():
        if type(code) in _NOT_PLAIN:
            saved[name] = walk.visit(code, own.get(name, MISSING), number, name)
        elif code is None:
            now = own.get(name)
            if now is not None and walk.is_left(now):
                saved[name] = walk.keep(now)
    if own.keys() != saved.keys():
        for name, now in own.items():
            if name not in saved and walk.is_left(now):
                saved[name] = walk.keep(now)


_NOT_PLAIN = frozenset({list, dict})


def fill_attributes(walk: Loading, target: Any, saved: dict[str, Code] | None) -> None:
    """Give an object the attributes that were saved; None are its items."""
    if saved is None:
        object.__setattr__(target, "__dict__", target)
        return
    new = {}
    for name, code in saved.items():
        value = walk.target(code) if type(code) is list else code
        if value is not MISSING:  # What is left alone may be there, or not.
            new[name] = value
    known = objects.of(target)
    if known.attributes(target) is target:
        object.__setattr__(target, "__dict__", {})
    known.give(target, new)


class Randoms(Instances):
    """Generators of the module `random`: their words are a leaf."""

    def content(self, walk: Saving, number: int, value: Any) -> Any:
        return walk.leaf(number, generators.python_words(value))

    def pair_content(self, walk: Loading, number: int, node: Node, live: Any) -> None:
        node[1] = walk.leaf(node[1])
        generators.set_python_words(self.base(), node[1])  # Raises if it is none.

    def put(self, walk: Loading, target: Any, content: Any) -> None:
        generators.set_python_words(target, content)

"""Builtin containers, and objects of classes that are derived from them."""

from __future__ import annotations

import collections
from typing import Any

from . import objects
from .instances import Built, Instances
from .node import MISSING, Code, Loading, Node, Saving


class Sequence(Instances):
    """Lists."""

    def content(self, walk: Saving, number: int, value: Any) -> Any:
        items = self.base.__iter__(value)
        return [walk.code(x, number, (i,)) for i, x in enumerate(items)]

    def pair_content(self, walk: Loading, number: int, node: Node, live: Any) -> None:
        pair_items(walk, number, node[1], self.items(live))

    def items(self, live: Any) -> list[Any]:
        """Return the items of a live one."""
        return [] if live is MISSING else list(self.base.__iter__(live))

    def put(self, walk: Loading, target: Any, content: Any) -> None:
        list.__setitem__(target, slice(None), list(map(walk.value, content)))


def pair_items(walk: Loading, number: int, codes: list[Code], live: list[Any]) -> None:
    """Decode items beside the live ones at the same positions."""
    if type(codes) is not list:
        raise ValueError("no list of items")
    if len(codes) != len(live) and any(map(_is_environment, live)):
        text = f"{len(codes)} environments were saved, and there are {len(live)} here"
        walk.problem(number, text)
    count = len(live)
    for i, code in enumerate(codes):
        if type(code) is list or type(code) is dict:
            now = live[i] if i < count else MISSING
            codes[i] = walk.visit(code, now, number, (i,))


def _is_environment(value: Any) -> bool:
    return objects.of(value).is_environment


class Deque(Sequence):
    """Deques: [largest length, items]."""

    def content(self, walk: Saving, number: int, value: Any) -> Any:
        return [value.maxlen, super().content(walk, number, value)]

    def pair(self, walk: Loading, number: int, node: Node, live: Any) -> None:
        longest, items = node[1]
        if isinstance(live, collections.deque) and live.maxlen != longest:
            live = MISSING  # It cannot change.
        super().pair(walk, number, [node[0], items, *node[2:]], live)
        target = walk.targets[number]
        if isinstance(target, collections.deque) and target.maxlen != longest:
            collections.deque.__init__(target, (), longest)

    def put(self, walk: Loading, target: Any, content: Any) -> None:
        items = list(map(walk.value, content[1]))
        collections.deque.clear(target)
        collections.deque.extend(target, items)


class Frozen(Built, Sequence):
    """Tuples, which are made when their items are."""

    def needs(self, node: Node) -> list[Code]:
        found: list[Code] = node[1]
        return found

    def hashed(self, node: Node) -> list[Code]:
        return self.needs(node)

    def build(self, walk: Loading, number: int, node: Node, context: Any) -> Any:
        cls, live = context
        items, now = list(map(walk.value, node[1])), self.items(live)
        if live is not MISSING and _are_same(now, items):
            return live
        return self.base.__new__(cls, items)


def _stay(now: list[Any], items: list[Any], codes: list[Code]) -> bool:
    """Return whether what is hashed can stay where it is: an object has changed."""
    return not any(type(code) is list for code in codes) and _are_same(now, items)


def _are_same(now: list[Any], items: list[Any]) -> bool:
    return len(now) == len(items) and all(map(_is_same, now, items))


def _is_same(one: Any, other: Any) -> bool:
    is_plain = type(one) is type(other) and type(one) in (int, str, bool)
    return one is other or (is_plain and one == other)


class FrozenSet(Frozen):
    """Frozen sets, whose items are hashed."""

    is_hashed = True

    def keys(self, node: Node) -> list[Code]:
        return self.needs(node)

    def pair_content(self, walk: Loading, number: int, node: Node, live: Any) -> None:
        pair_items(walk, number, node[1], [])

    def build(self, walk: Loading, number: int, node: Node, context: Any) -> Any:
        cls, live = context
        items = list(map(walk.value, node[1]))
        if live is not MISSING and _stay(self.items(live), items, node[1]):
            return live
        ordered: set[Any] = set()
        fill_set(ordered, items)
        made = self.base.__new__(cls, ordered)
        tell_of_order(walk, number, made, items)
        return made


class Set(Sequence):
    """Sets."""

    is_hashed = True

    def keys(self, node: Node) -> list[Code]:
        found: list[Code] = node[1]
        return found

    def pair_content(self, walk: Loading, number: int, node: Node, live: Any) -> None:
        pair_items(walk, number, node[1], [])

    def fill(self, walk: Loading, number: int, node: Node) -> None:
        super().fill(walk, number, node)
        items = list(map(walk.value, node[1]))
        tell_of_order(walk, number, walk.targets[number], items)

    def put(self, walk: Loading, target: Any, content: Any) -> None:
        items = list(map(walk.value, content))
        if not _stay(list(set.__iter__(target)), items, content):
            fill_set(target, items)


def fill_set(target: Any, items: list[Any]) -> None:
    """Fill a set, so that its items come in this order, if that can be had.

    The order depends on the order in which colliding items came, and on how many others
    there once were.
    """
    for count in _FORMER if len(items) <= _MANY_ITEMS else (0,):
        former = [object() for _ in range(count)]
        for order in (items[::-1], items):
            set.clear(target)
            set.update(target, order)
            set.update(target, former)
            set.difference_update(target, former)
            if _are_same(list(set.__iter__(target)), items):
                return


_MANY_ITEMS = 1000
_FORMER = (0, 8, 30, 120, 500)


def tell_of_order(walk: Loading, number: int, made: Any, items: list[Any]) -> None:
    """Note a set that comes in another order than the one that was saved.

    It depends on hashes, which for text differ between processes.
    """
    if not _are_same(list(made), items):
        walk.disorder(number)


class Mapping(Instances):
    """Dicts: a key, its value, the next key, and so on."""

    is_hashed = True

    def content(self, walk: Saving, number: int, value: Any) -> Any:
        found = []
        for key, item in self.base.items(value):
            found.append(walk.code(key, number, ("key",)))
            found.append(walk.code(item, number, (key,)))
        return found

    def pair_content(self, walk: Loading, number: int, node: Node, live: Any) -> None:
        pair_pairs(walk, number, node[1], {} if live is MISSING else self.pairs(live))

    def pairs(self, live: Any) -> Any:
        """Return the live pairs, as a view."""
        return self.base.items(live)

    def keys(self, node: Node) -> list[Code]:
        found: list[Code] = node[1][::2]
        return found

    def put(self, walk: Loading, target: Any, content: Any) -> None:
        keys = list(map(walk.value, content[::2]))
        items = list(map(walk.target, content[1::2]))
        now = list(self.base.__iter__(target))
        if not _stay(now, keys, content[::2]):
            self.base.clear(target)
        for key, item in zip(keys, items, strict=True):
            if item is not MISSING:
                self.base.__setitem__(target, key, item)


def pair_pairs(walk: Loading, number: int, codes: list[Code], live: Any) -> None:
    """Decode keys and values; an object is beside the key that has its place."""
    if type(codes) is not list or len(codes) % 2:
        raise ValueError("no list of pairs")
    own, places = dict(live), list(live)
    for i in range(0, len(codes), 2):
        key, code = codes[i], codes[i + 1]
        now = MISSING
        if type(key) is list:
            if i // 2 < len(places):
                old, now = places[i // 2]
                codes[i] = walk.visit(key, old, number, ("key",))
            else:
                codes[i] = walk.visit(key, MISSING, number, ("key",))
        else:
            if type(key) is dict:
                key = codes[i] = walk.visit(key, MISSING, number, ("key",))
            now = own.get(key, MISSING)
        if type(code) is list or type(code) is dict:
            codes[i + 1] = walk.visit(code, now, number, (key,))


class Default(Mapping):
    """Dicts with a function for values that they lack: [function, pairs]."""

    def content(self, walk: Saving, number: int, value: Any) -> Any:
        factory = walk.code(value.default_factory, number, "default_factory")
        return [factory, super().content(walk, number, value)]

    def pair_content(self, walk: Loading, number: int, node: Node, live: Any) -> None:
        factory, pairs = node[1]
        now = MISSING if live is MISSING else live.default_factory
        factory = walk.visit(factory, now, number, "default_factory")
        pair_pairs(walk, number, pairs, () if live is MISSING else self.pairs(live))
        node[1][0] = factory

    def keys(self, node: Node) -> list[Code]:
        found: list[Code] = node[1][1][::2]
        return found

    def verify(self, walk: Loading, number: int, node: Node) -> None:
        factory = walk.value(node[1][0])
        if factory is not None and not callable(factory):
            raise ValueError("a dict whose factory is not a function")

    def put(self, walk: Loading, target: Any, content: Any) -> None:
        super().put(walk, target, content[1])
        _FACTORY.__set__(target, walk.value(content[0]))


_FACTORY: Any = collections.defaultdict.__dict__["default_factory"]


class Bytes(Instances):
    """Byte arrays, whose bytes are a leaf."""

    def content(self, walk: Saving, number: int, value: Any) -> Any:
        return walk.leaf(number, bytes(value))

    def pair_content(self, walk: Loading, number: int, node: Node, live: Any) -> None:
        node[1] = walk.leaf(node[1])
        if type(node[1]) is not bytes:
            raise ValueError("no bytes")

    def put(self, walk: Loading, target: Any, content: Any) -> None:
        if target != content:
            bytearray.__setitem__(target, slice(None), content)

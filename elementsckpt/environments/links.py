"""Objects that only refer to another: weak references, views of dicts."""

from __future__ import annotations

import collections
import gc
import types
import weakref
from typing import Any

from .instances import Built
from .node import MISSING, Code, Loading, Node, NodeKind, Saving


class WeakReferences(Built):
    """Weak references: [referent, function that is called when it dies]; None is dead.

    They may be of a class with attributes, as those of `weakref` itself.
    """

    def content(self, walk: Saving, number: int, value: Any) -> Any:
        referent = self.base.__call__(value)
        callback = None if referent is None else value.__callback__
        return [
            walk.code(referent, number, "()"),
            walk.code(callback, number, "__callback__"),
        ]

    def pair_content(self, walk: Loading, number: int, node: Node, live: Any) -> None:
        now = there = MISSING
        if live is not MISSING:
            now, there = self.base.__call__(live), live.__callback__
        content = node[1]
        content[0] = walk.visit(content[0], now, number, "()")
        content[1] = walk.visit(content[1], there, number, "__callback__")

    def needs(self, node: Node) -> list[Code]:
        found: list[Code] = node[1]
        return found

    def hashed(self, node: Node) -> list[Code]:
        return self.needs(node)[:1]

    def build(self, walk: Loading, number: int, node: Node, context: Any) -> Any:
        cls, live = context
        referent, callback = map(walk.value, node[1])
        is_here = live is not MISSING and self.base.__call__(live) is referent
        # A reference remembers the hash of an object, which may get another one.
        is_fixed = type(type(referent).__hash__) is not types.FunctionType
        if is_here and is_fixed and live.__callback__ is callback:
            return live
        # A referent that is gone at once leaves a dead reference.
        return self.base.__new__(
            cls, _Gone() if referent is None else referent, callback
        )


class _Gone:
    pass


class Proxies(NodeKind):
    """Weak proxies: ["proxy", referent]; None is dead."""

    def save(self, walk: Saving, number: int, value: Any) -> Node:
        return ["proxy", walk.code(_referent(value), number, "()")]

    def pair(self, walk: Loading, number: int, node: Node, live: Any) -> None:
        is_proxy = type(live) in weakref.ProxyTypes
        now = _referent(live) if is_proxy else MISSING
        node[1] = walk.visit(node[1], now, number, "()")
        walk.pend(number, live if is_proxy else MISSING)

    def needs(self, node: Node) -> list[Code]:
        return [node[1]]

    def build(self, walk: Loading, number: int, node: Node, context: Any) -> Any:
        referent = walk.value(node[1])
        if context is not MISSING and _referent(context) is referent:
            return context
        return weakref.proxy(_Gone() if referent is None else referent)


def _referent(proxy: Any) -> Any:
    """Return what a proxy stands for, which its methods are bound to."""
    try:
        return proxy.__repr__.__self__
    except ReferenceError:
        return None


VIEWS: dict[type, tuple[Any, str]] = {
    type(getattr(base(), name)()): (base, name)
    for base in (dict, collections.OrderedDict)
    for name in ("keys", "values", "items")
}


class Views(NodeKind):
    """Views of dicts, and read-only ones: ["of dict", number of its type, dict]."""

    def save(self, walk: Saving, number: int, value: Any) -> Node:
        (owner,) = gc.get_referents(value)
        return [
            "of dict",
            list(_TYPES).index(type(value)),
            walk.code(owner, number, "mapping"),
        ]

    def pair(self, walk: Loading, number: int, node: Node, live: Any) -> None:
        cls = _TYPES[node[1]]
        now = gc.get_referents(live)[0] if type(live) is cls else MISSING
        node[2] = walk.visit(node[2], now, number, "mapping")
        walk.pend(number, live if type(live) is cls else MISSING)

    def needs(self, node: Node) -> list[Code]:
        return [node[2]]

    def build(self, walk: Loading, number: int, node: Node, context: Any) -> Any:
        owner, cls = walk.value(node[2]), _TYPES[node[1]]
        if context is not MISSING and gc.get_referents(context)[0] is owner:
            return context
        if cls is types.MappingProxyType:
            return cls(owner)
        base, name = VIEWS[cls]
        return getattr(base, name)(owner)


_TYPES: list[type] = [*VIEWS, types.MappingProxyType]

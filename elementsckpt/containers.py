"""One container ⇄ the node that describes it.

    kind          holds
    dict          items; keys are any hashable scalars. Likewise ordered
                  (OrderedDict), counter, default (defaultdict), frozen (flax's
                  FrozenDict)
    list, tuple   items; likewise deque
    namedtuple    fields; likewise dataclass, with all attributes it has
    generator     state of a NumPy Generator; likewise randomstate (RandomState)

Sets are leaves.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import generators, leaves, references, scalars
from .manifest import Node

_KINDS: dict[type, str] = {
    dict: "dict",
    collections.OrderedDict: "ordered",
    collections.Counter: "counter",
    collections.defaultdict: "default",
    list: "list",
    tuple: "tuple",
    collections.deque: "deque",
}
NAMED = frozenset({"namedtuple", "dataclass", "frozen"})  # They have a class.
RANDOM = frozenset({"generator", "randomstate"})
# Of which one that holds another is freed by recursion in C.
FRAGILE = frozenset({"default", "deque"})
_Apart = tuple[Node, Sequence[Any], Sequence[Any]]


def kind_of(value: Any) -> str | None:
    """Return the kind of container that the value is; None for a leaf."""
    cls: Any = type(value)
    kind = _KINDS.get(cls)
    if kind is not None or cls in leaves.PLAIN:
        return kind
    if references.is_namedtuple(cls):
        return None if getattr(value, "__dict__", None) else "namedtuple"
    if references.is_plain_dataclass(cls):
        return "dataclass"
    if references.name_of(cls) == references.FROZEN_DICT:
        return "frozen"
    return generators.kind_of(value)


def _mapping(kind: str) -> Callable[[Any], _Apart]:
    def take_apart(value: Any) -> _Apart:
        keys = list(value)
        return Node(kind, keys=_encode_keys(keys)), keys, list(value.values())

    return take_apart


def _encode_keys(keys: list[Any]) -> list[Any]:
    try:
        "".join(keys).encode()  # Raises unless all are strings that JSON can hold.
        if set(map(type, keys)) <= {str}:
            return keys
    except (TypeError, UnicodeEncodeError):
        pass
    return [scalars.encode(key) for key in keys]


def _default(value: collections.defaultdict[Any, Any]) -> _Apart:
    node, keys, children = _mapping("default")(value)
    factory = value.default_factory
    node.value = references.factory_name(factory) if factory is not None else None
    if factory is not None and node.value is None:
        raise scalars.NotScalarError(factory)
    return node, keys, children


def _frozen(value: Any) -> _Apart:
    keys = list(value)
    node = Node("frozen", keys=_encode_keys(keys), name=references.FROZEN_DICT)
    return node, keys, [value[key] for key in keys]


def _sequence(kind: str) -> Callable[[Any], _Apart]:
    return lambda value: (Node(kind), range(len(value)), list(value))


def _deque(value: collections.deque[Any]) -> _Apart:
    return Node("deque", value=value.maxlen), range(len(value)), list(value)


def _namedtuple(value: Any) -> _Apart:
    keys = list(value._fields)
    return Node("namedtuple", keys=keys, name=_class_name(value)), keys, value


def _dataclass(value: Any) -> _Apart:
    declared = [field.name for field in dataclasses.fields(value)]
    present = [name for name in declared if hasattr(value, name)]
    extra = [x for x in getattr(value, "__dict__", ()) if x not in set(declared)]
    keys = present + extra
    node = Node("dataclass", keys=keys, name=_class_name(value), value=declared)
    return node, keys, [getattr(value, name) for name in keys]


def _class_name(value: Any) -> str:
    return references.name_of(type(value))


def _generator(value: np.random.Generator) -> _Apart:
    children = generators.states_of(value)
    return Node("generator"), list(children), list(children.values())


def _randomstate(value: np.random.RandomState) -> _Apart:
    return Node("randomstate"), ["state"], [value.get_state(legacy=False)]


_TAKE_APART: dict[str, Callable[[Any], _Apart]] = {
    "dict": _mapping("dict"),
    "ordered": _mapping("ordered"),
    "counter": _mapping("counter"),
    "default": _default,
    "frozen": _frozen,
    "list": _sequence("list"),
    "tuple": _sequence("tuple"),
    "deque": _deque,
    "namedtuple": _namedtuple,
    "dataclass": _dataclass,
    "generator": _generator,
    "randomstate": _randomstate,
}


def take_apart(value: Any, kind: str) -> _Apart:
    """Return a container's node without children, their keys, and the children.

    Raises:
      NotScalarError: a key, or a factory, cannot be described; pickle it.
    """
    return _TAKE_APART[kind](value)


# Back


def put_together(node: Node, children: list[Any], cls: type | None) -> Any:
    """Return the container that a node describes.

    Args:
      node: Its description.
      children: What it holds.
      cls: Its class if the node names one; None makes a dict of it.

    Raises:
      ValueError, TypeError, KeyError: no container has this node.
    """
    kind = "dict" if node.kind in NAMED and cls is None else node.kind
    return _PUT_TOGETHER[kind](node, children, cls)


def child_keys(node: Node) -> list[Any]:
    """Return the keys, field names or positions of a node's children."""
    if node.kind in ("list", "tuple", "deque"):
        return list(range(len(node.children)))
    if node.kind == "generator":
        return ["state", "seed"]
    if node.kind == "randomstate":
        return ["state"]
    return scalars.decode_all(node.keys)


def _table(node: Node, children: list[Any]) -> dict[Any, Any]:
    return scalars.table(scalars.decode_all(node.keys), children)


def _put_default(node: Node, children: list[Any], _: Any) -> Any:
    factory = None if node.value is None else references.factory(node.value)
    return collections.defaultdict(factory, _table(node, children))


def _put_counter(node: Node, children: list[Any], _: Any) -> Any:
    counter: collections.Counter[Any] = collections.Counter()
    dict.update(counter, _table(node, children))
    return counter


def _put_frozen(node: Node, children: list[Any], cls: Any) -> Any:
    # Those of a FrozenDict are FrozenDicts; it would copy others for each place.
    if any(isinstance(child, dict) for child in children):
        raise ValueError("a FrozenDict holds a dict")
    return cls(_table(node, children))


def _put_namedtuple(node: Node, children: list[Any], cls: Any) -> Any:
    if len(children) != len(node.keys):
        raise ValueError("a NamedTuple has more or fewer items than fields")
    return tuple.__new__(cls, children)


_PUT_TOGETHER: dict[str, Callable[[Node, list[Any], Any], Any]] = {
    "dict": lambda node, children, _: _table(node, children),
    "ordered": lambda node, children, _: collections.OrderedDict(
        _table(node, children)
    ),
    "counter": _put_counter,
    "default": _put_default,
    "frozen": _put_frozen,
    "list": lambda node, children, _: children,
    "tuple": lambda node, children, _: tuple(children),
    "deque": lambda node, children, _: collections.deque(children, node.value),
    "namedtuple": _put_namedtuple,
    "dataclass": lambda node, children, cls: references.build_dataclass(
        cls, _table(node, children)
    ),
    "generator": lambda node, children, _: generators.generator(*children),
    "randomstate": lambda node, children, _: generators.randomstate(*children),
}

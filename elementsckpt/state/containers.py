"""One container ⇄ the node that describes it.

    kind          holds
    dict          items; keys are any hashable scalars. Likewise ordered
                  (OrderedDict), counter, default (defaultdict), frozen (flax's
                  FrozenDict)
    list, tuple   items; likewise deque
    namedtuple    fields; likewise dataclass, with all attributes it has
    generator     state of a NumPy Generator; likewise randomstate (RandomState)

The children of a container are read from its builtin type, not by iterating. Other
attributes of an OrderedDict, a Counter or a NamedTuple are children, too, and come
last. Sets are leaves.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..format import scalars
from ..format.manifest import Node
from ..kinds import classes, generators, leaves, references
from ..user import attributes

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
LOOSE = frozenset({"ordered", "counter", "namedtuple"})  # They take attributes.
# If they are nested, C frees them by recursion.
FRAGILE = frozenset({"default", "deque"})
_Apart = tuple[Node, Sequence[Any], Sequence[Any]]


def kind_of(value: Any) -> str | None:
    """Return the kind of container that the value is; None for a leaf."""
    cls: Any = type(value)
    kind = _KINDS.get(cls)
    if kind is not None or cls in leaves.PLAIN:
        return kind
    if classes.is_namedtuple(cls):
        return "namedtuple" if _is_plain_namedtuple(value, cls) else None
    if classes.is_plain_dataclass(cls):
        return "dataclass"
    if references.name_of(cls) == references.FROZEN_DICT:
        return "frozen"
    return generators.kind_of(value)


def _is_plain_namedtuple(value: Any, cls: Any) -> bool:
    """Return whether it consists of fields and attributes only."""
    if tuple.__len__(value) != len(cls._fields):
        return False
    return not attributes.own(value) or classes.leaves_state_to_pickle(cls)


def attributes_of(value: Any) -> dict[str, Any]:
    """Return the attributes of a container of a kind in `LOOSE`.

    Raises:
      NotScalarError: the name of one is not text.
    """
    found = attributes.own(value)
    for name in found:
        if type(name) is not str:
            raise scalars.NotScalarError(name)
    return found


def _mapping(kind: str) -> Callable[[Any], _Apart]:
    def take_apart(value: Any) -> _Apart:
        cls = type(value)  # An attribute of the value may be called `values`.
        keys = list(value)
        return Node(kind, keys=encode_keys(keys)), keys, list(cls.values(value))

    return take_apart


def encode_keys(keys: list[Any]) -> list[Any]:
    """Return keys, or names of attributes, as scalars."""
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
    node = Node("frozen", keys=encode_keys(keys), name=references.FROZEN_DICT)
    return node, keys, [value[key] for key in keys]


def _sequence(kind: str) -> Callable[[Any], _Apart]:
    return lambda value: (Node(kind), range(len(value)), list(value))


def _deque(value: collections.deque[Any]) -> _Apart:
    return Node("deque", value=value.maxlen), range(len(value)), list(value)


def _namedtuple(value: Any) -> _Apart:
    keys = list(type(value)._fields)
    node = Node("namedtuple", keys=keys, name=_class_name(value))
    return node, keys, list(tuple.__iter__(value))


def _dataclass(value: Any) -> _Apart:
    declared = [field.name for field in dataclasses.fields(value)]
    fields = {name: attributes.get(value, name, _UNSET) for name in declared}
    children = {name: x for name, x in fields.items() if x is not _UNSET}
    others = attributes_of(value)
    children |= {name: x for name, x in others.items() if name not in fields}
    keys = list(children)
    node = Node("dataclass", keys=encode_keys(keys), name=_class_name(value))
    node.value = declared
    return node, keys, list(children.values())


_UNSET = object()


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
      NotScalarError: a key, or a factory, cannot be described; the container must be
        pickled.
    """
    return _TAKE_APART[kind](value)


# Back


def put_together(node: Node, children: list[Any], cls: type | None) -> Any:
    """Return the container that a node describes.

    Args:
      node: Its description.
      children: Its children, and then its attributes.
      cls: Its class if the node names one; None for a dict.

    Raises:
      ValueError, TypeError, KeyError, AttributeError: no container has this node.
    """
    kind = "dict" if node.kind in NAMED and cls is None else node.kind
    count = len(children) - len(node.attributes)
    if count == len(children):
        return _PUT_TOGETHER[kind](node, children, cls)
    if node.kind not in LOOSE:
        raise ValueError(f"a {node.kind} with attributes")
    made = _PUT_TOGETHER[kind](node, children[:count], cls)
    others = dict(
        zip(scalars.decode_keys(node.attributes), children[count:], strict=True)
    )
    if node.kind == "namedtuple" and cls is None:
        return {**others, **made}
    attributes.give(made, others)
    return made


def child_keys(node: Node) -> list[Any]:
    """Return the keys, field names or positions of a node's children.

    The names of the last children, its attributes, are in `attributes`.
    """
    if node.kind in ("list", "tuple", "deque"):
        return list(range(len(node.children) - len(node.attributes)))
    if node.kind == "generator":
        return ["state", "seed"]
    if node.kind == "randomstate":
        return ["state"]
    return scalars.decode_all(node.keys)


def _table(node: Node, children: list[Any]) -> dict[Any, Any]:
    return scalars.build_dict(scalars.decode_all(node.keys), children)


def _put_default(node: Node, children: list[Any], _: Any) -> Any:
    factory = None if node.value is None else references.factory(node.value)
    return collections.defaultdict(factory, _table(node, children))


def _put_counter(node: Node, children: list[Any], _: Any) -> Any:
    counter: collections.Counter[Any] = collections.Counter()
    dict.update(counter, _table(node, children))
    return counter


def _put_frozen(node: Node, children: list[Any], cls: Any) -> Any:
    # Dicts in a FrozenDict are FrozenDicts; others would be copied for each place.
    if any(isinstance(child, dict) for child in children):
        raise ValueError("a FrozenDict holds a dict")
    return cls(_table(node, children))


def _put_namedtuple(node: Node, children: list[Any], cls: Any) -> Any:
    if len(children) != len(node.keys):
        raise ValueError("a NamedTuple has more or fewer items than fields")
    if list(cls._fields) == node.keys:
        return tuple.__new__(cls, children)
    return classes.build_namedtuple(cls, _table(node, children))


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
    "dataclass": lambda node, children, cls: classes.build_dataclass(
        cls, _table(node, children), node.value
    ),
    "generator": lambda node, children, _: generators.generator(*children),
    "randomstate": lambda node, children, _: generators.randomstate(*children),
}

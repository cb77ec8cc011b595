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

from ..format import scalars
from ..format.manifest import Node
from ..kinds import classes, generators, leaves, references
from ..user import attributes

KINDS: dict[type, str] = {
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
MAPPINGS = frozenset({"dict", "ordered", "counter", "default"})
SEQUENCES = frozenset({"list", "tuple", "deque"})
WITH_ATTRIBUTES = frozenset({"ordered", "counter", "namedtuple"})  # If they have any.
# If they are nested, C frees them by recursion.
FRAGILE = frozenset({"default", "deque"})


def kind_of(value: Any) -> str | None:
    """Return the kind of container that the value is; None for a leaf."""
    cls: Any = type(value)
    kind = KINDS.get(cls)
    if kind is not None or cls in leaves.PLAIN:
        return kind
    if classes.is_namedtuple(cls):
        if tuple.__len__(value) != len(cls._fields):
            return None
        is_plain = not attributes.own(value) or classes.leaves_state_to_pickle(cls)
        return "namedtuple" if is_plain else None
    if classes.is_plain_dataclass(cls):
        return "dataclass"
    if references.name_of(cls) == references.FROZEN_DICT:
        return "frozen"
    return generators.kind_of(value)


def attributes_of(value: Any) -> dict[str, Any]:
    """Return the attributes of a container of a kind in `WITH_ATTRIBUTES`.

    Raises:
      NotScalarError: the name of one is not text.
    """
    found = attributes.own(value)
    for name in found:
        if type(name) is not str:
            raise scalars.NotScalarError(name)
    return found


def take_apart(value: Any, kind: str) -> tuple[Node, Sequence[Any], Sequence[Any]]:
    """Return a container's node without children, their keys, and the children.

    Raises:
      NotScalarError: a key, or a factory, cannot be described; the container must be
        pickled.
    """
    node, cls = Node(kind), type(value)
    if kind in MAPPINGS:  # An attribute of the value may be called `values`.
        keys, children = list(value), list(cls.values(value))
        if kind == "default" and value.default_factory is not None:
            node.value = references.factory_name(value.default_factory)
            if node.value is None:
                raise scalars.NotScalarError(value.default_factory)
    elif kind in SEQUENCES:
        node.value = value.maxlen if kind == "deque" else None
        return node, range(len(value)), list(value)
    elif kind in RANDOM:
        states = generators.states_of(value)
        return node, list(states), list(states.values())
    else:
        node.name = references.name_of(cls)
        if kind == "namedtuple":
            node.keys = list(cls._fields)
            return node, node.keys, list(tuple.__iter__(value))
        if kind == "frozen":
            keys, children = list(value), [value[key] for key in value]
        else:
            node.value, found = _dataclass(value)
            keys, children = list(found), list(found.values())
    node.keys = encode_keys(keys)
    return node, keys, children


def _dataclass(value: Any) -> tuple[list[str], dict[Any, Any]]:
    """Return the fields of a dataclass, and those that are set and other attributes."""
    declared = [field.name for field in dataclasses.fields(value)]
    found = {name: attributes.get(value, name, _UNSET) for name in declared}
    found = {name: x for name, x in found.items() if x is not _UNSET}
    others = attributes_of(value)
    found |= {name: x for name, x in others.items() if name not in declared}
    return declared, found


_UNSET = object()


def encode_keys(keys: list[Any]) -> list[Any]:
    """Return keys, or names of attributes, as scalars."""
    try:
        "".join(keys).encode()  # Raises unless all are strings that JSON can hold.
        if set(map(type, keys)) <= {str}:
            return keys
    except (TypeError, UnicodeEncodeError):
        pass
    return [scalars.encode(key) for key in keys]


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
    if not node.attributes:
        return _PUT_TOGETHER[kind](node, children, cls)
    if node.kind not in WITH_ATTRIBUTES:
        raise ValueError(f"a {node.kind} with attributes")
    names = scalars.decode_keys(node.attributes)
    count = len(children) - len(names)
    made = _PUT_TOGETHER[kind](node, children[:count], cls)
    others = dict(zip(names, children[count:], strict=True))
    if node.kind == "namedtuple" and cls is None:
        return {**others, **made}
    attributes.give(made, others)
    return made


def child_keys(node: Node) -> list[Any]:
    """Return the keys, field names or positions of a node's children.

    The names of the last children, its attributes, are in `attributes`.
    """
    if node.kind in SEQUENCES:
        return list(range(len(node.children) - len(node.attributes)))
    if node.kind == "generator":
        return ["state", "seed"]
    if node.kind == "randomstate":
        return ["state"]
    return scalars.decode_all(node.keys)


def _table(node: Node, children: list[Any]) -> dict[Any, Any]:
    return scalars.build_dict(scalars.decode_all(node.keys), children)


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
    if list(cls._fields) == node.keys and len(children) == len(node.keys):
        return tuple.__new__(cls, children)
    return classes.build_namedtuple(cls, _table(node, children))


_PUT_TOGETHER: dict[str, Callable[[Node, list[Any], Any], Any]] = {
    "dict": lambda node, children, _: _table(node, children),
    "ordered": lambda node, items, _: collections.OrderedDict(_table(node, items)),
    "counter": _put_counter,
    "default": lambda node, children, _: collections.defaultdict(
        node.value and references.factory(node.value), _table(node, children)
    ),
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

"""Nested state ⇄ structure and named leaves.

A structure is a list of containers in which children come first, so
neither reading nor building it recurses, and nothing in a file can be cyclic.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import containers, jax_arrays, leaves, pickles, scalars
from .errors import MismatchError, StateError
from .manifest import Leaf, Node, Tree, display


@dataclass
class Flat:
    """A state taken apart, its leaves still objects.

    Attributes:
      root: Number of the outermost container or leaf, as in `manifest.Node`.
      nodes: Containers, children first.
      containers: The containers themselves.
      names: Names of the leaves.
      kinds: Kinds of the leaves.
      values: The leaves.
    """

    root: int = 0
    nodes: list[Node] = field(default_factory=list)
    containers: list[Any] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)


def flatten(state: Any, key: str, *, aliases: bool = True) -> Flat:
    """Take a state apart.

    Args:
      state: What a component's `save()` returned.
      key: The component's key, for errors.
      aliases: Whether an object met twice becomes one leaf or container. Without,
        each place has leaves of its own, and so names of its own.

    Raises:
      StateError: the state is nested too deeply.
    """
    flattener = _Flattener(aliases)
    try:
        flattener.flat.root = flattener.visit(state, "")
    except RecursionError as error:
        raise StateError(
            f"The state of {key!r} is nested too deeply to be saved. Return a flatter "
            f"state from save(), for example lists instead of linked objects."
        ) from error
    return flattener.flat


class _CycleError(Exception):
    """A container holds itself; carries its id."""


class _Flattener:
    def __init__(self, aliases: bool) -> None:
        self.flat = Flat()
        self._aliases = aliases
        # Holding the objects keeps their ids from being given to others.
        self._seen: dict[int, tuple[int, Any]] = {}
        self._open: set[int] = set()

    def visit(self, value: Any, name: str) -> int:
        leaf_kind = leaves.PLAIN.get(type(value))
        if leaf_kind is not None:  # Most of what is met, without a second look.
            return self._leaf(value, name, leaf_kind)
        kind = containers.kind_of(value)
        if kind is None:
            return self._leaf(value, name, leaves.kind_of(value))
        identity = id(value)
        if identity in self._seen:
            return self._seen[identity][0]
        if identity in self._open:
            raise _CycleError(identity)
        sizes = len(self.flat.nodes), len(self.flat.names)
        self._open.add(identity)
        try:
            number = self._container(value, name, kind)
        except (_CycleError, scalars.NotScalarError) as error:
            if isinstance(error, _CycleError) and error.args[0] != identity:
                raise
            self._forget(*sizes)
            number = self._leaf(value, name, "pickle")
        finally:
            self._open.discard(identity)
        if self._aliases:
            self._seen[identity] = number, value
        return number

    def _container(self, value: Any, name: str, kind: str) -> int:
        node, keys, children = containers.take_apart(value, kind)
        prefix = f"{name}/" if name else ""
        node.children = [
            self.visit(child, prefix + (key if type(key) is str else part(key)))
            for key, child in zip(keys, children, strict=True)
        ]
        self.flat.nodes.append(node)
        self.flat.containers.append(value)
        return -len(self.flat.nodes)

    def _leaf(self, value: Any, name: str, kind: str) -> int:
        flat = self.flat
        number = len(flat.names)
        is_value = kind in ("python", "bytes") and type(value) is not set
        if self._aliases and not is_value:
            seen = self._seen.setdefault(id(value), (number, value))
            if seen[0] != number:
                return seen[0]
        flat.names.append(name)
        flat.kinds.append(kind)
        flat.values.append(value)
        return number

    def _forget(self, node_count: int, leaf_count: int) -> None:
        flat = self.flat
        del flat.nodes[node_count:], flat.containers[node_count:]
        del flat.names[leaf_count:], flat.kinds[leaf_count:], flat.values[leaf_count:]
        self._seen = {
            identity: (number, value)
            for identity, (number, value) in self._seen.items()
            if -node_count <= number < leaf_count
        }


# Leaves


def encode(flat: Flat, key: str) -> tuple[Tree, list[np.ndarray | None]]:
    """Describe a flat state for the manifest and give the storage of its leaves.

    Args:
      flat: The state.
      key: The component's key, for errors.

    Returns:
      The tree, whose leaves have no place yet, and the storage of each leaf. Arrays
      inside pickles are leaves after those of the state.

    Raises:
      StateError: a leaf cannot be saved.
    """
    encoder = _Encoder(key)
    encoder.add_all(flat)
    return Tree(flat.root, flat.nodes, encoder.leaves), encoder.storages


class _Encoder:
    def __init__(self, key: str) -> None:
        self.leaves: list[Leaf] = []
        self.storages: list[np.ndarray | None] = []
        self._key = key
        self._numbers: dict[int, tuple[int, Any]] = {}

    def add_all(self, flat: Flat) -> None:
        for number, kind in enumerate(flat.kinds):
            if kind != "numpy" and kind in leaves.ARRAYS:
                self._check(flat.values[number], flat.names[number], kind)
        fetched = self._fetch(flat)
        pickled = []
        for number, kind in enumerate(flat.kinds):
            name, value = flat.names[number], flat.values[number]
            try:
                leaf, storage = leaves.encode(value, name, kind, fetched.get(number))
                if kind in leaves.ARRAYS:
                    self._numbers[id(value)] = number, value
            except leaves.UnstorableError:
                pickled.append(number)
                leaf, storage = Leaf(name, "pickle"), None
            if not name.isascii():
                leaf.name = display(name)
            self.leaves.append(leaf)
            self.storages.append(storage)
        for number in pickled:
            encoded = self._pickle(flat.values[number], self.leaves[number].name)
            self.leaves[number], self.storages[number] = encoded

    def _fetch(self, flat: Flat) -> dict[int, np.ndarray]:
        kinds = enumerate(flat.kinds)
        numbers = [n for n, kind in kinds if kind == "jax" or kind == "key"]
        values = [flat.values[number] for number in numbers]
        if not values:
            return {}
        return dict(zip(numbers, jax_arrays.fetch(values), strict=True))

    def _check(self, value: Any, name: str, kind: str) -> None:
        problem = leaves.problem(value, kind)
        if problem is not None:
            raise StateError(f"{full_name(self._key, name)} {problem}.")

    def _pickle(self, value: Any, name: str) -> leaves.Encoded:
        parts: dict[int, None] = {}

        def out_of_band(item: Any) -> int | None:
            number = self._array(item, f"{name}/{len(parts)}")
            if number is not None:
                parts[number] = None
            return number

        try:
            payload = pickles.dump(value, out_of_band)
        except StateError:
            raise
        except Exception as error:
            raise StateError(
                f"{full_name(self._key, name)}, of type {type(value).__qualname__}, "
                f"cannot be saved: {error}. Leave it out of what save() returns and "
                f"make it anew in load()."
            ) from error
        return leaves.encode_pickle(payload, name, list(parts))

    def _array(self, value: Any, name: str) -> int | None:
        """Make an array met in a pickle a leaf; return its number, or None."""
        kind = leaves.kind_of(value)
        if kind not in leaves.ARRAYS:
            return None
        if id(value) in self._numbers:
            return self._numbers[id(value)][0]
        self._check(value, name, kind)
        fetched = None
        if kind == "jax" or kind == "key":
            (fetched,) = jax_arrays.fetch([value])
        try:
            leaf, storage = leaves.encode(value, name, kind, fetched)
        except leaves.UnstorableError:
            return None
        self._numbers[id(value)] = len(self.leaves), value
        self.leaves.append(leaf)
        self.storages.append(storage)
        return len(self.leaves) - 1


def part(key: Any) -> str:
    """Return what a key, field name or position adds to a name."""
    if type(key) is str:
        return key
    try:
        return str(key)
    except ValueError:  # Python limits the digits of an int in decimal.
        return hex(key) if isinstance(key, int) else type(key).__name__


def full_name(key: str, name: str) -> str:
    """Return the name of a leaf, or of a container, with its component's key."""
    return f"{key}/{name}" if name else key


# Back


def names(tree: Tree) -> list[tuple[str, int]]:
    """Return name and number of each leaf, an aliased leaf once for each place.

    Raises:
      MismatchError: there are too many places.
      ValueError, IndexError: the structure is not one that `flatten` makes.
    """
    reference_count = sum(len(node.children) for node in tree.nodes) + 1
    numbers = visible(tree)
    if reference_count == len(numbers) + len(tree.nodes):
        return [(tree.leaves[number].name, number) for number in numbers]
    return [(name, number) for name, number in _walk(tree) if number >= 0]


def visible(tree: Tree) -> list[int]:
    """Return the numbers of the leaves that are not parts of a pickled one."""
    hidden = {n for leaf in tree.leaves if leaf.kind == "pickle" for n in leaf.value}
    return [number for number in range(len(tree.leaves)) if number not in hidden]


def container_name(tree: Tree, node: int) -> str:
    """Return the name of a container by its position in the list of nodes."""
    with contextlib.suppress(MismatchError):
        for name, number in _walk(tree):
            if number == -node - 1:
                return name
    return ""


def _walk(tree: Tree) -> Iterator[tuple[str, int]]:
    """Yield name and number of each container and leaf."""
    # Containers that hold others twice double the places at each level.
    left = 1_000_000 + 10 * len(tree.leaves)
    stack = [("", tree.root)]
    while stack:
        name, number = stack.pop()
        left -= 1
        if left < 0:
            raise MismatchError(
                "The same containers appear in too many places for their leaves to be "
                "selected by name. Load the component without regex."
            )
        yield display(name), number
        if number >= 0:
            continue
        node = tree.nodes[-number - 1]
        prefix = f"{name}/" if name else ""
        keys = containers.child_keys(node)
        for key, child in zip(reversed(keys), reversed(node.children), strict=True):
            if child < 0 and child <= number:
                raise ValueError("a container comes before what it holds")
            stack.append((prefix + part(key), child))


def unflatten(
    root: int,
    nodes: Sequence[Node],
    values: Sequence[Any],
    find_class: Callable[[int, Node], type | None],
) -> Any:
    """Put a state together.

    Args:
      root: As in `Flat`.
      nodes: Containers, children first.
      values: The leaves.
      find_class: Returns the class for a node of kind namedtuple, dataclass or
        frozen, or None to make a dict of it.

    Raises:
      ValueError, TypeError, KeyError, IndexError: `nodes` are not what `flatten` makes.
    """
    built: list[Any] = []
    for number, node in enumerate(nodes):
        children = [values[n] if n >= 0 else built[-n - 1] for n in node.children]
        cls = find_class(number, node) if node.kind in containers.NAMED else None
        built.append(containers.put_together(node, children, cls))
    return _child(root, values, built)


def unflatten_some(root: int, nodes: Sequence[Node], values: Mapping[int, Any]) -> Any:
    """Put together the part of a state that holds some of its leaves.

    Args:
      root: As in `Flat`.
      nodes: Containers, children first.
      values: The leaves, by number.

    Returns:
      Nested dicts, and the sequences that are whole; a sequence that is not becomes a
      dict by position. None without any leaf.
    """
    built: dict[int, Any] = dict(values)
    for number, node in enumerate(nodes):
        keys = containers.child_keys(node)
        pairs = zip(keys, node.children, strict=True)
        items = {key: built[child] for key, child in pairs if child in built}
        if not items:
            continue
        whole = len(items) == len(keys)
        if whole and node.kind not in containers.NAMED:
            built[-number - 1] = containers.put_together(
                node, list(items.values()), None
            )
        else:
            built[-number - 1] = items
    return built.get(root)


def _child(number: int, values: Sequence[Any], built: list[Any]) -> Any:
    if number >= 0:
        return values[number]
    return built[-number - 1]

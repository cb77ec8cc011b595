"""Nested state ⇄ structure and named leaves.

A structure is a list of containers in which children come first, so
neither reading nor building it recurses, and nothing in a file can be cyclic.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct

from . import containers, jax_arrays, leaves, pickles, scalars
from .errors import MismatchError, StateError
from .manifest import OWN_VALUE, Leaves, Node, Tree, display


class Flat(Struct):
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
    nodes: list[Node] = []
    containers: list[Any] = []
    names: list[str] = []
    kinds: list[str] = []
    values: list[Any] = []

    def close(self, number: int, children: list[Any]) -> Any:
        """Return a container like this one that holds something else."""
        cls = type(self.containers[number])
        return containers.put_together(self.nodes[number], children, cls)


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
        (flattener.flat.root,) = flattener.visit([""], [state])
    except RecursionError as error:
        raise StateError(
            f"The state of {key!r} is nested too deeply to be saved. Return a flatter "
            f"state from save(), for example lists instead of linked objects."
        ) from error
    return flattener.flat


_VALUES = frozenset({"python", "bytes"})  # Kinds whose leaves have no identity.


class _CycleError(Exception):
    """A container holds itself; carries its id."""


class _Flattener:
    def __init__(self, aliases: bool) -> None:
        self.flat = Flat()
        self._aliases = aliases
        self._seen: dict[int, int] = {}  # Numbers by id of what `flat` keeps alive.
        self._open: set[int] = set()

    def visit(self, names: Iterable[str], values: Iterable[Any]) -> list[int]:
        """Take apart what a container holds; return the numbers."""
        flat, plain = self.flat, leaves.PLAIN
        seen = self._seen if self._aliases else None
        count = len(flat.names)
        numbers = []
        for name, value in zip(names, values, strict=True):
            kind = plain.get(type(value))
            if kind is None:  # Rarer, and worth a second look.
                outer = containers.kind_of(value)
                if outer is None:
                    kind = leaves.kind_of(value)
                else:
                    number = self._container(value, name, outer)
                    count = len(flat.names)
                    if number is not None:
                        numbers.append(number)
                        continue
                    kind = "pickle"
            if seen is not None and (kind not in _VALUES or type(value) is set):
                number = seen.setdefault(id(value), count)
                if number != count:
                    numbers.append(number)
                    continue
            flat.names.append(name)
            flat.kinds.append(kind)
            flat.values.append(value)
            numbers.append(count)
            count += 1
        return numbers

    def _container(self, value: Any, name: str, kind: str) -> int | None:
        """Take a container apart; return its number, None if only pickle holds it."""
        identity = id(value)
        if identity in self._seen:
            return self._seen[identity]
        if identity in self._open:
            raise _CycleError(identity)
        sizes = len(self.flat.nodes), len(self.flat.names)
        self._open.add(identity)
        try:
            node, keys, children = containers.take_apart(value, kind)
            prefix = f"{name}/" if name else ""
            names = [prefix + (k if type(k) is str else part(k)) for k in keys]
            node.children = self.visit(names, children)
        except (_CycleError, scalars.NotScalarError) as error:
            if isinstance(error, _CycleError) and error.args[0] != identity:
                raise
            self._forget(*sizes)
            return None
        finally:
            self._open.discard(identity)
        self.flat.nodes.append(node)
        self.flat.containers.append(value)
        number = -len(self.flat.nodes)
        if self._aliases:
            self._seen[identity] = number
        return number

    def _forget(self, node_count: int, leaf_count: int) -> None:
        flat = self.flat
        del flat.nodes[node_count:], flat.containers[node_count:]
        del flat.names[leaf_count:], flat.kinds[leaf_count:], flat.values[leaf_count:]
        self._seen = {
            identity: number
            for identity, number in self._seen.items()
            if -node_count <= number < leaf_count
        }


# Leaves


Storages = list[list[np.ndarray]]  # Of each group of leaves; empty without bytes.
Owners = list[list[Any]]  # The immutable JAX arrays that these are the content of.


def encode(flat: Flat, key: str) -> tuple[Tree, Storages, Owners]:
    """Describe a flat state for the manifest and give the storages of its leaves.

    Args:
      flat: The state, which becomes part of the tree.
      key: The component's key, for errors.

    Returns:
      The tree, in which leaves of one form are together and have no place yet, their
      storages, those of larger alignment first, and the owners of these, None where
      there is none. Arrays inside pickles are leaves, too.

    Raises:
      StateError: a leaf cannot be saved.
    """
    encoder = _Encoder(flat, key)
    encoder.encode()
    return encoder.result()


# What NumPy arrays of one form have in common, and more, at the least cost.
_TRAITS = operator.attrgetter("dtype", "shape", "strides")
_ALIGNMENT = operator.attrgetter("alignment")


class _Group(Struct):
    """Leaves of one form, their numbers in the flat state, and their storages."""

    leaves: Leaves
    alignment: int
    numbers: list[int] = []
    storages: list[np.ndarray] = []


class _Encoder:
    def __init__(self, flat: Flat, key: str) -> None:
        self._flat = flat
        self._key = key
        self._names = flat.names
        if not "".join(flat.names).isascii():
            self._names = [display(name) for name in flat.names]
        self._count = len(flat.names)  # Arrays in pickles come after the others.
        self._groups: dict[Any, _Group] = {}
        self._pickled: list[int] = []
        self._arrays: dict[int, tuple[int, Any]] | None = None

    def encode(self) -> None:
        flat = self._flat
        arrays: dict[Any, list[int]] = {}
        plain, foreign, others = [], [], []
        for number, kind in enumerate(flat.kinds):
            value = flat.values[number]
            if kind == "numpy":
                traits = _TRAITS(value)
                numbers = arrays.get(traits)
                if numbers is None:
                    numbers = arrays[traits] = []
                numbers.append(number)
            elif kind == "python" and not leaves.is_long(value):
                plain.append(number)
            elif kind in leaves.ARRAYS:
                foreign.append(number)
            else:
                others.append(number)
        if foreign:
            self._add_foreign(foreign)
        for numbers in arrays.values():
            self._add_alike(numbers)
        if plain:
            self._add_scalars(plain)
        for number in others:
            self._add_any(number)
        for number in self._pickled:
            name = self._names[number]
            self._add(number, name, self._pickle(flat.values[number], name))

    def result(self) -> tuple[Tree, Storages, Owners]:
        """Number the leaves group by group, in the order of their alignment."""
        groups = sorted(self._groups.values(), key=_ALIGNMENT, reverse=True)
        order: list[int] = []
        for group in groups:
            order += group.numbers
        places = dict(zip(order, range(len(order)), strict=True))
        flat = self._flat
        for node in flat.nodes:
            node.children = [n if n < 0 else places[n] for n in node.children]
        if self._pickled:
            for group in groups:
                if group.leaves.kind == "pickle":
                    parts = group.leaves.value
                    group.leaves.value = [[places[n] for n in x] for x in parts]
        root = flat.root if flat.root < 0 else places[flat.root]
        tree = Tree(root, flat.nodes, [group.leaves for group in groups])
        storages = [group.storages for group in groups]
        return tree, storages, [self._owners(group) for group in groups]

    def _owners(self, group: _Group) -> list[Any]:
        """Return the JAX arrays of a group; those in pickles come after the state's."""
        if group.leaves.kind != "jax":
            return []
        values = self._flat.values
        return [values[n] if n < len(values) else None for n in group.numbers]

    def _add_foreign(self, numbers: Sequence[int]) -> None:
        """Add arrays of JAX and torch, if all of them can be saved."""
        kinds, values = self._flat.kinds, self._flat.values
        for number in numbers:
            self._check(values[number], self._names[number], kinds[number])
        on_device = [number for number in numbers if kinds[number] != "torch"]
        fetched: dict[int, np.ndarray] = {}
        if on_device:
            arrays = jax_arrays.fetch([values[number] for number in on_device])
            fetched = dict(zip(on_device, arrays, strict=True))
        for number in numbers:
            self._add_any(number, fetched.get(number))

    def _add_alike(self, numbers: Sequence[int]) -> None:
        """Add NumPy arrays that are alike: most leaves need no second look."""
        group = self._add_any(numbers[0])
        if len(numbers) == 1:
            return
        more = numbers[1:]
        if group is None or type(group.leaves.dtype) is not str:
            for number in more:
                self._add_any(number)
        else:
            arrays = [self._flat.values[number] for number in more]
            is_f = group.leaves.order == "F"
            group.storages.extend([x.T for x in arrays] if is_f else arrays)
            group.numbers.extend(more)
            group.leaves.names.extend([self._names[number] for number in more])

    def _add_scalars(self, numbers: Sequence[int]) -> None:
        try:
            values = scalars.encode_all([self._flat.values[n] for n in numbers])
        except scalars.NotScalarError:  # Some must be pickled.
            for number in numbers:
                self._add_any(number)
            return
        group = self._group(leaves.PYTHON, leaves.PYTHON, None)
        group.numbers.extend(numbers)
        group.leaves.value.extend(values)
        group.leaves.names.extend([self._names[number] for number in numbers])

    def _add_any(self, number: int, fetched: np.ndarray | None = None) -> _Group | None:
        """Add a leaf; return its group, or None if it is to be pickled later."""
        value, kind = self._flat.values[number], self._flat.kinds[number]
        try:
            encoded = leaves.encode(value, kind, fetched)
        except leaves.UnstorableError:
            self._pickled.append(number)
            return None
        return self._add(number, self._names[number], encoded)

    def _add(self, number: int, name: str, encoded: leaves.Encoded) -> _Group:
        form, storage, value = encoded
        # An element type that has parts cannot be hashed, so its leaves stay alone.
        key = number if type(form.dtype) is dict else form
        group = self._group(form, key, storage)
        group.numbers.append(number)
        group.leaves.names.append(name)
        if storage is not None:
            group.storages.append(storage)
        if form.kind in OWN_VALUE:
            group.leaves.value.append(value)
        return group

    def _group(self, form: leaves.Form, key: Any, storage: np.ndarray | None) -> _Group:
        group = self._groups.get(key)
        if group is None:
            described = Leaves(
                kind=form.kind,
                dtype=form.dtype,
                shape=form.shape,
                order=form.order,
                value=[] if form.kind in OWN_VALUE else form.value,
                names=[],
            )
            alignment = 0 if storage is None else storage.dtype.alignment
            group = self._groups[key] = _Group(described, alignment)
        return group

    def _check(self, value: Any, name: str, kind: str) -> None:
        problem = leaves.problem(value, kind)
        if problem is not None:
            raise StateError(f"{full_name(self._key, name)} {problem}.")

    def _pickle(self, value: Any, name: str) -> leaves.Encoded:
        parts: dict[int, int] = {}  # Leaf number to position among the parts.

        def out_of_band(item: Any) -> int | None:
            number = self._array(item, f"{name}/{len(parts)}")
            return None if number is None else parts.setdefault(number, len(parts))

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
        return leaves.encode_pickle(payload, list(parts))

    def _array(self, value: Any, name: str) -> int | None:
        """Make an array met in a pickle a leaf; return its number, or None."""
        kind = leaves.kind_of(value)
        if kind not in leaves.ARRAYS:
            return None
        if self._arrays is None:
            self._arrays = self._state_arrays()
        if id(value) in self._arrays:
            return self._arrays[id(value)][0]
        self._check(value, name, kind)
        fetched = None
        if kind == "jax" or kind == "key":
            (fetched,) = jax_arrays.fetch([value])
        try:
            encoded = leaves.encode(value, kind, fetched)
        except leaves.UnstorableError:
            return None
        number = self._count
        self._count += 1
        self._arrays[id(value)] = number, value  # Which keeps the id from others.
        self._add(number, name, encoded)
        return number

    def _state_arrays(self) -> dict[int, tuple[int, Any]]:
        """Return number and value of the state's arrays, by id."""
        flat, pickled = self._flat, set(self._pickled)
        return {
            id(value): (number, value)
            for number, value in enumerate(flat.values)
            if flat.kinds[number] in leaves.ARRAYS and number not in pickled
        }


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


def leaf_names(tree: Tree) -> list[str]:
    """Return the name of each leaf, by number."""
    return [name for group in tree.leaves for name in group.names]


def names(tree: Tree) -> list[tuple[str, int]]:
    """Return name and number of each leaf, an aliased leaf once for each place.

    Raises:
      MismatchError: there are too many places.
      ValueError, IndexError: the structure is not one that `flatten` makes.
    """
    places = sum(len(node.children) for node in tree.nodes) + 1
    found = leaf_names(tree)
    hidden = parts_of_pickles(tree)
    if places == len(found) - len(hidden) + len(tree.nodes):
        numbered = zip(found, itertools.count(), strict=False)
        return [(name, number) for name, number in numbered if number not in hidden]
    return [(name, number) for name, number in _walk(tree) if number >= 0]


def parts_of_pickles(tree: Tree) -> set[int]:
    """Return the numbers of the leaves that are parts of a pickled one."""
    pickles = (group for group in tree.leaves if group.kind == "pickle")
    return {n for group in pickles for parts in group.value for n in parts}


def numbered(tree: Tree) -> Iterator[tuple[int, Leaves]]:
    """Yield the number of the first leaf of each group, and the group."""
    number = 0
    for group in tree.leaves:
        yield number, group
        number += len(group.names)


def pick(tree: Tree, numbers: Iterable[int]) -> list[tuple[int, Leaves]]:
    """Return some leaves in groups, with the number of the first of each group.

    Raises:
      IndexError, ValueError, TypeError, KeyError: the tree has no such leaf.
    """
    wanted = sorted(set(numbers))
    if wanted and wanted[0] < 0:
        raise IndexError("a leaf has a negative number")
    picked = []
    position = 0
    for first, group in numbered(tree):
        end = bisect.bisect_left(wanted, first + len(group.names), position)
        if end - position == len(group.names):
            picked.append((first, group))
        else:
            picked += _runs(first, group, wanted[position:end])
        position = end
    if position < len(wanted):
        raise IndexError("there is no leaf with this number")
    return picked


def _runs(
    first: int, group: Leaves, wanted: Sequence[int]
) -> Iterator[tuple[int, Leaves]]:
    """Yield leaves of a group in groups of those that follow each other."""
    for _, run in itertools.groupby(enumerate(wanted), lambda x: x[1] - x[0]):
        numbers = [number for _, number in run]
        start, stop = numbers[0] - first, numbers[-1] - first + 1
        yield numbers[0], leaves.part(group, start, stop)


def numbers_in(picked: Iterable[tuple[int, Leaves]]) -> Iterator[int]:
    """Yield the numbers of the leaves in groups that come with their first number."""
    for first, group in picked:
        yield from range(first, first + len(group.names))


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
    left = 1_000_000 + 10 * sum(len(group.names) for group in tree.leaves)
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

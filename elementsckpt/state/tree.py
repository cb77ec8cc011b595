"""Nested state ⇄ structure and named leaves.

A structure is a list of containers in which children come first, so
neither reading nor building it recurses, and nothing in a file can be cyclic.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from msgspec import Struct, structs

from ..errors import MismatchError, StateError
from ..format import scalars
from ..format.manifest import Leaves, Node, Tree, display
from ..kinds import leaves
from ..kinds.code_kinds import OBJECT
from ..kinds.kind import Kind, Spec
from ..user import attributes
from . import containers


class Flat(Struct):
    """A state taken apart, its leaves still objects.

    Attributes:
      root: Number of the outermost container or leaf, as in `manifest.Node`.
      nodes: Containers, children first.
      containers: The containers themselves.
      names: Names of the leaves.
      kinds: Kinds of the leaves.
      values: The leaves.
      in_code: Numbers of the leaves to which code is bound, which a save may lack.
    """

    root: int = 0
    nodes: list[Node] = []
    containers: list[Any] = []
    names: list[str] = []
    kinds: list[Kind] = []
    values: list[Any] = []
    in_code: set[int] = set()

    def object_at(self, number: int) -> Any:
        """Return the leaf or the container of this number."""
        return self.values[number] if number >= 0 else self.containers[-number - 1]

    def spec(self, number: int) -> Spec:
        """Return what a leaf must have in common with one that takes its place."""
        return self.kinds[number].spec(self.values[number])

    def others(self, number: int) -> Mapping[str, Any] | None:
        """Return what a container has beside what it holds; None if it takes nothing.

        That is for states whose attributes were not taken apart.
        """
        if self.nodes[number].kind not in containers.LOOSE:
            return None
        value = self.containers[number]
        return attributes.own(value) if attributes.takes(value) else None

    def close(
        self, number: int, children: list[Any], others: Mapping[str, Any] | None = None
    ) -> Any:
        """Return a container like this one that holds something else.

        Args:
          number: Its position in `containers`.
          children: What it holds.
          others: Its attributes beside that; None for those of this one.
        """
        old = self.containers[number]
        new = containers.put_together(self.nodes[number], children, type(old))
        attributes.give(new, self.others(number) or {} if others is None else others)
        return new


class Apart(Struct):
    """A state, and what a save holds of it besides.

    Attributes:
      state: The state.
      skeleton: As in `manifest.Component`.
      check: Gets the component's key, and the state as it is in the manifest.
    """

    state: Any
    skeleton: str | None
    check: Callable[[str, Tree], None]


def flatten(
    state: Any, key: str, *, aliases: bool = True, by_name: bool = False
) -> Flat:
    """Take a state apart.

    Args:
      state: What a component's `save()` returned.
      key: The component's key, for errors.
      aliases: Whether an object met twice becomes one leaf or container. Without,
        each place has leaves of its own, and so names of its own.
      by_name: Whether only leaves are wanted that can be selected by their names:
        those in attributes of containers cannot.

    Raises:
      StateError: the state is nested too deeply.
    """
    flattener = _Flattener(aliases and not by_name, loose=not by_name)
    try:
        (flattener.flat.root,) = flattener.visit([""], [state])
    except RecursionError as error:
        raise StateError(
            f"The state of {key!r} is nested too deeply to be saved. Return a flatter "
            f"state from save(), for example lists instead of linked objects."
        ) from error
    return flattener.flat


class _CycleError(Exception):
    """A container holds itself; carries its id."""


class _Flattener:
    def __init__(self, aliases: bool, *, loose: bool) -> None:
        self.flat = Flat()
        self._aliases = aliases
        self._loose = loose  # Whether attributes are taken apart, too.
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
                    kind = OBJECT
            if seen is not None and (not kind.is_value or type(value) is set):
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
            if self._loose and kind in containers.LOOSE:
                others = containers.attributes_of(value)
                node.attributes = containers.encode_keys([*others])
                names += [f"{prefix}.{name}" for name in others]
                children = [*children, *others.values()]
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


_NOTHING: Mapping[int, Any] = {}
_HOLDERS = frozenset({"pickle", "view"})  # Kinds whose leaves are made of others.


def leaf_names(tree: Tree) -> list[str]:
    """Return the name of each leaf, by number."""
    return [name for group in tree.leaves for name in group.names]


_PLACE_BYTES = 64  # Of memory, besides its name.


class Allowance(Struct):
    """How many bytes the names of places in a save may still take."""

    left: int = 64 << 20

    def spend(self, name: str) -> None:
        """Take note of a name.

        Raises:
          MismatchError: there are too many, or too long ones.
        """
        self.left -= _PLACE_BYTES + len(name)
        if self.left < 0:
            raise MismatchError(
                "the same containers appear in too many places, or too deep ones, for "
                "their leaves to be selected by name. Load it whole, without regex=; "
                "nothing was loaded."
            )


def names(tree: Tree, allowance: Allowance) -> list[tuple[str, int]]:
    """Return the name and number of each leaf, an aliased leaf once for each place.

    Args:
      tree: The tree.
      allowance: What the names may cost.

    Raises:
      MismatchError: there are too many places; the message goes on after a place.
      ValueError, IndexError: the structure is not one that `flatten` makes.
    """
    places = sum(len(node.children) for node in tree.nodes) + 1
    found = leaf_names(tree)
    without = hidden(tree)
    if places == len(found) - len(without) + len(tree.nodes):
        numbered = zip(found, itertools.count(), strict=False)
        return [(name, number) for name, number in numbered if number not in without]
    walk = _walk(tree, allowance)
    return [(name, number) for name, number in walk if number >= 0]


def hidden(tree: Tree) -> set[int]:
    """Return the numbers of the leaves that have no place by which to select them.

    They are parts of pickled ones, memory of views, or in attributes of containers.
    """
    odd = any(group.kind in _HOLDERS for group in tree.leaves)
    if not odd and not any(node.attributes for node in tree.nodes):
        return set()
    placed = {tree.root}
    for number, node in enumerate(reversed(tree.nodes), -len(tree.nodes)):
        if number in placed:
            placed.update(node.children[: _held(node)])
    return {*range(sum(len(group.names) for group in tree.leaves))} - placed


def _held(node: Node) -> int:
    """Return how many of a node's children are what it holds, before attributes."""
    return len(node.children) - len(node.attributes)


def held_elsewhere(tree: Tree) -> set[int]:
    """Return the numbers of the leaves that pickles, or attributes, are made of."""
    holding = [part for parts in _parts_by_pickle(tree).values() for part in parts]
    for node in tree.nodes if any(node.attributes for node in tree.nodes) else ():
        holding += node.children[_held(node) :]
    return {number for number in needed(tree, holding) if number >= 0}


def attributes_of(node: Node) -> dict[str, int]:
    """Return the numbers of a node's attributes, by name."""
    last = node.children[_held(node) :]
    return dict(zip(scalars.texts(node.attributes), last, strict=True))


def has_pickles(tree: Tree) -> bool:
    """Tell whether some leaves are pickled."""
    return any(group.kind == "pickle" for group in tree.leaves)


def _parts_by_pickle(tree: Tree) -> dict[int, Sequence[int]]:
    """Return the parts of each pickled leaf: numbers of leaves and containers."""
    return {
        first + index: parts
        for first, group in numbered(tree)
        if group.kind == "pickle"
        for index, parts in enumerate(group.value)
    }


def pickled_names(tree: Tree) -> list[str]:
    """Return the names of the leaves that are pickled."""
    pickles = _parts_by_pickle(tree)
    if not pickles:
        return []
    placed = {tree.root, *(child for node in tree.nodes for child in node.children)}
    names = leaf_names(tree)
    return [names[number] for number in pickles if number in placed]


def needed(tree: Tree, numbers: Iterable[int]) -> list[int]:
    """Return what leaves are made from and they themselves, each after what it needs.

    That is more than the leaves where they are pickled: other leaves, and containers.

    Raises:
      ValueError: one is made from itself.
      IndexError: there is no such container.
    """
    pickles = _parts_by_pickle(tree)
    begun: set[int] = set()
    done: dict[int, None] = {}
    stack = list(numbers)
    if not pickles and min(stack, default=0) >= 0:  # Mostly, so at once.
        return list(dict.fromkeys(stack))
    while stack:
        number = stack[-1]
        if number in begun:
            stack.pop()
            done[number] = None
            continue
        begun.add(number)
        is_leaf = number >= 0
        parts = pickles.get(number, ()) if is_leaf else tree.nodes[~number].children
        below = [part for part in parts if part not in done]
        if not begun.isdisjoint(below):
            raise ValueError("a pickle is made from itself")
        stack += below
    return list(done)


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


def all_names(tree: Tree, allowance: Allowance) -> Iterator[tuple[str, int]]:
    """Yield the names of leaves in all places, attributes too, as far as allowed."""
    with contextlib.suppress(MismatchError):
        walk = _walk(tree, allowance, attributes=True)
        yield from ((name, number) for name, number in walk if number >= 0)


def container_names(tree: Tree, allowance: Allowance) -> dict[int, str]:
    """Return the first name of each container by its number, as far as allowed."""
    found: dict[int, str] = {}
    with contextlib.suppress(MismatchError):
        for name, number in _walk(tree, allowance, attributes=True):
            if number < 0:
                found.setdefault(number, name)
    return found


def _walk(
    tree: Tree, allowance: Allowance, *, attributes: bool = False
) -> Iterator[tuple[str, int]]:
    """Yield name and number of containers and leaves, in attributes, too, if asked."""
    # Containers that hold others twice double the places at each level.
    listed = leaf_names(tree)
    allowance.left += 10 * (sum(map(len, listed)) + _PLACE_BYTES * len(listed))
    stack = [("", tree.root)]
    while stack:
        name, number = stack.pop()
        yield display(name), number
        if number >= 0:
            continue
        node = tree.nodes[-number - 1]
        prefix = f"{name}/" if name else ""
        names = list(map(part, containers.child_keys(node)))
        names += [f".{name}" for name in scalars.texts(node.attributes)]
        pairs = list(zip(names, node.children, strict=True))
        for below, child in reversed(pairs if attributes else pairs[: _held(node)]):
            if child < 0 and child <= number:
                raise ValueError("a container comes before what it holds")
            allowance.spend(prefix + below)
            stack.append((prefix + below, child))


class Place(NamedTuple):
    """Where a leaf, or a container without children, is in a tree.

    Attributes:
      number: Its number, as in `manifest.Node`.
      nodes: The containers around it, the outermost first, and its own if it is one,
        without their attributes.
      keys: Its key, field name or position in each that is around it.
      others: The attributes of each of `nodes`, as numbers by name.
    """

    number: int
    nodes: tuple[Node, ...]
    keys: tuple[Any, ...]
    others: tuple[Mapping[str, int], ...]


def places(tree: Tree, allowance: Allowance) -> Iterator[tuple[str, Place]]:
    """Yield name and place of each leaf and each container without children.

    Raises:
      MismatchError: there are too many, as for `names`.
      ValueError, IndexError: the structure is not one that `flatten` makes.
    """
    listed = leaf_names(tree)
    allowance.left += 10 * (sum(map(len, listed)) + _PLACE_BYTES * len(listed))
    stack: list[tuple[str, Place]] = [("", Place(tree.root, (), (), ()))]
    while stack:
        name, (number, nodes, keys, others) = stack.pop()
        if number < 0:
            node = tree.nodes[-number - 1]
            held = node.children[: _held(node)]
            nodes = (*nodes, structs.replace(node, children=held, attributes=[]))
            others = (*others, attributes_of(node))
        if number >= 0 or not nodes[-1].children:
            yield display(name), Place(number, nodes, keys, others)
            continue
        node, prefix = nodes[-1], f"{name}/" if name else ""
        pairs = list(zip(containers.child_keys(node), node.children, strict=True))
        for key, child in reversed(pairs):
            if child < 0 and child <= number:
                raise ValueError("a container comes before what it holds")
            below = prefix + part(key)
            allowance.spend(below)
            stack.append((below, Place(child, nodes, (*keys, key), others)))


def unflatten(
    root: int,
    nodes: Sequence[Node],
    values: Sequence[Any],
    find_class: Callable[[int, Node], type | None],
    made: Mapping[int, Any] = _NOTHING,
) -> Any:
    """Put a state together.

    Args:
      root: As in `Flat`.
      nodes: Containers, children first.
      values: The leaves.
      find_class: Returns the class for a node of kind namedtuple, dataclass or
        frozen, or None to make a dict of it.
      made: Containers that are there already, by their numbers.

    Raises:
      ValueError, TypeError, KeyError, IndexError: `nodes` are not what `flatten` makes.
    """
    check(nodes)
    built = dict(made)
    for number in range(len(nodes)):
        if ~number not in built:
            built[~number] = put(nodes, number, values, built, find_class)
    return values[root] if root >= 0 else built[root]


def put(
    nodes: Sequence[Node],
    index: int,
    values: Any,
    made: Mapping[int, Any],
    find_class: Callable[[int, Node], type | None],
) -> Any:
    """Put one container together.

    Args:
      nodes: Containers.
      index: Which of them.
      values: Its leaves, by number.
      made: Its containers, by their numbers.
      find_class: As for `unflatten`.
    """
    node = nodes[index]
    children = [values[n] if n >= 0 else made[n] for n in node.children]
    cls = find_class(index, node) if node.kind in containers.NAMED else None
    return containers.put_together(node, children, cls)


def unflatten_some(root: int, nodes: Sequence[Node], values: Mapping[int, Any]) -> Any:
    """Put together the part of a state that holds some of its leaves.

    Args:
      root: As in `Flat`.
      nodes: Containers, children first.
      values: The leaves, by number.

    Returns:
      Nested dicts, and the sequences that are whole; a sequence that is not becomes a
      dict by position. None without any leaf. Attributes of containers are left out.
    """
    check(nodes)
    built: dict[int, Any] = dict(values)
    for number, node in enumerate(nodes):
        keys = containers.child_keys(node)
        pairs = zip(keys, node.children[: _held(node)], strict=True)
        there = [(key, built[child]) for key, child in pairs if child in built]
        if not there:
            continue
        items = scalars.table([key for key, _ in there], [value for _, value in there])
        whole = len(items) == len(keys)
        if whole and node.kind not in containers.NAMED:
            bare = structs.replace(node, attributes=[])
            built[-number - 1] = containers.put_together(
                bare, list(items.values()), None
            )
        else:
            built[-number - 1] = items
    return built.get(root)


LEFT_OUT: Any = object()  # Where there is nothing of a state.


def unflatten_rest(root: int, nodes: Sequence[Node], values: Mapping[int, Any]) -> Any:
    """Put a state together without some of its leaves.

    Args:
      root: As in `Flat`.
      nodes: Containers, children first.
      values: The leaves that there are, by number.

    Returns:
      The state, without classes: what is lacking is absent from mappings, and None in
      sequences, in which the other items keep their places. `LEFT_OUT` if it is a leaf
      that is lacking.
    """
    check(nodes)
    built: dict[int, Any] = dict(values)
    for number, node in enumerate(nodes):
        held = node.children[: _held(node)]
        keys, names = node.keys, node.attributes
        others = node.children[len(held) :]
        if keys:
            keys, held = _there(keys, held, built)
        names, others = _there(names, others, built)
        children = [*held, *others]
        bare = structs.replace(node, keys=keys, children=children, attributes=names)
        items = [built.get(child) for child in children]
        built[-number - 1] = containers.put_together(bare, items, None)
    return built.get(root, LEFT_OUT)


def _there(
    keys: list[Any], children: list[int], built: Mapping[int, Any]
) -> tuple[list[Any], list[int]]:
    """Return the children that there are, with their keys."""
    pairs = zip(keys, children, strict=True)
    there = [(key, child) for key, child in pairs if child in built]
    return [key for key, _ in there], [child for _, child in there]


def check(nodes: Sequence[Node]) -> None:
    """Refuse structures that `flatten` does not make, and that would do harm.

    Raises:
      ValueError: they hold more generators than states of these, or nest containers
        so deeply that freeing them would overflow the stack.
    """
    states: set[int] = set()
    levels: dict[int, int] = {}
    for number, node in enumerate(nodes, 1):
        if node.kind in containers.RANDOM:
            inner = {child for child in node.children if child < 0}
            if states & inner:
                raise ValueError("two generators share their state")
            states |= inner
        elif node.kind in containers.FRAGILE:
            level = 1 + max((levels.get(n, 0) for n in node.children), default=0)
            if level > _MOST_LEVELS:
                raise ValueError(f"a {node.kind} nested more than {_MOST_LEVELS} times")
            levels[-number] = level


_MOST_LEVELS = 1000  # Python saves none that is deeper.

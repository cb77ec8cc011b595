"""A flattened state: containers that refer to their children, and named leaves.

The containers are a list in which children come first. So neither reading nor building
it recurses, and nothing in a file can be cyclic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from msgspec import Struct

from ..errors import StateError
from ..format import scalars
from ..format.manifest import Node, Tree
from ..kinds import leaves
from ..kinds.kind import Kind, Spec
from ..kinds.python_kinds import OBJECT
from ..kinds.ring import Ring
from ..user import attributes
from . import containers, saved_tree
from .same_names import Keys


class Flat(Struct):
    """A flattened state, whose leaves are still objects.

    Attributes:
      root: Number of the outermost container or leaf, as in `manifest.Node`.
      nodes: Containers, children first.
      containers: The containers themselves.
      names: Names of the leaves.
      kinds: Kinds of the leaves.
      values: The leaves.
      in_code: Numbers of the leaves that code is bound to, which a save may lack.
      rings: What was given as a `Ring`, by the id of its array, which is in `values`.
    """

    root: int = 0
    nodes: list[Node] = []
    containers: list[Any] = []
    names: list[str] = []
    kinds: list[Kind] = []
    values: list[Any] = []
    in_code: set[int] = set()
    rings: dict[int, Ring] = {}

    def object_at(self, number: int) -> Any:
        """Return the leaf or the container of this number."""
        return self.values[number] if number >= 0 else self.containers[-number - 1]

    def spec(self, number: int) -> Spec:
        """Return the spec of a leaf."""
        return self.kinds[number].spec(self.values[number])

    def others(self, number: int) -> Mapping[str, Any] | None:
        """Return the attributes of a container; None if it cannot have attributes.

        This is for states that were flattened without their attributes.
        """
        if self.nodes[number].kind not in containers.WITH_ATTRIBUTES:
            return None
        value = self.containers[number]
        return attributes.own(value) if attributes.takes(value) else None

    def keys(self) -> list[Keys]:
        """Return the keys that lead to each leaf; it must have one place only."""
        found: list[Keys] = [()] * len(self.names)
        stack: list[tuple[int, Keys]] = [(self.root, ())]
        while stack:
            number, keys = stack.pop()
            if number >= 0:
                found[number] = keys
                continue
            pairs = zip(
                self.keys_in(~number), self.nodes[~number].children, strict=True
            )
            stack += [(child, (*keys, *key)) for key, child in pairs]
        return found

    def keys_in(self, number: int) -> list[Keys]:
        """Return what leads from a container to each of its children."""
        return [(key,) for key in containers.child_keys(self.nodes[number])]

    def rebuild(
        self, number: int, children: list[Any], others: Mapping[str, Any] | None = None
    ) -> Any:
        """Return a container like this one with other children.

        Args:
          number: Its position in `containers`.
          children: The new children.
          others: The new attributes; None for those of this one.
        """
        old = self.containers[number]
        new = containers.put_together(self.nodes[number], children, type(old))
        attributes.give(new, self.others(number) or {} if others is None else others)
        return new


class ValueState(Struct):
    """The state of a value, and what else a save needs.

    Attributes:
      state: The state.
      skeleton: As in `manifest.Component`.
      check: Gets the component's key and its tree in the manifest, and logs warnings.
    """

    state: Any
    skeleton: str | None
    check: Callable[[str, Tree], None]


def flatten(
    state: Any, key: str, *, aliases: bool = True, by_name: bool = False
) -> Flat:
    """Flatten a state.

    Args:
      state: The result of a component's `save()`.
      key: The component's key, for errors.
      aliases: Whether an object met twice becomes one leaf or container. If not, each
        place has its own leaves, with their own names.
      by_name: Whether to take only leaves that can be selected by name: not those in
        attributes of containers.

    Raises:
      StateError: the state is nested too deeply.
    """
    flattener = _Flattener(aliases and not by_name, with_attributes=not by_name)
    try:
        (flattener.flat.root,) = flattener.visit([""], [state])
    except RecursionError as error:
        raise StateError(
            f"The state of {key!r} is nested too deeply to be saved. Return a flatter "
            f"state from save(), for example lists instead of linked objects."
        ) from error
    return flattener.flat


def is_one(kind: Kind, value: Any) -> bool:
    """Return whether a leaf matters as an object, which may have several places."""
    return not kind.is_value or type(value) is set


class _CycleError(Exception):
    """A container holds itself; carries its id."""


class _Flattener:
    def __init__(self, aliases: bool, *, with_attributes: bool) -> None:
        self.flat = Flat()
        self._aliases = aliases
        self._with_attributes = with_attributes
        self._seen: dict[int, int] = {}  # Numbers by id of objects that `flat` holds.
        self._open: set[int] = set()

    def visit(self, names: Iterable[str], values: Iterable[Any]) -> list[int]:
        """Flatten the children of a container; return their numbers."""
        flat, plain = self.flat, leaves.PLAIN
        seen = self._seen if self._aliases else None
        count = len(flat.names)
        numbers = []
        for name, value in zip(names, values, strict=True):
            kind = plain.get(type(value))
            if kind is None:  # Not a builtin leaf.
                outer = containers.kind_of(value)
                if outer is None:
                    if type(value) is Ring:
                        flat.rings[id(value.array)], value = value, value.array
                    kind = leaves.kind_of(value)
                else:
                    number = self._container(value, name, outer)
                    count = len(flat.names)
                    if number is not None:
                        numbers.append(number)
                        continue
                    kind = OBJECT
            if seen is not None and is_one(kind, value):
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
        """Flatten a container; return its number, or None if only pickle holds it."""
        identity = id(value)
        if identity in self._seen:
            return self._seen[identity]
        if identity in self._open:
            raise _CycleError(identity)
        sizes = len(self.flat.nodes), len(self.flat.names)
        self._open.add(identity)
        try:
            node, keys, children = containers.take_apart(value, kind)
            names = saved_tree.names_below(name, keys)
            if self._with_attributes and kind in containers.WITH_ATTRIBUTES:
                others = containers.attributes_of(value)
                node.attributes = containers.encode_keys([*others])
                names += saved_tree.names_below(name, [f".{other}" for other in others])
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

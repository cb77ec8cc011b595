"""A pytree → builtin containers, which any save can hold."""

from __future__ import annotations

import collections
import functools
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct

from ..errors import StateError
from ..kinds import jax_arrays, leaves
from ..user import attributes
from . import callables, pytree_nodes, pytrees, static_parts

_ABSTRACT = (
    ", a shape without elements: load something into it, or set the value to arrays, "
    "before it is saved"
)


Keys = Mapping[str, tuple[str, tuple[int, ...]]]


class Plain(Struct):
    """A tree as builtin containers, for a save.

    Args:
      keys: Generator and shape of typed keys, by the names of leaves that may be the
        data of such keys.

    Attributes:
      state: The tree as nested dicts, lists and the like, with the same leaves.
      is_whole: Whether `state` is all of the tree: it has no classes, static fields or
        code.
      outline: A description of its structure, to compare with others.
      names: Names of the leaves in the order of the state, and of random generators,
        which stay containers.
      code: Names and objects of code in it.
      static: Containers that have static parts: name, container, and opened container.
      unsaved: Names of containers, and of their attributes that are not saved although
        they are not code.
    """

    keys: Keys
    state: Any = None
    is_whole: bool = True
    outline: list[Any] = []
    names: list[str] = []
    code: list[tuple[str, Any]] = []
    static: list[tuple[str, Any, pytree_nodes.Opened]] = []
    unsaved: list[tuple[str, list[str]]] = []

    def static_parts(self) -> Iterator[tuple[str, list[Any]]]:
        """Yield names, and the code and arrays in static parts of that name.

        Raises:
          StateError: a module of Flax in it is bound to its variables.
        """
        for name, value, opened in self.static:
            for attribute, parts in static_parts.static_parts(value, opened).items():
                path = "/".join(filter(None, (name, attribute)))
                _refuse(path, static_parts.problem(parts))
                yield path, parts

    def visit(self, names: Iterable[str], values: Iterable[Any]) -> list[Any]:
        """Return the children of a container as builtin containers and leaves."""
        found, leaf_names, keys = [], self.names, self.keys
        for name, value in zip(names, values, strict=True):
            opened = None
            if type(value) not in leaves.PLAIN:
                opened = pytrees.open_node(value, by_name=False)
                if opened is None and leaves.kind_of(value).is_abstract:
                    _refuse(name, f"is {value}{_ABSTRACT}")
            if opened is not None and not opened.is_random:
                found.append(self._container(name, value, opened))
                continue
            leaf_names.append(name)
            if name in keys:
                value = jax_arrays.as_keys(value, *keys[name])
            found.append(value)
        return found

    def _container(self, name: str, value: Any, opened: pytree_nodes.Opened) -> Any:
        children = self.visit(pytrees.names_in(name, opened), opened.children)
        others = opened.others or {}
        entry = type(value), opened.keys, len(self.names), opened.static
        self.outline.append((*entry, [*others]))
        if opened.is_storable:
            return opened.rebuilt(children)
        self.is_whole = False
        left = [str(x) for x, item in opened.rest.items() if not callable(item)]
        if left:
            self.unsaved.append((name, left))
        if opened.is_code or isinstance(value, functools.partial):
            _refuse(name, static_parts.problem([value, *callables.wrapped(value)]))
            self.code.append((name, value))
        elif opened.static is not None:
            self.static.append((name, value, opened))
        if opened.keys is None:
            return children[0]
        items = zip(opened.keys, children, strict=True)
        if not others:
            return dict(items)
        carrier = collections.OrderedDict(items)  # A dict takes no attributes.
        attributes.give(carrier, others)
        return carrier


def plain(value: Any, keys: Keys = types.MappingProxyType({})) -> Plain:
    """Return a tree as builtin containers.

    Args:
      value: The tree.
      keys: As in `Plain`.

    Raises:
      StateError: a leaf has a shape and no elements, or a module of Flax is bound to
        its variables.
    """
    made = Plain(keys)
    (made.state,) = made.visit([""], [value])
    return made


def _refuse(name: str, problem: str | None) -> None:
    if problem is not None:
        raise StateError(f"{name or 'The value'} {problem}.")

"""Parts of a tree that a save does not have: code and static fields.

The program that resumes makes them again, so that is right for all except arrays, which
only the run has. A class that declares NumPy arrays or numbers as static fields
declares them as constants. Arrays of JAX in static fields are mistakes, as JAX cannot
compare them.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

from ..kinds import leaves
from ..kinds.python_kinds import FUNCTION
from ..user import attributes
from . import callables, pytree_nodes, pytrees

_DEPTH = 2  # How deep to look into nested objects and closures.

# Code and arrays, by the name of the attribute that has them.
Parts = dict[str, list[Any]]


def static_parts(value: Any, opened: pytree_nodes.Opened) -> Parts:
    """Return code and arrays in the static parts of a container, as far as visible."""
    own = attributes.own(value)
    if not hasattr(opened.static, "node_data"):
        fields = attributes.get(type(value), "__dataclass_fields__") or ()
        static = (own.keys() & fields) - set(opened.keys or ())
        return _by_attribute(own, [own[x] for x in own if x in static | {*opened.rest}])
    _, held = opened.static.node_data()  # JAX knows the static part.
    return _by_attribute(own, own.values() if held is value else [held])


def static_parts_of_nnx(value: Any) -> Parts:
    """Return code that is static in an object of Flax NNX, by path."""
    nnx: Any = sys.modules["flax.nnx"]
    return {
        "/".join(map(str, path)): [node]
        for path, node in nnx.iter_graph(value)
        if callable(node)
        and not callables.is_nnx(node)
        and not isinstance(node, nnx.Variable)
    }


def _by_attribute(own: dict[Any, Any], held: Iterable[Any]) -> Parts:
    names = {id(value): str(name) for name, value in own.items()}
    found: Parts = {}
    for name, part in _walk("", held, names, set()):
        found.setdefault(name, []).append(part)
    return found


def _walk(
    name: str, values: Iterable[Any], names: dict[int, str], seen: set[int]
) -> Iterator[tuple[str, Any]]:
    """Yield code and misplaced arrays, with the attribute that has them."""
    for value in values:
        kind = leaves.PLAIN.get(type(value))
        is_plain = kind is not None and not kind.is_foreign
        if is_plain or issubclass(type(value), type) or id(value) in seen:
            continue
        seen.add(id(value))
        inner = name or names.get(id(value), "")
        content = None if callables.is_code(value) else _content(value)
        if content is not None:
            yield from _walk(inner, content, names, seen)
        elif _is_called(value) or leaves.kind_of(value).is_foreign:
            yield inner, value


def _content(value: Any) -> Any:
    """Return the content of a container or a tree, None for anything else."""
    cls: Any = type(value)
    for base in (dict, list, tuple):
        if issubclass(cls, base):
            return base.values(value) if base is dict else base.__iter__(value)
    is_dataclass = attributes.get(cls, "__dataclass_fields__") is not None
    if (is_dataclass and not callable(value)) or pytrees.is_registered(value):
        return attributes.own(value).values()
    return None


def _is_called(value: Any) -> bool:
    """Return whether the value is callable, and not only as a decorator.

    Meshes of JAX are callable only as decorators.
    """
    is_decorator = issubclass(type(value), contextlib.ContextDecorator)
    return callable(value) and not is_decorator


def problem(parts: Iterable[Any]) -> str | None:
    """Return why a tree with these static parts cannot be saved, or None."""
    found = map(callables.problem, _nested(parts, set()))
    return next(filter(None, found), None)


def arrays_in_static(parts: Iterable[Any]) -> list[str]:
    """Return where static parts hold arrays; "" for a part that is an array."""
    parts = list(parts)
    found = [] if all(map(callable, parts)) else [""]
    return list(dict.fromkeys([*found, *_arrays_in(parts)]))


def arrays_in_code(code: Any) -> list[str]:
    """Return where code holds arrays that are not leaves of the tree."""
    if _is_stateless(code):
        return []
    is_partial = attributes.is_instance(code, functools.partial)
    if is_partial and pytrees.is_registered(code):
        return list(dict.fromkeys(_arrays_in([code.func])))
    opened = pytrees.open_node(code, by_name=True)
    is_open = opened is not None and bool(opened.children)
    found = [*_directly_in(code, with_attributes=not is_open)]
    # Bound objects that hold arrays are opened as a part of the tree.
    bound = callables.bound(code).parts
    rest = [x for x in bound if not pytrees.holds_arrays(x)] + callables.wrapped(code)
    objects = (x for x in rest if not callable(x))
    if is_open and any(map(_is_seen_to_hold_arrays, objects)):
        found.append(callables.ARGUMENT)
    return list(dict.fromkeys([*found, *_arrays_in(rest)]))


def _arrays_in(parts: Iterable[Any]) -> Iterator[str]:
    """Yield where code in static parts holds arrays."""
    for code in _nested(parts, set()):
        if callables.problem(code) is not None:
            yield "a module of Flax that is bound to its variables"
        else:
            yield from _directly_in(code, with_attributes=True)


def _nested(parts: Iterable[Any], seen: set[int]) -> Iterator[Any]:
    """Yield code in static parts, and code that it is bound to."""
    for _, part in _walk("", parts, {}, seen):
        if callable(part) and not _is_stateless(part):
            yield part
            bound = callables.bound(part).parts
            yield from _nested([*bound, *callables.wrapped(part)], seen)


def _directly_in(code: Any, *, with_attributes: bool) -> Iterator[str]:
    found = callables.hidden(code, with_attributes=with_attributes)
    return (what for what, part in found.items() if _is_seen_to_hold_arrays(part))


def _is_stateless(code: Any) -> bool:
    """Return whether code has no state of the run.

    This holds for code that can be imported, and by contract for functions of Optax.
    """
    module = attributes.text(code, "__module__").partition(".")[0]
    return module == "optax" or leaves.kind_of(code) is FUNCTION


def _is_seen_to_hold_arrays(value: Any, depth: int = _DEPTH) -> bool:
    """Return whether a tree, an object or code holds arrays, as far as visible."""
    try:
        if pytrees.holds_arrays(value):
            return True
    except Exception:  # Unsaved objects need not be trees.
        return False
    if not depth or isinstance(value, type | types.ModuleType):
        return False
    parts: Iterable[Any]
    if type(value) in (list, tuple):
        parts = value
    elif not callables.is_code(value):
        parts = attributes.own(value).values()
    elif _is_stateless(value):
        return False
    else:
        parts = callables.hidden(value, with_attributes=True).values()
    return any(_is_seen_to_hold_arrays(part, depth - 1) for part in parts)

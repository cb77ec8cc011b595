"""Functions, their closures, bound methods and partial functions.

Code is never saved: a function is the live one, or another of the same code that the
live environment reaches. The walk that loads is asked what may be called, as a save
could name any function.
"""

from __future__ import annotations

import functools
import hashlib
import types
from typing import Any

from . import objects
from .instances import HERE, Instances, fill_attributes, pair_attributes
from .node import MISSING, Code, Loading, Node, NodeKind, Saving, require


@functools.lru_cache(maxsize=4096)
def digest(code: types.CodeType) -> str:
    """Return what functions have in common whose code is the same."""
    return hashlib.sha256(repr(_outline(code)).encode()).hexdigest()[:16]


def _outline(code: types.CodeType) -> Any:
    names = code.co_names, code.co_varnames, code.co_freevars
    return code.co_code, names, list(map(_constant, code.co_consts))


def _constant(value: Any) -> Any:
    if isinstance(value, types.CodeType):
        return _outline(value)
    return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)


class Functions(NodeKind):
    """Functions that no module has, such as those made by others.

    ["function", [name, code, cells, defaults, defaults of keywords], None, attributes]
    """

    def save(self, walk: Saving, number: int, value: Any) -> Node:
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        content = [
            objects.name_of(value),
            digest(value.__code__),
            [walk.code(cell, number, f"<{name}>") for name, cell in cells],
            walk.code(value.__defaults__, number, "__defaults__"),
            walk.code(value.__kwdefaults__, number, "__kwdefaults__"),
        ]
        return ["function", content, None, walk.attributes(value, number)]

    def pair(self, walk: Loading, number: int, node: Node, live: Any) -> None:
        name, code, cells, _, _ = content = node[1]
        like = self._like(walk, number, name, code, live)
        own = MISSING
        if like is live and walk.fits(live, types.FunctionType):
            own = live
            walk.reserve(live)
        now = [] if own is MISSING else list(own.__closure__ or ())
        for i, cell in enumerate(cells):
            there = now[i] if i < len(now) else MISSING
            content[2][i] = walk.visit(cell, there, number, f"<{i}>")
        for i, step in ((3, "__defaults__"), (4, "__kwdefaults__")):
            there = getattr(own, step, MISSING)
            content[i] = walk.visit(content[i], there, number, step)
        pair_attributes(walk, number, node[3], own)
        walk.pend(number, (own, like))

    def _like(self, walk: Loading, number: int, name: str, code: str, live: Any) -> Any:
        """Return a live function of the same name and code, or None."""
        is_named = type(live) is types.FunctionType and objects.name_of(live) == name
        if is_named and digest(live.__code__) == code:
            return live
        found = walk.function(name, code)
        if found is None and is_named:
            walk.problem(number, f"{name} is another function here")
        elif found is None:
            walk.problem(number, f"the function {name} is not here; {HERE}")
        return found

    def needs(self, node: Node) -> list[Code]:
        return [*node[1][2], *node[1][3:]]

    def build(self, walk: Loading, number: int, node: Node, context: Any) -> Any:
        own, like = context
        cells = tuple(map(walk.value, node[1][2]))
        defaults, keywords = map(walk.value, node[1][3:])
        now = MISSING if own is MISSING else own.__closure__ or ()
        # Cells are compared by their content, and two may have the same.
        if now is not MISSING and [*map(id, now)] == [*map(id, cells)]:
            return own
        if like is None:
            return None
        made = types.FunctionType(
            like.__code__, like.__globals__, like.__name__, defaults, cells
        )
        made.__kwdefaults__ = keywords
        made.__qualname__, made.__module__ = like.__qualname__, like.__module__
        made.__doc__, made.__annotations__ = like.__doc__, like.__annotations__
        return made

    def verify(self, walk: Loading, number: int, node: Node) -> None:
        if walk.value([number]) is not None:
            require(walk, node[1][3], tuple, type(None))
            require(walk, node[1][4], dict, type(None))

    def fill(self, walk: Loading, number: int, node: Node) -> None:
        function = walk.targets[number]
        function.__defaults__, function.__kwdefaults__ = map(walk.value, node[1][3:])
        fill_attributes(walk, function, node[3])


class Cells(NodeKind):
    """Cells of closures, which functions share: ["cell"] or ["cell", content]."""

    def save(self, walk: Saving, number: int, value: Any) -> Node:
        content = _content(value)
        if content is MISSING:
            return ["cell"]
        return ["cell", walk.code(content, number, "cell_contents")]

    def pair(self, walk: Loading, number: int, node: Node, live: Any) -> None:
        now = MISSING
        if walk.fits(live, types.CellType):
            walk.claim(number, live)
            now = _content(live)
        else:
            walk.targets[number] = types.CellType()
        if len(node) > 1:
            node[1] = walk.visit(node[1], now, number, "cell_contents")

    def fill(self, walk: Loading, number: int, node: Node) -> None:
        cell = walk.targets[number]
        if len(node) > 1:
            cell.cell_contents = walk.value(node[1])
        elif _content(cell) is not MISSING:
            del cell.cell_contents


def _content(cell: types.CellType) -> Any:
    """Return the content of a cell; MISSING if it is still empty."""
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


class Methods(NodeKind):
    """Bound methods: ["method", owner, name, function if the class has another]."""

    def save(self, walk: Saving, number: int, value: Any) -> Node:
        owner, function = value.__self__, value.__func__
        name = getattr(function, "__name__", "")
        is_found = _of_class(owner, name) is function
        return [
            "method",
            walk.code(owner, number, "__self__"),
            name,
            None if is_found else walk.code(function, number, "__func__"),
        ]

    def pair(self, walk: Loading, number: int, node: Node, live: Any) -> None:
        is_method = type(live) is types.MethodType
        owner, function = (
            (live.__self__, live.__func__) if is_method else (MISSING, MISSING)
        )
        node[1] = walk.visit(node[1], owner, number, "__self__")
        node[3] = walk.visit(node[3], function, number, "__func__")
        walk.pend(number, live if is_method else MISSING)

    def needs(self, node: Node) -> list[Code]:
        return [node[1], node[3]]

    def build(self, walk: Loading, number: int, node: Node, context: Any) -> Any:
        owner, function = walk.value(node[1]), walk.value(node[3])
        if function is None:
            function = _of_class(owner, node[2])
        is_here = context is not MISSING and context.__self__ is owner
        if is_here and context.__func__ is function:
            return context
        if not callable(function):
            walk.problem(number, f"there is no method {node[2]}() here")
            return None
        walk.require_trust(number, function)
        return types.MethodType(function, owner)

    def verify(self, walk: Loading, number: int, node: Node) -> None:
        if walk.value([number]) is None:  # It would be built without being checked.
            raise ValueError("a method of what is hashed")


def _of_class(owner: Any, name: str) -> Any:
    """Return the function that is bound to an object under this name."""
    cls = owner if isinstance(owner, type) else type(owner)
    for base in cls.__mro__:
        if name in base.__dict__:
            found = base.__dict__[name]
            return found.__func__ if isinstance(found, classmethod) else found
    return None


_DESCRIPTORS = (
    *(types.MethodDescriptorType, types.WrapperDescriptorType),
    *(types.ClassMethodDescriptorType, types.BuiltinFunctionType),
)


class BuiltinMethods(NodeKind):
    """Methods of C, bound to an object: ["bound", owner, name]."""

    def save(self, walk: Saving, number: int, value: Any) -> Node:
        return ["bound", walk.code(value.__self__, number, "__self__"), value.__name__]

    def pair(self, walk: Loading, number: int, node: Node, live: Any) -> None:
        is_one = type(live) in BUILTIN_METHODS
        now = live.__self__ if is_one else MISSING
        node[1] = walk.visit(node[1], now, number, "__self__")
        walk.pend(number, live if is_one else MISSING)

    def needs(self, node: Node) -> list[Code]:
        return [node[1]]

    def build(self, walk: Loading, number: int, node: Node, context: Any) -> Any:
        owner, name = walk.value(node[1]), node[2]
        is_here = context is not MISSING and context.__self__ is owner
        if is_here and context.__name__ == name:
            return context
        found = _of_class(owner, name)
        if type(found) not in _DESCRIPTORS and "cython" not in type(found).__name__:
            walk.problem(number, f"there is no method {name}() here")
            return None
        return found.__get__(owner, type(owner))


BUILTIN_METHODS = (types.BuiltinFunctionType, types.MethodWrapperType)


class Partials(Instances):
    """Partial functions: [function, arguments, keywords]."""

    def content(self, walk: Saving, number: int, value: Any) -> Any:
        return [
            walk.code(value.func, number, "func"),
            walk.code(value.args, number, "args"),
            walk.code(value.keywords, number, "keywords"),
        ]

    def choose(self, walk: Loading, number: int, cls: type | None, live: Any) -> Any:
        if cls is not None and not walk.fits(live, cls):
            walk.targets[number] = functools.partial.__new__(cls, int)
            return MISSING
        return super().choose(walk, number, cls, live)

    def pair_content(self, walk: Loading, number: int, node: Node, live: Any) -> None:
        for i, step in enumerate(("func", "args", "keywords")):
            there = getattr(live, step, MISSING)
            node[1][i] = walk.visit(node[1][i], there, number, step)

    def verify(self, walk: Loading, number: int, node: Node) -> None:
        function, given, keywords = node[1]
        if type(function) is not list or not callable(walk.value(function) or int):
            raise ValueError("a partial function of nothing")
        if type(given) is not list or walk.value(given) is not None:
            require(walk, given, tuple)
        require(walk, keywords, dict)

    def put(self, walk: Loading, target: Any, content: Any) -> None:
        function, given, keywords = map(walk.value, content)
        if function is None or given is None:  # They are made later.
            return
        now = target.func, target.args, target.keywords
        if all(x is y for x, y in zip(now, (function, given, keywords), strict=True)):
            return
        _set_partial(target, (function, given, keywords, None))


_set_partial: Any = functools.partial.__dict__["__setstate__"]

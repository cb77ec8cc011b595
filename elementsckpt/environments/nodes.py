"""Which kind of node an object becomes, by its type; what has no kind is refused."""

from __future__ import annotations

import _random
import collections
import enum
import functools
import io
import sys
import types
import weakref
from typing import Any

import numpy as np

from ..kinds import generators, references
from ..kinds import leaves as leaf_kinds
from . import (
    arrays,
    callables,
    constants,
    containers,
    instances,
    leaves,
    links,
    live,
    objects,
    randoms,
)
from .families import Parts, Refused
from .foreign_worlds import REMEDY
from .node import Node, NodeKind, Saving

_BASES: dict[type, NodeKind] = {
    object: live.Plain("object", object),
    types.SimpleNamespace: instances.Instances("namespace", types.SimpleNamespace),
    list: containers.Sequence("list", list),
    tuple: containers.Frozen("tuple", tuple),
    set: containers.Set("set", set),
    frozenset: containers.FrozenSet("frozenset", frozenset),
    dict: containers.Mapping("dict", dict),
    collections.OrderedDict: containers.Mapping("ordered", collections.OrderedDict),
    collections.defaultdict: containers.Default("default", collections.defaultdict),
    collections.deque: containers.Deque("deque", collections.deque),
    bytearray: containers.Bytes("bytearray", bytearray),
    _random.Random: instances.Randoms("random", _random.Random),
    functools.partial: callables.Partials("partial", functools.partial),
    weakref.ref: links.WeakReferences("weakref", weakref.ref),
    np.ndarray: arrays.Arrays("array", np.ndarray),
}
_NAMED, _LEFT, _LEAF = live.Named(), live.LeftAlone(), leaves.Leaves()
_ENUM, _PART, _LOCK = live.Enums(), leaves.Families("part", object), live.Locks()
_FUNCTION, _BOUND = callables.Functions(), callables.BuiltinMethods()
_VIEW, _PROXY = links.Views(), links.Proxies()


class Functions(NodeKind):
    """Functions in Python: those of modules, and others."""

    def save(self, walk: Saving, number: int, value: Any) -> Node:
        is_named = live.name_of(value) is not None
        return (_NAMED if is_named else _FUNCTION).save(walk, number, value)


class Builtins(NodeKind):
    """Functions in C: those of modules, and those bound to an object."""

    def save(self, walk: Saving, number: int, value: Any) -> Node:
        is_named = live.name_of(value) is not None
        return (_NAMED if is_named else _BOUND).save(walk, number, value)


class ReadOnly(NodeKind):
    """Read-only views of dicts: those of classes, which are code, and others."""

    def save(self, walk: Saving, number: int, value: Any) -> Node:
        is_code = "__module__" in value and "__dict__" in value
        return (_NAMED if is_code else _VIEW).save(walk, number, value)


class Opaque(NodeKind):
    """Objects whose state is not in Python: functions, such as JAX's, or refused."""

    def save(self, walk: Saving, number: int, value: Any) -> Node:
        is_wrapper = isinstance(getattr(value, "__wrapped__", None), types.FunctionType)
        has_cache = isinstance(value, _CACHING) and value.cache_info().currsize
        if has_cache and live.name_of(value) is None:
            raise Refused("a function whose cache, of functools, is not in Python")
        if callable(value) and (is_wrapper or live.name_of(value) is not None):
            return _NAMED.save(walk, number, value)
        remedy = REMEDY if _is_of_bullet(type(value)) else None
        raise Refused(reason(value), remedy=remedy)


_CACHING = type(functools.cache(abs))
_OPAQUE = Opaque()
_EXACT: dict[type, NodeKind] = {
    types.FunctionType: Functions(),
    types.BuiltinFunctionType: Builtins(),
    types.MethodWrapperType: _BOUND,
    types.MethodType: callables.Methods(),
    types.CellType: callables.Cells(),
    types.MappingProxyType: ReadOnly(),
    np.random.Generator: randoms.Generators(),
    np.random.RandomState: randoms.RandomStates(),
    np.random.SeedSequence: randoms.Seeds(),
    np.ufunc: _NAMED,
    **dict.fromkeys(weakref.ProxyTypes, _PROXY),
    **dict.fromkeys(links.VIEWS, _VIEW),
    **dict.fromkeys(live.LOCKS, _LOCK),
    **{getattr(np.random, x): randoms.Bits() for x in generators.NAMES},
}
BY_NAME: dict[str, NodeKind] = {
    **{kind.name: kind for kind in _BASES.values()},  # type: ignore[attr-defined]
    "named": _BASES[object],
    "place": _BASES[np.ndarray],
    "objects": _BASES[np.ndarray],
    "function": _FUNCTION,
    "bound": _BOUND,
    "method": _EXACT[types.MethodType],
    "cell": _EXACT[types.CellType],
    "generator": _EXACT[np.random.Generator],
    "randomstate": _EXACT[np.random.RandomState],
    "bits": _EXACT[np.random.PCG64],
    "seed": _EXACT[np.random.SeedSequence],
    "proxy": _PROXY,
    "of dict": _VIEW,
    "lock": _LOCK,
    "enum": _ENUM,
    "live": _NAMED,
    "left": _LEFT,
    "part": _PART,
    "leaf": _LEAF,
}
_ARRAYS = frozenset({"jax", "jaxlib", "torch"})
# Objects in Python that stand for something outside of it, and what they are.
_OUTSIDE = {
    "socket:socket": "a socket",
    "threading:Thread": "a thread",
    "multiprocessing.process:BaseProcess": "a process",
    "multiprocessing.connection:_ConnectionBase": "a connection to another process",
    "subprocess:Popen": "a process",
    "ctypes:CDLL": "a library in C",
}


def kind_of(cls: type, parts: Parts) -> NodeKind:
    """Return the kind of node that objects of a class become."""
    try:
        return _LEFT if parts.find(cls) is None else _PART
    except KeyError:
        pass
    if cls in _EXACT:
        return _EXACT[cls]
    if issubclass(cls, enum.Enum):
        return _ENUM
    module = objects.module_of(cls)
    if issubclass(cls, live.TYPES) or module == "typing":
        return _NAMED
    if module.partition(".")[0] in _ARRAYS:
        return _Arrays()
    return _of_layout(cls)


def _of_layout(cls: type) -> NodeKind:
    known = objects.layout(cls)
    is_builtin = known.base is object and objects.module_of(cls) == "builtins"
    if known.is_hidden or (is_builtin and cls is not object) or _outside(cls):
        return _OPAQUE
    return _BASES[known.base]


class _Arrays(NodeKind):
    """Objects of JAX and torch: arrays, or others."""

    def save(self, walk: Saving, number: int, value: Any) -> Node:
        kind = leaf_kinds.kind_of(value)
        is_leaf = not kind.is_code and kind.name != "python"
        return (_LEAF if is_leaf else _of_layout(type(value))).save(walk, number, value)


def _outside(cls: Any) -> str | None:
    """Return what an object stands for that is outside of Python, or None."""
    if _is_of_bullet(cls):
        return f"{objects.shown(cls)}, whose world PyBullet holds"
    if _has_library(cls):
        return f"{objects.shown(cls)}, of a module that calls a library in C"
    return _standing_for(cls)


@functools.cache
def _standing_for(cls: Any) -> str | None:
    """Return the same by the bases of a class, which it had when it was made."""
    if issubclass(cls, io.IOBase):
        return "an open file"
    for path, what in _OUTSIDE.items():
        found = references.find(path)
        if found is not None and issubclass(cls, found):
            return what
    return None


def _is_of_bullet(cls: type) -> bool:
    """Return whether a class uses PyBullet, which holds worlds under integers."""
    bullet = sys.modules.get("pybullet")
    return bullet is not None and _mentions(cls, bullet)


def _has_library(cls: type) -> bool:
    """Return whether a class is of a module that has loaded a library with ctypes.

    Its objects may hold what is in C under an integer, as emulators do.
    """
    module = objects.module_of(cls)
    loading = sys.modules.get("ctypes")
    if loading is None or module.partition(".")[0] in constants.FOREIGN:
        return False
    found = list(vars(sys.modules.get(module, types)).values())
    return any(isinstance(value, loading.CDLL) for value in found)


def _mentions(cls: type, module: Any) -> bool:
    """Return whether a module is a global of the module that has a class."""
    home = sys.modules.get(objects.module_of(cls))
    return (
        any(found is module for found in list(vars(home).values())) if home else False
    )


def reason(value: Any) -> str:
    """Return what an object is that cannot be saved, to follow "is"."""
    cls = type(value)
    what = _outside(cls)
    if isinstance(value, io.IOBase):
        return f"an open file ({getattr(value, 'name', '?')!r})"
    if what is not None:
        return what
    if isinstance(value, types.GeneratorType):
        return f"a generator that is running ({value.__qualname__})"
    if hasattr(cls, "__next__"):
        return f"an iterator ({cls.__qualname__})"
    return f"{objects.shown(cls)}, whose state is not in Python"

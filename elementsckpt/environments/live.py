"""What stays the live one: code, modules, locks; and members of enumerations."""

from __future__ import annotations

import _thread
import abc
import enum
import logging
import threading
import types
from typing import Any

from ..kinds import references
from . import callables, objects
from .families import Refused
from .instances import HERE, Instances, there
from .node import MISSING, Loading, Node, NodeKind, Saving

LOCKS: dict[type, Any] = {
    type(_thread.allocate_lock()): _thread.allocate_lock,
    type(threading.RLock()): threading.RLock,
}
# Types whose objects are code, or belong to it.
TYPES: tuple[type, ...] = (
    *(types.ModuleType, types.CodeType, types.GenericAlias, types.UnionType),
    *(types.MethodDescriptorType, types.WrapperDescriptorType, property, classmethod),
    *(types.ClassMethodDescriptorType, types.GetSetDescriptorType, staticmethod),
    *(types.MemberDescriptorType, logging.Logger, type),
    type(getattr(abc.ABC, "_abc_impl")),  # noqa: B009
)


def name_of(value: Any) -> str | None:
    """Return the name under which code is found; None for others."""
    if isinstance(value, types.ModuleType):
        return f"{value.__name__}:"
    name = objects.name_of(value)
    if name.startswith("?:"):  # A ufunc of older versions of NumPy.
        name = f"{objects.module_of(type(value))}{name[1:]}"
    return name if references.find(name) is value else None


def _description(value: Any) -> str:
    """Return what tells code apart that is not found by a name."""
    if isinstance(value, logging.Logger):
        return f"~{value.name}"
    function = getattr(value, "__wrapped__", None)
    code = getattr(function, "__code__", None)
    return f"~{objects.name_of(value)}{callables.digest(code) if code else ''}"


class Named(NodeKind):
    """Classes, modules, and functions that their modules have: ["live", name, type].

    What has no name has one that begins with "~", and has to be there.
    """

    def save(self, walk: Saving, number: int, value: Any) -> Node:
        name = name_of(value) or _description(value)
        return ["live", name, objects.name_of(type(value))]

    def pair(self, walk: Loading, number: int, node: Node, live: Any) -> None:
        _, name, kind = node
        is_alike = live is not MISSING and objects.name_of(type(live)) == kind
        if is_alike and name == (name_of(live) or _description(live)):
            walk.targets[number] = live
            return
        walk.targets[number] = found = walk.named(name)
        if found is None:
            what = name.lstrip("~").replace(":", ".").strip(".")
            walk.problem(number, f"{what} was saved, {there(live)}; {HERE}")


class Plain(Instances):
    """Objects of classes; one without attributes may be one that a module has.

    Such as what stands for a value that is not there: ["named", name, class].
    """

    def save(self, walk: Saving, number: int, value: Any) -> Node:
        if number and not objects.of(value).attributes(value):
            name = walk.global_name(value)
            if name is not None:
                return ["named", name, walk.cls(type(value))]
        return super().save(walk, number, value)

    def pair(self, walk: Loading, number: int, node: Node, live: Any) -> None:
        if node[0] == "named":
            cls, found = walk.cls(node[2], live), references.find(node[1])
            is_one = cls is not None and type(found) is cls
            if is_one and not objects.of(found).attributes(found):
                walk.targets[number] = found
                return
            node[:] = "object", None, node[2], {}
        super().pair(walk, number, node, live)

    def fill(self, walk: Loading, number: int, node: Node) -> None:
        if node[0] != "named":
            super().fill(walk, number, node)


class Locks(NodeKind):
    """Locks, which are free between steps: ["lock", number of its type]."""

    def save(self, walk: Saving, number: int, value: Any) -> Node:
        # To acquire it would be to hold it for ever if an interrupt came then. Before
        # Python 3.14, an RLock says only in its text whether another thread holds it.
        if repr(value).startswith("<locked "):
            raise Refused("a lock that is held: a step is under way", remedy=BETWEEN)
        return ["lock", list(LOCKS).index(type(value))]

    def pair(self, walk: Loading, number: int, node: Node, live: Any) -> None:
        cls = list(LOCKS)[node[1]]
        if walk.fits(live, cls):
            walk.claim(number, live)
        else:
            walk.targets[number] = LOCKS[cls]()


BETWEEN = "Save between two steps."


class Enums(NodeKind):
    """Members of enumerations: ["enum", name, value, class]."""

    def save(self, walk: Saving, number: int, value: Any) -> Node:
        cls: Any = type(value)
        if value.name in cls._member_map_:
            return ["enum", value.name, None, walk.cls(cls)]
        return ["enum", None, value.value, walk.cls(cls)]  # Flags that are combined.

    def pair(self, walk: Loading, number: int, node: Node, live: Any) -> None:
        _, name, value, index = node
        cls: Any = walk.cls(index, live)
        if cls is None:
            return
        if not issubclass(cls, enum.Enum):
            raise ValueError("a member of a class that is not an enumeration")
        if name is None and issubclass(cls, enum.Flag) and type(value) is int:
            walk.targets[number] = cls(value)
        elif type(name) is str and name in cls._member_map_:
            walk.targets[number] = cls._member_map_[name]
        else:
            walk.problem(number, f"{objects.name_of(cls)} has no member {name} here")


class LeftAlone(NodeKind):
    """What parts leave alone: the live object stays, or its absence; ["left"]."""

    def save(self, walk: Saving, number: int, value: Any) -> Node:
        return ["left"]

    def pair(self, walk: Loading, number: int, node: Node, live: Any) -> None:
        walk.targets[number] = live

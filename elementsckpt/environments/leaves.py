"""Arrays of JAX and torch, which are leaves; and the data of parts, which is plain."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..kinds import leaves
from . import objects
from .families import Refused, Unfit
from .instances import Instances, fill_attributes, not_here, pair_attributes
from .node import MISSING, Loading, Node, NodeKind, Saving


class Leaves(NodeKind):
    """["leaf", leaf]; torch's are filled in place, JAX's never change."""

    def save(self, walk: Saving, number: int, value: Any) -> Node:
        return ["leaf", walk.leaf(number, value)]

    def pair(self, walk: Loading, number: int, node: Node, live: Any) -> None:
        node[1] = walk.leaf(node[1])
        cls = type(node[1])
        is_alike = walk.fits(live, cls) and hasattr(live, "copy_")
        if is_alike and (live.shape, live.dtype, live.device) == (
            *(node[1].shape, node[1].dtype, node[1].device),
        ):
            walk.claim(number, live)
        else:
            walk.targets[number] = node[1]

    def fill(self, walk: Loading, number: int, node: Node) -> None:
        target = walk.targets[number]
        if target is not node[1]:
            target.detach().copy_(node[1].detach())


class Families(Instances):
    """What parts save: ["part", leaf, class, attributes or None]."""

    def save(self, walk: Saving, number: int, value: Any) -> Node:
        part: Any = walk.parts.find(type(value))
        data = part.save(value, *walk.parts.extra(part))
        require_plain(data)
        attributes = None
        if part.attributes:
            attributes = walk.attributes(value, number, part.skipped)
        return ["part", walk.leaf(number, data), walk.cls(type(value)), attributes]

    def pair(self, walk: Loading, number: int, node: Node, live: Any) -> None:
        _, name, index, attributes = node
        cls, data = walk.cls(index, live), walk.leaf(name)
        if cls is None:
            return
        part: Any = walk.parts.find(cls)
        if walk.fits(live, cls) and not _is_to_be_made(part, live, data):
            walk.claim(number, live)
            walk.use(number, part, live, data)
        elif part.make is not None:
            walk.targets[number] = part.make(data)
            live = MISSING
        else:
            walk.problem(number, not_here(cls, live))
            live = MISSING
        if attributes is not None:
            pair_attributes(walk, number, attributes, live)
            if live is not MISSING:
                own = objects.layout(cls).attributes(live)
                for skipped in part.skipped & own.keys():
                    attributes[skipped] = walk.keep(own[skipped])

    def fill(self, walk: Loading, number: int, node: Node) -> None:
        if node[3] is not None:
            fill_attributes(walk, walk.targets[number], node[3])


def _is_to_be_made(part: Any, live: Any, data: Any) -> bool:
    """Return whether a live object is a value of another form, such as size."""
    if part.make is None or part.check is None:
        return False
    try:
        part.check(live, data)
    except Unfit:
        return True
    return False


def require_plain(data: Any) -> None:
    """Refuse data of a part that only pickle holds.

    Raises:
      Refused: there is some.
    """
    todo, seen = [data], set()
    while todo:
        value = todo.pop()
        if type(value) in (dict, list, tuple):
            if id(value) in seen:
                continue
            seen.add(id(value))
            is_dict = type(value) is dict
            todo += value.values() if is_dict else value
            if is_dict and not {*map(type, value)} <= {str}:
                raise Refused("saved as a dict whose keys are not all text")
        elif type(value) is np.ndarray and value.dtype.hasobject:
            raise Refused("saved as an array of objects")
        else:
            kind = leaves.kind_of(value)
            if kind.is_code or type(value) in (set, frozenset):
                raise Refused(f"saved as {objects.shown(type(value))}")

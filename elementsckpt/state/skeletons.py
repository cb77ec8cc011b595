"""The skeleton of a tree ⇄ text: its classes, static fields and functions.

It is a pickle of the tree with placeholders for the leaves, so reading it can run any
code. Only a value without a template needs it.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from ..errors import reason
from ..kinds import leaves, pickles
from ..user import attributes
from . import pytree_nodes, pytrees

_MOST_BYTES = 4 << 20  # It is in the manifest, which all readers read.
# Size of an array in a static field, or that a function closes over.
_MOST_ARRAY_BYTES = 64 << 10


class _Place(Struct, frozen=True, eq=False):
    """Stands for a leaf."""

    number: int


def dump(value: Any) -> tuple[str, str]:
    """Return the skeleton of a tree and "", or "" and why there is none.

    Objects with an import path, also in the program itself, are stored by this path.
    There is no skeleton if it would be too large, or would need data of the program.

    Args:
      value: The tree.
    """
    try:
        skeleton = _skeleton(value, itertools.count())
        payload = pickles.dump(skeleton, _number, by_path=True)
    except Exception as error:  # The classes in it may raise anything.
        return "", reason(error)
    if len(payload) > _MOST_BYTES:
        return "", f"they take {len(payload):,} bytes"
    return base64.b64encode(payload).decode(), ""


def _skeleton(value: Any, numbers: Iterator[int]) -> Any:
    opened = pytrees.open_node(value, by_name=False)
    if opened is None or opened.is_random:
        return _Place(next(numbers))
    children = [_skeleton(child, numbers) for child in opened.children]
    others = {name: _Place(next(numbers)) for name in opened.others or ()}
    return opened.rebuilt(children, others)


def _number(item: Any) -> int | None:
    """Return the number of a placeholder; None for parts of the skeleton."""
    if type(item) is _Place:
        return item.number
    size = getattr(item, "nbytes", 0) if leaves.kind_of(item).is_array else 0
    if size > _MOST_ARRAY_BYTES:
        raise ValueError(f"they hold an array of {size:,} bytes, which is not a leaf")
    return None


def load(skeleton: str, state: Any) -> Any:
    """Return the tree of a skeleton and of the state that `plain` made from the tree.

    Raises:
      Exception: the code in it may raise anything.
    """
    values = list(_leaves(state))
    return pickles.load(base64.b64decode(skeleton, validate=True), values)


def _leaves(state: Any) -> Iterator[Any]:
    """Yield the leaves of a state in its order, with random generators as leaves.

    Attributes of a container come after its children, each as one leaf.
    """
    stack = [(state, False)]
    while stack:
        value, is_whole = stack.pop()
        if is_whole or type(value) not in pytree_nodes.OPENERS:
            yield value
            continue
        children = type(value).values(value) if isinstance(value, dict) else value
        below = [(child, False) for child in children]
        below += [(other, True) for other in attributes.own(value).values()]
        stack.extend(reversed(below))

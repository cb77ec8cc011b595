"""Leaves in the memory of other leaves ⇄ arrays.

Each group of leaves comes with the number of its first leaf.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import structs

from ..format import dtypes
from ..format.manifest import Block, LeafGroup, Tree
from ..kinds import leaves, views
from ..kinds.kind import Encoded, Form
from ..kinds.numpy_kinds import is_strings
from ..kinds.views import Grid, View
from . import saved_tree

Groups = Sequence[tuple[int, LeafGroup]]


def encode(array: np.ndarray, view: View) -> Encoded:
    """Describe an array in the memory of the leaf numbered `view.base`."""
    form = Form("view", dtypes.encode(array.dtype), array.shape)
    return form, None, [view.base, view.offset, view.strides]


def pairs(groups: Iterable[tuple[int, LeafGroup]]) -> Iterator[tuple[int, int]]:
    """Yield the numbers of views and of their bases."""
    for first, group in groups:
        if group.kind == "view":
            for number, (base, *_) in enumerate(group.value, first):
                yield number, base


def _grids(groups: Groups) -> Iterator[tuple[int, int, int, Grid]]:
    """Yield number, base, offset and grid of each view."""
    for first, group in groups:
        if group.kind == "view":
            dtype = dtypes.decode(group.dtype)
            numbers = range(first, first + len(group.names))
            for number, own in zip(numbers, group.value, strict=True):
                base, offset, strides = own
                yield number, base, offset, Grid(dtype, group.shape, tuple(strides))


def restore(groups: Groups, values: Any) -> None:
    """Make views of decoded arrays.

    Args:
      groups: Entries in the manifest.
      values: Decoded leaves by number. This sets the views, and may copy their bases.

    Raises:
      ValueError, TypeError, KeyError, IndexError: the views in the manifest are not
        valid.
    """
    wanted: dict[int, dict[int, tuple[int, Grid]]] = {}
    for number, base, offset, grid in _grids(groups):
        wanted.setdefault(base, {})[number] = offset, grid
    if not wanted:
        return
    arrays = [(n, x) for n, x in groups if x.kind == "numpy" and not is_strings(x)]
    if not wanted.keys() <= {*saved_tree.numbers_in(arrays)}:
        raise ValueError("a view of a leaf that has no plain array")
    for base, places in wanted.items():
        values[base], made = views.restore(values[base], list(places.values()))
        for number, array in zip(places, made, strict=True):
            values[number] = array


# Views among some leaves


def with_bases(saved: Tree, groups: Groups, blocks: Sequence[Block]) -> Groups:
    """Return groups of leaves, with the bases of the views among them.

    A base that is not in the groups is narrowed to the blocks that hold the views, as
    an array of bytes.

    Args:
      saved: The tree of the leaves.
      groups: The leaves.
      blocks: The blocks of the component.

    Raises:
      ValueError, TypeError, KeyError, IndexError: the views in the manifest are not
        valid.
    """
    given = {*saved_tree.numbers_in(groups)}
    reaches: dict[int, list[int]] = {}
    for _, base, offset, grid in _grids(groups):
        if base not in given:
            reaches.setdefault(base, []).extend(offset + end for end in grid.reach)
    if not reaches:
        return groups
    begins: dict[int, int] = {}
    bases: list[tuple[int, LeafGroup]] = []
    for first, group in saved_tree.pick(saved, reaches):
        for index in range(len(group.names)):
            number, leaf = first + index, leaves.part(group, index, index + 1)
            low, high = min(reaches[number]), max(reaches[number])
            begins[number], narrowed = _narrow(leaf, low, high, blocks)
            bases.append((number, narrowed))
    return [*((first, _moved(group, begins)) for first, group in groups), *bases]


def _narrow(
    leaf: LeafGroup, low: int, high: int, blocks: Sequence[Block]
) -> tuple[int, LeafGroup]:
    """Return the blocks of an array that hold a range of its bytes, as an array.

    Returns:
      Where in the bytes of the leaf the array begins, and the array; 0 and the leaf if
      it has no blocks of its own.
    """
    size = leaves.layout_of(leaf)[2]
    if leaf.kind != "numpy" or is_strings(leaf) or leaf.offset:
        return 0, leaf
    if leaf.block < 0 or not 0 <= low < high <= size:  # `views.restore` refuses it.
        return 0, leaf
    begin, end, first = 0, 0, leaf.block
    for number in itertools.count(first):
        if end <= low:
            begin, first = end, number
        if end >= high:
            break
        end += blocks[number].content_size
    if end > size:  # Other leaves are in the block, too.
        return 0, leaf
    part = structs.replace(
        leaf, dtype="|u1", shape=(end - begin,), order="C", block=first
    )
    return begin, part


def _moved(group: LeafGroup, begins: Mapping[int, int]) -> LeafGroup:
    """Return a group of views, with offsets into narrowed bases."""
    if group.kind != "view":
        return group
    value = [
        [base, at - begins.get(base, 0), strides] for base, at, strides in group.value
    ]
    return structs.replace(group, value=value)

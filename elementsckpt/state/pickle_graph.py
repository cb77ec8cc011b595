"""One pickle and the objects that it refers to, and which of these are in circles."""

from __future__ import annotations

import contextlib
import graphlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from ..kinds.kind import Encoded
from .flattening import Flat


class Unit(Struct, eq=False):
    """The content of one pickle: a leaf, or a list of objects that several leaves hold.

    Attributes:
      number: Its number.
      name: Its name.
      value: The leaf, or the list of objects.
      holders: The leaves that hold it, one bit for each.
      payload: The pickle.
      positions: The things that it refers to, with their positions among its parts:
        numbers, and arrays that have no number yet.
      places: Indices of the objects in the list, by identity.
      containers: Numbers of the containers that it may refer to; None for all that are
        not in circles.
    """

    number: int
    name: str
    value: Any
    holders: int
    payload: bytes = b""
    positions: dict[Any, int] = {}
    places: dict[int, int] = {}
    containers: frozenset[int] | None = None

    def numbers(self) -> list[int]:
        """Return the numbers of the leaves and containers that it refers to."""
        return [thing for thing in self.positions if isinstance(thing, int)]

    def may_refer_to(self, number: int) -> bool:
        # An object that is pickled again may be pickled differently, and then refer to
        # other containers, maybe in circles.
        return number >= 0 or self.containers is None or number in self.containers

    def narrow(self, unit: Unit) -> None:
        """Allow references only to containers that the other unit may refer to, too."""
        if self.containers is None:
            self.containers = unit.containers
        elif unit.containers is not None and self.containers != unit.containers:
            self.containers &= unit.containers

    def position(self, thing: Any) -> int:
        return self.positions.setdefault(thing, len(self.positions))

    def place(self, item: Any) -> int:
        if id(item) not in self.places:
            self.places[id(item)] = len(self.value)
            self.value.append(item)
        return self.places[id(item)]


class Array(Struct, eq=False):
    """An array in a pickle; while this holds the array, its id stays unique."""

    value: Any
    name: str
    encoded: Encoded | None = None  # None for NumPy arrays, which may be views.
    number: int = -1


def several(holders: int) -> bool:
    return holders & (holders - 1) != 0


def in_circles(flat: Flat, references: Mapping[int, Sequence[int]]) -> set[int]:
    """Return the containers that contain themselves through pickled leaves.

    Containers between two such containers are returned, too.

    Args:
      flat: The state.
      references: Numbers of the objects that each pickled leaf refers to.
    """
    graph = {leaf: [x for x in found if x < 0] for leaf, found in references.items()}
    if not any(graph.values()):
        return set()
    back: dict[int, list[int]] = {}
    for number, node in enumerate(flat.nodes, 1):
        graph[-number] = [x for x in node.children if x < 0 or x in references]
    for number, below in graph.items():
        for child in below:
            back.setdefault(child, []).append(number)
    return {number for number in _stuck(graph) & _stuck(back) if number < 0}


def _stuck(graph: Mapping[int, Sequence[int]]) -> set[int]:
    """Return the nodes that come after themselves, or after a node that does."""
    sorter = graphlib.TopologicalSorter(graph)
    with contextlib.suppress(graphlib.CycleError):
        sorter.prepare()
    left = {*graph, *itertools.chain.from_iterable(graph.values())}
    while ready := sorter.get_ready():
        left.difference_update(ready)
        sorter.done(*ready)
    return left

"""Containers that contain themselves through pickled leaves."""

from __future__ import annotations

import contextlib
import graphlib
import itertools
from collections.abc import Mapping, Sequence

from .flattening import Flat


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

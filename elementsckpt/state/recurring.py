"""States that recur: what one save works out about a state serves for the next.

Nothing is assumed of a state because one before it had it: its structure and the form
of each array are looked at anew, and compared.
"""

from __future__ import annotations

import copy
import itertools
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Struct

from ..format import scalars
from ..format.manifest import LeafGroup, Tree
from ..kinds import views
from ..kinds.numpy_kinds import NUMPY
from ..kinds.python_kinds import PYTHON, is_long
from . import flattening, grouping, structure
from .flattening import Flat
from .grouping import EncodedState, Storages, form_of
from .sharing import Losses
from .structure import Structure


class Recurring(Struct, frozen=True):
    """What is known of a state, for the next one of the same component.

    Attributes:
      structure: Its containers.
      grouped: How its leaves are grouped; None if that is worked out each time.
    """

    structure: Structure
    grouped: Grouped | None


def encode(
    state: Any, key: str, losses: Losses, last: Recurring | None
) -> tuple[EncodedState, Recurring | None]:
    """Flatten and describe a state.

    Args:
      state: The result of a component's `save()`.
      key: The component's key, for errors.
      losses: Collects what pickles leave out.
      last: What this returned for an earlier state, of any component.

    Returns:
      The state, and what is known of it.

    Raises:
      StateError: as for `flattening.flatten` and `grouping.encode`.
    """
    flat = None if last is None else last.structure.flatten(state)
    if last is not None and flat is not None:
        if last.grouped is not None:
            again = last.grouped.encode(flat, last.structure)
            if again is not None:
                return again, last
        if last.structure.are_apart(flat):
            encoded = grouping.encode(flat, key, losses)
            # What changes each time is not learned each time.
            grouped = _grouped(flat, encoded) if last.grouped is None else None
            return encoded, Recurring(last.structure, grouped)
    flat = flattening.flatten(state, key)
    encoded = grouping.encode(flat, key, losses)
    known = structure.of(flat) if last is None else None
    found = None if known is None else Recurring(known, _grouped(flat, encoded))
    return encoded, found


class Grouped(Struct, frozen=True):
    """How the leaves of a state are grouped: NumPy's arrays and scalars only.

    Attributes:
      tree: The state in the manifest, with groups that have no block and no scalars.
      alike: The leaves of each group.
    """

    tree: Tree
    alike: list[_Alike]

    def encode(self, flat: Flat, structure: Structure) -> EncodedState | None:
        """Return what `grouping.encode` would.

        Returns:
          None if some leaf has another form, or arrays are not apart.
        """
        groups: list[LeafGroup] = []
        storages: Storages = []
        arrays: list[list[np.ndarray]] = []
        for known, alike in zip(self.tree.leaves, self.alike, strict=True):
            values = alike.pick(flat.values)
            group = copy.copy(known)
            if alike.form is None:
                if any(map(is_long, values)):
                    return None
                try:
                    group.value = scalars.encode_all(values)
                except scalars.NotScalarError:
                    return None
                storages.append([])
            else:
                if not _are_alike(values, alike.form):
                    return None
                arrays.append(values)
                storages.append([x.T for x in values] if group.order == "F" else values)
            groups.append(group)
        if not _are_apart(arrays, flat, structure):
            return None
        saved = Tree(self.tree.root, self.tree.nodes, groups)
        return EncodedState(saved, storages, [[] for _ in groups], [], [])


class _Alike(Struct, frozen=True):
    """Leaves of one group: their numbers, None for all, and the form of arrays."""

    numbers: Sequence[int] | None
    form: Any

    def pick(self, values: list[Any]) -> list[Any]:
        if self.numbers is None:
            return values
        return [values[number] for number in self.numbers]


def _grouped(flat: Flat, encoded: EncodedState) -> Grouped | None:
    are_simple = not encoded.unshared and {NUMPY, PYTHON} >= {*flat.kinds}
    if not are_simple or not all(map(_is_simple, encoded.tree.leaves)):
        return None
    found: list[_Alike] = []
    for storages, numbers in zip(encoded.storages, encoded.numbers, strict=True):
        form = None
        if storages:
            values = [flat.values[number] for number in numbers]
            form = form_of(values[0])
            if not _are_alike(values, form):
                return None
        is_all = numbers == list(range(len(flat.names)))
        found.append(_Alike(None if is_all else numbers, form))
    groups = [copy.copy(group) for group in encoded.tree.leaves]
    for group in groups:
        group.value = None
    return Grouped(Tree(encoded.tree.root, encoded.tree.nodes, groups), found)


def _are_apart(
    arrays: Sequence[Sequence[np.ndarray]], flat: Flat, structure: Structure
) -> bool:
    """Return whether no array is met twice, and none is in the memory of another."""
    if views.are_apart(list(itertools.chain.from_iterable(arrays))):
        return True  # Of an array that is met twice, the memory would be, too.
    if not structure.are_apart(flat):
        return False
    found = views.search(arrays)
    return not found.views and not found.unshared


def _are_alike(arrays: Sequence[np.ndarray], form: Any) -> bool:
    """Return whether all arrays have this form; no form of theirs is kept."""
    return all(map(operator.eq, map(form_of, arrays), itertools.repeat(form)))


def _is_simple(group: LeafGroup) -> bool:
    """Return whether what describes a group follows from the form of its leaves.

    Equal dtypes with fields may have different descriptions.
    """
    return group.kind in ("numpy", "python") and type(group.dtype) is not dict

"""The leaves of a flat state → groups of one form, as in the manifest."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from msgspec import Struct

from ..format import scalars
from ..format.manifest import OWN_VALUE, LeafGroup, Tree, escape
from ..kinds import leaves, views
from ..kinds.kind import Encoded, Form, UnstorableError
from ..kinds.numpy_kinds import NUMPY, has_bytes
from ..kinds.python_kinds import FORM, PYTHON, is_long
from . import tree, view_leaves
from .flattening import Flat
from .sharing import Losses, pickle_leaves

Storages = list[list[np.ndarray]]  # For each group of leaves; empty without bytes.
Owners = list[list[Any]]  # For each group, the leaves if they are known by identity.


class EncodedState(NamedTuple):
    """A flat state as in the manifest, and the bytes of its leaves.

    Attributes:
      tree: The state. Leaves of one form are a group and have no block yet. Arrays
        inside pickles are leaves, too.
      storages: The storages of each group; groups of larger alignment come first.
      owners: The owners of each group; None for a leaf without an owner.
      apart: Names of leaves that share memory and will not share it after a load.
    """

    tree: Tree
    storages: Storages
    owners: Owners
    apart: list[str]


def encode(flat: Flat, key: str, losses: Losses) -> EncodedState:
    """Describe a flat state for the manifest and give the storages of its leaves.

    Args:
      flat: The state, whose nodes become part of the tree.
      key: The component's key, for errors.
      losses: Collects what pickles leave out.

    Raises:
      StateError: a leaf cannot be saved.
    """
    encoder = _Encoder(flat, key, losses)
    encoder.encode()
    return encoder.result()


# Equal for NumPy arrays of one form, and quickly read.
_TRAITS = operator.attrgetter("dtype", "shape", "strides")
_ALIGNMENT = operator.attrgetter("alignment")


class _Group(Struct):
    """Leaves of one form, their numbers in the flat state, and their storages."""

    leaves: LeafGroup
    alignment: int
    numbers: list[int] = []
    storages: list[np.ndarray] = []


class _Encoder:
    def __init__(self, flat: Flat, key: str, losses: Losses) -> None:
        self._losses = losses
        self._flat = flat
        self._key = key
        self._names = flat.names
        if not "".join(flat.names).isascii():
            self._names = [escape(name) for name in flat.names]
        self._count = len(flat.names)  # Other leaves are numbered after the state's.
        self._groups: dict[Any, _Group] = {}
        self._pickled: list[int] = []
        self._parts: list[tuple[int, str, np.ndarray]] = []  # Arrays in pickles,
        self._inside: list[tuple[str, np.ndarray]] = []  # and those left there.
        self._apart: list[str] = []

    def encode(self) -> None:
        flat = self._flat
        arrays: dict[Any, list[int]] = {}
        plain, foreign, others = [], [], []
        for number, kind in enumerate(flat.kinds):
            value = flat.values[number]
            if kind is NUMPY:
                traits = _TRAITS(value)
                numbers = arrays.get(traits)
                if numbers is None:
                    numbers = arrays[traits] = []
                numbers.append(number)
            elif kind is PYTHON and not is_long(value):
                plain.append(number)
            elif kind.is_foreign:
                foreign.append(number)
            else:
                others.append(number)
        if foreign:
            self._add_foreign(foreign)
        alike = []
        for numbers in arrays.values():
            if has_bytes(flat.values[numbers[0]]):
                alike.append(numbers)
            else:
                self._pickled += numbers
        if plain:
            self._add_scalars(plain)
        for number in others:
            self._add_any(number)
        if self._pickled:
            self._add_pickled()
        self._add_arrays(alike)

    def _add_pickled(self) -> None:
        pickled = pickle_leaves(
            self._flat, self._names, self._pickled, self._key, self._losses
        )
        self._count = pickled.next_number
        self._parts, self._inside = pickled.arrays, pickled.inside
        for leaf in pickled.leaves:
            self._add(leaf.number, leaf.name, leaf.encoded)

    def _add_arrays(self, alike: Sequence[Sequence[int]]) -> None:
        """Add NumPy arrays, also those in pickles; views are added as views."""
        values = self._flat.values
        groups = [[values[number] for number in numbers] for numbers in alike]
        groups += [[array] for *_, array in self._parts]
        found = views.find(groups, [array for _, array in self._inside])
        added: set[int] = set()
        if found.views or found.apart:
            added = self._add_views(alike, found)
        for numbers in alike:
            rest = [n for n in numbers if n not in added] if added else numbers
            if rest:
                self._add_alike(rest)
        for number, name, array in self._parts:
            if number not in added:
                self._add(number, name, leaves.encode(array, NUMPY))

    def _add_views(
        self, alike: Sequence[Sequence[int]], found: views.Found
    ) -> set[int]:
        """Add arrays that are views, and memory that only views share."""
        known = [(n, self._names[n], self._flat.values[n]) for x in alike for n in x]
        known += self._parts
        numbers = [number for number, *_ in known] + [-1] * len(self._inside)
        names = [name for _, name, _ in known]
        names += [name for name, _ in self._inside]
        firsts = {view.base: names[x] for x, view in reversed(found.views.items())}
        lasts = {view.base: names[x] for x, view in found.views.items()}
        for position, span in enumerate(found.spans, len(numbers)):
            numbers.append(self._next_number())
            name = f"{firsts[position]} ... {lasts[position]}"
            self._add(numbers[-1], name, leaves.encode(span, NUMPY))
        for position, view in found.views.items():
            number, name, array = known[position]
            own = view._replace(base=numbers[view.base])
            self._add(number, name, view_leaves.encode(array, own))
        apart = [names[position] for some in found.apart for position in some]
        self._apart = list(dict.fromkeys(apart))
        return {numbers[position] for position in found.views}

    def _next_number(self) -> int:
        """Return a new number for a leaf that is not in the state itself."""
        self._count += 1
        return self._count - 1

    def result(self) -> EncodedState:
        """Number the leaves group by group, in the order of their alignment."""
        groups = sorted(self._groups.values(), key=_ALIGNMENT, reverse=True)
        order: list[int] = []
        for group in groups:
            order += group.numbers
        places = dict(zip(order, range(len(order)), strict=True))
        flat = self._flat
        for node in flat.nodes:
            node.children = [n if n < 0 else places[n] for n in node.children]
        for group in groups:
            value = group.leaves.value
            if group.leaves.kind == "pickle":
                group.leaves.value = [
                    [n if n < 0 else places[n] for n in parts] for parts in value
                ]
            elif group.leaves.kind == "view":
                group.leaves.value = [[places[n], *place] for n, *place in value]
        root = flat.root if flat.root < 0 else places[flat.root]
        saved = Tree(root, flat.nodes, [group.leaves for group in groups])
        storages = [group.storages for group in groups]
        owners = [self._owners(group) for group in groups]
        return EncodedState(saved, storages, owners, self._apart)

    def _owners(self, group: _Group) -> list[Any]:
        """Return the leaves of a group whose kind is known by identity, else [].

        Leaves in pickles are numbered after the state's, and have no owner.
        """
        if not leaves.named(group.leaves).is_known_by_identity:
            return []
        values = self._flat.values
        return [values[n] if n < len(values) else None for n in group.numbers]

    def _add_foreign(self, numbers: Sequence[int]) -> None:
        """Add arrays of other libraries, after a check that all can be saved."""
        kinds = [self._flat.kinds[number] for number in numbers]
        values = [self._flat.values[number] for number in numbers]
        for number, value, kind in zip(numbers, values, kinds, strict=True):
            name = tree.full_name(self._key, self._names[number])
            leaves.check(value, kind, name)
        fetched = leaves.fetch(values, kinds)
        for number, array in zip(numbers, fetched, strict=True):
            self._add_any(number, array)

    def _add_alike(self, numbers: Sequence[int]) -> None:
        """Add NumPy arrays of one form; only the first one is examined."""
        group = self._add_any(numbers[0])
        if len(numbers) == 1:
            return
        more = numbers[1:]
        assert group is not None  # They have bytes.
        if type(group.leaves.dtype) is not str:
            for number in more:
                self._add_any(number)
        else:
            arrays = [self._flat.values[number] for number in more]
            is_f = group.leaves.order == "F"
            group.storages.extend([x.T for x in arrays] if is_f else arrays)
            group.numbers.extend(more)
            group.leaves.names.extend([self._names[number] for number in more])

    def _add_scalars(self, numbers: Sequence[int]) -> None:
        try:
            values = scalars.encode_all([self._flat.values[n] for n in numbers])
        except scalars.NotScalarError:  # Some must be pickled.
            for number in numbers:
                self._add_any(number)
            return
        group = self._group(FORM, FORM, None)
        group.numbers.extend(numbers)
        group.leaves.value.extend(values)
        group.leaves.names.extend([self._names[number] for number in numbers])

    def _add_any(self, number: int, fetched: np.ndarray | None = None) -> _Group | None:
        """Add a leaf; return its group, or None if it will be pickled later."""
        value, kind = self._flat.values[number], self._flat.kinds[number]
        name = self._names[number]
        try:
            full_name = tree.full_name(self._key, name)
            encoded = leaves.encode_named(value, kind, full_name, fetched)
        except UnstorableError:
            self._pickled.append(number)
            return None
        return self._add(number, name, encoded)

    def _add(self, number: int, name: str, encoded: Encoded) -> _Group:
        form, storage, value = encoded
        # An element type with parts has no hash, so each leaf is its own group.
        key = number if type(form.dtype) is dict else form
        group = self._group(form, key, storage)
        group.numbers.append(number)
        group.leaves.names.append(name)
        if storage is not None:
            group.storages.append(storage)
        if form.kind in OWN_VALUE:
            group.leaves.value.append(value)
        return group

    def _group(self, form: Form, key: Any, storage: np.ndarray | None) -> _Group:
        group = self._groups.get(key)
        if group is None:
            described = LeafGroup(
                kind=form.kind,
                dtype=form.dtype,
                shape=form.shape,
                order=form.order,
                value=[] if form.kind in OWN_VALUE else form.value,
                names=[],
            )
            alignment = 0 if storage is None else storage.dtype.alignment
            group = self._groups[key] = _Group(described, alignment)
        return group

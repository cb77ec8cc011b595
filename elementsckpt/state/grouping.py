"""The leaves of a flat state → groups of one form, as in the manifest."""

from __future__ import annotations

import collections
import itertools
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from msgspec import Struct, structs

from ..format import scalars
from ..format.manifest import OWN_VALUE, LeafGroup, Tree, escape
from ..kinds import leaves, views
from ..kinds.kind import Encoded, Form, UnstorableError
from ..kinds.numpy_kinds import NUMPY, has_bytes
from ..kinds.python_kinds import FORM, PYTHON, is_long
from ..kinds.remote import Remote, Storage
from ..kinds.ring import Ring
from . import tree, view_leaves
from .flattening import Flat
from .sharing import Losses, Pickling

Storages = list[list[Storage]]  # For each group of leaves; empty without bytes.
Owners = list[list[Any]]  # For each group, the leaves if they are known by identity.


class EncodedState(NamedTuple):
    """A flat state as in the manifest, and the bytes of its leaves.

    Attributes:
      tree: The state. Leaves of one form are a group and have no block yet. Arrays
        inside pickles are leaves, too.
      storages: The storages of each group; groups of larger alignment come first.
      owners: The owners of each group; None for a leaf without an owner.
      unshared: Names of leaves that share memory and will not share it after a load.
    """

    tree: Tree
    storages: Storages
    owners: Owners
    unshared: list[str]


def encode(flat: Flat, key: str, losses: Losses) -> EncodedState:
    """Describe a flat state for the manifest and give the storages of its leaves.

    Args:
      flat: The state, whose nodes become part of the tree.
      key: The component's key, for errors.
      losses: Collects what pickles leave out.

    Raises:
      StateError: a leaf cannot be saved.
    """
    return _Encoder(flat, key, losses).encode()


# Equal for NumPy arrays of one form, and quickly read.
_FORM_OF = operator.attrgetter("dtype", "shape", "strides")


class _Group(Struct):
    """Leaves of one form, their numbers in the flat state, and their storages."""

    leaves: LeafGroup
    numbers: list[int] = []
    storages: list[Storage] = []

    @property
    def alignment(self) -> int:
        return self.storages[0].dtype.alignment if self.storages else 0


class _Encoder:
    def __init__(self, flat: Flat, key: str, losses: Losses) -> None:
        self._losses = losses
        self._flat = flat
        self._key = key
        self._names = flat.names
        if not "".join(flat.names).isascii():
            self._names = [escape(name) for name in flat.names]
        # Other leaves are numbered after the state's.
        self._new_numbers = itertools.count(len(flat.names))
        self._groups: dict[Any, _Group] = {}
        self._pickled: list[int] = []
        self._parts: list[tuple[int, str, np.ndarray]] = []  # Arrays in pickles,
        self._inside: list[tuple[str, np.ndarray]] = []  # and those left there.
        self._unshared: list[str] = []

    def encode(self) -> EncodedState:
        flat = self._flat
        arrays: dict[Any, list[int]] = collections.defaultdict(list)
        plain, foreign, others = [], [], []
        for number, kind in enumerate(flat.kinds):
            value = flat.values[number]
            if kind is NUMPY:
                form = _FORM_OF(value)
                is_alone = bool(flat.rings) and id(value) in flat.rings
                arrays[(form, number) if is_alone else form].append(number)
            elif kind is PYTHON and not is_long(value):
                plain.append(number)
            elif kind.is_foreign:
                foreign.append(number)
            else:
                others.append(number)
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
        return self._result()

    def _add_pickled(self) -> None:
        pickling = Pickling(self._flat, self._key, self._losses, self._new_numbers)
        pickling.run({number: self._names[number] for number in self._pickled})
        self._parts, self._inside = pickling.arrays, [*pickling.inside.values()]
        for number, name, encoded in pickling.stored:
            self._add(number, name, encoded)

    def _add_arrays(self, alike: Sequence[Sequence[int]]) -> None:
        """Add NumPy arrays, also those in pickles; views are added as views."""
        values = self._flat.values
        groups = [[values[number] for number in numbers] for numbers in alike]
        groups += [[array] for *_, array in self._parts]
        found = views.find(groups, [array for _, array in self._inside])
        added: set[int] = set()
        if found.views or found.unshared:
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
        known += [*self._parts, *((-1, name, array) for name, array in self._inside)]
        numbers = [number for number, *_ in known]
        names = [name for _, name, _ in known]
        firsts = {view.base: names[x] for x, view in reversed(found.views.items())}
        lasts = {view.base: names[x] for x, view in found.views.items()}
        for position, span in enumerate(found.spans, len(numbers)):
            numbers.append(next(self._new_numbers))
            name = f"{firsts[position]} ... {lasts[position]}"
            self._add(numbers[-1], name, leaves.encode(span, NUMPY))
        for position, view in found.views.items():
            number, name, array = known[position]
            own = view._replace(base=numbers[view.base])
            self._add(number, name, view_leaves.encode(array, own))
        unshared = [names[position] for some in found.unshared for position in some]
        self._unshared = list(dict.fromkeys(unshared))
        return {numbers[position] for position in found.views}

    def _result(self) -> EncodedState:
        """Number the leaves group by group, in the order of their alignment."""
        alignment = operator.attrgetter("alignment")
        groups = sorted(self._groups.values(), key=alignment, reverse=True)
        order: list[int] = []
        for group in groups:
            order += group.numbers
        places = {number: place for place, number in enumerate(order)}
        flat = self._flat
        for node in flat.nodes:
            node.children = [places.get(n, n) for n in node.children]
        for group in groups:
            value = group.leaves.value
            if group.leaves.kind == "pickle":
                group.leaves.value = [[places.get(n, n) for n in x] for x in value]
            elif group.leaves.kind == "view":
                group.leaves.value = [[places[n], *place] for n, *place in value]
        root = places.get(flat.root, flat.root)  # Numbers of containers stay.
        saved = Tree(root, flat.nodes, [group.leaves for group in groups])
        storages = [group.storages for group in groups]
        owners = [self._owners(group) for group in groups]
        return EncodedState(saved, storages, owners, self._unshared)

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
        far = self._remote(numbers) if self._flat.rings else {}
        near = [n for n in numbers if n not in far] if far else numbers
        fetched = leaves.fetch(
            [self._flat.values[n] for n in near], [self._flat.kinds[n] for n in near]
        )
        for number, array in [*zip(near, fetched, strict=True), *far.items()]:
            self._add_any(number, array)

    def _remote(self, numbers: Sequence[int]) -> dict[int, Remote]:
        """Return ring buffers on devices, which are not fetched whole."""
        found = {}
        for number in numbers:
            value, remote = self._flat.values[number], self._flat.kinds[number].remote
            if id(value) in self._flat.rings and remote is not None:
                found[number] = remote(value)
        return {number: array for number, array in found.items() if array is not None}

    def _add_alike(self, numbers: Sequence[int]) -> None:
        """Add NumPy arrays of one form; only the first one is examined."""
        first, *more = numbers
        group = self._add_any(first)
        assert group is not None  # They have bytes.
        if type(group.leaves.dtype) is not str:
            for number in more:
                self._add_any(number)
            return
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
        group = self._group(FORM, FORM)
        group.numbers.extend(numbers)
        group.leaves.value.extend(values)
        group.leaves.names.extend([self._names[number] for number in numbers])

    def _add_any(self, number: int, fetched: Storage | None = None) -> _Group | None:
        """Add a leaf; return its group, or None if it will be pickled later."""
        value, kind = self._flat.values[number], self._flat.kinds[number]
        name = self._names[number]
        try:
            full_name = tree.full_name(self._key, name)
            encoded = leaves.encode(value, kind, fetched, full_name)
        except UnstorableError:
            self._pickled.append(number)
            return None
        return self._add(number, name, encoded)

    def _add(self, number: int, name: str, encoded: Encoded) -> _Group:
        form, storage, value = encoded
        # An element type with parts has no hash, so each leaf is its own group.
        ring = None if storage is None else self._ring(number, form, storage)
        is_alone = ring is not None or type(form.dtype) is dict
        group = self._group(form, number if is_alone else form)
        if ring is not None:
            group.leaves.ring = ring.added, ring.axis
        group.numbers.append(number)
        group.leaves.names.append(name)
        if storage is not None:
            group.storages.append(storage)
        if form.kind in OWN_VALUE:
            group.leaves.value.append(value)
        return group

    def _ring(self, number: int, form: Form, storage: Storage) -> Ring | None:
        """Return the ring buffer that a leaf is, if its rows are stored in order."""
        if not self._flat.rings or number >= len(self._flat.values):
            return None
        ring = self._flat.rings.get(id(self._flat.values[number]))
        is_regular = form.order == "C" and storage.shape == form.shape
        return ring if ring is not None and is_regular and ring.is_in_order else None

    def _group(self, form: Form, key: Any) -> _Group:
        group = self._groups.get(key)
        if group is None:
            described = LeafGroup(**structs.asdict(form), names=[])
            if form.kind in OWN_VALUE:
                described.value = []
            group = self._groups[key] = _Group(described)
        return group

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
from ..format.manifest import OWN_VALUE, LeafGroup, Node, Tree, escape
from ..kinds import leaves, views
from ..kinds.kind import Encoded, Form, UnstorableError
from ..kinds.numpy_kinds import NUMPY, has_bytes, is_strings
from ..kinds.python_kinds import FORM, PYTHON, is_long
from ..kinds.remote import Remote, Storage
from ..kinds.ring import Ring
from . import saved_tree, stretches, view_leaves
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
      numbers: Of the leaves of each group, in the flat state or after it.
    """

    tree: Tree
    storages: Storages
    owners: Owners
    unshared: list[str]
    numbers: list[list[int]]


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
form_of = operator.attrgetter("dtype", "shape", "strides")


def _inverse(order: Sequence[int]) -> list[int]:
    """Return the place of each number."""
    places = np.zeros(max(order, default=-1) + 1, np.int64)
    places[order] = range(len(order))
    return places.tolist()


def _renumbered(flat: Flat, places: Sequence[int]) -> list[Node]:
    """Return the containers with other numbers of leaves; numbers of containers stay.

    The flat state may be needed again, so it stays as it is.
    """
    leaf_places = places[: len(flat.names)]
    if leaf_places == list(range(len(leaf_places))):
        return flat.nodes
    # Numbers of containers are negative, and find themselves at the end.
    place_of = [*leaf_places, *range(-len(flat.nodes), 0)].__getitem__
    return [
        Node(
            x.kind, [*map(place_of, x.children)], x.keys, x.name, x.value, x.attributes
        )
        for x in flat.nodes
    ]


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
                form = form_of(value)
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
        structured: list[Sequence[int]] = []
        for numbers in alike:
            rest = [n for n in numbers if n not in added] if added else numbers
            if rest and values[rest[0]].dtype.names is not None:
                structured.append(rest)
            elif rest:
                self._add_alike(rest)
        if structured:
            self._add_structured(structured)
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
        order = [*itertools.chain.from_iterable(group.numbers for group in groups)]
        places = _inverse(order)
        for group in groups:
            value = group.leaves.value
            if group.leaves.kind == "pickle":
                group.leaves.value = [
                    [places[n] if n >= 0 else n for n in parts] for parts in value
                ]
            elif group.leaves.kind == "view":
                group.leaves.value = [[places[n], *place] for n, *place in value]
        root = self._flat.root  # Numbers of containers stay.
        saved = Tree(
            places[root] if root >= 0 else root,
            _renumbered(self._flat, places),
            [group.leaves for group in groups],
        )
        return EncodedState(
            saved,
            [group.storages for group in groups],
            [self._owners(group) for group in groups],
            self._unshared,
            [group.numbers for group in groups],
        )

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
            name = saved_tree.full_name(self._key, self._names[number])
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

    def _add_structured(self, alike: Sequence[Sequence[int]]) -> None:
        """Add arrays of structured dtypes, of which there may be as many as leaves.

        Those of one form are a group only within a stretch of the state. So what
        changes in one place of the state changes few blocks, however many forms there
        are.
        """
        known: dict[Any, Form] = {}
        for form, numbers in stretches.divide(alike, self._flat.values):
            known[form] = self._add_alike(numbers, known.get(form))

    def _add_alike(self, numbers: Sequence[int], form: Form | None = None) -> Form:
        """Add NumPy arrays of one form; only the first is examined, if it is unknown.

        Returns:
          The form.
        """
        arrays = [self._flat.values[number] for number in numbers]
        names = [self._names[number] for number in numbers]
        if form is None:
            form = leaves.encode(arrays[0], NUMPY)[0]
        if is_strings(form):
            for number, name, array in zip(numbers, names, arrays, strict=True):
                self._add(number, name, leaves.encode(array, NUMPY))
            return form
        storages = [x.T for x in arrays] if form.order == "F" else arrays
        group = self._add(numbers[0], names[0], (form, storages[0], None))
        group.storages += storages[1:]
        group.numbers += numbers[1:]
        group.leaves.names += names[1:]
        return form

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
            full_name = saved_tree.full_name(self._key, name)
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

"""The leaves of a flat state, those of one form together, as the manifest has them."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Struct

from . import jax_arrays, leaves, scalars, tree
from .manifest import OWN_VALUE, Leaves, Tree, display
from .sharing import Losses, pickle_leaves
from .tree import Flat

Storages = list[list[np.ndarray]]  # Of each group of leaves; empty without bytes.
Owners = list[list[Any]]  # The immutable JAX arrays that these are the content of.


def encode(flat: Flat, key: str, losses: Losses) -> tuple[Tree, Storages, Owners]:
    """Describe a flat state for the manifest and give the storages of its leaves.

    Args:
      flat: The state, which becomes part of the tree.
      key: The component's key, for errors.
      losses: Where to note what pickles leave out.

    Returns:
      The tree, in which leaves of one form are together and have no place yet, their
      storages, those of larger alignment first, and the owners of these, None where
      there is none. Arrays inside pickles are leaves, too.

    Raises:
      StateError: a leaf cannot be saved.
    """
    encoder = _Encoder(flat, key, losses)
    encoder.encode()
    return encoder.result()


# What NumPy arrays of one form have in common, and more, at the least cost.
_TRAITS = operator.attrgetter("dtype", "shape", "strides")
_ALIGNMENT = operator.attrgetter("alignment")


class _Group(Struct):
    """Leaves of one form, their numbers in the flat state, and their storages."""

    leaves: Leaves
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
            self._names = [display(name) for name in flat.names]
        self._groups: dict[Any, _Group] = {}
        self._pickled: list[int] = []

    def encode(self) -> None:
        flat = self._flat
        arrays: dict[Any, list[int]] = {}
        plain, foreign, others = [], [], []
        for number, kind in enumerate(flat.kinds):
            value = flat.values[number]
            if kind == "numpy":
                traits = _TRAITS(value)
                numbers = arrays.get(traits)
                if numbers is None:
                    numbers = arrays[traits] = []
                numbers.append(number)
            elif kind == "python" and not leaves.is_long(value):
                plain.append(number)
            elif kind in leaves.ARRAYS:
                foreign.append(number)
            else:
                others.append(number)
        if foreign:
            self._add_foreign(foreign)
        for numbers in arrays.values():
            self._add_alike(numbers)
        if plain:
            self._add_scalars(plain)
        for number in others:
            self._add_any(number)
        if self._pickled:
            found = pickle_leaves(
                flat, self._names, self._pickled, self._key, self._losses
            )
            for leaf in found:
                self._add(leaf.number, leaf.name, leaf.encoded)

    def result(self) -> tuple[Tree, Storages, Owners]:
        """Number the leaves group by group, in the order of their alignment."""
        groups = sorted(self._groups.values(), key=_ALIGNMENT, reverse=True)
        order: list[int] = []
        for group in groups:
            order += group.numbers
        places = dict(zip(order, range(len(order)), strict=True))
        flat = self._flat
        for node in flat.nodes:
            node.children = [n if n < 0 else places[n] for n in node.children]
        if self._pickled:
            for group in groups:
                if group.leaves.kind == "pickle":
                    parts = group.leaves.value
                    group.leaves.value = [
                        [n if n < 0 else places[n] for n in own] for own in parts
                    ]
        root = flat.root if flat.root < 0 else places[flat.root]
        saved = Tree(root, flat.nodes, [group.leaves for group in groups])
        storages = [group.storages for group in groups]
        return saved, storages, [self._owners(group) for group in groups]

    def _owners(self, group: _Group) -> list[Any]:
        """Return the JAX arrays of a group; those in pickles come after the state's."""
        if group.leaves.kind != "jax":
            return []
        values = self._flat.values
        return [values[n] if n < len(values) else None for n in group.numbers]

    def _add_foreign(self, numbers: Sequence[int]) -> None:
        """Add arrays of JAX and torch, if all of them can be saved."""
        kinds, values = self._flat.kinds, self._flat.values
        for number in numbers:
            name = tree.full_name(self._key, self._names[number])
            leaves.check(values[number], kinds[number], name)
        on_device = [number for number in numbers if kinds[number] != "torch"]
        fetched: dict[int, np.ndarray] = {}
        if on_device:
            arrays = jax_arrays.fetch([values[number] for number in on_device])
            fetched = dict(zip(on_device, arrays, strict=True))
        for number in numbers:
            self._add_any(number, fetched.get(number))

    def _add_alike(self, numbers: Sequence[int]) -> None:
        """Add NumPy arrays that are alike: most leaves need no second look."""
        group = self._add_any(numbers[0])
        if len(numbers) == 1:
            return
        more = numbers[1:]
        if group is None or type(group.leaves.dtype) is not str:
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
        group = self._group(leaves.PYTHON, leaves.PYTHON, None)
        group.numbers.extend(numbers)
        group.leaves.value.extend(values)
        group.leaves.names.extend([self._names[number] for number in numbers])

    def _add_any(self, number: int, fetched: np.ndarray | None = None) -> _Group | None:
        """Add a leaf; return its group, or None if it is to be pickled later."""
        value, kind = self._flat.values[number], self._flat.kinds[number]
        name = self._names[number]
        try:
            full_name = tree.full_name(self._key, name)
            encoded = leaves.encode_named(value, kind, full_name, fetched)
        except leaves.UnstorableError:
            self._pickled.append(number)
            return None
        return self._add(number, name, encoded)

    def _add(self, number: int, name: str, encoded: leaves.Encoded) -> _Group:
        form, storage, value = encoded
        # An element type that has parts cannot be hashed, so its leaves stay alone.
        key = number if type(form.dtype) is dict else form
        group = self._group(form, key, storage)
        group.numbers.append(number)
        group.leaves.names.append(name)
        if storage is not None:
            group.storages.append(storage)
        if form.kind in OWN_VALUE:
            group.leaves.value.append(value)
        return group

    def _group(self, form: leaves.Form, key: Any, storage: np.ndarray | None) -> _Group:
        group = self._groups.get(key)
        if group is None:
            described = Leaves(
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

"""The leaves of a flat state, those of one form together, as the manifest has them."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Struct

from . import jax_arrays, leaves, pickles, scalars, tree
from .errors import StateError, reason
from .manifest import OWN_VALUE, Leaves, Tree, display
from .tree import Flat

Storages = list[list[np.ndarray]]  # Of each group of leaves; empty without bytes.
Owners = list[list[Any]]  # The immutable JAX arrays that these are the content of.


def encode(flat: Flat, key: str) -> tuple[Tree, Storages, Owners]:
    """Describe a flat state for the manifest and give the storages of its leaves.

    Args:
      flat: The state, which becomes part of the tree.
      key: The component's key, for errors.

    Returns:
      The tree, in which leaves of one form are together and have no place yet, their
      storages, those of larger alignment first, and the owners of these, None where
      there is none. Arrays inside pickles are leaves, too.

    Raises:
      StateError: a leaf cannot be saved.
    """
    encoder = _Encoder(flat, key)
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
    def __init__(self, flat: Flat, key: str) -> None:
        self._flat = flat
        self._key = key
        self._names = flat.names
        if not "".join(flat.names).isascii():
            self._names = [display(name) for name in flat.names]
        self._count = len(flat.names)  # Arrays in pickles come after the others.
        self._groups: dict[Any, _Group] = {}
        self._pickled: list[int] = []
        self._arrays: dict[int, tuple[int, Any]] | None = None

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
        for number in self._pickled:
            name = self._names[number]
            self._add(number, name, self._pickle(flat.values[number], name))

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
                    group.leaves.value = [[places[n] for n in x] for x in parts]
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
            self._check(values[number], self._names[number], kinds[number])
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
            encoded = self._encode(value, kind, name, fetched)
        except leaves.UnstorableError:
            self._pickled.append(number)
            return None
        return self._add(number, name, encoded)

    def _encode(
        self, value: Any, kind: str, name: str, fetched: np.ndarray | None
    ) -> leaves.Encoded:
        try:
            return leaves.encode(value, kind, fetched)
        except RuntimeError as error:
            if kind != "torch":
                raise
            raise self._refusal(value, name, error) from error

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

    def _check(self, value: Any, name: str, kind: str) -> None:
        problem = leaves.problem(value, kind)
        if problem is not None:
            raise StateError(f"{tree.full_name(self._key, name)} {problem}.")

    def _pickle(self, value: Any, name: str) -> leaves.Encoded:
        parts: dict[int, int] = {}  # Leaf number to position among the parts.

        def out_of_band(item: Any) -> int | None:
            inner = name if item is value else f"{name}/{len(parts)}"
            number = self._array(item, inner)
            return None if number is None else parts.setdefault(number, len(parts))

        try:
            payload = pickles.dump(value, out_of_band)
        except StateError:
            raise
        except Exception as error:
            raise self._refusal(value, name, error) from error
        return leaves.encode_pickle(payload, list(parts))

    def _refusal(self, value: Any, name: str, error: Exception) -> StateError:
        return StateError(
            f"{tree.full_name(self._key, name)}, of type {type(value).__qualname__}, "
            f"cannot be saved: {reason(error)}. Leave it out of what save() returns, "
            f"and make it anew in load()."
        )

    def _array(self, value: Any, name: str) -> int | None:
        """Make an array met in a pickle a leaf; return its number, or None."""
        kind = leaves.kind_of(value)
        self._check(value, name, kind)
        if kind not in leaves.ARRAYS:
            return None
        if self._arrays is None:
            self._arrays = self._state_arrays()
        if id(value) in self._arrays:
            return self._arrays[id(value)][0]
        fetched = None
        if kind == "jax" or kind == "key":
            (fetched,) = jax_arrays.fetch([value])
        try:
            encoded = self._encode(value, kind, name, fetched)
        except leaves.UnstorableError:
            return None
        number = self._count
        self._count += 1
        self._arrays[id(value)] = number, value  # Which keeps the id from others.
        self._add(number, name, encoded)
        return number

    def _state_arrays(self) -> dict[int, tuple[int, Any]]:
        """Return number and value of the state's arrays, by id."""
        flat, pickled = self._flat, set(self._pickled)
        return {
            id(value): (number, value)
            for number, value in enumerate(flat.values)
            if flat.kinds[number] in leaves.ARRAYS and number not in pickled
        }

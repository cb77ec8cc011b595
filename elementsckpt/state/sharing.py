"""Leaves that only pickle holds → a pickle of each, and of objects that they share.

The pickles refer to things that are stored elsewhere in the component: arrays,
containers of the state, and objects that other pickles hold, too. Objects that are held
by the same leaves are one pickle, a list, so that a leaf needs only what it holds. If
an object holds another one, at least as many leaves hold the other one. So such a
pickle refers only to pickles that more leaves hold, and never in a circle.
"""

from __future__ import annotations

import enum
import heapq
import types
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np

from ..errors import StateError
from ..kinds import leaves, pickles, reductions, references
from ..kinds.kind import Encoded, Kind, UnstorableError
from ..kinds.numpy_kinds import NUMPY, has_bytes
from ..kinds.python_kinds import OBJECT, encode_bytes
from . import saved_tree
from .flattening import Flat
from .pickle_graph import Array, Unit, in_circles, several

_ATOMS = frozenset(
    {type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented)}
)

_ONLY_ONE = (type, types.ModuleType, enum.Enum, np.dtype)  # Unpickled as themselves.


# Classes whose pickles leave out attributes, to the names of the leaves that hold such
# objects, and the names of the attributes.
Losses = dict[type, tuple[list[str], list[str]]]


class Pickling:
    """Pickles some leaves of a state.

    Args:
      flat: The state.
      key: The component's key, for errors.
      losses: Collects what pickles leave out.
      new_numbers: Numbers for leaves that only pickles refer to.

    Attributes:
      stored: Number, name and content of the leaves; of the objects that they share;
        and of arrays of other libraries than NumPy in them. The value of a pickle is
        the list of numbers of the leaves and containers that it refers to.
      arrays: NumPy arrays in them, with numbers and names.
      inside: NumPy arrays that stay in the pickles, by identity, with the name of such
        a pickle.
    """

    def __init__(
        self, flat: Flat, key: str, losses: Losses, new_numbers: Iterator[int]
    ) -> None:
        self.stored: list[tuple[int, str, Encoded]] = []
        self.arrays: list[tuple[int, str, np.ndarray]] = []
        self.inside: dict[int, tuple[str, np.ndarray]] = {}
        self._flat, self._key, self._losses = flat, key, losses
        self._new_numbers = new_numbers
        self._leaves: list[Unit] = []
        self._in_state: dict[int, int] = {}
        self._arrays: dict[int, Array] = {}
        # Objects by id, kept alive so that the id stays unique, and their holders.
        self._held: dict[int, tuple[Any, int]] = {}
        self._parts: dict[int, Unit] = {}
        self._waiting: list[tuple[int, int, Unit]] = []

    def run(self, names: Mapping[int, str]) -> None:
        """Pickle leaves.

        Args:
          names: Numbers and names of the leaves.

        Raises:
          StateError: one cannot be pickled, or an array in it cannot be stored.
        """
        self._leaves = [
            Unit(number, name, self._flat.values[number], 1 << bit)
            for bit, (number, name) in enumerate(names.items())
        ]
        self._in_state = _identities(self._flat, names.keys())
        self._trace(self._leaves)
        self._copy_circles()
        self._separate()
        for unit in [*self._leaves, *self._parts.values()]:
            self._store(unit)

    def _store(self, unit: Unit) -> None:
        """List a unit, after the arrays that no unit before it refers to."""
        for thing in unit.positions:
            if isinstance(thing, Array) and thing.number < 0:
                thing.number = next(self._new_numbers)
                if thing.encoded is None:
                    self.arrays.append((thing.number, thing.name, thing.value))
                else:
                    self.stored.append((thing.number, thing.name, thing.encoded))
        parts = [x.number if isinstance(x, Array) else x for x in unit.positions]
        form, storage, _ = encode_bytes(unit.payload, OBJECT.name)
        self.stored.append((unit.number, unit.name, (form, storage, parts)))

    def _trace(self, units: Sequence[Unit]) -> None:
        """Pickle leaves, and note which objects each of them holds."""
        for unit in units:
            self._pickle(unit, _keep if len(self._leaves) == 1 else self._note)

    def _copy_circles(self) -> None:
        """Let pickles hold copies of containers that contain themselves.

        Containers in a circle cannot be ordered, each after those that it needs.
        """
        references = {unit.number: unit.numbers() for unit in self._leaves}
        circular = in_circles(self._flat, references)
        if circular:
            in_state = self._in_state.items()
            self._in_state = {x: n for x, n in in_state if n not in circular}
            units = [x for x in self._leaves if not circular.isdisjoint(x.numbers())]
            self._trace(units)
        for unit in self._leaves:
            unit.containers = frozenset(x for x in unit.numbers() if x < 0)

    def _separate(self) -> None:
        """Pickle objects of several leaves separately, and these leaves again."""
        sharing = 0
        for value, holders in self._held.values():
            if several(holders) and ~sharing & holders and _is_one(value):
                sharing |= holders
        for unit in self._leaves:
            if unit.holders & sharing:
                self._wait(unit)
        while self._waiting:
            self._pickle(heapq.heappop(self._waiting)[-1], self._cut)

    def _wait(self, unit: Unit) -> None:
        # Units of fewer leaves come first, as they add objects to those of more.
        count = bin(unit.holders).count("1")
        heapq.heappush(self._waiting, (count, unit.number, unit))

    def _pickle(self, unit: Unit, other: Callable[[Any, Unit], Any]) -> None:
        """Pickle a unit; `other` decides about objects that are stored nowhere else."""
        unit.positions = {}

        def out_of_band(item: Any) -> Any:
            if type(item) in _ATOMS:
                return None
            position = self._refer(item, unit)
            return other(item, unit) if position is None else position

        def lost(cls: type, attributes: list[str]) -> None:
            names, _ = self._losses.setdefault(cls, ([], attributes))
            if unit.name not in names and not several(unit.holders):
                names.append(unit.name)

        try:
            unit.payload = pickles.dump(unit.value, out_of_band, lost)
        except StateError:
            raise
        except Exception as error:
            name = saved_tree.full_name(self._key, unit.name)
            raise leaves.refusal(unit.value, name, error) from error

    # Objects that are stored elsewhere

    def _refer(self, item: Any, unit: Unit) -> int | None:
        """Return the position of an array, or of an object in the state, or None."""
        number = self._in_state.get(id(item))
        if number is not None and unit.may_refer_to(number):
            return unit.position(number)
        kind = leaves.kind_of(item)
        is_all = item is unit.value
        name = unit.name if is_all else f"{unit.name}/{len(unit.positions)}"
        full_name = saved_tree.full_name(self._key, name)
        leaves.check(item, kind, full_name)
        if self._stays(item, kind, unit):
            return None
        array = self._arrays.get(id(item))
        if array is None:
            array = Array(item, name)
            if kind is not NUMPY:
                try:
                    array.encoded = leaves.encode(item, kind, name=full_name)
                except UnstorableError:
                    return None
            self._arrays[id(item)] = array
        return unit.position(array)

    def _stays(self, item: Any, kind: Kind, unit: Unit) -> bool:
        """Return whether an object stays in the pickle, and note arrays that stay."""
        if kind is NUMPY and not has_bytes(item):
            self.inside[id(item)] = unit.name, item
        elif kind.is_array:
            return False
        elif issubclass(type(item), np.ndarray) and not reductions.takes(item):
            self.inside[id(item)] = unit.name, np.ndarray.view(item, np.ndarray)
        return True

    # Objects that several leaves hold

    def _note(self, item: Any, unit: Unit) -> None:
        _, holders = self._held.get(id(item), (None, 0))
        self._held[id(item)] = item, holders | unit.holders

    def _cut(self, item: Any, unit: Unit) -> tuple[int, int] | None:
        """Return the part and index of an object, or None if it stays in the unit."""
        found = self._held.get(id(item))
        if found is None or found[1] == unit.holders or not _is_one(item):
            return None
        holders = found[1]
        if holders & unit.holders != unit.holders:  # Only if it pickles differently.
            return None
        if holders not in self._parts:
            name = f"{unit.name}/{len(unit.positions)}"
            self._parts[holders] = Unit(next(self._new_numbers), name, [], holders)
            self._wait(self._parts[holders])
        part = self._parts[holders]
        part.narrow(unit)
        return unit.position(part.number), part.place(item)


def _keep(item: Any, unit: Unit) -> None:
    """Leave an object in the pickle."""


def _identities(flat: Flat, pickled: Set[int]) -> dict[int, int]:
    """Return the numbers of containers and of leaves that can change, by identity."""
    found = {
        id(value): number
        for number, (kind, value) in enumerate(
            zip(flat.kinds, flat.values, strict=True)
        )
        if number not in pickled and (kind.is_array or type(value) in (bytearray, set))
    }
    for number, container in enumerate(flat.containers, 1):
        if type(container) is not tuple or container:  # () is one object everywhere.
            found[id(container)] = -number
    return found


def _is_one(value: Any) -> bool:
    """Return whether the identity of the object matters, not only its value."""
    cls = type(value)
    if cls in _ATOMS or issubclass(cls, _ONLY_ONE):
        return False
    if cls is tuple or cls is frozenset:
        return any(map(_is_one, value))
    return not (callable(value) and references.path_of(value) is not None)

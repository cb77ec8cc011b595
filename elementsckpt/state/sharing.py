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
import itertools
import types
from collections.abc import Callable, Iterator, Sequence, Set
from typing import Any, NamedTuple

import numpy as np
from msgspec import Struct

from ..errors import StateError
from ..kinds import leaves, pickles, reductions, references
from ..kinds.code_kinds import encode_pickle
from ..kinds.kind import Encoded, Kind, UnstorableError
from ..kinds.numpy_kinds import NUMPY, has_bytes
from . import tree
from .circles import in_circles
from .flattening import Flat
from .units import Array, Unit, several

_ATOMS = frozenset(
    {type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented)}
)

_ONLY_ONE = (type, types.ModuleType, enum.Enum, np.dtype)  # Unpickled as themselves.


class Stored(Struct):
    """A pickled leaf, or a leaf that only pickles refer to.

    Attributes:
      number: Its number, in the numbering of the state's leaves.
      name: Its name.
      encoded: What to store. The value of a pickle is the list of numbers of the leaves
        and containers that it refers to.
    """

    number: int
    name: str
    encoded: Encoded


class Pickled(NamedTuple):
    """Pickled leaves, and the arrays in them.

    Attributes:
      leaves: The leaves; and, with new numbers, the objects that they share and arrays
        of other libraries than NumPy in them.
      arrays: NumPy arrays in them, with numbers and names.
      inside: NumPy arrays that stay in the pickles, with the name of such a pickle.
      next_number: The first number that no leaf has.
    """

    leaves: list[Stored]
    arrays: list[tuple[int, str, np.ndarray]]
    inside: list[tuple[str, np.ndarray]]
    next_number: int


# Classes whose pickles leave out attributes, to the names of the leaves that hold such
# objects, and the names of the attributes.
Losses = dict[type, tuple[list[str], list[str]]]


def pickle_leaves(
    flat: Flat,
    names: Sequence[str],
    numbers: Sequence[int],
    key: str,
    losses: Losses,
) -> Pickled:
    """Pickle some leaves of a state.

    Args:
      flat: The state.
      names: Names of its leaves.
      numbers: Numbers of the leaves to pickle.
      key: The component's key, for errors.
      losses: Collects what pickles leave out.

    Raises:
      StateError: one cannot be pickled, or an array in it cannot be stored.
    """
    return _Pickling(flat, names, numbers, key, losses).run()


class _Pickling:
    def __init__(
        self,
        flat: Flat,
        names: Sequence[str],
        numbers: Sequence[int],
        key: str,
        losses: Losses,
    ) -> None:
        self._key = key
        self._losses = losses
        self._count = itertools.count(len(flat.names))
        self._leaves = [
            Unit(number, names[number], flat.values[number], 1 << bit)
            for bit, number in enumerate(numbers)
        ]
        self._flat = flat
        self._in_state = _identities(flat, set(numbers))
        self._arrays: dict[int, Array] = {}
        self._inside: dict[int, tuple[str, np.ndarray]] = {}
        # Objects by id, kept alive so that the id stays unique, and their holders.
        self._held: dict[int, tuple[Any, int]] = {}
        self._parts: dict[int, Unit] = {}
        self._waiting: list[tuple[int, int, Unit]] = []

    def run(self) -> Pickled:
        self._trace(self._leaves)
        self._copy_circles()
        self._separate()
        result = Pickled([], [], list(self._inside.values()), 0)
        for unit in [*self._leaves, *self._parts.values()]:
            result.leaves.extend(self._stored(unit, result.arrays))
        return result._replace(next_number=next(self._count))

    def _stored(
        self, unit: Unit, arrays: list[tuple[int, str, np.ndarray]]
    ) -> Iterator[Stored]:
        """Yield new arrays that a unit refers to, and the unit; list NumPy arrays."""
        for thing in unit.positions:
            if isinstance(thing, Array) and thing.number < 0:
                thing.number = next(self._count)
                if thing.encoded is None:
                    arrays.append((thing.number, thing.name, thing.value))
                else:
                    yield Stored(thing.number, thing.name, thing.encoded)
        parts = [x.number if isinstance(x, Array) else x for x in unit.positions]
        encoded = encode_pickle(unit.payload, parts)
        yield Stored(unit.number, unit.name, encoded)

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
            for identity, number in list(self._in_state.items()):
                if number in circular:
                    del self._in_state[identity]
            self._trace(
                [x for x in self._leaves if not circular.isdisjoint(x.numbers())]
            )
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
            if unit.name not in names and not unit.is_part:
                names.append(unit.name)

        try:
            unit.payload = pickles.dump(unit.value, out_of_band, lost)
        except StateError:
            raise
        except Exception as error:
            name = tree.full_name(self._key, unit.name)
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
        leaves.check(item, kind, tree.full_name(self._key, name))
        if self._stays(item, kind, unit):
            return None
        array = self._arrays.get(id(item))
        if array is None:
            try:
                encoded = None
                if kind is not NUMPY:
                    full_name = tree.full_name(self._key, name)
                    encoded = leaves.encode_named(item, kind, full_name)
                array = Array(item, name, encoded)
            except UnstorableError:
                return None
            self._arrays[id(item)] = array
        return unit.position(array)

    def _stays(self, item: Any, kind: Kind, unit: Unit) -> bool:
        """Return whether an object stays in the pickle, and note arrays that stay."""
        if not kind.is_array:
            if issubclass(type(item), np.ndarray) and not reductions.takes(item):
                self._inside[id(item)] = unit.name, np.ndarray.view(item, np.ndarray)
            return True
        if kind is NUMPY and not has_bytes(item):
            self._inside[id(item)] = unit.name, item
            return True
        return False

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
            self._parts[holders] = Unit(next(self._count), name, [], holders)
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

"""JAX arrays, typed keys, the data of such keys, and arrays without elements."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import MismatchError, ReadError, reason
from ..format import dtypes
from ..format.manifest import LeafGroup
from . import jax_arrays, jax_parts, jax_places
from .jax_arrays import KeyData
from .jax_batches import Group
from .jax_places import Wanted
from .kind import ArrayKind, Encoded, FitAll, Form, Kind, Spec, cast, dtype_of
from .numpy_kinds import NUMPY
from .python_kinds import Opaque
from .remote import Remote


def _build(groups: Sequence[LeafGroup], decoded: Sequence[list[Any]], key: str) -> None:
    """Make arrays and keys, all together.

    Raises:
      MismatchError: JAX would silently halve the width of an element type.
      ReadError: this JAX lacks a generator of keys.
    """
    pairs = [(x, arrays) for x, arrays in zip(groups, decoded, strict=True) if arrays]
    for group, arrays in pairs:
        if jax_arrays.narrows(arrays[0].dtype):
            raise MismatchError(
                f"{key}/{group.names[0]} is a JAX array of {arrays[0].dtype}, which "
                f"JAX would silently make 32 bits wide. Set jax_enable_x64, as the run "
                f"that saved it did."
            )
    is_key = KEY.name.__eq__
    jax_arrays.put(
        [Group(arrays, bool(x.value) and not is_key(x.kind)) for x, arrays in pairs]
    )
    for group, arrays in pairs:
        if is_key(group.kind):
            arrays[:] = [_wrap_key(array, group, key) for array in arrays]


def _wrap_key(data: Any, group: LeafGroup, key: str) -> Any:
    try:
        return jax_arrays.wrap_key(data, group.value)
    except (ValueError, TypeError) as error:  # The save may be good.
        raise ReadError(
            f"{key}/{group.names[0]} holds typed keys of {group.value!r}, which the "
            f"installed JAX does not make: {reason(error)}. Install one that does."
        ) from error


def _wanted(current: Any, array: np.ndarray, taken: Spec | None) -> Wanted:
    """Return the array that `current` is replaced by, and whether it is weakly typed.

    Args:
      current: A JAX array, typed keys, or the abstract form of either.
      array: The saved elements.
      taken: As for `Kind.fit`.
    """
    if taken is not None:
        # It may come from JAX, where its type may have been weak.
        weak = taken.dtype == current.dtype if taken.weak is None else taken.weak
        return Wanted(current, array, weak)
    if array.dtype != current.dtype and not jax_arrays.is_key(current):
        array = cast(array, current.dtype)
    return Wanted(current, array, getattr(current, "weak_type", False))


class _Placed(Kind):
    """Leaves that are on devices of JAX, or will be."""

    def where(self, current: Any) -> str | None:
        return str(current.sharding or "the default device")

    device_key = staticmethod(jax_places.device_key)

    def fit(self, current: Any, value: Any, kind: Kind, taken: Spec | None) -> Any:
        if taken is not None and taken.kind != "array":
            return value
        current, array, weak = _wanted(current, kind.numbers(value), taken)
        return jax_places.like(current, array, weak=weak)

    @staticmethod
    def _fit_all(found: Sequence[tuple[Any, np.ndarray, Spec | None]]) -> list[Any]:
        return jax_places.like_all([_wanted(*one) for one in found])

    fit_all: FitAll | None = _fit_all


class _Abstract(_Placed, Opaque):
    """Arrays without elements, to load into."""

    is_abstract = True

    def spec(self, value: Any) -> Spec:
        return (KEY if jax_arrays.is_key(value) else JAX).spec(value)

    misplaced = staticmethod(jax_places.misplaced)


class _Arrays(_Placed, ArrayKind):
    name = "jax"
    is_of_type = True
    is_immutable = True  # As they may share memory with NumPy arrays.
    is_known_by_identity = True
    fetch = staticmethod(jax_arrays.fetch)
    remote: Callable[[Any], Remote | None] | None = staticmethod(jax_parts.remote)
    build = staticmethod(_build)
    library = "JAX"
    spec_key: Callable[[Any], Any] | None = operator.attrgetter(
        "dtype", "shape", "weak_type"
    )

    @property
    def is_stable(self) -> bool:
        return jax_arrays.keeps_donated()

    def recognise(self, value: Any) -> Kind | None:
        if not jax_arrays.is_any(value):
            return None
        if jax_arrays.is_abstract(value):
            return ABSTRACT
        return KEY if jax_arrays.is_key(value) else JAX

    problem = staticmethod(jax_arrays.problem)

    def encode(self, value: Any, fetched: Any) -> Encoded:
        weak = True if value.weak_type else None
        form = Form(self.name, dtypes.encode(fetched.dtype), value.shape, value=weak)
        if type(fetched) is not Remote:
            fetched = np.asarray(fetched, order="C")
        return form, fetched, None

    def spec(self, value: Any) -> Spec:
        shape, weak = tuple(value.shape), bool(value.weak_type)
        return Spec("array", value.dtype, shape, weak, self)

    def specs(self, group: LeafGroup) -> list[Spec]:
        spec = Spec(
            "array", dtype_of(group.dtype), group.shape, bool(group.value), self
        )
        return [spec] * len(group.names)

    def narrowing(self, dtype: np.dtype[Any]) -> str | None:
        if jax_arrays.narrows(dtype):
            return "which JAX would silently make 32 bits wide: set jax_enable_x64"
        return None

    def numbers(self, value: Any) -> np.ndarray:
        return jax_arrays.fetch([value])[0]


class _Keys(_Arrays):
    name = "key"
    is_known_by_identity = False
    remote = None
    fit_all = None
    spec_key: Callable[[Any], Any] | None = ArrayKind.spec_key
    recognise = Kind.recognise

    def encode(self, value: Any, fetched: Any) -> Encoded:
        storage = np.asarray(fetched, order="C")
        generator = jax_arrays.implementation(value)
        code = dtypes.encode(storage.dtype)
        return Form(self.name, code, storage.shape, value=generator), storage, None

    def spec(self, value: Any) -> Spec:
        return Spec("key", jax_arrays.implementation(value), tuple(value.shape))

    def specs(self, group: LeafGroup) -> list[Spec]:
        return [Spec("key", group.value, group.shape[:-1])] * len(group.names)


class _KeyData(_Keys):
    """Data of typed keys: it is saved as keys and loaded as data."""

    types = (KeyData,)

    def unwrapped(self, current: Any) -> tuple[Any, Kind]:
        data = current.data
        return data, NUMPY if isinstance(data, np.ndarray) else JAX


JAX, KEY, KEY_DATA, ABSTRACT = _Arrays(), _Keys(), _KeyData(), _Abstract()

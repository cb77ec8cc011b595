"""NumPy arrays → JAX arrays and typed keys, where others are: device and sharding."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from . import jax_batches
from .jax_arrays import (
    implementation,
    is_abstract,
    is_committed,
    is_key,
    keeps_donated,
    unshared,
    weaken,
    wrap_key,
)
from .jax_batches import Group


def like(current: Any, array: Any, *, weak: bool = False) -> Any:
    """Return a NumPy array or key data as a JAX array in the place of `current`.

    Args:
      current: A JAX array or typed keys, which may be deleted, or the abstract form of
        either, with or without a sharding.
      array: Elements of the same shape, or uint32[..., n] for keys.
      weak: Whether the result is weakly typed.
    """
    jax, sharding = sys.modules["jax"], _sharding(current)
    with _default_device(current) if sharding is None else contextlib.nullcontext():
        if is_key(current):
            keys = wrap_key(jax.device_put(unshared(array)), implementation(current))
            return jax.device_put(keys, sharding)
        placed = _place(array, sharding)
        return weaken(placed) if weak else placed


class Wanted(NamedTuple):
    """What `like` is asked for: its arguments."""

    current: Any
    array: np.ndarray
    weak: bool


def like_all(wanted: Sequence[Wanted]) -> list[Any]:
    """Return what `like` returns for each, many small arrays made together.

    Returns:
      The arrays; None for keys, for arrays on several devices, for large ones and for
      those of which there are few.

    Raises:
      RuntimeError, ValueError: JAX cannot make the arrays.
    """
    found: dict[Any, dict[Any, list[int]]] = {}
    for number, (current, array, weak) in enumerate(wanted):
        place = _one_place(current)
        if place is not None:
            forms = found.setdefault(place, {})
            forms.setdefault((array.dtype, array.shape, weak), []).append(number)
    made: list[Any] = [None] * len(wanted)
    for (device, sharding), forms in found.items():
        groups = [
            Group([wanted[number].array for number in numbers], form[-1])
            for form, numbers in forms.items()
        ]
        with sys.modules["jax"].default_device(device):
            jax_batches.put(groups, lambda rest: [None] * len(rest), sharding)
        for numbers, (arrays, is_weak) in zip(forms.values(), groups, strict=True):
            for number, one in zip(numbers, arrays, strict=True):
                is_left = is_weak and one is not None and not one.weak_type
                made[number] = weaken(one) if is_left else one
    return made


def _one_place(current: Any) -> tuple[Any, Any] | None:
    """Return the default device for `put`, and its sharding; None for other places."""
    if is_key(current):
        return None
    sharding = current.sharding
    if sharding is None:
        return sys.modules["jax"].config.jax_default_device, None
    if type(sharding) is not sys.modules["jax"].sharding.SingleDeviceSharding:
        return None
    (device,) = sharding.device_set
    is_free = not is_abstract(current) and not is_committed(current)
    return device, None if is_free else sharding


def _place(array: np.ndarray, sharding: Any) -> Any:
    jax = sys.modules["jax"]
    if keeps_donated() or not isinstance(sharding, jax.sharding.Sharding):
        return jax.device_put(unshared(array), sharding)
    # JAX may share the memory of a shard that begins where the array does not.
    on_one = functools.partial(
        jax.sharding.SingleDeviceSharding, memory_kind=sharding.memory_kind
    )
    places = sharding.addressable_devices_indices_map(array.shape).items()
    shards = [jax.device_put(unshared(array[x]), on_one(one)) for one, x in places]
    make = jax.make_array_from_single_device_arrays
    return make(array.shape, sharding, shards)


def misplaced(current: Any) -> str | None:
    """Return the sharding of an abstract array if its shape does not allow it."""
    sharding = _sharding(current) if is_abstract(current) else None
    if sharding is None or not hasattr(sharding, "shard_shape"):
        return None
    try:
        sharding.shard_shape(tuple(current.shape))
    except (ValueError, IndexError):
        return str(sharding)
    return None


def device_key(current: Any) -> Any:
    """Return the properties of an array that `like` gives to its result."""
    is_weak = getattr(current, "weak_type", False)
    return current.sharding, _sharding(current) is None, is_weak


def _sharding(current: Any) -> Any:
    """Return the sharding that an array is committed to, or None.

    A computation moves uncommitted arrays to the devices of its other arrays, and
    refuses arrays that are committed to different devices.
    """
    sharding = current.sharding
    if is_abstract(current):
        # A mesh from eval_shape has no devices; the current mesh has them.
        mesh = getattr(sharding, "mesh", None)
        is_abstract_mesh = isinstance(mesh, sys.modules["jax"].sharding.AbstractMesh)
        return sharding.spec if is_abstract_mesh else sharding
    if is_committed(current) or len(sharding.device_set) > 1:
        return sharding
    return None


def _default_device(current: Any) -> contextlib.AbstractContextManager[Any]:
    """Make the device of an array the default device, if the array has one."""
    if current.sharding is None:
        return contextlib.nullcontext()
    (device,) = current.sharding.device_set
    return sys.modules["jax"].default_device(device)  # type: ignore[no-any-return]

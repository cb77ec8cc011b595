"""JAX arrays and typed PRNG keys ⇄ NumPy arrays.

JAX is looked up, never imported, until a save holds its arrays. Transfers are
explicit, so they are allowed under `jax_transfer_guard="disallow"`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np


def is_array(value: Any) -> bool:
    """Tell whether the value is a JAX array, a typed key or a tracer."""
    array = getattr(sys.modules.get("jax"), "Array", None)
    return array is not None and isinstance(value, array)


def is_key(value: Any) -> bool:
    """Tell whether the JAX array is one of typed PRNG keys."""
    jax = sys.modules["jax"]
    return bool(jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key))


def problem(value: Any) -> str | None:
    """Say why the JAX array cannot be saved and what to do, or return None."""
    jax = sys.modules["jax"]
    if isinstance(value, jax.core.Tracer):
        return "is a tracer: call save() outside of jit, grad and vmap"
    if value.is_deleted():
        return (
            "is a deleted JAX array: it was donated to a jitted function or "
            "delete() was called; save what that function returned instead"
        )
    if not value.is_fully_addressable:
        return (
            "is spread over several hosts: gather it first, for example with "
            "jax.experimental.multihost_utils.process_allgather"
        )
    return None


def fetch(values: Sequence[Any]) -> list[np.ndarray]:
    """Return JAX arrays and key data as NumPy arrays; on CPU they share memory.

    All transfers are started before the first is waited for. An array whose memory is
    shared keeps it, even if the caller donates it.
    """
    jax = sys.modules["jax"]
    values = [jax.random.key_data(x) if is_key(x) else x for x in values]
    arrays = [_view(value) for value in values]
    others = [x for x, array in zip(values, arrays, strict=True) if array is None]
    fetched = iter(jax.device_get(others))
    return [next(fetched) if array is None else array for array in arrays]


def _view(value: Any) -> np.ndarray | None:
    """Return a view of the memory, at a fraction of `device_get`'s cost.

    Returns:
      None if the array is not in the machine's memory, in several pieces, or of an
      element type that has no buffer, such as bfloat16.
    """
    try:
        return np.asarray(memoryview(value))
    except (BufferError, TypeError):
        return None


def implementation(key: Any) -> str:
    """Return the name of a typed key's random number generator."""
    found = sys.modules["jax"].random.key_impl(key)
    # Until 0.4.34 or so an object that prints as an abbreviation.
    return str(getattr(getattr(found, "_impl", None), "name", found))


def narrows(dtype: np.dtype[Any]) -> bool:
    """Tell whether JAX would silently halve the width of this element type."""
    wide = dtype.name in ("int64", "uint64", "float64", "complex128")
    return wide and not importlib.import_module("jax").config.jax_enable_x64


def put(arrays: Sequence[np.ndarray]) -> list[Any]:
    """Return the arrays as JAX arrays on the default device."""
    return list(importlib.import_module("jax").device_put(list(arrays)))


def weaken(array: Any) -> Any:
    """Return the JAX array with a weak type, as Python scalars give."""
    primitives = importlib.import_module("jax.extend.core.primitives")
    return primitives.convert_element_type_p.bind(
        array, new_dtype=array.dtype, weak_type=True, sharding=None
    )


def wrap_key(data: Any, implementation: str) -> Any:
    """Return the JAX array of key data as typed keys."""
    return sys.modules["jax"].random.wrap_key_data(data, impl=implementation)


def like(current: Any, array: np.ndarray) -> Any:
    """Return the NumPy array as a JAX array where and as `current` is."""
    jax = sys.modules["jax"]
    placed = jax.device_put(array, current.sharding)
    return weaken(placed) if getattr(current, "weak_type", False) else placed


def like_key(current: Any, data: np.ndarray) -> Any:
    """Return key data, uint32[..., n], as typed keys where `current` is."""
    jax = sys.modules["jax"]
    keys = wrap_key(jax.device_put(data), implementation(current))
    return jax.device_put(keys, current.sharding)

"""JAX arrays and typed PRNG keys ⇄ NumPy arrays.

JAX is looked up in `sys.modules`, and imported only if a save holds its arrays.
Transfers are explicit, so `jax_transfer_guard="disallow"` allows them.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from msgspec import Struct

from ..user import attributes
from . import jax_batches
from .jax_batches import Group


class KeyData(Struct, frozen=True, eq=False):
    """Data of typed keys, as `io_callback` passes it.

    Attributes:
      data: uint32[..., n] of NumPy or JAX.
      implementation: Name of the keys' random number generator.
    """

    data: Any
    implementation: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the keys."""
        return tuple(self.data.shape[:-1])

    @property
    def dtype(self) -> str:
        """Name of the generator, in place of the element type of the keys."""
        return self.implementation


_SHARED_ALIGN = 16  # Memory with this alignment, or more, JAX may share.
# Number of elements in the data of one key.
KEY_SIZES = {"threefry2x32": 2, "rbg": 4, "unsafe_rbg": 4}


def as_keys(value: Any, implementation: str, shape: tuple[int, ...]) -> Any:
    """Return the value as key data if it can be the data of such keys."""
    is_data = isinstance(value, np.ndarray) or (is_array(value) and not is_key(value))
    expected = (*shape, KEY_SIZES.get(implementation))
    if is_data and value.dtype == np.uint32 and value.shape == expected:
        # The caller may write to the array again.
        data = value.copy() if isinstance(value, np.ndarray) else value
        return KeyData(data, implementation)
    return value


def is_any(value: Any) -> bool:
    """Return whether the value is a JAX array or a `jax.ShapeDtypeStruct`."""
    return is_array(value) or is_abstract(value)


def is_array(value: Any) -> bool:
    """Return whether the value is a JAX array, a typed key or a tracer."""
    return attributes.is_instance(value, getattr(sys.modules.get("jax"), "Array", ()))


def is_key(value: Any) -> bool:
    """Return whether the JAX array is one of typed PRNG keys, or their data."""
    if type(value) is KeyData:
        return True
    if isinstance(value.dtype, np.dtype):
        return False
    jax = sys.modules["jax"]
    return bool(jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key))


def problem(value: Any) -> str | None:
    """Return why the JAX array cannot be saved and what to do, or None."""
    value = value.data if type(value) is KeyData else value
    if isinstance(value, np.ndarray):
        return None
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
    """Return JAX arrays and key data as NumPy arrays, to which nothing may write.

    On the CPU they share the memory, which stays as it is if the caller donates the
    array, but see `keeps_donated`. All transfers from other devices start before this
    waits for the first.
    """
    values = [_data(x) if is_key(x) else x for x in values]
    return _read(values, lambda others: jax_batches.fetch(others, _fetch))


def _fetch(values: Sequence[Any]) -> list[np.ndarray]:
    return _read(_pinned(values), sys.modules["jax"].device_get)


def _data(key: Any) -> Any:
    return key.data if type(key) is KeyData else sys.modules["jax"].random.key_data(key)


def _read(
    values: Sequence[Any], otherwise: Callable[[list[Any]], Sequence[np.ndarray]]
) -> list[np.ndarray]:
    """Return views of arrays; `otherwise` reads those that have none, all at once."""
    views = [_view(value) for value in values]
    others = [x for x, view in zip(values, views, strict=True) if view is None]
    read = iter(otherwise(others) if others else ())
    return [next(read) if view is None else view for view in views]


def _pinned(values: Sequence[Any]) -> Sequence[Any]:
    """Return copies of accelerators' arrays in pinned host memory.

    This is several times as fast as `device_get`, which also keeps its copy with the
    array. JAX uses the pinned memory again for the next transfer.
    """
    jax = sys.modules["jax"]
    far = [x for x in values if is_far(x)]
    if not far:
        return values
    try:
        places = [x.sharding.with_memory_kind("pinned_host") for x in far]
        copies = iter(jax.block_until_ready(jax.device_put(far, places)))
    except (RuntimeError, ValueError):  # There is no pinned memory, or too little.
        return values
    ids = set(map(id, far))
    return [next(copies) if id(value) in ids else value for value in values]


def is_far(value: Any) -> bool:
    """Return whether an array is on an accelerator."""
    return any(device.platform != "cpu" for device in value.devices())


def _view(value: Any) -> np.ndarray | None:
    """Return a view of the memory, at a fraction of the cost of `device_get`.

    Returns:
      The view; None if the array is on another device, in several shards, or of an
      element type without a buffer, such as bfloat16.
    """
    try:
        return np.asarray(memoryview(value))
    except (BufferError, TypeError):
        return None


def implementation(key: Any) -> str:
    """Return the name of a typed key's random number generator."""
    if type(key) is KeyData:
        return str(key.implementation)
    jax, found = sys.modules["jax"], []
    if is_abstract(key):
        jax.eval_shape(lambda traced: found.append(jax.random.key_impl(traced)), key)
    else:
        found.append(jax.random.key_impl(key))
    # Until about JAX 0.4.34, an object whose text is an abbreviation.
    return str(getattr(getattr(found[0], "_impl", None), "name", found[0]))


def narrows(dtype: np.dtype[Any]) -> bool:
    """Return whether JAX would silently halve the width of this element type."""
    wide = dtype.name in ("int64", "uint64", "float64", "complex128")
    return wide and not importlib.import_module("jax").config.jax_enable_x64


def keeps_donated() -> bool:
    """Return whether donating an array leaves its memory alone while others hold it.

    Until JAX 0.6, executables that come from the compilation cache write to that
    memory, and do not keep it if it is NumPy's.
    """
    version: tuple[int, ...] = sys.modules["jax"].__version_info__
    return version >= (0, 6)


def put(groups: Sequence[Group]) -> None:
    """Make JAX arrays of NumPy arrays on the default device, in place."""
    device_put = importlib.import_module("jax").device_put
    jax_batches.put(groups, lambda arrays: device_put(list(map(unshared, arrays))))
    for arrays, is_weak in groups:
        if is_weak:
            arrays[:] = [x if x.weak_type else weaken(x) for x in arrays]


def unshared(array: np.ndarray) -> np.ndarray:
    """Return the array, in memory that JAX will copy if it would not keep it."""
    address = array.__array_interface__["data"][0]
    if keeps_donated() or address % _SHARED_ALIGN or not array.nbytes:
        return array
    offset = min(array.itemsize, _SHARED_ALIGN // 2)
    memory = np.empty(array.nbytes + _SHARED_ALIGN + offset, np.uint8)
    start = (offset - memory.__array_interface__["data"][0]) % _SHARED_ALIGN
    moved = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


def weaken(array: Any) -> Any:
    """Return the JAX array with a weak type, as arrays of Python scalars have.

    The result has the same buffers. A computation would be checked by `jax_debug_nans`,
    and good saves hold NaN, too.
    """
    sharding, buffers = array.sharding, [array]
    if len(sharding.device_set) > 1:
        buffers = [shard.data for shard in array.addressable_shards]
    weak = _weak(array.aval)
    return type(array)(weak, sharding, buffers, committed=is_committed(array))


@functools.lru_cache
def _weak(aval: Any) -> Any:
    return aval.update(weak_type=True)


def wrap_key(data: Any, implementation: str) -> Any:
    """Return the JAX array of key data as typed keys."""
    return sys.modules["jax"].random.wrap_key_data(data, impl=implementation)


def is_abstract(value: Any) -> bool:
    """Return whether the value is a `jax.ShapeDtypeStruct`, without elements."""
    struct = getattr(sys.modules.get("jax"), "ShapeDtypeStruct", ())
    return attributes.is_instance(value, struct)


def is_committed(array: Any) -> bool:
    # Only newer versions have the public name.
    return bool(getattr(array, "committed", getattr(array, "_committed", True)))


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """Let JAX copy arrays that hold NaN or infinity, whatever its debug flags are."""
    jax: Any = sys.modules.get("jax")
    with contextlib.ExitStack() as stack:
        if hasattr(jax, "debug_infs"):  # Not while JAX is being imported.
            stack.enter_context(jax.debug_nans(False))
            stack.enter_context(jax.debug_infs(False))
        yield

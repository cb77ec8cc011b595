"""JAX arrays and typed PRNG keys ⇄ NumPy arrays.

JAX is looked up, never imported, until a save holds its arrays. Transfers are
explicit, so they are allowed under `jax_transfer_guard="disallow"`.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from msgspec import Struct

from ..user import attributes


class KeyData(Struct, frozen=True, eq=False):
    """Data of typed keys, as `io_callback` hands it over.

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
        """Stands for the element type of the keys."""
        return self.implementation


# Elements of the data of one key.
KEY_SIZES = {"threefry2x32": 2, "rbg": 4, "unsafe_rbg": 4}


def as_keys(value: Any, implementation: str, shape: tuple[int, ...]) -> Any:
    """Return the value as key data if it can be that of such keys."""
    is_data = isinstance(value, np.ndarray) or (is_array(value) and not is_key(value))
    expected = (*shape, KEY_SIZES.get(implementation))
    if is_data and value.dtype == np.uint32 and value.shape == expected:
        # Who handed it over may write to it again.
        data = value.copy() if isinstance(value, np.ndarray) else value
        return KeyData(data, implementation)
    return value


def is_any(value: Any) -> bool:
    """Return whether the value is a JAX array, or what has only a shape and a type."""
    jax = sys.modules.get("jax")
    classes = getattr(jax, "Array", ()), getattr(jax, "ShapeDtypeStruct", ())
    return attributes.is_instance(value, classes)


def is_array(value: Any) -> bool:
    """Return whether the value is a JAX array, a typed key or a tracer."""
    array = getattr(sys.modules.get("jax"), "Array", None)
    return array is not None and attributes.is_instance(value, array)


def is_key(value: Any) -> bool:
    """Tell whether the JAX array is one of typed PRNG keys, or their data."""
    if type(value) is KeyData:
        return True
    if isinstance(value.dtype, np.dtype):
        return False
    jax = sys.modules["jax"]
    return bool(jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key))


def problem(value: Any) -> str | None:
    """Say why the JAX array cannot be saved and what to do, or return None."""
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
    """Return JAX arrays and key data as NumPy arrays, which are not to be written to.

    On the CPU they share memory, and keep it, even if the caller donates the array. All
    transfers from elsewhere are started before the first is waited for.
    """
    jax = sys.modules["jax"]
    values = [_data(x) if is_key(x) else x for x in values]
    return _read(values, lambda others: _read(_pinned(others), jax.device_get))


def _data(key: Any) -> Any:
    return key.data if type(key) is KeyData else sys.modules["jax"].random.key_data(key)


def _read(
    values: Sequence[Any], otherwise: Callable[[list[Any]], Sequence[np.ndarray]]
) -> list[np.ndarray]:
    """Return views of arrays, and what a function returns of all that have none."""
    views = [_view(value) for value in values]
    others = [x for x, view in zip(values, views, strict=True) if view is None]
    read = iter(otherwise(others) if others else ())
    return [next(read) if view is None else view for view in views]


def _pinned(values: Sequence[Any]) -> Sequence[Any]:
    """Return arrays of accelerators in host memory that these write to by themselves.

    That is several times as fast as `device_get`, which keeps its copy with the array,
    besides; this memory goes back to JAX, for the next time.
    """
    jax = sys.modules["jax"]
    far = [x for x in values if any(y.platform != "cpu" for y in x.devices())]
    if not far:
        return values
    try:
        places = [x.sharding.with_memory_kind("pinned_host") for x in far]
        copies = iter(jax.block_until_ready(jax.device_put(far, places)))
    except (RuntimeError, ValueError):  # There is none, or too little.
        return values
    ids = set(map(id, far))
    return [next(copies) if id(value) in ids else value for value in values]


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
    if type(key) is KeyData:
        return str(key.implementation)
    jax, found = sys.modules["jax"], []
    if is_abstract(key):
        jax.eval_shape(lambda traced: found.append(jax.random.key_impl(traced)), key)
    else:
        found.append(jax.random.key_impl(key))
    # Until 0.4.34 or so an object that prints as an abbreviation.
    return str(getattr(getattr(found[0], "_impl", None), "name", found[0]))


def narrows(dtype: np.dtype[Any]) -> bool:
    """Tell whether JAX would silently halve the width of this element type."""
    wide = dtype.name in ("int64", "uint64", "float64", "complex128")
    return wide and not importlib.import_module("jax").config.jax_enable_x64


def put(arrays: Sequence[np.ndarray]) -> list[Any]:
    """Return the arrays as JAX arrays on the default device."""
    return list(importlib.import_module("jax").device_put(list(arrays)))


def weaken(array: Any) -> Any:
    """Return the JAX array with a weak type, as Python scalars give.

    It is made of the same buffers, as a computation is what `jax_debug_nans` and others
    watch, and good saves hold NaN, too.
    """
    buffers = [shard.data for shard in array.addressable_shards]
    weak = array.aval.update(weak_type=True)
    return type(array)(weak, array.sharding, buffers, committed=_is_committed(array))


def wrap_key(data: Any, implementation: str) -> Any:
    """Return the JAX array of key data as typed keys."""
    return sys.modules["jax"].random.wrap_key_data(data, impl=implementation)


# In the place of another


def is_abstract(value: Any) -> bool:
    """Tell whether the value has the shape and type of an array and no elements."""
    struct = getattr(sys.modules.get("jax"), "ShapeDtypeStruct", None)
    return struct is not None and attributes.is_instance(value, struct)


def abstract(shape: tuple[int, ...], dtype: Any, *, weak: bool) -> Any:
    """Return the abstract form of an array."""
    return sys.modules["jax"].ShapeDtypeStruct(shape, dtype, weak_type=weak)


def like(current: Any, array: Any, *, weak: bool = False) -> Any:
    """Return a NumPy array or key data as a JAX array where `current` is.

    Args:
      current: A JAX array, which may be deleted, typed keys, or the abstract form of
        either, whose sharding counts if it has one.
      array: Elements of the same shape, or uint32[..., n] for keys.
      weak: Whether it becomes weakly typed.
    """
    jax, sharding = sys.modules["jax"], _sharding(current)
    with _default_device(current) if sharding is None else contextlib.nullcontext():
        if is_key(current):
            keys = wrap_key(jax.device_put(array), implementation(current))
            return jax.device_put(keys, sharding)
        placed = jax.device_put(array, sharding)
        return weaken(placed) if weak else placed


def misplaced(current: Any) -> str | None:
    """Say which sharding an abstract array has that its shape cannot have, or None."""
    sharding = _sharding(current) if is_abstract(current) else None
    if sharding is None or not hasattr(sharding, "shard_shape"):
        return None
    try:
        sharding.shard_shape(tuple(current.shape))
    except (ValueError, IndexError):
        return str(sharding)
    return None


def device_key(current: Any) -> Any:
    """Return what `like` makes of an array, besides its elements."""
    is_weak = getattr(current, "weak_type", False)
    return current.sharding, _sharding(current) is None, is_weak


def _sharding(current: Any) -> Any:
    """Return where an array is committed to be, or None.

    Computations take an array that is not committed to where their others are, and
    refuse those that are committed to different places.
    """
    sharding = current.sharding
    if is_abstract(current):
        # The mesh that eval_shape gives has no devices: the current one has.
        mesh = getattr(sharding, "mesh", None)
        is_abstract_mesh = isinstance(mesh, sys.modules["jax"].sharding.AbstractMesh)
        return sharding.spec if is_abstract_mesh else sharding
    if _is_committed(current) or len(sharding.device_set) > 1:
        return sharding
    return None


def _is_committed(array: Any) -> bool:
    # Public in newer versions only.
    return bool(getattr(array, "committed", getattr(array, "_committed", True)))


def _default_device(current: Any) -> contextlib.AbstractContextManager[Any]:
    """Make the device of an array the one for new arrays, if it has one."""
    if current.sharding is None:
        return contextlib.nullcontext()
    (device,) = current.sharding.device_set
    return sys.modules["jax"].default_device(device)  # type: ignore[no-any-return]


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """Let JAX copy arrays that hold NaN or infinity, whatever its debug flags are."""
    jax: Any = sys.modules.get("jax")
    if not hasattr(jax, "debug_infs"):  # Nor if it is being imported.
        yield
        return
    with jax.debug_nans(False), jax.debug_infs(False):
        yield

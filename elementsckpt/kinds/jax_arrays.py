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
from typing import Any, NamedTuple

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
    jax_batches.put(groups, lambda arrays: device_put(list(map(_own, arrays))))
    for arrays, is_weak in groups:
        if is_weak:
            arrays[:] = [x if x.weak_type else weaken(x) for x in arrays]


def _own(array: np.ndarray) -> np.ndarray:
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
    return type(array)(weak, sharding, buffers, committed=_is_committed(array))


@functools.lru_cache
def _weak(aval: Any) -> Any:
    return aval.update(weak_type=True)


def wrap_key(data: Any, implementation: str) -> Any:
    """Return the JAX array of key data as typed keys."""
    return sys.modules["jax"].random.wrap_key_data(data, impl=implementation)


# Replacing another array


def is_abstract(value: Any) -> bool:
    """Return whether the value is a `jax.ShapeDtypeStruct`, without elements."""
    struct = getattr(sys.modules.get("jax"), "ShapeDtypeStruct", ())
    return attributes.is_instance(value, struct)


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
            keys = wrap_key(jax.device_put(_own(array)), implementation(current))
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
    is_committed = is_abstract(current) or _is_committed(current)
    return device, sharding if is_committed else None


def _place(array: np.ndarray, sharding: Any) -> Any:
    jax = sys.modules["jax"]
    if keeps_donated() or not isinstance(sharding, jax.sharding.Sharding):
        return jax.device_put(_own(array), sharding)
    # JAX may share the memory of a shard that begins where the array does not.
    on_one = functools.partial(
        jax.sharding.SingleDeviceSharding, memory_kind=sharding.memory_kind
    )
    places = sharding.addressable_devices_indices_map(array.shape).items()
    shards = [jax.device_put(_own(array[x]), on_one(device)) for device, x in places]
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
    if _is_committed(current) or len(sharding.device_set) > 1:
        return sharding
    return None


def _is_committed(array: Any) -> bool:
    # Only newer versions have the public name.
    return bool(getattr(array, "committed", getattr(array, "_committed", True)))


def _default_device(current: Any) -> contextlib.AbstractContextManager[Any]:
    """Make the device of an array the default device, if the array has one."""
    if current.sharding is None:
        return contextlib.nullcontext()
    (device,) = current.sharding.device_set
    return sys.modules["jax"].default_device(device)  # type: ignore[no-any-return]


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """Let JAX copy arrays that hold NaN or infinity, whatever its debug flags are."""
    jax: Any = sys.modules.get("jax")
    with contextlib.ExitStack() as stack:
        if hasattr(jax, "debug_infs"):  # Not while JAX is being imported.
            stack.enter_context(jax.debug_nans(False))
            stack.enter_context(jax.debug_infs(False))
        yield

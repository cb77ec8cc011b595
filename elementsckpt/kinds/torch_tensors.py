"""Torch tensors and parameters ⇄ NumPy arrays; torch is imported only if saved."""

from __future__ import annotations

import functools
import importlib
import logging
import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..user.attributes import is_instance
from .remote import Remote

# Element types that NumPy has, and the NumPy types that hold the bytes of the others.
_SHARED_TYPES = (
    *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32"),
    *("int64", "float16", "float32", "float64", "complex64", "complex128"),
)
# Those that all versions of torch take from NumPy as they are.
_DIRECT = frozenset(_SHARED_TYPES) - {"uint16", "uint32", "uint64"}
_HOLDERS = {
    "bfloat16": "<u2",
    "complex32": "<u4",
    "float8_e4m3fn": "|u1",
    "float8_e4m3fnuz": "|u1",
    "float8_e5m2": "|u1",
    "float8_e5m2fnuz": "|u1",
    "float8_e8m0fnu": "|u1",
}
# Names of element types in torch, to their codes in the manifest and the NumPy types
# that hold their bytes.
_CODES = {name: (name, held) for name, held in _HOLDERS.items()}
_CODES |= {name: (np.dtype(name).str, np.dtype(name).str) for name in _SHARED_TYPES}
_NAMES = {code: name for name, (code, _) in _CODES.items()}
_DEVICE, _STRIDES = "device=", "strides="
ALIGN = 64  # Alignment of the memory that torch allocates on the CPU, in bytes.
# Tensors whose elements are partly in other processes, or nowhere. They are known by
# name, so that no module has to be imported.
_SHARDED = frozenset({"DTensor", "ShardedTensor"})
_EMPTY = frozenset({"FakeTensor"})
_UNINITIALIZED = frozenset({"UninitializedParameter", "UninitializedBuffer"})
_logger = logging.getLogger("elementsckpt")


def is_tensor(value: Any) -> bool:
    """Return whether the value is a plain dense tensor or parameter."""
    torch = _torch()
    if torch is None:
        return False
    if type(value) not in (torch.Tensor, torch.nn.Parameter) and not _is_mapped(value):
        return False
    is_strided = value.layout is torch.strided and not value.is_nested
    return is_strided and not value.is_quantized


def name_of(value: Any) -> str | None:
    """Return the name of an element type or device; None for anything else."""
    torch = _torch()
    if torch is None or not is_instance(value, (torch.dtype, torch.device)):
        return None
    return str(value).removeprefix("torch.")


def _torch() -> Any:
    """Return torch if it has been imported completely, else None."""
    torch = sys.modules.get("torch")
    return torch if hasattr(torch, "nn") else None


def _is_mapped(value: Any) -> bool:
    """Return whether it is a tensor in a file; its pickle would hold only the path."""
    mapped = getattr(sys.modules.get("tensordict"), "MemoryMappedTensor", None)
    return mapped is not None and type(value) is mapped


def is_any_tensor(value: Any) -> bool:
    """Return whether the value is a tensor of any class."""
    return is_instance(value, getattr(sys.modules.get("torch"), "Tensor", ()))


def is_uninitialized(value: Any) -> bool:
    """Return whether it belongs to a lazy module and has no shape yet."""
    return is_any_tensor(value) and type(value).__name__ in _UNINITIALIZED


def is_module(value: Any) -> bool:
    """Return whether the value is a torch module."""
    return is_instance(value, getattr(sys.modules.get("torch.nn"), "Module", ()))


def attributes(tensor: Any) -> dict[str, Any]:
    """Return the attributes that were set on a plain tensor."""
    return {} if _is_mapped(tensor) else vars(tensor)


def problem(value: Any) -> str | None:
    """Return why a tensor cannot be saved and what to do, or None.

    Args:
      value: A tensor of any class, or anything else.
    """
    if not is_any_tensor(value):
        return None
    cls: Any = type(value)
    names = _names_in_torch(cls)
    if names & _SHARDED:
        return (
            f"is a {type(value).__name__}, and this process holds only its own shard: "
            f"save what its full_tensor() returns, or what get_model_state_dict() of "
            f"torch.distributed.checkpoint.state_dict does with "
            f"StateDictOptions(full_state_dict=True)"
        )
    if names & _EMPTY:
        return "is a FakeTensor, which has no data: make it without FakeTensorMode"
    if value.is_meta:
        return "is a tensor without data, on the device meta: initialize it first"
    if is_tensor(value) and _name(value) not in _CODES:
        return f"is a tensor of {value.dtype}: convert it to another dtype first"
    return None


@functools.lru_cache
def _names_in_torch(cls: Any) -> set[str]:
    """Return the names of those among a class and its bases that are torch's."""
    bases = [(x.__module__.partition(".")[0], x.__name__) for x in cls.__mro__]
    return {name for package, name in bases if package == "torch"}


def code(tensor: Any) -> str:
    """Return the tensor's dtype as `format.dtypes` encodes it."""
    return _CODES[_name(tensor)][0]


def storage_dtype(code: str) -> np.dtype[Any]:
    """Return the NumPy dtype that holds elements of this dtype."""
    return np.dtype(_CODES[_NAMES[code]][1])


def fetch(tensor: Any) -> np.ndarray:
    """Return the elements as a NumPy array, which shares their memory if it can.

    If the tensor is dense, the axes are in their order in memory.
    """
    torch = sys.modules["torch"]
    plain = tensor.as_subclass(torch.Tensor) if _is_mapped(tensor) else tensor
    if _is_direct(plain):
        direct: np.ndarray = plain.detach().numpy()
        return direct
    plain = plain.detach().resolve_conj().resolve_neg().cpu()
    strides = _strides(tensor)
    if strides is not None:
        plain = plain.permute(_axes(strides))
    shape = tuple(plain.shape)
    data = plain.contiguous().reshape(-1).view(torch.uint8).numpy()
    array: np.ndarray = data.view(storage_dtype(code(tensor)))
    return array.reshape(shape)


def remote(tensor: Any) -> Remote | None:
    """Return a tensor on an accelerator that can be fetched in parts, else None."""
    if not is_far(tensor) or not tensor.is_contiguous():
        return None
    flat = tensor.detach().resolve_conj().resolve_neg().view(-1)
    return Remote(
        storage_dtype(code(tensor)),
        tuple(tensor.shape),
        whole=lambda: fetch(tensor),
        parts=lambda ranges, _: [fetch(flat[start:stop]) for start, stop in ranges],
    )


def is_far(tensor: Any) -> bool:
    """Return whether a tensor is on an accelerator."""
    return bool(tensor.device.type != "cpu")


def _is_direct(tensor: Any) -> bool:
    """Return whether its elements lie in memory as in a NumPy array in C order."""
    is_here = tensor.device.type == "cpu" and tensor.is_contiguous()
    is_lazy = tensor.is_conj() or tensor.is_neg()
    return (
        is_here
        and not is_lazy
        and _strides(tensor) is None
        and (_name(tensor) in _DIRECT)
    )


def numbers(value: Any) -> np.ndarray:
    """Return the elements in C order, wider if NumPy may lack their type."""
    torch, dtype = sys.modules["torch"], value.dtype
    if _name(value) in _HOLDERS:
        dtype = torch.complex64 if dtype.is_complex else torch.float32
    return fetch(value.detach().to(dtype).contiguous())


def fetch_as(current: Any, value: Any) -> np.ndarray:
    """Return elements in C order, converted by torch to the dtype of a tensor.

    Args:
      current: The tensor with the dtype.
      value: The elements: another tensor, or a NumPy array of a dtype that torch has.
    """
    if not is_tensor(value):
        value = sys.modules["torch"].from_numpy(value.copy())
    return fetch(value.detach().to(current.dtype).contiguous())


def _strides(tensor: Any) -> tuple[int, ...] | None:
    """Return the strides of a dense tensor that is not in C order, or None."""
    return _unusual(tuple(tensor.shape), tensor.stride())


@functools.lru_cache(1 << 10)
def _unusual(
    shape: tuple[int, ...], strides: tuple[int, ...]
) -> tuple[int, ...] | None:
    is_usual = 0 in shape or strides == _c_strides(shape)
    return None if is_usual or not _is_dense(shape, strides) else strides


def _c_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides, in elements, of C order."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _is_dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Return whether the elements fill their memory without gaps or overlaps."""
    size = 1
    for stride, length in sorted(zip(strides, shape, strict=True)):
        if length != 1 and stride != size:
            return False
        size *= length
    return True


def _axes(strides: Sequence[int]) -> list[int]:
    """Return the axes in their order in memory."""
    return sorted(range(len(strides)), key=lambda axis: -strides[axis])


def properties(tensor: Any) -> tuple[str, ...]:
    """Return the properties of a tensor besides its elements.

    Returns:
      Some of "parameter", "requires_grad", the strides unless they are those of C
      order, such as "strides=1,3", and the device unless it is the CPU, such as
      "device=cuda:0".
    """
    torch = sys.modules["torch"]
    found = ("parameter",) if isinstance(tensor, torch.nn.Parameter) else ()
    if tensor.requires_grad:
        found = (*found, "requires_grad")
    strides = _strides(tensor)
    if strides is not None:
        found = (*found, f"{_STRIDES}{','.join(map(str, strides))}")
    device = tensor.device
    return found if device.type == "cpu" else (*found, f"{_DEVICE}{device}")


def strides_in(
    properties: Sequence[str], shape: Sequence[int]
) -> tuple[int, ...] | None:
    """Return the strides, in elements, of tensors that are not in C order, or None.

    Raises:
      ValueError: no dense tensor of this shape has them.
    """
    text = _value_of(properties, _STRIDES)
    if text is None:
        return None
    strides = tuple(map(int, text.split(",")))
    if min(strides) < 0 or not _is_dense(shape, strides):
        raise ValueError("strides of elements that do not lie side by side")
    return strides


def _value_of(properties: Sequence[str], prefix: str) -> str | None:
    texts = map(str, properties or ())
    return next((x.removeprefix(prefix) for x in texts if x.startswith(prefix)), None)


def build(
    arrays: Sequence[np.ndarray], code: str, properties: Sequence[str]
) -> list[Any]:
    """Return arrays of one form as tensors.

    Args:
      arrays: The elements of each, at equal distances in memory, which tensors on the
        CPU share if it is aligned.
      code: Their dtype as `format.dtypes` encodes it.
      properties: Their other properties, as `properties` returns them.
    """
    torch = importlib.import_module("torch")
    dtype = getattr(torch, _NAMES[code], None)
    if dtype is None:
        raise ImportError(f"torch has no {code!r}")
    requires_grad = "requires_grad" in properties
    if requires_grad and not (dtype.is_floating_point or dtype.is_complex):
        raise ValueError(f"a tensor of {code} that requires a gradient")
    tensors = _made(arrays, dtype, properties)
    name = _value_of(properties, _DEVICE)
    if name is not None:
        device = _device(name)
        tensors = [tensor.to(device) for tensor in tensors]
    if "parameter" in properties:
        wrap = functools.partial(torch.nn.Parameter, requires_grad=requires_grad)
        return [wrap(tensor) for tensor in tensors]
    return [x.requires_grad_() for x in tensors] if requires_grad else tensors


def _made(
    arrays: Sequence[np.ndarray], dtype: Any, properties: Sequence[str]
) -> list[Any]:
    """Return tensors on the CPU."""
    torch = sys.modules["torch"]
    first = arrays[0] if arrays else np.empty(0)
    if not first.size:
        return [torch.empty(x.shape, dtype=dtype, device="cpu") for x in arrays]
    strides = strides_in(properties, first.shape)
    make = functools.partial(_with_strides, dtype=dtype, strides=strides)
    is_plain = strides is None and first.flags.c_contiguous and first.flags.writeable
    if not is_plain or _name_of(dtype) not in _DIRECT:
        return [make(array) for array in arrays]
    tensors = list(map(torch.from_numpy, arrays))
    if not any(tensor.data_ptr() % ALIGN for tensor in tensors[:2]):
        return tensors  # The others follow at the same distance.
    return [
        make(array) if tensor.data_ptr() % ALIGN else tensor
        for array, tensor in zip(arrays, tensors, strict=True)
    ]


def _with_strides(
    array: np.ndarray, dtype: Any, strides: tuple[int, ...] | None
) -> Any:
    """Return a tensor whose elements lie in memory as strides say, or in C order."""
    strides = _c_strides(array.shape) if strides is None else strides
    flat = _shared(array.transpose(_axes(strides))).view(dtype)
    return flat.as_strided(array.shape, strides)


def _shared(array: np.ndarray) -> Any:
    """Return the bytes of an array as a tensor that is aligned as torch expects."""
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    if not data.flags.writeable:
        data = data.copy()
    tensor = sys.modules["torch"].from_numpy(data)
    # As bytes: torch crashes if it reads 16-byte elements that are not aligned.
    return tensor.clone() if tensor.data_ptr() % ALIGN else tensor


def like(current: Any, array: np.ndarray) -> Any:
    """Return the array as a tensor with the dtype, properties and device of another."""
    return build([array], code(current), properties(current))[0]


@functools.cache
def _device(name: str) -> Any:
    """Return the device of this name, or the CPU if no tensor can be there."""
    torch = sys.modules["torch"]
    try:
        probe = torch.zeros(1, device=name)
        probe.cpu()  # Fails on the device meta, which keeps no elements.
        return probe.device
    except Exception as error:  # The type depends on how torch was built.
        _logger.info("Tensors saved on %s come to the CPU: %s", name, error)
        return torch.device("cpu")


def _name(tensor: Any) -> str:
    return _name_of(tensor.dtype)


@functools.cache
def _name_of(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")

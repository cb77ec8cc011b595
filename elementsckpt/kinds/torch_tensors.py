"""Torch tensors and parameters ⇄ NumPy arrays; torch is imported only if saved."""

from __future__ import annotations

import functools
import importlib
import logging
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..user.attributes import is_instance

# Names of element types in torch, to their codes in the manifest and the NumPy types
# that hold their bytes. NumPy lacks bfloat16 and float8; integers hold these.
_CODES = {
    "bool": ("|b1", "|b1"),
    "uint8": ("|u1", "|u1"),
    "uint16": ("<u2", "<u2"),
    "uint32": ("<u4", "<u4"),
    "uint64": ("<u8", "<u8"),
    "int8": ("|i1", "|i1"),
    "int16": ("<i2", "<i2"),
    "int32": ("<i4", "<i4"),
    "int64": ("<i8", "<i8"),
    "float16": ("<f2", "<f2"),
    "float32": ("<f4", "<f4"),
    "float64": ("<f8", "<f8"),
    "complex32": ("complex32", "<u4"),
    "complex64": ("<c8", "<c8"),
    "complex128": ("<c16", "<c16"),
    "bfloat16": ("bfloat16", "<u2"),
    "float8_e4m3fn": ("float8_e4m3fn", "|u1"),
    "float8_e4m3fnuz": ("float8_e4m3fnuz", "|u1"),
    "float8_e5m2": ("float8_e5m2", "|u1"),
    "float8_e5m2fnuz": ("float8_e5m2fnuz", "|u1"),
    "float8_e8m0fnu": ("float8_e8m0fnu", "|u1"),
}
_NAMES = {code: name for name, (code, _) in _CODES.items()}
_DEVICE, _STRIDES = "device=", "strides="
_ALIGN = 64  # Alignment of the memory that torch allocates on the CPU, in bytes.
# Tensors whose elements are partly in other processes, or nowhere. They are known by
# name, so that no module has to be imported.
_SHARDED = frozenset({"DTensor", "ShardedTensor"})
_EMPTY = frozenset({"FakeTensor"})
_UNINITIALIZED = frozenset({"UninitializedParameter", "UninitializedBuffer"})
_logger = logging.getLogger("elementsckpt")


def is_tensor(value: Any) -> bool:
    """Return whether the value is a plain dense tensor or parameter."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "nn"):
        return False
    if type(value) not in (torch.Tensor, torch.nn.Parameter) and not _is_mapped(value):
        return False
    is_strided = value.layout is torch.strided and not value.is_nested
    return is_strided and not value.is_quantized


def name_of(value: Any) -> str | None:
    """Return the name of an element type or device; None for anything else."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "nn"):
        return None
    if is_instance(value, torch.dtype):
        return str(value).rpartition(".")[2]
    return str(value) if is_instance(value, torch.device) else None


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
    names = {x.__name__ for x in type(value).__mro__ if _is_torch(x)}
    if names & _SHARDED:
        return (
            f"is a {type(value).__name__}, and this process holds only its own shard: "
            f"save what its full_tensor() returns, or what get_model_state_dict() of "
            f"torch.distributed.checkpoint.state_dict does with "
            f"StateDictOptions(full_state_dict=True)"
        )
    if names & _EMPTY:
        return "is a FakeTensor, which has no data: save what FakeTensorMode is not for"
    if value.is_meta:
        return "is a tensor without data, on the device meta: initialize it first"
    if is_tensor(value) and _name(value) not in _CODES:
        return f"is a tensor of {value.dtype}: convert it to another dtype first"
    return None


def _is_torch(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "torch"


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
    plain = plain.detach().resolve_conj().resolve_neg().cpu()
    strides = _strides(tensor)
    if strides is not None:
        plain = plain.permute(_axes(strides))
    shape = tuple(plain.shape)
    data = plain.contiguous().reshape(-1).view(torch.uint8).numpy()
    array: np.ndarray = data.view(storage_dtype(code(tensor)))
    return array.reshape(shape)


def numbers(tensor: Any) -> np.ndarray:
    """Return the elements in C order, wider if NumPy may lack their type."""
    torch, (code, storage) = sys.modules["torch"], _CODES[_name(tensor)]
    dtype = tensor.dtype
    if code != storage:
        dtype = torch.complex64 if dtype.is_complex else torch.float32
    return fetch(tensor.detach().to(dtype).contiguous())


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
    shape, strides = tuple(tensor.shape), tuple(tensor.stride())
    size, usual = 1, []
    for length in reversed(shape):
        usual.append(size)
        size *= length
    is_usual = not size or strides == tuple(reversed(usual))
    return None if is_usual or not _is_dense(shape, strides) else strides


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


def traits(tensor: Any) -> tuple[str, ...]:
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


def strides_in(traits: Sequence[str], shape: Sequence[int]) -> tuple[int, ...] | None:
    """Return the strides, in elements, of tensors that are not in C order, or None.

    Raises:
      ValueError: no dense tensor of this shape has them.
    """
    for trait in map(str, traits or ()):
        if trait.startswith(_STRIDES):
            strides = tuple(map(int, trait.removeprefix(_STRIDES).split(",")))
            if min(strides) < 0 or not _is_dense(shape, strides):
                raise ValueError("strides of elements that do not lie side by side")
            return strides
    return None


def build(array: np.ndarray, code: str, traits: Sequence[str]) -> Any:
    """Return a tensor; on the CPU, it shares the array's memory if that is aligned.

    Args:
      array: Its elements.
      code: Its dtype as `format.dtypes` encodes it.
      traits: Its other properties, as `traits` returns them.
    """
    torch = importlib.import_module("torch")
    dtype = getattr(torch, _NAMES[code], None)
    if dtype is None:
        raise ImportError(f"torch has no {code!r}")
    requires_grad = "requires_grad" in traits
    if requires_grad and not (dtype.is_floating_point or dtype.is_complex):
        raise ValueError(f"a tensor of {code} that requires a gradient")
    tensor = torch.empty(array.shape, dtype=dtype, device="cpu")
    if array.size:
        strides = strides_in(traits, array.shape)
        tensor = _shared(array if strides is None else array.transpose(_axes(strides)))
        tensor = tensor.view(dtype)
        if strides is None:
            tensor = tensor.reshape(array.shape)
        else:
            tensor = tensor.as_strided(array.shape, strides)
    for trait in map(str, traits):
        if trait.startswith(_DEVICE):
            tensor = tensor.to(_device(trait.removeprefix(_DEVICE)))
    if "parameter" in traits:
        return torch.nn.Parameter(tensor, requires_grad=requires_grad)
    return tensor.requires_grad_(requires_grad)


def _shared(array: np.ndarray) -> Any:
    """Return the bytes of an array as a tensor that is aligned as torch expects."""
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    if not data.flags.writeable:
        data = data.copy()
    tensor = sys.modules["torch"].from_numpy(data)
    # As bytes: torch crashes if it reads 16-byte elements that are not aligned.
    return tensor.clone() if tensor.data_ptr() % _ALIGN else tensor


def like(current: Any, array: np.ndarray) -> Any:
    """Return the array as a tensor with the dtype, properties and device of another."""
    return build(array, code(current), traits(current))


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
    return str(tensor.dtype).rpartition(".")[2]

"""Torch tensors and parameters ⇄ NumPy arrays; torch is looked up, not imported."""

from __future__ import annotations

import functools
import importlib
import logging
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

# Element types that both have, by torch's names; NumPy has no bfloat16 or float8, so
# their bytes travel as integers of the same width.
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
_DEVICE = "device="
_ALIGN = 64  # Of the memory that torch takes on the CPU, in bytes.
_logger = logging.getLogger("elementsckpt")


def is_tensor(value: Any) -> bool:
    """Tell whether the value is a plain dense tensor or parameter."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "nn"):
        return False
    if type(value) not in (torch.Tensor, torch.nn.Parameter):
        return False
    return value.layout is torch.strided and not value.is_quantized


def name_of(value: Any) -> str | None:
    """Return the name of an element type or device; None for anything else."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "nn"):
        return None
    if isinstance(value, torch.dtype):
        return str(value).rpartition(".")[2]
    return str(value) if isinstance(value, torch.device) else None


def problem(tensor: Any) -> str | None:
    """Say why the tensor cannot be saved and what to do, or return None."""
    if tensor.is_meta:
        return "is a tensor without data, on the device meta: initialize it first"
    if _name(tensor) not in _CODES:
        return f"is a tensor of {tensor.dtype}: convert it to another dtype first"
    return None


def code(tensor: Any) -> str:
    """Return the tensor's dtype as `elementsckpt.dtypes` encodes it."""
    return _CODES[_name(tensor)][0]


def storage_dtype(code: str) -> np.dtype[Any]:
    """Return the NumPy dtype in which elements of this dtype travel."""
    return np.dtype(_CODES[_NAMES[code]][1])


def fetch(tensor: Any) -> np.ndarray:
    """Return the tensor as a NumPy array, which shares its memory if it can."""
    torch = sys.modules["torch"]
    plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    data = plain.reshape(-1).view(torch.uint8).numpy()
    array: np.ndarray = data.view(storage_dtype(code(tensor)))
    return array.reshape(tuple(tensor.shape))


def traits(tensor: Any) -> tuple[str, ...]:
    """Return what a tensor is beyond its elements.

    Returns:
      Some of "parameter", "requires_grad" and, unless it is the CPU, the device, such
      as "device=cuda:0".
    """
    torch = sys.modules["torch"]
    found = ("parameter",) if isinstance(tensor, torch.nn.Parameter) else ()
    if tensor.requires_grad:
        found = (*found, "requires_grad")
    device = tensor.device
    return found if device.type == "cpu" else (*found, f"{_DEVICE}{device}")


def build(array: np.ndarray, code: str, traits: Sequence[str]) -> Any:
    """Return a tensor, on the CPU one that shares the array's memory if it is aligned.

    Args:
      array: Its elements.
      code: Its dtype as `elementsckpt.dtypes` encodes it.
      traits: What else it is, as `traits` tells.
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
        data = torch.from_numpy(array.reshape(-1).view(np.uint8))
        tensor = data.view(dtype).reshape(array.shape)
        if tensor.data_ptr() % _ALIGN:  # Where some kernels round in other ways.
            tensor = tensor.clone()
    for trait in map(str, traits):
        if trait.startswith(_DEVICE):
            tensor = tensor.to(_device(trait.removeprefix(_DEVICE)))
    if "parameter" in traits:
        return torch.nn.Parameter(tensor, requires_grad=requires_grad)
    return tensor.requires_grad_(requires_grad)


def like(current: Any, array: np.ndarray) -> Any:
    """Return the array as a tensor where and as `current` is."""
    return build(array, code(current), traits(current))


@functools.cache
def _device(name: str) -> Any:
    """Return the device of this name, or the CPU if nothing can be kept there."""
    torch = sys.modules["torch"]
    try:
        probe = torch.zeros(1, device=name)
        probe.cpu()  # Refused by the device meta, which would lose what it is given.
        return probe.device
    except Exception as error:  # Which one depends on what torch was built with.
        _logger.info("Tensors saved on %s come to the CPU: %s", name, error)
        return torch.device("cpu")


def _name(tensor: Any) -> str:
    return str(tensor.dtype).rpartition(".")[2]

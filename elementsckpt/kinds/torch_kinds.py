"""Dense tensors of torch, and tensors that only pickle holds."""

from __future__ import annotations

import operator
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..format import dtypes
from ..format.manifest import LeafGroup
from . import torch_tensors
from .kind import ArrayKind, Encoded, Form, Kind, Spec, Stored, cast, dtype_of
from .numpy_kinds import aligned
from .python_kinds import Opaque


class _Tensors(ArrayKind):
    name = "torch"
    refusals = (RuntimeError,)  # Raised by tensors whose elements cannot be read.
    problem = staticmethod(torch_tensors.problem)
    numbers = staticmethod(torch_tensors.numbers)

    def recognise(self, value: Any) -> Kind | None:
        if torch_tensors.is_tensor(value) and not torch_tensors.attributes(value):
            return TENSOR
        return OPAQUE_TENSOR if torch_tensors.is_any_tensor(value) else None

    remote = staticmethod(torch_tensors.remote)

    def encode(self, value: Any, fetched: Any) -> Encoded:
        code, shape = torch_tensors.code(value), tuple(value.shape)
        form = Form("torch", code, shape, value=torch_tensors.properties(value))
        return form, torch_tensors.fetch(value) if fetched is None else fetched, None

    def storage(self, group: LeafGroup) -> tuple[np.dtype[Any], tuple[int, ...]]:
        return torch_tensors.storage_dtype(group.dtype), group.shape

    def decode(self, group: LeafGroup, stored: Stored) -> list[Any]:
        dtype, shape, size = stored.layout
        if stored.is_numpy:
            dtype = dtypes.decode(group.dtype)
        strides = torch_tensors.strides_in(group.value, shape)
        if strides is not None:
            strides = tuple(stride * dtype.itemsize for stride in strides)
        stored = stored._replace(layout=(dtype, shape, size))
        arrays = stored.elements(group, strides)
        if stored.is_numpy or stored.is_mapped:
            return arrays
        return aligned(arrays, stored, torch_tensors.ALIGN) or arrays

    def build(
        self, groups: Sequence[LeafGroup], decoded: Sequence[list[Any]], key: str
    ) -> None:
        for group, arrays in zip(groups, decoded, strict=True):
            arrays[:] = torch_tensors.build(arrays, group.dtype, group.value or ())

    def is_numpy(self, group: LeafGroup) -> bool:
        return isinstance(dtype_of(group.dtype), np.dtype)

    def spec(self, value: Any) -> Spec:
        code = torch_tensors.code(value)
        return Spec("array", dtype_of(code), tuple(value.shape))

    def where(self, current: Any) -> str | None:
        return str(current.device)

    def device_key(self, current: Any) -> Any:
        return current.device, torch_tensors.properties(current)

    def comparable(self, value: Any) -> Any:
        return value.detach().contiguous()  # Whatever its strides.

    def fit(self, current: Any, value: Any, kind: Kind, taken: Spec | None) -> Any:
        wanted = dtype_of(torch_tensors.code(current))
        if kind is self:
            array = torch_tensors.fetch_as(current, value)
        elif isinstance(wanted, np.dtype):
            array = cast(kind.numbers(value), wanted)
        else:
            array = torch_tensors.fetch_as(current, kind.numbers(value))
        return torch_tensors.like(current, array)


class _OpaqueTensors(Opaque):
    is_vacant = staticmethod(torch_tensors.is_uninitialized)
    problem = staticmethod(torch_tensors.problem)


TENSOR, OPAQUE_TENSOR = _Tensors(), _OpaqueTensors()


# Pickles of tensors for which torch's own pickling would lose something.


def reduce(value: Any) -> tuple[Any, ...] | None:
    """Return how to pickle a value if it is a tensor that torch changes, else None.

    Torch loses the class of a parameter, `requires_grad` of a sparse tensor, and
    whether a tensor of another class is a leaf of the graph. The elements of a plain
    tensor with attributes stay a tensor, which is stored like others.
    """
    if not torch_tensors.is_any_tensor(value):
        return None
    torch = sys.modules["torch"]
    cls, parameter = type(value), torch.nn.Parameter
    if torch_tensors.is_tensor(value):
        attributes = torch_tensors.attributes(value)
        return _with(_plain(value), attributes) if attributes else None
    says_itself = cls.__reduce_ex__ not in (
        torch.Tensor.__reduce_ex__,
        parameter.__reduce_ex__,
    )
    if isinstance(value, parameter) and (cls is parameter or says_itself):
        return None
    if value.requires_grad:
        bare = value.detach()
        if type(bare) is not cls:
            bare = bare.as_subclass(cls)
        made = operator.methodcaller("requires_grad_"), (bare,)
        return _with(made, {} if says_itself else vars(value))
    if isinstance(value, parameter):
        bare = value.detach().as_subclass(torch.Tensor)
        return _with((operator.methodcaller("as_subclass", cls), (bare,)), vars(value))
    return None


def _plain(tensor: Any) -> tuple[Any, ...]:
    """Return how to make a plain tensor from one without attributes."""
    torch = sys.modules["torch"]
    bare = tensor.detach().requires_grad_(tensor.requires_grad)
    if isinstance(tensor, torch.nn.Parameter):
        bare = torch.nn.Parameter(bare, requires_grad=tensor.requires_grad)
    return torch._utils._set_obj_state, (bare, None)


def _with(made: tuple[Any, ...], attributes: dict[str, Any]) -> tuple[Any, ...]:
    """Return how to make a tensor and set its attributes, which may refer to it."""
    set_state = sys.modules["torch"]._utils._set_obj_state
    return *made, attributes or None, None, None, set_state

"""Pickles of tensors for which torch's own pickling would lose something."""

from __future__ import annotations

import operator
import sys
from typing import Any

from . import torch_tensors


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

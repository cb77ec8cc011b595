"""Finds what torch modules and optimizers would not load, before anything changes.

A module loads the tensors that fit before it raises. An optimizer checks no shapes.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from msgspec import Struct

from ..kinds.torch_tensors import is_any_tensor, is_uninitialized
from ..user import attributes

# Batch norms of old versions did not save it, and new ones load without it.
_OPTIONAL = "num_batches_tracked"
_EXTRA = "_extra_state"  # May have any shape, even if it is a tensor.
# Optimizers whose state has other shapes than the parameters.
_OTHER_SHAPES = frozenset({"Adafactor", "LBFGS"})


class Misfit(Struct):
    """The leaves of a state dict that do not fit, by name.

    Attributes:
      problems: What is wrong, by name.
      missing: Names that only the module has.
      unexpected: Names that only the state dict has.
    """

    problems: dict[str, str] = {}
    missing: list[str] = []
    unexpected: list[str] = []


def misfit(load: Callable[[Any], Any], state: Any) -> Misfit:
    """Return what in a state would not fit.

    Args:
      load: The method that will take the state. Only torch's own `load_state_dict` is
        checked, as nothing is known of others.
      state: The state that it will take.
    """
    method, owner = attributes.get(load, "__func__"), attributes.get(load, "__self__")
    if method is None or not isinstance(state, Mapping):
        return Misfit()
    if method is _method_of("torch.nn", "Module") and _loads_by_name(owner):
        return _of_module(owner.state_dict(), state)
    is_optimizer = method is _method_of("torch.optim", "Optimizer")
    if is_optimizer and not owner._optimizer_load_state_dict_pre_hooks:
        return Misfit(dict(_of_optimizer(owner, state)))
    return Misfit()


def _method_of(module: str, name: str) -> Any:
    """Return the method that loads a state dict; None where torch is not imported."""
    cls = getattr(sys.modules.get(module), name, None)
    return getattr(cls, "load_state_dict", None)


def _loads_by_name(module: Any) -> bool:
    """Return whether all parts of a module load tensors by name and shape."""
    plain = sys.modules["torch.nn"].Module
    return all(
        type(part)._load_from_state_dict.__module__.startswith("torch.nn.modules.")
        and type(part).state_dict is plain.state_dict
        and not part._load_state_dict_pre_hooks
        and not part._load_state_dict_post_hooks
        and not part._state_dict_hooks
        for part in module.modules()
    )


def _of_module(current: Mapping[str, Any], state: Mapping[str, Any]) -> Misfit:
    found = Misfit()
    for name, value in state.items():
        if name not in current:
            found.unexpected.append(str(name))
        elif not name.endswith(_EXTRA) and is_any_tensor(current[name]):
            problem = _problem(value, current[name])
            if problem is not None:
                found.problems[name] = problem
    lacking = (name for name in current if name not in state)
    found.missing += (name for name in lacking if not name.endswith(_OPTIONAL))
    return found


def _of_optimizer(owner: Any, state: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the name of each leaf that does not fit, and what is wrong."""
    try:
        now, saved = (
            [[*group["params"]] for group in groups]
            for groups in (owner.param_groups, state["param_groups"])
        )
        moments = {
            number: {**state["state"].get(number, {})} for x in saved for number in x
        }
    except (KeyError, TypeError, AttributeError):
        yield "param_groups", "saved is not the state of an optimizer"
        return
    if [*map(len, now)] != [*map(len, saved)]:
        counts, expected = (" + ".join(str(len(x)) for x in y) for y in (saved, now))
        yield "param_groups", f"saved {counts} parameters, expected {expected}"
        return
    step = type(owner).step  # A subclass with other moments defines its own.
    if not attributes.text(step, "__module__").startswith("torch.optim."):
        return
    if attributes.text(step, "__qualname__").partition(".")[0] in _OTHER_SHAPES:
        return
    pairs = zip(itertools.chain(*saved), itertools.chain(*now), strict=True)
    for number, parameter in pairs:
        for name, value in moments[number].items():
            is_array = is_any_tensor(value) and value.ndim > 0
            problem = _problem(value, parameter) if is_array else None
            if problem is not None:
                yield f"state/{number}/{name}", problem


def _problem(value: Any, current: Any) -> str | None:
    """Return why a tensor cannot take a value, or None."""
    if not is_any_tensor(value):
        return f"saved {type(value).__name__}, expected a tensor"
    if is_uninitialized(current):  # It takes any shape.
        return None
    if is_uninitialized(value):
        return f"saved before its shape was known, expected {_sizes(current)}"
    # In old versions, scalars had one axis.
    is_number = current.ndim == 0 and tuple(value.shape) == (1,)
    if value.shape == current.shape or is_number:
        return None
    dtype = str(value.dtype).rpartition(".")[2]
    return f"saved {dtype}{_sizes(value)}, expected {dtype}{_sizes(current)}"


def _sizes(tensor: Any) -> str:
    return f"[{','.join(map(str, tensor.shape))}]"

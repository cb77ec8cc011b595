"""What can be registered: objects with one of four protocols, and a few without.

Objects of Flax NNX, random generators and typed keys need no protocol.
"""

from __future__ import annotations

import array
import collections
import inspect
import numbers
import re
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ComponentError, reason
from ..kinds import leaves
from ..kinds.jax_kinds import KEY
from ..kinds.torch_tensors import is_module
from ..state import callables
from ..user import attributes
from . import rng
from .component import Component, TypedKey
from .value import NnxState, is_pytree

PROTOCOLS = (
    ("save", "load"),
    ("state_dict", "load_state_dict"),
    ("to_state_dict", "from_state_dict"),
    ("get_state", "set_state"),
)
# Names of arguments for a place to write to: such a `save` returns no state.
_PLACE = re.compile(
    r"f|fp|fname|file_?name|prefix|out|outfile|output|dest|dst|destination|save_to|ur[il]"
    r"|(.*_)?(file|folder|directory|dir_?name)|.*(path|dir|filename)"
)
_MOST_NAMES = 12


def component(key: str, value: Any) -> Component:
    """Return the object with the first protocol that it has.

    Raises:
      ComponentError: it has none; the message says why.
    """
    is_key = leaves.kind_of(value) is KEY
    owner = TypedKey(value) if is_key else rng.owner_of(value)
    if owner is not None:
        return Component(value, owner)
    reasons = []
    for save_name, load_name in PROTOCOLS:
        reason = _problem(value, save_name, load_name)
        if reason is None:
            return Component(value, value, save_name, load_name)
        reasons.append(reason)
    if callables.is_nnx(value):
        return Component(value, _nnx_state(key, value))
    if attributes.is_instance(value, type):
        raise ComponentError(
            f"Cannot register {key!r}: {value.__name__} is a class, not an instance of "
            f"it. Register one with save() and load(data): cp.{key} = "
            f"{value.__name__}(...)."
        )
    found = f" ({'; '.join(filter(None, reasons))})" if any(reasons) else ""
    raise ComponentError(
        f"Cannot register {key!r}: an object of type {type(value).__name__} has no "
        f"usable save() and load(data){found}. {_remedy(key, value)}. Or add a "
        f"pair of methods: save() and load(data), state_dict() and load_state_dict(d), "
        f"to_state_dict() and from_state_dict(d), or get_state() and set_state(state)."
    )


def _remedy(key: str, value: Any) -> str:
    """Return advice on how to register an object without a protocol."""
    wrapped = f"cp.{key} = elementsckpt."
    save = attributes.get(value, "save")
    if callable(save) and (not _accepts(save) or _takes_place(save)):
        return (
            f"If it writes files, wrap it: {wrapped}Files(save=function_that_gets_a_"
            f"folder, load=function_that_gets_it_back)"
        )
    if isinstance(value, numbers.Integral):
        return f"Numbers that change are counters: {wrapped}Counter({value})"
    if _changes_in_place(value):
        return (
            f"As its owner changes it in place, register the owner, or pass two "
            f"functions: {wrapped}Saveable(function_that_returns_its_content, "
            f"function_that_fills_it)"
        )
    if is_pytree(value):
        return f"As a pytree, which cannot change itself, wrap it: {wrapped}Value(it)"
    names = [] if callable(value) else _candidates(value)
    if names:
        more = len(names) - _MOST_NAMES
        rest = f", and of {more} more" if more > 0 else ""
        return (
            f"Name its attributes: {wrapped}Saveable([...], of=it) with the names of "
            f"all that changes, of {', '.join(map(repr, names[:_MOST_NAMES]))}{rest}"
        )
    return (
        f"Pass two functions that do that: {wrapped}Saveable(function_that_returns_"
        f"its_state, function_that_takes_it)"
    )


def _changes_in_place(value: Any, depth: int = 3) -> bool:
    """Return whether the owner changes the object in place; a `Value` would replace it.

    This holds for containers that are filled, and for tensors and modules of torch.
    """
    if type(value) in (list, tuple, dict):
        items = value.values() if isinstance(value, dict) else value
        return depth > 0 and any(_changes_in_place(item, depth - 1) for item in items)
    kind = leaves.kind_of(value)
    is_filled = attributes.is_instance(value, _FILLED) or is_module(value)
    return is_filled or (kind.is_foreign and not kind.is_immutable)


_FILLED = (collections.deque, set, bytearray, array.array)


def _candidates(value: Any) -> list[str]:
    """Return the names of an object's attributes, the most likely state first."""
    own = {str(x): y for x, y in attributes.own(value).items() if str(x).isidentifier()}

    def order(name: str) -> tuple[bool, bool]:
        is_array = leaves.kind_of(own[name]).is_array
        is_number = attributes.is_instance(own[name], numbers.Number)
        return not (is_array or is_number), name.startswith("_")

    return sorted(own, key=order)


def _nnx_state(key: str, module: Any) -> NnxState:
    """Return the state of an object of NNX, after a test that it can be set."""
    state = NnxState(module)
    try:
        state.value = state.value
    except Exception as error:
        raise ComponentError(
            f"Cannot register {key!r}: flax.nnx.update cannot set the state of this "
            f"{type(module).__name__} ({reason(error)}). Hold its arrays in "
            f"nnx.Variables, as the optimizers of newer versions of Flax do."
        ) from error
    return state


def _problem(value: Any, save_name: str, load_name: str) -> str | None:
    """Return why the object lacks this protocol, "" if without methods, else None."""
    save, load = (attributes.get(value, name) for name in (save_name, load_name))
    if not callable(save) or not callable(load):
        return ""
    if not _accepts(save):
        return f"its {save_name}{_signature(save)} needs arguments"
    if not _accepts(load, None):
        return f"its {load_name}{_signature(load)} does not take one argument"
    if save_name == "save" and _takes_place(save):
        return f"its save{_signature(save)} can take a place to write to"
    if _is_of_class(value, load_name) and not _is_of_class(value, save_name):
        return f"its {load_name} is of the class, so it cannot change this object"
    return None


def _accepts(function: Callable[..., Any], *args: Any) -> bool:
    try:
        _parameters(function, *args)
    except TypeError:
        return False
    return True


def _takes_place(save: Callable[..., Any]) -> bool:
    """Return whether a function has an optional argument for a place to write to."""
    return any(
        parameter.kind is parameter.VAR_POSITIONAL
        or (parameter.kind is not parameter.VAR_KEYWORD and _is_place(name))
        for name, parameter in _parameters(save).items()
    )


def _is_place(name: str) -> bool:
    """Return whether an argument of this name is a place, such as `path`, `outFile`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return _PLACE.fullmatch(words.lower().strip("_")) is not None


def _parameters(
    function: Callable[..., Any], *args: Any
) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a function that takes these arguments.

    Raises:
      TypeError: it does not take them.
    """
    try:
        signature = inspect.signature(function)
    except Exception:  # Some builtins have no signature; odd objects raise anything.
        return {}
    signature.bind(*args)
    return signature.parameters


def _is_of_class(value: Any, name: str) -> bool:
    """Return whether it is a class or static method, which does not get the object."""
    method = inspect.getattr_static(type(value), name, None)
    return isinstance(method, (classmethod, staticmethod))


def _signature(function: Callable[..., Any]) -> str:
    """Return the names of the parameters, written as a signature."""
    found = inspect.signature(function).parameters.values()
    names = [x.replace(default=x.empty, annotation=x.empty) for x in found]
    return f"({', '.join(map(str, names))})"

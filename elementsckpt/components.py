"""What can be registered: objects with one of three protocols, and those of NNX."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .errors import ComponentError, reason
from .pytrees import Flat
from .rng import GlobalRNG
from .torch_tensors import is_module
from .value import NnxState, Value, is_nnx, template

PROTOCOLS = (
    ("save", "load"),
    ("state_dict", "load_state_dict"),
    ("to_state_dict", "from_state_dict"),
)
_OF_STATE_DICTS = frozenset({"load_state_dict", "from_state_dict"})


class Component(NamedTuple):
    """A registered object and the names of its two methods.

    Attributes:
      value: The object.
      owner: What has the methods: the object, or the value that its state is.
    """

    value: Any
    owner: Any
    save_name: str = "save"
    load_name: str = "load"

    @property
    def save(self) -> Callable[[], Any]:
        """The method that returns the state."""
        return getattr(self.owner, self.save_name)  # type: ignore[no-any-return]

    @property
    def _is_template(self) -> bool:
        # A subclass may have a load() of its own.
        return isinstance(self.owner, Value) and type(self.owner).load is Value.load

    @property
    def template(self) -> Callable[[], Flat] | None:
        """For a value, returns what is there now, which a loaded one must be like."""
        if self._is_template:
            return functools.partial(template, self.owner)
        return None

    @property
    def load(self) -> Callable[[Any], Any]:
        """The method that takes the state; of a value, what becomes of its template."""
        if self._is_template:
            return functools.partial(setattr, self.owner, "value")
        return getattr(self.owner, self.load_name)  # type: ignore[no-any-return]


def templates(components: Mapping[str, Component]) -> dict[str, Callable[[], Flat]]:
    """Return the templates of those that are values, by key."""
    found = {key: component.template for key, component in components.items()}
    return {key: template for key, template in found.items() if template is not None}


def growing(components: Mapping[str, Component]) -> dict[str, bool]:
    """Return those that load a state dict, which may have more than their own one.

    Returns:
      By key whether theirs has all entries from the start, as those of modules do.
    """
    loading = {x: y for x, y in components.items() if y.load_name in _OF_STATE_DICTS}
    return {key: is_module(component.value) for key, component in loading.items()}


def in_order(components: Mapping[str, Component]) -> dict[str, Component]:
    """Return the components, those last that what others do could change.

    Saving and loading others may draw random numbers.
    """
    return dict(sorted(components.items(), key=lambda x: type(x[1].value) is GlobalRNG))


def component(key: str, value: Any) -> Component:
    """Return the object with the first protocol that it has.

    Raises:
      ComponentError: it has none; the message says why.
    """
    reasons = []
    for save_name, load_name in PROTOCOLS:
        reason = _problem(value, save_name, load_name)
        if reason is None:
            return Component(value, value, save_name, load_name)
        reasons += [reason] if reason else []
    if is_nnx(value):
        return Component(value, _nnx_state(key, value))
    found = f" ({'; '.join(reasons)})" if reasons else ""
    raise ComponentError(
        f"Cannot register {key!r}: {_described(value)} has no usable save() and "
        f"load(data){found}, nor state_dict() and load_state_dict(d), nor "
        f"to_state_dict() and from_state_dict(d). Add two such methods, or wrap it: "
        f"elementsckpt.Value(value) if it is a pytree, "
        f"elementsckpt.Files(save=function_that_gets_a_folder, load=function_that_gets_"
        f"it_back) if it writes files, otherwise "
        f"elementsckpt.Saveable(save=lambda: value, load=function_that_sets_it)."
    )


def _nnx_state(key: str, module: Any) -> NnxState:
    """Return the state of an object of NNX, and prove that it can be set."""
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


def _described(value: Any) -> str:
    if isinstance(value, type):
        return f"{value.__name__} is a class, not an instance, which"
    return f"an object of type {type(value).__name__}"


def _problem(value: Any, save_name: str, load_name: str) -> str | None:
    """Say why the object has not this protocol; "" if it does not even try."""
    save, load = getattr(value, save_name, None), getattr(value, load_name, None)
    if not callable(save) or not callable(load):
        return ""
    if not _accepts(save):
        return f"its {save_name}{_signature(save)} needs arguments"
    if not _accepts(load, None):
        return f"its {load_name}{_signature(load)} does not take one argument"
    return None


def _accepts(function: Callable[..., Any], *args: Any) -> bool:
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # Some builtins do not tell.
        return True
    try:
        signature.bind(*args)
    except TypeError:
        return False
    return True


def _signature(function: Callable[..., Any]) -> str:
    return str(inspect.signature(function))

"""A registered object, and what a save and a load know of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from msgspec import Struct

from ..kinds.torch_tensors import is_module
from ..state.flattening import Flat
from ..user import attributes
from .files import Files
from .value import NnxState, Value, is_empty, state_of, template, values_of


class TypedKey(Value):
    """A typed key that is registered; the attribute returns the current key."""


class Checking:
    """A component that refuses a state before any component has changed."""

    def check(self, data: Any) -> object:
        """Refuse a state that `load` would; nothing changes."""
        raise NotImplementedError


# Methods that may take more entries than the object's current state has.
_OF_DICTS = frozenset({"load_state_dict", "from_state_dict"})


class Component(NamedTuple):
    """A registered object and the names of its two methods.

    Attributes:
      registered: The object.
      owner: The object with the methods: the same, or one that saves and loads it.
    """

    registered: Any
    owner: Any
    save_name: str = "save"
    load_name: str = "load"

    @property
    def value(self) -> Any:
        """What the attribute returns: the object, or the current key in its place."""
        return self.owner.value if type(self.owner) is TypedKey else self.registered

    @property
    def content(self) -> Any:
        """The object, or what it holds if it is a `Value`."""
        is_value = attributes.is_instance(self.owner, Value)
        return self.owner.value if is_value else self.registered

    @property
    def save(self) -> Callable[[], Any]:
        """The method that returns the state."""
        return getattr(self.owner, self.save_name)  # type: ignore[no-any-return]

    @property
    def saving(self) -> Callable[[], Any]:
        """Returns the state for a save; that of a value comes with its skeleton."""
        if self._is_template and type(self.owner).save is Value.save:
            return functools.partial(state_of, self.owner)
        return self.save

    @property
    def _is_template(self) -> bool:
        # A subclass may have a load() of its own.
        return attributes.get(type(self.owner), "load") is Value.load

    @property
    def target(self) -> Target:
        """What a load knows of it: the function that takes the state, and more."""
        if self._is_template:
            return of_value(self.owner, self.state)
        load, grows = getattr(self.owner, self.load_name), self.load_name in _OF_DICTS
        is_complete = grows and is_module(self.value)
        checks = attributes.is_instance(self.owner, Checking)
        check = self.owner.check if checks else None
        return Target(
            load, self.state, check=check, grows=grows, is_complete=is_complete
        )

    def state(self) -> Any:
        """Return the state now."""
        return self.save()


def identities(components: Mapping[str, Component]) -> dict[str, int]:
    """Return the identity of the current content of each value, by key."""
    return {
        key: id(component.owner.value)
        for key, component in components.items()
        if attributes.is_instance(component.owner, Value)
        and not isinstance(component.owner, NnxState)  # Changes in place.
    }


class Target(Struct, frozen=True):
    """A component as a load needs to know it.

    Attributes:
      load: Takes the state, or a folder; None if the state is only returned.
      state: Returns the current state; None if there is none.
      check: Refuses a state that `load` would, before any component has changed; None
        if nothing but `load` can tell.
      template: Returns the current value, flattened; all leaves of a saved value must
        match it. None if there is no template.
      is_rebuilt: Whether it takes a saved value with its classes.
      grows: Whether it takes leaves that its current state does not have yet.
      is_complete: Whether the outermost mapping of its state cannot get new keys.
    """

    load: Callable[[Any], Any] | None = None
    state: Callable[[], Any] | None = None
    check: Callable[[Any], object] | None = None
    template: Callable[[], Flat] | None = None
    is_rebuilt: bool = False
    grows: bool = False
    is_complete: bool = False

    @property
    def takes_folder(self) -> bool:
        """Whether it loads a folder of files instead of a state."""
        return attributes.is_instance(attributes.get(self.load, "__self__"), Files)


def of_value(value: Value, state: Callable[[], Any] | None = None) -> Target:
    """Return a value as a target; its content is the template, if it has any."""
    load = functools.partial(setattr, value, "value")
    if is_empty(value):
        return Target(load, state, is_rebuilt=True)
    return Target(load, state, template=functools.partial(template, value))


def of_loadfns(loadfns: Mapping[str, Callable[[Any], Any]]) -> dict[str, Target]:
    """Return functions that take a state as targets, by key."""
    values = values_of(loadfns, Value.load)
    targets = {key: Target(load) for key, load in loadfns.items()}
    return targets | {key: of_value(value) for key, value in values.items()}

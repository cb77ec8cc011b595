"""What a load knows of a component: the function that takes its state, and more."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from ..state.flattening import Flat
from ..user import attributes
from .files import Files
from .value import Value, is_empty, template, values_of


class Target(Struct, frozen=True):
    """A component as a load needs to know it.

    Attributes:
      load: Takes the state, or a folder; None if the state is only returned.
      state: Returns the current state; None if there is none.
      template: Returns the current value, flattened; all leaves of a saved value must
        match it. None if there is no template.
      is_rebuilt: Whether it takes a saved value with its classes.
      grows: Whether it takes leaves that its current state does not have yet.
      is_complete: Whether the outermost mapping of its state cannot get new keys.
    """

    load: Callable[[Any], Any] | None = None
    state: Callable[[], Any] | None = None
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
    return Target(load, state, functools.partial(template, value))


def of_loadfns(loadfns: Mapping[str, Callable[[Any], Any]]) -> dict[str, Target]:
    """Return functions that take a state as targets, by key."""
    values = values_of(loadfns, Value.load)
    targets = {key: Target(load) for key, load in loadfns.items()}
    return targets | {key: of_value(value) for key, value in values.items()}

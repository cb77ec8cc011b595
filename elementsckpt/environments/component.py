"""The component: an environment in the middle of an episode."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..components.component import Checking
from ..errors import MismatchError, StateError
from ..user.arguments import shown

if TYPE_CHECKING:
    from .restoring import Restore

_MOST_PROBLEMS = 6
_LONG_PROBLEM = 150
_SUBJECT = "the environment"  # Until the key is known.
_logger = logging.getLogger("elementsckpt")


class Environment(Checking):
    """A component that holds an environment, with its wrappers, mid-episode.

        env = gymnasium.make("Ant-v5")
        cp.env = elementsckpt.Environment(env)

    A save has all that the environment reaches by attributes, items and closures, not
    what its methods say of it: wrappers, spaces, arrays and views of arrays, random
    generators, and the states of simulators whose libraries are known. A load puts it
    into the environment that the program has made, by the same code as the saved one,
    whether or not that was reset: its objects stay the same ones. Hold the environment
    in the program, not parts of it that an episode replaces. The last observation is
    the program's to save.

    Functions, modules, locks and displays stay the live ones; nothing is pickled.
    Globals of modules and of classes are not a part of it. What cannot be saved is
    refused by name. So is what does not fit at a load, before any component has
    changed. An interrupt while `load` is filling the environment leaves it between two
    states: load it again, or reset it.

    Args:
      env: The environment.
      parts: How objects of more types are saved: a pair of functions, or None for types
        whose objects are left alone, as no step depends on them. The first function
        takes the object and returns arrays, numbers, text or containers of these; the
        second takes the object and that.

    Attributes:
      env: The environment.

    Raises:
      ValueError: `parts` is something else.
    """

    def __init__(self, env: Any, parts: Mapping[type, Any] | None = None) -> None:
        self.env = env
        self._parts = _checked(parts)
        if "mujoco" in sys.modules:
            self._look()
        self._told: set[str] = set()

    def _look(self) -> None:
        """Let families see what they compare with later: models before they change."""
        from . import snapshots

        snapshots.look(self.env, self._parts)

    def save(self) -> dict[str, Any]:
        """Return the state: arrays and others by name, and the graph of its objects.

        Raises:
          StateError: something cannot be saved; the message has all of it.
        """
        from . import families, snapshots

        try:
            return snapshots.capture(self.env, self._parts)
        except families.Refused as error:
            raise _named(
                StateError(
                    f"Cannot save {_SUBJECT}: {_some(error.inside)}. {error.remedy}"
                )
            ) from error

    def check(self, data: Any) -> Restore:
        """Refuse a state that does not fit the environment; nothing changes.

        Raises:
          MismatchError: it is that of another environment.
          DamagedError: it is not the state of an environment.
        """
        from . import families, graphs, names, snapshots

        if type(data) is not dict or names.GRAPH not in data:
            raise MismatchError(
                f"Saved is {shown(data)}, and an Environment loads the state of an "
                f"environment. Register what it was saved from; nothing has changed."
            )
        try:
            return snapshots.check(self.env, data, self._parts)
        except families.Unfit as error:
            saved, here = graphs.decode(data[names.GRAPH]).chain, names.chain(self.env)
            raise _named(
                MismatchError(
                    f"Cannot load {_SUBJECT}: {_some(error.inside)}. Saved was "
                    f"{saved}, and here is {here}. Make it by the code that made the "
                    f"saved one; nothing has changed."
                )
            ) from error

    def load(self, data: Any) -> None:
        """Put a state into the environment.

        Raises:
          MismatchError, DamagedError: as for `check`; nothing has changed.
        """
        found = self.check(data)
        self._tell_of_versions(found.differences())
        found.load()

    def _tell_of_versions(self, differences: Mapping[str, tuple[str, str]]) -> None:
        new = {x: y for x, y in differences.items() if x not in self._told}
        if new:
            self._told.update(new)
            _logger.warning(
                "The environment was saved with %s, and here is %s: it may go on in "
                "another way than it would have.",
                ", ".join(f"{name} {saved}" for name, (saved, _) in new.items()),
                ", ".join(f"{name} {here}" for name, (_, here) in new.items()),
            )


def _checked(parts: Any) -> dict[type, Any]:
    """Return `parts` as a dict.

    Raises:
      ValueError: it is not one of pairs of functions, or None, by type.
    """
    found = {} if parts is None else parts
    if isinstance(found, Mapping) and all(map(_is_part, found.items())):
        return dict(found)
    raise ValueError(
        f"parts={shown(parts)}: pass a dict of types, each with a pair of functions "
        f"(save, load), or with None to leave its objects alone."
    )


def _is_part(item: tuple[Any, Any]) -> bool:
    cls, part = item
    if not isinstance(cls, type):
        return False
    is_pair = isinstance(part, (tuple, list)) and len(part) == 2
    return part is None or (is_pair and all(map(callable, part)))


def _some(problems: tuple[str, ...]) -> str:
    """Return problems as one text; some of them, if there are many."""
    more = len(problems) - _MOST_PROBLEMS
    found = [
        x if len(x) <= _LONG_PROBLEM else f"{x[:_LONG_PROBLEM]}…"
        for x in problems[:_MOST_PROBLEMS]
    ]
    return "; ".join(found) + (f"; and {more} more" if more > 0 else "")


def _named(error: Any) -> Any:
    """Let the key take the place of the words that stand for it."""
    error.subject = _SUBJECT
    return error

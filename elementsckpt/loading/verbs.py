"""The functions and methods that load, so that errors give advice that fits them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from msgspec import Struct


class Verb(Struct, frozen=True):
    """A function or method that loads.

    Attributes:
      name: Its name.
      takes: Its arguments that say what to load.
      otherwise: Advice on a component that the save lacks, if `lacking` has no better.
    """

    name: str
    takes: frozenset[str]
    otherwise: str

    def by(self, *names: str) -> str:
        """Return " with" and those of the arguments that it takes, or "".

        If only `load` takes them, the text names `load`.
        """
        known = [f"{name}=" for name in names if name in self.takes]
        if self is LOAD_OR_SAVE and not known:
            return f"{LOAD.by(*names)} of load()"
        return f" with {' or '.join(known)}" if known else ""

    def lacking(
        self,
        keys: Mapping[str, str],
        there: Collection[str],
        counterparts: Mapping[str, str],
    ) -> str:
        """Return advice on components that the save lacks.

        Args:
          keys: Our keys, to the keys asked for in the save.
          there: The keys in the save.
          counterparts: Our keys of missing components, to saved keys of what seems to
            be the same.
        """
        if self not in (LOAD, LOAD_OR_SAVE):
            return self.otherwise
        instead = "" if self is LOAD else ", once, in place of load_or_save()"
        found = {ours: saved for ours, saved in keys.items() if saved in there}
        is_mapped = any(ours != saved for ours, saved in found.items())
        known: Any = found if is_mapped else [*found]
        said = []
        if counterparts:
            said.append(
                f"Load what it has under another key with "
                f"load(keys={found | {**counterparts}}){instead}, from keys here to "
                f"those in the save."
            )
        if known:
            said.append(
                f"To go on without what it lacks, call load(keys={known}){instead}; "
                f"the next save() has all that is registered."
            )
        return " ".join(said) or self.otherwise


LOAD = Verb(
    "load",
    frozenset({"keys", "regex", "rename", "strict", "cast"}),
    "Load another save, or register what this one has.",
)
LOAD_OR_SAVE = Verb(
    "load_or_save", frozenset({"rename", "strict", "cast"}), LOAD.otherwise
)
FUNCTIONS = Verb("load", frozenset(), "Pass functions for what it has.")
PYTREE = Verb(
    "load_pytree",
    frozenset({"key", "regex", "rename"}),
    "Pass key= to load one of these.",
)
READ = Verb("read", frozenset({"keys", "regex"}), "Pass keys that it has.")

"""The functions and methods that load, so that errors give advice that fits them."""

from __future__ import annotations

from msgspec import Struct


class Verb(Struct, frozen=True):
    """A function or method that loads.

    Attributes:
      name: Its name.
      takes: Its arguments that say what to load.
      otherwise: Advice on a component that the save lacks, if there is no better.
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

"""What can be called to load, so that errors advise what applies to it."""

from __future__ import annotations

from msgspec import Struct


class Verb(Struct, frozen=True):
    """A function or method that loads.

    Attributes:
      takes: Its arguments that say what to load.
      lacking: What to do about a component that the save lacks.
    """

    takes: frozenset[str]
    lacking: str

    def by(self, *names: str) -> str:
        """Return " with" those of some arguments that it takes, or nothing."""
        known = [f"{name}=" for name in names if name in self.takes]
        return f" with {' or '.join(known)}" if known else ""


LOAD = Verb(
    frozenset({"keys", "regex", "rename", "strict", "cast"}),
    "To go on without what it lacks, load(keys=[...]) what it has; the next save() has "
    "all that is registered. Load what it has under another key with "
    "load(keys={ours: theirs}).",
)
FUNCTIONS = Verb(frozenset(), "Pass functions for what it has.")
PYTREE = Verb(frozenset({"key", "regex", "rename"}), "Pass key= to load one of these.")
READ = Verb(frozenset({"keys", "regex"}), "Pass keys that it has.")

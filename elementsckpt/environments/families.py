"""Families: how objects are saved whose state is not, or not all, in Python.

A family is a module of this package, named after a library in `LIBRARIES`. It is
imported once the library is, and its `PARTS` say what becomes of each type:

    # elementsckpt/environments/mujoco.py
    def save(live):  # Returns plain data: copies of arrays, numbers, text, containers.
        return {"state": ..., "fields": {"qpos": live.qpos.copy(), ...}}

    def check(live, data):  # Changes nothing; raises `Unfit` if `load` could not.
        if data["state"].size != ...:
            raise Unfit("another MuJoCo model")

    def load(live, data):  # Puts it into the live object.
        ...

    PARTS = {"mujoco:MjData": Part(save, load, check, rank=1), "mujoco:Viewer": None}

None leaves objects of a type alone: the live one stays as it is. Users give the same
in `parts=`, by type instead of by name, as pairs `(save, load)`.

What `save` cannot save it refuses with `Refused`. The data is saved under the name of
the object, `unwrapped/data/qpos`. It may hold what `snapshots.capture` returned for
another environment, such as one in a worker process.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from ..kinds import references

# Libraries, and the modules of this package that know their objects.
LIBRARIES: dict[str, str] = {
    "mujoco": "mujoco",
    "ale_py": "ale",
    "pygame": "pygame",
    f"{__package__}.recorded": "recorded",
    "Box2D": "box2d",
    "nle.nethack.nethack": "foreign_worlds",
    "gymnasium.vector": "gymnasium_workers",
    "stable_baselines3": "sb3_workers",
}

# What users give: (save, load), or None, by type.
Given = Mapping[type, "tuple[Callable[[Any], Any], Callable[[Any, Any], Any]] | None"]


class Refused(Exception):
    """Something cannot be saved.

    Args:
      reason: What the object is, to follow "<path> is": "an ALE with sound_obs, whose
        sound is not in its state".
      inside: What cannot be saved inside of it, in its stead, as sentences: "worker 1:
        unwrapped.log is an open file ('a.txt')".
      remedy: What to do, as a sentence; None for what helps with most objects.
    """

    def __init__(
        self, reason: str = "", inside: Sequence[str] = (), remedy: str | None = None
    ) -> None:
        super().__init__(reason, inside, remedy)
        self.reason, self.inside, self.remedy = reason, tuple(inside), remedy

    def __str__(self) -> str:
        return "; ".join(filter(None, (self.reason, *self.inside)))


class Unfit(Exception):
    """What was saved cannot be loaded into the environment that is here.

    Args:
      problems: What does not fit, each to follow "<path>: ", as in "unwrapped.model:
        saved with 12 bodies, and there are 14 here".
      inside: The same inside of the object, as whole sentences: "worker 1:
        unwrapped.model: saved with 12 bodies, and there are 14 here".
    """

    def __init__(self, *problems: str, inside: Sequence[str] = ()) -> None:
        super().__init__(*problems)
        self.problems, self.inside = problems, tuple(inside)

    def __str__(self) -> str:
        return "; ".join((*self.problems, *self.inside))


class Part(Struct, frozen=True):
    """How the state of objects of one type is saved.

    Attributes:
      save: Takes the live object, returns plain data. Nothing may change by it, also if
        it raises `Refused`.
      load: Takes the live object and the data, which fits. It is called when all of
        the environment has been checked, and what is in Python is loaded. None if
        there is nothing to load.
      check: Takes the same; raises `Unfit` if the data does not fit. Any other error
        says that the data is damaged. None if all data fits. It changes nothing.
      make: Takes the data, returns a new object with that state, where there is no
        live one, or one that does not fit; for objects that are values, such as a
        `pygame.Rect`. It is called before all has been checked. None if a live object
        must be there.
      rank: Of two parts, `load` of the one with the lower rank is called first.
      attributes: Whether the object's attributes in Python are saved, too, as those
        of any other object. Then instances of subclasses are of the part, too.
      skipped: Names of attributes that are not, which stay as they are.
      takes_parts: Whether `save`, `check` and `load` take the user's `parts=` as their
        last argument, to use it in other processes.
    """

    save: Callable[..., Any]
    load: Callable[..., Any] | None = None
    check: Callable[..., Any] | None = None
    make: Callable[[Any], Any] | None = None
    rank: int = 0
    attributes: bool = False
    skipped: frozenset[str] = frozenset()
    takes_parts: bool = False


class Parts:
    """The parts by type: those of the user, then those of the families.

    Args:
      given: What the user gave as `parts=`.
    """

    def __init__(self, given: Given | None = None) -> None:
        self.given = dict(given or {})
        self._of = {
            cls: pair if pair is None else Part(*pair)
            for cls, pair in self.given.items()
        }
        self._families = families()

    def find(self, cls: type) -> Part | None:
        """Return the part for a type; it is None if its objects are left alone.

        Raises:
          KeyError: its objects are like any others.
        """
        for base in cls.__mro__:
            if base in self._of:
                return self._of[base]
        for base in cls.__mro__:
            if base in self._families:
                part = self._families[base]
                if base is cls or (part is not None and part.attributes):
                    return part
        raise KeyError(cls)

    def has(self, cls: type) -> bool:
        """Return whether there is a part for a type."""
        try:
            self.find(cls)
        except KeyError:
            return False
        return True

    def leave(self, cls: type, names: frozenset[str]) -> None:
        """Leave attributes of a class's objects alone."""
        self._of[cls] = Part(_nothing, attributes=True, skipped=names)

    def left_alone(self) -> Parts:
        """Return parts that leave alone what these know how to save."""
        return Parts(dict.fromkeys([*self._of, *self._families]))

    def extra(self, part: Part) -> tuple[Given, ...]:
        """Return what the functions of a part take after the object and the data."""
        return (self.given,) if part.takes_parts else ()


def _nothing(live: Any) -> None:
    """Save nothing."""


def families() -> dict[type, Part | None]:
    """Return the parts of the families whose libraries are imported, by type."""
    found: dict[type, Part | None] = {}
    for library, name in LIBRARIES.items():
        if library in sys.modules:
            module = importlib.import_module(f".{name}", __package__)
            for path, part in module.PARTS.items():
                cls = references.find(path)
                if isinstance(cls, type):  # Not while the library is being imported.
                    found[cls] = part
    return found

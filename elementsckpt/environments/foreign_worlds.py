"""Simulators whose worlds are not in Python: their environments can be played again."""

from __future__ import annotations

from typing import Any

from .families import Part, Refused

REMEDY = (
    "Make it with elementsckpt.Recorded(env) below its other wrappers: its actions are "
    "then saved, and played again at a load."
)


def refuse(what: str) -> Part:
    """Return the part of a type that is refused."""

    def save(live: Any) -> None:
        raise Refused(what, remedy=REMEDY)

    def load(live: Any, data: Any) -> None:
        """Do nothing, as nothing was saved."""

    return Part(save, load)


PARTS = {
    "nle.nethack.nethack:Nethack": refuse("a game of NetHack, which is not in Python"),
}

"""Simulators whose worlds are not in Python: their environments can be played again."""

from __future__ import annotations

from typing import Any

from .families import Part, Refused

REMEDY = (
    "Make it with elementsckpt.Recorded(env) below its other wrappers: its actions are "
    "then saved, and played again at a load."
)


def refuse(what: str, remedy: str = REMEDY, *, attributes: bool = False) -> Part:
    """Return the part of a type that is refused; `attributes` are as for `Part`."""

    def save(live: Any) -> None:
        raise Refused(what, remedy=remedy)

    return Part(save, attributes=attributes)


PARTS = {
    "nle.nethack.nethack:Nethack": refuse("a game of NetHack, which is not in Python"),
}

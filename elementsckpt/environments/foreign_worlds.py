"""Simulators whose worlds are not in Python: their environments can be played again."""

from __future__ import annotations

import sys
from typing import Any

from .families import Part, Refused

_REMEDY = (
    "Make it with elementsckpt.Recorded(env) below its other wrappers: its actions are "
    "then saved, and played again at a load."
)


def _refuse(what: str) -> Part:
    def save(live: Any) -> None:
        raise Refused(what, remedy=_REMEDY)

    def load(live: Any, data: Any) -> None:
        """Do nothing, as nothing was saved."""

    return Part(save, load)


def _classes_of_box2d() -> list[str]:
    """Return the names of the classes that stand for objects in C++."""
    box2d: Any = sys.modules.get("Box2D")
    return [x for x in dir(box2d) if isinstance(getattr(box2d, x), type)]


PARTS = {
    "nle.nethack.nethack:Nethack": _refuse("a game of NetHack, which is not in Python"),
    **{
        f"Box2D:{name}": _refuse(f"a Box2D.{name}, whose world is not in Python")
        for name in _classes_of_box2d()
    },
}

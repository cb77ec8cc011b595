"""Pictures and shapes of pygame, which are the state of some environments.

What shows and plays them is not: windows, fonts and sounds stay as they are.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from .families import Part, Unfit


def save(surface: Any) -> dict[str, Any]:
    """Return the pixels of a surface, and how it is drawn."""
    key = surface.get_colorkey()
    return {
        "size": list(surface.get_size()),
        "pixels": np.array(_pixels(surface)),
        "bits": surface.get_bitsize(),
        "masks": list(surface.get_masks()),
        "per_pixel": bool(surface.get_flags() & sys.modules["pygame"].SRCALPHA),
        "palette": [list(x) for x in surface.get_palette() or ()]
        if surface.get_bitsize() == 8
        else [],
        "alpha": surface.get_alpha(),
        "key": None if key is None else list(key),
        "clip": list(surface.get_clip()),
    }


def check(surface: Any, data: Any) -> None:
    """Refuse a picture of another form.

    Raises:
      Unfit: it has another size, or other pixels.
    """
    there = [*data["size"], data["bits"], *data["masks"]]
    here = [*surface.get_size(), surface.get_bitsize(), *surface.get_masks()]
    if there != here:
        raise Unfit(f"saved with a size of {there[:2]}, and here it has {here[:2]}")


def load(surface: Any, data: Any) -> None:
    """Paint a surface."""
    live = _pixels(surface)
    live[...] = data["pixels"]
    del live  # The surface is locked as long as its pixels can be reached.
    if data["palette"]:
        surface.set_palette(data["palette"])
    surface.set_alpha(data["alpha"])
    surface.set_colorkey(data["key"])
    surface.set_clip(data["clip"])


def make(data: Any) -> Any:
    """Return a new surface."""
    pygame: Any = sys.modules["pygame"]
    flags = pygame.SRCALPHA if data["per_pixel"] else 0
    surface = pygame.Surface(data["size"], flags, data["bits"], data["masks"])
    load(surface, data)
    return surface


def _pixels(surface: Any) -> Any:
    return np.asarray(surface.get_view("3" if surface.get_bytesize() == 3 else "2"))


def _value(name: str) -> Part:
    """Return the part of a type that is a few numbers, from which it is made."""

    def load(live: Any, data: Any) -> None:
        live.update(*data)

    def make(data: Any) -> Any:
        return getattr(sys.modules["pygame"], name)(*data)

    return Part(list, load, make=make)


PARTS = {
    "pygame:Surface": Part(save, load, check, make),
    "pygame:Rect": _value("Rect"),
    "pygame:FRect": _value("FRect"),
    "pygame:Vector2": _value("Vector2"),
    "pygame:Vector3": _value("Vector3"),
    "pygame:Color": _value("Color"),
    "pygame.time:Clock": None,
    "pygame.font:Font": None,
    "pygame.freetype:Font": None,
    "pygame.mixer:Sound": None,
}

"""Pin a save under a name, so that no rule removes it.

A save has one pin; a new name replaces the old one, which is said. A name that another
save of the directory has is refused.

Examples:
  elementsckpt pin runs/walker@latest final
"""

from __future__ import annotations

import argparse

from ...errors import one_line
from ..screen import Screen, say


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("save", metavar="SAVE")
    parser.add_argument("name", metavar="NAME")


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Pin a save."""
    import elementsckpt

    before = elementsckpt.info(options.save)
    screen.report(elementsckpt.pin(before.path, options.name))
    if before.pin not in (None, options.name):
        say(f"It was pinned as {one_line(before.pin)}.")
    return 0

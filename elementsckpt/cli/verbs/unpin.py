"""Take the pin from a save, which rules may then remove.

Examples:
  elementsckpt unpin runs/walker@pin:final
"""

from __future__ import annotations

import argparse

from ..screen import Screen, say


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("save", metavar="SAVE")


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Take the pin from a save."""
    import elementsckpt

    before = elementsckpt.info(options.save)
    screen.report(elementsckpt.unpin(before.path))
    if before.pin is None:
        say("It had no pin, so nothing was changed.")
    return 0

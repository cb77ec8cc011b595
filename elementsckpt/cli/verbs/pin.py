"""Pin a save under a name, so that no rule removes it.

A save has one pin; a new name replaces the old one.

Examples:
  elementsckpt pin runs/walker@best paper
"""

from __future__ import annotations

import argparse

from ..screen import Screen


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("save", metavar="SAVE")
    parser.add_argument("name", metavar="NAME")


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Pin a save."""
    import elementsckpt

    screen.report(elementsckpt.pin(options.save, options.name))
    return 0

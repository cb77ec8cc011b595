"""Remove one save.

It may be pinned or damaged. The only whole save of a directory is not removed: every
byte of another one is verified first. It asks before it removes; without a terminal, it
needs --yes.

Examples:
  elementsckpt rm runs/walker@#2 -n
  elementsckpt rm runs/walker@1000 --yes
"""

from __future__ import annotations

import argparse

from .. import asking
from ..screen import Screen


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("save", metavar="SAVE")
    asking.configure(parser)


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Remove a save."""
    from ...inspection.removal import plan_delete

    return asking.run(plan_delete(options.save), options, screen)

"""Print what completes verbs, options, addresses and leaf names in a shell.

Examples:
  source <(elementsckpt completion bash)
  elementsckpt completion zsh > "${fpath[1]}/_elementsckpt"
  elementsckpt completion fish > ~/.config/fish/completions/elementsckpt.fish
"""

from __future__ import annotations

import argparse

from ..completion import SCRIPTS
from ..screen import Screen


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("shell", choices=sorted(SCRIPTS))


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Print a script."""
    script = SCRIPTS[options.shell]
    if screen.is_json:
        screen.json({"shell": options.shell, "script": script})
    else:
        screen.write(script)
    return 0

"""Write a file of others, or saves, as the saves of a new run.

SRC is a file of safetensors or npz, a save, or a directory: then its newest save is
meant, or with --all each. DIR must be new or empty. What is in a file becomes one
component, safetensors or npz; in Python, keys={"agent": "npz"} gives it another key.

Examples:
  elementsckpt convert walker.safetensors runs/pretrained
  elementsckpt convert runs/walker runs/renamed --all --rename '^params/=model/'
"""

from __future__ import annotations

import argparse

from ...errors import one_line
from ...reports import figures
from ..screen import Screen
from .export import configure_names, pair


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("source", metavar="SRC")
    parser.add_argument("directory", metavar="DIR")
    parser.add_argument("--all", action="store_true", help="each save, not the newest")
    configure_names(parser, "names without their key")


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Write the saves."""
    import elementsckpt

    saves = elementsckpt.convert(
        options.source,
        options.directory,
        regex=options.regex,
        rename=dict(map(pair, options.rename)) or None,
        all=options.all,
    )
    for save in saves:
        if screen.is_json:
            screen.json({"path": str(save.path), "size_bytes": save.size_bytes})
        else:
            screen.print(f"{one_line(str(save.path))}  {figures.size(save.size_bytes)}")
    return 0

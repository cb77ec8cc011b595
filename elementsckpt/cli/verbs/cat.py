"""Print one leaf.

Its dtype, shape and values, or with --npy the array itself, for other programs. The
leaf is given by its full name, as tree prints it. A line about the save goes to
standard error.

Examples:
  elementsckpt cat runs/walker agent/params/head/bias
  elementsckpt cat runs/walker agent/params/head/bias --npy > bias.npy
"""

from __future__ import annotations

import argparse
import sys
import types
from typing import Any

from ...errors import one_line
from .. import shown
from ..screen import Screen, say


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("save", metavar="SAVE")
    parser.add_argument("leaf", metavar="LEAF")
    parser.add_argument("--npy", action="store_true", help="write the array as .npy")


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Print a leaf."""
    import numpy as np

    import elementsckpt

    from ...inspection.values import read_leaf

    if options.npy and screen.is_terminal:
        raise ValueError("standard output is a terminal: redirect it to a file or pipe")
    save = elementsckpt.info(options.save)
    info, value = read_leaf(save.path, options.leaf)
    if options.npy:
        if not isinstance(value, np.ndarray):
            raise ValueError(f"{options.leaf} is not an array: leave out --npy.")
        # In pieces: NumPy writes to what has a descriptor by itself, not to pipes.
        pipe: Any = types.SimpleNamespace(write=sys.stdout.buffer.write)
        np.save(pipe, value, allow_pickle=False)
        sys.stdout.buffer.flush()
    elif screen.is_json:
        screen.json({**info.to_dict(), "value": _plain(value)})
    else:
        say(shown.line(save))
        screen.print(info.outline().title)
        with np.printoptions(linewidth=screen.columns or 80):
            text = str(value) if isinstance(value, np.ndarray) else repr(value)
        for line in text.splitlines():
            screen.print(one_line(line))
    return 0


def _plain(value: Any) -> Any:
    from ...reports.report import to_json

    if hasattr(value, "tolist"):
        value = value.tolist()
    return to_json(value)

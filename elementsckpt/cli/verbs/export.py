"""Write the arrays of a save to a file that other programs read.

The suffix of OUT tells the format: .safetensors or .npz. What the format cannot hold is
named and left out.

Examples:
  elementsckpt export runs/walker@best walker.safetensors -r 'params/'
  elementsckpt export runs/walker arrays.npz --rename '^agent/='
"""

from __future__ import annotations

import argparse

from ...errors import one_line
from ...reports import figures
from .. import selection
from ..screen import Screen, say


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("save", metavar="SAVE")
    parser.add_argument("output", metavar="OUT")
    parser.add_argument(
        "--to",
        metavar="FORMAT",
        choices=["safetensors", "npz"],
        help="safetensors or npz",
    )
    configure_names(parser, "names with their key")


def configure_names(parser: argparse.ArgumentParser, names: str) -> None:
    """Add the arguments that choose leaves by name, and rename them.

    Args:
      parser: The parser of the verb.
      names: In which names patterns are replaced.
    """
    selection.configure(parser)
    parser.add_argument(
        "--rename",
        metavar="A=B",
        action="append",
        default=[],
        help=f"replace the pattern A by B, in {names}; may be repeated",
    )


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Write a file."""
    import elementsckpt

    report = elementsckpt.export(
        options.save,
        file_named(options.output),
        format=options.to,
        regex=options.regex,
        rename=dict(map(pair, options.rename)),
    )
    if screen.is_json:
        found = report.to_dict()
        screen.json({"path": found["path"], "size_bytes": found["size_bytes"]})
    else:
        screen.print(f"{one_line(str(report.path))}  {figures.size(report.size_bytes)}")
    if report.left_out:
        names = ", ".join(map(one_line, report.left_out[:8]))
        more = len(report.left_out) - 8
        text = f"Left out: {names}{f' and {more} more' if more > 0 else ''}."
        (say if screen.is_json else screen.print)(text)
    return 0


def file_named(text: str) -> str:
    """Return the name of a file to write, which "-" is not meant as.

    Raises:
      ValueError: it is "-".
    """
    if text == "-":
        raise ValueError("- would be standard output: pass the name of a file")
    return text


def pair(text: str) -> tuple[str, str]:
    """Return the pattern and the replacement of a --rename."""
    pattern, ispair, replacement = text.partition("=")
    if not ispair:
        raise ValueError(f"--rename {text!r}: pass PATTERN=REPLACEMENT")
    return pattern, replacement

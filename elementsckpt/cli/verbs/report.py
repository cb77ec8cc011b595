"""Write a page about a directory of saves, and print its path.

One HTML file, which needs no network: metrics, what each save wrote, what changed in
leaves, where the bytes are, where the state comes from. An earlier page is replaced;
any other file is not.

Examples:
  elementsckpt report runs/walker
  elementsckpt report runs/walker -o walker.html --verify --open
"""

from __future__ import annotations

import argparse

from ...errors import one_line
from ..screen import Screen
from .export import file_named


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("directory", metavar="DIR")
    parser.add_argument(
        *("-o", "--output"), metavar="FILE", default="report.html", help="report.html"
    )
    parser.add_argument("--open", action="store_true", help="show it in a browser")
    parser.add_argument("--verify", action="store_true", help="verify all saves")


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Write the page."""
    import elementsckpt

    from ...storage import files

    path = elementsckpt.write_report(
        options.directory, file_named(options.output), verify=options.verify
    )
    size_bytes = files.status(path).st_size
    if screen.is_json:
        screen.json({"path": str(path), "size_bytes": size_bytes})
    else:
        screen.print(one_line(str(path)))
    if options.open:
        import webbrowser

        webbrowser.open(path.as_uri())
    return 0

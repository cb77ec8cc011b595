"""Show the components and leaves of a save.

A row for each component and leaf: its dtype and shape, its size, and whether it is
compressed or pickled. No array is read.

Examples:
  elementsckpt tree runs/walker@best -d 2
  elementsckpt tree runs/walker -r 'params/.*kernel'
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ...errors import one_line
from ...reports import figures
from ...reports.outline import Column, Table
from ..screen import Screen

if TYPE_CHECKING:
    from ...reports.looking import LeafInfo


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("save", metavar="SAVE")
    parser.add_argument(
        *("-d", "--depth"),
        type=int,
        metavar="N",
        help="show N levels, 1 for keys alone",
    )
    parser.add_argument("-r", "--regex", help="only leaves whose names this matches")


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Show leaves."""
    import elementsckpt

    leaves = elementsckpt.leaves(options.save, regex=options.regex)
    if screen.is_json:
        for leaf in leaves:
            screen.json(leaf.to_dict())
        return 0
    columns = [
        Column("leaf", is_kept=True),
        Column("form"),
        Column("size", is_right=True),
        Column("stored", is_right=True),
        Column(""),
    ]
    paths = [(leaf.full_name.split("/"), leaf) for leaf in leaves]
    screen.print(leaves.outline().title)
    screen.table(Table(columns, list(_rows(paths, 0, options.depth))))
    return 0


def _rows(
    leaves: Sequence[tuple[list[str], LeafInfo]], level: int, depth: int | None
) -> Iterator[list[str]]:
    """Yield a row for each leaf, and for each name that several have in common."""
    for name, group in itertools.groupby(leaves, lambda x: x[0][level]):
        found = list(group)
        indented = "  " * level + one_line(name)
        alone = [leaf for parts, leaf in found if len(parts) == level + 1]
        below = [(parts, leaf) for parts, leaf in found if len(parts) > level + 1]
        for leaf in alone:
            yield [indented, *leaf.cells()[1:]]
        if not below:
            continue
        sizes = [
            sum(leaf.size_bytes for _, leaf in below),
            sum(leaf.stored_bytes for _, leaf in below),
        ]
        count = figures.count(len(below), "leaf")
        yield [indented, count, *map(figures.size, sizes), ""]
        if depth is None or level + 1 < depth:
            yield from _rows(below, level + 1, depth)

"""Show the components and leaves of a save.

A row for each component and leaf: its dtype and shape, its size, and whether it is
compressed or pickled. No array is read.

Examples:
  elementsckpt tree runs/walker@best -d 2
  elementsckpt tree runs/walker -r 'params/.*kernel'
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ...errors import one_line
from ...reports import figures
from ...reports.outline import Column, Table
from ..screen import Screen

if TYPE_CHECKING:
    from ...reports.leaves import LeafInfo


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
    screen.table(Table(columns, list(_rows(paths, options.depth))))
    return 0


def _rows(
    leaves: Sequence[tuple[list[str], LeafInfo]],
    depth: int | None,
    level: int = 0,
    guide: str = "",
) -> Iterator[list[str]]:
    """Yield a row for each leaf, and for each name that several have in common.

    Args:
      leaves: Leaves with the parts of their names.
      depth: How many levels to show, or None for all.
      level: How many parts of the names the rows above have shown.
      guide: Lines that lead from these rows to those of the same level below.
    """
    groups: dict[str, list[tuple[list[str], LeafInfo]]] = {}
    for parts, leaf in leaves:
        groups.setdefault(parts[level], []).append((parts, leaf))
    for number, (name, found) in enumerate(groups.items(), 1):
        is_last = number == len(groups)
        sign = "" if not level else "└─ " if is_last else "├─ "
        shown = f"{guide}{sign}{one_line(name)}"
        below = [(parts, leaf) for parts, leaf in found if len(parts) > level + 1]
        for parts, leaf in found:
            if len(parts) == level + 1:
                yield [shown, *leaf.cells()[1:]]
        if not below:
            continue
        sizes = [
            sum(leaf.size_bytes for _, leaf in below),
            sum(leaf.stored_bytes for _, leaf in below),
        ]
        count = figures.count(len(below), "leaf")
        yield [shown, count, *map(figures.size, sizes), ""]
        if depth is None or level + 1 < depth:
            lead = "" if not level else "   " if is_last else "│  "
            yield from _rows(below, depth, level + 1, guide + lead)

"""List the saves of directories.

A row for each save: its number, step, age, size, new bytes, metrics, and whether it is
pinned, the best, the latest, damaged or unreadable. New are the files that it wrote,
its manifest among them; du shows what is on the disk, also files of removed saves that
others still link to. An arrow says which metric makes a save the best, and what is
better: ↑ more, ↓ less.

Examples:
  elementsckpt ls runs/walker
  elementsckpt ls runs/* -l
  elementsckpt ls runs/walker | tail -n 5
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...errors import SaveNotFoundError, one_line
from ...reports import figures
from ...reports.outline import Column, Table
from ..screen import Screen

if TYPE_CHECKING:
    from datetime import datetime

    from ...inspection.infos import ListedSave, ListedSaves
    from ...reports import SaveInfo

_MOST_METRICS = 4  # In a row, unless all are asked for.


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("directories", nargs="+", metavar="DIR")
    parser.add_argument("-l", "--long", action="store_true", help="show all metrics")


def run(options: argparse.Namespace, screen: Screen) -> int:
    """List saves."""
    from ...inspection import infos

    for number, directory in enumerate(options.directories):
        found = infos.listed(directory)
        if screen.is_json:
            for save in found.saves:
                screen.json(_object(save))
            continue
        if number:
            screen.print()
        _print(screen, directory, found, is_long=options.long)
    return 0


def _object(save: ListedSave) -> dict[str, Any]:
    return {
        **save.info.to_dict(),
        "size_bytes": save.info.size_bytes,
        "bytes_written": save.bytes_written,
        "marks": list(save.marks),
    }


def listed_object(directory: str, info: SaveInfo) -> dict[str, Any]:
    """Return the object for one save of a directory, as `ls` prints it."""
    from ...inspection import infos

    found = []
    with contextlib.suppress(SaveNotFoundError):  # All were removed.
        saves = infos.listed(directory).saves
        found = [save for save in saves if save.info.path == info.path]
    # If it was pruned meanwhile, nothing more is known of it.
    return _object(found[0] if found else infos.ListedSave(info, None, ()))


def _print(
    screen: Screen, directory: str, found: ListedSaves, *, is_long: bool
) -> None:
    import datetime

    saves = found.saves
    state = sum(save.info.size_bytes for save in saves)
    written = sum(save.bytes_written or 0 for save in saves)
    screen.print(
        f"{one_line(directory)}  {figures.count(len(saves), 'save')}, "
        f"{figures.size(written)} written for {figures.size(state)} of state"
    )
    names = list(dict.fromkeys(name for save in saves for name in save.info.metrics))
    names.sort(key=lambda name: name != found.metric)  # What decides comes first.
    arrow = " ↑" if found.mode == "max" else " ↓"
    shown = names if is_long else names[:_MOST_METRICS]
    titles = [one_line(x) + (arrow if x == found.metric else "") for x in shown]
    worths = [2 if x == found.metric else 1 for x in shown]
    columns = [
        Column("#", is_right=True, is_kept=True),
        Column("step", is_right=True, is_kept=True),
        Column("age", is_right=True),
        Column("size", is_right=True),
        Column("new", is_right=True),
        *(
            Column(x, is_right=True, worth=y)
            for x, y in zip(titles, worths, strict=True)
        ),
        Column("", is_kept=True),
    ]
    now = datetime.datetime.now(datetime.timezone.utc)
    screen.table(Table(columns, [_row(save, shown, now) for save in saves]))
    if len(names) > len(shown):
        more = ", ".join(one_line(name) for name in names[len(shown) :])
        screen.print(f"More metrics: {more}. Show them with -l.", "dim")


def _row(save: ListedSave, names: Sequence[str], now: datetime) -> list[str]:
    info, written = save.info, save.bytes_written
    age = "-" if info.time is None else figures.age((now - info.time).total_seconds())
    return [
        "-" if info.sequence is None else str(info.sequence),
        figures.step(info.step),
        age,
        "-" if info.sequence is None else figures.size(info.size_bytes),
        "-" if written is None else figures.size(written),
        *(figures.number(info.metrics[x]) if x in info.metrics else "" for x in names),
        one_line(", ".join(save.marks)),
    ]

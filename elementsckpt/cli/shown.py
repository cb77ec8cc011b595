"""Which save a verb shows, in a line or in full."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import one_line
from ..reports import figures
from ..reports.outline import Column, Table
from .screen import Screen

if TYPE_CHECKING:
    from ..reports import SaveInfo


def line(info: SaveInfo) -> str:
    """Return a line about a save: number, step, time, size, metrics and pin."""
    parts = [f"#{info.sequence}"]
    parts += [] if info.step is None else [f"step {figures.step(info.step)}"]
    parts += [] if info.time is None else [figures.time(info.time)]
    parts.append(figures.size(info.size_bytes))
    parts += [figures.metrics(info.metrics)] if info.metrics else []
    parts += [] if info.pin is None else [f"pin {one_line(info.pin)}"]
    return "  ".join(parts)


def print_details(info: SaveInfo, screen: Screen) -> None:
    """Print what a save records besides its state, a row for each."""
    columns = [Column("", is_kept=True)] * 2
    screen.table(Table(columns, info.details()))
    screen.print()

"""How far work is that takes long."""

from __future__ import annotations

from . import figures
from .outline import Outline
from .report import Report


class Progress(Report, frozen=True):
    """How far a function is.

    Attributes:
      work: Name of the function; "load" also for `load_or_save`.
      bytes_done: Bytes that are done.
      bytes_total: Bytes to do.
      seconds: Time since it began.
      is_finished: Whether it has ended.
    """

    work: str
    bytes_done: int
    bytes_total: int
    seconds: float
    is_finished: bool

    def outline(self) -> Outline:
        done = self.bytes_done / self.bytes_total if self.bytes_total else 1.0
        return Outline(
            f"{self.work}: {100 * done:.0f} %, {figures.size(self.bytes_done)} of "
            f"{figures.size(self.bytes_total)} in {figures.seconds(self.seconds)}"
        )

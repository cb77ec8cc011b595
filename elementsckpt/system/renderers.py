"""Show how far a function is: in a terminal, in a notebook, or in the log."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
from typing import Any, Protocol, TextIO

from ..reports import figures
from ..reports.work import Progress

_VARIABLE = "ELEMENTSCKPT_PROGRESS"  # "0" shows nothing, "log" only logs.
_PATIENCE_S = 1.0  # What takes less is not shown.
_REFRESH_S = 0.1
_LOG_S = 30.0
_MOST_CELLS = 30  # Of the bar.
_logger = logging.getLogger("elementsckpt")


class Renderer(Protocol):
    """Shows progress; what goes wrong with that is dropped."""

    def __call__(self, progress: Progress) -> None:
        """Show how far a function is, if it is time to."""

    def close(self) -> None:
        """Remove what is not finished; the function has ended."""


def default() -> Renderer | None:
    """Return what shows progress here, or None if nothing does."""
    wanted = os.environ.get(_VARIABLE, "")
    if wanted == "0":
        return None
    if wanted != "log":
        if _is_notebook():
            return _Display()
        if _is_terminal(sys.stderr):
            return _Bar(sys.stderr)
    return _Log() if _logger.isEnabledFor(logging.INFO) else None


def _is_notebook() -> bool:
    """Return whether a kernel of Jupyter runs this."""
    ask = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = None if ask is None else ask()
    return getattr(shell, "kernel", None) is not None


def _is_terminal(stream: TextIO | None) -> bool:
    with contextlib.suppress(Exception):  # What a program put there may have no isatty.
        return stream is not None and stream.isatty() and _can_move()
    return False


def _can_move() -> bool:
    return os.environ.get("TERM") != "dumb"


class _Bar:
    """One line of a terminal, cleared at the end."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._drawn_s: float | None = None

    def __call__(self, progress: Progress) -> None:
        if _is_due(progress, self._drawn_s) and not progress.is_finished:
            self._drawn_s = progress.seconds
            self._write(f"\r{line(progress, _width(self._stream))}\x1b[K")

    def close(self) -> None:
        if self._drawn_s is not None:
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        with contextlib.suppress(Exception):
            self._stream.write(text)
            self._stream.flush()


class _Display:
    """One output of a cell, which is updated."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._shown_s: float | None = None
        self._is_whole = False

    def __call__(self, progress: Progress) -> None:
        is_last = progress.is_finished and self._handle is not None
        if is_last or (_is_due(progress, self._shown_s) and not progress.is_finished):
            self._shown_s = progress.seconds
            self._show(_bundle(progress))
            self._is_whole = progress.is_finished

    def close(self) -> None:
        if self._handle is not None and not self._is_whole:
            self._show({"text/plain": ""})

    def _show(self, bundle: dict[str, str]) -> None:
        with contextlib.suppress(Exception):
            if self._handle is None:
                display = importlib.import_module("IPython.display").display
                self._handle = display(bundle, raw=True, display_id=True)
            else:
                self._handle.update(bundle, raw=True)


class _Log:
    """A line in the log now and then."""

    def __init__(self) -> None:
        self._logged_s = 0.0

    def __call__(self, progress: Progress) -> None:
        if not progress.is_finished and progress.seconds - self._logged_s >= _LOG_S:
            self._logged_s = progress.seconds
            _logger.info("%s", progress)

    def close(self) -> None:
        """Do nothing: what is logged stays."""


def _is_due(progress: Progress, last_s: float | None) -> bool:
    if last_s is None:
        return progress.seconds >= _PATIENCE_S
    return progress.seconds - last_s >= _REFRESH_S


def _share(progress: Progress) -> float:
    total = progress.bytes_total
    return progress.bytes_done / total if total else 0.0


def line(progress: Progress, width: int) -> str:
    """Return a line of ASCII that leaves the last column free, so nothing wraps."""
    share, room = _share(progress), max(0, width - 1)
    head = f"{progress.work} {int(100 * share):3d} %"
    done, total = map(figures.size, (progress.bytes_done, progress.bytes_total))
    tail = f"{done} of {total}, {figures.seconds(progress.seconds)}"
    cells = min(_MOST_CELLS, room - len(head) - len(tail) - len("  []  "))
    if cells >= 5:
        bar = ("#" * int(cells * share)).ljust(cells)
        return f"{head}  [{bar}]  {tail}"
    text = f"{head}  {tail}"
    return text if len(text) <= room else head[:room]


def _width(stream: TextIO) -> int:
    """Return how many columns there are: of the terminal, or what COLUMNS says."""
    text = os.environ.get("COLUMNS", "")
    known = int(text) if text.isdecimal() else 0
    with contextlib.suppress(Exception):
        real = os.get_terminal_size(stream.fileno()).columns
        known = min(known or real, real or known)
    return known or 80


def _bundle(progress: Progress) -> dict[str, str]:
    text = progress.outline().title
    share = _share(progress)
    bar = f'<progress value="{share:.4f}" max="1"></progress>'
    import html  # Only notebooks need it.

    return {"text/plain": text, "text/html": f"<div>{bar} {html.escape(text)}</div>"}

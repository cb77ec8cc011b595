"""Follows a run from another process: yields its saves as they come."""

from __future__ import annotations

import time
from collections.abc import Iterator

from ..directory import lookup
from ..directory.entries import SaveEntry
from ..directory.listing import Directory
from ..errors import DamagedError, SaveNotFoundError
from ..reports import SaveInfo
from ..storage import paths
from ..user.arguments import AnyPath, flag, local, shown
from .infos import describe

_POLL_S = 1.0


def follow(
    directory: AnyPath,
    *,
    every: bool = False,
    timeout_s: float | None = None,
    poll_s: float | None = None,
) -> Iterator[SaveInfo]:
    """Yield the newest save of a directory, and again when there is a newer one.

        for info in elementsckpt.follow("logdir/ckpt", timeout_s=3600):
            cp.load(info.path)
            evaluate(agent)

    Unfinished and damaged saves are passed over. The run may prune a save at any time,
    so a load of it may raise SaveNotFoundError.

    Args:
      directory: The directory, which may come later.
      every: Whether to yield each save, the oldest first, instead of the newest.
      timeout_s: Seconds after the last new save when to end; None for never.
      poll_s: Seconds between two looks; by default one.

    Raises:
      SaveNotFoundError: the path is a file, or an address of no save.
      ValueError: an argument is not valid, or the path is a save.
      ReadError: the system refused to read.
    """
    here = checked(directory)
    is_every = flag("every", every)
    for name, value in (("timeout_s", timeout_s), ("poll_s", poll_s)):
        if value is not None and not _is_duration(value):
            raise ValueError(f"{name}={shown(value)}: pass seconds, from 0 on.")
    pause_s = _POLL_S if poll_s is None else poll_s
    return _follow(here, timeout_s, pause_s, begins_with_all=is_every, every=is_every)


def watch(here: Directory) -> Iterator[SaveInfo]:
    """Yield the newest save of a directory, and then each new one, for ever."""
    return _follow(here, None, _POLL_S, begins_with_all=False, every=True)


def checked(directory: AnyPath) -> Directory:
    """Return a directory to follow, which may come later.

    Raises:
      SaveNotFoundError: the path is a file, or an address of no save.
      ValueError: it is a save.
    """
    here = Directory(local(directory))
    if paths.leads_to_file(here.path):
        raise SaveNotFoundError(
            f"{here.path} is a file: pass the directory of a run, which may come later."
        )
    if not here.saves():
        lookup.require_no_save(here.path)
    return here


def _is_duration(value: object) -> bool:
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0
    )


def _follow(
    here: Directory,
    timeout_s: float | None,
    poll_s: float,
    *,
    begins_with_all: bool,
    every: bool,
) -> Iterator[SaveInfo]:
    seen, last = (-1.0, ""), time.monotonic()
    takes_all = begins_with_all
    while True:
        new = [x for x in here.saves() if x.error is None and _place(x) > seen]
        for entry in new if takes_all else new[-1:]:
            try:
                info = describe(entry)
            except DamagedError:
                continue
            seen = _place(entry)
            yield info
            last = time.monotonic()
        takes_all = every
        if timeout_s is not None and time.monotonic() - last >= timeout_s:
            return
        time.sleep(poll_s)


def _place(save: SaveEntry) -> tuple[float, str]:
    return save.sequence, save.path.name

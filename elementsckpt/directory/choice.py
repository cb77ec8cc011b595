"""Chooses among the saves of a directory: by step, pin or metric, or the newest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import DamagedError, SaveNotFoundError
from ..format import manifest
from . import retention
from .entries import SaveEntry
from .listing import Directory
from .retention import Keep

_PASSES = 10


def newest(saves: list[SaveEntry]) -> SaveEntry:
    """Return the newest save that is not damaged.

    Args:
      saves: The saves, newest first.

    Raises:
      DamagedError: all are damaged.
      VersionError, ReadError: the newest undamaged save cannot be read.
    """
    for save in saves:
        if save.error is None:
            return save
        if not isinstance(save.error, DamagedError):
            raise save.error
    assert saves[0].error is not None
    raise DamagedError(
        f"{saves[0].error} Restore it from a copy, or choose another save."
    ) from saves[0].error


def best(directory: Directory, keep: Keep) -> SaveEntry | None:
    """Return the best save of a directory, or None if no save can be ranked.

    Args:
      directory: The directory.
      keep: How to rank. Without a metric, the newest save that records a ranking says.

    Raises:
      ValueError: saves have metrics, but neither `keep` nor a save says which to use.
    """
    return best_of(directory.saves(), keep, directory.path)


def best_of(found: Iterable[SaveEntry], keep: Keep, place: Path) -> SaveEntry | None:
    """Return the best of some saves, as `best` does of those of a directory.

    Args:
      found: The saves, oldest first; damaged ones do not count.
      keep: How to rank.
      place: Where they are, for errors.
    """
    saves = [save for save in found if save.head is not None]
    heads = [save.head for save in saves if save.head is not None]
    ranking = keep if keep.metric is not None else retention.recorded(heads)
    if ranking is None:
        names = sorted({name for head in heads for name in head.metrics})
        if names:
            raise ValueError(
                f"Which save in {place} is the best? There are the metrics "
                f"{', '.join(names)}: pass keep=Keep(metric={names[0]!r}) to "
                f"Checkpoint(), with mode='min' if less is better."
            )
        return None
    number = retention.best(ranking, heads)
    return None if number is None else saves[number]


def pinned(directory: Directory, name: str) -> list[SaveEntry]:
    """Return the newest save pinned under this name, in a list; [] if none is."""
    saves, pin = directory.saves()[::-1], manifest.escape(name)
    return [save for save in saves if save.head and save.head.pin == pin][:1]


def with_step(directory: Directory, step: int) -> list[SaveEntry]:
    """Return the saves of a directory with this step, newest first.

    Raises:
      SaveNotFoundError: there is none; the message lists the steps of the saves.
    """
    saves = directory.saves()[::-1]
    found = [save for save in saves if save.step == step]
    if not found:
        steps = sorted({save.step for save in saves if save.step is not None})
        remedy = f"Choose one of these steps: {_listed(steps)}."
        raise SaveNotFoundError(
            f"There is no save of step {step} in {directory.path}. "
            f"{remedy if steps else 'No save there has a step: pass its path instead.'}"
        )
    return found


def _listed(steps: Sequence[int]) -> str:
    some = [*steps[:3], "...", *steps[-3:]] if len(steps) > 7 else steps
    return ", ".join(map(str, some))


def latest(directory: Directory) -> SaveEntry | None:
    """Return the newest save whose manifest is not damaged, or None without saves.

    Of saves that were seen before, this looks at the one that it returns alone.

    Raises:
      DamagedError, VersionError, ReadError: as from `newest`.
    """
    found = None
    for look in (directory.known, *[directory.saves] * _PASSES):
        saves = look()[::-1]
        while saves:
            found = newest(saves)
            is_whole = directory.is_whole(found)
            if found.has_changed():  # Another process has removed it, say.
                break
            if is_whole:
                return found
            saves = saves[saves.index(found) + 1 :]
        else:
            return None
    return found

"""Which save is meant: by a path, a step, a name, or for being the newest or best."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from . import drafts, elements_folder, manifest, retention
from .errors import CheckpointError, DamagedError, SaveNotFoundError
from .folder import Directory, Found, read_head
from .retention import Keep


def find(path: Path, directory: Directory | None = None) -> list[Found]:
    """Return the save at a path, or those of a directory, newest first.

    Args:
      path: A save folder or a directory.
      directory: The directory, if the caller has it already.

    Raises:
      SaveNotFoundError: there is no save.
    """
    own = directory is not None and directory.path == path
    here = None if own else _save_at(path)
    if here is not None and here.error is None and here.head is not None:
        return [here]
    listing = directory if own and directory is not None else Directory(path)
    try:
        saves = listing.saves()[::-1]
    except CheckpointError:
        if here is None:
            raise
        saves = []
    if not saves and here is not None:  # Stray files do not hide the saves beside them.
        return [here]
    if not saves:
        raise SaveNotFoundError(f"There is no save in {path}: {_describe(path)}.")
    return saves


def with_step(directory: Directory, step: int) -> list[Found]:
    """Return the saves of a directory with this step, newest first.

    Raises:
      SaveNotFoundError: there is none; the message lists the steps that there are.
    """
    saves = directory.saves()[::-1]
    found = [save for save in saves if save.step == step]
    if not found:
        steps = sorted({save.step for save in saves if save.step is not None})
        raise SaveNotFoundError(
            f"There is no save of step {step} in {directory.path}. There are "
            f"{_listed(steps) or 'no saves with a step'}."
        )
    return found


def _listed(steps: Sequence[int]) -> str:
    some = [*steps[:3], "...", *steps[-3:]] if len(steps) > 7 else steps
    return ", ".join(map(str, some))


def pinned(directory: Directory, name: str) -> list[Found]:
    """Return the newest save that is pinned under this name, if there is one."""
    saves = directory.saves()[::-1]
    return [save for save in saves if save.head and save.head.pin == name][:1]


def best(directory: Directory, keep: Keep) -> Found | None:
    """Return the best save of a directory, or None if no save can be that.

    Args:
      directory: The directory.
      keep: How to rank. Without a metric, it is as the newest save has it.

    Raises:
      ValueError: there are metrics, and nobody said which.
    """
    saves = [save for save in directory.saves() if save.head is not None]
    heads = [save.head for save in saves if save.head is not None]
    ranking = keep if keep.metric is not None else retention.recorded(heads)
    if ranking is None:
        names = sorted({name for head in heads for name in head.metrics})
        if names:
            raise ValueError(
                f"Which save in {directory.path} is the best? There are the metrics "
                f"{', '.join(names)}: pass keep=Keep(metric={names[0]!r}) to "
                f"Checkpoint(), with mode='min' if less is better."
            )
        return None
    number = retention.best(ranking, heads)
    return None if number is None else saves[number]


def newest(saves: list[Found]) -> Found:
    """Return the first that is not damaged.

    Args:
      saves: The newest first.

    Raises:
      DamagedError: all are.
      VersionError, ReadError: why the first that is not cannot be read.
    """
    for save in saves:
        if save.error is None:
            return save
        if not isinstance(save.error, DamagedError):
            raise save.error
    assert saves[0].error is not None
    raise saves[0].error


def _save_at(path: Path) -> Found | None:
    if os.path.lexists(path / manifest.NAME):
        found = read_head(path)
        if found.error is None or os.path.lexists(path / manifest.NAME):
            return found  # Else somebody has just removed it.
    return Found(path, None, None, 0) if elements_folder.is_save(path) else None


def _describe(path: Path) -> str:
    if not os.path.exists(path):
        parent = next(p for p in path.parents if os.path.exists(p))
        return (
            f"that path was not found ({parent} is there and {drafts.contents(parent)})"
        )
    if not os.path.isdir(path):
        return "it is a file, and a save is a folder"
    if os.path.lexists(path / drafts.DRAFT):
        return "it is a save that was never finished"
    return f"the folder {drafts.contents(path)}"

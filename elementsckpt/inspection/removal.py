"""Removes saves, by rules or one by one, and says what stays and why."""

from __future__ import annotations

from collections.abc import Sequence

from ..directory import lookup, retention
from ..directory.entries import SaveEntry
from ..directory.listing import Directory
from ..directory.retention import Keep
from ..reports.disk import KeptSave, PruneReport
from ..storage import paths
from ..user.arguments import AnyPath, flag, local, shown
from .disk_usage import freed_by


def prune(directory: AnyPath, keep: Keep, dry_run: bool = False) -> PruneReport:
    """Remove the saves of a directory that no rule keeps.

    Saves that were not written there, and damaged ones, stay.

    Args:
      directory: The directory.
      keep: The rules, as for `Checkpoint`. A save does not record them.
      dry_run: Whether to remove nothing.

    Raises:
      SaveNotFoundError: there is no save.
      ValueError: `keep` is not a Keep, or `directory` is a save.
    """
    path = local(directory)
    if not isinstance(keep, Keep):
        raise ValueError(f"keep={shown(keep)}: pass elementsckpt.Keep(latest=...).")
    here = _directory(path)
    saves = here.saves()
    ours = [save for save in saves if save.is_original]
    heads = [save.head for save in ours if save.head is not None]
    found = retention.reasons(keep, heads)
    why = {save.path: found[n] for n, save in enumerate(ours)}
    gone = [save for save in ours if not why[save.path]]
    is_dry_run = flag("dry_run", dry_run)
    freed = freed_by(gone)
    removed = [save.path for save in gone]
    if gone and not is_dry_run:
        removed = here.prune(keep, saves, fsync=True)
    kept = [save for save in saves if save.path not in removed]
    return PruneReport(
        path=path,
        removed=tuple(removed),
        kept=tuple(_kept(save, why.get(save.path)) for save in kept),
        bytes_freed=freed(removed),
        is_dry_run=is_dry_run,
    )


def delete(path: AnyPath, dry_run: bool = False) -> PruneReport:
    """Remove one save, pinned or not; the file `latest` leads to the newest one left.

    Args:
      path: The save or its address.
      dry_run: Whether to remove nothing.

    Raises:
      SaveNotFoundError: there is no such save.
      ValueError: it is a directory, was not written there, or is the only whole save.
    """
    place = local(path)
    entry = lookup.find(place)[0]
    if entry.path != place and paths.is_there(place):
        raise ValueError(
            f"{place} is a directory of saves: name the one to delete, such as "
            f"{place}@{entry.step if entry.step is not None else 'latest'}."
        )
    directory = Directory(entry.path.parent)
    found = lookup.deletable(directory, entry.path, None, Keep())
    is_dry_run = flag("dry_run", dry_run)
    freed = freed_by(found)
    removed = [save.path for save in found]
    if not is_dry_run:
        removed = directory.delete(found, fsync=True)
    return PruneReport(place, tuple(removed), (), freed(removed), is_dry_run)


def _directory(path: AnyPath) -> Directory:
    place = local(path)
    saves = lookup.find(place)
    if saves[0].path == place:
        raise ValueError(f"{place} is a save: pass the directory that it is in.")
    return Directory(place)


def _kept(save: SaveEntry, reasons: Sequence[str] | None) -> KeptSave:
    why = list(reasons or ())
    if save.error is not None:
        why = ["damaged"]
    elif not save.is_original:
        is_explicit = save.head is not None and save.head.explicit
        why = ["explicit" if is_explicit else "foreign"]
    sequence = None if save.head is None else save.head.sequence
    return KeptSave(save.path, save.step, sequence, tuple(why))

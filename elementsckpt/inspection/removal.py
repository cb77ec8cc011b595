"""Removes saves, by rules or one by one, and says what stays and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..directory import lookup, records, retention
from ..directory.entries import SaveEntry
from ..directory.listing import Directory
from ..directory.retention import Keep
from ..errors import ReadError, one_line
from ..format.manifest import Head
from ..reports import figures
from ..reports.disk import KeptSave, PruneReport
from ..storage import paths, streams
from ..user import hints
from ..user.arguments import AnyPath, flag, local, shown
from . import verification
from .disk_usage import freed_by, stored_bytes


def prune(directory: AnyPath, keep: Keep, dry_run: bool = False) -> PruneReport:
    """Remove the saves of a directory that no rule keeps.

    Saves that were not written there, and damaged ones, stay. Before others go, every
    byte of the newest save that stays is verified; a damaged one does not count as
    kept. What killed processes left unfinished goes, too.

    Args:
      directory: The directory.
      keep: The rules, as for `Checkpoint`. A save does not record them.
      dry_run: Whether to remove nothing.

    Raises:
      SaveNotFoundError: there is no save.
      ValueError: `keep` is not a Keep, no save has a finite `keep.metric`, or
        `directory` is a save.
    """
    is_dry_run = flag("dry_run", dry_run)
    plan = plan_prune(directory, keep)
    return plan.report() if is_dry_run else plan.carry_out()


def delete(path: AnyPath, dry_run: bool = False) -> PruneReport:
    """Remove one save, pinned or not; the file `latest` leads to the newest one left.

    Before a whole save goes, every byte of another one is verified.

    Args:
      path: The save or its address.
      dry_run: Whether to remove nothing.

    Raises:
      SaveNotFoundError: there is no such save.
      ValueError: it is a directory, was not written there, or is the only whole save.
    """
    is_dry_run = flag("dry_run", dry_run)
    plan = plan_delete(path)
    return plan.report() if is_dry_run else plan.carry_out()


class Plan(NamedTuple):
    """Saves that are to be removed.

    Attributes:
      path: The directory, or the save to delete.
      gone: The saves to remove.
      kept: Returns why saves stay, given the paths of those that do not.
      unfinished: Returns the size of each unfinished save that is there.
      remove: Removes, and returns the paths of what it removed.
      freed: Returns how much disk space removing some of `gone` frees.
    """

    path: Path
    gone: list[SaveEntry]
    kept: Callable[[Iterable[Path]], list[KeptSave]]
    unfinished: Callable[[], list[int]]
    remove: Callable[[], list[Path]]
    freed: Callable[[Iterable[Path]], int]

    def report(self) -> PruneReport:
        """Return what would be removed."""
        removed = [save.path for save in self.gone]
        sizes = self.unfinished()
        note = f"{_unfinished(sizes)} would go, unless being written" if sizes else ""
        return self._report(removed, note, is_dry_run=True)

    def carry_out(self) -> PruneReport:
        """Remove, and return what was."""
        before = self.unfinished()
        removed = self.remove()
        left = self.unfinished()
        count, size_bytes = len(before) - len(left), sum(before) - sum(left)
        note = f"{_unfinished([size_bytes], count)} removed" if count > 0 else ""
        return self._report(removed, note, is_dry_run=False)

    def _report(
        self, removed: list[Path], note: str, *, is_dry_run: bool
    ) -> PruneReport:
        planned = {save.path for save in self.gone}
        return PruneReport(
            path=self.path,
            removed=tuple(removed),
            kept=tuple(self.kept(removed)),
            bytes_freed=self.freed(path for path in removed if path in planned),
            is_dry_run=is_dry_run,
            _note=note,
            _labels={save.path: _label(save) for save in self.gone},
        )


def plan_prune(directory: AnyPath, keep: Keep) -> Plan:
    """Return what `prune` is to remove; its errors are those of `prune`."""
    here = Directory(local(directory))
    if not isinstance(keep, Keep):
        raise ValueError(f"keep={shown(keep)}: pass elementsckpt.Keep(latest=...).")
    saves = lookup.required(here)
    ours = [x for x in saves if x.is_original]
    _require_metric(keep, [x.head for x in ours if x.head is not None], here.path)
    why, gone, good = _chosen(here, keep, ours)

    def kept(removed: Iterable[Path]) -> list[KeptSave]:
        left = {*(save.path for save in saves)} - {*removed}
        return [
            _kept(keep, save, why.get(save.path, ()), is_damaged=here.is_damaged(save))
            for save in saves
            if save.path in left and not save.source.is_missing()
        ]

    def remove() -> list[Path]:
        going = gone
        if gone and any(save.has_changed() for save in saves):
            again = _chosen(
                here, keep, [x for x in here.saves() if x.is_original], good
            )
            why.update(again.why)
            planned = {save.path for save in gone}
            going = [save for save in again.gone if save.path in planned]
        free = (save for save in going if not streams.is_held(save.path))
        found = here.remove(free, fsync=True)
        here.sweep(here.look())
        return found

    def unfinished() -> list[int]:
        return [stored_bytes(x) for x in here.unfinished()]

    return Plan(here.path, gone, kept, unfinished, remove, freed_by(gone))


def plan_delete(path: AnyPath) -> Plan:
    """Return what `delete` is to remove; its errors are those of `delete`."""
    place = local(path)
    entry = lookup.find(place)[0]
    if entry.path != place and paths.is_there(place):
        raise ValueError(
            f"{place} is a directory of saves: name the one to delete, such as "
            f"{place}@{entry.step if entry.step is not None else 'latest'}."
        )
    here = Directory(entry.path.parent)
    gone = lookup.deletable(here, entry.path, None, Keep())
    good = _require_whole(here, gone)

    def remove() -> list[Path]:
        if good is None or good.has_changed():
            _require_whole(here, gone)
        return here.delete(gone, fsync=True)

    return Plan(
        path=place,
        gone=gone,
        kept=lambda _: [],
        unfinished=list,
        remove=remove,
        freed=freed_by(gone),
    )


class _Choice(NamedTuple):
    """What the rules say.

    Attributes:
      why: Why saves stay, by their paths.
      gone: The saves that are to go.
      good: A save that stays and was verified; None if none is to go.
    """

    why: dict[Path, list[str]]
    gone: list[SaveEntry]
    good: SaveEntry | None


def _chosen(
    here: Directory,
    keep: Keep,
    saves: Sequence[SaveEntry],
    good: SaveEntry | None = None,
) -> _Choice:
    """Return why saves stay, and which are to go.

    The bytes of the newest one that stays are verified, unless it is `good` and has not
    changed since. If they are damaged, the rules are for the others, as in a process
    that found the damage when it loaded.
    """
    while True:
        ours = [save for save in saves if not here.is_damaged(save)]
        heads = [save.head for save in ours if save.head is not None]
        found = retention.reasons(keep, heads)
        why = {save.path: x for save, x in zip(ours, found, strict=True)}
        gone = [save for save in ours if not why[save.path]]
        if not gone:
            return _Choice(why, gone, None)
        newest = ours[-1]
        place = newest.path, newest.signature
        is_known = good is not None and place == (good.path, good.signature)
        damaged = [save for save in gone if not here.is_whole(save)]
        if not damaged and (is_known or verification.is_good(newest)):
            return _Choice(why, gone, newest)
        for save in damaged or [newest]:
            here.distrust(save.path)


def _require_whole(here: Directory, gone: Sequence[SaveEntry]) -> SaveEntry | None:
    """Refuse to remove the only save of which no byte is damaged.

    Returns:
      A save that stays and was verified; None if what is lost is damaged, too.
    """
    if all(save.error is not None for save in gone):
        return None  # What is lost is known to be damaged.
    lost = {paths.real(save.path) for save in gone}
    left = [x for x in here.saves() if x.error is None]
    left = [x for x in left if paths.real(x.path) not in lost]
    stays = _first_good(reversed(left))
    good = _first_good(gone) if stays is None else None
    if good is not None:
        raise ValueError(
            f"{good.path} is the only complete save, as all others are damaged or "
            f"gone, so it is not removed. Make another one first, or remove the folder "
            f"yourself."
        )
    return stays


def _first_good(saves: Iterable[SaveEntry]) -> SaveEntry | None:
    """Return the first save without damage, or None.

    Raises:
      ReadError: the system refused to read some, and all others are damaged.
    """
    refused: ReadError | None = None
    for save in saves:
        try:
            if verification.is_good(save):
                return save
        except ReadError as error:
            refused = refused or error
    if refused is not None:
        raise refused
    return None


def _require_metric(keep: Keep, heads: Sequence[Head], place: Path) -> None:
    """Refuse to rank by a metric that no save has."""
    if not (keep.best and heads) or retention.best(keep, heads) is not None:
        return
    found = (records.decode_metrics(head.metrics) for head in heads)
    there = sorted({name for metrics in found for name in metrics})
    metric = keep.metric if isinstance(keep.metric, str) else None
    if metric is None:
        raise ValueError(
            f"The metric function returns a finite number for no save in {place}, so "
            f"nothing was removed. Pass another one, for metrics such as "
            f"{', '.join(there) or 'none, as there are no metrics'}."
        )
    others = [name for name in there if name != metric]
    names = ", ".join(map(repr, hints.nearest(metric, others)))
    remedy = f"Choose one of {names}" if names else "Choose by latest= or every="
    raise ValueError(
        f"No save in {place} has a finite {metric!r} to be the best by, so nothing was "
        f"removed. {remedy}."
    )


def _kept(
    keep: Keep, save: SaveEntry, reasons: Sequence[str], *, is_damaged: bool
) -> KeptSave:
    head = save.head
    sequence = None if head is None else head.sequence
    if save.error is not None or is_damaged:
        reasons = ["damaged"]
    elif not save.is_original:
        reasons = ["explicit" if head is not None and head.explicit else "foreign"]
    rank = _rank(keep, head) if head is not None and "best" in reasons else ""
    return KeptSave(save.path, save.step, sequence, tuple(reasons), _rank=rank)


def _label(save: SaveEntry) -> str:
    """Return number, step and metrics of a save, as far as they are known."""
    head = save.head
    parts = [] if head is None else [f"#{head.sequence}"]
    parts += [] if save.step is None else [f"step {figures.step(save.step)}"]
    if head is not None and head.metrics:
        parts.append(figures.metrics(records.decode_metrics(head.metrics)))
    return "  ".join(parts)


def _rank(keep: Keep, head: Head) -> str:
    """Return by what a save is one of the best."""
    if not isinstance(keep.metric, str):
        return ""
    value = records.decode_metrics(head.metrics).get(keep.metric)
    return f"{keep.mode} {one_line(keep.metric)}: {figures.number(value)}"


def _unfinished(sizes: Sequence[int], count: int | None = None) -> str:
    noun = figures.count(len(sizes) if count is None else count, "unfinished save")
    return f"{noun}, {figures.size(sum(sizes))},"

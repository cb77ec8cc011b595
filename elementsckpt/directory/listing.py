"""Directories: which saves there are, in which order, and which of them stay."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import CheckpointError, DamagedError, ReadError, reason
from ..foreign import elements
from ..format import manifest, names, scalars
from ..format.manifest import Head
from ..storage import local, paths, reader
from ..storage.segments import SaveFolder
from ..user.notices import Notices
from . import metadata, retention
from .retention import Keep

_PASSES = 10


@dataclass(frozen=True)
class SaveEntry:
    """A save found in a directory.

    Attributes:
      source: Where it is read.
      head: What its manifest says; None if elements wrote it or it is damaged.
      error: Why it is damaged, or None.
      sequence: Its number; 0 if elements wrote it. A guess if it is damaged, which
        may be a half, between two others.
      is_link: Whether its name only leads to a save elsewhere.
      is_ours: Whether a damaged one was written by this library.
    """

    source: SaveFolder
    head: Head | None = None
    error: CheckpointError | None = None
    sequence: float = 0
    is_link: bool = False
    is_ours: bool = True

    @property
    def path(self) -> Path:
        """Where it is, as users know it."""
        return self.source.path

    @property
    def step(self) -> int | None:
        """Step of the run, which a folder of elements has in its name, or None."""
        return names.step_of(self.path.name) if self.head is None else self.head.step

    @property
    def is_original(self) -> bool:
        """Whether it was written here, under this name, as one of a sequence."""
        if self.head is None or self.head.explicit or self.is_link:
            return False
        return manifest.display(self.path.name) == self.head.name

    @property
    def is_removable(self) -> bool:
        """Whether it was written here, as far as can be told if it is damaged."""
        is_damaged = self.error is not None and not self.is_link
        return self.is_original or (is_damaged and _is_name_of_ours(self))

    @property
    def rank(self) -> tuple[Any, ...]:
        """Sorts oldest first; a copy comes before its original."""
        explicit = self.head is not None and self.head.explicit
        group = 0 if not self.sequence else 1 if explicit else 2
        return group, self.sequence, self.is_original, self.path.name


def _is_name_of_ours(save: SaveEntry) -> bool:
    return names.SAVE.fullmatch(save.path.name) is not None


class Look(NamedTuple):
    """What is in a directory.

    Attributes:
      saves: The saves, oldest first, damaged ones included.
      others: Names of what is not a save, or not yet, or not any more.
    """

    saves: list[SaveEntry]
    others: frozenset[str]


class Directory:
    """The root that holds a run's saves.

    Args:
      path: The directory, which need not exist.
      notices: What is said of it, and was.

    Attributes:
      store: The place that holds them.
    """

    def __init__(self, path: Path, notices: Notices | None = None) -> None:
        self._notices = Notices() if notices is None else notices
        self.store = local.LocalStore(path, self._notices)
        # Manifests can be large, so each is read once, unless it changes.
        self._cache: dict[str, tuple[Hashable, SaveEntry]] = {}
        self._damaged: set[Path] = set()

    @property
    def path(self) -> Path:
        """Where it is, as users know it."""
        return self.store.path

    def has(self, save: Path) -> bool:
        """Return whether a save is in this directory, not linked there."""
        is_here = paths.real(save.parent) == paths.real(self.path)
        return is_here and not self.store.open(save.name).is_link

    def saves(self) -> list[SaveEntry]:
        """Return the saves here, oldest first, damaged ones included."""
        return self.look().saves

    def look(self) -> Look:
        """Find out what is here."""
        # Threads, signal handlers and forked children come here, so nothing is locked.
        for _ in range(_PASSES):
            here = self.store.names()
            cache: dict[str, tuple[Hashable, SaveEntry]] = {}
            visible = [name for name in here if name[0] != "."]
            found = [self._entry(name, cache) for name in visible]
            # Others save and prune: what is new may not be finished when it is looked
            # at, and what is old be gone when it is done.
            if None not in found or self.store.names() == here:
                break
        self._cache = cache
        saves = [save for save in found if save is not None]
        good = [save for save in saves if save.is_original]
        saves = [save if save.error is None else _between(save, good) for save in saves]
        others = frozenset(here) - {save.path.name for save in saves}
        return Look(sorted(saves, key=lambda save: save.rank), others)

    def look_again(self, before: Look, own: str) -> Look:
        """Find out what is here now, reading as little as possible.

        Args:
          before: What was here.
          own: A draft of the caller.
        """
        known = {save.path.name for save in before.saves}
        here = {name for name in self.store.names() if name[0] != "."}
        return before if here - {own} == known else self.look()

    def sweep(self, here: Look | None = None) -> None:
        """Remove what processes that died in the middle of a save left here."""
        here = self.look() if here is None else here
        for name in sorted(here.others):
            if names.SAVE.fullmatch(name) or names.HIDDEN.fullmatch(name):
                self.store.sweep(name)

    def _entry(
        self, name: str, cache: dict[str, tuple[Hashable, SaveEntry]]
    ) -> SaveEntry | None:
        source = self.store.open(name)
        signature = source.signature()
        if signature is None and source.has_no_manifest():
            return self._without_manifest(source)
        known = self._cache.get(name)
        if known is None or signature is None or known[0] != signature:
            known = signature, read_entry(source)
        entry = known[1]
        if entry.error is not None and source.has_no_manifest():
            return self._without_manifest(source)  # It has just been removed.
        if not isinstance(entry.error, ReadError):
            cache[name] = known
        return entry if entry.is_ours else None

    def _without_manifest(self, source: SaveFolder) -> SaveEntry | None:
        entry = without_manifest(source)
        if entry is None and _lacks_manifest(source):
            self._notices.warn(
                ("no manifest", source.path),
                "%s is no save, as it has no %s. If somebody has removed that, restore "
                "it from a copy, else remove the folder.",
                *(source.path, names.MANIFEST),
            )
        return entry

    def note(self, path: Path, head: Head) -> SaveEntry:
        """Take note of a save that was just written, so that it need not be read."""
        source = self.store.open(path.name)
        entry = SaveEntry(source, head, sequence=head.sequence)
        signature = source.signature()
        if signature is not None:
            self._cache = {**self._cache, path.name: (signature, entry)}
        return entry

    def distrust(self, path: Path) -> None:
        """Take note of a save that was found damaged when it was read.

        It neither counts among those to keep nor is it removed.
        """
        self._damaged.add(paths.real(path))

    def _is_damaged(self, save: SaveEntry) -> bool:
        return bool(self._damaged) and paths.real(save.path) in self._damaged

    def prune(
        self,
        keep: Keep,
        saves: Sequence[SaveEntry],
        *,
        written: Path | None = None,
        fsync: bool,
    ) -> list[Path]:
        """Remove the saves that were written here and that nothing asks to keep.

        Args:
          keep: What is asked for.
          saves: The saves here.
          written: A save that stays in any case.
          fsync: Whether that they are gone is made durable.

        Returns:
          Those that were removed.
        """
        ours = [x for x in saves if x.is_original and not self._is_damaged(x)]
        heads = [save.head for save in ours if save.head is not None]
        stays = retention.staying(keep, heads)
        gone = [save.path for save, stay in zip(ours, stays, strict=True) if not stay]
        # Generators that are still being read go on until the next save.
        return self._remove(
            (x for x in gone if x != written and not reader.is_streaming(x)),
            fsync=fsync,
        )

    def delete(self, saves: Iterable[SaveEntry], *, fsync: bool) -> list[Path]:
        """Remove these saves and point `latest` to the newest that is left.

        Returns:
          Those that were removed.
        """
        removed = self._remove((save.path for save in saves), fsync=fsync)
        left = [save for save in self.saves() if save.error is None]
        if removed and left:
            self.store.point_latest(left[-1].path.name, fsync=fsync)
        return removed

    def _remove(self, saves: Iterable[Path], *, fsync: bool) -> list[Path]:
        """Remove saves of ours, as far as that goes; return what is gone."""
        return [path for path in saves if self.store.remove(path.name, fsync=fsync)]


def read_entry(source: SaveFolder) -> SaveEntry:
    """Return what has a manifest, or has a file by that name, as a save."""
    content, where = bytearray(), str(source.path / names.MANIFEST)
    is_link = source.is_link
    try:
        content = source.manifest()
        head = manifest.decode_head(content, where)
        _check(head, where)
    except CheckpointError as error:
        here = source.names()
        sequences = [x for x in map(names.sequence_of, here) if x is not None]
        is_ours = bool(sequences) or manifest.FORMAT.encode() in content
        sequence = max([_written(content), *sequences])
        entry = SaveEntry(source, None, error, sequence, is_link, is_ours)
        return dataclasses.replace(entry, is_ours=is_ours or _is_name_of_ours(entry))
    return SaveEntry(source, head, None, head.sequence, is_link)


def _written(content: bytearray) -> int:
    """Return the sequence that a damaged manifest tells, or 0."""
    # The first: metadata, which comes later, may use the word, too.
    match = re.search(rb'"sequence":\s*(\d{1,12})\b', content)
    return int(match[1]) if match else 0


def _check(head: Head, where: str) -> None:
    """Refuse metrics that are no numbers and keys that are no text: both are used."""
    try:
        metadata.decode_metrics(head.metrics)
        scalars.texts(item.key for item in head.components)
        scalars.texts(head.keys)
    except Exception as error:
        raise DamagedError(f"{where} is not a manifest: {reason(error)}.") from error


def without_manifest(source: SaveFolder) -> SaveEntry | None:
    """Return a save without manifest: one of elements, or one that cannot be read."""
    try:
        if elements.is_save(source.path):
            return SaveEntry(source)
    except CheckpointError as refused:
        return SaveEntry(source, error=refused)
    if source.is_dangling and names.SAVE.fullmatch(source.path.name):
        error = DamagedError(
            f"{source.path} is a link to a folder that is not there. Bring the folder "
            f"back, or remove the link."
        )
        return SaveEntry(source, error=error, is_link=True)
    return None


def _lacks_manifest(source: SaveFolder) -> bool:
    """Return whether it is a save without manifest; an unfinished one has a draft.

    Somebody has removed it, or power loss has kept segments and not the draft.
    """
    found = source.names() if names.SAVE.fullmatch(source.path.name) else []
    has_segments = any(names.sequence_of(name) is not None for name in found)
    is_ours = names.DRAFT not in found and has_segments
    return is_ours and source.has_no_manifest()  # Not finished meanwhile.


def _between(save: SaveEntry, others: list[SaveEntry]) -> SaveEntry:
    """Put a damaged save after the last one written here before, if not later."""
    if not _is_name_of_ours(save):
        return save
    before = [x.sequence for x in others if x.path.name < save.path.name]
    least = max(before, default=0) + 0.5
    return dataclasses.replace(save, sequence=max(save.sequence, least))


def next_sequence(saves: Iterable[SaveEntry]) -> int:
    """Return the number of the save that follows these."""
    newest = max((save.sequence for save in saves), default=0)
    return min(1 + math.ceil(newest), manifest.MAX_SEQUENCE - 1)

"""Directories: lists their saves in order, and removes saves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from msgspec import structs

from ..errors import CheckpointError, DamagedError, ReadError
from ..foreign import elements
from ..format import manifest, names
from ..format.manifest import Manifest
from ..storage import paths, places, streams
from ..storage.store import Source
from ..user.notices import Notices
from . import retention
from .entries import SaveEntry, read_entry
from .retention import Keep

_PASSES = 10
_LACKING = Notices()
RECENT = 32  # Saves that a save looks at, of those that it knows.


class Listing(NamedTuple):
    """What is in a directory.

    Attributes:
      saves: The saves, oldest first, damaged ones included.
      others: Names of everything else, such as unfinished saves and remains of removed
        ones.
    """

    saves: list[SaveEntry]
    others: frozenset[str]


class Directory:
    """The root that holds a run's saves.

    Args:
      path: The directory, which need not exist.
      notices: Logs warnings about it.

    Attributes:
      store: The store that holds the saves.
    """

    def __init__(self, path: Path, notices: Notices | None = None) -> None:
        # Functions that only look make an object each, and warn once of a folder.
        self._lacking = _LACKING if notices is None else notices
        own = Notices() if notices is None else notices
        self.store = places.open_store(path, own)
        # Heads are read once, unless manifests change; see `SaveEntry.signature`.
        self._cache: dict[str, SaveEntry] = {}
        self._damaged: set[Path] = set()

    @property
    def path(self) -> Path:
        """Path of the directory, as users know it."""
        return self.store.path

    def has(self, save: Path) -> bool:
        """Return whether a save is in this directory, not linked there."""
        is_here = paths.real(save.parent) == paths.real(self.path)
        return is_here and not self.store.open(save.name).is_link

    def saves(self) -> list[SaveEntry]:
        """Return the saves here, oldest first, damaged ones included."""
        return self.look().saves

    def has_saves(self) -> bool:
        """Return whether there is a save here, even a damaged one.

        The newest is enough, so the others are not looked at.
        """
        visible = [name for name in self.store.names() if name[0] != "."]
        newest_first = sorted(visible, reverse=True)
        if any(self._entry(name, self._cache) is not None for name in newest_first):
            return True
        return bool(self.saves())  # Other processes save and prune.

    def known(self) -> list[SaveEntry]:
        """Return the saves like `saves`, those seen before as they were then.

        Numbers and names of saves do not change.
        """
        return self.look(recent=0).saves

    def look(self, *, recent: int | None = None) -> Listing:
        """Return what is here now.

        Args:
          recent: How many of the last names to look at. Saves of earlier names that
            were seen before are taken to be as they were. None to look at all.
        """
        # Threads, signal handlers and forked children call this, so it takes no lock.
        for _ in range(_PASSES):
            here = self.store.names()
            cache: dict[str, SaveEntry] = {}
            visible = sorted(name for name in here if name[0] != ".")
            count = 0 if recent is None else max(0, len(visible) - recent)
            found = [self._known(name, cache) for name in visible[:count]]
            found += [self._entry(name, cache) for name in visible[count:]]
            # Other processes save and prune. While this looks, a new save may be
            # unfinished, and the one before it may be gone when it is finished.
            if None not in found or self.store.names() == here:
                break
        self._cache = cache
        saves = [save for save in found if save is not None]
        good = [save for save in saves if save.is_original]
        saves = [save if save.error is None else _between(save, good) for save in saves]
        others = frozenset(here) - {save.path.name for save in saves}
        return Listing(sorted(saves, key=lambda save: save.rank), others)

    def look_again(self, before: Listing, own: str) -> Listing:
        """Return what is here now, reading as little as possible.

        Args:
          before: An earlier listing.
          own: Name of a draft of the caller, which does not count.
        """
        known = {save.path.name for save in before.saves}
        here = {name for name in self.store.names() if name[0] != "."}
        new = here - known - {own}
        is_same = known <= here and new <= before.others
        if is_same and not any(self.store.open(name).signature() for name in new):
            return before
        return self.look(recent=RECENT)

    def unfinished(self) -> list[Source]:
        """Return what is being written here, or was left by dead processes."""
        found = map(self.store.open, sorted(self.look().others))
        return [source for source in found if _is_unfinished(source)]

    def without_manifest(self) -> list[Source]:
        """Return the folders here that would be saves if they had a manifest."""
        found = map(self.store.open, sorted(self.look().others))
        return [
            source
            for source in found
            if names.is_save(source.path.name) and _lacks_manifest(source)
        ]

    def sweep(self, here: Listing) -> None:
        """Remove the unfinished saves that dead processes left here."""
        for name in sorted(here.others):
            if names.is_save(name.removeprefix(".")):
                self.store.sweep(name)

    def _known(self, name: str, cache: dict[str, SaveEntry]) -> SaveEntry | None:
        """Return what is known of a save, without looking."""
        known = self._cache.get(name)
        if known is None or known.error is not None or not names.is_save(name):
            return self._entry(name, cache)
        cache[name] = known
        return known

    def _entry(self, name: str, cache: dict[str, SaveEntry]) -> SaveEntry | None:
        source, entry = self.store.open(name), self._cache.get(name)
        if entry is None or entry.has_changed():
            entry = read_entry(source)
        if entry is None:
            return self._without_manifest(source)
        if entry.signature is not None and not isinstance(entry.error, ReadError):
            cache[name] = entry
        return entry if entry.is_ours else None

    def _without_manifest(self, source: Source) -> SaveEntry | None:
        """Return a save of elements, or one that cannot be read."""
        try:
            if elements.is_save(source):
                return SaveEntry(source)
        except CheckpointError as refused:
            return SaveEntry(source, error=refused)
        if not names.is_save(source.path.name):
            return None
        if source.is_dangling:
            error = DamagedError(
                f"{source.path} is a link to a folder that is not there. Bring the "
                f"folder back, or remove the link."
            )
            return SaveEntry(source, error=error, is_link=True)
        if _lacks_manifest(source):
            self._lacking.warn(
                ("no manifest", source.path),
                "%s is not a save: it has no %s. If that file was deleted, restore it "
                "from a copy, else remove the folder.",
                *(source.path, names.MANIFEST),
            )
        return None

    def note(self, path: Path, written: Manifest) -> SaveEntry:
        """Note a save that was just written, so that `look` need not read it."""
        files = {x.file: None for item in written.components for x in item.segments}
        is_ours = all(item.files is None for item in written.components)
        head = written.head()
        source = self.store.open(path.name)
        entry = SaveEntry(
            source,
            head,
            sequence=head.sequence,
            signature=source.signature(),
            is_verified=True,
            segments=tuple(files) if is_ours else None,
        )
        if entry.signature is not None:
            self._cache = {**self._cache, path.name: entry}
        return entry

    def distrust(self, path: Path) -> None:
        """Note that a save was found damaged when it was read.

        `prune` does not count it among the saves to keep, and does not remove it.
        """
        self._damaged.add(paths.real(path))

    def is_whole(self, save: SaveEntry) -> bool:
        """Return whether a save's manifest is good beyond its head, too."""
        is_whole = save.is_whole()
        if is_whole and not save.is_verified and save.signature is not None:
            found = structs.replace(save, is_verified=True)
            self._cache = {**self._cache, save.path.name: found}
        return is_whole

    def is_damaged(self, save: SaveEntry) -> bool:
        """Return whether a save was found damaged beyond its head."""
        return bool(self._damaged) and paths.real(save.path) in self._damaged

    def prune(
        self,
        keep: Keep,
        saves: Sequence[SaveEntry],
        *,
        written: Path | None = None,
        fsync: bool,
    ) -> list[Path]:
        """Remove the saves that were written here and that no rule keeps.

        Args:
          keep: The rules.
          saves: The saves here.
          written: A save that stays in any case.
          fsync: Whether to make the removal durable.

        Returns:
          Paths of the removed saves.
        """
        ours = [x for x in saves if x.is_original and not self.is_damaged(x)]
        heads = [save.head for save in ours if save.head is not None]
        stays = retention.staying(keep, heads)
        kept = list(itertools.compress(ours, stays))
        # A save stays while a generator still reads it; the next save prunes it.
        gone = [
            save
            for save, stay in zip(ours, stays, strict=True)
            if not (stay or save.path == written or streams.is_held(save.path))
        ]
        if gone and any(save.source.has_no_manifest() for save in kept):
            # A save that stays was removed since it was found, so others stay instead.
            return self.prune(keep, self.saves(), written=written, fsync=fsync)
        damaged = [x for x in (*kept[-1:], *gone) if gone and not self.is_whole(x)]
        if damaged:  # Only the heads were read. Such a save stays, and does not count.
            self._damaged.update(paths.real(save.path) for save in damaged)
            return self.prune(keep, saves, written=written, fsync=fsync)
        return self.remove(gone, fsync=fsync)

    def remove(self, saves: Iterable[SaveEntry], *, fsync: bool) -> list[Path]:
        """Remove these saves; return the paths of those that are gone."""
        remove = self.store.remove
        return [
            save.path
            for save in saves
            if remove(save.path.name, fsync=fsync, known=save.segments)
        ]

    def delete(self, saves: Iterable[SaveEntry], *, fsync: bool) -> list[Path]:
        """Remove these saves and point `latest` to the newest one left.

        Returns:
          Paths of the removed saves.
        """
        removed = self.remove(saves, fsync=fsync)
        left = [save for save in self.saves() if save.error is None]
        if removed and left:
            self.store.point_latest(left[-1].path.name)
        return removed


def _is_unfinished(source: Source) -> bool:
    """Return whether a folder is a draft, or what a removal left of a save."""
    name = source.path.name
    if not names.is_save(name.removeprefix(".")):
        return False
    return name[0] == "." or names.DRAFT in source.names()


def _lacks_manifest(source: Source) -> bool:
    """Return whether a folder has segments of ours, but no manifest and no draft of it.

    The manifest was deleted, or power loss kept the segments and not the draft. An
    unfinished save has a draft.
    """
    found = source.names()
    has_segments = any(names.sequence_of(name) is not None for name in found)
    is_ours = names.DRAFT not in found and has_segments
    return is_ours and source.has_no_manifest()  # It may be finished now.


def _between(save: SaveEntry, others: list[SaveEntry]) -> SaveEntry:
    """Order a damaged save after the saves that have earlier names, or later."""
    if not names.is_save(save.path.name):
        return save
    before = [x.sequence for x in others if x.path.name < save.path.name]
    least = max(before, default=0) + 0.5
    return structs.replace(save, sequence=max(save.sequence, least))


def next_sequence(saves: Iterable[SaveEntry]) -> int:
    """Return the number of the save that follows these."""
    newest = max((save.sequence for save in saves), default=0)
    return min(1 + math.ceil(newest), manifest.MAX_SEQUENCE - 1)

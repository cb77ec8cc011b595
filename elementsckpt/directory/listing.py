"""Directories: which saves there are, in which order, and which of them stay."""

from __future__ import annotations

import dataclasses
import errno
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, DamagedError, ReadError, WriteError, reason
from ..foreign import elements
from ..format import manifest, scalars
from ..format.manifest import Head
from ..storage import disk, drafts, reader
from ..user.notices import Notices
from . import metadata, retention
from .retention import Keep

LATEST = "latest"
_LATEST_DRAFT = ".latest"
_STEP = re.compile(r"\d{8}T\d{6}F\d{6}-(-?\d+)")
_MANIFEST_BYTES = 1 << 32
_PASSES = 10


@dataclass(frozen=True)
class Found:
    """A save found in a directory.

    Attributes:
      path: The save folder.
      head: What its manifest says; None if elements wrote it or it is damaged.
      error: Why it is damaged, or None.
      sequence: Its number; 0 if elements wrote it. A guess if it is damaged, which
        may be a half, between two others.
      is_link: Whether the path is a link to a folder.
    """

    path: Path
    head: Head | None
    error: CheckpointError | None
    sequence: float
    is_link: bool = False

    @property
    def step(self) -> int | None:
        """Step of the run, which a folder of elements has in its name, or None."""
        if self.head is not None:
            return self.head.step
        match = _STEP.fullmatch(self.path.name)
        return int(match[1]) if match else None

    @property
    def is_original(self) -> bool:
        """Whether it was written here, under this name, as one of a sequence."""
        if self.head is None or self.head.explicit or self.is_link:
            return False
        return manifest.escape(self.path.name) == self.head.name

    @property
    def is_removable(self) -> bool:
        """Whether it was written here, as far as can be told if it is damaged."""
        is_ours = drafts.SAVE.fullmatch(self.path.name) is not None
        is_damaged = self.error is not None and not self.is_link
        return self.is_original or (is_damaged and is_ours)

    @property
    def rank(self) -> tuple[Any, ...]:
        """Sorts oldest first; a copy comes before its original."""
        explicit = self.head is not None and self.head.explicit
        group = 0 if not self.sequence else 1 if explicit else 2
        return group, self.sequence, self.is_original, self.path.name


class Directory:
    """The root that holds a run's saves.

    Args:
      path: The directory, which need not exist.
      notices: What is said of it, and was.
    """

    def __init__(self, path: Path, notices: Notices | None = None) -> None:
        self.path = path
        self._notices = Notices() if notices is None else notices
        # Manifests can be large, so each is read once, unless it changes.
        self._cache: dict[str, tuple[Any, Found]] = {}
        self._damaged: set[str] = set()  # Real paths.

    def saves(self) -> list[Found]:
        """Return the saves here, oldest first, damaged ones included."""
        # Threads, signal handlers and forked children come here, so nothing is locked.
        for _ in range(_PASSES):
            paths = self._folders()
            cache: dict[str, tuple[Any, Found]] = {}
            found = [self._found(path, cache) for path in paths]
            # Others save and prune: what is new may not be finished when it is looked
            # at, and what is old be gone when it is done.
            if self._folders() == paths:
                break
        self._cache = cache
        saves = [save for save in found if save is not None]
        good = [save for save in saves if save.is_original]
        saves = [save if save.error is None else _place(save, good) for save in saves]
        return sorted(saves, key=lambda save: save.rank)

    def _folders(self) -> list[Path]:
        return [path for path in disk.folders_in(self.path) if path.name[0] != "."]

    def note(self, path: Path, head: Head) -> None:
        """Take note of a save that was just written, so that it need not be read."""
        signature = _signature(path / manifest.NAME)
        if signature is not None:
            found = Found(path, head, None, head.sequence)
            self._cache = {**self._cache, path.name: (signature, found)}

    def distrust(self, path: Path) -> None:
        """Take note of a save that was found damaged when it was read.

        It neither counts among those to keep nor is it removed.
        """
        self._damaged.add(os.path.realpath(path))

    def _found(self, path: Path, cache: dict[str, tuple[Any, Found]]) -> Found | None:
        where = path / manifest.NAME
        signature = _signature(where)
        if signature is None and disk.is_missing(where):
            return self._without_manifest(path)
        known = self._cache.get(path.name)
        if known is None or signature is None or known[0] != signature:
            is_link = os.path.islink(path)
            known = signature, dataclasses.replace(read_head(path), is_link=is_link)
        found = known[1]
        if found.error is not None and disk.is_missing(where):
            return self._without_manifest(path)  # Somebody has just removed it.
        if not isinstance(found.error, ReadError):
            cache[path.name] = known
        return found if found.error is None or looks_like_ours(path) else None

    def _without_manifest(self, path: Path) -> Found | None:
        try:
            if elements.is_save(path):
                return Found(path, None, None, 0)
        except CheckpointError as refused:
            return Found(path, None, refused, 0)
        is_dangling = os.path.islink(path) and not os.path.exists(path)
        if is_dangling and drafts.SAVE.fullmatch(path.name):
            error = DamagedError(
                f"{path} is a link to a folder that is not there. Bring the folder "
                f"back, or remove the link."
            )
            return Found(path, None, error, 0, is_link=True)
        if _lacks_manifest(path):
            self._notices.warn(
                ("no manifest", path),
                "%s is no save, as it has no %s. If somebody has removed that, restore "
                "it from a copy, else remove the folder.",
                *(path, manifest.NAME),
            )
        return None

    def write_latest(self, name: str, *, fsync: bool) -> None:
        """Point `latest` at a save. It is for people: failing only warns."""
        draft = self.path / _LATEST_DRAFT
        try:
            if os.path.lexists(draft):  # Of a process that died, or is as far as here.
                disk.remove(draft)
            file = disk.create(draft)
            try:
                disk.write(file.fd, os.fsencode(name), 0, path=draft)
                if fsync:
                    disk.sync(file.fd, path=draft)
            finally:
                file.close()
            disk.rename(draft, self.path / LATEST)
            self._notices.settle(LATEST)
        except WriteError as error:
            # Another process that saves here was faster, and `latest` is its save.
            if error.errno not in (errno.ENOENT, errno.EEXIST):
                failed = "Could not update the file 'latest': %s"
                self._notices.warn(LATEST, failed, error)

    def prune(
        self,
        keep: Keep,
        *,
        written: Path | None = None,
        fsync: bool,
    ) -> list[Path]:
        """Remove the saves that were written here and that nothing asks to keep.

        Args:
          keep: What is asked for.
          written: A save that stays in any case.
          fsync: Whether that they are gone is made durable.

        Returns:
          Those that were removed.
        """
        ours = [
            save
            for save in self.saves()
            if save.is_original and os.path.realpath(save.path) not in self._damaged
        ]
        heads = [save.head for save in ours if save.head is not None]
        stays = retention.staying(keep, heads)
        paths = [save.path for save, stay in zip(ours, stays, strict=True) if not stay]
        # Generators that are still being read go on until the next save.
        return self._remove(
            (x for x in paths if x != written and not reader.is_streaming(x)),
            fsync=fsync,
        )

    def delete(self, saves: Iterable[Found], *, fsync: bool) -> list[Path]:
        """Remove these saves and point `latest` to the newest that is left.

        Returns:
          Those that were removed.
        """
        removed = self._remove((save.path for save in saves), fsync=fsync)
        left = [save for save in self.saves() if save.error is None]
        if removed and left:
            self.write_latest(left[-1].path.name, fsync=fsync)
        return removed

    def sweep(self) -> None:
        """Remove what processes that died in the middle of a save left here."""
        for path in disk.folders_in(self.path):
            is_save = drafts.SAVE.fullmatch(path.name) is not None
            if is_save and os.path.lexists(path / manifest.NAME):
                continue  # Most are, and need no second look.
            if is_save or drafts.HIDDEN.fullmatch(path.name):
                drafts.try_to_sweep(path, self._notices)

    def _remove(self, paths: Iterable[Path], *, fsync: bool) -> list[Path]:
        """Remove save folders of ours, as far as that goes; return what is gone."""
        removed = []
        for path in paths:
            if os.path.islink(path):  # A person has just moved the save.
                continue
            drafts.remove(path, fsync=fsync, notices=self._notices)
            if not os.path.lexists(path):
                removed.append(path)
        return removed


def _signature(path: Path) -> tuple[int, int, int] | None:
    """Return what changes with a file, or None if the system refuses to tell."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def read_manifest(where: Path) -> bytearray:
    """Return the content of a manifest, if it can be one.

    Raises:
      DamagedError, ReadError: as from `disk.read_file`.
    """
    return disk.read_file(where, limit_bytes=_MANIFEST_BYTES, is_text=True)


def read_head(path: Path) -> Found:
    where = path / manifest.NAME
    content = bytearray()
    try:
        content = read_manifest(where)
        head = manifest.decode_head(content, str(where))
        _check(head, where)
    except CheckpointError as error:
        return Found(path, None, error, _guess_sequence(path, content))
    return Found(path, head, None, head.sequence)


def _check(head: Head, where: Path) -> None:
    """Refuse metrics that are no numbers and keys that are no text: both are used."""
    try:
        metadata.decode_metrics(head.metrics)
        scalars.decode_keys(item.key for item in head.components)
        scalars.decode_keys(head.keys)
    except Exception as error:
        raise DamagedError(f"{where} is not a manifest: {reason(error)}.") from error


def looks_like_ours(path: Path) -> bool:
    """Tell a damaged save from a folder of others that has a `manifest.json`."""
    if drafts.SAVE.fullmatch(path.name) or any(
        map(drafts.SEGMENT.fullmatch, drafts.names_in(path))
    ):
        return True
    try:
        where = path / manifest.NAME
        return manifest.FORMAT.encode() in read_manifest(where)
    except CheckpointError:
        return False


def _lacks_manifest(path: Path) -> bool:
    """Tell a save without manifest from one that is unfinished, which has a draft.

    Somebody has removed it, or power loss has kept segments and not the draft.
    """
    names = drafts.names_in(path) if drafts.SAVE.fullmatch(path.name) else []
    is_ours = drafts.DRAFT not in names and any(map(drafts.SEGMENT.fullmatch, names))
    return is_ours and disk.is_missing(path / manifest.NAME)  # Not finished meanwhile.


def _guess_sequence(path: Path, content: bytearray) -> float:
    """Return the sequence of a damaged save, as far as what is left of it tells."""
    # The first: metadata, which comes later, may use the word, too.
    written = re.search(rb'"sequence":\s*(\d{1,12})\b', content)
    matches = [drafts.SEGMENT.fullmatch(name) for name in drafts.names_in(path)]
    found = [int(match[1]) for match in [written, *matches] if match]
    return max(found, default=0)


def _place(save: Found, others: list[Found]) -> Found:
    """Put a damaged save after the last one written here before, if not later."""
    if not drafts.SAVE.fullmatch(save.path.name):
        return save
    before = [x.sequence for x in others if x.path.name < save.path.name]
    least = max(before, default=0) + 0.5
    return dataclasses.replace(save, sequence=max(save.sequence, least))


def next_sequence(saves: Iterable[Found]) -> int:
    """Return the number of the save that follows these."""
    newest = max((save.sequence for save in saves), default=0)
    return min(1 + math.ceil(newest), manifest.MAX_SEQUENCE - 1)

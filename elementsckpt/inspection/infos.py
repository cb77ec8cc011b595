"""Describes saves by the heads of their manifests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import asdict

from ..directory import choice, lookup, records, retention
from ..directory.entries import SaveEntry
from ..directory.listing import Directory
from ..directory.retention import Keep
from ..errors import DamagedError, ReadError, damage, one_line
from ..foreign import elements
from ..format import names, scalars
from ..format.manifest import Head
from ..reports import ComponentInfo, Lineage, SaveInfo, SaveList
from ..reports.outline import Outline
from ..user.arguments import AnyPath, local


def info(path: AnyPath) -> SaveInfo:
    """Return the description of a save, without reading or verifying arrays.

    Args:
      path: A save or its address, or a directory, for its newest save with a valid
        manifest; if that is not the newest, a warning says so.

    Raises:
      SaveNotFoundError: there is no save.
      DamagedError, VersionError: the part of the manifest that this reads is not valid.
        `read` and `load` verify the parts about structure and files.
    """
    return describe(lookup.newest(local(path)))


def saves(directory: AnyPath) -> SaveList:
    """Return the saves in a directory, oldest first, damaged ones included.

    Args:
      directory: The directory.

    Returns:
      Descriptions of the saves. What is known of a damaged one is its path and, in
      `error`, what is wrong with its manifest; arrays are not read.

    Raises:
      SaveNotFoundError: there is no save.
      ValueError: it is a save, or an address.
    """
    return _as_list(listed(directory).saves)


def good_saves(directory: Directory) -> SaveList:
    """Return the saves in a directory whose manifests are not damaged."""
    infos = SaveList()
    for found in directory.saves():
        if found.error is None:
            with contextlib.suppress(DamagedError):
                infos.append(describe(found))
    return infos


def describe_run(
    path: Path | None, keys: Sequence[str], directory: Directory | None
) -> Outline:
    """Return what to show of a Checkpoint: its directory, components and saves.

    Args:
      path: Its directory, or None.
      keys: What is registered.
      directory: The object for the directory, or None.
    """
    rows = [("directory", "none" if path is None else one_line(str(path)))]
    rows.append(("registered", one_line(", ".join(keys)) or "nothing"))
    if directory is None:
        return Outline("Checkpoint", rows)
    found = _as_list(_listed(directory.saves(), directory.path).saves).outline()
    return Outline(f"Checkpoint, {found.title}", rows, found.sections)


def describe_any(found: SaveEntry) -> SaveInfo:
    """Return the description of a save that may be damaged."""
    error = found.error
    if error is None:
        try:
            return describe(found)
        except DamagedError as damaged:  # A save of elements was just removed.
            error = damaged
    return SaveInfo(found.path, found.step, None, None, error=str(error))


def describe(found: SaveEntry) -> SaveInfo:
    """Return the description of a save that was found.

    Raises:
      DamagedError: its manifest is not valid, or the save is gone.
    """
    head = found.head
    if head is None:
        with damage(str(found.path)):  # Elements may just have removed it.
            return _describe_elements(found)
    with damage(f"{found.path}/{names.MANIFEST}"):
        return _describe_head(found.path, head)


def _describe_head(path: Path, head: Head) -> SaveInfo:
    keys = scalars.decode_keys(item.key for item in head.summaries)
    return SaveInfo(
        path=path,
        step=head.step,
        sequence=head.sequence,
        time=head.time,
        metrics=records.decode_metrics(head.metrics),
        metadata=records.decode(head.metadata),
        components={
            key: ComponentInfo(item.size_bytes, item.leaf_count, item.shards)
            for key, item in zip(keys, head.summaries, strict=True)
        },
        lineage=Lineage(**asdict(head.lineage), libraries=head.libraries),
        pin=head.pin,
    )


def _describe_elements(found: SaveEntry) -> SaveInfo:
    sizes = {
        key: ComponentInfo(
            bytes=elements.size_bytes(files),
            leaves=None,
            shards=len(files) if elements.is_sharded(files) else None,
        )
        for key, files in elements.files(found.path).items()
    }
    return SaveInfo(
        path=found.path,
        step=found.step,
        sequence=0,
        time=elements.time_of(found.path),
        components=sizes,
    )


def _is_unread(entry: SaveEntry) -> bool:
    return isinstance(entry.error, ReadError)


class ListedSave(NamedTuple):
    """A save as a list of all shows it.

    Attributes:
      info: Its description.
      bytes_written: Size of the files that it wrote; None if it is damaged.
      marks: Some of "pin NAME", "best", "latest", "damaged", and "unreadable" where
        the system refused to read its manifest.
    """

    info: SaveInfo
    bytes_written: int | None
    marks: tuple[str, ...]


class ListedSaves(NamedTuple):
    """The saves of a directory.

    Attributes:
      saves: The saves, oldest first.
      metric: Name of the metric that decides which is the best, or None.
      mode: "max" if more of it is better, "min" if less is.
    """

    saves: list[ListedSave]
    metric: str | None
    mode: str


def listed(directory: AnyPath) -> ListedSaves:
    """Return the saves in a directory with what distinguishes them.

    Raises:
      SaveNotFoundError: there is no save.
    """
    here = Directory(local(directory))
    return _listed(lookup.required(here), here.path)


def _as_list(found: Iterable[ListedSave]) -> SaveList:
    found = list(found)
    notes = {
        save.info.path: (
            save.bytes_written,
            ", ".join(x for x in save.marks if not x.startswith("pin ")),
        )
        for save in found
    }
    return SaveList([save.info for save in found], notes)


def _listed(entries: Sequence[SaveEntry], path: Path) -> ListedSaves:
    good = [entry for entry in entries if entry.error is None]
    best = None
    with contextlib.suppress(ValueError):  # No save says which metric to go by.
        best = choice.best_of(entries, Keep(), path)
    found = []
    for entry in entries:
        info = describe_any(entry)
        marks = [f"pin {info.pin}"] if info.pin is not None else []
        marks += ["best"] if entry is best else []
        marks += ["latest"] if good and entry is good[-1] else []
        if info.error is not None:
            marks.append("unreadable" if _is_unread(entry) else "damaged")
        written = None if info.error is not None else entry.written_bytes()
        found.append(ListedSave(info, written, tuple(marks)))
    heads = [entry.head for entry in entries if entry.head is not None]
    ranking = retention.recorded(heads) or Keep()
    metric = ranking.metric if isinstance(ranking.metric, str) else None
    return ListedSaves(found, metric, ranking.mode)

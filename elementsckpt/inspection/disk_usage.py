"""How much disk space saves take; a file that several saves link to counts once."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from ..directory import choice
from ..directory.entries import SaveEntry
from ..directory.listing import Directory
from ..format import names
from ..reports.disk import SaveUsage, UsageReport
from ..storage.store import StoredFile
from ..user.arguments import AnyPath, local


def usage(directory: AnyPath) -> UsageReport:
    """Return how much disk space the saves of a directory take.

    Damaged saves count. Nothing is read but the manifests.

    Args:
      directory: The directory.

    Raises:
      SaveNotFoundError: there is no save.
    """
    path = local(directory)
    saves = choice.required(Directory(path))
    files = {save.path: save.source.stored_files() for save in saves}
    everywhere = collections.Counter(
        identity for found in files.values() for identity in {x.identity for x in found}
    )
    sizes = {x.identity: x.size_bytes for found in files.values() for x in found}
    seen: set[object] = set()
    usages = []
    for save in saves:
        usages.append(_usage(save, files[save.path], everywhere, seen))
        seen |= {file.identity for file in files[save.path]}
    return UsageReport(
        path=path,
        saves=tuple(usages),
        bytes_on_disk=sum(sizes.values()),
        bytes_of_state=sum(_state_bytes(save) for save in saves),
        _freed=_Freed(files).__call__,
    )


def freed_by(saves: Iterable[SaveEntry]) -> Callable[[Iterable[Path]], int]:
    """Return what tells how much disk space removing some of these saves frees.

    It takes their paths. Their files are looked at now, while they are there.
    """
    return _Freed({save.path: save.source.stored_files() for save in saves})


class _Freed(Struct, frozen=True):
    """Tells how much disk space is free without some saves."""

    files: Mapping[Path, Sequence[StoredFile]]

    def __call__(self, paths: Iterable[Path]) -> int:
        found = [x for path in dict.fromkeys(paths) for x in self.files[Path(path)]]
        gone = collections.Counter(file.identity for file in found)
        files = {file.identity: file for file in found}
        return sum(x.size_bytes for x in files.values() if gone[x.identity] >= x.links)


def _usage(
    save: SaveEntry,
    files: Sequence[StoredFile],
    everywhere: Mapping[object, int],
    seen: set[object],
) -> SaveUsage:
    unique = {file.identity: file for file in files}.values()
    written = linked = only_here = 0
    for file in unique:
        writer = names.sequence_of(file.name)
        is_linked = file.identity in seen
        if writer is not None and save.head is not None:
            is_linked = is_linked or writer < save.head.sequence
        if is_linked:
            linked += file.size_bytes
        else:
            written += file.size_bytes
        if everywhere[file.identity] == 1:
            only_here += file.size_bytes
    return SaveUsage(
        path=save.path,
        step=save.step,
        sequence=None if save.head is None else save.head.sequence,
        bytes_written=written,
        bytes_linked=linked,
        bytes_only_here=only_here,
        bytes_freed=_Freed({save.path: files})([save.path]),
    )


def _state_bytes(save: SaveEntry) -> int:
    head = save.head
    return 0 if head is None else sum(x.size_bytes for x in head.summaries)

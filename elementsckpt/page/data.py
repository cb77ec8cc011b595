"""Gathers what the page shows of a directory, as JSON types."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..directory.listing import Directory
from ..errors import CheckpointError, one_line
from ..format import names
from ..inspection.contents import Contents, Leaf
from ..inspection.disk_usage import usage
from ..inspection.infos import ListedSave, listed, saves
from ..reports.disk import UsageReport
from ..reports.report import to_json
from . import changes
from .changes import Budget

_LARGEST = 3  # Leaves whose changed blocks are shown.
_CELLS = 64  # In a row of these.
_MOST_BOXES = 400  # In the picture of where the bytes are.
_MOST_RUNS = 12  # In the picture of where the state comes from.


def gather(directory: Path, *, max_bytes: int) -> dict[str, Any]:
    """Return what the page shows.

    Args:
      directory: The directory.
      max_bytes: How many bytes of arrays may be read.

    Raises:
      SaveNotFoundError: there is no save.
    """
    found = listed(directory).saves
    sizes = usage(directory)
    contents = _contents(directory)
    budget = Budget(max_bytes)
    newest = contents[-1] if contents else None
    return {
        "directory": one_line(str(directory)),
        "saves": _saves(found, sizes, contents),
        "metrics": _metric_names(found),
        "bytes_on_disk": sizes.bytes_on_disk,
        "bytes_of_state": sizes.bytes_of_state,
        "blocks": [] if newest is None else _changed_blocks(newest, contents),
        "boxes": [] if newest is None else _boxes(newest),
        "changes": changes.gather(contents, budget),
        "runs": _runs(directory, found),
        "bytes_read": budget.read,
    }


def _contents(directory: Path) -> list[Contents]:
    """Return the contents of the saves whose manifests are good, oldest first."""
    found = []
    for entry in Directory(directory).saves():
        with contextlib.suppress(CheckpointError):
            found.append(Contents(entry))
    return found


def _saves(
    found: Sequence[ListedSave], sizes: UsageReport, contents: Sequence[Contents]
) -> list[dict[str, Any]]:
    only_here = {x.path: x.bytes_only_here for x in sizes.saves}
    components = {x.found.path: _component_bytes(x) for x in contents}
    return [
        _save(save, only_here.get(save.info.path), components.get(save.info.path, {}))
        for save in found
    ]


def _save(
    save: ListedSave, only_here: int | None, components: Mapping[str, list[int]]
) -> dict[str, Any]:
    info = save.info
    return {
        "name": one_line(info.path.name),
        "sequence": info.sequence,
        # A script would round what is beyond 2^53.
        "step": None if info.step is None else str(info.step),
        "time": to_json(info.time),
        "metrics": {one_line(x): to_json(y) for x, y in info.metrics.items()},
        "written": save.bytes_written,
        "only_here": only_here,
        "state": info.size_bytes,
        "components": components,
        "marks": [one_line(mark) for mark in save.marks],
        "error": None if info.error is None else one_line(info.error),
    }


def _component_bytes(contents: Contents) -> dict[str, list[int]]:
    """Return for each component how many bytes were written, and how many linked."""
    head = contents.found.head
    found = {}
    for key, entry in contents.components.items():
        own = [
            head is not None and names.sequence_of(segment.file) == head.sequence
            for segment in entry.segments
        ]
        # Components share segments, so their blocks are counted.
        written = sum(block.size for block in entry.blocks if own[block.segment])
        linked = sum(block.size for block in entry.blocks) - written
        if entry.files is not None:
            written += sum(file.size for file in entry.files.files)
        found[one_line(key)] = [written, linked]
    return found


def _metric_names(found: Sequence[ListedSave]) -> list[str]:
    return list(
        dict.fromkeys(one_line(name) for save in found for name in save.info.metrics)
    )


def _changed_blocks(
    newest: Contents, contents: Sequence[Contents]
) -> list[dict[str, Any]]:
    """Return which blocks of the largest leaves each save changed, from digests."""
    largest = sorted(newest.leaves(), key=lambda leaf: -leaf.size_bytes)[:_LARGEST]
    found = []
    for leaf in largest:
        if len(newest.blocks(leaf)) < 2:
            continue
        rows: list[str | None] = []
        before: set[str] | None = None
        for one in contents:
            digests = _digests(one, leaf.full_name)
            if digests is None:
                rows.append(None)
                continue
            rows.append(_row(digests, before))
            before = {digest for digest, _ in digests}
        found.append(
            {
                "name": one_line(leaf.full_name),
                "size": leaf.size_bytes,
                "rows": rows,
                "sequences": [_sequence(x) for x in contents],
            }
        )
    return found


def _sequence(contents: Contents) -> int | None:
    head = contents.found.head
    return None if head is None else head.sequence


def _digests(contents: Contents, name: str) -> list[tuple[str, int]] | None:
    """Return digest and size of each block of a leaf, or None if it is not there."""
    leaf = _by_name(contents).get(name)
    if leaf is None:
        return None
    blocks = contents.components[leaf.key].blocks
    return [
        (blocks[number].digest, end - begin)
        for number, begin, end in contents.blocks(leaf)
    ]


def _by_name(contents: Contents) -> Mapping[str, Leaf]:
    return {leaf.full_name: leaf for leaf in contents.leaves()}


def _row(digests: Sequence[tuple[str, int]], before: set[str] | None) -> str:
    """Return for each cell whether a block in it is new: "1", or else "0"."""
    total = sum(size for _, size in digests) or 1
    row, start = bytearray(b"0" * _CELLS), 0
    for digest, size in digests:
        first = start * _CELLS // total
        last = max(first + 1, (start + size) * _CELLS // total)
        if before is None or digest not in before:
            row[first:last] = b"1" * (min(last, _CELLS) - first)
        start += size
    return row.decode()


def _boxes(newest: Contents) -> list[list[Any]]:
    """Return name and size of each leaf of the newest save, the small ones as one."""
    leaves = sorted(newest.leaves(), key=lambda leaf: -leaf.size_bytes)
    shown: list[list[Any]] = [
        [one_line(leaf.full_name), leaf.size_bytes]
        for leaf in leaves[:_MOST_BOXES]
        if leaf.size_bytes
    ]
    rest = sum(leaf.size_bytes for leaf in leaves[_MOST_BOXES:])
    return shown + ([["all others", rest]] if rest else [])


def _runs(directory: Path, found: Sequence[ListedSave]) -> list[dict[str, Any]]:
    """Return the runs that saves are of, and the saves that they began with."""
    runs: dict[tuple[str, str], dict[str, Any]] = {}
    seen = {directory}
    todo = [(directory, [save.info for save in found])]
    while todo and len(runs) < _MOST_RUNS:
        place, infos = todo.pop(0)
        for info in infos:
            if info.error is not None:  # What it comes from is unknown.
                continue
            lineage = info.lineage
            run = runs.setdefault(
                (str(place), lineage.run or ""),
                {
                    "directory": one_line(str(place)),
                    "run": one_line(lineage.run or ""),
                    "host": one_line(lineage.host or ""),
                    "saves": [],
                },
            )
            run["saves"].append(
                {
                    "path": one_line(str(info.path)),
                    "step": None if info.step is None else str(info.step),
                    "from": None
                    if lineage.loaded_from is None
                    else one_line(lineage.loaded_from),
                }
            )
            other = None if lineage.loaded_from is None else Path(lineage.loaded_from)
            if other is not None and other.parent not in seen:
                seen.add(other.parent)
                with contextlib.suppress(CheckpointError, ValueError):
                    todo.append((other.parent, list(saves(other.parent))))
    return list(runs.values())

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
_MOST_ROWS, _MOST_SHOWN = 200, 500  # Of what a save records; characters of a value.
_MOST_RUNS = 12  # In the picture of where the state comes from.


def gather(directory: Path, *, max_bytes: int) -> dict[str, Any]:
    """Return what the page shows.

    Args:
      directory: The directory.
      max_bytes: How many bytes of arrays may be read.

    Raises:
      SaveNotFoundError: there is no save.
    """
    shown = listed(directory)
    sizes = usage(directory)
    places = {save.info.path: place for place, save in enumerate(shown.saves)}
    contents = [x for x in _contents(directory) if x.found.path in places]
    budget = Budget(max_bytes)
    saves = _saves(shown.saves, sizes, contents)
    newest = contents[-1] if contents else None
    return {
        "directory": one_line(str(directory)),
        "saves": saves,
        "metrics": _metric_names(shown.saves),
        "best_by": None if shown.metric is None else one_line(shown.metric),
        "bytes_on_disk": sizes.bytes_on_disk,
        "bytes_of_state": sizes.bytes_of_state,
        "components": _components(contents),
        "blocks": [] if newest is None else _changed_blocks(newest, contents),
        "boxes": [] if newest is None else _boxes(newest),
        "changes": _changes(contents, places, saves, budget),
        "runs": _runs(directory, shown.saves),
        "details": _details(shown.saves),
        "bytes_read": budget.read,
    }


def _changes(
    contents: Sequence[Contents],
    places: Mapping[Path, int],
    saves: Sequence[dict[str, Any]],
    budget: Budget,
) -> dict[str, Any]:
    """Return how leaves changed, and mark the saves that turn out to be damaged."""
    gathered = changes.gather(contents, budget)
    for name in ("columns", "damaged"):
        gathered[name] = [places[contents[n].found.path] for n in gathered[name]]
    for place in gathered["damaged"]:
        if "damaged" not in saves[place]["marks"]:
            saves[place]["marks"].append("damaged")
    return gathered


def _components(contents: Sequence[Contents]) -> list[str]:
    """Return the components, the largest first: each has one colour on the page."""
    sizes: dict[str, int] = {}
    for one in contents:
        for key, (written, linked) in _component_bytes(one).items():
            sizes[key] = max(sizes.get(key, 0), written + linked)
    return sorted(sizes, key=lambda key: -sizes[key])


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


def _details(found: Sequence[ListedSave]) -> list[dict[str, Any]]:
    """Return what the best and the newest save record besides their states."""
    chosen = []
    for mark in ("best", "latest"):
        chosen += [x for x in found if mark in x.marks and x not in chosen]
    return [
        {
            "title": " ".join(
                [
                    f"#{x.info.sequence}",
                    *(mark for mark in x.marks if mark in ("best", "latest")),
                ]
            ),
            "rows": [
                [label, value[:_MOST_SHOWN]]
                for label, value in x.info.details()[:_MOST_ROWS]
            ],
        }
        for x in chosen
    ]


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
    largest = [leaf for leaf in largest if len(newest.blocks(leaf)) > 1]
    shown = {leaf.full_name for leaf in largest}
    named = [
        {x.full_name: x for x in one.leaves() if x.full_name in shown}
        for one in contents
    ]
    found = []
    for leaf in largest:
        rows: list[list[Any]] = []  # First and last save, how many, and the cells.
        before: set[str] | None = None
        for one, leaves in zip(contents, named, strict=True):
            then = leaves.get(leaf.full_name)
            blocks = None if then is None else _blocks(one, then)
            row = None if blocks is None else _row(blocks, before)
            if blocks is not None:
                before = {digest for digest, _ in blocks}
            number = changes.sequence(one)
            if rows and rows[-1][3] == row:
                rows[-1][1:3] = [number, rows[-1][2] + 1]
            else:
                rows.append([number, number, 1, row])
        found.append(
            {
                "name": one_line(leaf.full_name),
                "key": one_line(leaf.key),
                "size": leaf.size_bytes,
                "rows": rows,
            }
        )
    return found


def _blocks(contents: Contents, leaf: Leaf) -> list[tuple[str, int]]:
    """Return digest and size of each block of a leaf."""
    blocks = contents.components[leaf.key].blocks
    return [
        (blocks[number].digest, end - begin)
        for number, begin, end in contents.blocks(leaf)
    ]


def _row(blocks: Sequence[tuple[str, int]], before: set[str] | None) -> str:
    """Return for each cell whether a block in it is new: "1", or else "0"."""
    total = sum(size for _, size in blocks) or 1
    row, start = bytearray(b"0" * _CELLS), 0
    for digest, size in blocks:
        first = start * _CELLS // total
        last = max(first + 1, (start + size) * _CELLS // total)
        if before is None or digest not in before:
            row[first:last] = b"1" * (min(last, _CELLS) - first)
        start += size
    return row.decode()


def _boxes(newest: Contents) -> list[list[Any]]:
    """Return key, name and size of each leaf of the newest save.

    The small ones are one box without a key.
    """
    leaves = sorted(newest.leaves(), key=lambda leaf: -leaf.size_bytes)
    shown: list[list[Any]] = [
        [one_line(leaf.key), one_line(leaf.full_name), leaf.size_bytes]
        for leaf in leaves[:_MOST_BOXES]
        if leaf.size_bytes
    ]
    rest = sum(leaf.size_bytes for leaf in leaves[_MOST_BOXES:])
    return shown + ([[None, "all others", rest]] if rest else [])


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

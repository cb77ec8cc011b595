"""The components → a save."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from . import drafts, manifest, scalars
from .collect import collect
from .drafts import Draft
from .errors import CheckpointError, MetadataError
from .folder import Directory
from .manifest import Manifest
from .reports import SaveReport

_logger = logging.getLogger("elementsckpt")


def store(
    savefns: Mapping[str, Callable[[], Any]],
    *,
    target: Path | None,
    listing: Directory | None = None,
    keep: int | None = None,
    step: int | None = None,
    metadata: Any = None,
    loaded_from: str | None = None,
    write: bool,
    fsync: bool,
) -> SaveReport:
    """Write a save.

    Args:
      savefns: Functions that return a state, by key.
      target: Folder to write, or None for a new one in the directory.
      listing: The directory, without a target.
      keep: How many saves to keep in the directory; None keeps all.
      step: Step of the run, or None.
      metadata: The caller's.
      loaded_from: Path of the save that the run last loaded, or None.
      write: Whether to write anything at all.
      fsync: Whether the save is durable on return.

    Raises:
      CheckpointError: as for `Checkpoint.save`.
    """
    start = time.monotonic()
    encoded = _encode_metadata(metadata)
    explicit = target is not None
    directory = Directory(target.parent) if target is not None else listing
    assert directory is not None
    sequence = directory.next_sequence()
    draft = None
    if write:
        if target is None:
            directory.sweep()
            draft = drafts.begin(directory.path, step, fsync=fsync)
        else:
            draft = drafts.begin_at(target, fsync=fsync)
    now = datetime.now(timezone.utc)
    path = (
        draft.path if draft else target or directory.path / drafts.save_name(now, step)
    )
    written = manifest.Manifest(
        name=manifest.display(path.name),
        explicit=explicit,
        sequence=sequence,
        step=step,
        time=now,
        durable=fsync,
        metrics={},
        metadata=encoded,
        lineage=manifest.Lineage(loaded_from),
        libraries=_libraries(),
        components=[],
    )
    bytes_written, pickled = _write(written, savefns, draft, directory, fsync=fsync)
    if draft is not None and not explicit:
        _tidy(directory, path, keep, fsync=fsync)
    return SaveReport(
        path=path,
        step=step,
        sequence=written.sequence,
        bytes_written=bytes_written,
        bytes_total=sum(component.size_bytes for component in written.components),
        pickled=tuple(pickled),
        seconds=time.monotonic() - start,
    )


def _tidy(directory: Directory, path: Path, keep: int | None, *, fsync: bool) -> None:
    """Point to the new save and prune; the save is made, so failing only warns."""
    try:
        directory.write_latest(path.name, fsync=fsync)
        if keep is not None:
            directory.prune(keep, written=path, fsync=fsync)
    except (CheckpointError, OSError) as error:
        _logger.warning("Saved %s, but could not prune: %s", path, error)


def _write(
    written: Manifest,
    savefns: Mapping[str, Callable[[], Any]],
    draft: Draft | None,
    directory: Directory,
    *,
    fsync: bool,
) -> tuple[int, list[str]]:
    """Store the components and commit.

    Returns:
      The size of the files written, and the names of leaves that went through pickle.
    """
    where = None if draft is None else draft.path
    pickled: list[str] = []
    try:
        for component, names in collect(
            savefns, where, sequence=written.sequence, fsync=fsync
        ):
            written.components.append(component)
            pickled += names
        if draft is None:
            return 0, pickled
        # Others may have saved meanwhile, and order is that of the commits.
        written.sequence = max(written.sequence, directory.next_sequence())
        content = manifest.encode(written)
        draft.commit(content)
    except BaseException:
        if draft is not None:
            draft.abandon()
        raise
    segments = [x.size for item in written.components for x in item.segments]
    return len(content) + sum(segments), pickled


def _encode_metadata(metadata: Any) -> Any:
    try:
        return scalars.encode_metadata({} if metadata is None else metadata)
    except (scalars.NotScalarError, RecursionError) as error:
        problem = "it holds itself" if isinstance(error, RecursionError) else error
        raise MetadataError(
            f"Metadata cannot be saved: {problem}. It may hold JSON types, tuples, "
            f"mappings, dataclasses, NumPy scalars and paths; nothing was written."
        ) from error


def _libraries() -> dict[str, str]:
    """Return the versions that a save depends on, of libraries imported already."""
    python = ".".join(map(str, sys.version_info[:3]))
    versions = {"python": python, "numpy": np.__version__}
    for name in ("elementsckpt", "jax", "torch", "ml_dtypes"):
        version = getattr(sys.modules.get(name), "__version__", None)
        if isinstance(version, str):
            versions[name] = str(version)  # Torch has a type of its own.
    return versions

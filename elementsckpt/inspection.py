"""Reads saves without the objects that they are for."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from msgspec.structs import asdict

from .directory import lookup, metadata
from .directory.entries import SaveEntry
from .foreign import elements
from .format import names, scalars
from .format.manifest import Head
from .loading import load, verbs
from .loading.candidates import Candidates
from .loading.refusals import damage
from .loading.request import Regex, Request
from .reports import ComponentInfo, Lineage, SaveInfo
from .system.phases import Phases
from .user import arguments
from .user.arguments import AnyPath, local

_logger = logging.getLogger("elementsckpt")
_MOST_NAMES = 20


def info(path: AnyPath) -> SaveInfo:
    """Return the description of a save, without reading or verifying arrays.

    Args:
      path: A save, or a directory, for its newest save whose manifest has a good head.

    Raises:
      SaveNotFoundError: there is no save.
      DamagedError, VersionError: the head of the manifest is not valid. `read` and
        `load` verify the rest, which is about structure and files.
    """
    return describe(lookup.newest(lookup.find(local(path))))


def read(
    path: AnyPath,
    keys: Iterable[str] | None = None,
    regex: Regex | None = None,
    mmap: bool = True,
    *,
    verify: bool = True,
    allow_pickle: bool | None = None,
) -> dict[str, Any]:
    """Return the states in a save as NumPy arrays, without the objects they are for.

    Leaves that only pickle could hold are left out, and a warning names them. They are
    absent from dicts; in sequences, None takes their place.

    Args:
      path: A save, or a directory, for its newest good save.
      keys: Components to read; all by default.
      regex: Reads only leaves whose names it matches from their start, as for
        `Checkpoint.load`. If some items of a list or tuple are left out, it becomes a
        dict by position. Attributes of containers are left out.
      mmap: Whether arrays are mapped, copy-on-write, instead of read, as for
        `Checkpoint.load`.
      verify: Whether to verify mapped arrays.
      allow_pickle: Whether to read pickled leaves, too, which can run code.

    Returns:
      States by key. NamedTuples and dataclasses become dicts by field, JAX and torch
      arrays NumPy arrays, typed keys their data, and functions their import paths. A
      component that was saved by a generator becomes a list of its shards. One that
      wrote files itself becomes the path of their folder in the save.

    Raises:
      CheckpointError: as for `Checkpoint.load`.
    """
    request = Request(
        verb=verbs.READ,
        keys=None if keys is None else {key: key for key in arguments.keys(keys)},
        regex=regex,
        mmap=mmap,
        verify=verify,
        allow_pickle=allow_pickle,
        plain=True,
    )
    candidates = Candidates(functools.partial(lookup.find, local(path)))
    loaded = load.read(request, {}, candidates, Phases())
    with contextlib.closing(loaded):
        states = {
            key: list(state) if inspect.isgenerator(state) else state
            for key, state in loaded.states.items()
        }
    _tell_of_pickles(list(loaded.notes.left_out), loaded.found.path)
    return states


def _tell_of_pickles(names: list[str], path: Path) -> None:
    more = len(names) - _MOST_NAMES
    if names:
        _logger.warning(
            "Leaves saved with pickle are left out: %s%s. Pass allow_pickle=True if "
            "you trust who wrote %s.",
            ", ".join(names[:_MOST_NAMES]),
            f" and {more} more" if more > 0 else "",
            path,
        )


def describe(found: SaveEntry) -> SaveInfo:
    """Return the description of a save that was found.

    Raises:
      DamagedError: its manifest is not valid, or the save is gone.
    """
    head = found.head
    if head is None:
        with damage(str(found.path)):  # Elements may just have removed it.
            return _describe_elements(found)
    with damage(str(found.path / names.MANIFEST)):
        return _describe_head(found.path, head)


def _describe_head(path: Path, head: Head) -> SaveInfo:
    keys = scalars.decode_keys(item.key for item in head.summaries)
    return SaveInfo(
        path=path,
        step=head.step,
        sequence=head.sequence,
        time=head.time,
        metrics=metadata.decode_metrics(head.metrics),
        metadata=metadata.decode(head.metadata),
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

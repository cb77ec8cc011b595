"""The functional form: functions that return and take states, instead of an object."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from . import choice, compression
from .compression import Compress
from .disk import AnyPath, local
from .errors import SaveNotFoundError
from .files import folder_keys
from .metadata import encode
from .reports import LoadReport, SaveReport
from .restore import hand_over, restore
from .store import About, Manner, Saving, store
from .stored import Options


def save(
    path: AnyPath,
    savefns: Mapping[str, Callable[[], Any]],
    write: bool = True,
    *,
    metadata: Any = None,
    compress: Compress = "auto",
    fsync: bool = True,
) -> SaveReport:
    """Write one save to this very folder.

    Args:
      path: The folder, which must not exist or be empty.
      savefns: Functions that return a state, by key. Keys may be any text.
      write: As for `Checkpoint`.
      metadata: As for `Checkpoint.save`.
      compress: As for `Checkpoint`.
      fsync: As for `Checkpoint`.

    Raises:
      CheckpointError: as for `Checkpoint.save`.

    Source: elements.checkpoint.save.
    """
    manner = Manner(write=write, fsync=fsync, compress=compression.check(compress))
    about = About(metadata=encode(metadata))
    return store(lambda: Saving(manner, target=local(path), about=about), savefns)


def load(
    path: AnyPath,
    loadfns: Mapping[str, Callable[[Any], Any]],
    *,
    mmap: bool = False,
    verify: bool = True,
    allow_pickle: bool | None = None,
) -> LoadReport:
    """Load components of a save and give each to its function.

    Args:
      path: A save, or a directory whose newest good save is meant.
      loadfns: Functions that take a state, by key.
      mmap: As for `Checkpoint.load`.
      verify: As for `Checkpoint.load`.
      allow_pickle: Whether code from the save may run; not by default.

    Raises:
      CheckpointError: as for `Checkpoint.load`; no function has been called then.

    Source: elements.checkpoint.load.
    """
    start = time.monotonic()
    options = Options(bool(allow_pickle), mmap, verify)
    restored = restore(
        choice.find(local(path)),
        loadfns,
        options=lambda _: options,
        folders=folder_keys(loadfns),
    )
    hand_over(restored, loadfns)
    return restored.report(time.monotonic() - start)


def exists(path: AnyPath) -> bool:
    """Tell whether the path is a save or a directory with saves, even damaged ones."""
    try:
        return bool(choice.find(local(path)))
    except SaveNotFoundError:
        return False

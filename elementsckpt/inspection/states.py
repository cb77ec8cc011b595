"""Reads the states in saves without the objects that they are for."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..directory import lookup
from ..loading import load, verbs
from ..loading.candidates import Candidates
from ..loading.loaded import Loaded
from ..loading.request import Regex, Request
from ..system.phases import Phases
from ..system.progress import Meter
from ..user import arguments
from ..user.arguments import AnyPath, local

_logger = logging.getLogger("elementsckpt")
_MOST_NAMES = 20


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
    candidates = Candidates(functools.partial(lookup.find, local(path), to_load=True))
    with Meter("read") as meter:
        loaded: Loaded | None = None
        try:
            loaded = load.read(request, {}, candidates, Phases(), meter)
            states = {
                key: list(state) if inspect.isgenerator(state) else state
                for key, state in loaded.states.items()
            }
        finally:
            if loaded is not None:  # The traceback of an interrupt may keep it.
                loaded.close()
    tell_of_pickles(list(loaded.notes.left_out), loaded.found.path)
    return states


def tell_of_pickles(names: list[str], path: Path) -> None:
    """Warn of leaves that are left out."""
    more = len(names) - _MOST_NAMES
    if names:
        _logger.warning(
            "Leaves saved with pickle are left out: %s%s. Pass allow_pickle=True if "
            "you trust who wrote %s.",
            ", ".join(names[:_MOST_NAMES]),
            f" and {more} more" if more > 0 else "",
            path,
        )

"""The functional form: `save` and `load` of functions, by key, and of one pytree."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from .components import rng
from .components.component import Target, of_loadfns
from .components.value import Value, flatten, of_pytree, state_of, values_of
from .directory import lookup
from .directory.lookup import find
from .directory.metadata import encode
from .format import compression
from .loading import load as loading
from .loading import verbs
from .loading.candidates import Candidates
from .loading.request import Request
from .reports import LoadReport, SaveReport
from .saving.options import SaveLabel, SaveOptions
from .saving.save import Saving
from .system.phases import Phases
from .system.progress import Meter
from .user import arguments
from .user.arguments import AnyPath, local

_TREE = "tree"  # The key of what `save_pytree` saves.


def save(
    path: AnyPath,
    savefns: Mapping[str, Callable[[], Any]],
    write: bool = True,
    *,
    metadata: Any = None,
    compress: compression.Compress = "auto",
    fsync: bool = True,
) -> SaveReport:
    """Write one save to exactly this folder.

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
    savefns = arguments.functions("savefns", savefns, "save")
    values = values_of(savefns, Value.save)
    saving = {key: partial(state_of, value) for key, value in values.items()}
    options = SaveOptions(
        write=arguments.flag("write", write),
        fsync=arguments.flag("fsync", fsync),
        compress=compression.check(compress),
    )
    new = Saving(options, SaveLabel(metadata=encode(metadata)), target=local(path))
    try:
        new.take(rng.last({**savefns, **saving}))
        report = new.finish()
    except BaseException:
        new.abandon()
        raise
    assert report is not None  # Only this function could have abandoned it.
    return report


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
      path: A save, or a directory, for its newest good save.
      loadfns: Functions that take a state, by key.
      mmap: As for `Checkpoint.load`.
      verify: As for `Checkpoint.load`.
      allow_pickle: Whether code from the save may run; by default it may not.

    Raises:
      CheckpointError: as for `Checkpoint.load`; no function was called.

    Source: elements.checkpoint.load.
    """
    start = time.monotonic()
    loadfns = arguments.functions("loadfns", loadfns, "load")
    keys = {key: key for key in loadfns}
    request = Request(
        verbs.FUNCTIONS, keys, mmap=mmap, verify=verify, allow_pickle=allow_pickle
    )
    targets, candidates = (
        of_loadfns(loadfns),
        Candidates(partial(find, local(path), to_load=True)),
    )
    with Meter("load") as meter:
        loaded = loading.load(request, targets, candidates, Phases(), meter)
    return loaded.report(time.monotonic() - start)


def save_pytree(
    path: AnyPath,
    tree: Any,
    metadata: Any = None,
    *,
    compress: compression.Compress = "auto",
    fsync: bool = True,
) -> SaveReport:
    """Write one save of a pytree to exactly this folder.

    In a job of several processes, only one of them may call it.

    Args:
      path: The folder, which must not exist or be empty.
      tree: Anything that `Value` takes. It becomes the component `tree` of the save.
      metadata: As for `Checkpoint.save`: `info(path).metadata` returns it.
      compress: As for `Checkpoint`.
      fsync: As for `Checkpoint`.

    Raises:
      CheckpointError: as for `Checkpoint.save`; `SaveExistsError` if the folder holds
        something.

    Source: orbax.checkpoint.
    """
    savefns = {_TREE: of_pytree(tree).save}
    return save(path, savefns, metadata=metadata, compress=compress, fsync=fsync)


def load_pytree(
    path: AnyPath,
    template: Any,
    *,
    key: str | None = None,
    regex: str | None = None,
    rename: Mapping[str, str] | None = None,
    mmap: bool = False,
    verify: bool = True,
    allow_pickle: bool | None = None,
) -> Any:
    """Return the pytree of a save.

    Args:
      path: A save, or a directory, for its newest good save.
      template: A tree that the saved one must match, as for `Value`.
      key: The component to load from a save of a Checkpoint; by default the tree that
        `save_pytree` saved.
      regex: Loads only leaves whose names it matches from their start, as for
        `Checkpoint.load`; the others stay those of the template.
      rename: Patterns to replacements, as for `Checkpoint.load`.
      mmap: As for `Checkpoint.load`.
      verify: As for `Checkpoint.load`.
      allow_pickle: As for `load`.

    Returns:
      A tree with the structure of the template. Its leaves have the same shapes,
      element types, kinds and devices.

    Raises:
      SaveNotFoundError: there is no save.
      MissingKeyError: the save has no such component.
      MismatchError: the tree does not match the template; the message names each leaf.
      CheckpointError: as for `Checkpoint.load`.

    Source: orbax.checkpoint.
    """
    key = _TREE if key is None else arguments.key(key)
    request = Request(
        verbs.PYTREE,
        {key: key},
        regex,
        rename,
        mmap=mmap,
        verify=verify,
        allow_pickle=allow_pickle,
    )
    targets = {key: Target(template=partial(flatten, template))}
    candidates = Candidates(partial(find, local(path), to_load=True))
    with Meter("load") as meter:
        loaded = loading.read(request, targets, candidates, Phases(), meter)
    return loaded.states.get(key, template)


def exists(path: AnyPath) -> bool:
    """Return whether there is a save at the path or in it, even a damaged one."""
    return lookup.has_saves(local(path))

"""Writes what others wrote, or saves of this library, as the saves of a new run."""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct, structs

from ..components.files import Folder
from ..directory import lookup, metadata
from ..directory.listing import Directory
from ..directory.retention import Keep
from ..errors import DamagedError, MismatchError, MissingKeyError
from ..foreign import npz_files, safetensors_files
from ..format import manifest
from ..format.manifest import Head
from ..loading import load, patterns, verbs
from ..loading.candidates import Candidates
from ..loading.request import Regex, Rename, Request
from ..reports import SaveList
from ..saving.history import History
from ..saving.options import SaveLabel, SaveOptions
from ..saving.save import Saving
from ..state import flattening
from ..storage import files, paths, transfers
from ..system.phases import Phases
from ..system.progress import Meter
from ..user import arguments, hints
from ..user.arguments import AnyPath, flag, local, shown
from . import infos, states
from .exports import refuse_twice

_FORMATS = (safetensors_files, npz_files)
_START_BYTES = 16  # Tell the format.
_MOST_NEAR = 5


class _Step(Struct):
    """What becomes one save.

    Attributes:
      states: Its states, by our keys.
      label: What it says about itself.
      keep: By which metric the run ranked its saves.
    """

    states: Mapping[str, Any]
    label: SaveLabel
    keep: Keep = Keep(latest=None)


def convert(
    source: AnyPath,
    directory: AnyPath,
    *,
    keys: Iterable[str] | Mapping[str, str] | None = None,
    regex: Regex | None = None,
    rename: Rename | None = None,
    all: bool = False,
) -> SaveList:
    """Write files of others, or saves, as the saves of a new run.

    The source is a file of safetensors or of `numpy.savez`, which becomes one component
    `safetensors` or `npz`; a save or its address; or a directory, also one that the
    elements package wrote. The content of a file tells its format. Saves have the
    components that `read` returns, with their steps, metrics, metadata and pins. Leaves
    that only a pickle could hold are left out, and a warning names them.

    Args:
      source: What to convert. A directory means its newest good save.
      directory: Where the saves go; there must be nothing, or an empty folder.
      keys: Components, or a mapping from new keys to those in the source; all by
        default.
      regex: Converts only leaves whose names it matches, as for `Checkpoint.load`.
      rename: Patterns to replacements for names of leaves, as for `Checkpoint.load`. A
        component in which a name changes becomes one dict of its leaves by name.
      all: Whether each save of a directory is converted, the oldest first.

    Returns:
      The new saves. If an error is raised, `directory` is as it was.

    Raises:
      SaveNotFoundError: there is nothing to convert.
      SaveExistsError: there is something at `directory`.
      MissingKeyError: the source lacks a component.
      MismatchError: a pattern is not valid or matches nothing, or two leaves get one
        name.
      DamagedError: the source is damaged, or of another format.
      CheckpointError: as for `read` and `Checkpoint.save`.
    """
    path, target = local(source), local(directory)
    is_every = flag("all", all)
    wanted = None if keys is None else arguments.keys(keys)
    request = Request(
        verbs.READ,
        None if wanted is None else arguments.saved_keys(keys, wanted),
        regex,
        mmap=True,
        plain=True,
    )
    Request(verbs.READ, rename=rename)  # Checks it before anything is read.
    with transfers.new_directory(target) as new:
        here, history = Directory(new), History()
        with contextlib.closing(_steps(path, request, is_every, new)) as steps:
            for step in steps:
                _save(here, history, step, rename)
    return infos.saves(target)


def _steps(
    path: Path, request: Request, is_every: bool, scratch: Path
) -> Generator[_Step, None, None]:
    """Yield what becomes a save, the oldest first; its arrays may be mapped."""
    if paths.leads_to_file(path):
        yield _of_file(path, request, scratch)
        return
    find = functools.partial(lookup.find, path)
    finds: list[Callable[[], Any]] = [find]
    if is_every:
        finds = [functools.partial(list, [found]) for found in reversed(find())]
    request = structs.replace(request, memory=transfers.Scratch(scratch).memory)
    for one in finds:
        silent = Meter("convert")  # Arrays are mapped, so there is little to tell.
        loaded = load.read(request, {}, Candidates(one), Phases(), silent)
        with contextlib.closing(loaded):
            states.tell_of_pickles(list(loaded.notes.left_out), loaded.found.path)
            yield _Step(loaded.states, *_described(loaded.found.head))


def _described(head: Head | None) -> tuple[SaveLabel, Keep]:
    if head is None:  # Written by elements, which says no more.
        return SaveLabel(), Keep(latest=None)
    label = SaveLabel(head.step, head.metrics, head.metadata, head.pin)
    if head.ranking is None:
        return label, Keep(latest=None)
    metric, mode = head.ranking
    return label, Keep(latest=None, best=1, metric=metric, mode=mode)


def _of_file(path: Path, request: Request, scratch: Path) -> _Step:
    """Return what is in a file of another format.

    Raises:
      DamagedError: it is of none that is known, or not valid.
      MissingKeyError: it has no such component.
      MismatchError: the pattern matches nothing.
    """
    real = paths.real(path)
    start, file = files.read_start(real, _START_BYTES)
    form = next((x for x in _FORMATS if x.is_one(bytes(start), file.size)), None)
    if form is None:
        raise DamagedError(
            f"{path} is not a file of safetensors or npz: it begins with "
            f"{bytes(start)!r}. Convert it to one of these first."
        )
    found = form.read(real, scratch)
    wanted = {form.NAME: form.NAME} if request.keys is None else request.keys
    missing = sorted({*wanted.values()} - {form.NAME})
    if missing:
        raise MissingKeyError(
            f"{path} has no {', '.join(map(shown, missing))}. It has {form.NAME!r}: "
            f"pass that in keys=, or leave keys= out."
        )
    chosen = _chosen(dict.fromkeys(wanted, found.values), request, path)
    states.tell_of_pickles(found.left_out, path)
    return _Step(chosen, SaveLabel(metadata=metadata.encode(found.metadata)))


def _chosen(
    values: Mapping[str, Mapping[str, Any]], request: Request, path: Path
) -> dict[str, dict[str, Any]]:
    """Return the arrays whose names a pattern matches."""
    if request.regex is None:
        return {key: dict(arrays) for key, arrays in values.items()}
    by_key = {key: list(map(manifest.escape, x)) for key, x in values.items()}
    matches = patterns.selections(request, by_key)
    chosen = {
        key: {
            x: y for x, y in arrays.items() if matches[key].matches(manifest.escape(x))
        }
        for key, arrays in values.items()
    }
    if not any(chosen.values()):
        every = list(itertools.chain.from_iterable(by_key.values()))
        near = hints.nearest(str(request.regex), every, _MOST_NEAR)
        raise MismatchError(
            f"regex={request.regex!r} matches no array of {path}. The nearest names "
            f"are {hints.listed(near, 'none, as it has no arrays')}. Correct it; "
            f"nothing was written."
        )
    return {key: arrays for key, arrays in chosen.items() if arrays}


def _save(
    here: Directory, history: History, step: _Step, rename: Rename | None
) -> None:
    """Write one save; what an earlier one holds already is linked."""
    found = _renamed(step.states, rename) if rename else step.states
    label = structs.replace(step.label, keys=sorted(found))
    options = SaveOptions(keep=step.keep)
    saving = Saving(options, label, target=None, listing=here, history=history)
    try:
        saving.take({key: functools.partial(_state, x) for key, x in found.items()})
        saving.finish()
    except BaseException:
        saving.abandon()
        raise


def _state(value: Any) -> Any:
    """Return a state as a component would; a path is that of its files."""
    if isinstance(value, Path):
        return Folder(functools.partial(transfers.copy_files, value))
    return value


def _renamed(states: Mapping[str, Any], rename: Rename) -> dict[str, Any]:
    flats = {
        key: flattening.flatten(state, key, by_name=True)
        for key, state in states.items()
        if not isinstance(state, Path) and not inspect.isgenerator(state)
    }
    names = {key: list(map(manifest.escape, flat.names)) for key, flat in flats.items()}
    request = Request(verbs.READ, {key: key for key in states}, rename=rename)
    selections = patterns.selections(request, names)
    found = dict(states)
    for key, flat in flats.items():
        new = [selections[key].renamed(name) for name in names[key]]
        if new != names[key]:
            refuse_twice(new)
            found[key] = dict(zip(new, flat.values, strict=True))
    return found

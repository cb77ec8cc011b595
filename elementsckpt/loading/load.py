"""The story of a load: a save → states, compared as a whole, → the components.

`read` finds the first save that is not damaged and opens it. It decides how to read
each component, refuses leaves that do not fit, and reads and verifies the others. Only
then `load` calls the components' `load()`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..components import rng, torch_states
from ..components.component import Target
from ..directory.entries import SaveEntry
from ..errors import MismatchError, PickleError, add_note, naming, reason
from ..format.manifest import escape
from ..state import saved_tree
from ..state.unflattening import LEFT_OUT
from ..storage.file_view import FolderReader, isolate
from ..system.memory import require_memory
from ..system.phases import Phases
from ..system.progress import Meter
from . import refusals
from .candidates import Candidates
from .current_state import compare, fill, refuse_unselected
from .loaded import Loaded, Notes, full_names
from .open_save import AnyComponent, OpenSave, Selectable
from .parts import Parts, divide
from .request import Request

_FIRST_WITH_CLASSES = 2  # Of the versions of the format.
_logger = logging.getLogger("elementsckpt")


def load(
    request: Request,
    targets: Mapping[str, Target],
    candidates: Candidates,
    phases: Phases,
    meter: Meter,
    before: Callable[[Path], object] = lambda path: None,
) -> Loaded:
    """Read components, and call the `load()` of each with what was read for it.

    Args:
      request: As for `read`, like the next four. A dry run calls nothing.
      targets: The targets.
      candidates: The saves.
      phases: The clock.
      meter: Counts bytes.
      before: Called with the path of the save before the components' `load()`.

    Raises:
      DamagedError: as for `read`; the component, or another process, has written to its
        folder, which is a part of the save.
      SaveNotFoundError: the save was removed, with the folder of a component.
      CheckpointError: as for `read`.
      Exception: what a component's own `load()` raises, with a note of its key.
    """
    loaded: Loaded | None = None
    try:
        loaded = read(request, targets, candidates, phases, meter)
        if not request.dry_run:
            before(loaded.found.path)
            _hand_over(loaded)
        return loaded
    finally:
        # The traceback of an error keeps what was read, and a locked draft stays.
        if loaded is not None:
            try:
                loaded.close()
            finally:
                if loaded.draft is not None:  # An interrupt may have come before.
                    loaded.draft.unlock()


def read(
    request: Request,
    targets: Mapping[str, Target],
    candidates: Candidates,
    phases: Phases,
    meter: Meter,
) -> Loaded:
    """Read components from the first save that is not damaged; change no component.

    Args:
      request: The request.
      targets: Targets of the components, by our keys. States of components without a
        target are only returned.
      candidates: The saves that may be read.
      phases: The clock of the load.
      meter: Counts the bytes that are read.

    Returns:
      What was read. The caller must close it if a target has a `load()`.

    Raises:
      DamagedError: all saves are damaged.
      MissingKeyError: the save lacks a component.
      MismatchError: leaves do not fit, or a folder was saved where a state is loaded.
      PickleError: the save needs pickle, which is not allowed.
      CheckpointError: the saves cannot be found or read.
    """

    def read_one(found: SaveEntry) -> Loaded:
        loaded = Loaded(found, request, targets, Notes(phases, meter))
        try:
            _read(loaded, is_own=candidates.are_own(found.path))
            loaded.notes.warn_of_classes()
            _note_misfits(loaded)
            _check(loaded)
            if not request.dry_run:
                refusals.refuse_misfits(loaded)
        except BaseException:
            loaded.close()
            raise
        return loaded

    return candidates.first_good(read_one, phases)


def _hand_over(loaded: Loaded) -> None:
    targets = loaded.targets.items()
    loads = {key: target.load for key, target in targets if target.load is not None}
    with loaded.notes.phases("load"):
        for key, load in rng.last(loads).items():
            if key in loaded.states:  # Otherwise no leaf of it was selected.
                with naming(key):
                    _give(key, load, loaded)
                loaded.streams.pop(key, None)  # A kept generator may read on.


def _give(key: str, load: Callable[[Any], Any], loaded: Loaded) -> None:
    folder = loaded.folders.get(key)
    try:
        if folder is not None:
            folder.check()
        load(loaded.states[key])
        if folder is not None:
            folder.check()
    except Exception as error:
        where = f"{key!r} from {loaded.found.path}"
        add_note(error, f"Raised while loading the component {where}.")
        raise


def _read(loaded: Loaded, *, is_own: bool) -> None:
    """Read the requested components of a save."""
    phases, targets = loaded.notes.phases, loaded.targets
    with phases("open"):
        save = OpenSave(loaded.found)
        loaded.request = loaded.request.of_save(save.keys(), is_trusted=is_own)
        loaded.targets = {key: targets.get(key, Target()) for key in loaded.keys}
        components = save.components(loaded)
    try:
        with phases("compare"):
            parts = divide(components, loaded)
            chosen = _choose(parts.alone, loaded)
            compare(parts.into, loaded)
        if loaded.notes.meter.is_on:
            loaded.notes.meter.begin(_bytes_to_read(parts, chosen, loaded))
        with phases("build"):
            states = {x.key: x.some(named) for x, named in chosen}
            states |= {x.key: fill(x, loaded) for x in parts.into}
            loaded.states |= {x: y for x, y in states.items() if y is not LEFT_OUT}
            _read_whole(parts.whole, loaded)
    finally:
        for component in components:
            if not component.streams:  # Shards are read later.
                component.close()


_Chosen = list[tuple[Selectable, Sequence[tuple[str, int]]]]


def _bytes_to_read(parts: Parts, chosen: _Chosen, loaded: Loaded) -> int:
    """Return how many bytes are to be read; blocks that leaves share may add some."""
    alone = [(x, [number for _, number in named]) for x, named in chosen]
    into = [(x, loaded.plans[x.key].numbers) for x in parts.into]
    some = [x.bytes_to_read(numbers) for x, numbers in (*alone, *into)]
    return sum(some) + sum(component.bytes_to_read() for component in parts.whole)


def _choose(components: Sequence[Selectable], loaded: Loaded) -> _Chosen:
    """Return components that have selected leaves, with these names and numbers."""
    chosen = []
    for component in components:
        named = loaded.selections[component.key].choose(component.names())
        if named:
            chosen.append((component, named))
    refuse_unselected(components, {component.key for component, _ in chosen}, loaded)
    return chosen


def _read_whole(components: Sequence[AnyComponent], loaded: Loaded) -> None:
    size_bytes = sum(component.held_bytes for component in components)
    require_memory(size_bytes, loaded.found.path, loaded.request.less)
    with loaded.notes.phases("read"):
        folders = [x for x in components if isinstance(x, FolderReader)]
        folders = [x for x in folders if loaded.targets[x.key].load is not None]
        if folders and not loaded.request.dry_run:
            loaded.draft = isolate(loaded.found.path, folders)
        for component in components:  # Open files can be read even if they are removed.
            if component.streams:
                loaded.streams[component.key] = component.close
            component.open()
    for component in components:
        try:
            _read_one(component, loaded)
        except PickleError:
            if not loaded.request.leaves_out:
                raise
            loaded.notes.left_out[component.key] = None


def _read_one(component: AnyComponent, loaded: Loaded) -> None:
    key = component.key
    state: Any
    if isinstance(component, FolderReader):
        with loaded.notes.phases("read"):
            component.verify()
        loaded.folders[key] = component
        loaded.notes.bytes_read += component.size_bytes
        state, names = component.path, component.names
    elif component.streams:
        component.verify()
        state, names = component.shards(), component.contents()
    else:
        state, names = component.state(), component.contents()
        if loaded.targets[key].is_rebuilt:
            _warn_of_plain(key, loaded.found)
            state = component.rebuilt(state)
    if state is not LEFT_OUT:
        loaded.states[key] = state
        loaded.loaded += full_names(key, names)


def _warn_of_plain(key: str, found: SaveEntry) -> None:
    if found.head is not None and found.head.version < _FIRST_WITH_CLASSES:
        _logger.warning(
            "%r in %s was saved without its classes, as earlier versions did: it comes "
            "back in plain containers. Give the Value a template to get its classes.",
            key,
            found.path,
        )


def _check(loaded: Loaded) -> None:
    """Let components refuse their states, before one of them has changed."""
    for key, target in loaded.targets.items():
        if target.check is not None and key in loaded.states:
            try:
                with naming(key):
                    target.check(loaded.states[key])
            except MismatchError as error:
                if not loaded.request.dry_run:
                    raise
                loaded.mismatched[key] = reason(error)


def _note_misfits(loaded: Loaded) -> None:
    """Note what torch modules and optimizers would refuse, or load without a check."""
    for key, target in loaded.targets.items():
        if target.load is None:
            continue
        misfit = torch_states.misfit(target.load, loaded.states.get(key))
        for name, problem in misfit.problems.items():
            full = saved_tree.full_name(key, escape(name))
            loaded.mismatched[full] = problem
            if full in loaded.loaded:
                loaded.loaded.remove(full)
        loaded.missing += full_names(key, map(escape, misfit.missing))
        loaded.unexpected += full_names(key, map(escape, misfit.unexpected))

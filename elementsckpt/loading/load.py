"""The story of a load: a save → states, checked as a whole, → the components.

`read` finds the first save that is not damaged, opens it, decides what of each
component is read and how, refuses what does not fit, and reads and verifies the rest.
Only then does `hand_over` call any component's `load()`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ..components import rng, torch_states
from ..components.targets import Target
from ..directory.listing import SaveEntry
from ..errors import PickleError, add_note, naming
from ..format.manifest import display
from ..state import tree, unflattening
from ..storage.fileview import FolderReader, isolate
from ..system.memory import require_memory
from ..system.phases import Phases
from . import refusals
from .candidates import Candidates
from .comparison import compare, refuse_unselected
from .filling import fill
from .loaded import Loaded, Notes, full_names
from .open_save import AnyComponent, OpenSave, Selectable
from .parts import divide
from .request import Request

_FIRST_WITH_CLASSES = 2  # Of the versions of the format.
_logger = logging.getLogger("elementsckpt")


def read(
    request: Request,
    targets: Mapping[str, Target],
    candidates: Candidates,
    phases: Phases,
) -> Loaded:
    """Read components from the first save that is not damaged; nothing changes.

    Args:
      request: What was asked for.
      targets: What loads the components, by our keys. The states of others are only
        returned.
      candidates: The saves.
      phases: Clock for what is done.

    Returns:
      What is to be closed, if the components have targets.

    Raises:
      DamagedError: all saves are damaged.
      MissingKeyError: the save lacks a component.
      MismatchError: saved and current leaves do not fit, or a folder and a state.
      PickleError: the save needs pickle, and that is not allowed.
      CheckpointError: the saves cannot be found, or read.
    """

    def read_one(found: SaveEntry) -> Loaded:
        loaded = Loaded(found, request, Notes(phases))
        with _closing_on_error(loaded):
            is_own = candidates.are_own(found.path)
            _read(found, is_own, targets, loaded)
        return loaded

    loaded = candidates.first_good(read_one, phases)
    with _closing_on_error(loaded):
        loaded.notes.warn_of_classes()
        _note_misfits(targets, loaded)
        if not request.dry_run:
            refusals.refuse_misfits(loaded)
    return loaded


def hand_over(loaded: Loaded, targets: Mapping[str, Target]) -> None:
    """Give each component what was read for it.

    Raises:
      DamagedError: a component has written to its folder, which is a part of the save,
        or others have.
      SaveNotFoundError: the save was removed, and a folder is in it.
      Exception: what a component's own `load()` raises, with a note of its key.
    """
    loads = {key: target.load for key, target in targets.items() if target.load}
    for key, load in rng.last(loads).items():
        if key in loaded.states:  # Else nothing in it was selected.
            component = loaded.held.get(key)
            folder = component if isinstance(component, FolderReader) else None
            with _naming(key, loaded), loaded.notes.phases("load"):
                _give(loaded.states[key], load, folder)
            if folder is None:  # Who keeps a generator reads on.
                loaded.held.pop(key, None)


def _give(state: Any, load: Callable[[Any], Any], folder: FolderReader | None) -> None:
    if folder is not None:
        folder.check()
    load(state)
    if folder is not None:
        folder.check()


@contextlib.contextmanager
def _naming(key: str, loaded: Loaded) -> Iterator[None]:
    with naming(key):
        try:
            yield
        except Exception as error:
            path = loaded.found.path
            add_note(error, f"Raised while loading the component {key!r} from {path}.")
            raise


@contextlib.contextmanager
def _closing_on_error(loaded: Loaded) -> Iterator[None]:
    try:
        yield
    except BaseException:
        loaded.close()
        raise


def _read(
    found: SaveEntry, is_own: bool, targets: Mapping[str, Target], loaded: Loaded
) -> None:
    """Read what is wanted of a save."""
    phases = loaded.notes.phases
    with phases("open"):
        save = OpenSave(found)
        request = loaded.request.of_save(save.keys(), is_trusted=is_own)
        loaded.request = request
        targets = {key: targets.get(key, Target()) for key in loaded.keys}
        components = save.components(request, targets, loaded.notes)
    with _closing(components):
        with phases("compare"):
            parts = divide(components, targets, loaded)
            chosen = _choose(parts.alone, loaded)
            if parts.into:
                compare(parts.into, targets, loaded)
        with phases("build"):
            for component, named in chosen:
                _keep(component.key, component.some(named), loaded)
            for component in parts.into:
                is_part = request.selects(component.key)
                plan = loaded.plans[component.key]
                state = fill(component, plan, found, is_part=is_part)
                _keep(component.key, state, loaded)
            _read_whole(parts.whole, targets, loaded)


def _keep(key: str, state: Any, loaded: Loaded) -> None:
    if state is not unflattening.LEFT_OUT:
        loaded.states[key] = state


def _choose(
    components: Sequence[Selectable], loaded: Loaded
) -> list[tuple[Selectable, list[tuple[str, int]]]]:
    """Return the names and numbers of selected leaves, of components that have some."""
    chosen = []
    for component in components:
        matches = loaded.selections[component.key].matches
        named = [(name, number) for name, number in component.names() if matches(name)]
        if named:
            chosen.append((component, named))
    refuse_unselected(components, {component.key for component, _ in chosen}, loaded)
    return chosen


@contextlib.contextmanager
def _closing(components: Sequence[AnyComponent]) -> Iterator[None]:
    """Close the files, except those from which shards are still to be read."""
    try:
        yield
        for component in components:
            if not component.streams:
                component.close()
    except BaseException:
        for component in components:
            component.close()
        raise


def _read_whole(
    components: Sequence[AnyComponent], targets: Mapping[str, Target], loaded: Loaded
) -> None:
    size_bytes = sum(component.held_bytes for component in components)
    less = loaded.request.verb.by("keys", "regex")
    require_memory(size_bytes, loaded.found.path, less)
    with loaded.notes.phases("read"):
        folders = [x for x in components if isinstance(x, FolderReader)]
        isolated = [x for x in folders if targets[x.key].takes_folder]
        if isolated and not loaded.request.dry_run:
            loaded.draft = isolate(loaded.found.path, isolated)
        for component in components:  # What is open can be read when it is removed.
            component.open()
    for component in components:
        try:
            _read_one(component, targets[component.key], loaded)
        except PickleError:
            if not loaded.request.leaves_out:
                raise
            loaded.notes.left_out[component.key] = None


def _read_one(component: AnyComponent, target: Target, loaded: Loaded) -> None:
    key = component.key
    if isinstance(component, FolderReader):
        with loaded.notes.phases("read"):
            component.verify()
        loaded.held[key] = component
        loaded.states[key] = component.path
        loaded.loaded += full_names(key, component.names)
        loaded.notes.bytes_read += component.size_bytes
        return
    state: Any = None
    if component.streams:
        component.verify()
        loaded.held[key] = component
        state = component.shards()
    else:
        state = component.state()
        if target.is_rebuilt:
            _warn_of_plain(key, loaded.found)
            state = component.rebuilt(state)
    if state is not unflattening.LEFT_OUT:
        loaded.states[key] = state
        loaded.loaded += full_names(key, component.contents())


def _warn_of_plain(key: str, found: SaveEntry) -> None:
    if found.head is not None and found.head.version < _FIRST_WITH_CLASSES:
        _logger.warning(
            "%r in %s was saved without its classes, as it was by earlier versions: "
            "what held its leaves comes back as plain containers. Give the Value a "
            "template to get more.",
            key,
            found.path,
        )


def _note_misfits(targets: Mapping[str, Target], loaded: Loaded) -> None:
    """Note what modules and optimizers of torch would refuse, or would not notice."""
    for key, target in targets.items():
        if target.load is None:
            continue
        misfit = torch_states.misfit(target.load, loaded.states.get(key))
        for name, problem in misfit.problems.items():
            full = tree.full_name(key, display(name))
            loaded.mismatched[full] = problem
            if full in loaded.loaded:
                loaded.loaded.remove(full)
        loaded.missing += full_names(key, map(display, misfit.missing))
        loaded.unexpected += full_names(key, map(display, misfit.unexpected))

"""A save → the states to hand to the components, or the reason why not.

Everything is read and verified here, before any component's `load()` runs.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from ..components import torch_states
from ..directory.listing import Found
from ..errors import (
    DamagedError,
    MismatchError,
    PickleError,
    ReadError,
    add_note,
    naming,
)
from ..format import manifest
from ..reports import LoadReport
from ..state import flattening, growth, matching, tree, unflattening
from ..state.matching import Plan
from ..state.selection import Selection
from ..storage import disk
from ..storage.drafts import Draft
from ..storage.fileview import FolderReader, isolate
from ..system.memory import require_memory
from . import filling, remedies
from .component import Notes, Options, SavedComponent, Selectable
from .open_save import Save, Stored
from .remedies import Case
from .request import Request
from .verbs import Verb

_ATTEMPTS = 20
_logger = logging.getLogger("elementsckpt")
_MOST_WARNINGS = 20


class Restored(Struct):
    """What was read from a save; names of leaves begin with their keys.

    Attributes:
      found: The save.
      states: What to give to the `load()` of each component.
      folders: Those of them that are folders.
      draft: What folders are in that were made for this load, or None.
      streams: Those that are generators, which hold the save until they are closed.
      notes: What the report says about reading.
      misplaced: Those that are mismatched by their sharding only.
      castable: Whether `cast=True` would make some of what is mismatched fit.
      fell_back_from: The newest save, if it is damaged.
    """

    found: Found
    notes: Notes
    states: dict[str, Any] = {}
    folders: dict[str, FolderReader] = {}
    draft: Draft | None = None
    streams: dict[str, Selectable] = {}
    loaded: list[str] = []
    missing: list[str] = []
    unexpected: list[str] = []
    mismatched: dict[str, str] = {}
    misplaced: list[str] = []
    castable: bool = False
    renamed: dict[str, str] = {}
    fell_back_from: Path | None = None

    def close(self) -> None:
        """Let go of the save; who keeps an error keeps this object, too."""
        if self.draft is not None:
            self.draft.abandon()
        for stream in self.streams.values():
            stream.close()

    def report(self, seconds: float) -> LoadReport:
        """Return what the caller of `load` gets."""
        return LoadReport(
            path=self.found.path,
            step=self.found.step,
            loaded=tuple(self.loaded),
            missing=tuple(self.missing),
            unexpected=tuple(self.unexpected),
            mismatched=tuple(self.mismatched),
            renamed=self.renamed,
            plain=self.notes.plain,
            fell_back_from=self.fell_back_from,
            bytes_read=self.notes.bytes_read,
            seconds=seconds,
        )


class Reading(Struct, frozen=True, kw_only=True):
    """What to read of a save, and how.

    Attributes:
      keys: Components to read, our keys to those in the save; None for all that are in
        the save.
      options: How to read the save at a path.
      current: Returns the current state of a component. Without, selected leaves
        are returned by themselves, not in the place of current ones.
      folders: Keys of the components that load a folder, where the others load a
        state; None if nothing loads them.
      request: Which leaves to read.
      growing: Keys of the components that take leaves which their current state does
        not have yet, and whether the outermost mapping of that is complete.
      templates: Return the current state of components, taken apart, which the whole
        of a saved one must be like.
      rebuilt: Keys of components that take what a value saved with its classes.
      dry_run: Whether what does not fit is returned instead of raised.
      distrust: Takes note of a save that was found damaged.
      announce: Takes note of the save that was read, before components load from it.
    """

    keys: Mapping[str, str] | None
    options: Callable[[Path], Options]
    current: Callable[[str], Any] | None = None
    folders: Collection[str] | None = None
    request: Request = Request()
    growing: Mapping[str, bool] = {}
    templates: Mapping[str, Callable[[], flattening.Flat]] = {}
    rebuilt: Collection[str] = ()
    dry_run: bool = False
    distrust: Callable[[Path], None] = lambda path: None
    announce: Callable[[Path], None] = lambda path: None


class _GoneError(Exception):
    """The save was removed while it was read."""


def restore(find: Callable[[], Sequence[Found]], reading: Reading) -> Restored:
    """Read components from the first save that is not damaged.

    If that is removed meanwhile, as a run does that saves, the saves are found anew.

    Args:
      find: Returns the saves, the newest first.
      reading: What to read.

    Raises:
      DamagedError: all of them are damaged.
      MissingKeyError: the save lacks a component.
      MismatchError: saved and current leaves do not fit, or a folder and a state.
      PickleError: the save needs pickle, and that is not allowed.
    """
    for _ in range(_ATTEMPTS):
        candidates = find()
        with contextlib.suppress(_GoneError):
            return _restore(candidates, reading)
    raise ReadError(
        f"{_ATTEMPTS} times a save in {candidates[0].path.parent} was removed while it "
        f"was read: another process saves there, and faster than this one reads. Keep "
        f"more saves with keep=."
    )


def _restore(candidates: Sequence[Found], reading: Reading) -> Restored:
    damaged: list[DamagedError] = []
    for found in candidates:
        restored = Restored(found, Notes())
        try:
            _read(found, reading, restored)
            if damaged:
                restored.fell_back_from = candidates[0].path
                _logger.warning("Loading the older save %s instead.", found.path)
            _tell_of_classes(restored.notes)
            return restored
        except DamagedError as error:
            restored.close()
            if _is_gone(found):
                raise _GoneError from error
            reading.distrust(found.path)
            # Without tracebacks, which would keep what was read, and open, alive.
            damaged.append(DamagedError(str(error)))
            if len(candidates) > 1:
                _logger.warning("The save %s is damaged: %s", found.path, error)
        except BaseException:
            restored.close()
            raise
    raise _all_damaged(candidates, damaged)


def _is_gone(found: Found) -> bool:
    """Tell whether a save that was there was removed as this library does it."""
    if disk.is_missing(found.path):
        return True
    return found.head is not None and disk.is_missing(found.path / manifest.NAME)


def _read(found: Found, reading: Reading, restored: Restored) -> None:
    """Read what is wanted of a save."""
    options, current = reading.options(found.path), reading.current
    save = Save(found, options, restored.notes, current)
    keys = reading.keys
    if keys is None:
        found_keys = save.keys()
        keys = dict(zip(found_keys, found_keys, strict=True))
    components = save.components({x: keys[x] for x in reading.request.wanted(keys)})
    with _closing(components):
        if reading.folders is not None:
            _refuse_other_kinds(components, reading.folders, found.path, options.verb)
        some, whole = _divide(components, reading, found.path, options.verb)
        if options.leaves_out:
            some = _admitted(some, restored.notes)
        case = Case(found.path, reading.request, options.verb, keys)
        case.is_named = all(_has_names(x) for x in components) and not reading.rebuilt
        case.selections = _selections(some, reading.request)
        if current is None and not reading.templates and some:
            _read_only(some, case, restored)
        elif some:
            _read_some(some, case, reading, restored)
        _read_whole(whole, reading, restored, options)


def _divide(
    components: Sequence[Stored], reading: Reading, path: Path, verb: Verb
) -> tuple[list[Selectable], list[Stored]]:
    """Tell those that are compared with the current state from those read whole."""
    request = reading.request
    _selectable([x for x in components if x.key in reading.rebuilt], path, verb)
    some: list[Stored] = []
    whole: list[Stored] = []
    for component in components:
        key = component.key
        # Without names there is nothing to be strict about, and nothing to cast.
        is_whole = request.is_whole(key) or not (
            request.is_by_name(key) or _has_names(component)
        )
        if key in reading.rebuilt:  # Of nothing there is no part.
            is_whole = not request.selects(key)
        chosen = whole if is_whole and key not in reading.templates else some
        chosen.append(component)
    return _selectable(some, path, verb), whole


def _has_names(component: Stored) -> bool:
    return not isinstance(component, FolderReader) and not component.streams


def _selections(
    components: Sequence[Selectable], request: Request
) -> dict[str, Selection]:
    """Return what to select in each component, reading names only if they count."""
    is_by_name = bool(request.questions(x.key for x in components))
    return request.selections(
        {
            x.key: [name for name, _ in x.names()] if is_by_name else []
            for x in components
        }
    )


def _tell_of_classes(notes: Notes) -> None:
    for path, (change, first) in notes.changes.items():
        result = change.consequence
        _logger.warning(
            "%s has %s since %s was saved: %s.", path, change, first, result
        )
    for name, path in itertools.islice(notes.plain.items(), _MOST_WARNINGS):
        why = notes.reasons.get(path, "was not found")
        _logger.warning("%s comes back as a dict: %s %s.", name, path, why)
    more = len(notes.plain) - _MOST_WARNINGS
    if more > 0:
        _logger.warning("So do %s more; the report has all of them.", more)


@contextlib.contextmanager
def _closing(components: Sequence[Stored]) -> Iterator[None]:
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


def _all_damaged(
    candidates: Sequence[Found], damaged: Sequence[DamagedError]
) -> DamagedError:
    if len(damaged) == 1:
        return DamagedError(
            f"{damaged[0]} Load another save by its path, or restore this one from a "
            f"copy."
        )
    reasons = zip(candidates, damaged, strict=True)
    lines = [f"\n  {found.path.name}: {error}" for found, error in reasons]
    return DamagedError(
        f"All {len(damaged)} saves in {candidates[0].path.parent} are damaged:"
        f"{''.join(lines)}\nRestore one from a copy, or start in another directory."
    )


def _refuse_other_kinds(
    components: Sequence[Stored], folders: Collection[str], path: Path, verb: Verb
) -> None:
    for component in components:
        key, is_folder = component.key, isinstance(component, FolderReader)
        if is_folder and key not in folders:
            raise MismatchError(
                f"{key!r} in {path} is a folder of files, and what loads it takes a "
                f"state. Use elementsckpt.Files(load=function), or leave it out"
                f"{verb.by('keys')}; nothing was loaded."
            )
        if key in folders and not is_folder:
            raise MismatchError(
                f"{key!r} in {path} is a state, and what loads it is a Files, which "
                f"takes a folder. Use what it was saved with, or leave it out"
                f"{verb.by('keys')}; nothing was loaded."
            )


def _read_whole(
    components: Sequence[Stored], reading: Reading, restored: Restored, options: Options
) -> None:
    size_bytes, less = sum(x.held_bytes for x in components), ("keys", "regex")
    require_memory(size_bytes, restored.found.path, options.verb.by(*less))
    folders = [x for x in components if isinstance(x, FolderReader)]
    if folders and reading.folders is not None and not reading.dry_run:
        restored.draft = isolate(restored.found.path, folders)
    for component in components:  # What is open can be read when it is removed.
        component.open()
    for component in components:
        try:
            _read_one(component, restored, is_rebuilt=component.key in reading.rebuilt)
        except PickleError:
            if not options.leaves_out:
                raise
            restored.notes.left_out[component.key] = None


def _read_one(component: Stored, restored: Restored, *, is_rebuilt: bool) -> None:
    if isinstance(component, FolderReader):
        _read_folder(component, restored)
        return
    state: Any = None
    if component.streams:
        component.verify()
        restored.streams[component.key] = component
        state = component.shards()
    else:
        state = component.state()
        if is_rebuilt:
            _tell_of_leaves(component.key, restored.found)
            state = component.rebuilt(state)
    if state is not unflattening.LEFT_OUT:
        restored.states[component.key] = state
        restored.loaded += _full(component.key, component.contents())


def _tell_of_leaves(key: str, found: Found) -> None:
    if found.head is not None and found.head.version < _FIRST_WITH_CLASSES:
        _logger.warning(
            "%r in %s was saved without its classes, as it was by earlier versions: "
            "what held its leaves comes back as plain containers. Give the Value a "
            "template to get more.",
            key,
            found.path,
        )


_FIRST_WITH_CLASSES = 2  # Of the versions of the format.


def _admitted(components: Sequence[Selectable], notes: Notes) -> list[Selectable]:
    """Leave out components of which the whole is one pickle, as elements writes it."""
    admitted = []
    for component in components:
        try:
            component.names()
        except PickleError:
            notes.left_out[component.key] = None
        else:
            admitted.append(component)
    return admitted


def _read_folder(folder: FolderReader, restored: Restored) -> None:
    folder.verify()
    restored.states[folder.key] = folder.path
    restored.folders[folder.key] = folder
    restored.loaded += _full(folder.key, folder.names)
    restored.notes.bytes_read += folder.size_bytes


def _selectable(
    components: Sequence[Stored], path: Path, verb: Verb
) -> list[Selectable]:
    """Return the components; each must have leaves that can be selected."""
    chosen: list[Selectable] = []
    other: Stored | None = None
    for component in components:
        if isinstance(component, FolderReader) or component.streams:
            other = other or component
        else:
            chosen.append(component)
    if other is not None:
        how = "as files" if isinstance(other, FolderReader) else _IN_SHARDS
        where = f"{other.key!r} in {path} was saved {how}"
        raise _not_selectable(where, verb, [component.key for component in chosen])
    return chosen


_IN_SHARDS = "in shards by a generator"


def _not_selectable(what: str, verb: Verb, others: Sequence[str] = ()) -> MismatchError:
    remedy = f"Leave it out{verb.by('keys')}"
    if "keys" in verb.takes:
        remedy = f"Leave it out with keys=[{', '.join(map(repr, others)) or '...'}]"
    if "key" in verb.takes:
        remedy = "Load it with a Checkpoint, into what it was saved from"
    return MismatchError(
        f"{what}, so its leaves have no names to select or compare them by. {remedy}; "
        f"nothing was loaded."
    )


def _read_only(
    components: Sequence[Selectable], case: Case, restored: Restored
) -> None:
    matched = set()
    for component in components:
        matches = case.selections[component.key].matches
        named = [(name, n) for name, n in component.names() if matches(name)]
        if not named:
            continue
        matched.add(component.key)
        state = component.some(named)
        if state is not unflattening.LEFT_OUT:
            restored.states[component.key] = state
    for group in _questions(components, case.request):
        if not any(component.key in matched for component in group):
            remedies.refuse_nothing(case, _names(group))


def _names(components: Iterable[Selectable]) -> dict[str, list[str]]:
    return {x.key: [name for name, _ in x.names()] for x in components}


def _questions(
    components: Sequence[Selectable], request: Request
) -> list[list[Selectable]]:
    """Return those of the components of which one that is selected is enough."""
    by_key = {component.key: component for component in components}
    return [[by_key[key] for key in keys] for keys in request.questions(by_key)]


def _read_some(
    components: Sequence[Selectable], case: Case, reading: Reading, restored: Restored
) -> None:
    selections = case.selections
    case.plans = plans = {}
    for component in components:
        flat = _flat(component, reading, case.verb)
        plan = _plan(component, flat, selections[component.key], reading)
        plans[component.key] = plan
        _note(component.key, plan, restored)
    for group in _questions(components, reading.request):
        some = [plans[component.key] for component in group]
        if not any(plan.loaded or plan.problems for plan in some):
            remedies.refuse_nothing(case, _names(group))
    if not reading.dry_run:
        _refuse_mismatch(case, restored)
    remedies.warn_of_unused(case)
    for component in components:
        key, found = component.key, restored.found
        is_part = selections[key].regex is not None
        state = filling.fill(component, plans[key], found, is_part=is_part)
        if state is not unflattening.LEFT_OUT:
            restored.states[key] = state


def _flat(component: Selectable, reading: Reading, verb: Verb) -> flattening.Flat:
    """Return the current state of a component, taken apart."""
    key = component.key
    with naming(key):
        if key in reading.templates:
            return reading.templates[key]()
        assert reading.current is not None
        state = reading.current(key)
    if inspect.isgenerator(state):
        state.close()
        raise _not_selectable(f"{key!r} is saved {_IN_SHARDS}", verb)
    return flattening.flatten(state, key, by_name=True)


def _plan(
    component: Selectable, flat: flattening.Flat, selection: Selection, reading: Reading
) -> Plan:
    key = component.key
    plan = matching.plan(flat, component.specs(), selection, key)
    if plan.undecided:
        values = component.values(number for _, number, *_ in plan.undecided)
        matching.decide(plan, values)
    if plan.left and key in reading.growing and isinstance(component, SavedComponent):
        is_complete = reading.growing[key]
        growth.find(plan, component.places(), selection, is_complete=is_complete)
    return plan


def _note(key: str, plan: Plan, restored: Restored) -> None:
    restored.loaded += _full(key, plan.loaded)
    restored.missing += _full(key, plan.missing)
    restored.unexpected += _full(key, plan.unexpected)
    restored.castable = restored.castable or plan.castable
    for name in plan.kept:
        _logger.warning(
            "%s is not in %s: it stays what the code that is bound to it has.",
            tree.full_name(key, name),
            restored.found.path,
        )
    restored.misplaced += _full(key, plan.misplaced)
    for name, problem in plan.problems.items():
        restored.mismatched[tree.full_name(key, name)] = problem
    for old, new in plan.renamed.items():
        restored.renamed[tree.full_name(key, old)] = tree.full_name(key, new)


def restore_into(
    loadfns: Mapping[str, Callable[[Any], Any]],
    find: Callable[[], Sequence[Found]],
    reading: Reading,
) -> Restored:
    """Read components, and give each its state, unless it is a dry run.

    Args:
      loadfns: What takes the state of a component, by key.
      find: As for `restore`.
      reading: As for `restore`.

    Raises:
      DamagedError: as for `restore`; or a component has written to its folder, which is
        a part of the save, or others have.
      SaveNotFoundError: the save was removed, and a folder is in it.
      CheckpointError: as for `restore`.
      Exception: what a component's own `load()` raises, with a note of its key.
    """
    restored = restore(find, reading)
    try:
        _note_misfits(loadfns, restored)
        if not reading.dry_run:
            verb = reading.options(restored.found.path).verb
            case = Case(restored.found.path, reading.request, verb, reading.keys or {})
            _refuse_mismatch(case, restored)
            reading.announce(restored.found.path)
        for key, load in {} if reading.dry_run else loadfns.items():
            if key in restored.states:  # Else nothing in it was selected.
                with naming(key), _noting(key, restored.found.path):
                    _give(restored.states[key], load, restored.folders.get(key))
                restored.streams.pop(key, None)
    finally:
        try:
            restored.close()
        finally:
            if restored.draft is not None:  # An interrupt may have come before.
                restored.draft.unlock()
    return restored


def _note_misfits(
    loadfns: Mapping[str, Callable[[Any], Any]], restored: Restored
) -> None:
    """Note what modules and optimizers of torch would refuse, or would not notice."""
    for key, load in loadfns.items():
        misfit = torch_states.misfit(load, restored.states.get(key))
        for name, problem in misfit.problems.items():
            full = tree.full_name(key, manifest.escape(name))
            restored.mismatched[full] = problem
            if full in restored.loaded:
                restored.loaded.remove(full)
        restored.missing += _full(key, map(manifest.escape, misfit.missing))
        restored.unexpected += _full(key, map(manifest.escape, misfit.unexpected))


def _give(state: Any, load: Callable[[Any], Any], folder: FolderReader | None) -> None:
    if folder is not None:
        folder.check()
    load(state)
    if folder is not None:
        folder.check()


@contextlib.contextmanager
def _noting(key: str, path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        add_note(error, f"Raised while loading the component {key!r} from {path}.")
        raise


def _full(key: str, names: Iterable[str]) -> list[str]:
    return [f"{key}/{name}" if name else key for name in names]


def _refuse_mismatch(case: Case, restored: Restored) -> None:
    """Raise one error with everything that does not fit."""
    is_strict = case.request.strict
    others = [*restored.missing, *restored.unexpected] if is_strict else []
    is_misplaced = len(restored.misplaced) == len(restored.mismatched) and not others
    matching.refuse(
        str(case.path),
        restored.mismatched,
        restored.missing if is_strict else (),
        restored.unexpected if is_strict else (),
        "Give it a sharding that divides its shape."
        if is_misplaced
        else remedies.of(case, is_castable=restored.castable, is_uneven=bool(others)),
    )

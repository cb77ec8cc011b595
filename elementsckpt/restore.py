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

from . import disk, manifest, overlay, tree
from .errors import (
    CheckpointError,
    DamagedError,
    MismatchError,
    ReadError,
    add_note,
    reason,
)
from .filetree import FolderReader
from .folder import Found
from .machine import require_memory
from .overlay import Plan, Selection
from .reports import LoadReport
from .source import Save, Stored
from .stored import ElementsComponent, Notes, Options, SavedComponent

Selectable = SavedComponent | ElementsComponent
_ATTEMPTS = 20
_logger = logging.getLogger("elementsckpt")
_MOST_WARNINGS = 20


class Restored(Struct):
    """What was read from a save; names of leaves begin with their keys.

    Attributes:
      found: The save.
      states: What to give to the `load()` of each component.
      folders: Those of them that are folders.
      streams: Those that are generators, which hold the save until they are closed.
      notes: What the report says about reading.
      castable: Whether `cast=True` would make some of what is mismatched fit.
      fell_back_from: The newest save, if it is damaged.
    """

    found: Found
    notes: Notes
    states: dict[str, Any] = {}
    folders: dict[str, FolderReader] = {}
    streams: dict[str, Selectable] = {}
    loaded: list[str] = []
    missing: list[str] = []
    unexpected: list[str] = []
    mismatched: dict[str, str] = {}
    castable: bool = False
    renamed: dict[str, str] = {}
    fell_back_from: Path | None = None

    def close(self) -> None:
        """Let go of the save; who keeps an error keeps this object, too."""
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
      keys: Components to read; None for all that are in the save.
      options: How to read the save at a path.
      current: Returns the current state of a component. Without, selected leaves
        are returned by themselves, not in the place of current ones.
      folders: Keys of the components that load a folder, where the others load a
        state; None if nothing loads them.
      selection: Which leaves to read.
      templates: Return the current state of components, taken apart, which the whole
        of a saved one must be like.
      dry_run: Whether what does not fit is returned instead of raised.
      distrust: Takes note of a save that was found damaged.
    """

    keys: Sequence[str] | None
    options: Callable[[Path], Options]
    current: Callable[[str], Any] | None = None
    folders: Collection[str] | None = None
    selection: Selection = Selection()
    templates: Mapping[str, Callable[[], tree.Flat]] = {}
    dry_run: bool = False
    distrust: Callable[[Path], None] = lambda path: None


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
            _tell_of_dicts(restored.notes.plain)
            return restored
        except DamagedError as error:
            if _is_gone(found):
                raise _GoneError from error
            reading.distrust(found.path)
            # Without its traceback, which would keep what was read alive.
            damaged.append(error.with_traceback(None))
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
    selection, current = reading.selection, reading.current
    options = reading.options(found.path)
    save = Save(found, options, restored.notes, current)
    components = save.components(save.keys() if reading.keys is None else reading.keys)
    with _closing(components):
        if reading.folders is not None:
            _refuse_other_kinds(components, reading.folders, found.path)
        some, whole = _divide(components, selection, reading.templates, found.path)
        if current is None and not reading.templates and some:
            _read_only(some, selection, restored)
        elif some:
            flats = [_flat(x, current, reading.templates) for x in some]
            _read_some(some, flats, selection, restored, reading.dry_run)
        _read_whole(whole, restored)


def _divide(
    components: Sequence[Stored],
    selection: Selection,
    templates: Collection[str],
    path: Path,
) -> tuple[list[Selectable], list[Stored]]:
    """Tell those that are compared with the current state from those read whole."""
    if not selection.is_whole:
        return _selectable(components, path), []
    some = [component for component in components if component.key in templates]
    return _selectable(some, path), [x for x in components if x.key not in templates]


def _tell_of_dicts(plain: Mapping[str, str]) -> None:
    for name, path in itertools.islice(plain.items(), _MOST_WARNINGS):
        _logger.warning("%s comes back as a dict: %s was not found.", name, path)
    more = len(plain) - _MOST_WARNINGS
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
    components: Sequence[Stored], folders: Collection[str], path: Path
) -> None:
    for component in components:
        key, is_folder = component.key, isinstance(component, FolderReader)
        if is_folder and key not in folders:
            raise MismatchError(
                f"{key!r} in {path} is a folder of files, and what loads it takes a "
                f"state. Use elementsckpt.Files(load=function), or leave it out with "
                f"keys=[...]; nothing was loaded."
            )
        if key in folders and not is_folder:
            raise MismatchError(
                f"{key!r} in {path} is a state, and what loads it is a Files, which "
                f"takes a folder. Use what it was saved with, or leave it out with "
                f"keys=[...]; nothing was loaded."
            )


def _read_whole(components: Sequence[Stored], restored: Restored) -> None:
    require_memory(sum(x.held_bytes for x in components), restored.found.path)
    for component in components:  # What is open can be read when it is removed.
        component.open()
    for component in components:
        if isinstance(component, FolderReader):
            _read_folder(component, restored)
            continue
        if component.streams:
            component.verify()
            restored.streams[component.key] = component
            restored.states[component.key] = component.shards()
        else:
            restored.states[component.key] = component.state()
        restored.loaded += _full(component.key, component.contents())


def _read_folder(folder: FolderReader, restored: Restored) -> None:
    folder.verify()
    restored.states[folder.key] = folder.path
    restored.folders[folder.key] = folder
    restored.loaded += _full(folder.key, folder.names)
    restored.notes.bytes_read += folder.size_bytes


def _selectable(components: Sequence[Stored], path: Path) -> list[Selectable]:
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
        raise _not_selectable(where, [component.key for component in chosen])
    return chosen


_IN_SHARDS = "in shards by a generator"


def _not_selectable(what: str, others: Sequence[str] = ()) -> MismatchError:
    keys = f"keys=[{', '.join(map(repr, others)) or '...'}]"
    return MismatchError(
        f"{what}, so its leaves have no names to select or compare them by. Leave it "
        f"out with {keys}; nothing was loaded."
    )


def _read_only(
    components: Sequence[Selectable], selection: Selection, restored: Restored
) -> None:
    for component in components:
        numbers = {n: x for x, n in component.names() if selection.matches(x)}
        if numbers:
            restored.states[component.key] = component.some(numbers)
            restored.loaded += _full(component.key, numbers.values())
    if not restored.loaded:
        raise _nothing_matched(components, selection, restored)


def _read_some(
    components: Sequence[Selectable],
    flats: Sequence[tree.Flat],
    selection: Selection,
    restored: Restored,
    dry_run: bool,
) -> None:
    pairs = zip(components, flats, strict=True)
    plans = [_plan(component, flat, selection) for component, flat in pairs]
    for component, plan in zip(components, plans, strict=True):
        _note(component.key, plan, restored)
    found = restored.loaded or restored.mismatched
    if not found and (selection.regex is not None or selection.rename):
        raise _nothing_matched(components, selection, restored)
    if not dry_run:
        _refuse_mismatch(selection, restored)
    for component, plan in zip(components, plans, strict=True):
        if plan.replace:
            values = component.values(source for _, source in plan.replace)
            restored.states[component.key] = _apply(component.key, plan, values)


def _apply(key: str, plan: Plan, values: Mapping[int, Any]) -> Any:
    try:
        return overlay.apply(plan, values)
    except CheckpointError:
        raise
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise MismatchError(
            f"The leaves of {key!r} that are selected make no state with those that "
            f"are not: {reason(error)}. Select more or fewer of them with another "
            f"regex; nothing was loaded."
        ) from error


def _flat(
    component: Selectable,
    current: Callable[[str], Any] | None,
    templates: Mapping[str, Callable[[], tree.Flat]],
) -> tree.Flat:
    """Return the current state of a component, taken apart."""
    key = component.key
    if key in templates:
        return templates[key]()
    assert current is not None
    state = current(key)
    if inspect.isgenerator(state):
        state.close()
        raise _not_selectable(f"{key!r} is saved {_IN_SHARDS}")
    return tree.flatten(state, key, aliases=False)


def _plan(component: Selectable, flat: tree.Flat, selection: Selection) -> Plan:
    plan = overlay.plan(flat, component.specs(), selection, component.key)
    if plan.undecided:
        values = component.values(number for _, number, _ in plan.undecided)
        overlay.decide(plan, values)
    return plan


def _note(key: str, plan: Plan, restored: Restored) -> None:
    restored.loaded += _full(key, plan.loaded)
    restored.missing += _full(key, plan.missing)
    restored.unexpected += _full(key, plan.unexpected)
    restored.castable = restored.castable or plan.castable
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
        a part of the save.
      CheckpointError: as for `restore`.
      Exception: what a component's own `load()` raises, with a note of its key.
    """
    restored = restore(find, reading)
    try:
        for key, load in {} if reading.dry_run else loadfns.items():
            if key in restored.states:  # Else nothing in it was selected.
                _hand_over(key, load, restored)
                restored.streams.pop(key, None)
    except BaseException:
        restored.close()
        raise
    return restored


def _hand_over(key: str, load: Callable[[Any], Any], restored: Restored) -> None:
    try:
        load(restored.states[key])
        if key in restored.folders:
            restored.folders[key].check()
    except Exception as error:
        path = restored.found.path
        add_note(error, f"Raised while loading the component {key!r} from {path}.")
        raise


def _full(key: str, names: Iterable[str]) -> list[str]:
    return [f"{key}/{name}" if name else key for name in names]


def _nothing_matched(
    components: Sequence[Selectable], selection: Selection, restored: Restored
) -> MismatchError:
    path = restored.found.path
    if restored.unexpected:  # The pattern matched, but nothing that is here now.
        some = ", ".join(restored.unexpected[:5])
        return MismatchError(
            f"No matched leaf of {path} is in the current state: {some}. "
            f"{_rename_hint(selection)}; nothing was loaded."
        )
    names = [name for component in components for name, _ in component.names()]
    near = ", ".join(map(repr, overlay.nearest(selection.regex or "", names)))
    return MismatchError(
        f"regex={selection.regex!r} matches no leaf of {path}. The nearest names are "
        f"{near}. Correct the pattern, which must match from the start of a name, "
        f"without the key; nothing was loaded."
    )


def _rename_hint(selection: Selection) -> str:
    if selection.rename:
        names = dict(selection.rename)
        return f"Correct rename={names}, which does not make these names fit"
    return "Map their names with rename={pattern: replacement}"


def _refuse_mismatch(selection: Selection, restored: Restored) -> None:
    """Raise one error with everything that does not fit."""
    overlay.refuse(
        str(restored.found.path),
        restored.mismatched,
        restored.missing if selection.strict else (),
        restored.unexpected if selection.strict else (),
        _remedies(selection, restored),
    )


def _remedies(selection: Selection, restored: Restored) -> str:
    if selection.is_whole:
        return (
            "Load into a value like the one that was saved, which elementsckpt.read "
            "shows, or load a part of it: Checkpoint.load takes regex=, rename=, "
            "cast=True and strict=False."
        )
    remedies = ["Leave leaves out with a regex such as '(?!.*head)'"]
    if restored.castable:
        remedies.append("convert dtypes, never shapes, with cast=True")
    if selection.strict and (restored.missing or restored.unexpected):
        remedies.append("map names with rename=")
        remedies.append("load what only both have with strict=False")
    return f"{', or '.join(remedies)}."

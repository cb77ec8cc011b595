"""Finds the save that is meant: by path, step or name, the newest or the best."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, SaveNotFoundError
from ..foreign import elements
from ..format import manifest, names, scalars
from ..storage import paths, places
from ..user import hints
from ..user.arguments import AnyPath, integer, is_integer, local, shown
from ..user.notices import Notices
from . import addresses, choice
from .entries import SaveEntry, read_entry
from .listing import Directory
from .retention import Keep

_logger = logging.getLogger("elementsckpt")
_notices = Notices()


def find(
    path: Path, directory: Directory | None = None, *, to_load: bool = False
) -> list[SaveEntry]:
    """Return the save at a path, or those of a directory, newest first.

    Args:
      path: A save folder or a directory.
      directory: The object for this directory, if the caller has one.
      to_load: As for `read_entry`, for a save folder.

    Raises:
      SaveNotFoundError: there is no save.
    """
    own = directory is not None and directory.path == path
    meant = None if own else addresses.find(path)
    if meant is not None:
        return [meant]
    here = None if own else _save_at(path, to_load=to_load)
    # A save given by path is never replaced by another, not even by one inside it.
    if here is not None and _is_written_by_us(here):
        return [here]
    root = directory if own and directory is not None else Directory(path)
    try:
        saves = root.saves()[::-1]
    except CheckpointError:
        if here is None:
            raise
        saves = []
    if not saves and here is not None:  # Stray files do not hide the saves beside them.
        return [here]
    if not saves:
        raise SaveNotFoundError(
            f"There is no save in {path}: {paths.describe(path)}. Check the path, or "
            f"make a save there first."
        )
    return saves


def newest(path: Path) -> SaveEntry:
    """Return the save at a path, of a directory the newest that is not damaged.

    A warning says if there is a newer one, which is damaged.

    Raises:
      SaveNotFoundError: there is no save.
      DamagedError: all are damaged.
      VersionError, ReadError: the newest undamaged save cannot be read.
    """
    saves = find(path)
    found = choice.newest(saves)
    if found is not saves[0]:
        _notices.warn(
            saves[0].path,
            "%s is damaged, so an older save is taken: %s.",
            saves[0].path,
            found.path,
        )
    return found


def required(directory: Directory) -> list[SaveEntry]:
    """Return the saves of a directory, oldest first, damaged ones included.

    Raises:
      SaveNotFoundError: there is none.
      ValueError: the path is that of a save, or an address.
    """
    found = directory.saves()
    if not found:
        place = directory.path
        require_no_save(place)
        raise SaveNotFoundError(
            f"There is no save in {place}: {paths.describe(place)}. Check the path."
        )
    return found


def require_no_save(path: Path) -> None:
    """Refuse a save, where the directory of a run is asked for.

    Raises:
      SaveNotFoundError: the path is an address of no save.
      ValueError: it is a save, or the address of one.
    """
    meant = addresses.find(path) or _save_at(path)
    if meant is not None:
        raise ValueError(
            f"{path} is a save: pass the directory that it is in, {meant.path.parent}. "
            f"To see what the save holds, call leaves(), or elementsckpt tree."
        )


def has_saves(path: Path) -> bool:
    """Return whether there is a save at a path, or in it, even a damaged one."""
    try:
        if addresses.find(path) is not None:
            return True
    except SaveNotFoundError:
        return False
    here = _save_at(path)
    if here is not None and _is_written_by_us(here):
        return True
    try:
        return Directory(path).has_saves() or here is not None
    except CheckpointError:
        if here is None:
            raise
        return True


def _is_written_by_us(here: SaveEntry) -> bool:
    return here.head is not None or (here.error is not None and here.is_ours)


NAMES = ("latest", "best")


def checked_pin(pin: Any, target: Path | None) -> str | None:
    """Return the name under which a new save is pinned, or None.

    Args:
      pin: The argument of `Checkpoint.save`.
      target: Folder of the save if it is not in a directory.

    Raises:
      ValueError: it is not a valid name, or the save is not in a directory.
    """
    if pin is None:
        return None
    if target is not None:
        raise ValueError("A save to a path of its own is never pruned: leave pin= out.")
    if not isinstance(pin, str) or not pin or "/" in pin or pin in NAMES:
        raise ValueError(
            f"pin={shown(pin)}: pass a name without slashes, other than 'latest' and "
            f"'best'."
        )
    return manifest.escape(pin)


def named(
    directory: Directory, path: AnyPath | None, step: int | None, keep: Keep
) -> list[SaveEntry]:
    """Return the saves that a step, a name or a path means, newest first.

    Args:
      directory: Where to look up names and steps.
      path: One of `NAMES`, the name of a pin, or a path.
      step: A step, if there is no path.
      keep: How to rank saves.

    Raises:
      SaveNotFoundError: there is no such save.
      ValueError: an argument is not valid, or both are given.
    """
    if is_integer(path):
        raise ValueError(
            f"{path} is not a path: pass text or a pathlib.Path. A step is passed "
            f"by name, to load(step={path}), copy_of() or delete()."
        )
    if path is not None and step is not None:
        raise ValueError("Pass either the path or the step, not both.")
    if path is None:
        return choice.with_step(directory, integer("step", step))
    name = path if isinstance(path, str) and _may_be_pin(path) else None
    if name == "best":
        return [_required_best(directory, keep)]
    found = [] if name is None else choice.pinned(directory, name)
    if found:
        return found
    try:
        place = directory.path if name == "latest" else local(path)
        return find(place, directory, to_load=True)
    except SaveNotFoundError as error:
        if name is None:
            raise
        saves = directory.saves()
        pins = sorted({x.head.pin for x in saves if x.head and x.head.pin})
        names = [*(NAMES if saves else ()), *pins, *(x.path.name for x in saves)]
        if not names:
            raise
        near = ", ".join(map(repr, hints.nearest(name, names)))
        raise SaveNotFoundError(
            f"No save in {directory.path} has the name or the pin {name!r}; near it "
            f"are {near}. {error}"
        ) from error


def _may_be_pin(text: str) -> bool:
    """Return whether to look among the pins, which takes reading all manifests."""
    return "/" not in text and not names.is_save(text)


def _required_best(directory: Directory, keep: Keep) -> SaveEntry:
    found = choice.best(directory, keep)
    if found is None:
        raise SaveNotFoundError(
            f"No save in {directory.path} has a finite metric to be the best by. Load "
            f"the newest with load(), or give metrics= to save()."
        )
    return found


def with_keys(directory: Directory, keys: Iterable[str]) -> list[SaveEntry]:
    """Return the saves that have all of these keys, newest first, or else all saves.

    So a newest save of only some components does not keep a run from resuming.

    Raises:
      SaveNotFoundError: there is no save.
    """
    saves = find(directory.path, directory)
    wanted = {manifest.key_id(scalars.encode(key)) for key in keys}
    chosen = [x for x in saves if x.head is None or wanted <= x.head.marks()]
    if chosen and chosen[0] is not saves[0]:
        lacking = "%s lacks some of the components, so an older save is loaded."
        _logger.warning(lacking, saves[0].path)
    return chosen or saves


def deletable(
    directory: Directory, path: AnyPath | None, step: int | None, keep: Keep
) -> list[SaveEntry]:
    """Return the saves to delete; the arguments are those of `named`.

    Raises:
      SaveNotFoundError: there is no such save.
      ValueError: it was not written here, or it is the only complete save.
    """
    if (path is None) == (step is None):
        raise ValueError("Pass either the path or the step of what to delete.")
    found = named(directory, path, step, keep)
    if path is not None:
        is_name = isinstance(path, str) and path in NAMES
        if not is_name and paths.real(local(path)) == paths.real(directory.path):
            raise ValueError(f"{path} is a directory of saves: name the one to delete.")
        found = found[:1]
    here = directory.saves()
    chosen = [
        save
        for save in here
        if save.is_removable
        and any(paths.real(save.path) == paths.real(x.path) for x in found)
    ]
    if not chosen:
        raise ValueError(
            f"{found[0].path} was not written as one of the saves in {directory.path}, "
            f"so it is not removed. Remove the folder yourself."
        )
    good = [save for save in reversed(here) if save.error is None]
    lost = [save for save in good if save in chosen and directory.is_whole(save)]
    left = (save for save in good if save not in chosen)
    if lost and not any(map(directory.is_whole, left)):
        raise ValueError(
            f"{lost[0].path} is the only complete save, so it is not removed. Make "
            f"another one first, or remove the folder yourself."
        )
    return chosen


def _save_at(path: Path, *, to_load: bool = False) -> SaveEntry | None:
    source = places.open_source(path)
    found = read_entry(source, to_load=to_load)
    if found is None and elements.is_save(source):
        return SaveEntry(source)
    return found

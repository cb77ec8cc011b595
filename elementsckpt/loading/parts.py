"""What is read of each component: all of it, or some of its leaves, and which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..components.targets import Target
from ..errors import PickleError
from ..storage.fileview import FolderReader
from . import patterns, refusals
from .loaded import Loaded
from .open_save import AnyComponent, Selectable
from .request import Request


class Parts(NamedTuple):
    """Components by how they are read.

    Attributes:
      whole: Those whose state is replaced.
      into: Those whose leaves go into their current state.
      alone: Those of which leaves are returned by themselves.
    """

    whole: list[AnyComponent]
    into: list[Selectable]
    alone: list[Selectable]


def divide(
    components: Sequence[AnyComponent], targets: Mapping[str, Target], loaded: Loaded
) -> Parts:
    """Decide how each component is read, and which of its leaves.

    Args:
      components: Those of the save.
      targets: What loads them.
      loaded: What was asked for; gets what is selected.

    Raises:
      MismatchError: what a component is in the save cannot be loaded so.
      PickleError: it needs pickle, and that is not allowed.
    """
    _refuse_other_kinds(components, targets, loaded)
    rebuilt = [x for x in components if targets[x.key].is_rebuilt]
    _selectable(rebuilt, loaded)
    parts = Parts([], [], [])
    some: list[AnyComponent] = []
    for component in components:
        is_whole = _is_whole(component, targets[component.key], loaded.request)
        (parts.whole if is_whole else some).append(component)
    for chosen in _selectable(some, loaded):
        target = targets[chosen.key]
        if target.template is not None or target.state is not None:
            parts.into.append(chosen)
        elif _is_admitted(chosen, loaded):
            parts.alone.append(chosen)
    _select(components, parts, targets, loaded)
    return parts


def _refuse_other_kinds(
    components: Sequence[AnyComponent], targets: Mapping[str, Target], loaded: Loaded
) -> None:
    """Refuse folders where states are loaded, and the other way round."""
    where = loaded.found.path, loaded.request.verb
    for component in components:
        key, target = component.key, targets[component.key]
        is_folder = isinstance(component, FolderReader)
        if target.load is not None and is_folder and not target.takes_folder:
            raise refusals.folder_for_state(key, *where)
        if target.takes_folder and not is_folder:
            raise refusals.state_for_folder(key, *where)


def _is_whole(component: AnyComponent, target: Target, request: Request) -> bool:
    key = component.key
    if target.template is not None:
        return False
    if target.is_rebuilt:  # Of nothing there is no part.
        return not request.selects(key)
    # Without names there is nothing to be strict about, and nothing to cast.
    is_named = request.is_by_name(key) or _has_names(component)
    return request.is_whole(key) or not is_named


def _has_names(component: AnyComponent) -> bool:
    return not isinstance(component, FolderReader) and not component.streams


def _selectable(components: Sequence[AnyComponent], loaded: Loaded) -> list[Selectable]:
    """Return the components; each must have leaves that can be selected."""
    chosen: list[Selectable] = []
    other: AnyComponent | None = None
    for component in components:
        if isinstance(component, FolderReader) or component.streams:
            other = other or component
        else:
            chosen.append(component)
    if other is not None:
        how = "as files" if isinstance(other, FolderReader) else refusals.IN_SHARDS
        what = f"{other.key!r} in {loaded.found.path} was saved {how}"
        others = [component.key for component in chosen]
        raise refusals.without_names(what, loaded.request.verb, others)
    return chosen


def _is_admitted(component: Selectable, loaded: Loaded) -> bool:
    """Return whether it is read: the whole may be one pickle, as elements writes it."""
    if not loaded.request.leaves_out:
        return True
    try:
        component.names()
    except PickleError:
        loaded.notes.left_out[component.key] = None
        return False
    return True


def _select(
    components: Sequence[AnyComponent],
    parts: Parts,
    targets: Mapping[str, Target],
    loaded: Loaded,
) -> None:
    """Decide which leaves are selected, reading names only if they count."""
    some = [*parts.into, *parts.alone]
    is_by_name = bool(patterns.groups(loaded.request, [x.key for x in some]))
    names = {x.key: [name for name, _ in x.names()] if is_by_name else [] for x in some}
    loaded.selections = patterns.selections(loaded.request, names)
    is_rebuilt = any(target.is_rebuilt for target in targets.values())
    loaded.is_named = all(map(_has_names, components)) and not is_rebuilt

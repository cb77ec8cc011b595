"""How each component is read: as a whole, or some of its leaves, and which ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeGuard

from ..components.component import Target
from ..errors import PickleError
from ..storage.file_view import FolderReader
from . import patterns, refusals
from .loaded import Loaded
from .open_save import AnyComponent, Selectable
from .request import Request


class Parts(NamedTuple):
    """Components by how they are read.

    Attributes:
      whole: Components whose state is replaced.
      into: Components whose leaves are put into the current state.
      alone: Components whose selected leaves are returned by themselves.
    """

    whole: list[AnyComponent]
    into: list[Selectable]
    alone: list[Selectable]


def divide(components: Sequence[AnyComponent], loaded: Loaded) -> Parts:
    """Decide how each component is read, and which of its leaves.

    Args:
      components: Components of the save.
      loaded: Has the request and the targets, and gets the selections.

    Raises:
      MismatchError: the target cannot load this kind of component.
      PickleError: the component needs pickle, which is not allowed.
    """
    targets = loaded.targets
    for component in components:
        target, is_folder = targets[component.key], isinstance(component, FolderReader)
        if target.load is not None and target.takes_folder != is_folder:
            raise refusals.other_kind(component.key, loaded, is_folder=is_folder)
    _selectable([x for x in components if targets[x.key].is_rebuilt], loaded)
    whole = [x for x in components if _is_whole(x, targets[x.key], loaded.request)]
    keys = {component.key for component in whole}
    some = _selectable([x for x in components if x.key not in keys], loaded)
    into = [x for x in some if _has_current(targets[x.key])]
    others = [x for x in some if not _has_current(targets[x.key])]
    alone = [x for x in others if _is_admitted(x, loaded)]
    _select(components, [*into, *alone], loaded)
    return Parts(whole, into, alone)


def _has_current(target: Target) -> bool:
    return target.template is not None or target.state is not None


def _is_whole(component: AnyComponent, target: Target, request: Request) -> bool:
    key = component.key
    if target.template is not None:
        return False
    if target.is_rebuilt:  # There is no current value to load leaves into.
        return not request.selects(key)
    # Without names, there are no leaves to compare or to cast.
    is_named = request.is_by_name(key) or _has_names(component)
    return request.is_whole(key) or not is_named


def _has_names(component: AnyComponent) -> TypeGuard[Selectable]:
    return not isinstance(component, FolderReader) and not component.streams


def _selectable(components: Sequence[AnyComponent], loaded: Loaded) -> list[Selectable]:
    """Return the components; each must have leaves that can be selected."""
    chosen = [x for x in components if _has_names(x)]
    for other in (x for x in components if not _has_names(x)):
        how = "as files" if isinstance(other, FolderReader) else refusals.IN_SHARDS
        what = f"{other.key!r} in {loaded.found.path} was saved {how}"
        others = [component.key for component in chosen]
        raise refusals.without_names(what, loaded.request.verb, others)
    return chosen


def _is_admitted(component: Selectable, loaded: Loaded) -> bool:
    """Return whether to read it: as elements writes it, all may be one pickle."""
    if not loaded.request.leaves_out:
        return True
    try:
        component.names()
    except PickleError:
        loaded.notes.left_out[component.key] = None
        return False
    return True


def _select(
    components: Sequence[AnyComponent], some: Sequence[Selectable], loaded: Loaded
) -> None:
    """Decide which leaves of some components are selected.

    Their names are read only if patterns need them.
    """
    is_by_name = any(loaded.request.is_by_name(x.key) for x in some)
    names = {x.key: [name for name, _ in x.names()] if is_by_name else [] for x in some}
    loaded.selections = patterns.selections(loaded.request, names)
    is_rebuilt = any(target.is_rebuilt for target in loaded.targets.values())
    loaded.is_named = all(map(_has_names, components)) and not is_rebuilt

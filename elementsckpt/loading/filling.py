"""What a plan says is loaded, read and put into the current state."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from ..directory.listing import SaveEntry
from ..errors import CheckpointError
from ..state import growth, replacing, unflattening, wholes
from ..state.matching import Plan
from ..state.replacing import Whole
from . import refusals
from .open_save import Selectable

_FIRST_TO_TELL = 2  # Of the versions of the format: it has attributes.
_logger = logging.getLogger("elementsckpt")


def fill(
    component: Selectable,
    plan: Plan,
    found: SaveEntry,
    *,
    is_part: bool,
) -> Any:
    """Return the current state with what is planned replaced, and added.

    Args:
      component: What is read.
      plan: What to replace and to add.
      found: The save.
      is_part: Whether leaves were asked for by their names.

    Returns:
      The state; `unflattening.LEFT_OUT` if all of it stays.

    Raises:
      MismatchError: what is loaded makes no state with what is not.
      DamagedError, ReadError, PickleError: it cannot be read.
    """
    places, others = _whole(component, plan, found, is_part=is_part)
    if not (plan.replace or plan.added or others):
        return unflattening.LEFT_OUT
    added = {place.number for place in plan.added if place.number >= 0}
    names = [*others.values(), *(x for place in plan.added for x in place.others)]
    held = {number for attributes in names for number in attributes.values()}
    barred = component.barred(held)
    _tell_of_barred(barred.values(), found)
    values = component.values(
        [*added, *(number for _, number in plan.replace)],
        {*plan.as_saved, *added, *(held - barred.keys())},
    )
    known = {x: _known(plan, x, numbers, values) for x, numbers in others.items()}
    state = _apply(component, plan, values, Whole(places, known))
    return growth.grow(state, plan.added, values) if plan.added else state


def _whole(
    component: Selectable,
    plan: Plan,
    found: SaveEntry,
    *,
    is_part: bool,
) -> tuple[Mapping[int, int], Mapping[int, Mapping[str, int]]]:
    """Return the containers that are loaded whole, and the attributes of some."""
    if component.is_plain and not wholes.have_attributes(plan.flat):
        return {}, {}  # Mostly, so at once.
    saved = component.structure()
    places = wholes.find(plan, saved, is_part=is_part)
    is_told = found.head is not None and found.head.version >= _FIRST_TO_TELL
    return places, wholes.attributes(plan, places, saved, is_told=is_told)


def _tell_of_barred(names: Iterable[str], found: SaveEntry) -> None:
    for name in names:
        _logger.warning(
            "%s was saved with pickle, so what has it now stays. Pass "
            "allow_pickle=True if you trust who wrote %s.",
            name,
            found.path,
        )


def _known(
    plan: Plan, number: int, names: Mapping[str, int], values: Mapping[int, Any]
) -> dict[str, Any]:
    """Return the saved attributes of a container; those not read stay as they are."""
    now = plan.flat.others(~number) or {}
    known = {name: values.get(x, now.get(name, _NOTHING)) for name, x in names.items()}
    return {name: value for name, value in known.items() if value is not _NOTHING}


_NOTHING: Any = object()


def _apply(
    component: Selectable,
    plan: Plan,
    values: Mapping[int, Any],
    whole: Whole,
) -> Any:
    try:
        return replacing.apply(plan, values, component.key, component.shared(), whole)
    except CheckpointError:
        raise
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise refusals.no_state(component.key, error) from error

"""What a plan says is loaded, read and put into the current state."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from . import growth, overlay, tree, wholes
from .errors import CheckpointError, MismatchError, reason
from .folder import Found
from .overlay import Plan, Whole
from .stored import ElementsComponent, SavedComponent

_FIRST_TO_TELL = 2  # Of the versions of the format: it has attributes.
_logger = logging.getLogger("elementsckpt")


def fill(
    component: SavedComponent | ElementsComponent,
    plan: Plan,
    found: Found,
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
      The state; `tree.LEFT_OUT` if all of it stays.

    Raises:
      MismatchError: what is loaded makes no state with what is not.
      DamagedError, ReadError, PickleError: it cannot be read.
    """
    places: Mapping[int, int] = {}
    others: Mapping[int, Mapping[str, int]] = {}
    if not component.is_plain or wholes.have_attributes(plan.flat):
        saved = component.structure()
        places = wholes.find(plan, saved, is_part=is_part)
        is_told = found.head is not None and found.head.version >= _FIRST_TO_TELL
        others = wholes.attributes(plan, places, saved, is_told=is_told)
    added = {place.number for place in plan.added if place.number >= 0}
    if not (plan.replace or plan.added or others):
        return tree.LEFT_OUT
    all_names = [*others.values(), *(x for place in plan.added for x in place.others)]
    held = {number for names in all_names for number in names.values()}
    barred = component.barred(held)
    values = component.values(
        [*added, *(number for _, number in plan.replace)],
        {*plan.as_saved, *added, *(held - barred.keys())},
    )
    for name in barred.values():
        _logger.warning(
            "%s was saved with pickle, so what has it now stays. Pass "
            "allow_pickle=True if you trust who wrote %s.",
            name,
            found.path,
        )
    known = {x: _known(plan, x, names, values) for x, names in others.items()}
    state = _apply(component, plan, values, Whole(places, known))
    return growth.grow(state, plan.added, values) if plan.added else state


def _known(
    plan: Plan, number: int, names: Mapping[str, int], values: Mapping[int, Any]
) -> dict[str, Any]:
    """Return the saved attributes of a container; those not read stay as they are."""
    now = plan.flat.others(~number) or {}
    known = {name: values.get(x, now.get(name, _NOTHING)) for name, x in names.items()}
    return {name: value for name, value in known.items() if value is not _NOTHING}


_NOTHING: Any = object()


def _apply(
    component: SavedComponent | ElementsComponent,
    plan: Plan,
    values: Mapping[int, Any],
    whole: Whole,
) -> Any:
    try:
        return overlay.apply(plan, values, component.key, component.shared(), whole)
    except CheckpointError:
        raise
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise MismatchError(
            f"The leaves of {component.key!r} that are selected make no state with "
            f"those that are not: {reason(error)}. Select more or fewer of them with "
            f"another regex; nothing was loaded."
        ) from error

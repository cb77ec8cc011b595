"""Loads leaves into current states: selects, compares, and puts them there.

All components are compared before one is filled.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import CheckpointError, naming
from ..state import (
    flattening,
    matching,
    new_leaves,
    replacing,
    saved_tree,
    unflattening,
)
from ..state.matching import Plan
from . import patterns, refusals, remedies
from .component import SavedComponent
from .loaded import Loaded, full_names
from .open_save import Selectable

_FIRST_TO_TELL = 2  # Of the versions of the format: it has attributes.
_logger = logging.getLogger("elementsckpt")


def compare(components: Sequence[Selectable], loaded: Loaded) -> None:
    """Compare components with their current states, and plan what to replace.

    Args:
      components: Components of the save.
      loaded: Has the selections and the targets, and gets the plans.

    Raises:
      MismatchError: a selected leaf does not fit, or no leaf is selected.
    """
    for component in components:
        plan = _plan(component, _current(component.key, loaded), loaded)
        loaded.plans[component.key] = plan
        _note(component.key, plan, loaded)
    chosen = {x for x, plan in loaded.plans.items() if plan.loaded or plan.problems}
    refuse_unselected(components, chosen, loaded)
    if not loaded.request.dry_run:
        refusals.refuse_misfits(loaded)
    remedies.warn_of_unused(loaded)


def refuse_unselected(
    components: Sequence[Selectable], chosen: set[str], loaded: Loaded
) -> None:
    """Refuse a load whose patterns select no leaf in a group of components.

    Args:
      components: Components of the save.
      chosen: Keys of components in which something is selected.
      loaded: Has the request.
    """
    by_key = {component.key: component for component in components}
    for group in patterns.groups(loaded.request, by_key):
        if chosen.isdisjoint(group):
            names = {key: [name for name, _ in by_key[key].names()] for key in group}
            refusals.refuse_nothing(loaded, names)


def _current(key: str, loaded: Loaded) -> flattening.Flat:
    """Return the current state of a component, flattened."""
    target = loaded.targets[key]
    with naming(key), loaded.notes.phases("current"):
        if target.template is not None:
            return target.template()
        assert target.state is not None
        state = target.state()
    if inspect.isgenerator(state):
        state.close()
        what = f"{key!r} is saved {refusals.IN_SHARDS}"
        raise refusals.without_names(what, loaded.request.verb)
    return flattening.flatten(state, key, by_name=True)


def _plan(component: Selectable, flat: flattening.Flat, loaded: Loaded) -> Plan:
    key, target = component.key, loaded.targets[component.key]
    selection = loaded.selections[key]
    plan = matching.plan(flat, component.specs(), selection, key, component.keys)
    if plan.undecided:
        values = component.values(number for _, number, *_ in plan.undecided)
        matching.decide(plan, values)
    if plan.left and target.grows and isinstance(component, SavedComponent):
        places = component.places()
        new_leaves.find(plan, places, selection, is_complete=target.is_complete)
    return plan


def _note(key: str, plan: Plan, loaded: Loaded) -> None:
    loaded.loaded += full_names(key, plan.loaded)
    loaded.missing += full_names(key, plan.missing)
    loaded.unexpected += full_names(key, plan.unexpected)
    for name in plan.kept:
        _logger.warning(
            "%s is not in %s: its current value, to which code is bound, is kept.",
            saved_tree.full_name(key, name),
            loaded.found.path,
        )
    for name, problem in plan.problems.items():
        loaded.mismatched[saved_tree.full_name(key, name)] = problem
    for old, new in plan.renamed.items():
        loaded.renamed[saved_tree.full_name(key, old)] = saved_tree.full_name(key, new)


def fill(component: Selectable, loaded: Loaded) -> Any:
    """Return the current state with the planned leaves replaced and added.

    Returns:
      The state; `unflattening.LEFT_OUT` if all of it stays.

    Raises:
      MismatchError: loaded and current leaves together do not make a valid state.
      DamagedError, ReadError, PickleError: the leaves cannot be read.
    """
    plan = loaded.plans[component.key]
    places, others = _whole(component, plan, loaded)
    if not (plan.replace or plan.added or others):
        return unflattening.LEFT_OUT
    added = {place.number for place in plan.added if place.number >= 0}
    names = [*others.values(), *(x for place in plan.added for x in place.others)]
    held = {number for attributes in names for number in attributes.values()}
    barred = component.barred(held)
    _warn_of_barred(barred.values(), loaded)
    values = component.values(
        [*added, *(number for _, number in plan.replace)],
        {*plan.as_saved, *added, *(held - barred.keys())},
    )
    known = {x: _known(plan, x, numbers, values) for x, numbers in others.items()}
    key, shared = component.key, component.shared()
    try:
        state = replacing.apply(plan, values, key, shared, places=places, others=known)
    except CheckpointError:
        raise
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise refusals.no_state(component.key, error) from error
    return new_leaves.grow(state, plan.added, values) if plan.added else state


def _whole(
    component: Selectable, plan: Plan, loaded: Loaded
) -> tuple[Mapping[int, int], Mapping[int, Mapping[str, int]]]:
    """Return the containers that are loaded whole, and the attributes of some."""
    if component.is_plain and not replacing.have_attributes(plan.flat):
        return {}, {}  # The most frequent case.
    saved, found = component.structure(), loaded.found
    is_part = loaded.request.selects(component.key)
    places = replacing.find_whole(plan, saved, is_part=is_part)
    is_told = found.head is not None and found.head.version >= _FIRST_TO_TELL
    return places, replacing.attributes_of_whole(plan, places, saved, is_told=is_told)


def _warn_of_barred(names: Iterable[str], loaded: Loaded) -> None:
    for name in names:
        _logger.warning(
            "%s was saved with pickle, so its current value is kept. Pass "
            "allow_pickle=True if you trust who wrote %s.",
            name,
            loaded.found.path,
        )


def _known(
    plan: Plan, number: int, names: Mapping[str, int], values: Mapping[int, Any]
) -> dict[str, Any]:
    """Return attributes of a container; those that were not read keep their values."""
    now = plan.flat.others(~number) or {}
    return {
        name: values[x] if x in values else now[name]
        for name, x in names.items()
        if x in values or name in now
    }

"""Leaves that go into current states: which these are, and whether all of them fit."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence

from ..components.targets import Target
from ..errors import naming
from ..state import flattening, growth, matching, tree
from ..state.matching import Plan
from . import patterns, refusals, remedies
from .component import SavedComponent
from .loaded import Loaded, full_names
from .open_save import Selectable

_logger = logging.getLogger("elementsckpt")


def compare(
    components: Sequence[Selectable], targets: Mapping[str, Target], loaded: Loaded
) -> None:
    """Plan what loading into the current states of components comes to.

    Args:
      components: Those of the save.
      targets: What loads them.
      loaded: What is selected; gets the plans.

    Raises:
      MismatchError: what is selected does not fit, or there is nothing of it.
    """
    for component in components:
        key = component.key
        flat = _current(key, targets[key], loaded)
        loaded.plans[key] = _plan(component, flat, targets[key], loaded)
        _note(key, loaded.plans[key], loaded)
    chosen = {x for x, plan in loaded.plans.items() if plan.loaded or plan.problems}
    refuse_unselected(components, chosen, loaded)
    if not loaded.request.dry_run:
        refusals.refuse_misfits(loaded)
    remedies.warn_of_unused(loaded)


def refuse_unselected(
    components: Sequence[Selectable], chosen: set[str], loaded: Loaded
) -> None:
    """Refuse to load nothing of components of which something was asked for.

    Args:
      components: Those of the save.
      chosen: Keys of those in which something is selected.
      loaded: What was asked for.
    """
    by_key = {component.key: component for component in components}
    for group in patterns.groups(loaded.request, by_key):
        if chosen.isdisjoint(group):
            names = {key: [name for name, _ in by_key[key].names()] for key in group}
            error = refusals.nothing_selected(loaded, names)
            if error is not None:
                raise error


def _current(key: str, target: Target, loaded: Loaded) -> flattening.Flat:
    """Return the current state of a component, taken apart."""
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


def _plan(
    component: Selectable, flat: flattening.Flat, target: Target, loaded: Loaded
) -> Plan:
    key, selection = component.key, loaded.selections[component.key]
    plan = matching.plan(flat, component.specs(), selection, key)
    if plan.undecided:
        values = component.values(number for _, number, *_ in plan.undecided)
        matching.decide(plan, values)
    if plan.left and target.grows and isinstance(component, SavedComponent):
        places = component.places()
        growth.find(plan, places, selection, is_complete=target.is_complete)
    return plan


def _note(key: str, plan: Plan, loaded: Loaded) -> None:
    loaded.loaded += full_names(key, plan.loaded)
    loaded.missing += full_names(key, plan.missing)
    loaded.unexpected += full_names(key, plan.unexpected)
    for name in plan.kept:
        _logger.warning(
            "%s is not in %s: it stays what the code that is bound to it has.",
            tree.full_name(key, name),
            loaded.found.path,
        )
    for name, problem in plan.problems.items():
        loaded.mismatched[tree.full_name(key, name)] = problem
    for old, new in plan.renamed.items():
        loaded.renamed[tree.full_name(key, old)] = tree.full_name(key, new)

"""Which saved leaves take the places of which current ones, by name."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from ..errors import MismatchError
from ..format.manifest import display
from ..kinds.kind import Kind, Spec
from ..kinds.python_kinds import PYTHON
from . import flattening, specs, walking
from .selection import Selection


class Plan(Struct):
    """What loading into a component comes to; names have no key.

    Attributes:
      flat: The component's current state.
      saved: Names, numbers and specs of all saved leaves.
      chosen: Those that are selected, by their new names.
      used: The patterns of `rename` that match some of them.
      replace: Leaf number in `flat` and saved number.
      taken: Specs of the saved leaves whose type the current ones take, by the number
        of these.
      undecided: Like `replace` numbers that fit if nothing of them is lost, with their
        names and specs.
      problems: What does not fit, by name.
      kept: Names of leaves that only the current state has, and that are of its code.
      misplaced: Those of them that would fit if they had another sharding.
      left: Numbers of the saved leaves that do not fit, or only the save has, by name.
      added: Places of those that the current state lacks and takes.
      castable: Whether `cast=True` would make some of it fit.
    """

    flat: flattening.Flat
    saved: Sequence[tuple[str, int, Spec]] = ()
    chosen: Sequence[tuple[str, int, Spec]] = ()
    used: set[str] = set()
    replace: list[tuple[int, int]] = []
    taken: dict[int, Spec] = {}
    undecided: list[tuple[int, int, str, Spec]] = []
    loaded: list[str] = []
    missing: list[str] = []
    unexpected: list[str] = []
    problems: dict[str, str] = {}
    kept: list[str] = []
    misplaced: list[str] = []
    left: dict[str, int] = {}
    added: list[walking.Place] = []
    castable: bool = False
    renamed: dict[str, str] = {}

    @property
    def as_saved(self) -> set[int]:
        """Numbers of the saved leaves that come as they were, arrays of JAX too."""
        pairs = ((target, n) for target, n in self.replace if target in self.taken)
        return {n for target, n in pairs if self.flat.kinds[target] is PYTHON}


def plan(
    flat: flattening.Flat,
    saved: Sequence[tuple[str, int, Spec]],
    selection: Selection,
    key: str,
) -> Plan:
    """Match saved leaves with current ones.

    Args:
      flat: The component's current state, flattened without aliases.
      saved: Name, number and spec of the saved leaves.
      selection: Which of them to load.
      key: The component's key, for errors.

    Raises:
      MismatchError: two saved leaves are renamed to the same name.
    """
    result = Plan(flat, saved)
    result.chosen = chosen = _choose(saved, selection, key, result)
    before = [name for name, _, _ in chosen]
    now = flat.names
    if not "".join(now).isascii():
        now = [display(name) for name in now]
    uneven: dict[str, str] = {}
    places: Sequence[Any] = before
    current: dict[Any, int] = dict(zip(now, itertools.count()))
    if len({*before}) < len(before) or len(current) < len(now):  # Rarely.
        uneven = _uneven(before, now)
        places = _distinct(before)
        current = dict(zip(_distinct(now), itertools.count()))
    fitting: dict[Any, bool] = {}
    for place, (name, number, spec) in zip(places, chosen, strict=True):
        target = current.pop(place, None)
        if name in uneven:
            result.problems[name] = uneven[name]
        elif target is None:
            result.unexpected.append(name)
            result.left[name] = number
        else:
            _match(result, (name, target, number, spec), selection, fitting)
    if current:
        known = {name for name, _, _ in saved} | uneven.keys()
        left = [(now[target], target) for target in current.values()]
        left = [x for x in left if selection.matches(x[0]) and x[0] not in known]
        result.missing = [name for name, target in left if target not in flat.in_code]
        result.kept = [name for name, target in left if target in flat.in_code]
    return result


def _choose(
    saved: Sequence[tuple[str, int, Spec]],
    selection: Selection,
    key: str,
    result: Plan,
) -> Sequence[tuple[str, int, Spec]]:
    """Return the selected leaves by their new names."""
    if selection.regex is None and not selection.rename:
        return saved
    chosen = []
    origins: dict[str, str] = {}
    for name, number, spec in saved:
        if not selection.matches(name):
            continue
        new = selection.renamed(name, result.used)
        if origins.setdefault(new, name) != name:
            raise MismatchError(
                f"rename gives {key}/{origins[new]} and {key}/{name} the same name "
                f"{key}/{new}. Make the pattern or the regex more specific; nothing "
                f"was loaded."
            )
        if new != name:
            result.renamed[name] = new
        chosen.append((new, number, spec))
    return chosen


def _distinct(names: list[str]) -> list[Any]:
    """Return the names, each that was there before with how often it was."""
    counts = collections.Counter(names)
    distinct: list[Any] = []
    for name in reversed(names):
        counts[name] -= 1
        distinct.append((name, counts[name]) if counts[name] else name)
    return distinct[::-1]


def _uneven(before: list[str], now: list[str]) -> dict[str, str]:
    """Say of which names both sides have some and one has more."""
    saved, current = collections.Counter(before), collections.Counter(now)
    return {
        name: f"{saved[name]} saved leaves have this name and {count} current ones"
        for name, count in current.items()
        if saved.get(name, count) != count
    }


def _match(
    result: Plan,
    pair: tuple[str, int, int, Spec],
    selection: Selection,
    fitting: dict[Any, bool],
) -> None:
    """Note whether a saved leaf fits a current one.

    `fitting` has the forms that do, and whether these take the type of the saved one.
    """
    name, target, number, saved = pair
    current, kind = result.flat.values[target], result.flat.kinds[target]
    form = None
    if kind.traits is not None:  # Most are like others, and these have one spec.
        form = id(saved), kind, kind.traits(current)
    takes = fitting.get(form)
    if takes is None:
        leaf = current, kind
        expected = kind.spec(current)
        takes = specs.takes(saved, expected)
        fits = takes or saved.is_like(expected)
        if not fits and specs.may_be_exact(saved, expected):
            result.undecided.append((target, number, name, saved))
            return
        problem = _problem(result, (name, saved, takes), leaf, selection)
        if problem is not None:
            result.problems[name] = f"saved {saved}, {problem}"
            result.left[name] = number
            return
        if form is not None:
            fitting[form] = takes
    if takes:
        result.taken[target] = saved
    result.replace.append((target, number))
    result.loaded.append(name)


def _problem(
    result: Plan,
    pair: tuple[str, Spec, bool],
    leaf: tuple[Any, Kind],
    selection: Selection,
) -> str | None:
    """Say why a saved leaf cannot become what a current one is, or return None."""
    name, saved, takes = pair
    current, kind = leaf
    expected = kind.spec(current)
    if not takes and not saved.is_like(expected):
        can_cast = specs.can_cast(saved, expected)
        if not (selection.cast and can_cast):
            result.castable = result.castable or can_cast
            return f"expected {expected}"
    problem = None if takes else specs.problem(expected)
    sharding = None if problem else kind.misplaced(current)
    if sharding is None:
        return problem
    result.misplaced.append(name)
    return f"which {sharding} does not divide"


def decide(plan: Plan, values: Mapping[int, Any]) -> None:
    """Decide about the undecided numbers.

    Args:
      plan: What to replace; changed.
      values: These numbers, by saved number.
    """
    for target, number, name, _ in plan.undecided:
        expected = plan.flat.spec(target)
        is_exact = specs.is_exact(values[number], expected)
        problem = specs.problem(expected) if is_exact else f"expected {expected}"
        if problem is not None:
            plan.problems[name] = f"saved {values[number]!r}, {problem}"
            continue
        plan.replace.append((target, number))
        plan.loaded.append(name)


def refuse(
    what: str,
    problems: Mapping[str, str],
    missing: Iterable[str],
    unexpected: Iterable[str],
    remedy: str,
) -> None:
    """Raise one error with everything that does not fit, if anything does not.

    Args:
      what: What was to be loaded.
      problems: What does not fit, by name.
      missing: Names of leaves that only the current state has.
      unexpected: Names of leaves that only `what` has.
      remedy: What to do.

    Raises:
      MismatchError: something does not fit.
    """
    found = differences(problems, missing, unexpected)
    if not found:
        return
    count = "1 leaf" if len(found) == 1 else f"{len(found)} leaves"
    listed = "".join(f"\n  {name or 'The value'}: {what}" for name, what in found)
    raise MismatchError(
        f"The current state and {what} differ in {count}:{listed}\n"
        f"Nothing was loaded. {remedy}"
    )


def differences(
    problems: Mapping[str, str], missing: Iterable[str], unexpected: Iterable[str]
) -> list[tuple[str, str]]:
    """Return the names of what does not fit, as for `refuse`, and what is wrong."""
    lacking = [(name, "not in the save") for name in missing]
    more = [(name, "only in the save") for name in unexpected]
    return [*problems.items(), *lacking, *more]

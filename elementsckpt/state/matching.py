"""Matches saved leaves with the current leaves that they replace, by name."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from ..errors import MismatchError
from ..format.manifest import escape
from ..kinds.kind import Kind, Spec
from ..kinds.python_kinds import PYTHON
from . import flattening, same_names, specs, walking
from .same_names import Keys
from .selection import Selection


class Plan(Struct):
    """The plan of a load into a component; names do not have the key.

    Attributes:
      flat: The component's current state.
      saved: Names, numbers and specs of all saved leaves.
      chosen: The selected saved leaves, by their new names.
      used: The patterns of `rename` that match some of them.
      replace: Pairs of the number in `flat` and the saved number.
      taken: Specs of saved leaves whose type the current leaf takes, by the number of
        the current leaf.
      undecided: Like `replace`, with names: numbers that fit if the conversion loses
        nothing.
      problems: Leaves that do not fit, by name, and what is wrong.
      kept: Names of leaves that only the current state has because code is bound to
        them.
      misplaced: Names of leaves that would fit if they had another sharding.
      left: Names and numbers of saved leaves that do not fit or that only the save has.
      added: Places of saved leaves that the current state lacks and takes.
      castable: Whether `cast=True` would make some of the leaves fit.
    """

    flat: flattening.Flat
    saved: Sequence[tuple[str, int, Spec]] = ()
    chosen: Sequence[tuple[str, int, Spec]] = ()
    used: set[str] = set()
    replace: list[tuple[int, int]] = []
    taken: dict[int, Spec] = {}
    undecided: list[tuple[int, int, str]] = []
    loaded: list[str] = []
    missing: list[str] = []
    unexpected: list[str] = []
    problems: dict[str, str] = {}
    kept: list[str] = []
    misplaced: list[str] = []
    left: list[tuple[str, int]] = []
    added: list[walking.Place] = []
    castable: bool = False
    renamed: dict[str, str] = {}

    @property
    def numbers(self) -> list[int]:
        """Numbers of the saved leaves that are loaded."""
        added = [place.number for place in self.added if place.number >= 0]
        return [number for _, number in self.replace] + added

    @property
    def as_saved(self) -> set[int]:
        """Numbers of saved leaves that come as they were saved, even arrays of JAX."""
        pairs = ((target, n) for target, n in self.replace if target in self.taken)
        return {n for target, n in pairs if self.flat.kinds[target] is PYTHON}


def plan(
    flat: flattening.Flat,
    saved: Sequence[tuple[str, int, Spec]],
    selection: Selection,
    key: str,
    find_keys: Callable[[], Iterable[tuple[str, int, Keys]]],
) -> Plan:
    """Match saved leaves with current ones.

    Args:
      flat: The component's current state, flattened without aliases.
      saved: Names, numbers and specs of the saved leaves.
      selection: Which of them to load.
      key: The component's key, for errors.
      find_keys: Returns names and numbers of saved leaves, and the keys that lead to
        them; called only if leaves have the same name.

    Raises:
      MismatchError: two saved leaves are renamed to the same name.
    """
    result = Plan(flat, saved)
    result.chosen = chosen = _choose(saved, selection, key, result)
    before = [name for name, _, _ in chosen]
    now = flat.names
    if not "".join(now).isascii():
        now = [escape(name) for name in now]
    current = dict(zip(now, itertools.count()))
    targets: Sequence[int | None]
    unclear: dict[str, str] = {}
    names = {*before}
    if len(names) == len(before) and len(current) == len(now):
        targets = list(map(current.get, before))
    else:  # Rarely.
        keys = _keys(result, find_keys())
        pairs, unclear = same_names.match(
            list(zip(before, keys, strict=True)),
            list(zip(now, flat.keys(), strict=True)),
        )
        targets = list(map(pairs.get, range(len(before))))
    fitting: dict[Any, bool] = {}
    for target, (name, number, spec) in zip(targets, chosen, strict=True):
        if name in unclear:
            result.problems[name] = unclear[name]
        elif target is None:
            result.unexpected.append(name)
            result.left.append((name, number))
        else:
            _match(result, (name, target, number, spec), selection, fitting)
    if current.keys() - names:
        known = names.union(name for name, _, _ in saved)
        left = [(name, n) for n, name in enumerate(now) if name not in known]
        left = [(name, n) for name, n in left if selection.matches(name)]
        result.missing = [name for name, target in left if target not in flat.in_code]
        result.kept = [name for name, target in left if target in flat.in_code]
    return result


def _keys(plan: Plan, found: Iterable[tuple[str, int, Keys]]) -> Sequence[Keys]:
    """Return the keys that lead to each chosen leaf."""
    old_names = {new: old for old, new in plan.renamed.items()}
    keys: dict[tuple[str, int], list[Keys]] = collections.defaultdict(list)
    for name, number, leading in found:
        keys[name, number].append(leading)
    chosen = [keys[old_names.get(x, x), number] for x, number, _ in plan.chosen]
    # Names in a damaged manifest may not be those of its structure.
    return [one.pop() if one else () for one in chosen]


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


def _match(
    result: Plan,
    pair: tuple[str, int, int, Spec],
    selection: Selection,
    fitting: dict[Any, bool],
) -> None:
    """Note whether a saved leaf fits a current one.

    `fitting` has the forms that fit, and whether they take the type of the saved leaf.
    """
    name, target, number, saved = pair
    current, kind = result.flat.values[target], result.flat.kinds[target]
    form = None
    if kind.spec_key is not None:  # Most leaves have the form of an earlier one.
        form = id(saved), kind, kind.spec_key(current)
    takes = fitting.get(form)
    if takes is None:
        expected = kind.spec(current)
        takes = specs.takes(saved, expected)
        fits = takes or saved.is_like(expected)
        if not fits and specs.may_be_exact(saved, expected):
            result.undecided.append((target, number, name))
            return
        can_cast = not fits and specs.can_cast(saved, expected)
        if fits or (selection.cast and can_cast):
            problem = None if takes else specs.problem(expected)
            problem = problem or _misplaced(result, name, current, kind)
        else:
            result.castable = result.castable or can_cast
            problem = f"expected {expected}"
        if problem is not None:
            result.problems[name] = f"saved {saved}, {problem}"
            result.left.append((name, number))
            return
        if form is not None:
            fitting[form] = takes
    if takes:
        result.taken[target] = saved
    result.replace.append((target, number))
    result.loaded.append(name)


def _misplaced(result: Plan, name: str, current: Any, kind: Kind) -> str | None:
    """Return why the sharding of a current leaf does not allow its shape, or None."""
    sharding = kind.misplaced(current)
    if sharding is None:
        return None
    result.misplaced.append(name)
    return f"which {sharding} does not divide"


def decide(plan: Plan, values: Mapping[int, Any]) -> None:
    """Decide about the undecided numbers.

    Args:
      plan: The plan, which is changed.
      values: The undecided numbers, by the number of the saved leaf.
    """
    for target, number, name in plan.undecided:
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
    """Raise one error that lists everything that does not fit, if anything.

    Args:
      what: Name of the thing that should be loaded.
      problems: Leaves that do not fit, by name, and what is wrong.
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
    """Return names of leaves that do not fit, and what is wrong, as for `refuse`."""
    lacking = [(name, "not in the save") for name in missing]
    more = [(name, "only in the save") for name in unexpected]
    return [*problems.items(), *lacking, *more]

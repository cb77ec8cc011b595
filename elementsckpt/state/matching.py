"""Loading into a current state: put saved leaves in the place of its own, by name.

The component needs to know nothing about it: it gets its own current state with the
matched leaves replaced.
"""

from __future__ import annotations

import collections
import itertools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct

from ..errors import MismatchError, ReadError, reason
from ..format.manifest import display
from ..kinds.kind import Kind, Spec
from ..kinds.numpy_kinds import NUMPY
from ..kinds.python_kinds import PYTHON
from ..user import attributes
from . import flattening, specs, tree, walking


class Selection(Struct, frozen=True):
    """Which leaves of a component to load.

    Attributes:
      regex: Matches the names of leaves, from their start; None matches all.
      rename: Pattern to replacement, for the saved names that matched.
      strict: Whether a matched leaf that only one side has is an error.
      cast: Whether dtypes may differ, within NumPy's same-kind casting, and typed keys
        and legacy ones stand for each other.
      key: The component's key, with which full names begin.
      is_full: Whether `regex` is for full names.
      full_renames: The patterns of `rename` that are for full names.
    """

    regex: str | None = None
    rename: Mapping[str, str] | None = None
    strict: bool = True
    cast: bool = False
    key: str = ""
    is_full: bool = False
    full_renames: frozenset[str] = frozenset()

    def matches(self, name: str) -> bool:
        """Tell whether the leaf of this name is selected."""
        if self.regex is None:
            return True
        name = tree.full_name(self.key, name) if self.is_full else name
        return re.match(self.regex, name) is not None

    def renamed(self, name: str, used: set[str] | None = None) -> str:
        """Return the name under which a saved leaf is loaded.

        Args:
          name: Its name.
          used: Gets the patterns that match.
        """
        for pattern, replacement in (self.rename or {}).items():
            is_full = pattern in self.full_renames
            before = tree.full_name(self.key, name) if is_full else name
            try:
                name, count = re.subn(pattern, replacement, before)
            except (re.error, IndexError, TypeError) as error:
                raise MismatchError(
                    f"Cannot rename {before!r} by {pattern!r} to {replacement!r}: "
                    f"{reason(error)}. Correct the replacement, which is as for "
                    f"re.sub; nothing was loaded."
                ) from error
            name = self._without_key(before, name) if is_full else name
            if count and used is not None:
                used.add(pattern)
        return name

    def _without_key(self, before: str, name: str) -> str:
        """Return what a full name has become without the key, which must stay."""
        if name != self.key and not name.startswith(f"{self.key}/"):
            other, _, rest = name.partition("/")
            pair = {other: self.key} if rest else "{key_here: key_in_the_save}"
            raise MismatchError(
                f"rename takes {before} out of its component, to {name}. Keep "
                f"{self.key!r} in the replacement, or load what is saved under another "
                f"key with keys={pair}; nothing was loaded."
            )
        return name[len(self.key) + 1 :]


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


class Whole(Struct):
    """Containers that are loaded whole, by number in `flat`.

    Attributes:
      places: What they are in the save.
      others: Their attributes beside what they hold, if these are replaced.
    """

    places: Mapping[int, int] = {}
    others: Mapping[int, Mapping[str, Any]] = {}


def apply(
    plan: Plan,
    values: Mapping[int, Any],
    key: str,
    shared: Collection[int] = (),
    whole: Whole | None = None,
) -> Any:
    """Return the current state with the planned leaves replaced.

    Args:
      plan: What to replace.
      values: Saved leaves by number, arrays as NumPy arrays; and saved containers that
        are part of something else, which are put in place if they fit as they are.
      key: The component's key, for errors.
      shared: Numbers of those that share memory.
      whole: What is loaded whole.

    Raises:
      ReadError: JAX cannot make a leaf.
    """
    flat, whole = plan.flat, whole or Whole()
    built = _fit(plan, values, key, shared)
    pairs = plan.replace if whole.places else ()
    as_saved = {target for target, n in pairs if built[target] is values[n]}
    current = flat.object_at
    for index, node in enumerate(flat.nodes):
        number = ~index
        there = values.get(whole.places[number]) if number in whole.places else None
        is_one = type(there) is type(current(number))
        if is_one and as_saved.issuperset(node.children):
            built[number] = there
            as_saved.add(number)
        # A container in which nothing is replaced stays the object that it is.
        elif number in whole.others or not built.keys().isdisjoint(node.children):
            children = [built[n] if n in built else current(n) for n in node.children]
            others = _placed(whole.others.get(number), current(number))
            built[number] = flat.close(index, children, others)
    return built.get(flat.root, current(flat.root))


def _placed(others: Mapping[str, Any] | None, value: Any) -> Any:
    """Return the attributes for which a container has a place, None if these stay."""
    if others is None:
        return None
    return {x: y for x, y in others.items() if attributes.has_place(value, x)}


def _fit(
    plan: Plan, values: Mapping[int, Any], key: str, shared_memory: Collection[int]
) -> dict[int, Any]:
    """Return saved leaves as what those are that they replace, by number in `flat`."""
    counts = collections.Counter(number for _, number in plan.replace)
    shared: dict[Any, Any] = {}  # What was one stays one where it can.
    taken: set[int] = set()
    built = {}
    for target, number in plan.replace:
        current, kind = plan.flat.values[target], plan.flat.kinds[target]
        value = values[number]
        is_shared = number in shared_memory and kind is not NUMPY
        if is_shared and isinstance(value, np.ndarray):
            value = value.copy()  # Which JAX and torch may keep as it is.
        if counts[number] == 1:
            built[target] = _fit_one(plan, target, value, key)
            continue
        place = number, specs.place_of(current, kind)
        if place not in shared:
            if number in taken and isinstance(value, np.ndarray):
                value = value.copy()  # JAX may use the memory of the other.
            taken.add(number)
            shared[place] = _fit_one(plan, target, value, key)
        built[target] = shared[place]
    return built


def _fit_one(plan: Plan, target: int, value: Any, key: str) -> Any:
    current, kind = plan.flat.values[target], plan.flat.kinds[target]
    try:
        return specs.fit(current, kind, value, plan.taken.get(target))
    except (ValueError, TypeError, RuntimeError) as error:
        where = specs.where(current, kind)
        if where is None:
            raise
        name = tree.full_name(key, plan.flat.names[target])
        raise ReadError(
            f"{name} cannot be put where the current one is, {where}: {reason(error)}. "
            f"Choose another device or sharding, or free memory of this one; nothing "
            f"was loaded."
        ) from error


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

"""What to do where saved leaves and current ones do not fit, made of both.

What is suggested works as it stands, or it is not suggested.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from ..errors import MismatchError
from ..format.manifest import escape
from ..state import specs, tree
from ..state.matching import Plan
from ..state.selection import Selection
from ..user import hints
from ..user.arguments import shown
from .request import Request
from .verbs import Verb

_logger = logging.getLogger("elementsckpt")
_LONG = 300  # Letters of a suggestion.


class Case(Struct):
    """What was asked for, and what that comes to.

    Attributes:
      path: The save.
      request: Which leaves to load.
      verb: What the user called.
      keys: Our keys of all that is loaded, to those in the save.
      is_named: Whether a pattern can be for any of these.
      selections: What is selected in the components that are compared.
      plans: What loading into each of these comes to.
    """

    path: Path
    request: Request
    verb: Verb
    keys: Mapping[str, str]
    is_named: bool = False
    selections: Mapping[str, Selection] = {}
    plans: Mapping[str, Plan] = {}


def of(case: Case, *, is_castable: bool, is_uneven: bool) -> str:
    """Say what to do about leaves that do not fit.

    Args:
      case: What was loaded.
      is_castable: Whether `cast=True` would make some of it fit.
      is_uneven: Whether one side has leaves that the other lacks, and must not.
    """
    takes, remedies = case.verb.takes, []
    if case.request.is_plain:
        remedies.append(
            "load into a value like the one that was saved, which elementsckpt.read "
            "shows"
        )
    regex = _avoiding(case) if "regex" in takes else None
    if regex is not None:
        remedies.append(f"leave these leaves out with {case.verb.name}(regex={regex})")
    if is_castable and "cast" in takes:
        remedies.append("convert dtypes, never shapes, with cast=True")
    if is_uneven and "rename" in takes:
        remedies += _renaming(case)
    if is_uneven and "strict" in takes:
        remedies.append("load what only both have with strict=False")
    text = ", or ".join(remedies or ["register an object like the one that was saved"])
    return f"{text[:1].upper()}{text[1:]}."


def refuse_nothing(case: Case, saved: Mapping[str, Sequence[str]]) -> None:
    """Raise an error, as nothing of the components that were asked for is there.

    Args:
      case: What was loaded.
      saved: The names of these components' leaves, by key.
    """
    plans = {key: case.plans[key] for key in saved if key in case.plans}
    lost = [x for key, plan in plans.items() for x in _full(key, plan.unexpected)]
    if lost:  # The pattern matched, but nothing that is here now.
        raise MismatchError(
            f"No matched leaf of {case.path} is in the current state: "
            f"{', '.join(lost[:5])}. {_rename_hint(case)}; nothing was loaded."
        )
    selection = case.selections[next(iter(saved))]
    if selection.regex is None:
        return
    keys = ", ".join(map(repr, saved))
    what = f"regex={shown(selection.regex)} matches no leaf of {keys} in {case.path}"
    names = [name for some in saved.values() for name in some]
    if not names:
        raise MismatchError(
            f"{what}, where none has a name: leaves in attributes of containers have "
            f"none, and there may be no others. Load it whole, without regex=; nothing "
            f"was loaded."
        )
    near = ", ".join(map(repr, hints.nearest(_text_of(selection.regex), names)))
    raise MismatchError(
        f"{what}. The nearest names in the save are {near}. "
        f"{_of_saved_key(case, selection.regex, saved)}"
        f"{_of_current(selection.regex, plans)}Correct the pattern, which must match "
        f"from the start of a name, with or without the key; nothing was loaded."
    )


def _of_saved_key(case: Case, regex: str, saved: Mapping[str, Sequence[str]]) -> str:
    """Say that a pattern is one with the key in the save, if it is."""
    for key, names in saved.items():
        theirs = case.keys[key]
        full = _full(theirs, names) if theirs not in ("", key) else []
        if any(re.match(regex, name) for name in full):
            return f"The key in full names is the one here, {key!r}, not {theirs!r}. "
    return ""


def _of_current(regex: str, plans: Mapping[str, Plan]) -> str:
    """Say that a pattern is one for the current state, if it is."""
    for key, plan in plans.items():
        for name in plan.flat.names:
            if re.match(regex, name) or re.match(regex, tree.full_name(key, name)):
                return (
                    f"It matches {name!r} of the current state, and patterns are for "
                    f"names in the save, which rename= maps to current ones. "
                )
    return ""


def _text_of(regex: Any) -> str:
    """Return a pattern as text, which may have been compiled."""
    text: str = regex.pattern if isinstance(regex, re.Pattern) else regex
    return text


# Other names


def _renaming(case: Case) -> list[str]:
    """Return how to make names fit, if that is known."""
    turned = _turned(case)
    if turned:
        return [f"pass rename={turned}, {_DIRECTION}"]
    rename = _added(case)
    return (
        [f"map names in the save to current ones, as with rename={rename}"]
        if rename
        else []
    )


_DIRECTION = "which goes from names in the save to current ones"


def _rename_hint(case: Case) -> str:
    given, turned, added = case.request.rename, _turned(case), _added(case)
    if turned:
        return f"Pass rename={turned}, {_DIRECTION}"
    if given:
        example = f", as rename={added} may" if added else ""
        names = shown(dict(given))
        return f"Correct rename={names}, which does not make these names fit{example}"
    pair = added or "{pattern: replacement}"
    return f"Map names in the save to current ones, as with rename={pair}"


def warn_of_unused(case: Case) -> None:
    """Warn of patterns that rename nothing where leaves are left as they are."""
    groups = case.request.questions(case.plans) if case.request.rename else []
    for group in groups:
        plans = [case.plans[key] for key in group]
        rename = case.selections[group[0]].rename or {}
        unused = [x for x in rename if not any(x in plan.used for plan in plans)]
        left = sum(len(plan.missing) + len(plan.unexpected) for plan in plans)
        if not unused or not left:
            continue
        names = [name for plan in plans for name, *_ in plan.saved]
        near = ", ".join(map(repr, hints.nearest(_text_of(unused[0]), names)))
        turned = _turned(case)
        _logger.warning(
            "rename: no name in %s is matched by %s, and with strict=False %d leaves "
            "that only one side has are left as they are. %s",
            case.path,
            ", ".join(shown(_text_of(pattern)) for pattern in unused),
            left,
            f"Pass rename={turned}, {_DIRECTION}."
            if turned
            else f"The nearest names in the save are {near}.",
        )


def _names(case: Case, key: str) -> hints.Names:
    """Return names of a component, and which of its leaves fit which."""
    plan, cast = case.plans[key], case.request.cast
    known = {*plan.loaded, *(name for name, *_ in plan.saved)}
    now = {escape(name): number for number, name in enumerate(plan.flat.names)}
    saved = {name: spec for name, _, spec in plan.chosen}

    def fits(old: str, new: str) -> bool:
        if new not in now:
            return False
        expected = plan.flat.spec(now[new])
        is_like = saved[old].is_like(expected) or specs.takes(saved[old], expected)
        return is_like or (cast and specs.can_cast(saved[old], expected))

    free = [name for name in now if name not in known]
    return hints.Names([*saved], free, fits)


def _added(case: Case) -> Mapping[str, Any]:
    """Return `rename=` with what makes more names fit, if there is such."""
    given = case.request.rename or {}
    is_flat = any(not isinstance(x, Mapping) for x in given.values())
    is_by_key = not is_flat and len(case.keys) > 1
    if case.request.regex is not None and not given:  # Each must be selected then.
        is_by_key = is_by_key and all(plan.chosen for plan in case.plans.values())
    found: dict[str, Any] = dict(given) if is_by_key else {}
    for key, plan in case.plans.items():
        pair = hints.renaming(_names(case, key), plan.unexpected)
        others = [x for y in case.plans if y != key for x, *_ in case.plans[y].chosen]
        if pair and is_by_key:
            found[key] = {**found.get(key, {}), **pair}
        elif pair and not _match_any(pair, others):
            return {**given, **pair}
    return found if found != given else {}


def _match_any(patterns: Iterable[str], names: Collection[str]) -> bool:
    return any(re.search(pattern, name) for pattern in patterns for name in names)


def _turned(case: Case) -> Mapping[str, Any]:
    """Return `rename=` turned round, if only that makes sense."""
    given = case.request.rename or {}
    if any(isinstance(rename, Mapping) for rename in given.values()):
        found = {key: _turned_of(case, [key]) for key in given if key in case.plans}
        return found if found and all(found.values()) else {}
    return _turned_of(case, [*case.plans])


def _turned_of(case: Case, keys: Sequence[str]) -> dict[str, str]:
    rename = case.selections[keys[0]].rename if keys else None
    names = [_names(case, key) for key in keys]
    current = [x for key in keys for x in map(escape, case.plans[key].flat.names)]
    return hints.turned(rename, names, current) if rename else {}


# Fewer leaves


def _avoiding(case: Case) -> str | None:
    """Return a `regex=` with which all that does not fit is left alone."""
    found: dict[str, str] = {}
    if not case.is_named or not any(map(_misfits(case), case.plans)):
        return None
    for key in case.keys:
        regex = _avoiding_in(case, key)
        if regex is None:
            return None
        found[key] = regex
    is_one = len(found) == 1 and not isinstance(case.request.regex, Mapping)
    text = repr(found[next(iter(found))] if is_one else found)
    return text if len(text) <= _LONG else None


def _misfits(case: Case) -> Callable[[str], list[str]]:
    """Return what gives the names in a component that do not fit."""

    def misfits(key: str) -> list[str]:
        plan = case.plans[key]
        strictly = [*plan.missing, *plan.unexpected] if case.request.strict else []
        names = [*plan.problems, *strictly]
        origins = {now: before for before, now in plan.renamed.items()}
        return [*names, *(origins[name] for name in names if name in origins)]

    return misfits


def _avoiding_in(case: Case, key: str) -> str | None:
    """Return the pattern for a component, most of whose leaves it must match."""
    if key not in case.plans:
        return ".*"
    plan, selection = case.plans[key], case.selections[key]
    regex, names = _text_of(selection.regex or ".*"), _misfits(case)(key)
    if not names:
        return regex
    origins = {now: before for before, now in plan.renamed.items()}
    others = [origins.get(name, name) for name in plan.loaded]
    if selection.is_full:
        names, others = _full(key, names), _full(key, others)
    return hints.avoiding(names, others, regex)


def _full(key: str, names: Iterable[str]) -> list[str]:
    return [tree.full_name(key, name) for name in names]

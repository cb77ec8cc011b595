"""Remedies for leaves that do not fit, made of the saved and the current names.

Each suggestion works exactly as written; otherwise it is not made.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ..format.manifest import escape
from ..state import specs
from ..user import hints
from ..user.arguments import shown
from . import patterns
from .loaded import Loaded, full_names

_logger = logging.getLogger("elementsckpt")
_LONG = 300  # Most letters of a suggestion.


def of(loaded: Loaded, *, is_uneven: bool) -> str:
    """Return remedies for leaves that do not fit.

    Args:
      loaded: The load.
      is_uneven: Whether leaves that only one side has are an error, and there are some.
    """
    takes, remedies = loaded.request.verb.takes, []
    if loaded.request.is_plain:
        remedies.append(
            "load into a value like the one that was saved, which elementsckpt.read "
            "shows"
        )
    regex = _avoiding(loaded) if "regex" in takes else None
    if regex is not None:
        remedies.append(
            f"leave these leaves out with {loaded.request.verb.name}(regex={regex})"
        )
    is_castable = any(plan.castable for plan in loaded.plans.values())
    if is_castable and "cast" in takes:
        remedies.append("convert dtypes, never shapes, with cast=True")
    if is_uneven and "rename" in takes:
        remedies += _renaming(loaded)
    if is_uneven and "strict" in takes:
        remedies.append("load what only both have with strict=False")
    text = ", or ".join(remedies or ["register an object like the one that was saved"])
    return f"{text[:1].upper()}{text[1:]}."


def text_of(regex: Any) -> str:
    """Return the text of a pattern, compiled or not."""
    text: str = regex.pattern if isinstance(regex, re.Pattern) else regex
    return text


# Other names


def _renaming(loaded: Loaded) -> list[str]:
    """Return advice that makes the names fit, in a list; [] if there is none."""
    turned = _turned(loaded)
    if turned:
        return [f"pass rename={turned}, {_DIRECTION}"]
    rename = _added(loaded)
    return (
        [f"map names in the save to current ones, as with rename={rename}"]
        if rename
        else []
    )


_DIRECTION = "which goes from names in the save to current ones"


def renaming_hint(loaded: Loaded) -> str:
    given, turned, added = loaded.request.rename, _turned(loaded), _added(loaded)
    if turned:
        return f"Pass rename={turned}, {_DIRECTION}"
    if given:
        example = f", as rename={added} may" if added else ""
        names = shown(dict(given))
        return f"Correct rename={names}, which does not make these names fit{example}"
    pair = added or "{pattern: replacement}"
    return f"Map names in the save to current ones, as with rename={pair}"


def warn_of_unused(loaded: Loaded) -> None:
    """Warn about patterns that rename nothing while leaves remain unmatched."""
    groups = (
        patterns.groups(loaded.request, loaded.plans) if loaded.request.rename else []
    )
    for group in groups:
        plans = [loaded.plans[key] for key in group]
        rename = loaded.selections[group[0]].rename or {}
        unused = [x for x in rename if not any(x in plan.used for plan in plans)]
        left = sum(len(plan.missing) + len(plan.unexpected) for plan in plans)
        if not unused or not left:
            continue
        names = [name for plan in plans for name, *_ in plan.saved]
        near = ", ".join(map(repr, hints.nearest(text_of(unused[0]), names)))
        turned = _turned(loaded)
        _logger.warning(
            "rename: no name in %s is matched by %s, and with strict=False %d leaves "
            "that only one side has are left as they are. %s",
            loaded.found.path,
            ", ".join(shown(text_of(pattern)) for pattern in unused),
            left,
            f"Pass rename={turned}, {_DIRECTION}."
            if turned
            else f"The nearest names in the save are {near}.",
        )


def _names(loaded: Loaded, key: str) -> hints.Names:
    """Return the names of a component, and which of its leaves fit which others."""
    plan, cast = loaded.plans[key], loaded.request.cast
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


def _added(loaded: Loaded) -> Mapping[str, Any]:
    """Return `rename=` with patterns that make more names fit, or nothing new."""
    given = loaded.request.rename or {}
    is_flat = any(not isinstance(x, Mapping) for x in given.values())
    is_by_key = not is_flat and len(loaded.keys) > 1
    if loaded.request.regex is not None and not given:  # Each must then match.
        is_by_key = is_by_key and all(plan.chosen for plan in loaded.plans.values())
    found: dict[str, Any] = dict(given) if is_by_key else {}
    for key, plan in loaded.plans.items():
        pair = hints.renaming(_names(loaded, key), plan.unexpected)
        others = [
            x for y in loaded.plans if y != key for x, *_ in loaded.plans[y].chosen
        ]
        if pair and is_by_key:
            found[key] = {**found.get(key, {}), **pair}
        elif pair and not _match_any(pair, others):
            return {**given, **pair}
    return found if found != given else {}


def _match_any(patterns: Iterable[str], names: Collection[str]) -> bool:
    return any(re.search(pattern, name) for pattern in patterns for name in names)


def _turned(loaded: Loaded) -> Mapping[str, Any]:
    """Return `rename=` in the other direction, if only that makes sense."""
    given = loaded.request.rename or {}
    if any(isinstance(rename, Mapping) for rename in given.values()):
        found = {key: _turned_of(loaded, [key]) for key in given if key in loaded.plans}
        return found if found and all(found.values()) else {}
    return _turned_of(loaded, [*loaded.plans])


def _turned_of(loaded: Loaded, keys: Sequence[str]) -> dict[str, str]:
    rename = loaded.selections[keys[0]].rename if keys else None
    names = [_names(loaded, key) for key in keys]
    current = [x for key in keys for x in map(escape, loaded.plans[key].flat.names)]
    return hints.inverted(rename, names, current) if rename else {}


# Fewer leaves


def _avoiding(loaded: Loaded) -> str | None:
    """Return a `regex=` that leaves out all leaves that do not fit, or None."""
    found: dict[str, str] = {}
    if not loaded.is_named or not any(_misfits(loaded, x) for x in loaded.plans):
        return None
    for key in loaded.keys:
        regex = _avoiding_in(loaded, key)
        if regex is None:
            return None
        found[key] = regex
    is_one = len(found) == 1 and not isinstance(loaded.request.regex, Mapping)
    text = repr(found[next(iter(found))] if is_one else found)
    return text if len(text) <= _LONG else None


def _misfits(loaded: Loaded, key: str) -> list[str]:
    """Return the saved names in a component that do not fit."""
    plan = loaded.plans[key]
    strictly = [*plan.missing, *plan.unexpected] if loaded.request.strict else []
    names = [*plan.problems, *strictly]
    origins = {now: before for before, now in plan.renamed.items()}
    return [*names, *(origins[name] for name in names if name in origins)]


def _avoiding_in(loaded: Loaded, key: str) -> str | None:
    """Return a pattern for a component that matches most of its leaves, or None."""
    if key not in loaded.plans:
        return ".*"
    plan, selection = loaded.plans[key], loaded.selections[key]
    regex, names = text_of(selection.regex or ".*"), _misfits(loaded, key)
    if not names:
        return regex
    origins = {now: before for before, now in plan.renamed.items()}
    others = [origins.get(name, name) for name in plan.loaded]
    if selection.is_full:
        names, others = full_names(key, names), full_names(key, others)
    return hints.avoiding(names, others, regex)

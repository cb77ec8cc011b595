"""Suggestions in errors: similar names, and patterns that rename or exclude leaves.

The names may be of anything: leaves, keys or saves.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

_LONG_NAME = 200
_MOST_COMPARED = 2000  # Comparing takes time.
_MOST_NAMES = 10_000
_MOST_CHOICES = 20
_MOST_MOVED = 50
_MOST_RENAMED = 10
_MOST_AVOIDED = 3
_LONG_PATTERN = 100
_NEAR = 0.6


def nearest(
    text: str, names: Iterable[str], count: int = 5, cutoff: float = 0.0
) -> list[str]:
    """Return the names that are most similar to a text, the most similar first.

    Args:
      text: The text to compare with.
      names: The names to choose from.
      count: The largest number of names to return.
      cutoff: The least similarity, from 0 to 1.
    """
    import difflib  # Only errors need it, and importing it takes a while.

    short = (name for name in names if len(name) <= _LONG_NAME)
    some = itertools.islice(short, _MOST_COMPARED)
    return difflib.get_close_matches(text[:_LONG_NAME], some, count, cutoff=cutoff)


class Names(NamedTuple):
    """Names in a save and current names.

    Attributes:
      saved: Names in the save, which patterns match.
      left: Those of them that are not current names. The others keep their names.
      free: Current names that the save lacks.
      fits: Returns whether the saved leaf of the first name fits the current leaf of
        the second.
    """

    saved: Sequence[str]
    left: Collection[str]
    free: Collection[str]
    fits: Callable[[str, str], bool]


class _Move(NamedTuple):
    pattern: str
    replacement: str
    pairs: dict[str, str]


def renaming(names: Names) -> dict[str, str]:
    """Return a mapping for `rename=` from saved leaves to current leaves that they fit.

    A pattern replaces only the start of a name and keeps the end that the old and the
    new name share, so it renames the neighbours in the same way. Where several new
    names are equally good, none is chosen.
    """
    found: dict[str, str] = {}
    placed: list[str] = []
    left, free = dict.fromkeys(names.left), dict.fromkeys(names.free)
    if len(names.saved) + len(free) > _MOST_NAMES:
        return {}
    names = names._replace(left=left, free=free)
    for old in list(left)[:_MOST_MOVED]:
        if old not in left or len(found) == _MOST_RENAMED:
            continue
        move = _move(old, names)
        if move is None or any(re.match(move.pattern, name) for name in placed):
            continue
        found[move.pattern] = move.replacement
        placed += move.pairs.values()
        for before, after in move.pairs.items():
            del left[before], free[after]
    return found


def counterparts(
    ours: Mapping[str, Collection[str]], theirs: Mapping[str, Collection[str]]
) -> dict[str, str]:
    """Return, for our keys, the key of theirs that holds most of the same names.

    Where several keys do, or there is only one name, the key must look like ours.
    """
    found: dict[str, str] = {}
    for key, names in ours.items():
        alike = [
            other
            for other, some in theirs.items()
            if other not in found.values()
            and len({*names} & {*some}) * 2 > max(len(names), len(some))
        ]
        is_plain = len(alike) == 1 and len(names) > 1
        chosen = alike if is_plain else nearest(key, alike, 1, _NEAR)
        if chosen:
            found[key] = chosen[0]
    return found


def _move(old: str, names: Names) -> _Move | None:
    """Return the best renaming of a saved leaf; None if there is none, or a tie."""
    fitting = [x for x in names.free if old and x and names.fits(old, x)]
    alike = {new: _alike(old, new) for new in fitting}
    for sizes in sorted({*alike.values()}, reverse=True):
        ends = [name for name in alike if alike[name] == sizes]
        if len(ends) > _MOST_CHOICES:
            return None
        moves = (_moving(old, new, sizes[0], names.saved) for new in ends)
        good = [move for move in moves if _is_good(move, names)]
        if good:
            is_one = len(good) == 1 and not _has_rivals(good[0], old, names)
            return good[0] if is_one else None
    return None


def _has_rivals(move: _Move, old: str, names: Names) -> bool:
    """Return whether another saved leaf fits the new name just as well."""
    new = move.pairs[old]
    sizes = _alike(old, new)
    others = [x for x in names.left if x not in move.pairs and _alike(x, new) >= sizes]
    rivals = [x for x in others if names.fits(x, new)]
    moves = (_moving(x, new, sizes[0], names.saved) for x in rivals)
    return len(rivals) > _MOST_CHOICES or any(_is_good(x, names) for x in moves)


def _moving(old: str, new: str, size: int, saved: Iterable[str]) -> _Move:
    """Return the move of one name to the other, which share the last `size` letters."""
    before, after = old[: len(old) - size], new[: len(new) - size]
    moved = [x for x in saved if (x.startswith(before) if size else x == old)]
    pairs = {name: after + name[len(before) :] for name in moved}
    return _Move(f"^{re.escape(before)}{'' if size else '$'}", after, pairs)


def _is_good(move: _Move, names: Names) -> bool:
    """Return whether each leaf that is renamed was to be, and fits a free name."""
    is_plain = "\\" not in move.replacement
    return is_plain and all(
        before in names.left and after in names.free and names.fits(before, after)
        for before, after in move.pairs.items()
    )


def inverse(
    rename: Mapping[Any, Any], names: Sequence[Names], current: Sequence[str]
) -> dict[str, str]:
    """Return a `rename=` mapping in the other direction, if only that makes sense.

    Args:
      rename: The mapping, perhaps from current names to names in the save.
      names: All names, by component.
      current: The current names.
    """
    saved = [name for one in names for name in one.saved]
    found = {}
    for pattern, replacement in rename.items():
        text = _literal(pattern) if isinstance(pattern, str) else None
        is_here = any(re.search(pattern, name) for name in current)
        if text is None or not is_here or callable(replacement):
            return {}
        if any(re.search(pattern, name) for name in saved):
            return {}
        end = "$" if pattern.endswith("$") else ""
        found[f"^{re.escape(replacement)}{end}"] = text
    return found if _all_fit(found, names) else {}


def _literal(pattern: str) -> str | None:
    """Return the text that a pattern matches, or None if it matches several."""
    inner = pattern.removeprefix("^").removesuffix("$")
    is_text = re.fullmatch(r"(?:\\\W|[^\\^$*+?{}\[\]|()])*", inner)
    return re.sub(r"\\(.)", r"\1", inner) if is_text else None


def _all_fit(rename: Mapping[str, str], names: Sequence[Names]) -> bool:
    """Return whether a mapping renames some leaf, and all that it renames fit."""
    moved = []
    for one in names:
        for old in one.saved:
            new = old
            for pattern, text in rename.items():
                new = re.sub(pattern, text, new)
            moved += [one.fits(old, new)] if new != old else []
    return bool(moved) and all(moved)


def _alike(first: str, second: str) -> tuple[int, int]:
    """Return how many letters of whole parts two names share at their end and start."""
    ends = _shared(r"[/.]?[^/.]*", first[::-1], second[::-1])
    return ends, _shared(r"[^/.]*[/.]?", first, second)


def _shared(part: str, first: str, second: str) -> int:
    """Return how many letters two texts share in the parts that they begin with."""
    parts, others = (re.finditer(part, text) for text in (first, second))
    pairs = zip(
        parts, others, strict=False
    )  # Only as far as needed: names may be long.
    same = itertools.takewhile(lambda pair: pair[0][0] == pair[1][0], pairs)
    return sum(len(found[0]) for found, _ in same)


def avoiding(names: Sequence[str], others: Sequence[str], regex: str) -> str | None:
    """Return a pattern that matches what `regex` does, except for some names.

    Args:
      names: The names that it must not match.
      others: The names that it should match. Those that it does match must be at least
        half of all names.
      regex: A pattern that matches all of them.

    Returns:
      The pattern, or None if no short one does that.
    """
    rest = f"(?:{regex})" if "|" in regex else regex
    for avoided in _avoided(names):
        either = avoided[0] if len(avoided) == 1 else f"(?:{'|'.join(avoided)})"
        pattern = f"(?!{either}){'' if rest in ('.*', '') else rest}"
        is_short = len(avoided) <= _MOST_AVOIDED and len(pattern) <= _LONG_PATTERN
        if is_short and _count(pattern, others) * 2 >= len(names) + len(others):
            return pattern
    return None


def _count(pattern: str, names: Sequence[str]) -> int:
    try:
        return sum(re.match(pattern, name) is not None for name in names)
    except re.error:  # The regex has flags, which must come first.
        return 0


def _avoided(names: Sequence[str]) -> Iterable[list[str]]:
    """Yield lists of patterns that together match all names, the narrowest first."""
    yield [f"{re.escape(name)}$" for name in dict.fromkeys(names)]
    parts = [name.split("/") for name in names]
    depth = max((len(x) for x in parts), default=0) - 1
    for count in range(depth, 0, -1):
        starts = dict.fromkeys("/".join(x[:count]) for x in parts if len(x) > count)
        whole = dict.fromkeys(name for name in names if name.count("/") < count)
        yield [
            *(f"{re.escape(start)}/" for start in starts),
            *(f"{re.escape(name)}$" for name in whole),
        ]


def listed(names: Iterable[Any], none: str = "", most: int | None = None) -> str:
    """Return names for a message, the first `most` and a count; `none` for no names."""
    shown = list(map(repr, names))
    more = 0 if most is None else len(shown) - most
    text = ", ".join(shown[:most])
    return f"{text} and {more} more" if more > 0 else text or none

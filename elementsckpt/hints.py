"""What errors suggest, made of the names at hand: what is near, how to rename or avoid.

Nothing here knows what the names are of.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

_LONG_NAME = 200
_MOST_COMPARED = 2000  # Comparing takes time.
_MOST_RENAMED = 5
_MOST_AVOIDED = 3
_LONG_PATTERN = 100


def nearest(text: str, names: Iterable[str], count: int = 5) -> list[str]:
    """Return the names that look most like a text, the nearest first."""
    import difflib  # Here, as it takes a while and is for errors only.

    short = (name for name in names if len(name) <= _LONG_NAME)
    some = itertools.islice(short, _MOST_COMPARED)
    return difflib.get_close_matches(text[:_LONG_NAME], some, count, cutoff=0.0)


def renaming(saved: Sequence[str], current: Sequence[str]) -> dict[str, str] | None:
    """Return a mapping for `rename=` that makes some saved name a current one.

    What the names end in alike stays, so that it does the same for their neighbours.
    """
    for old in saved[:_MOST_RENAMED]:
        for new in nearest(old, current, 1):
            size = _same_end(old, new)
            before, after = old[: len(old) - size], new[: len(new) - size]
            end = "" if size else "$"
            pattern = f"^{re.escape(before)}{end}"
            if re.escape(after) == after.replace(".", r"\."):
                return {pattern: after}
    return None


def _same_end(first: str, second: str) -> int:
    """Return how many letters two names have in common in whole parts at their end."""
    for size in range(min(len(first), len(second)), 0, -1):
        starts = [text[: len(text) - size] for text in (first, second)]
        is_whole = all(start[-1:] in ("", "/", ".") for start in starts)
        if is_whole and first.endswith(second[-size:]):
            return size
    return 0


def avoiding(names: Sequence[str], others: Sequence[str], regex: str) -> str | None:
    """Return a pattern that matches as `regex` does, but for some names.

    Args:
      names: Those that it must not match.
      others: Those of which it should match one at least.
      regex: What matches all of them.

    Returns:
      None if no short pattern does that.
    """
    rest = f"(?:{regex})" if "|" in regex else regex
    for avoided in _avoided(names):
        either = avoided[0] if len(avoided) == 1 else f"(?:{'|'.join(avoided)})"
        pattern = f"(?!{either}){'' if rest in ('.*', '') else rest}"
        is_short = len(avoided) <= _MOST_AVOIDED and len(pattern) <= _LONG_PATTERN
        if is_short and _matches_one(pattern, others):
            return pattern
    return None


def _matches_one(pattern: str, names: Sequence[str]) -> bool:
    try:
        return any(re.match(pattern, name) for name in names)
    except re.error:  # It has flags, which must come first.
        return False


def _avoided(names: Sequence[str]) -> Iterable[list[str]]:
    """Yield patterns that match all of the names, from the narrowest on."""
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

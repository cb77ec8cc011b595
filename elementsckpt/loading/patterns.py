"""The patterns of a request and the names of leaves → the selection in each component.

Patterns match names of leaves. A pattern that matches no such name in the whole load
matches full names instead: with the key, as reports print them. So a pattern for the
leaves `params/...` of an agent never selects a component that is called `params`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from msgspec import structs

from ..state.selection import Selection
from .request import Request

_Names = Mapping[str, Sequence[str]]  # Names of the saved leaves, by key.


def groups(request: Request, keys: Iterable[str]) -> list[list[str]]:
    """Return the components whose leaves are selected by name, grouped by pattern.

    A pattern must select something in at least one component of its group.
    """
    by_key = isinstance(request.regex, Mapping) or request.renames_by_key
    return _grouped([key for key in keys if request.is_by_name(key)], by_key=by_key)


def selections(request: Request, names: _Names) -> dict[str, Selection]:
    """Return the selection in each component.

    Args:
      request: The request.
      names: The names of all leaves of the load that have names.

    Raises:
      MismatchError: the replacement for a name is not valid.
    """
    full = _with_full_regex(request, names)
    found = {
        key: Selection(
            regex=request.regex_of(key),
            rename=request.rename_of(key),
            cast=request.cast,
            key=key,
            is_full=key in full,
        )
        for key in names
    }
    renamed = [key for key in names if request.rename_of(key)]
    matched = {key: list(filter(found[key].matches, names[key])) for key in renamed}
    for key, patterns in _full_renames(request, matched).items():
        found[key] = structs.replace(found[key], full_renames=patterns)
    return found


def _with_full_regex(request: Request, names: _Names) -> set[str]:
    """Return the keys of components whose pattern matches full names."""
    found: set[str] = set()
    keys = [key for key in names if request.selects(key)]
    for group in _grouped(keys, by_key=isinstance(request.regex, Mapping)):
        match = re.compile(request.regex_of(group[0]) or "").match
        if not any(match(name) for key in group for name in names[key]):
            found.update(group)
    return found


def _full_renames(request: Request, names: _Names) -> dict[str, frozenset[str]]:
    """Return the patterns of `rename` that match full names, by key.

    Args:
      request: The request.
      names: The selected names in components whose leaves are renamed.
    """
    found: dict[str, frozenset[str]] = {}
    for group in _grouped(list(names), by_key=request.renames_by_key):
        before: dict[str, str] = {}
        full: frozenset[str] = frozenset()
        for pattern, replacement in request.rename_of(group[0]).items():
            renamed = (
                Selection(rename=before, key=key, full_renames=full).renamed(name)
                for key in group
                for name in names[key]
            )
            if not any(re.search(pattern, name) for name in renamed):
                full |= {pattern}
            before = {**before, pattern: replacement}
        found |= dict.fromkeys(group, full)
    return found


def _grouped(keys: Sequence[str], *, by_key: bool) -> list[list[str]]:
    """Return groups: of one key each, or one group of all keys if there are any."""
    return [[key] for key in keys] if by_key else [list(keys)] if keys else []

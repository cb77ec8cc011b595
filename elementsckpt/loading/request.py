"""Which leaves to load: what was asked for → what to select in each component.

Patterns are for the names of leaves. One that finds none of these in the whole load is
for full names, with the key, as reports print them. So a pattern that is meant for the
leaves `params/...` of an agent never selects a component that is called `params`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from ..errors import MismatchError, MissingKeyError, reason
from ..state.selection import Selection
from ..user.arguments import shown
from ..user.hints import listed

Regex = str | Mapping[str, str]
Rename = Mapping[str, str] | Mapping[str, Mapping[str, str]]
_Names = Mapping[str, Sequence[str]]  # Of the saved leaves of components, by key.


class Request(Struct, frozen=True):
    """What was asked for; components by their keys in the object that loads.

    Attributes:
      regex: Matches the names of leaves, from their start; None matches all. Or such a
        pattern for each of some components; the others are left alone.
      rename: Pattern to replacement, for the saved names that matched. Or such a
        mapping for each of some components.
      strict: Whether a matched leaf that only one side has is an error.
      cast: Whether dtypes may differ, within NumPy's same-kind casting.
    """

    regex: Regex | None = None
    rename: Rename | None = None
    strict: bool = True
    cast: bool = False

    def __post_init__(self) -> None:
        _require_mapping(self.rename)
        renames = list((self.rename or {}).values())
        by_key = [isinstance(rename, Mapping) for rename in renames]
        if any(by_key) and not all(by_key):
            raise MismatchError(
                "rename has replacements beside mappings: pass {pattern: replacement}, "
                "or {key: {pattern: replacement}} for some of the components; nothing "
                "was loaded."
            )
        patterns: list[Any] = [] if self.regex is None else [self.regex]
        if isinstance(self.regex, Mapping):
            patterns = list(self.regex.values())
            if not patterns:
                raise MismatchError(
                    "regex names no component, so nothing would be loaded. Pass "
                    "{key: pattern}, or one pattern for all of the components."
                )
        mappings: list[Any] = renames if any(by_key) else [self.rename or {}]
        for rename in mappings:
            patterns += rename
            for replacement in rename.values():
                _require_replacement(replacement)
        for pattern in patterns:
            _require_pattern(pattern)

    @property
    def is_plain(self) -> bool:
        """Whether nothing was asked for but the components."""
        is_named = self.regex is not None or bool(self.rename)
        return self.strict and not self.cast and not is_named

    def is_whole(self, key: str) -> bool:
        """Whether the state of a component is simply replaced."""
        return self.strict and not self.cast and not self.is_by_name(key)

    def selects(self, key: str) -> bool:
        """Whether only some of the leaves of a component are loaded."""
        return self._regex_of(key) is not None

    def is_by_name(self, key: str) -> bool:
        """Whether the names of its leaves decide how a component is loaded."""
        return self.selects(key) or bool(self._rename_of(key))

    def wanted(self, keys: Iterable[str]) -> list[str]:
        """Return the keys of the components that are not left alone.

        Raises:
          MissingKeyError: another one was asked for.
        """
        wanted = list(keys)
        if isinstance(self.regex, Mapping):
            _require_keys("regex", self.regex, wanted)
            wanted = [key for key in wanted if key in self.regex]
        if self._renames_by_key:
            _require_keys("rename", self.rename or (), wanted)
        return wanted

    def questions(self, keys: Iterable[str]) -> list[list[str]]:
        """Return the components of which leaves are selected, by what selects them."""
        by_key = isinstance(self.regex, Mapping) or self._renames_by_key
        return _grouped([key for key in keys if self.is_by_name(key)], by_key=by_key)

    def selections(self, names: _Names) -> dict[str, Selection]:
        """Return what to select in each component.

        Args:
          names: The names of all leaves of the load that have one.

        Raises:
          MismatchError: the replacement for a name is not valid.
        """
        full = self._with_full_regex(names)
        matching = {
            key: Selection(regex=self._regex_of(key), key=key, is_full=key in full)
            for key in names
        }
        renames = self._full_renames(
            {key: list(filter(matching[key].matches, names[key])) for key in names}
            if self.rename
            else {}
        )
        return {
            key: Selection(
                regex=matching[key].regex,
                rename=self._rename_of(key),
                strict=self.strict,
                cast=self.cast,
                key=key,
                is_full=key in full,
                full_renames=renames.get(key, frozenset()),
            )
            for key in names
        }

    def _with_full_regex(self, names: _Names) -> set[str]:
        """Return the keys of components whose pattern is for full names."""
        found: set[str] = set()
        keys = [key for key in names if self._regex_of(key) is not None]
        for group in _grouped(keys, by_key=isinstance(self.regex, Mapping)):
            regex = self._regex_of(group[0]) or ""
            if not any(re.match(regex, name) for key in group for name in names[key]):
                found.update(group)
        return found

    def _full_renames(self, names: _Names) -> dict[str, frozenset[str]]:
        """Return the patterns of `rename` that are for full names, by key."""
        found: dict[str, frozenset[str]] = {}
        keys = [key for key in names if self._rename_of(key)]
        for group in _grouped(keys, by_key=self._renames_by_key):
            before: dict[str, str] = {}
            full: frozenset[str] = frozenset()
            for pattern, replacement in self._rename_of(group[0]).items():
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

    def _regex_of(self, key: str) -> str | None:
        """Return the pattern for the leaves of a component that is not left alone."""
        return self.regex[key] if isinstance(self.regex, Mapping) else self.regex

    def _rename_of(self, key: str) -> Mapping[str, str]:
        rename: Any = self.rename or {}
        found: Mapping[str, str] = rename
        return rename.get(key, {}) if self._renames_by_key else found

    @property
    def _renames_by_key(self) -> bool:
        return any(isinstance(x, Mapping) for x in (self.rename or {}).values())


def _grouped(keys: Sequence[str], *, by_key: bool) -> list[list[str]]:
    """Return keys each by itself, or all together, if there are any."""
    return [[key] for key in keys] if by_key else [list(keys)] if keys else []


def _require_mapping(rename: Any) -> None:
    if rename is not None and not isinstance(rename, Mapping):
        raise MismatchError(
            f"rename is of type {type(rename).__name__}: pass a dict from pattern to "
            f"replacement, such as {{'^encoder': 'torso'}}."
        )


def _require_pattern(pattern: Any) -> None:
    try:
        if not isinstance(re.compile(pattern).pattern, str):
            raise TypeError
    except TypeError as error:
        raise MismatchError(
            f"{shown(pattern)} is not a regular expression. Pass one as text, in which "
            f"| is between alternatives, as in 'enc/|dec/', or pass a mapping from "
            f"keys to such; nothing was loaded."
        ) from error
    except (re.error, RecursionError, OverflowError) as error:
        raise MismatchError(
            f"{shown(pattern)} is not a regular expression: {reason(error)}. Correct "
            f"it, or pass re.escape(name) to match a name as it is; nothing was loaded."
        ) from error


def _require_replacement(replacement: Any) -> None:
    if not isinstance(replacement, str) and not callable(replacement):
        raise MismatchError(
            f"rename replaces names by text, not by {shown(replacement)}. Pass a dict "
            f"from pattern to replacement; nothing was loaded."
        )


def _require_keys(argument: str, named: Iterable[str], keys: Sequence[str]) -> None:
    unknown = [key for key in named if key not in keys]
    if unknown:
        raise MissingKeyError(
            f"{argument} names {listed(unknown)}, and to be loaded are "
            f"{listed(keys, 'no components')}. Correct its keys; nothing was loaded."
        )

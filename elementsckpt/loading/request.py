"""What a load was asked for, checked before anything is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import force_setattr, replace

from ..errors import MismatchError, MissingKeyError, reason
from ..user.arguments import flag, shown
from .verbs import Verb

Regex = str | Mapping[str, str]
Rename = Mapping[str, str] | Mapping[str, Mapping[str, str]]
_FLAGS = ("strict", "cast", "mmap", "verify", "allow_pickle", "dry_run")


class Request(Struct, frozen=True, kw_only=True):
    """What was asked for; components by their keys in the object that loads.

    Attributes:
      verb: What the user called.
      keys: Components to load, our keys to those in the save; None for all that are
        in the save. Those that `regex` leaves alone are not among them.
      regex: Matches the names of leaves, from their start; None matches all. Or such a
        pattern for each of some components; the others are left alone.
      rename: Pattern to replacement, for the saved names that matched. Or such a
        mapping for each of some components.
      strict: Whether a matched leaf that only one side has is an error.
      cast: Whether dtypes may differ, within NumPy's same-kind casting.
      mmap: Whether arrays are mapped instead of read.
      verify: Whether what is mapped is verified, as all that is read is.
      allow_pickle: Whether code from the save may run: pickles and imports. None if
        that depends on where the save is.
      plain: Whether states are for looking at: NamedTuples and dataclasses become
        dicts, arrays of JAX and torch NumPy's, functions their import paths.
      dry_run: Whether what does not fit is reported instead of raised, and nothing is
        handed to components.

    Raises:
      ValueError: an argument makes no sense.
      MismatchError: a pattern or a replacement is not valid.
      MissingKeyError: a component that is not loaded has a pattern.
    """

    verb: Verb
    keys: Mapping[str, str] | None = None
    regex: Regex | None = None
    rename: Rename | None = None
    strict: bool = True
    cast: bool = False
    mmap: bool = False
    verify: bool = True
    allow_pickle: bool | None = None
    plain: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        for name in _FLAGS:
            value = getattr(self, name)
            if type(value) is not bool and not (
                name == "allow_pickle" and value is None
            ):
                force_setattr(self, name, flag(name, value))
        if not self.verify and not self.mmap:
            raise ValueError(
                "verify=False is for mmap=True: leave it out, as what is read is "
                "verified on the way."
            )
        _check_regex(self.regex)
        _check_rename(self.rename)
        if self.keys is not None:
            force_setattr(self, "keys", self._wanted(self.keys))

    def of_save(self, keys: Iterable[str], *, is_trusted: bool) -> Request:
        """Return what is asked of a save.

        Args:
          keys: The components that it has.
          is_trusted: Whether code from it may run, if the user did not say.
        """
        allowed = is_trusted if self.allow_pickle is None else self.allow_pickle
        wanted = {key: key for key in keys} if self.keys is None else self.keys
        return replace(self, keys=wanted, allow_pickle=allowed)

    @property
    def leaves_out(self) -> bool:
        """Whether pickled leaves are left out, instead of refused."""
        return self.plain and not self.allow_pickle

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
        return self.regex_of(key) is not None

    def is_by_name(self, key: str) -> bool:
        """Whether the names of its leaves decide how a component is loaded."""
        return self.selects(key) or bool(self.rename_of(key))

    def regex_of(self, key: str) -> str | None:
        """Return the pattern for the leaves of a component that is not left alone."""
        return self.regex[key] if isinstance(self.regex, Mapping) else self.regex

    def rename_of(self, key: str) -> Mapping[str, str]:
        """Return the patterns that rename leaves of a component."""
        rename: Any = self.rename or {}
        found: Mapping[str, str] = rename
        return rename.get(key, {}) if self.renames_by_key else found

    @property
    def renames_by_key(self) -> bool:
        """Whether `rename` has a mapping for each of some components."""
        return any(isinstance(x, Mapping) for x in (self.rename or {}).values())

    def _wanted(self, keys: Mapping[str, str]) -> dict[str, str]:
        """Return the components that are not left alone."""
        wanted = dict(keys)
        if isinstance(self.regex, Mapping):
            _require_keys("regex", self.regex, wanted)
            wanted = {key: keys[key] for key in keys if key in self.regex}
        if self.renames_by_key:
            _require_keys("rename", self.rename or (), wanted)
        return wanted


def _check_regex(regex: Any) -> None:
    if isinstance(regex, Mapping) and not regex:
        raise MismatchError(
            "regex names no component, so nothing would be loaded. Pass "
            "{key: pattern}, or one pattern for all of the components."
        )
    patterns = regex.values() if isinstance(regex, Mapping) else [regex]
    for pattern in patterns if regex is not None else ():
        _require_pattern(pattern)


def _check_rename(rename: Any) -> None:
    if rename is not None and not isinstance(rename, Mapping):
        raise MismatchError(
            f"rename is of type {type(rename).__name__}: pass a dict from pattern to "
            f"replacement, such as {{'^encoder': 'torso'}}."
        )
    renames = list((rename or {}).values())
    by_key = [isinstance(x, Mapping) for x in renames]
    if any(by_key) and not all(by_key):
        raise MismatchError(
            "rename has replacements beside mappings: pass {pattern: replacement}, "
            "or {key: {pattern: replacement}} for some of the components; nothing "
            "was loaded."
        )
    for pairs in renames if any(by_key) else [rename or {}]:
        for pattern, replacement in pairs.items():
            _require_replacement(replacement)
            _require_pattern(pattern)


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


def _require_keys(argument: str, named: Iterable[str], keys: Iterable[str]) -> None:
    known = list(keys)
    unknown = [key for key in named if key not in known]
    if unknown:
        raise MissingKeyError(
            f"{argument} names {_listed(unknown)}, and to be loaded are "
            f"{_listed(known)}. Correct its keys; nothing was loaded."
        )


def _listed(keys: Sequence[str]) -> str:
    return ", ".join(map(repr, keys)) or "no components"

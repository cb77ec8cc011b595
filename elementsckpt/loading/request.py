"""The arguments of a load, checked before anything is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import force_setattr, replace

from ..errors import MismatchError, MissingKeyError, reason
from ..user import hints
from ..user.arguments import flag, shown
from .verbs import Verb

Regex = str | Mapping[str, str]
Rename = Mapping[str, str] | Mapping[str, Mapping[str, str]]
_FLAGS = ("strict", "cast", "mmap", "verify", "allow_pickle", "dry_run")


class Request(Struct, frozen=True):
    """The components and leaves to load, by the keys of the object that loads.

    Attributes:
      verb: What the user called.
      keys: Components to load, our keys to the keys in the save; None for all in the
        save. Components that `regex` leaves out are not among them.
      regex: Pattern that matches names of leaves from their start; None matches all.
        Or a mapping from keys to patterns, which leaves out other components.
      rename: Patterns to replacements, for the saved names that `regex` matched. Or a
        mapping from keys to such mappings.
      strict: Whether a matched leaf that only one side has is an error.
      cast: Whether dtypes may differ, within NumPy's same-kind casting.
      mmap: Whether arrays are mapped instead of read.
      verify: Whether mapped arrays are verified; those that are read always are.
      allow_pickle: Whether code from the save may run: pickles and imports. None if
        that depends on where the save is.
      plain: Whether NamedTuples and dataclasses become dicts, arrays of JAX and torch
        NumPy arrays, and functions their import paths.
      dry_run: Whether to report misfits instead of raising an error, and to call no
        component's `load()`.
      memory: Returns memory for what is read, uint8[n] for n; None for that of the
        process, into which it must fit.

    Raises:
      ValueError: an argument is not valid.
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
    memory: Callable[[int], Any] | None = None

    def __post_init__(self) -> None:
        for name in _FLAGS:
            value = getattr(self, name)
            if value is not None or name != "allow_pickle":
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

    @property
    def exact_keys(self) -> list[str]:
        """Components that are loaded as they are in the save, under the same key."""
        is_exact = self.regex is None and not self.rename and self.strict
        pairs = (self.keys or {}).items() if is_exact and not self.cast else ()
        return [ours for ours, theirs in pairs if ours == theirs]

    def of_save(self, keys: Iterable[str], *, is_trusted: bool) -> Request:
        """Return the request for one save.

        Args:
          keys: Keys of the components that the save has.
          is_trusted: Whether code from it may run, if `allow_pickle` is None.
        """
        wanted = {key: key for key in keys} if self.keys is None else self.keys
        may_run = is_trusted if self.allow_pickle is None else self.allow_pickle
        return replace(self, keys=self._wanted(wanted), allow_pickle=may_run)

    @property
    def leaves_out(self) -> bool:
        """Whether pickled leaves are left out, instead of refused."""
        return self.plain and not self.allow_pickle

    @property
    def less(self) -> str:
        """Advice on how to load less: " with" the arguments for that, or ""."""
        return self.verb.by("keys", "regex")

    def is_whole(self, key: str) -> bool:
        """Whether the whole state of a component is replaced without comparison."""
        return self.strict and not self.cast and not self.is_by_name(key)

    def selects(self, key: str) -> bool:
        """Whether only some of the leaves of a component are loaded."""
        return self.regex_of(key) is not None

    def is_by_name(self, key: str) -> bool:
        """Whether the names of its leaves decide how a component is loaded."""
        return self.selects(key) or bool(self.rename_of(key))

    def regex_of(self, key: str) -> str | None:
        """Return the pattern for the leaves of a component, or None for all."""
        return self.regex[key] if isinstance(self.regex, Mapping) else self.regex

    def rename_of(self, key: str) -> Mapping[str, str]:
        """Return the patterns that rename leaves of a component."""
        rename: Mapping[str, Any] = self.rename or {}
        return rename.get(key, {}) if self.renames_by_key else rename

    @property
    def renames_by_key(self) -> bool:
        """Whether `rename` maps keys to mappings."""
        return any(isinstance(x, Mapping) for x in (self.rename or {}).values())

    def _wanted(self, keys: Mapping[str, str]) -> dict[str, str]:
        """Return the components that `regex` does not leave out."""
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
        require_pattern(pattern)


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
            require_pattern(pattern)


def require_pattern(pattern: Any) -> None:
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
            f"{argument} names {hints.listed(unknown)}, but the keys to load are "
            f"{hints.listed(known, 'no components')}. Correct its keys; nothing was "
            f"loaded."
        )

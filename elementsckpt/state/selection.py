"""Which leaves of a component to load, and under which names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct

from ..errors import MismatchError, reason
from . import saved_tree


class Selection(Struct, frozen=True):
    """Which leaves of a component to load.

    Attributes:
      regex: Matches the names of leaves, from their start; None matches all.
      rename: Patterns to replacements, for the saved names that matched.
      cast: Whether dtypes may differ, within NumPy's same-kind casting, and typed keys
        may replace legacy ones and the reverse.
      key: The component's key, with which full names begin.
      is_full: Whether `regex` matches full names.
      full_renames: The patterns of `rename` that match full names.
    """

    regex: str | None = None
    rename: Mapping[str, str] | None = None
    cast: bool = False
    key: str = ""
    is_full: bool = False
    full_renames: frozenset[str] = frozenset()

    def matches(self, name: str) -> bool:
        """Return whether the leaf of this name is selected."""
        if self.regex is None:
            return True
        name = saved_tree.full_name(self.key, name) if self.is_full else name
        return re.match(self.regex, name) is not None

    def renamed(self, name: str, used: set[str] | None = None) -> str:
        """Return the name under which a saved leaf is loaded.

        Args:
          name: Its name.
          used: Gets the patterns that match.
        """
        for pattern, replacement in (self.rename or {}).items():
            is_full = pattern in self.full_renames
            before = saved_tree.full_name(self.key, name) if is_full else name
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
        """Return a renamed full name without the key, which must not have changed."""
        if name != self.key and not name.startswith(f"{self.key}/"):
            other, _, rest = name.partition("/")
            pair = {other: self.key} if rest else "{key_here: key_in_the_save}"
            raise MismatchError(
                f"rename takes {before} out of its component, to {name}. Keep "
                f"{self.key!r} in the replacement, or load what is saved under another "
                f"key with keys={pair}; nothing was loaded."
            )
        return name[len(self.key) + 1 :]

"""Matches leaves that have the same name, by the keys that lead to them.

`{"a/b": 1, "a": {"b": 2}}` and `{"": {"a": 1}, "a": 2}` have two leaves of one name.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import saved_tree

# Keys, field names or positions that lead to a leaf, the outermost first.
Keys = tuple[Any, ...]


_FORMS: tuple[Callable[[Keys], Any], ...] = (
    lambda keys: tuple((type(key), key) for key in keys),
    lambda keys: tuple(saved_tree.part(key).count("/") for key in keys),
    lambda keys: None,  # Those that are left.
)


def match(
    saved: Sequence[tuple[str, Keys]], current: Sequence[tuple[str, Keys]]
) -> tuple[dict[int, int], dict[str, str]]:
    """Match leaves by their names, and those with one name by their keys.

    Args:
      saved: Name and keys of each saved leaf.
      current: Name and keys of each current leaf.

    Returns:
      Positions in `current` by positions in `saved`, and a problem for each name whose
      leaves cannot be told apart.
    """
    before, now = _positions(saved), _positions(current)
    pairs: dict[int, int] = {}
    problems: dict[str, str] = {}
    for name, those in before.items():
        these = now.get(name, [])
        if not these:
            continue
        if len(those) == len(these):
            found = _matched(
                {x: saved[x][1] for x in those}, {x: current[x][1] for x in these}
            )
            pairs |= found
            if len(found) == len(those):
                continue
            other = "in other places than the current ones"
        else:
            other = f"and {len(these)} current ones"
        problems[name] = f"{len(those)} saved leaves have this name {other}"
    return pairs, problems


def _positions(named: Sequence[tuple[str, Keys]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = collections.defaultdict(list)
    for position, (name, _) in enumerate(named):
        found[name].append(position)
    return found


def _matched(saved: Mapping[int, Keys], current: Mapping[int, Keys]) -> dict[int, int]:
    """Return pairs of leaves of one name, as far as it is clear which belong together.

    A template may name a key of a mapping that the save has itself, and `rename`
    changes names alone. So what equal keys leave is matched by how the keys divide the
    name, and one leaf on each side is a pair.
    """
    pairs: dict[int, int] = {}
    for form in _FORMS:
        those = _alone(saved.keys() - pairs.keys(), saved, form)
        these = _alone(current.keys() - {*pairs.values()}, current, form)
        pairs |= {those[x]: these[x] for x in those.keys() & these.keys()}
    return pairs


def _alone(
    numbers: set[int], keys: Mapping[int, Keys], form: Callable[[Keys], Any]
) -> dict[Any, int]:
    """Return those whose keys have a form that no other has, by the form."""
    forms = {number: form(keys[number]) for number in numbers}
    counts = collections.Counter(forms.values())
    return {form: number for number, form in forms.items() if counts[form] == 1}

"""The form of a value when it was made, and whether what is saved still has this form.

A program that resumes makes the value as before, and the saved one has to fit then. If
it will not, a warning says so at the save, not at the restart.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import msgspec
import xxhash
from msgspec.structs import replace

from ..errors import MismatchError
from ..format import scalars
from ..format.manifest import OWN_VALUE, LeafGroup, Tree
from ..kinds import leaves
from ..state import matching, pytrees, saved_tree, specs, walking
from ..state.selection import Selection

_MOST_LINES = 3
_logger = logging.getLogger("elementsckpt")


class Form:
    """The names and specs of the leaves of a value, without the leaves.

    Args:
      flat: The value, taken apart.

    Attributes:
      keys: Generator and shape of its typed keys, by name.
    """

    def __init__(self, flat: pytrees.Flat) -> None:
        stand_ins = list(map(specs.stand_in, flat.values, flat.kinds))
        known: dict[Any, Any] = {}  # Equal ones are kept once, as most are equal.
        values = [known.setdefault(spec, spec) for spec, _ in stand_ins]
        kinds = [kind for _, kind in stand_ins]
        self._flat = replace(  # Without what holds leaves.
            flat, values=values, kinds=kinds, containers=[], opened=[]
        )
        self.keys = {
            name: (spec.dtype, spec.shape)
            for name, spec in zip(flat.names, values, strict=True)
            if spec.kind == "key"
        }
        self._fitting: Any = None
        self._is_left = False

    def check(self, key: str, saved: Tree) -> None:
        """Warn, once, if the saved value would not fit the value as it was made."""
        if self._is_left:
            return
        outline = xxhash.xxh3_128_digest(msgspec.json.encode(_outline(saved)))
        if outline == self._fitting:  # The same as in the last save.
            return
        lines = self._differences(key, saved)
        self._fitting, self._is_left = outline, bool(lines)
        if lines:
            more = f"; and {len(lines) - _MOST_LINES} more"
            _logger.warning(
                "%r is saved in another form than its Value was made with: %s%s. A "
                "program that makes it as this one did cannot resume from that. Make "
                "it in the form that training gives it, in JAX with eval_shape().",
                key,
                "; ".join(lines[:_MOST_LINES]),
                more if len(lines) > _MOST_LINES else "",
            )

    def _differences(self, key: str, saved: Tree) -> list[str]:
        found = [x for group in saved.leaves for x in leaves.named(group).specs(group)]
        with contextlib.suppress(MismatchError):  # There are too many names.
            names = walking.names(saved, walking.Allowance())
            entries = [(name, number, found[number]) for name, number in names]
            plan = matching.plan(
                self._flat,
                entries,
                Selection(),
                key,
                lambda: walking.keys(saved, walking.Allowance()),
            )
            _decide(plan, saved)
            left = matching.differences(plan.problems, plan.missing, plan.unexpected)
            return [f"{saved_tree.full_name(key, name)}: {what}" for name, what in left]
        return []


def _outline(saved: Tree) -> list[Any]:
    """Return what forms can differ in, computed quickly."""
    return [[x.kind, x.dtype, x.shape, _types(x), x.names] for x in saved.leaves]


def _types(group: LeafGroup) -> Any:
    if group.kind == "python":
        return list(map(_type, group.value))
    return None if group.kind in OWN_VALUE else group.value


def _type(code: Any) -> Any:
    if type(code) is not dict:
        return type(code).__name__
    ((name, content),) = code.items()
    return content[0] if name == "$numpy" else name


def _decide(plan: matching.Plan, saved: Tree) -> None:
    """Decide about numbers in the manifest; all other undecided leaves fit."""
    values = {
        first + index: scalars.decode(code)
        for first, group in saved_tree.numbered(saved)
        if group.kind == "python"
        for index, code in enumerate(group.value)
    }
    plan.undecided = [entry for entry in plan.undecided if entry[1] in values]
    matching.decide(plan, values)

"""The walk that loads: it checks all of a graph, and only then changes what is live.

What never changes, such as a tuple, is built when what it holds is there; what is
hashed is filled when its keys are.
"""

from __future__ import annotations

import copy
import logging
import types
from collections.abc import Callable
from typing import Any

from ..errors import DamagedError, reason
from ..format import scalars
from . import arrays, graphs
from .capturing import Capture
from .families import Refused
from .names import GRAPH
from .node import Code
from .pairing import UNMADE, Pairing

_logger = logging.getLogger("elementsckpt")


class Restore(Pairing):
    """Puts a graph into one live environment; its arguments are those of `Pairing`."""

    def check(self, env: Any) -> None:
        """Compare the graph with a live environment; nothing changes.

        Notes what does not fit in `problems`.

        Raises:
          ValueError, TypeError, KeyError, IndexError: no environment has this graph.
        """
        self.pair(env)
        if not self.problems:
            arrays.settle(self)
            self._build()
        if not self.problems:
            self._verify()

    def differences(self) -> dict[str, tuple[str, str]]:
        """Return versions, saved and here, where they differ."""
        graph = self._graph
        found = {x: (y, graphs.version_of(x)) for x, y in graph.libraries.items()}
        found["id"] = graph.id, graphs.id_of(self.root)
        return {
            name: (saved, here)
            for name, (saved, here) in found.items()
            if saved != here and here
        }

    def _build(self) -> None:
        """Make targets from others, those first that the others need.

        What is made of something that is hashed has to wait until that is filled.
        """
        late: set[int] = set()
        for first in self.pending:
            stack, begun = [first], set()
            while stack:
                number = stack[-1]
                if number not in self.pending or self.targets[number] is not UNMADE:
                    stack.pop()
                    continue
                kind: Any = self.kinds[number]
                needed = _numbers(kind.needs(self.nodes[number]))
                if number in begun:
                    stack.pop()
                    if (kind.is_hashed and needed) or not late.isdisjoint(needed):
                        late.add(number)
                    elif number not in late:
                        self._build_one(number)
                    continue
                begun.add(number)
                below = [
                    x
                    for x in needed
                    if x in self.pending and self.targets[x] is UNMADE and x not in late
                ]
                if not begun.isdisjoint(below):
                    raise ValueError("a value that is made of itself")
                stack += below
                if number in late:
                    stack.pop()
        self._late = late

    def _verify(self) -> None:
        self._runs_hashes = False
        for number in self.queue:
            kind: Any = self.kinds[number]
            if kind.is_hashed:
                self.require_hashable(kind.keys(self.nodes[number]))
            kind.verify(self, number, self.nodes[number])

    def require_hashable(self, codes: list[Code]) -> None:
        """Refuse values that have no hash, or that were made to have the same."""
        plain = [code for code in codes if type(code) is not list]
        scalars.refuse_twins(plain)
        numbers, seen = _numbers(codes), set()
        while numbers:
            number = numbers.pop()
            if number not in seen:
                seen.add(number)
                kind: Any = self.kinds[number]
                if number in self.pending:
                    numbers += _numbers(kind.hashed(self.nodes[number]))
                else:
                    target = self.targets[number]
                    plain.append(target)
                    if type(type(target).__hash__) is types.FunctionType:
                        self._runs_hashes = True
        if any(type(value).__hash__ is None for value in plain):
            raise TypeError("a key that has no hash")

    def _build_one(self, number: int) -> None:
        kind: Any = self.kinds[number]
        context = self.pending[number]
        self.targets[number] = kind.build(self, number, self.nodes[number], context)

    def load(self) -> None:
        """Put the state into the live environment, which was checked."""
        undo = self._undo() if self._runs_hashes else None
        try:
            self._fill_all()
        except Exception as error:
            if undo is None:
                raise
            undo()
            raise DamagedError(
                f"The state of an environment is not a valid save: its keys cannot be "
                f"hashed ({reason(error)}). Load another one; nothing has changed."
            ) from error
        for part, live, data in sorted(self.loads, key=lambda x: x[0].rank):
            if part.load is not None:
                part.load(live, data, *self.parts.extra(part))
        if self.unordered:
            self._tell_of_order()

    def _undo(self) -> Callable[[], None] | None:
        """Return what puts the state of now back; None if it cannot be had."""
        parts = self.parts.left_alone()
        try:
            now = copy.deepcopy(Capture(parts).run(self.root))
        except Refused:
            return None

        def undo() -> None:
            back = Restore(graphs.decode(now[GRAPH]), now, parts)
            back.check(self.root)
            back._fill_all()

        return undo

    def _fill_all(self) -> None:
        hashed: list[int] = []
        again: list[int] = []
        for number in self.queue:
            kind: Any = self.kinds[number]
            if kind.is_hashed or number in self._late:
                hashed.append(number)
            else:
                kind.fill(self, number, self.nodes[number])
            if self._late and not self._late.isdisjoint(self.below[number]):
                again.append(number)  # What it holds may be made only then.
        self._fill_hashed(hashed)
        for number in again:
            self._fill(number)

    def _fill(self, number: int) -> None:
        kind: Any = self.kinds[number]
        kind.fill(self, number, self.nodes[number])

    def _fill_hashed(self, hashed: list[int]) -> None:
        """Fill sets and dicts, whose keys are filled first."""
        done: set[int] = set()
        for first in hashed:
            kind: Any = self.kinds[first]
            if not _numbers(kind.keys(self.nodes[first])) and first not in self._late:
                self._fill(first)
                done.add(first)
        waiting = set(hashed) - done
        begun: set[int] = set()
        for first in hashed if waiting else ():
            stack = [first]
            while stack:
                number = stack[-1]
                if number in begun:
                    stack.pop()
                    if number in waiting:
                        waiting.discard(number)
                        if number in self._late:
                            self._build_one(number)
                        self._fill(number)
                    continue
                begun.add(number)
                stack += [x for x in self.below[number] if x not in begun]

    def _tell_of_order(self) -> None:
        _logger.warning(
            "%s is a set that comes in another order here than it was saved in: what "
            "depends on that differs, too. Text is hashed in another way by each "
            "process; set PYTHONHASHSEED, or sort the set where it is read.",
            self.names.path(self.unordered[0]),
        )


def _numbers(codes: list[Code]) -> list[int]:
    """Return the numbers of the nodes that values refer to."""
    return [code[0] for code in codes if type(code) is list]

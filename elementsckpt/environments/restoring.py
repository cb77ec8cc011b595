"""The walk that loads: nodes beside the live environment → its state, in place.

`check` goes through both, chooses what each node becomes, and makes what is not there,
which nothing that is live refers to yet. Only `load` changes live objects.
"""

from __future__ import annotations

import copy
import inspect
import logging
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import DamagedError, reason
from ..format import scalars
from ..kinds import references
from . import arrays, callables, graphs, nodes, objects, values
from .capturing import Capture
from .families import Part, Parts, Refused, Unfit
from .graphs import Graph
from .instances import HERE
from .names import GRAPH, Names, Origin
from .node import MISSING, Code, Node, NodeKind

_logger = logging.getLogger("elementsckpt")
_MOST_CLASSES = 10
# What code of a save may be made of, whatever the environment reaches.
_HARMLESS = frozenset({*references.BUILTINS, frozenset, object, np.ndarray})


_HARMLESS_METHODS = (
    *("random:Random.", "collections:", "threading:Condition."),
    *("numpy.random._generator:Generator.", "numpy.random.mtrand:RandomState."),
)


class _Unmade:
    """Stands for a target that is not made yet."""


_UNMADE: Any = _Unmade


class Restore:
    """Puts a graph into one live environment.

    Args:
      graph: The graph.
      leaves: The leaves by name.
      parts: The parts.

    Attributes:
      targets: As in `node.Loading`, like `claimed` and `arrays`.
      problems: What does not fit, as sentences.
      loads: What is to be called once all is checked: parts, objects and data.
    """

    def __init__(self, graph: Graph, leaves: dict[str, Any], parts: Parts) -> None:
        self.parts = parts
        count = len(graph.nodes)
        self.targets: list[Any] = [_UNMADE] * count
        self.claimed: dict[int, Any] = {}
        self.arrays: dict[int, Any] = {}
        self.problems: list[str] = []
        self.loads: list[tuple[Part, Any, Any]] = []
        self._graph, self._leaves = graph, leaves
        self._nodes: list[Node] = graph.nodes
        self._kinds: list[NodeKind | None] = [None] * count
        self._below: list[list[int]] = [[] for _ in range(count)]
        self._queue: list[tuple[int, Any]] = []
        self._pending: dict[int, Any] = {}
        self._origins: list[Origin] = [(0, "")] * count
        self._lives: dict[int, Any] = {}
        self._missing: dict[str, None] = {}
        self._unordered: list[int] = []
        self._root: Any = None
        self._known: _Known | None = None
        self.names = Names(self._origins, self._lives.get)

    # Checking

    def check(self, env: Any) -> None:
        """Compare the graph with a live environment; nothing changes.

        Notes what does not fit.

        Raises:
          ValueError, TypeError, KeyError, IndexError: no environment has this graph.
        """
        self._root = env
        self.visit([0], env, 0, "")
        place = 0
        while place < len(self._queue):
            number, live = self._queue[place]
            node = self._nodes[number]
            kind = self._kinds[number] = nodes.BY_NAME[node[0]]
            kind.pair(self, number, node, live)
            place += 1
        self._tell_of_classes()
        if not self.problems:
            arrays.settle(self)
            self._build()
        if not self.problems:
            self._verify()

    def visit(self, code: Code, live: Any, number: int, step: Any) -> Code:
        """Look at a value of a node beside a live one; return it decoded."""
        if type(code) is dict:
            name = code.get(values.LEAF)
            return values.decode(code) if name is None else self._number(name)
        if type(code) is not list:
            return code
        (below,) = code
        if type(below) is not int or not 0 <= below < len(self._kinds):
            raise ValueError("a reference to no node")
        self._below[number].append(below)
        if below not in self._lives:
            self._lives[below] = live
            self._origins[below] = number, step
            self._queue.append((below, live))
        return code

    def cls(self, index: Any, live: Any) -> Any:
        """Return a saved class, or None, which is a problem, if it is not imported."""
        if type(index) is not int or index < 0:
            raise ValueError("no number of a class")
        name = self._graph.classes[index]
        if live is not MISSING and objects.of(live).name == name:
            return type(live)
        found = references.find(name)
        if isinstance(found, type):
            return found
        self._missing[name] = None
        return None

    def leaf(self, name: Any) -> Any:
        """Return a leaf."""
        return self._leaves[name]

    def _number(self, name: Any) -> Any:
        found = self.leaf(name)
        if type(found) not in (int, float):
            raise ValueError("a number that is none")
        return found

    def fits(self, live: Any, cls: type) -> bool:
        """Return whether a live object may become the target of a node."""
        return type(live) is cls and id(live) not in self.claimed

    def claim(self, number: int, live: Any) -> None:
        """Make the live object the target of a node."""
        self.targets[number] = live
        self.claimed[id(live)] = live

    def pend(self, number: int, context: Any) -> None:
        """Have the target be built from others when these are there."""
        self._pending[number] = context

    def make(self, number: int, cls: type) -> Any:
        """Return a new object without content, or None, which is a problem."""
        has_call = any("__call__" in base.__dict__ for base in cls.__mro__)
        is_calling = has_call and not self._is_known(cls)
        if hasattr(cls, "__del__") and not self._is_live(cls):
            is_calling = True
        if is_calling or objects.layout(cls).is_hidden:
            what = f"{objects.shown(cls)} was saved, and there is none here"
            self.problem(number, f"{what}; {HERE}")
            return None
        try:
            return objects.make(cls)
        except TypeError as error:
            self.problem(number, f"{objects.name_of(cls)} cannot be made: {error}")
            return None

    def use(self, number: int, part: Part, live: Any, data: Any) -> None:
        """Check the data of a part, which is loaded once all is checked."""
        if part.check is not None:
            try:
                part.check(live, data, *self.parts.extra(part))
            except Unfit as error:
                for problem in error.problems:
                    self.problem(number, problem)
                self.problems += error.inside
        self.loads.append((part, live, data))

    def is_left(self, live: Any) -> bool:
        """Return whether a live object is left alone."""
        try:
            return self.parts.find(type(live)) is None
        except KeyError:
            return False

    def keep(self, live: Any) -> Code:
        """Return a reference to a live object that stays as it is."""
        self.targets.append(live)
        return [len(self.targets) - 1]

    def problem(self, number: int, text: str) -> None:
        """Note what does not fit."""
        self.problems.append(f"{self.names.path(number)}: {text}")

    def disorder(self, number: int) -> None:
        """Note a set that comes in another order than it was saved in."""
        self._unordered.append(number)

    def differences(self) -> dict[str, tuple[str, str]]:
        """Return versions, saved and here, where they differ."""
        graph = self._graph
        found = {x: (y, graphs.version_of(x)) for x, y in graph.libraries.items()}
        found["id"] = graph.id, graphs.id_of(self._root)
        return {
            name: (saved, here)
            for name, (saved, here) in found.items()
            if saved != here and here
        }

    # What may be called

    def function(self, name: str, code: str) -> Any:
        """Return a function of this name and code that the environment reaches."""
        return self._reached.functions.get((name, code))

    def named(self, name: str) -> Any:
        """Return what a module has under a name, unless calling it could do harm."""
        if name.endswith(":"):
            found = sys.modules.get(name[:-1])
            return found if self._is_live(found) else None
        found = references.find(name)
        is_known = found is not None and (self._is_known(found) or not callable(found))
        return found if is_known else None

    def require_trust(self, number: int, function: Any) -> None:
        """Note a problem if calling a function could do harm."""
        is_harmless = objects.name_of(function).startswith(_HARMLESS_METHODS)
        if not is_harmless and not self._is_known(function):
            name = objects.name_of(function)
            self.problem(number, f"{name} is not of what is here; {HERE}")

    def _is_known(self, value: Any) -> bool:
        """Return whether the live environment reaches code, or its modules have it."""
        if isinstance(value, type):
            if value in _HARMLESS or issubclass(value, np.generic):
                return True
        elif isinstance(value, np.ufunc):
            return True
        module = objects.module_of(value)
        return self._is_live(value) or module in self._reached.modules

    def _is_live(self, value: Any) -> bool:
        return id(value) in self._reached.code

    @property
    def _reached(self) -> _Known:
        if self._known is None:
            self._known = _Known(self._root, self.parts)
        return self._known

    def _tell_of_classes(self) -> None:
        if self._missing:
            found = sorted(self._missing)
            more = len(found) - _MOST_CLASSES
            listed = ", ".join(x.replace(":", ".") for x in found[:_MOST_CLASSES])
            rest = f" and {more} more" if more > 0 else ""
            self.problems.append(
                f"its classes {listed}{rest} are not imported here; import the modules "
                f"that have them"
            )

    # Building what never changes

    def _build(self) -> None:
        """Make targets from others, those first that the others need.

        What is made of something that is hashed has to wait until that is filled.
        """
        late: set[int] = set()
        for first in self._pending:
            stack, begun = [first], set()
            while stack:
                number = stack[-1]
                if number not in self._pending or self.targets[number] is not _UNMADE:
                    stack.pop()
                    continue
                kind: Any = self._kinds[number]
                needed = _numbers(kind.needs(self._nodes[number]))
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
                    if x in self._pending
                    and self.targets[x] is _UNMADE
                    and x not in late
                ]
                if not begun.isdisjoint(below):
                    raise ValueError("a value that is made of itself")
                stack += below
                if number in late:
                    stack.pop()
        self._late = late

    def _verify(self) -> None:
        self._is_hashed_by_others = False
        for number, _ in self._queue:
            kind: Any = self._kinds[number]
            if kind.is_hashed:
                self.require_hashable(kind.keys(self._nodes[number]))
            kind.verify(self, number, self._nodes[number])

    def require_hashable(self, codes: list[Code]) -> None:
        """Refuse values that have no hash, or that were made to have the same."""
        plain = [code for code in codes if type(code) is not list]
        scalars.refuse_twins(plain)
        numbers, seen = _numbers(codes), set()
        while numbers:
            number = numbers.pop()
            if number not in seen:
                seen.add(number)
                kind: Any = self._kinds[number]
                if number in self._pending:
                    numbers += _numbers(kind.hashed(self._nodes[number]))
                else:
                    target = self.targets[number]
                    plain.append(target)
                    if type(type(target).__hash__) is types.FunctionType:
                        self._is_hashed_by_others = True
        if any(type(value).__hash__ is None for value in plain):
            raise TypeError("a key that has no hash")

    def _build_one(self, number: int) -> None:
        kind: Any = self._kinds[number]
        context = self._pending[number]
        self.targets[number] = kind.build(self, number, self._nodes[number], context)

    # Loading

    def load(self) -> None:
        """Put the state into the live environment, which was checked."""
        undo = self._undo() if self._is_hashed_by_others else None
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
            part.load(live, data, *self.parts.extra(part))
        if self._unordered:
            self._tell_of_order()

    def _undo(self) -> Callable[[], None] | None:
        """Return what puts the state of now back; None if it cannot be had."""
        parts = self.parts.left_alone()
        try:
            now = copy.deepcopy(Capture(parts).run(self._root))
        except Refused:
            return None

        def undo() -> None:
            back = Restore(graphs.decode(now[GRAPH]), now, parts)
            back.check(self._root)
            back._fill_all()

        return undo

    def _fill_all(self) -> None:
        hashed: list[int] = []
        again: list[int] = []
        for number, _ in self._queue:
            kind: Any = self._kinds[number]
            if kind.is_hashed or number in self._late:
                hashed.append(number)
            else:
                kind.fill(self, number, self._nodes[number])
            if self._late and not self._late.isdisjoint(self._below[number]):
                again.append(number)  # What it holds may be made only then.
        self._fill_hashed(hashed)
        for number in again:
            self._fill(number)

    def value(self, code: Code) -> Any:
        """Return what a decoded value of a node is: itself, or the target."""
        found = self.target(code)
        return None if found is MISSING else found

    def target(self, code: Code) -> Any:
        """Return the same; MISSING for what is left alone and is not there."""
        if type(code) is not list:
            return code
        found = self.targets[code[0]]
        return None if found is _UNMADE else found

    def _fill(self, number: int) -> None:
        kind: Any = self._kinds[number]
        kind.fill(self, number, self._nodes[number])

    def _fill_hashed(self, hashed: list[int]) -> None:
        """Fill sets and dicts, whose keys are filled first."""
        done: set[int] = set()
        for first in hashed:
            kind: Any = self._kinds[first]
            if not _numbers(kind.keys(self._nodes[first])) and first not in self._late:
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
                stack += [x for x in self._below[number] if x not in begun]

    def _tell_of_order(self) -> None:
        _logger.warning(
            "%s is a set that comes in another order here than it was saved in: what "
            "depends on that differs, too. Text is hashed in another way by each "
            "process; set PYTHONHASHSEED, or sort the set where it is read.",
            self.names.path(self._unordered[0]),
        )


class _Known:
    """Code that a live environment reaches.

    Attributes:
      code: Classes, functions and modules, by their identities.
      modules: Names of the modules that have its classes, but for those of libraries
        whose functions could do harm.
      functions: Functions by name and digest of their code.
    """

    def __init__(self, env: Any, parts: Parts) -> None:
        walk = Capture(parts.left_alone())
        walk.walk(env)
        self.code: dict[int, Any] = {}
        self.modules: set[str] = set()
        self.functions: dict[tuple[str, str], Any] = {}
        for value in walk.found:
            cls = type(value)
            self.code[id(cls)] = cls
            root = objects.module_of(cls).partition(".")[0]
            if root not in sys.stdlib_module_names and root not in _LIBRARIES:
                self.modules.add(objects.module_of(cls))
            if inspect.isroutine(value) or isinstance(value, type | types.ModuleType):
                self.code[id(value)] = value
            if type(value) is types.FunctionType:
                key = objects.name_of(value), callables.digest(value.__code__)
                self.functions[key] = value
        self._held = walk.found


_LIBRARIES = frozenset({"numpy", "jax", "jaxlib", "torch", "builtins"})


def _numbers(codes: list[Code]) -> list[int]:
    """Return the numbers of the nodes that values refer to."""
    return [code[0] for code in codes if type(code) is list]

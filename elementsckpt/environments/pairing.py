"""The first half of the walk that loads: nodes beside the live environment.

It chooses what each node becomes, and makes what is not there, to which nothing that is
live refers yet. Nothing that is live changes.
"""

from __future__ import annotations

import functools
from typing import Any

from ..kinds import references
from . import nodes, objects, values
from .constants import Constants
from .families import Part, Parts, Unfit
from .graphs import Graph
from .instances import HERE
from .names import Names, Origin
from .node import MISSING, Code, Node, NodeKind
from .reached import Reached

_MOST_CLASSES = 10


class _Unmade:
    """Stands for a target that is not made yet."""


UNMADE: Any = _Unmade


class Pairing:
    """Goes through a graph beside one live environment.

    Args:
      graph: The graph.
      leaves: The leaves by name.
      parts: The parts.

    Attributes:
      targets: As in `node.Loading`, like `claimed` and `arrays`.
      problems: What does not fit, as sentences.
      loads: What is to be called once all is checked: parts, objects and data.
      nodes: The nodes.
      kinds: The kind of each; None as long as it is not met.
      below: The nodes that each refers to.
      queue: The nodes in the order in which they are met.
      pending: What is to be built from others, with what its kind needs for that.
      unordered: Sets that came in another order.
      root: The live environment.
    """

    def __init__(self, graph: Graph, leaves: dict[str, Any], parts: Parts) -> None:
        self.parts = parts
        count = len(graph.nodes)
        self.targets: list[Any] = [UNMADE] * count
        self.claimed: dict[int, Any] = {}
        self.arrays: dict[int, Any] = {}
        self.problems: list[str] = []
        self.loads: list[tuple[Part, Any, Any]] = []
        self.nodes: list[Node] = graph.nodes
        self.kinds: list[NodeKind | None] = [None] * count
        self.below: list[list[int]] = [[] for _ in range(count)]
        self.queue: list[int] = []
        self.pending: dict[int, Any] = {}
        self.unordered: list[int] = []
        self.root: Any = None
        self._graph, self._leaves = graph, leaves
        self._origins: list[Origin] = [(0, "")] * count
        self._lives: dict[int, Any] = {}
        self._constants = Constants([])
        self._marked: dict[int, Any] = {}  # Constants, by the number of the node.
        self._missing: dict[str, None] = {}
        self.names = Names(self._origins, self._lives.get)

    def pair(self, env: Any) -> None:
        """Go through the graph beside the environment; note what does not fit.

        Raises:
          ValueError, TypeError, KeyError, IndexError: no environment has this graph.
        """
        self.root = env
        self._look_for_constants()
        self.visit([0], env, 0, "")
        place = 0
        while place < len(self.queue):
            number = self.queue[place]
            live = self._lives[number]
            node = self.nodes[number]
            kind = self.kinds[number] = nodes.BY_NAME[node[0]]
            kind.pair(self, number, node, live)
            place += 1
        self._tell_of_classes()

    def visit(self, code: Code, live: Any, number: int, step: Any) -> Code:
        """Look at a value of a node beside a live one; return it decoded."""
        if type(code) is dict:
            name = code.get(values.LEAF)
            return values.decode(code) if name is None else self._number(name)
        if type(code) is not list:
            return code
        (below,) = code
        if type(below) is not int or not 0 <= below < len(self.kinds):
            raise ValueError("a reference to no node")
        self.below[number].append(below)
        if below not in self._lives:
            self._lives[below] = self._beside(below, live)
            self._origins[below] = number, step
            self.queue.append(below)
        elif self._lives[below] is MISSING and self.kinds[below] is None:
            self._lives[below] = self._beside(below, live)
        return code

    def _look_for_constants(self) -> None:
        found = map(references.find, self._graph.classes)
        classes = [x for x in found if isinstance(x, type)]
        if self._graph.constants:  # Which a save may name where it may name code.
            classes = [x for x in classes if self.reached.knows(x)]
        self._constants = Constants(classes)
        for number, *place in self._graph.constants:
            constant = self._constants.at(tuple(place))
            if constant is not None:
                self._marked[number] = constant

    def _beside(self, number: int, live: Any) -> Any:
        """Return the live object for a node: a constant for that constant alone."""
        if number in self._marked:
            return self._marked[number]
        is_other = number and self._constants.place_of(live) is not None
        return MISSING if is_other else live

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
            raise ValueError("another value in place of a number")
        return found

    def fits(self, live: Any, cls: type) -> bool:
        """Return whether a live object may become the target of a node."""
        return type(live) is cls and id(live) not in self.claimed

    def claim(self, number: int, live: Any) -> None:
        """Make the live object the target of a node."""
        self.targets[number] = live
        self.reserve(live)

    def reserve(self, live: Any) -> None:
        """Let the live object become the target of no other node."""
        self.claimed[id(live)] = live

    def pend(self, number: int, context: Any) -> None:
        """Have the target be built from others when these are there."""
        self.pending[number] = context

    def make(self, number: int, cls: type) -> Any:
        """Return a new object without content, or None, which is a problem."""
        has_call = any("__call__" in base.__dict__ for base in cls.__mro__)
        is_calling = has_call and not self.reached.knows(cls)
        if hasattr(cls, "__del__") and not self.reached.has(cls):
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
        self.unordered.append(number)

    def value(self, code: Code) -> Any:
        """Return what a decoded value of a node is: itself, or the target."""
        found = self.target(code)
        return None if found is MISSING else found

    def target(self, code: Code) -> Any:
        """Return the same; MISSING for what is left alone and is not there."""
        if type(code) is not list:
            return code
        found = self.targets[code[0]]
        return None if found is UNMADE else found

    def function(self, name: str, code: str) -> Any:
        """Return a function of this name and code that the environment reaches."""
        return self.reached.functions.get((name, code))

    def named(self, name: str) -> Any:
        """Return what a module has under a name, unless calling it could do harm."""
        return self.reached.named(name)

    def require_trust(self, number: int, function: Any) -> None:
        """Note a problem if calling a function could do harm."""
        if not self.reached.knows_method(function):
            name = objects.name_of(function)
            self.problem(number, f"{name} is not of what is here; {HERE}")

    @functools.cached_property
    def reached(self) -> Reached:
        """Code that the live environment reaches, which few saves need."""
        return Reached(self.root, self.parts)

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

"""The walk that saves: an environment → nodes and leaves.

An object's own methods are never asked for its state. Objects are looked at one after
another, those nearest to the environment first, so chains of any length are no problem.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Any

from ..format import scalars
from . import arrays, graphs, nodes, objects, values
from .constants import Constants
from .families import Parts, Refused
from .names import GRAPH, Names, Origin
from .node import Code, Node

REMEDY = (
    "Remove it, give parts={type: (save, load)}, or parts={type: None} if no step "
    "depends on it."
)


class Capture:
    """Takes one environment apart.

    Args:
      parts: The parts.

    Attributes:
      found: The objects, by the number of their nodes.
      leaves: The leaves by name.
      refused: What cannot be saved, as sentences.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.found: list[Any] = []
        self.nodes: list[Node | None] = []
        self.leaves: dict[str, Any] = {}
        self.arrays: list[tuple[int, Any]] = []
        self.refused: list[str] = []
        self.remedies: dict[str, None] = {}
        self._origins: list[Origin] = []
        self._numbers: dict[int, int] = {}  # By identity of what `found` holds.
        self._classes: dict[type, int] = {}
        self._encoders: dict[type, Any] = dict(values.ENCODERS)
        self._kinds: dict[type, Any] = {}
        self._modules: set[str] = set()  # Whose content is in `_globals`,
        self._globals: dict[int, str] = {}  # by identity.
        self.names = Names(self._origins, self.found.__getitem__)

    def run(self, env: Any) -> dict[str, Any]:
        """Return the state of the environment.

        Raises:
          Refused: something cannot be saved.
        """
        self.walk(env)
        if self.refused:
            remedy = " ".join(self.remedies)
            raise Refused(inside=self.refused, remedy=remedy)
        classes = list(self._classes)
        text = graphs.encode(classes, self.nodes, self._constants(), env)
        return {GRAPH: text, **self.leaves}

    def _constants(self) -> list[list[Any]]:
        known = Constants(dict.fromkeys(map(type, self.found)))
        places = [(number, known.place_of(x)) for number, x in enumerate(self.found)]
        return [[number, *place] for number, place in places if number and place]

    def walk(self, env: Any) -> None:
        """Look at everything that the environment reaches."""
        self.add(env, 0, "")
        number = 0
        while number < len(self.found):
            value = self.found[number]
            try:
                self.nodes[number] = self._kind(value).save(self, number, value)
            except Refused as error:
                self.refuse(number, error)
            except scalars.NotScalarError:
                what = (
                    f"{objects.shown(type(value))} with a value that only pickle holds"
                )
                self.refuse(number, Refused(what))
            number += 1
        arrays.arrange(self)

    def code(self, value: Any, number: int, step: Any) -> Code:
        """Return a value, or a reference to the node that it becomes."""
        cls = type(value)
        try:
            encode = self._encoders[cls]
        except KeyError:
            encode = self._encoders[cls] = values.encoder(cls)
        if encode is not None:
            return encode(value)
        if cls is tuple and values.is_plain(value):
            return values.encode_tuple(value)
        known = self._numbers.get(id(value))
        if known is None:
            known = self.add(value, number, step)
        return [known]

    def attributes(
        self, value: Any, number: int, skipped: Collection[str] = ()
    ) -> dict[str, Code]:
        """Return the attributes of an object as values."""
        own = objects.of(value).attributes(value)
        if skipped:
            own = {name: x for name, x in own.items() if name not in skipped}
        code, encoders, found = self.code, self._encoders, {}
        for name, attribute in own.items():
            if type(name) is not str:
                raise Refused(f"an object with an attribute that is called {name!r}")
            encode = encoders.get(type(attribute))
            if encode is not None:
                found[name] = encode(attribute)
            else:
                found[name] = code(attribute, number, name)
        if objects.of(value).is_environment:
            self._name_numbers(own, found, number)
        return found

    def _name_numbers(
        self, own: dict[str, Any], found: dict[str, Code], number: int
    ) -> None:
        """Make leaves of the numbers that are attributes of an environment."""
        steps = [x for x, value in own.items() if type(value) in (int, float)]
        for step, name in zip(steps, self.names.below(number, steps), strict=True):
            self.leaves[name] = own[step]
            found[step] = {values.LEAF: name}

    def cls(self, cls: type) -> int:
        """Return the number of a class."""
        return self._classes.setdefault(cls, len(self._classes))

    def global_name(self, value: Any) -> str | None:
        """Return the name of an object in one of the modules met so far, or None."""
        modules = {objects.module_of(cls) for cls in self._kinds}
        for module in sorted(modules - self._modules):
            self._modules.add(module)
            known = getattr(sys.modules.get(module), "__dict__", {})
            for name, found in list(known.items()):
                self._globals.setdefault(id(found), f"{module}:{name}")
        return self._globals.get(id(value))

    def leaf(self, number: int, value: Any) -> str:
        """Save a value as a leaf of its own, named after a node; return its name."""
        name = self.names.leaf(number)
        self.leaves[name] = value
        return name

    def add(self, value: Any, parent: int, step: Any) -> int:
        """Add a node for an object; return its number."""
        number = len(self.found)
        self.found.append(value)
        self.nodes.append(None)
        self._numbers[id(value)] = number
        self._origins.append((parent, step))
        return number

    def _kind(self, value: Any) -> Any:
        cls = type(value)
        kind = self._kinds.get(cls)
        if kind is None:
            kind = self._kinds[cls] = nodes.kind_of(cls, self.parts)
        return kind

    def refuse(self, number: int, error: Refused) -> None:
        """Note what cannot be saved."""
        if error.reason:
            self.refused.append(f"{self.names.path(number)} is {error.reason}")
        self.refused += error.inside
        self.remedies[error.remedy or REMEDY] = None

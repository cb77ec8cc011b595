"""The protocol of a kind of node, and what the two walks offer it.

A node is a list that JSON can hold: the name of its kind, its content, and for some the
number of its class and its attributes. A value in it is a number, text or None; an
object in braces, as `values` writes it; or a list of one number, which is another node.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

from .families import Part, Parts

Code = Any  # A value in a node.
Node = list[Any]


class _Missing:
    """Stands for a live object where there is none."""


MISSING: Any = _Missing


class Saving(Protocol):
    """What the walk that saves offers to kinds of node.

    Attributes:
      parts: The parts.
      arrays: Arrays of NumPy that were met, with the numbers of their nodes.
    """

    parts: Parts
    arrays: list[tuple[int, Any]]

    def code(self, value: Any, number: int, step: Any) -> Code:
        """Return a value, or a reference to the node that it becomes.

        Args:
          value: The value.
          number: The node that it is in.
          step: What leads from there to it: an attribute, or a key in a tuple of one.
        """

    def attributes(
        self, value: Any, number: int, skipped: Collection[str] = ()
    ) -> dict[str, Code]:
        """Return the attributes of an object as values."""

    def cls(self, cls: type) -> int:
        """Return the number of a class."""

    def leaf(self, number: int, value: Any) -> str:
        """Save a value as a leaf of its own, named after a node; return its name."""

    def global_name(self, value: Any) -> str | None:
        """Return the name of an object in one of the modules met so far, or None."""


class Loading(Protocol):
    """What the walk that loads offers to kinds of node.

    Attributes:
      parts: The parts.
      targets: What each node becomes: the live object, or a new one.
      claimed: Live objects that are targets, or may become these, by identity.
      arrays: What `arrays` knows of arrays, by the numbers of their nodes.
    """

    parts: Parts
    targets: list[Any]
    claimed: dict[int, Any]
    arrays: dict[int, Any]

    def visit(self, code: Code, live: Any, number: int, step: Any) -> Code:
        """Look at a value of a node beside a live one; return it decoded.

        References stay as they are.
        """

    def value(self, code: Code) -> Any:
        """Return what a decoded value of a node is: itself, or the target."""

    def target(self, code: Code) -> Any:
        """Return the same; MISSING for what is left alone and is not there."""

    def cls(self, index: Any, live: Any) -> Any:
        """Return a saved class, or None, which is a problem, if it is not imported."""

    def leaf(self, name: Any) -> Any:
        """Return a leaf."""

    def fits(self, live: Any, cls: type) -> bool:
        """Return whether a live object may become the target of a node."""

    def claim(self, number: int, live: Any) -> None:
        """Make the live object the target of a node."""

    def reserve(self, live: Any) -> None:
        """Let the live object become the target of no other node."""

    def make(self, number: int, cls: type) -> Any:
        """Return a new object without content, or None, which is a problem."""

    def pend(self, number: int, context: Any) -> None:
        """Have `build` make the target, from others, when these are there."""

    def use(self, number: int, part: Part, live: Any, data: Any) -> None:
        """Check the data of a part, which is loaded once all is checked."""

    def is_left(self, live: Any) -> bool:
        """Return whether a live object is left alone."""

    def keep(self, live: Any) -> Code:
        """Return a reference to a live object that stays as it is."""

    def function(self, name: str, code: str) -> Any:
        """Return a function of this name and code that the environment reaches."""

    def named(self, name: str) -> Any:
        """Return what a module has under a name, unless calling it could do harm."""

    def require_trust(self, number: int, function: Any) -> None:
        """Note a problem if calling a function could do harm."""

    def disorder(self, number: int) -> None:
        """Note a set that comes in another order than it was saved in."""

    def problem(self, number: int, text: str) -> None:
        """Note what does not fit."""


class NodeKind:
    """A kind of node; its methods are called with nodes of this kind alone.

    Attributes:
      is_hashed: Whether the content is hashed when it is put in.
    """

    is_hashed = False

    def save(self, walk: Saving, number: int, value: Any) -> Node:
        """Return the node for an object.

        Raises:
          Refused: it cannot be saved.
        """
        raise NotImplementedError

    def pair(self, walk: Loading, number: int, node: Node, live: Any) -> None:
        """Set the target, visit what the node holds, and decode it in place.

        Nothing that is live may change.

        Args:
          walk: The walk.
          number: Number of the node.
          node: The node; values in it become decoded ones.
          live: The live object; MISSING if there is none.
        """
        raise NotImplementedError

    def needs(self, node: Node) -> list[Code]:
        """Return the values that have to be there before `build` can be called."""
        return []

    def build(self, walk: Loading, number: int, node: Node, context: Any) -> Any:
        """Return the target if `pair` did not set it, because it never changes."""
        raise NotImplementedError

    def verify(self, walk: Loading, number: int, node: Node) -> None:
        """Refuse content that `fill` could not put in; all is made but what is hashed.

        Raises:
          ValueError, TypeError: it could not.
        """

    def hashed(self, node: Node) -> list[Code]:
        """Return the values that make the hash of a target that `build` makes."""
        return []

    def keys(self, node: Node) -> list[Code]:
        """Return the values that have to be filled before `fill` hashes them."""
        return []

    def fill(self, walk: Loading, number: int, node: Node) -> None:
        """Put the content into the target. It may be called more than once."""


def require(walk: Loading, code: Code, *types: type) -> None:
    """Refuse a value that is of none of these types.

    Raises:
      ValueError: it is none, or what is hashed.
    """
    if not isinstance(walk.value(code), types):
        raise ValueError("a value of another type than it can be")

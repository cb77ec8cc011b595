"""The protocol of a kind of node, and what the two walks offer it.

A node is a list that JSON can hold: the name of its kind, its content, and for some the
number of its class and its attributes. A value in it is a number, text or None; an
object in braces, as `values` writes it; or a list of one number, which is another node.
"""

from __future__ import annotations

from typing import Any, Protocol

from .families import Parts

Code = Any  # A value in a node.
Node = list[Any]


class Missing:
    """What is in the place of a live object if there is none."""


MISSING: Any = Missing


class Saving(Protocol):
    """What the walk that saves offers to kinds of node."""

    parts: Parts
    arrays: list[tuple[int, Any]]

    def code(self, value: Any, number: int, step: Any) -> Code:
        """Return a value, or a reference to the node that it becomes.

        Args:
          value: The value.
          number: The node that it is in.
          step: What leads from there to it: an attribute, or a key in a tuple of one.
        """

    def attributes(self, value: Any, number: int) -> dict[str, Code]:
        """Return the attributes of an object as values."""

    def cls(self, cls: type) -> int:
        """Return the number of a class."""

    def leaf(self, number: int, value: Any) -> str:
        """Save a value as a leaf of its own, named after a node; return its name."""


class Loading(Protocol):
    """What the walk that loads offers to kinds of node.

    Attributes:
      parts: The parts.
      targets: What each node becomes: the live object, a new one, or None as long as
        it is not made.
      claimed: Identities of live objects that are targets.
      arrays: Live arrays by the number of the node beside them.
    """

    parts: Parts
    targets: list[Any]
    claimed: set[int]
    arrays: dict[int, Any]

    def visit(self, code: Code, live: Any, number: int, step: Any) -> Code:
        """Look at a value of a node beside a live one; return it decoded.

        References stay as they are.
        """

    def value(self, code: Code) -> Any:
        """Return what a decoded value of a node is: itself, or the target."""

    def cls(self, index: int | None, live: Any) -> type:
        """Return a saved class: that of the live object if that has the same name."""

    def leaf(self, name: str) -> Any:
        """Return a leaf."""

    def claim(self, number: int, live: Any) -> None:
        """Make the live object the target of a node."""

    def fits(self, live: Any, cls: type) -> bool:
        """Return whether a live object may become the target of a node."""

    def trusts(self, function: Any, live: Any = MISSING) -> bool:
        """Return whether a function may be called that the save names."""

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
        """Set the target beside a live object, visit what the node holds, and decode it.

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

    def keys(self, node: Node) -> list[Code]:
        """Return the values that have to be filled before `fill` hashes them."""
        return []

    def fill(self, walk: Loading, number: int, node: Node) -> None:
        """Put the content into the target. It may be called more than once."""


def is_reference(code: Code) -> bool:
    """Return whether a value in a node refers to another node."""
    return type(code) is list

"""The graph of an environment ⇄ text, with the versions of what it was made by."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
from msgspec import Struct

from ..user import attributes
from . import names, objects
from .node import Node

VERSION = 1


class Graph(Struct, forbid_unknown_fields=True):
    """What a save has of an environment besides leaves.

    Attributes:
      version: Of this form.
      chain: The wrappers, from the outside in.
      id: Under which the environment is registered; "" if it is not.
      libraries: Versions of the packages that its classes are from.
      classes: Names of these classes, "module:qualname".
      nodes: The nodes; the first one is the environment.
      constants: Numbers of nodes that are constants, each with its place.
    """

    version: int
    chain: str
    id: str
    libraries: dict[str, str]
    classes: list[str]
    nodes: list[Node]
    constants: list[list[Any]] = []


def encode(
    classes: list[type], nodes: list[Any], constants: list[list[Any]], env: Any
) -> str:
    """Return the graph of an environment as text."""
    found = Graph(
        VERSION,
        names.chain(env),
        id_of(env),
        libraries(classes),
        [objects.layout(cls).name for cls in classes],
        nodes,
        constants,
    )
    return msgspec.json.encode(found).decode()


def decode(text: Any) -> Graph:
    """Return the graph that is written in a text.

    Raises:
      ValueError, TypeError: there is none.
    """
    found = msgspec.json.decode(text, type=Graph)
    if found.version != VERSION:
        raise ValueError(f"the graph of an environment in form {found.version}")
    return found


def libraries(classes: list[type]) -> dict[str, str]:
    """Return the versions of the packages that classes are from, and NumPy's."""
    packages = {objects.layout(cls).name.partition(":")[0] for cls in classes}
    roots = sorted({x.partition(".")[0] for x in packages} | {"numpy"})
    found = {name: version_of(name) for name in roots}
    return {name: version for name, version in found.items() if version}


def version_of(package: str) -> str:
    """Return the version of an imported package; "" if it says none."""
    return attributes.text(sys.modules.get(package), "__version__")


def id_of(env: Any) -> str:
    """Return the name under which an environment is registered; "" if it is not."""
    seen: set[int] = set()
    while id(env) not in seen:
        seen.add(id(env))
        own = objects.of(env).attributes(env)
        env = own.get(objects.link_of(env), env)
    spec = own.get("spec")
    return attributes.text(spec, "id")

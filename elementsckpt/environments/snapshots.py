"""An environment ⇄ plain data, which needs no `Checkpoint`.

The component calls these, and so do families, for environments in other processes.
"""

from __future__ import annotations

from typing import Any

from ..errors import damage
from . import graphs
from .capturing import Capture
from .families import Given, Parts, Unfit
from .names import GRAPH
from .restoring import Restore


def capture(env: Any, parts: Given | Parts | None = None) -> dict[str, Any]:
    """Return the state of an environment as plain data.

    Arrays in it are those of the environment, not copies: to keep the data while the
    environment steps on, copy it with `copy.deepcopy`. Another process gets copies.

    Args:
      env: The environment; it does not change.
      parts: As for `Environment`.

    Returns:
      Leaves by their name in the environment, such as `unwrapped/data/qpos`: arrays,
      states of generators and what families saved; and the graph of its objects.

    Raises:
      Refused: something cannot be saved; `inside` says all of it.
    """
    return Capture(_parts(parts)).run(env)


def look(env: Any, parts: Given | None = None) -> None:
    """Let the families see all objects, whether or not they can be saved."""
    Capture(_parts(parts)).walk(env)


def check(env: Any, data: Any, parts: Given | Parts | None = None) -> Restore:
    """Compare data with an environment; nothing changes.

    Returns:
      What `load()` puts the data into the environment, if that has not changed since.

    Raises:
      Unfit: it does not fit this environment; `inside` says all that does not.
      DamagedError: it is not such data.
    """
    with damage("The state of an environment"):
        found = Restore(graphs.decode(data[GRAPH]), data, _parts(parts))
        found.check(env)
    if found.problems:
        raise Unfit(inside=found.problems)
    return found


def restore(env: Any, data: Any, parts: Given | Parts | None = None) -> None:
    """Check data, and put it into an environment, whose objects stay the same ones.

    Raises:
      Unfit, DamagedError: as for `check`; nothing has changed.
    """
    check(env, data, parts).load()


def _parts(given: Given | Parts | None) -> Parts:
    return given if isinstance(given, Parts) else Parts(given)

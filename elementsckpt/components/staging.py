"""Components whose files the program writes in the block of `Checkpoint.staging`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from ..errors import ComponentError
from ..user import attributes
from ..user.arguments import shown
from ..user.hints import listed
from .files import Files
from .protocols import Component


def staged_only(components: Mapping[str, Component]) -> list[str]:
    """Return the keys of the components whose files are written in `staging` only."""
    values = {key: component.value for key, component in components.items()}
    return [
        key
        for key, x in values.items()
        if attributes.is_instance(x, Files) and x.is_staged_only
    ]


def require_stageable(
    keys: Sequence[str],
    select: Callable[[Iterable[str] | None], Mapping[str, Component]],
) -> None:
    """Refuse to stage components without files, or without others that must be staged.

    Args:
      keys: The keys that the user gave.
      select: Returns the components with these keys; without keys, all.
    """
    if not all(isinstance(key, str) for key in keys):
        raise ValueError(
            f"staging({', '.join(map(shown, keys))}): pass keys one by one, as in "
            f"staging('policy', 'critic')."
        )
    if not keys or not all(x.target.takes_folder for x in select(keys).values()):
        raise ComponentError(
            f"Cannot stage {listed(keys)}: name components that have files, such "
            f"as cp.policy = elementsckpt.Files(load=function)."
        )
    others = [key for key in staged_only(select(None)) if key not in keys]
    if others:
        raise ComponentError(
            f"The files of {listed(others)} are written in such a block, too: "
            f"name all of these, with staging({listed([*keys, *others])})."
        )

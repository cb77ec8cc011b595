"""Components that write files themselves, instead of returning a state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..errors import ComponentError
from ..user import attributes
from ..user.arguments import shown
from .protocols import Component

Function = Callable[[Path], Any]


class Files:
    """A component with a folder of its own in each save, for what writes files itself.

        cp.policy = elementsckpt.Files(save=policy.write_to, load=policy.read_from)

    Args:
      save: Gets an empty folder and writes files to it, in folders below it, too. The
        files that are there when it returns are saved; symbolic links are an error.
        What did not change since the save before takes no space twice. It is not
        called with `write=False`. Without it, files come from `Checkpoint.staging`.
      load: Gets a folder with the files of a save, all verified, and no others. It must
        not change them: they are read-only, and saves share them. The folder is gone
        when it has returned.

    Raises:
      ValueError: these are no functions.
    """

    def __init__(self, *, save: Function | None = None, load: Function) -> None:
        given: dict[str, object] = {"load": load}
        if save is not None:
            given["save"] = save
        for name, function in given.items():
            if not callable(function):
                raise ValueError(
                    f"{name}={shown(function)}: pass a function that gets a folder."
                )
        self._save = save
        self._load = load

    @property
    def is_staged_only(self) -> bool:
        """Whether only `Checkpoint.staging` writes its files."""
        return self._save is None

    def save(self) -> Folder:
        """Ask for a folder, to write to it."""
        return Folder(self._save)

    def load(self, folder: Path) -> None:
        """Read from a folder with the files of a save."""
        self._load(folder)


class Folder:
    """What a component returns to be given a folder, instead of its state.

    Args:
      write: Writes files to it; None if others do.
    """

    def __init__(self, write: Function | None) -> None:
        self.write = write

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "what Files.save() returns must be all of a component's state, not a part"
        )


def takes_folder(load: Callable[[Any], Any]) -> bool:
    """Tell whether the function loads a folder of files, not a state."""
    return attributes.is_instance(attributes.get(load, "__self__"), Files)


def folder_keys(loadfns: Mapping[str, Callable[[Any], Any]]) -> set[str]:
    """Return the keys of the functions that load a folder of files, not a state."""
    return {key for key, load in loadfns.items() if takes_folder(load)}


def staged_only(components: Mapping[str, Component]) -> list[str]:
    """Return the keys of the components whose files only `staging` writes."""
    values = {key: component.value for key, component in components.items()}
    return [
        key
        for key, x in values.items()
        if attributes.is_instance(x, Files) and x.is_staged_only
    ]


def require_stageable(
    keys: Sequence[str],
    select: Callable[[Iterable[str]], Mapping[str, Component]],
    components: Mapping[str, Component],
) -> None:
    """Refuse to stage what has no files, and to leave out what must be staged.

    Args:
      keys: What the user names.
      select: Returns the components with these keys.
      components: All components.
    """
    if not all(isinstance(key, str) for key in keys):
        raise ValueError(
            f"staging({', '.join(map(shown, keys))}): pass keys one by one, as in "
            f"staging('policy', 'critic')."
        )
    if not keys or not all(takes_folder(x.load) for x in select(keys).values()):
        raise ComponentError(
            f"Cannot stage {_listed(keys)}: name components that have files, such "
            f"as cp.policy = elementsckpt.Files(load=function)."
        )
    others = [key for key in staged_only(components) if key not in keys]
    if others:
        raise ComponentError(
            f"The files of {_listed(others)} are written in such a block, too: "
            f"name all of these, with staging({_listed([*keys, *others])})."
        )


def _listed(keys: Iterable[str]) -> str:
    return ", ".join(map(repr, keys))

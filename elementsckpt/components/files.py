"""Components that write files themselves, instead of returning a state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from ..user import attributes
from ..user.arguments import shown

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

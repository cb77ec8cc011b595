"""Components that write files themselves instead of returning a state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from ..user.arguments import shown

Function = Callable[[Path], Any]


class Files:
    """A component with a folder of its own in each save, to which it writes files.

        cp.policy = elementsckpt.Files(save=policy.write_to, load=policy.read_from)

    Args:
      save: Gets an empty folder and writes files to it, also in folders below it. The
        files that exist when it returns are saved; symbolic links are an error. A file
        that did not change since the last save takes no space again. It is not called
        with `write=False`. Without it, the program writes the files in
        `Checkpoint.staging`.
      load: Gets a folder that holds exactly the files of a save, all verified. It must
        not change them: they are read-only, and saves share them. The folder is removed
        when it has returned.

    Raises:
      ValueError: an argument is not a function.
    """

    def __init__(self, *, save: Function | None = None, load: Function) -> None:
        for name, function in {"load": load, "save": save}.items():
            if not callable(function) and (name == "load" or function is not None):
                raise ValueError(
                    f"{name}={shown(function)}: pass a function that gets a folder."
                )
        self._save = save
        self._load = load

    @property
    def is_staged_only(self) -> bool:
        """Whether its files are written in `Checkpoint.staging` only."""
        return self._save is None

    def save(self) -> Folder:
        """Return a request for a folder."""
        return Folder(self._save)

    def load(self, folder: Path) -> None:
        """Read from a folder with the files of a save."""
        self._load(folder)


class Folder:
    """A request for a folder, which a component returns instead of its state.

    Args:
      write: Writes files to the folder; None if the program does so in `staging`.
    """

    def __init__(self, write: Function | None) -> None:
        self.write = write

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "what Files.save() returns must be all of a component's state, not a part"
        )

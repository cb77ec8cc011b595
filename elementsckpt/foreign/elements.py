"""Folders that the elements package wrote: one pickle for each component or shard.

    <save folder>/
      agent.pkl           a component
      replay-0000.pkl     a shard of a component; its number has four digits or more
      done                empty; marks the save as complete

Their pickles are read with `load_restricted`, unless the user allows more.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from datetime import timezone
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, DamagedError, PickleError, reason
from ..storage import folders
from ..storage.files import read_file, status
from ..storage.store import Source
from ..system.memory import require_memory
from ..user.times import datetime

_SHARD = re.compile(r"(.+)-(\d{4,})\.pkl")
_DONE = "done"
_COPIES = 3  # Of an array: in the file's bytes, cut out of these, the array itself.


def is_save(source: Source) -> bool:
    """Return whether a folder is a complete save that elements wrote.

    Raises:
      ReadError, DamagedError: the system refused to list it.
    """
    path = source.path
    return not folders.is_missing(path / _DONE) and bool(_pickles(path))


def time_of(path: Path) -> datetime:
    """Return when a save was completed."""
    return datetime.fromtimestamp(status(path / _DONE).st_mtime, timezone.utc)


def files(path: Path) -> dict[str, list[Path]]:
    """Return the files of each component by key, shards in order."""
    components: dict[str, list[Path]] = {}
    shards: dict[str, list[tuple[int, Path]]] = {}
    for name in _pickles(path):
        match = _SHARD.fullmatch(name)
        if match:
            shards.setdefault(match[1], []).append((int(match[2]), path / name))
        else:
            components[name.removesuffix(".pkl")] = [path / name]
    for key, numbered in shards.items():
        components.setdefault(key, [file for _, file in sorted(numbered)])
    return dict(sorted(components.items()))


def is_sharded(files: list[Path]) -> bool:
    """Return whether the files of a component are shards."""
    return _SHARD.fullmatch(files[0].name) is not None


def size_bytes(files: list[Path]) -> int:
    """Return the total size of the files that still exist."""
    total = 0
    for file in files:
        with contextlib.suppress(CheckpointError):
            total += status(file).st_size
    return total


def read(file: Path, key: str, *, allow_pickle: bool) -> Any:
    """Return the state in a file.

    Args:
      file: The pickle of a component or shard.
      key: The component's key, for errors.
      allow_pickle: Whether the pickle may run code. If not, only builtin containers,
        scalars and NumPy arrays are admitted.

    Raises:
      PickleError: it needs more than is admitted, or a class that was not found.
      DamagedError: it cannot be read.
    """
    from ..kinds import pickles  # Listing saves needs none of these.
    from . import restricted_pickle
    from .limits import ForbiddenError

    require_memory(_COPIES * size_bytes([file]), file, "")
    content = bytes(read_file(file, end=b"."))
    try:
        load = pickles.load if allow_pickle else restricted_pickle.load_restricted
        return load(content)
    except ForbiddenError as error:
        raise PickleError(
            f"{key} in {file} needs {error}, and more than builtin containers, scalars "
            f"and NumPy arrays is read only with allow_pickle=True, because a pickle "
            f"can run any code. Pass it if you trust who wrote the file."
        ) from error
    except (ImportError, AttributeError) as error:
        raise PickleError(
            f"{key} in {file} needs a class that was not found: {reason(error)}. Make "
            f"it importable, or leave {key} out."
        ) from error
    except MemoryError:
        raise
    except Exception as error:
        found = f"{type(error).__name__}: {reason(error)}"
        raise DamagedError(
            f"{file}, which holds {key}, is not a valid pickle ({found})."
        ) from error


def shards(files: list[Path], key: str, *, allow_pickle: bool) -> Iterator[Any]:
    """Yield the shards of a component, one file after the other.

    Raises:
      DamagedError: a shard is missing.
      PickleError, DamagedError: as from `read`.
    """
    for number, file in enumerate(files):
        match = _SHARD.fullmatch(file.name)
        if match and int(match[2]) != number:
            raise DamagedError(
                f"{file.parent} lacks shard {number} of {key}: {file.name} is next."
            )
        yield read(file, key, allow_pickle=allow_pickle)


def _pickles(path: Path) -> list[str]:
    return [name for name in folders.names_in(path) if name.endswith(".pkl")]

"""Runs of a training that save and load as usual, and whose leaves are recorded."""

from __future__ import annotations

import functools
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from stat import S_ISREG
from typing import Any

import numpy as np
from msgspec import Struct

from ..checkpoint import Checkpoint
from ..components import protocols
from ..components.files import Folder
from ..components.rng import GlobalRNG
from ..storage import disk, files, folders
from . import fingerprints
from .fingerprints import Fingerprint

Prints = dict[str, Fingerprint]
_SEED = 0x5EED_0FF1CE  # A seed that programs are not likely to use.


class Record(Struct):
    """The content of a run at one of its steps.

    Attributes:
      leaves: Fingerprints of the leaves that its components save, by name.
      generators: Fingerprints of the global generators.
    """

    leaves: Prints
    generators: Prints


class Run:
    """Objects that train, and the checkpoint that they are registered with.

    Args:
      make: Makes the objects.

    Attributes:
      made: The result of `make`.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self.made = make()
        self._checkpoint = _checkpoint_in(self.made)
        self._saver: Checkpoint | None = None

    def record(self) -> Record:
        """Return the current content, without changing the global generators."""
        states = GlobalRNG().save()
        leaves: Prints = {}
        for key, state in self._states():
            leaves |= fingerprints.take(key, state)
        GlobalRNG().load(states)
        return Record(leaves, fingerprints.take("", states))

    def leaf(self, name: str) -> Any:
        """Return the leaf of this name."""
        named = (fingerprints.leaves_of(*state) for state in self._states())
        return next(
            value for leaves in named for found, value in leaves if found == name
        )

    def _states(self) -> Iterator[tuple[str, Any]]:
        for key in self._checkpoint:
            component = protocols.component(key, getattr(self._checkpoint, key))
            state = component.save()
            yield key, _written(state) if isinstance(state, Folder) else state

    # Saving and loading

    def save(self, directory: Path) -> str:
        """Save as the run would; return which components change which generators."""
        saver = self._in(directory)

        def save(keys: list[str] | None = None) -> None:
            saver.save(keys=keys)
            saver.wait()

        found = _changed(save)
        return _blame("saving", saver, save, found) if found else ""

    def load(self, directory: Path, saved: Prints) -> str:
        """Load as the run would, with states of generators that no other run has had.

        Args:
          directory: The directory that `save` wrote to.
          saved: Fingerprints of the generators when the run was saved.

        Returns:
          The libraries whose generators have neither the state before this call nor the
          saved state.
        """
        saver = self._in(directory)
        _scramble()
        return _changed(saver.load, saved)

    def blame_load(self, directory: Path, saved: Prints, found: str) -> str:
        """Return which components change which generators; `load` returned `found`."""
        saver = self._in(directory)
        return _blame("loading", saver, lambda x: saver.load(keys=x), found, saved)

    def close(self) -> None:
        """Close the checkpoint that saves the run."""
        if self._saver is not None:
            self._saver.close()

    def _in(self, directory: Path) -> Checkpoint:
        """Return the checkpoint that saves the run to the directory."""
        if self._saver is None:
            self._saver = self._checkpoint._elsewhere(directory)
        # Training may have registered other objects.
        self._saver._components.clear()
        self._saver._components.update(self._checkpoint._components)
        return self._saver


def _blame(
    doing: str,
    keys: Iterable[str],
    work: Callable[[list[str]], object],
    found: str,
    right: Prints | None = None,
) -> str:
    """Return which components change generators; together they change `found`."""
    said = []
    for key in keys:
        _scramble()  # Otherwise, seeding a second time would change nothing.
        changed = _changed(functools.partial(work, [key]), right)
        if changed:
            said.append(f"{doing} {key!r} changes those of {changed}")
    return " and ".join(said) or f"{doing} changes those of {found}"


def _changed(work: Callable[[], object], right: Prints | None = None) -> str:
    """Return the libraries whose global generators some work changes.

    Args:
      work: A function that does the work.
      right: Fingerprints of other states that are right after the work, too.
    """
    before = generators()
    work()
    after = generators()
    there = before.keys() & after.keys()  # Others came with a library just imported.
    changed = there.intersection(differing(before, after))
    if right is not None:
        changed.intersection_update(differing(right, after))
    return libraries(changed)


def generators() -> Prints:
    """Return the fingerprints of the global generators."""
    return fingerprints.take("", GlobalRNG().save())


def libraries(names: Iterable[str]) -> str:
    """Return the libraries of generators, for a message."""
    return ", ".join(sorted({name.partition("/")[0] for name in names}))


def _scramble() -> None:
    """Set the global generators to states that no other run has had."""
    random.seed(_SEED)
    generators: Any = np.random
    bits = type(generators.get_bit_generator())
    generators.set_state(bits(_SEED).state)
    torch: Any = sys.modules.get("torch")
    if hasattr(torch, "manual_seed"):
        torch.manual_seed(_SEED)


def differing(first: Prints, second: Prints) -> list[str]:
    """Return the names that only one has, or that have different content."""
    return [
        name
        for name in {**first, **second}
        if name not in first
        or name not in second
        or not first[name].matches(second[name])
    ]


def _written(folder: Folder) -> dict[str, bytes]:
    """Return the files that a component writes, by their paths."""
    with disk.scratch() as path:
        if folder.write is not None:
            folder.write(path)
        found = (
            name for name, status in folders.below(path) if S_ISREG(status.st_mode)
        )
        return {name: bytes(files.read_file(path / name)) for name in found}


def _checkpoint_in(made: Any) -> Checkpoint:
    parts = made if isinstance(made, tuple) else (made,)
    for part in parts:
        if isinstance(part, Checkpoint):
            return part
    for part in parts:
        if isinstance(part, Mapping):
            checkpoint = Checkpoint()
            for key, value in part.items():
                setattr(checkpoint, key, value)
            return checkpoint
    raise ValueError(
        f"make() returned an object of type {type(made).__name__}: return a "
        f"Checkpoint, a mapping of components by key, or a tuple with one of these."
    )

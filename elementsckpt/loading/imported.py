"""One component of a save that elements wrote → its state, leaves or shards."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import damage
from ..foreign import elements
from ..format import manifest
from ..kinds.kind import Spec
from ..state import flattening, replacing, unflattening
from ..state.same_names import Keys
from .loaded import Notes
from .request import Request


class ElementsComponent:
    """A component that elements wrote; its pickles are read whole."""

    def __init__(
        self, key: str, files: list[Path], request: Request, notes: Notes
    ) -> None:
        self.key = key
        self.streams = elements.is_sharded(files)
        self._files = files
        self._allow_pickle = bool(request.allow_pickle)
        self._notes = notes

    def open(self) -> None:
        """Do nothing: files are opened when they are read."""

    def state(self) -> Any:
        """Return the state."""
        with self._reading():
            (state,) = self._read()
        return state

    def rebuilt(self, state: Any) -> Any:
        """Return the state: elements saves no classes besides it."""
        return state

    def some(self, named: Sequence[tuple[str, int]]) -> Any:
        """Return the state with only some leaves, or None if there are none."""
        values = self.values(number for _, number in named)
        return unflattening.unflatten_some(self._flat.root, self._flat.nodes, values)

    @property
    def held_bytes(self) -> int:
        """How much memory its state takes; 0 for shards, which are read one by one."""
        return 0 if self.streams else elements.size_bytes(self._files)

    def bytes_to_read(self, numbers: Collection[int] | None = None) -> int:
        """Return how many bytes a load reads: all, whatever it selects."""
        return elements.size_bytes(self._files) * (1 + self.streams)

    def contents(self) -> list[str]:
        """Return the name of each leaf, or of each shard."""
        if self.streams:
            return [str(index) for index in range(len(self._files))]
        return [name for name, _ in self.names()]

    def names(self) -> list[tuple[str, int]]:
        """Return name and number of each leaf."""
        named = enumerate(self._flat.names)
        return [(manifest.escape(name), number) for number, name in named]

    def specs(self) -> list[tuple[str, int, Spec]]:
        """Return name, number and spec of each leaf."""
        return [
            (name, number, self._flat.spec(number)) for name, number in self.names()
        ]

    def keys(self) -> list[tuple[str, int, Keys]]:
        """Return name and number of each leaf, and the keys that lead to it."""
        pairs = zip(self.names(), self._flat.keys(), strict=True)
        return [(name, number, keys) for (name, number), keys in pairs]

    def values(
        self, numbers: Iterable[int], as_saved: Collection[int] = ()
    ) -> dict[int, Any]:
        """Return leaves by number."""
        return {number: self._flat.values[number] for number in numbers}

    is_plain = True

    def structure(self) -> replacing.Structure:
        """Return an empty structure: elements saves no attributes of containers."""
        return replacing.Structure(0, [], [])

    def barred(self, numbers: Iterable[int]) -> dict[int, str]:
        """Return no leaves: all have been unpickled already."""
        return {}

    def shared(self) -> set[int]:
        """Return the numbers of the leaves that share memory: none does."""
        return set()

    def verify(self) -> None:
        """Read all shards once, so that streaming them later will not fail."""
        with self._reading():
            for _ in self._read():
                pass

    def shards(self) -> Iterator[Any]:
        """Return a generator of the shards."""
        yield from self._read()

    def close(self) -> None:
        """Do nothing: no file is open."""

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        size_bytes = elements.size_bytes(self._files)
        self._notes.bytes_read += size_bytes
        with damage(f"{self.key!r} in {self._files[0]}"), self._notes.phases("read"):
            yield
        self._notes.meter.add(size_bytes)

    def _read(self) -> Iterator[Any]:
        files, allow_pickle = self._files, self._allow_pickle
        return elements.shards(files, self.key, allow_pickle=allow_pickle)

    @functools.cached_property
    def _flat(self) -> flattening.Flat:
        return flattening.flatten(self.state(), self.key, by_name=True)

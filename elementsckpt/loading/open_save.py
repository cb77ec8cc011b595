"""A save that is open for reading, whoever wrote it."""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..directory.listing import Found, read_manifest
from ..errors import MissingKeyError
from ..foreign import elements
from ..format import manifest, scalars
from ..format.manifest import Manifest
from ..kinds.references import Resolver
from ..state import flattening
from ..storage.fileview import FolderReader
from ..user import hints
from ..user.arguments import shown
from .component import (
    ElementsComponent,
    Notes,
    Options,
    SavedComponent,
    Selectable,
    damage,
)

Stored = Selectable | FolderReader
_logger = logging.getLogger("elementsckpt")


class Save:
    """A save that is open for reading.

    Args:
      found: The save.
      options: How to read it.
      notes: Where to note what the report will say.
      current: Returns the current state of the component with this key, for finding
        classes in it, or None.

    Raises:
      DamagedError, VersionError: its manifest is not valid.
    """

    def __init__(
        self,
        found: Found,
        options: Options,
        notes: Notes,
        current: Callable[[str], Any] | None = None,
    ) -> None:
        if found.error is not None:
            raise found.error
        self.path = found.path
        self._options = options
        self._notes = notes
        self._current = current
        self._manifest: Manifest | None = None
        self._files: dict[str, list[Path]] = {}
        if found.head is None:
            self._files = elements.files(found.path)
        else:
            where = found.path / manifest.NAME
            self._manifest = manifest.decode(read_manifest(where), str(where))

    def keys(self) -> list[str]:
        """Return the keys of its components."""
        if self._manifest is None:
            return list(self._files)
        with damage(str(self.path / manifest.NAME)):
            return scalars.decode_keys(item.key for item in self._manifest.components)

    def components(self, keys: Mapping[str, str]) -> list[Stored]:
        """Return components, which have our keys then.

        Args:
          keys: Our keys to those in the save.

        Raises:
          MissingKeyError: some are not in the save; the message lists what is.
        """
        here = {key: index for index, key in enumerate(self.keys())}
        missing = [key for key in keys.values() if key not in here]
        if missing:
            raise MissingKeyError(
                f"{self.path} has no {', '.join(map(shown, missing))}. It has "
                f"{hints.listed(here, 'components')}. "
                f"Nothing was loaded. "
                f"{self._options.verb.lacking(keys, here, self._counterparts(keys))}"
            )
        return [self._component(key, saved, here[saved]) for key, saved in keys.items()]

    def _counterparts(self, keys: Mapping[str, str]) -> dict[str, str]:
        """Return what holds, under other keys, what components that are missing do."""
        here = {key: index for index, key in enumerate(self.keys())}
        free = [key for key in here if key not in keys.values()]
        if self._manifest is None or self._current is None or not free:
            return {}
        ours, theirs = {}, {}
        for key in (key for key, saved in keys.items() if saved not in here):
            with contextlib.suppress(Exception):  # It is for an error.
                ours[key] = _names(self._current(key), key)
        for key in free:
            with contextlib.suppress(Exception):
                component = self._component(key, key, here[key])
                if isinstance(component, SavedComponent) and not component.streams:
                    theirs[key] = {x or str(spec) for x, _, spec in component.specs()}
        return hints.counterparts(ours, theirs)

    def _component(self, key: str, saved: str, index: int) -> Stored:
        if self._manifest is None:
            files = self._files[saved]
            return ElementsComponent(key, files, self._options, self._notes)
        component = self._manifest.components[index]
        if component.files is not None:
            verify = self._options.verify
            return FolderReader(self.path, key, component.files, verify=verify)
        find = None if self._current is None else self._objects_of(key)
        resolver = Resolver(imports=self._options.allow_pickle, current=find)
        where = f"{saved!r} in {self.path / manifest.NAME}"
        return SavedComponent(
            self.path, key, component, where, self._options, resolver, self._notes
        )

    def _objects_of(self, key: str) -> Callable[[], Iterable[Any]]:
        def objects() -> Iterable[Any]:
            assert self._current is not None
            try:
                state = self._current(key)
                if inspect.isgenerator(state):
                    state.close()
                    return []
                flat = flattening.flatten(state, key)
            except Exception as error:
                # What it knows is missed, and said, where it was needed.
                _logger.warning("%r has no current state to look in: %s", key, error)
                return []
            return [*map(type, flat.containers), *filter(callable, flat.values)]

        return objects


def _names(state: Any, key: str) -> set[str]:
    """Return the names of the leaves of a state, or what one without a name is."""
    flat = flattening.flatten(state, key, by_name=True)
    names = enumerate(flat.names)
    return {manifest.escape(name) or str(flat.spec(number)) for number, name in names}

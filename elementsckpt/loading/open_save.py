"""A save that is open for reading, whoever wrote it."""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..components.targets import Target
from ..directory.listing import SaveEntry
from ..foreign import elements
from ..format import manifest, names, scalars
from ..format.manifest import Component
from ..kinds.references import Resolver
from ..state import flattening
from ..storage.fileview import FolderReader
from ..user import hints
from . import refusals
from .component import SavedComponent
from .imported import ElementsComponent
from .loaded import Notes
from .refusals import damage
from .request import Request

Selectable = SavedComponent | ElementsComponent
AnyComponent = Selectable | FolderReader
_logger = logging.getLogger("elementsckpt")


class OpenSave:
    """A save that is open for reading.

    Args:
      found: The save.

    Raises:
      DamagedError, VersionError: its manifest is not valid.
    """

    def __init__(self, found: SaveEntry) -> None:
        if found.error is not None:
            raise found.error
        self.path = found.path
        self._source = found.source
        self._files: dict[str, list[Path]] = {}
        self._entries: dict[str, Component] = {}
        if found.head is None:
            self._files = elements.files(found.path)
            return
        where = str(found.path / names.MANIFEST)
        entries = manifest.decode(found.source.manifest(), where).components
        with damage(str(where)):
            keys = scalars.texts(entry.key for entry in entries)
        self._entries = dict(zip(keys, entries, strict=True))

    def keys(self) -> list[str]:
        """Return the keys of its components."""
        return [*self._entries, *self._files]

    def components(
        self, request: Request, targets: Mapping[str, Target], notes: Notes
    ) -> list[AnyComponent]:
        """Return the components that are asked for, which have our keys then.

        Args:
          request: What is asked of this save.
          targets: What loads them, by our keys.
          notes: Where they note what the report will say.

        Raises:
          MissingKeyError: some are not in the save; the message lists what is.
        """
        keys, here = request.keys or {}, self.keys()
        if not {*keys.values()}.issubset(here):
            alike = self._counterparts(request, targets, notes)
            raise refusals.missing_keys(self.path, request, here, alike)
        return [
            self._component(key, saved, targets[key], request, notes)
            for key, saved in keys.items()
        ]

    def _component(
        self, key: str, saved: str, target: Target, request: Request, notes: Notes
    ) -> AnyComponent:
        if saved in self._files:
            return ElementsComponent(key, self._files[saved], request, notes)
        entry = self._entries[saved]
        if entry.files is not None:
            return FolderReader(self.path, key, entry.files, verify=request.verify)
        current = None if target.state is None else _objects_in(key, target, notes)
        resolver = Resolver(imports=bool(request.allow_pickle), current=current)
        where = f"{saved!r} in {self.path / names.MANIFEST}"
        return SavedComponent(self._source, key, entry, where, request, resolver, notes)

    def _counterparts(
        self, request: Request, targets: Mapping[str, Target], notes: Notes
    ) -> dict[str, str]:
        """Return what holds, under other keys, what components that are missing do."""
        keys, ours, theirs = request.keys or {}, {}, {}
        free = [key for key in self._entries if key not in keys.values()]
        lacking = [key for key, saved in keys.items() if saved not in self.keys()]
        for key in lacking if free else ():
            state = targets[key].state
            with contextlib.suppress(Exception):  # It is for an error.
                if state is not None:
                    ours[key] = _names(state(), key)
        for key in free if ours else ():
            with contextlib.suppress(Exception):
                component = self._component(key, key, Target(), request, notes)
                if isinstance(component, SavedComponent) and not component.streams:
                    theirs[key] = {x or str(spec) for x, _, spec in component.specs()}
        return hints.counterparts(ours, theirs)


def _objects_in(key: str, target: Target, notes: Notes) -> Callable[[], Iterable[Any]]:
    """Return what gives the classes and functions in the current state."""

    def objects() -> Iterable[Any]:
        assert target.state is not None
        try:
            with notes.phases("current"):
                state = target.state()
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
    return {manifest.display(name) or str(flat.spec(number)) for number, name in names}

"""A save that is open for reading, of this library or of elements."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
from pathlib import Path
from typing import Any

from ..components.component import Target
from ..directory.entries import SaveEntry
from ..errors import damage
from ..foreign import elements
from ..format import codec, manifest, names, scalars
from ..format.manifest import Component
from ..kinds.references import Resolver
from ..state import flattening
from ..storage.file_view import FolderReader
from ..storage.reader import Reader
from ..user import hints
from . import refusals
from .component import SavedComponent, names_in_block
from .decoding import Decoder
from .imported import ElementsComponent
from .loaded import Loaded, Notes

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
        self._verified: set[str] = set()  # Segments, which components may share.
        if found.head is None:
            self._files = elements.files(found.path)
            return
        where = str(found.path / names.MANIFEST)
        entries = codec.decode(found.source.manifest(), where).components
        with damage(where):
            keys = scalars.decode_keys(entry.key for entry in entries)
        self._entries = dict(zip(keys, entries, strict=True))

    def keys(self) -> list[str]:
        """Return the keys of its components."""
        return [*self._entries, *self._files]

    def components(self, loaded: Loaded) -> list[AnyComponent]:
        """Return the requested components, under our keys.

        Args:
          loaded: Has the request for this save and the targets, and gets notes.

        Raises:
          MissingKeyError: the save lacks some; the message lists those that it has.
        """
        keys, here = loaded.keys, self.keys()
        if not {*keys.values()}.issubset(here):
            alike = self._counterparts(loaded)
            raise refusals.missing_keys(loaded, here, alike)
        return [
            self._component(key, saved, loaded.targets[key], loaded)
            for key, saved in keys.items()
        ]

    def _component(
        self, key: str, saved: str, target: Target, loaded: Loaded
    ) -> AnyComponent:
        request, notes = loaded.request, loaded.notes
        if saved in self._files:
            return ElementsComponent(key, self._files[saved], request, notes)
        entry = self._entries[saved]
        if entry.files is not None:
            verify, meter = request.verify, notes.meter
            return FolderReader(self.path, key, entry.files, verify=verify, meter=meter)
        current = functools.partial(_current_objects, key, target, notes)
        resolver = Resolver(imports=bool(request.allow_pickle), current=current)
        where = f"{saved!r} in {self.path / names.MANIFEST}"
        leaf_names = functools.partial(names_in_block, entry, key)
        source, verified = self._source, self._verified
        reader = Reader(source, entry, leaf_names, request.less, verified, notes.meter)
        decoder = Decoder(entry, key, where, reader, resolver, request, notes)
        return SavedComponent(decoder)

    def _counterparts(self, loaded: Loaded) -> dict[str, str]:
        """Return saved keys that seem to hold missing components, by our keys."""
        keys, ours, theirs = loaded.keys, {}, {}
        free = [key for key in self._entries if key not in keys.values()]
        lacking = [key for key, saved in keys.items() if saved not in self.keys()]
        for key in lacking if free else ():
            state = loaded.targets[key].state
            with contextlib.suppress(Exception):  # This is only advice in an error.
                if state is not None:
                    ours[key] = _names(state(), key)
        for key in free if ours else ():
            with contextlib.suppress(Exception):
                component = self._component(key, key, Target(), loaded)
                if isinstance(component, SavedComponent) and not component.streams:
                    theirs[key] = {x or str(spec) for x, _, spec in component.specs()}
        return hints.counterparts(ours, theirs)


def _current_objects(key: str, target: Target, notes: Notes) -> list[Any]:
    """Return the classes and functions in the current state, if there is one."""
    if target.state is None:
        return []
    try:
        with notes.phases("current"):
            state = target.state()
        if inspect.isgenerator(state):
            state.close()
            return []
        flat = flattening.flatten(state, key)
    except Exception as error:
        # If a class of it is needed, a later message says what is missing.
        _logger.warning("%r has no current state to look in: %s", key, error)
        return []
    return [*map(type, flat.containers), *filter(callable, flat.values)]


def _names(state: Any, key: str) -> set[str]:
    """Return the names of a state's leaves; a leaf without a name gives its spec."""
    flat = flattening.flatten(state, key, by_name=True)
    names = enumerate(flat.names)
    return {manifest.escape(name) or str(flat.spec(number)) for number, name in names}

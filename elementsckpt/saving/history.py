"""What earlier saves of a directory hold, for the next one to reuse."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from msgspec import MsgspecError, structs

from ..directory.entries import SaveEntry
from ..errors import CheckpointError
from ..format import codec, manifest, names, scalars
from ..format.manifest import Component
from ..state.recurring import Recurring
from ..storage.store import Draft
from .earlier_save import CHECK_EVERY, EarlierSave, EarlierSegments
from .options import SaveOptions
from .reuse import BlockIndex
from .rings import EarlierRing, rings_of
from .unchanging import Still

# For which `loading` refuses a component; a save only does without.
_REFUSED = (MsgspecError, ValueError, TypeError, LookupError, ImportError)


class History:
    """What the newest saves of a directory hold, for the next one to reuse.

    What this process saved itself is remembered; the rest is in the manifests.

    Attributes:
      recurring: What is known of the states of components, by key.
      still: Which values of what this process saved are still the same.
    """

    def __init__(self) -> None:
        self._components: dict[str, EarlierSave] = {}
        self._manifest: tuple[Path, dict[str, Component]] = (Path(), {})
        self._lost = -1  # Saves up to this sequence are not to be relied on.
        # The save that a component was written to, or loaded from, last: its ring
        # buffers have changed since then only where rows were added.
        self._last: dict[str, tuple[Path, int]] = {}
        self._untrue: set[tuple[str, str]] = set()  # Keys, and names of ring buffers.
        self.recurring: dict[str, Recurring | None] = {}
        self.still = Still()

    def known(
        self, saves: Sequence[SaveEntry], draft: Draft, options: SaveOptions
    ) -> Callable[[str], BlockIndex]:
        """Return what finds the newest save with a component, by key.

        Args:
          saves: The saves of the directory, oldest first.
          draft: The new save.
          options: How it is written; what a durable save relies on must be durable.
        """
        segments = EarlierSegments(draft)
        marks = functools.cache(lambda number: _marks(saves[number]))

        def find(key: str) -> BlockIndex:
            mark = manifest.key_id(scalars.encode(key))
            for number in reversed(range(len(saves))):
                found = saves[number]
                if self._may_rely_on(found, options) and mark in marks(number):
                    earlier = self._earlier(key, mark, found)
                    if earlier is not None:
                        return BlockIndex(earlier, segments, options)
            return BlockIndex()

        return find

    def _may_rely_on(self, found: SaveEntry, options: SaveOptions) -> bool:
        head = found.head
        if head is None or not found.is_original or head.sequence <= self._lost:
            return False
        return head.durable or not options.fsync

    def _earlier(self, key: str, mark: str, found: SaveEntry) -> EarlierSave | None:
        """Return what a save holds of a component; None if that cannot be read."""
        remembered = self._components.get(key)
        assert found.head is not None
        saved = found.path, found.head.sequence
        if not remembered or _place_of(remembered) != saved:
            remembered = self._read(found, mark)
        if remembered is None:
            return None
        rings = remembered.rings if self._last.get(key) == saved else {}
        rings = {x: y for x, y in rings.items() if (key, x) not in self._untrue}
        return structs.replace(remembered, rings=rings)

    def _read(self, found: SaveEntry, mark: str) -> EarlierSave | None:
        if self._manifest[0] != found.path:
            components = {}
            with contextlib.suppress(CheckpointError):
                where = str(found.path / names.MANIFEST)
                saved = codec.decode(found.source.manifest(), where)
                components = {manifest.key_id(x.key): x for x in saved.components}
            self._manifest = found.path, components
        component = self._manifest[1].get(mark)
        if component is None:
            return None
        prefix_hashes: list[int | None] = [None] * len(component.blocks)
        assert found.head is not None
        return EarlierSave(
            found.source,
            found.head.sequence,
            component.segments,
            component.blocks,
            prefix_hashes,
            turn=_any_turn(),
            files=component.files,
            rings=dict(_rings_in(component)),
        )

    def remember(self, components: dict[str, EarlierSave]) -> None:
        """Take note of what was just saved."""
        self._components |= components
        self._last |= {key: _place_of(earlier) for key, earlier in components.items()}
        self._manifest = Path(), {}

    def forget(self, keys: Iterable[str]) -> None:
        """Take note that components may be other than what was saved or loaded last."""
        for key in keys:
            self._last.pop(key, None)

    def loaded(self, found: SaveEntry, keys: Iterable[str]) -> None:
        """Take note that components are as they are in a save."""
        if found.head is not None:
            saved = found.path, found.head.sequence
            self._last |= dict.fromkeys(keys, saved)

    def mistrust(self, key: str, names: Iterable[str]) -> None:
        """Save ring buffers of a component whole from now on."""
        self._untrue |= {(key, name) for name in names}

    def distrust(self, sequence: int) -> None:
        """Reuse nothing of saves up to this sequence any more."""
        self._lost = sequence
        self._components.clear()


def _rings_in(component: Component) -> Iterator[tuple[str, EarlierRing]]:
    """Yield the rings of a component; of a manifest that is not valid, some or none."""
    with contextlib.suppress(*_REFUSED):
        for index, content in enumerate(component.trees):
            if b'"ring":' in bytes(content):
                prefix = "" if component.shards is None else f"{index}/"
                groups = component.tree(index).leaves
                yield from rings_of(groups, component.blocks, prefix)


def _marks(found: SaveEntry) -> set[str]:
    return set() if found.head is None else found.head.marks()


def _place_of(earlier: EarlierSave) -> tuple[Path, int]:
    return earlier.source.path, earlier.sequence


def _any_turn() -> int:
    """Return whose turn it is, by chance.

    Not by `random`: its global generator is a part of the run that is saved.
    """
    return int.from_bytes(os.urandom(4), "little") % CHECK_EVERY

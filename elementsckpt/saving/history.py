"""What earlier saves of a directory hold, for the next one to reuse."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from ..directory.listing import Found, read_manifest
from ..errors import CheckpointError
from ..format import manifest, scalars
from ..format.compression import Compress
from ..format.manifest import Component
from .reuse import CHECK_EVERY, NOTHING, Known, Remembered
from .still import Still


class History:
    """What the newest saves of a directory hold, for the next one to reuse.

    What this process saved itself is remembered; the rest is in the manifests.

    Attributes:
      still: Which values of what this process saved are still the same.
    """

    def __init__(self) -> None:
        self._components: dict[str, Remembered] = {}
        self._manifest: tuple[Path, dict[str, Component]] = (Path(), {})
        self._lost = -1  # Saves up to this sequence are not to be relied on.
        self.still = Still()

    def known(
        self,
        key: str,
        saves: Sequence[Found],
        folder: Path,
        *,
        fsync: bool,
        compress: Compress,
    ) -> Known:
        """Return what the newest save with this component holds.

        Args:
          key: The component's key.
          saves: The saves of the directory, oldest first.
          folder: The new save folder.
          fsync: As for `Known`.
          compress: As for `Known`.
        """
        mark = manifest.key_id(scalars.encode(key))
        for found in reversed(saves):
            head = found.head
            if head is None or not found.is_original or head.sequence <= self._lost:
                continue
            if mark not in head.marks():
                continue
            if fsync and not head.durable:
                continue
            remembered = self._components.get(key)
            saved = found.path, head.sequence
            if not remembered or (remembered.path, remembered.sequence) != saved:
                remembered = self._read(found, mark)
            if remembered is None:
                continue
            return Known(remembered, folder, fsync=fsync, compress=compress)
        return NOTHING

    def _read(self, found: Found, mark: str) -> Remembered | None:
        where = found.path / manifest.NAME
        if self._manifest[0] != found.path:
            components = {}
            with contextlib.suppress(CheckpointError):
                saved = manifest.decode(read_manifest(where), str(where))
                components = {manifest.key_id(x.key): x for x in saved.components}
            self._manifest = found.path, components
        component = self._manifest[1].get(mark)
        if component is None:
            return None
        heads: list[int | None] = [None] * len(component.blocks)
        assert found.head is not None
        return Remembered(
            found.path,
            found.head.sequence,
            component.segments,
            component.blocks,
            heads,
            turn=_any_turn(),
            files=component.files,
        )

    def remember(self, components: dict[str, Remembered]) -> None:
        """Take note of what was just saved."""
        self._components |= components
        self._manifest = Path(), {}

    def distrust(self, sequence: int) -> None:
        """Reuse nothing of saves up to this sequence any more."""
        self._lost = sequence
        self._components.clear()


def _any_turn() -> int:
    """Return whose turn it is, by chance.

    Not by `random`: its global generator is a part of the run that is saved.
    """
    return int.from_bytes(os.urandom(4), "little") % CHECK_EVERY

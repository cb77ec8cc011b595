"""How saves are written, what one says about itself, and what its writers need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from ..directory.retention import Keep
from ..format.compression import Compress
from ..format.manifest import Lineage
from ..format.sizes import DEFAULT, Sizes

if TYPE_CHECKING:
    from ..storage.store import Draft
    from .arenas import Arenas


class SaveOptions(Struct, frozen=True):
    """How saves are written.

    Attributes:
      keep: Which saves stay in the directory.
      write: Whether to write anything at all.
      fsync: Whether a save is durable when it is finished.
      compress: Which leaves are compressed.
      sizes: How large blocks and segments are.
      ring_check: Of the blocks of a `Ring` without new rows, one in this many is looked
        at, others in each save.
    """

    keep: Keep = Keep(latest=None)
    write: bool = True
    fsync: bool = True
    compress: Compress = "auto"
    sizes: Sizes = DEFAULT
    ring_check: int = 64


class SaveLabel(Struct, frozen=True):
    """What a save says about itself, as the fields of `manifest.Head` of these names.

    Attributes:
      keys: Keys of all components of the run, encoded; the save may have fewer.
    """

    step: int | None = None
    metrics: dict[str, Any] = {}
    metadata: Any = {}
    pin: str | None = None
    schedule: Any = None
    lineage: Lineage = Lineage()
    keys: list[Any] = []


class Settings(Struct, frozen=True):
    """How the components of one save are written.

    Attributes:
      options: Those of all saves.
      draft: The save.
      sequence: Number of the save; part of the file names.
      arenas: Memory for the copies of arrays that may change.
      shards: Memory for the copies of shards, each of which must be copied or written
        before the next is made; it may be the same.
      is_alone: Whether no other save will be linked to what is written.
    """

    options: SaveOptions
    draft: Draft
    sequence: int
    arenas: Arenas
    shards: Arenas
    is_alone: bool = False

"""The components of a save → segments, several files and components at a time."""

from __future__ import annotations

import functools
import operator
import os
import time
from collections.abc import Callable, Iterator, Sequence

from ..format import compression
from ..system.phases import Phases
from ..system.threads import run
from .blocks import LeafBlock
from .component_writer import ComponentWriter
from .options import Settings
from .reuse import BlockIndex
from .segment_writer import SegmentWriter

_OPEN_FILES = 16
_FILES_IN_TURN = min(8, os.cpu_count() or 1)
_SAMPLES = 4


class Writer:
    """Writes the components of one save.

    Args:
      settings: How.
      phases: Clock of the save.
    """

    def __init__(self, settings: Settings, phases: Phases) -> None:
        self._settings = settings
        self._phases = phases
        self._components: list[ComponentWriter] = []
        self._pending: list[ComponentWriter] = []  # Those with blocks to be written.
        settings.arenas.reset()  # The save before may have failed.
        settings.shards.reset()

    def component(self, stem: str, index: BlockIndex) -> ComponentWriter:
        """Begin a component.

        Args:
          stem: Start of the names of its files.
          index: What an earlier save holds.
        """
        component = ComponentWriter(stem, index, self._settings)
        self._components.append(component)
        self._pending.append(component)
        return component

    def own(self) -> None:
        """Make what was added so far safe from later changes to its arrays.

        What an earlier save holds is found, and the rest copied, or written if there
        is no room for a copy.
        """
        component = self._components[-1]  # The others have been made safe.
        with self._phases("copy"):
            is_owned = component.own()
        if not is_owned:
            self.flush()
        component.let_go()

    @property
    def is_full(self) -> bool:
        """Whether more is pending of shards than should be held."""
        size = sum(component.pending_bytes for component in self._pending)
        return size >= self._settings.shards.limit_bytes

    def flush(self, *, is_last: bool = False) -> None:
        """Write all that is pending, in parallel, and make it durable.

        Args:
          is_last: Whether to write, too, what is live in segments not worth keeping.

        Raises:
          WriteError: the disk refused.
          LostError: a block to be written anew is damaged.
        """
        with self._phases("find"):
            for component in self._pending:
                component.look_up()
        with self._phases("write"):
            if self._settings.options.compress == "auto":
                run(_probe, [blocks for x in self._pending for blocks in x.unprobed()])
            files = [file for x in self._pending for file in x.lay_out()]
            if is_last:
                files += [file for x in self._components for file in x.lay_out_moved()]
            if files:
                draft = self._settings.draft
                draft.require_room(sum(file.least_bytes for file in files))
            for start in range(0, len(files), _OPEN_FILES):
                batch = files[start : start + _OPEN_FILES]
                try:
                    for file in batch:
                        file.open(draft)
                    run(_call, _in_turn(batch))
                    if draft.fsync:
                        written_s = max(file.written_s for file in batch)
                        self._phases.passed("sync", time.monotonic() - written_s)
                finally:
                    for file in batch:
                        file.close()
        for component in self._pending:
            component.clear()
        self._pending = [x for x in self._pending if not x.is_closed]
        self._settings.arenas.reset()
        self._settings.shards.reset()

    def finish(self) -> None:
        """Write what is left, and list all.

        Raises:
          WriteError, LostError: as for `flush`.
        """
        self.flush(is_last=True)
        with self._phases("find"):  # Files of components that wrote them, above all.
            for component in self._components:
                component.conclude()


_call = operator.methodcaller("__call__")  # Code in C, for each of many blocks.


def _in_turn(files: Sequence[SegmentWriter]) -> Iterator[Callable[[], None]]:
    """Yield what writes the blocks of a few files in turn, then of the next few.

    Threads that write to one file wait for each other, and while the first files are
    synced, the next ones are written.
    """
    for start in range(0, len(files), _FILES_IN_TURN):
        some = files[start : start + _FILES_IN_TURN]
        for index in range(max(len(file.items) for file in some)):
            for file in some:
                if index < len(file.items):
                    yield functools.partial(file.write, index)


def _probe(blocks: Sequence[LeafBlock]) -> None:
    """Decide whether to compress a leaf, from blocks spread over it."""
    count = min(_SAMPLES, len(blocks))
    chosen = [blocks[i * len(blocks) // count] for i in range(count)]
    is_worth_it = compression.is_worth_it([block.data() for block in chosen])
    blocks[0].leaf.is_packed = is_worth_it

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
from .component_writer import LITTLE_BYTES, ComponentWriter
from .layout import Item
from .options import Settings
from .reuse import BlockIndex
from .segment_writer import SegmentWriter, segments_of

_OPEN_FILES = 16
_FILES_IN_TURN = min(8, os.cpu_count() or 1)
_SAMPLES = 4
_Work = tuple[ComponentWriter, list[Item]]  # What is to be written of a component.


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
        self._writing: Sequence[SegmentWriter] = ()  # While they are written.
        self._exposed: ComponentWriter | None = None  # Its arrays may change.
        self._copied_bytes = 0  # Of those before it, which are pending.
        settings.arenas.reset()  # The save before may have failed.
        settings.shards.reset()

    def component(self, stem: str, index: BlockIndex) -> ComponentWriter:
        """Begin a component, when the one before is safe from later changes.

        Args:
          stem: Start of the names of its files.
          index: What an earlier save holds.

        Raises:
          WriteError, LostError: as for `flush`.
        """
        self._secure()
        component = ComponentWriter(stem, index, self._settings)
        self._components.append(component)
        self._pending.append(component)
        self._exposed = component
        return component

    def _secure(self) -> None:
        """Copy the last component if it is small, to write it with others; or write it.

        What the next one does could change its arrays.
        """
        exposed, limit = self._exposed, self._settings.options.sizes.segment_least
        if exposed is None:
            return
        if exposed.pending_bytes >= limit:
            self.flush([exposed])
            return
        if self._copied_bytes + exposed.pending_bytes >= limit:
            self.flush([x for x in self._pending if x is not exposed])
            self._copied_bytes = 0
        self._copied_bytes += exposed.pending_bytes
        with self._phases("copy"):
            is_owned = exposed.copy()
        if not is_owned:
            self.flush()
        exposed.let_go()
        self._exposed = None

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
        if component.is_closed:
            self._exposed = None

    @property
    def _pending_bytes(self) -> int:
        return sum(component.pending_bytes for component in self._pending)

    @property
    def left_bytes(self) -> int:
        """Size of what is not written yet; any thread may ask."""
        writing = self._writing
        if writing:
            return sum(file.left_bytes for file in writing)
        return sum(component.pending_bytes for component in tuple(self._pending))

    @property
    def is_full(self) -> bool:
        """Whether more is pending of shards than should be held."""
        return self._pending_bytes >= self._settings.shards.limit_bytes

    def flush(
        self, some: Sequence[ComponentWriter] = (), *, is_last: bool = False
    ) -> None:
        """Write what is pending, in parallel, and make it durable.

        Args:
          some: Of these components; if there are none, of all.
          is_last: Whether to write, too, what is live in segments not worth keeping.

        Raises:
          WriteError: the disk refused.
          LostError: a block to be written anew is damaged.
        """
        components = some or self._pending
        with self._phases("find"):
            for component in components:
                component.look_up()
            for component in components:
                component.link()
        with self._phases("write"):
            if self._settings.options.compress == "auto":
                leaves = [blocks for x in components for blocks in x.unprobed()]
                run(_probe, leaves, alone=self._pending_bytes < LITTLE_BYTES)
            if is_last:
                components = self._components
                for component in components:
                    component.give_up()
            self._writing = self._divide(components)
            self._write(self._writing)
        for component in components:
            component.clear()
        self._writing = ()
        written = {x for x in components if x.is_closed}
        self._pending = [x for x in self._pending if x not in written]
        if self._exposed in components:
            self._exposed = None
        if not self._pending_bytes:
            self._copied_bytes = 0
            self._settings.arenas.reset()
            self._settings.shards.reset()

    def _divide(self, components: Sequence[ComponentWriter]) -> list[SegmentWriter]:
        """Divide what is to be written among segments; small components share some."""
        groups: list[list[_Work]] = []
        small: list[_Work] = []
        for component in components:
            items = component.to_write
            if items and component.may_share(items):
                small.append((component, items))
            elif items:
                groups.append([(component, items)])
        return [x for group in (*groups, small) if group for x in self._segments(group)]

    def _segments(self, group: Sequence[_Work]) -> Iterator[SegmentWriter]:
        """Yield the segments for blocks of one component, or of several small ones."""
        options = self._settings.options
        is_shared = len(group) > 1
        most_bytes = options.sizes.segment_least if is_shared else options.sizes.segment
        portions = [(items, x.naming(is_shared=is_shared)) for x, items in group]
        owners = {item: component for component, items in group for item in items}

        def name(first: Item) -> str:
            return owners[first].next_name()

        for file in segments_of(portions, name, options, most_bytes):
            for item in file.items:
                owners[item].wrote(item, file)
            yield file

    def _write(self, files: Sequence[SegmentWriter]) -> None:
        draft = self._settings.draft
        if files:
            draft.require_room(sum(file.least_bytes for file in files))
        for start in range(0, len(files), _OPEN_FILES):
            batch = files[start : start + _OPEN_FILES]
            try:
                for file in batch:
                    file.open(draft)
                is_little = sum(file.size_bytes for file in batch) < LITTLE_BYTES
                run(_call, _in_turn(batch), alone=is_little)
                if draft.fsync:
                    written_s = max(file.written_s for file in batch)
                    self._phases.passed("sync", time.monotonic() - written_s)
            finally:
                for file in batch:
                    file.close()

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

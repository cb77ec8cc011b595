"""One component → segments: what an earlier save holds is kept, the rest written.

Blocks go through stages: they are cut, looked for in the earlier save, laid out, and
written. What is found is another value than what is to be written.
"""

from __future__ import annotations

import collections
import itertools
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..format import manifest, names
from ..format.digests import digest
from ..format.header import Naming
from ..format.manifest import Component, LeafGroup, Segment
from ..kinds.remote import Storage
from ..storage.store import FolderWriter
from ..system.threads import run
from . import rings
from .arenas import Heap
from .blocks import Block, Hold, Leaf, LeafBlock
from .cutting import Cutter
from .layout import Item, Layout, runs_of
from .options import Settings
from .reuse import BlockIndex, Moved, Reused, by_segment, remaining
from .rings import EarlierRing
from .segment_writer import SegmentWriter, Written

LITTLE_BYTES = 1 << 20  # Threads take longer to start than to hash or write this.
_HEAP = Heap()


class ComponentWriter:
    """Writes one component, when the `Writer` that began it says so.

    Attributes:
      index: What an earlier save holds.
      pending_bytes: Size of the leaves that are not written yet.
      is_closed: Whether nothing will be added.
      segments: The component's segments, when `Writer.finish` has returned.
      blocks: Its blocks, likewise.
      prefix_hashes: `prefix_hash` of each block, None where that is unknown.
      owners: Digests of the blocks of immutable arrays, by the arrays' ids.
      bytes_written: Size of the files that were written.
      bytes_reused: Size of the blocks and files that were not.
      untrue_rings: Ring buffers that have changed without new rows: the first and the
        last of the rows where that was found, by name.
    """

    def __init__(self, stem: str, index: BlockIndex, settings: Settings) -> None:
        self.index = index
        self.pending_bytes = 0
        self.segments: list[Segment] = []
        self.blocks: list[manifest.Block] = []
        self.prefix_hashes: list[int | None] = []
        self.owners: dict[int, tuple[weakref.ref[Any], list[str]]] = {}
        self.bytes_written = 0
        self.bytes_reused = 0
        self._settings = settings
        self._memory = settings.arenas
        self._stem = stem
        self._cutter = Cutter(stem, settings.options.sizes)
        self._leaves: list[Leaf] = []  # Those of the blocks that are pending.
        self._recalled: list[Block] = []  # Whose arrays may change, but have not.
        self._cut: dict[Block, None] = {}  # Not looked for yet, in order.
        self._new: dict[Block, None] = {}  # Found nowhere.
        self._reused: list[Reused] = []
        self._dropped: set[int] = set()  # Segments that are not worth keeping.
        self._found: list[Reused] = []  # Not linked yet.
        self._moved: list[Moved] = []  # To be written anew.
        self._files: dict[Item, SegmentWriter] = {}  # By what they hold of it.
        self._names = 0  # Of segments.
        self._folder: FolderWriter | None = None
        self.is_closed = False
        self._repeated: set[str] = set()  # Names, if leaves may be called by them.
        self.untrue_rings: dict[str, tuple[int, int]] = {}
        self._rings: list[tuple[str, LeafGroup]] = []  # With the starts of their names.

    def make_folder(self) -> Path:
        """Make a folder for files that the component writes itself."""
        return self._settings.draft.folder(names.folder(self._stem))

    def add_folder(self, path: Path, component: Component) -> None:
        """Add the folder that the component wrote itself; nothing is read yet.

        Args:
          path: The folder.
          component: Its entry in the manifest, which gets its files.

        Raises:
          StateError: something in it cannot be part of a save.
        """
        self._folder = self._settings.draft.files(path, component, self.index.files)

    def add(
        self,
        groups: Sequence[LeafGroup],
        storages: Sequence[Sequence[Storage]],
        owners: Sequence[Sequence[Any]],
        prefix: str,
    ) -> list[LeafGroup]:
        """Give leaves their places; nothing is written and nothing copied yet.

        What is new in a ring buffer on a device is fetched.

        Args, Returns:
          As for `Cutter.add`; the groups are returned.
        """
        placed, blocks, leaves = self._cutter.add(groups, storages, owners, prefix)
        if self._settings.is_alone or self._cutter.count <= 1:
            found = [prefix + x or self._stem for group in groups for x in group.names]
            self._repeated |= _repeated(found)
        self._cut.update(dict.fromkeys(blocks))
        self._leaves += leaves
        self.pending_bytes += sum(len(x) * x[0].nbytes for x in storages if x)
        known_rings = rings.named_once(groups)
        for leaf in leaves:
            owner = leaf.owner and leaf.owner()
            known = None if owner is None else self.index.digests(owner)
            leaf.recall(known)
            if leaf.ring is not None and leaf.ring.names[0] in known_rings:
                self._rings.append((prefix, leaf.ring))
                if known is None:
                    self._recall_ring(prefix + leaf.ring.names[0], leaf)
            leaf.fetch([block for block in leaf.blocks if block.digest is None])
            if leaf.hold is Hold.LIVE:
                self._recalled += [block for block in leaf.blocks if block.digest]
        return placed

    def _recall_ring(self, name: str, leaf: Leaf) -> None:
        """Take the blocks without new rows for unchanged, after a check of some."""
        earlier = self.index.rings.get(name)
        if earlier is None or leaf.ring is None:
            return
        unchanged = earlier.unchanged(leaf.ring, [block.size for block in leaf.blocks])
        every = self._settings.options.ring_check
        due = rings.due(unchanged, self.index.turn, every)
        leaf.fetch([leaf.blocks[position] for position in due])
        found = run(lambda x: digest(leaf.blocks[x].data()), due)
        for position, one in zip(due, found, strict=True):
            if one != earlier.digests[position]:
                self.untrue_rings[name] = earlier.rows(position)
                return
        digests: list[str | None] = [None] * len(leaf.blocks)
        for position in unchanged:
            digests[position] = earlier.digests[position]
        leaf.recall(digests)

    @property
    def rings(self) -> dict[str, EarlierRing]:
        """Its ring buffers by name, when `Writer.finish` has returned."""
        pairs = (rings.rings_of([x], self.blocks, prefix) for prefix, x in self._rings)
        return dict(itertools.chain.from_iterable(pairs))

    def stream(self) -> None:
        """Expect shards."""
        self._memory = self._settings.shards

    def close(self) -> None:
        """End the component: nothing will be added."""
        self._cutter.close()
        self.is_closed = True

    # Cut → found or new

    def own(self) -> bool:
        """Find or copy the blocks whose arrays may still change; False without room.

        Blocks of ring buffers without new rows are known, so what they are in is
        checked later.
        """
        for one in self.index.recall(self._recalled):
            self._reuse(one)
        self._recalled = []
        live = [block for block in self._cut if block.hold is Hold.LIVE]
        owned = run(self._own, live)
        for block, found in zip(live, owned, strict=True):
            if isinstance(found, Reused):
                self._reuse(found)
            elif found and block is not self._cutter.open:
                del self._cut[block]
                self._new[block] = None
        return all(owned)

    def _own(self, block: Block) -> Reused | bool:
        """Find a block in the earlier save, or copy it; False without room."""
        if block is not self._cutter.open:
            found = self.index.find(block)
            if found is not None and self.index.keep(found):
                return Reused(block, found)
        return block.copy_to(self._memory)

    def _reuse(self, found: Reused) -> None:
        found.block.let_go()
        del self._cut[found.block]
        self._reused.append(found)

    def let_go(self) -> None:
        """Let go of arrays that may change: what is in them was found or copied."""
        for leaf in self._leaves:
            if leaf.hold is Hold.LIVE:
                leaf.let_go()

    def copy(self) -> bool:
        """Copy what may still change; False if it is to be written instead."""
        live = [block for block in self._cut if block.hold is Hold.LIVE]
        if any(block.digest for block in live):
            return False  # What is known of ring buffers need not be copied.
        return all(block.copy_to(_HEAP) for block in live)

    def look_up(self) -> None:
        """End the block of small leaves; look for what an earlier save holds.

        Raises:
          LostError: something is damaged that was to be reused.
        """
        self._cutter.close()
        self.index.check()
        cut = [] if self.index.is_empty else list(self._cut)
        is_little = self.pending_bytes < LITTLE_BYTES
        refs = zip(cut, run(self.index.find, cut, alone=is_little), strict=True)
        self._found = [Reused(block, ref) for block, ref in refs if ref is not None]
        self.index.want(x.ref for x in self._found)

    def link(self) -> None:
        """Keep the segments in which enough was found, by all components."""
        if self.is_closed:  # Else more of shards may be found in the same segments.
            self._dropped = self.index.not_worth() | self.index.scattered()
        found = [x for x in self._found if x.ref.segment not in self._dropped]
        self.index.unwant(x.ref for x in self._found)
        self._found = []
        kept = run(lambda x: self.index.keep(x.ref), found)
        for one in itertools.compress(found, kept):
            self._reuse(one)
        self._new |= self._cut
        self._cut = {}

    def unprobed(self) -> list[list[LeafBlock]]:
        """Return blocks by leaf, of leaves that may be compressed, or not."""
        blocks: dict[Leaf, list[LeafBlock]] = {}
        for block in self._new:
            if isinstance(block, LeafBlock) and block.leaf.is_packed is None:
                blocks.setdefault(block.leaf, []).append(block)
        return list(blocks.values())

    # New → written

    def give_up(self) -> None:
        """Write anew what is live in segments that are not worth keeping."""
        self._dropped |= self.index.not_worth() | self._untrue()
        self._reused, self._moved = remaining(self._reused, self._dropped, self.index)
        self.index.leave(x.ref for x in self._moved)

    @property
    def to_write(self) -> list[Item]:
        """The blocks that are to be written, in order."""
        return sorted([*self._new, *self._moved], key=lambda item: item.number)

    def may_share(self, items: Sequence[Item]) -> bool:
        """Return whether these, all that it writes, may be in a segment with others."""
        size = sum(item.size for item in items)
        is_whole = self.is_closed and not self._files and not self._settings.is_alone
        return is_whole and size < self._settings.options.sizes.segment_least

    def _untrue(self) -> set[int]:
        """Return the segments in which leaves had their own names, and have others now.

        What is in such a segment must be what it would hold if it was written now.
        """
        return {
            number
            for number, blocks in by_segment(self._reused).items()
            if not self.index.is_dated(number) and not self._is_true(number, blocks)
        }

    def _is_true(self, number: int, reused: Sequence[Reused]) -> bool:
        segment = self.index.segment(number)
        written_by = names.sequence_of(segment.file)
        assert written_by is not None
        naming = Naming(written_by, is_plain=True, repeated=self._repeated)
        layout = Layout(list(runs_of((x.block for x in reused), naming)))
        return layout.segment(segment.file) == segment

    def naming(self, *, is_shared: bool) -> Naming:
        """Return what leaves are called; one block changes only as a whole.

        Args:
          is_shared: Whether others are in the same segment.
        """
        sequence = self._settings.sequence
        if is_shared:
            return Naming(sequence, is_plain=False, prefix=f"{self._stem}/")
        is_whole = self.is_closed and self._cutter.count == 1
        is_plain = is_whole or self._settings.is_alone
        return Naming(sequence, is_plain, self._repeated)

    def next_name(self) -> str:
        """Return a name for a segment, of which it has the first block."""
        self._names += 1
        return names.segment(self._stem, self._settings.sequence, self._names - 1)

    def wrote(self, item: Item, file: SegmentWriter) -> None:
        """Note where a block is written."""
        self._files[item] = file

    def clear(self) -> None:
        """Let go of what was pending: it is written, or in the earlier save."""
        for leaf in self._leaves:
            known = leaf.digests()
            if known is not None:
                self.owners[id(known[0]())] = known
            leaf.let_go()
            leaf.blocks = []
        for block in self._new:
            block.let_go()
        self._leaves = []
        self._recalled = []
        self._new = {}
        self._moved = []
        self.pending_bytes = 0

    # Written → listed

    @property
    def found_damaged(self) -> Path | None:
        """The earlier save, if something in it was found damaged."""
        folder, earlier = self._folder, self.index.earlier
        is_damaged = self.index.is_damaged or (folder is not None and folder.is_damaged)
        return earlier.source.path if earlier is not None and is_damaged else None

    def conclude(self) -> None:
        """List segments, blocks and files; give up segments that were kept in vain."""
        self.index.drop(self._dropped)
        found = [self._listed(one) for one in self._reused]
        self.bytes_reused = sum(one.ref.block.size for one in self._reused)
        found += [file.written(item) for item, file in self._files.items()]
        for file in set(self._files.values()):
            if file.items[0] in self._files:  # Else it counts for another component.
                self.bytes_written += file.segment.size
        numbers: dict[str, int] = {}
        for _, segment, block, prefix_hash in sorted(found, key=lambda one: one.number):
            if segment.file not in numbers:
                numbers[segment.file] = len(self.segments)
                self.segments.append(segment)
            block.segment = numbers[segment.file]
            self.blocks.append(block)
            self.prefix_hashes.append(prefix_hash)
        self._files, self._reused = {}, []
        if self._folder is not None:
            self._folder.finish()
            self.bytes_written += self._folder.bytes_written
            self.bytes_reused += self._folder.bytes_reused

    def _listed(self, one: Reused) -> Written:
        old = one.ref.block
        block = manifest.Block(0, old.offset, old.size, old.digest, old.unpacked)
        segment = self.index.segment(one.ref.segment)
        return Written(one.block.number, segment, block, one.prefix_hash)


def _repeated(found: Sequence[str]) -> set[str]:
    """Return the names that are there more than once."""
    if len(set(found)) == len(found):
        return set()
    return {name for name, count in collections.Counter(found).items() if count > 1}

"""The components → a save."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timezone
from pathlib import Path
from typing import Any

import numpy as np

from ..directory import retention
from ..directory.entries import SaveEntry
from ..directory.listing import RECENT, Directory, next_sequence
from ..format import codec, manifest, names
from ..format.manifest import Manifest
from ..reports import SaveReport
from ..storage.store import Draft
from ..system.phases import Phases
from ..user.notices import Notices
from ..user.times import datetime
from .arenas import Arenas
from .component import ComponentSave, collect
from .earlier_save import EarlierSave, LostError
from .history import History
from .options import SaveLabel, SaveOptions, Settings
from .reuse import BlockIndex
from .writer import Writer

# Those on which what is in a state can depend.
_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "equinox", "torch", "ml_dtypes")


_NO_VALUES: Mapping[str, int] = {}


class Saving:
    """One save: `take` the state of the components, then `finish` it, in any thread.

    What is written by others is written between `stage` and `take`.

    Args:
      options: How to write it.
      label: What it says about itself.
      target: Folder to write, or None for a new one in the directory.
      listing: The directory, without a target.
      history: What earlier saves of the directory hold.
      notices: What is said of the run, and was.
      phases: The clock of what is done for it.

    Attributes:
      path: The save folder.
      newest: The newest save in the directory when this one began, or None.

    Raises:
      CheckpointError: as for `Checkpoint.save`.
    """

    def __init__(
        self,
        options: SaveOptions,
        label: SaveLabel,
        *,
        target: Path | None,
        listing: Directory | None = None,
        history: History | None = None,
        notices: Notices | None = None,
        phases: Phases | None = None,
    ) -> None:
        self._notices = Notices() if notices is None else notices
        self._phases = phases or Phases()
        self._begin = time.monotonic()
        directory = listing
        if target is not None:
            directory = Directory(target.parent, self._notices)
        assert directory is not None
        self._options = options
        self._directory = directory
        self._history = history or History()
        with self._phases("begin"):
            self._here = directory.look(recent=RECENT)
        self._staged: dict[str, Path] = {}
        self._collected: list[ComponentSave] = []
        self._writer: Writer | None = None
        self._values = _NO_VALUES
        # What takes the draft out has to finish it or to abandon it.
        self._drafts: list[Draft] = []
        try:
            with self._phases("begin"):
                if options.write:
                    self._drafts.append(self._new_draft(target, label.step))
                self._describe_new(target, label)
        except BaseException:
            self.abandon()
            raise

    def _new_draft(self, target: Path | None, step: int | None) -> Draft:
        fsync, store = self._options.fsync, self._directory.store
        if target is not None:
            return store.begin_at(target.name, fsync=fsync)
        self._directory.sweep(self._here)
        return store.begin(step, fsync=fsync)

    def _describe_new(self, target: Path | None, label: SaveLabel) -> None:
        options, now = self._options, datetime.now(timezone.utc)
        name = self._directory.path / names.save_name(now, label.step)
        self.path = self._drafts[0].path if self._drafts else target or name
        self._manifest = Manifest(
            name=manifest.escape(self.path.name),
            explicit=target is not None,
            sequence=next_sequence(self._here.saves),
            step=label.step,
            time=now,
            durable=options.fsync,
            metrics=label.metrics,
            metadata=label.metadata,
            lineage=label.lineage,
            libraries=_libraries(),
            pin=label.pin,
            ranking=retention.ranking(options.keep),
            schedule=label.schedule,
            keys=label.keys,
            components=[],
        )

    def describe(self, label: SaveLabel) -> None:
        """Change what the save says about itself, before `take`.

        The name of its folder stays.
        """
        for field in label.__struct_fields__:
            setattr(self._manifest, field, getattr(label, field))
        self._manifest.time = datetime.now(timezone.utc)

    def stage(self, keys: Sequence[str]) -> list[Path]:
        """Return the folders of components whose files others write, before `take`.

        If nothing is written, they are not there.
        """
        for key, stem in names.stems(keys).items():
            name = names.folder(stem)
            path = self._drafts[0].folder(name) if self._drafts else self.path / name
            self._staged[key] = path
        return list(self._staged.values())

    @property
    def newest(self) -> SaveEntry | None:
        return self._here.saves[-1] if self._here.saves else None

    def take(
        self,
        savefns: Mapping[str, Callable[[], Any]],
        arenas: Arenas | None = None,
        values: Mapping[str, int] = _NO_VALUES,
    ) -> None:
        """Call the functions, which return a state, and write or own what they return.

        If it fails, the caller should `abandon` the save.

        Args:
          savefns: The functions by key.
          arenas: Memory for copies, to own it only and leave the writing to `finish`.
          values: Identities of those states that the program must set anew when they
            change, by key.
        """
        self._values = values
        if self._staged:  # Others may have saved meanwhile.
            self._here = self._directory.look_again(self._here, self.path.name)
            self._manifest.sequence = next_sequence(self._here.saves)
        if self._drafts:
            self._writer = self._new_writer(arenas)
        try:
            collect(
                savefns,
                self._writer,
                self._known(),
                self._collected,
                staged=self._staged,
                background=arenas is not None,
                notices=self._notices,
                phases=self._phases,
                recurring=self._history.recurring,
            )
        finally:  # What was found untrue is, also if the save fails.
            for item in self._collected:
                if item.writer is not None:
                    self._history.mistrust(item.key, item.writer.untrue_rings)
        self._manifest.components = [item.entry for item in self._collected]

    def _new_writer(self, arenas: Arenas | None) -> Writer:
        shards = arenas
        sizes = self._options.sizes
        if shards is None or shards.limit_bytes < sizes.shards:
            shards = Arenas(sizes.shards, sizes.arena)
        settings = Settings(
            self._options,
            self._drafts[0],
            self._manifest.sequence,
            arenas=shards if arenas is None else arenas,
            shards=shards,
            is_alone=self._manifest.explicit,
        )
        return Writer(settings, self._phases)

    def _known(self) -> Callable[[str], BlockIndex]:
        """Return what finds blocks of a component in earlier saves."""
        if self._manifest.explicit or not self._drafts:
            return lambda _: BlockIndex()  # Such a save is for taking away.
        return self._history.known(self._here.saves, self._drafts[0], self._options)

    def finish(self) -> SaveReport | None:
        """Write the rest, commit and prune; if it fails, leave no trace of the save.

        Returns:
          The report, or None if the save was abandoned.
        """
        if self._writer is None:
            return self.report(is_finished=True)
        taken: list[Draft] = []
        try:
            with contextlib.suppress(IndexError):
                taken.extend(map(self._drafts.pop, [-1]))  # Both in one step.
            if not taken:
                return None
            content = self._commit(taken[0], self._writer)
        except BaseException as error:
            for draft in taken:
                draft.abandon()
            if isinstance(error, LostError):
                self._history.distrust(self._manifest.sequence - 1)
                self._note_damage()
            raise
        with self._phases("prune"):
            self._history.still.saved(self._values, self._manifest, self._notices)
            if not self._manifest.explicit:
                self._note_damage()
                self._tidy(self._remember())
        return self.report(is_finished=True, manifest_bytes=len(content))

    def _commit(self, draft: Draft, writer: Writer) -> bytes:
        """Write the rest and commit; return the content of the manifest."""
        writer.finish()
        for item in self._collected:
            assert item.writer is not None
            item.entry.segments = item.writer.segments
            item.entry.blocks = item.writer.blocks
        with self._phases("commit"):
            # Others may have saved meanwhile, and order is that of the commits.
            self._here = self._directory.look_again(self._here, self.path.name)
            sequence = next_sequence(self._here.saves)
            written = self._manifest
            written.sequence = max(written.sequence, sequence)
            written.bytes_written = self._bytes_written
            content = codec.encode(written)
            draft.commit(content)
        return content

    @property
    def left_bytes(self) -> int:
        """Size of what `finish` has not written yet; any thread may ask."""
        return 0 if self._writer is None else self._writer.left_bytes

    @property
    def is_repeatable(self) -> bool:
        """Whether the components' functions can be called for another save.

        Shards may be there only once, as are files that others have written.
        """
        shards = [item.entry.shards for item in self._collected]
        return not self._staged and all(count is None for count in shards)

    def abandon(self) -> None:
        """Leave no trace of the save, unless it is being finished, or is finished."""
        with contextlib.suppress(IndexError):
            self._drafts.pop().abandon()

    def _note_damage(self) -> None:
        """Take note of earlier saves that were found damaged."""
        for item in self._collected:
            if item.writer is not None and item.writer.found_damaged is not None:
                self._directory.distrust(item.writer.found_damaged)

    def _remember(self) -> SaveEntry:
        """Take note of what was saved, for listing it and for reuse by the next."""
        entry = self._directory.note(self.path, self._manifest)
        sequence = self._manifest.sequence
        self._history.remember(
            {
                item.key: EarlierSave(
                    entry.source,
                    sequence,
                    item.writer.segments,
                    item.writer.blocks,
                    item.writer.prefix_hashes,
                    item.writer.index.turn + 1,
                    item.writer.owners,
                    item.entry.files,
                    item.writer.rings,
                    is_durable=self._options.fsync,
                )
                for item in self._collected
                if item.writer is not None
            }
        )
        return entry

    def _tidy(self, entry: SaveEntry) -> None:
        """Point to the new save and prune; it is made, so failing only warns."""
        try:
            fsync, keep = self._options.fsync, self._options.keep
            self._directory.store.point_latest(self.path.name, fsync=fsync)
            saves = [*self._here.saves, entry]
            self._directory.prune(keep, saves, written=self.path, fsync=fsync)
            self._notices.settle("tidy")
        except Exception as error:
            failed = "Saved %s, but could not prune: %s"
            self._notices.warn("tidy", failed, self.path, error)

    @property
    def _bytes_written(self) -> int:
        writers = [item.writer for item in self._collected if item.writer is not None]
        return sum(writer.bytes_written for writer in writers)

    def report(self, *, is_finished: bool, manifest_bytes: int = 0) -> SaveReport:
        """Return what the caller of `save` gets."""
        writers = [item.writer for item in self._collected if item.writer is not None]
        return SaveReport(
            path=self.path,
            step=self._manifest.step,
            sequence=self._manifest.sequence,
            is_finished=is_finished,
            bytes_written=self._bytes_written + manifest_bytes,
            bytes_reused=sum(writer.bytes_reused for writer in writers),
            bytes_total=sum(item.entry.size_bytes for item in self._collected),
            pickled=tuple(name for item in self._collected for name in item.pickled),
            seconds=time.monotonic() - self._begin,
            phases=self._phases.seconds(),
        )


def _libraries() -> dict[str, str]:
    """Return the versions that a save depends on, of libraries imported already."""
    python = ".".join(map(str, sys.version_info[:3]))
    versions = {"python": python, "numpy": np.__version__}
    for name in ("elementsckpt", *_LIBRARIES):
        version = getattr(sys.modules.get(name), "__version__", None)
        if isinstance(version, str):
            versions[name] = str(version)  # Torch has a type of its own.
    return versions

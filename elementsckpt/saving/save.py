"""The components → a save."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct

from ..directory import retention
from ..directory.listing import Directory, Found, next_sequence
from ..directory.retention import Keep
from ..format import manifest
from ..format.compression import Compress
from ..format.manifest import Lineage, Manifest
from ..reports import SaveReport
from ..storage import drafts
from ..storage.drafts import Draft
from ..storage.filetree import folder_of, make_folder
from ..user.notices import Notices
from .component import Collected, collect, stem
from .history import History
from .reuse import NOTHING, Known, LostError, Remembered
from .staging import Staging
from .writer import Settings, Writer

# Those on which what is in a state can depend.
_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "equinox", "torch", "ml_dtypes")
_MOST_NAMES = 10  # In a message.
_SHARD_BYTES = 48 << 20  # What any save may copy of shards.
_logger = logging.getLogger("elementsckpt")


class Manner(Struct, frozen=True):
    """How saves are written.

    Attributes:
      keep: Which saves stay in the directory.
      write: Whether to write anything at all.
      fsync: Whether a save is durable when it is finished.
      compress: Which leaves are compressed.
    """

    keep: Keep = Keep(latest=None)
    write: bool = True
    fsync: bool = True
    compress: Compress = "auto"


class About(Struct, frozen=True):
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


_NOTHING = About()
_NO_VALUES: Mapping[str, int] = {}


class Saving:
    """One save: `take` the state of the components, then `finish` it, in any thread.

    What is written by others is written between `stage` and `take`.

    Args:
      manner: How to write it.
      target: Folder to write, or None for a new one in the directory.
      listing: The directory, without a target.
      history: What earlier saves of the directory hold.
      about: What it says about itself.
      notices: What is said of the run, and was.

    Attributes:
      path: The save folder.
      newest: The newest save in the directory when this one began, or None.

    Raises:
      CheckpointError: as for `Checkpoint.save`.
    """

    def __init__(
        self,
        manner: Manner,
        *,
        target: Path | None,
        listing: Directory | None = None,
        history: History | None = None,
        about: About = _NOTHING,
        notices: Notices | None = None,
    ) -> None:
        self._notices = Notices() if notices is None else notices
        self._begin = time.monotonic()
        directory = listing
        if target is not None:
            directory = Directory(target.parent, self._notices)
        assert directory is not None
        self._manner = manner
        self._directory = directory
        self._history = history or History()
        self._saves = directory.saves()
        self._staged: dict[str, Path] = {}
        self._collected: list[Collected] = []
        self._writer: Writer | None = None
        self._values = _NO_VALUES
        # Whoever takes the draft out is to finish or to abandon it.
        self._drafts: list[Draft] = []
        try:
            if manner.write:
                self._drafts.append(self._new_draft(target, about.step))
            self._describe_new(target, about)
        except BaseException:
            self.abandon()
            raise

    def _new_draft(self, target: Path | None, step: int | None) -> Draft:
        fsync = self._manner.fsync
        if target is not None:
            return drafts.begin_at(target, fsync=fsync)
        self._directory.sweep()
        return drafts.begin(self._directory.path, step, fsync=fsync)

    def _describe_new(self, target: Path | None, about: About) -> None:
        manner, now = self._manner, datetime.now(timezone.utc)
        name = self._directory.path / drafts.save_name(now, about.step)
        self.path = self._drafts[0].path if self._drafts else target or name
        self._manifest = Manifest(
            name=manifest.escape(self.path.name),
            explicit=target is not None,
            sequence=next_sequence(self._saves),
            step=about.step,
            time=now,
            durable=manner.fsync,
            metrics=about.metrics,
            metadata=about.metadata,
            lineage=about.lineage,
            libraries=_libraries(),
            pin=about.pin,
            ranking=retention.ranking(manner.keep),
            schedule=about.schedule,
            keys=about.keys,
            components=[],
        )

    def describe(self, about: About) -> None:
        """Change what the save says about itself, before `take`.

        The name of its folder stays.
        """
        for field in about.__struct_fields__:
            setattr(self._manifest, field, getattr(about, field))
        self._manifest.time = datetime.now(timezone.utc)

    def stage(self, key: str) -> Path:
        """Return the folder of a component whose files others write, before `take`.

        If nothing is written, it is not there.
        """
        place = make_folder if self._drafts else folder_of
        path = self._staged[key] = place(self.path, stem(key))
        return path

    @property
    def newest(self) -> Found | None:
        return self._saves[-1] if self._saves else None

    def take(
        self,
        savefns: Mapping[str, Callable[[], Any]],
        staging: Staging | None = None,
        values: Mapping[str, int] = _NO_VALUES,
    ) -> None:
        """Call the functions, which return a state, and write or own what they return.

        If it fails, the caller should `abandon` the save.

        Args:
          savefns: The functions by key.
          staging: Memory for copies, to own it only and leave the writing to `finish`.
          values: Identities of those states that the program must set anew when they
            change, by key.
        """
        self._values = values
        if self._staged:  # Others may have saved meanwhile.
            self._saves = self._directory.saves()
            self._manifest.sequence = next_sequence(self._saves)
        if self._drafts:
            self._writer = self._new_writer(staging)
        self._collected = collect(
            savefns,
            self._writer,
            self._known,
            staged=self._staged,
            background=staging is not None,
            notices=self._notices,
        )
        self._manifest.components = [item.component for item in self._collected]
        for item in self._collected:
            if item.apart:
                _tell_of_memory(item.key, item.apart, self._notices)

    def _new_writer(self, staging: Staging | None) -> Writer:
        shards = staging
        if shards is None or shards.limit_bytes < _SHARD_BYTES:
            shards = Staging(_SHARD_BYTES)
        settings = Settings(
            self.path,
            self._manifest.sequence,
            self._manner.fsync,
            self._manner.compress,
            staging=shards if staging is None else staging,
            shards=shards,
            is_alone=self._manifest.explicit,
        )
        return Writer(settings)

    def _known(self, key: str) -> Known:
        if self._manifest.explicit:
            return NOTHING  # Such a save is for taking away.
        return self._history.known(
            key,
            self._saves,
            self.path,
            fsync=self._manner.fsync,
            compress=self._manner.compress,
        )

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
        self._history.still.saved(self._values, self._manifest, self._notices)
        if not self._manifest.explicit:
            self._note_damage()
            self._remember()
            self._tidy()
        return self.report(is_finished=True, manifest_bytes=len(content))

    def _commit(self, draft: Draft, writer: Writer) -> bytes:
        """Write the rest and commit; return the content of the manifest."""
        writer.finish()
        for item in self._collected:
            assert item.writer is not None
            item.component.segments = item.writer.segments
            item.component.blocks = item.writer.blocks
        # Others may have saved meanwhile, and order is that of the commits.
        sequence = next_sequence(self._directory.saves())
        written = self._manifest
        written.sequence = max(written.sequence, sequence)
        content = manifest.encode(written)
        draft.commit(content)
        return content

    @property
    def is_repeatable(self) -> bool:
        """Whether the components' functions can be called for another save.

        Shards may be there only once, as are files that others have written.
        """
        shards = [item.component.shards for item in self._collected]
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

    def _remember(self) -> None:
        """Take note of what was saved, for listing it and for reuse by the next."""
        self._directory.note(self.path, self._manifest.head())
        sequence = self._manifest.sequence
        self._history.remember(
            {
                item.key: Remembered(
                    self.path,
                    sequence,
                    item.writer.segments,
                    item.writer.blocks,
                    item.writer.heads,
                    item.writer.known.turn + 1,
                    item.writer.owners,
                    item.component.files,
                    is_synced=self._manner.fsync,
                )
                for item in self._collected
                if item.writer is not None
            }
        )

    def _tidy(self) -> None:
        """Point to the new save and prune; it is made, so failing only warns."""
        try:
            fsync, keep = self._manner.fsync, self._manner.keep
            self._directory.write_latest(self.path.name, fsync=fsync)
            self._directory.prune(keep, written=self.path, fsync=fsync)
            self._notices.settle("tidy")
        except Exception as error:
            failed = "Saved %s, but could not prune: %s"
            self._notices.warn("tidy", failed, self.path, error)

    def report(self, *, is_finished: bool, manifest_bytes: int = 0) -> SaveReport:
        """Return what the caller of `save` gets."""
        writers = [item.writer for item in self._collected if item.writer is not None]
        written = sum(writer.bytes_written for writer in writers)
        return SaveReport(
            path=self.path,
            step=self._manifest.step,
            sequence=self._manifest.sequence,
            is_finished=is_finished,
            bytes_written=written + manifest_bytes,
            bytes_reused=sum(writer.bytes_reused for writer in writers),
            bytes_total=sum(item.component.size_bytes for item in self._collected),
            pickled=tuple(name for item in self._collected for name in item.pickled),
            seconds=time.monotonic() - self._begin,
        )


def store(
    begin: Callable[[], Saving],
    savefns: Mapping[str, Callable[[], Any]],
    values: Mapping[str, int] = _NO_VALUES,
) -> SaveReport:
    """Save in this thread, and a second time if what was to be reused is lost."""
    is_again = False
    while True:
        saving = begin()
        try:
            saving.take(savefns, values=values)
            report = saving.finish()
        except BaseException as error:
            saving.abandon()
            is_lost = isinstance(error, LostError) and saving.is_repeatable
            if is_again or not is_lost:
                raise
            _logger.warning("Saving again without reuse: %s", error)
            is_again = True
        else:
            assert report is not None  # Nobody else could abandon it.
            return report


def _tell_of_memory(key: str, names: Sequence[str], notices: Notices) -> None:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    notices.warn(
        ("memory", key),
        "%s%s share memory, and will come back apart: what is then written to one does "
        "not reach the others. That is kept for arrays without objects that are parts "
        "of one another. Save one, and make the others from it in load().",
        ", ".join(names[:_MOST_NAMES]),
        more,
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

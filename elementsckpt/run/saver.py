"""Makes the saves of a run: one at a time, in the caller's thread or in another."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from ..components import rng
from ..components.component import Component, identities
from ..directory import retention
from ..directory.entries import SaveEntry
from ..directory.listing import Directory
from ..directory.metadata import encode_metrics, merge
from ..directory.records import decode_metrics
from ..reports import SaveReport
from ..saving.arenas import Arenas
from ..saving.earlier_save import LostError
from ..saving.history import History
from ..saving.options import SaveLabel, SaveOptions
from ..saving.save import Saving
from ..system import forks
from ..system.phases import Phases
from ..system.progress import SILENT, Meter
from ..user.notices import Notices
from .background import Background
from .provenance import Provenance
from .timing import Timing
from .writer_lock import WriterLock, lock_for_writing

_logger = logging.getLogger("elementsckpt")


class SaveRequest(Struct, frozen=True):
    """A save that a caller wants.

    Attributes:
      components: What to save, by key.
      target: Folder to write, or None for a new one in the directory.
      metrics: As for `Checkpoint.save`, like the next two.
      is_whole: Whether it is all of the run, in the directory.
      is_last: Whether there may be no second chance, so that what went wrong with the
        save before is raised only when this one is made.
      begun: The save, if it has begun, as others have written files to it.
      asked_s: When the caller asked for it, by the monotonic clock.
      phases: The clock of what is done for it.
    """

    components: Mapping[str, Component]
    target: Path | None = None
    metrics: Mapping[str, Any] | None = None
    metadata: Any = None
    pin: str | None = None
    is_whole: bool = False
    is_last: bool = False
    begun: Saving | None = None
    asked_s: float = field(default_factory=lambda: time.monotonic())
    phases: Phases = field(default_factory=Phases)

    @property
    def savefns(self) -> dict[str, Callable[[], Any]]:
        """What returns the states of the components, in the order to call it."""
        return rng.last({key: x.saving for key, x in self.components.items()})


class Saver:
    """Makes the saves of one run, and knows what came before each.

    Args:
      directory: Where saves go, or None if each has a folder that the caller names.
      options: How to write them.
      components: All that is registered, which may change.
      timing: When to save; it is told of each save.
      metadata: Of the run, encoded; what a request has comes on top.
      copy_bytes: Memory for copies, to finish saves in the background; None to finish
        them before they are returned.
      notices: What is said of the run, and was.

    Attributes:
      components: As given.
      lock: Held by who saves or loads, or changes the directory.
      is_background: Whether saves are finished in the background.
      options: As given.
    """

    def __init__(
        self,
        directory: Directory | None,
        options: SaveOptions,
        components: Mapping[str, Component],
        timing: Timing,
        *,
        metadata: Any,
        copy_bytes: int | None,
        notices: Notices,
    ) -> None:
        self.is_background = copy_bytes is not None
        self._directory = directory
        self.options = options
        self.components = components
        self._timing = timing
        self._metadata = metadata
        self._notices = notices
        self._background: Background[SaveReport] = Background()
        # The save under way, and the size of its state.
        self._under_way: tuple[Callable[[], Saving | None], int] = _no_save, 0
        self._memory = Arenas(copy_bytes or 0, options.sizes.arena)
        self._history = History()
        # The objects that were saved or loaded last, by key.
        self._owners: dict[str, Callable[[], Any]] = {}
        self._provenance = Provenance()
        self._writer_lock: WriterLock | None = None  # From the first save on.
        self.lock = threading.RLock()
        self._turn = threading.Lock()  # Held while something is being saved.
        forks.watch(self)

    def _after_fork(self) -> None:
        self.lock = threading.RLock()
        self._turn = threading.Lock()

    # Saving

    def save(self, request: SaveRequest) -> SaveReport:
        """Make a save, or begin it in the background; then the report says so far.

        Raises:
          Exception: as for `Checkpoint.save`; what went wrong with the save before.
        """
        with self.lock:
            if self._turn.locked():  # A signal handler saves, or a component's save().
                return self._save(request, {}, in_background=False)
            failure: Exception | None = None
            with self._turn:
                try:
                    self._wait_before(request)
                except Exception as error:
                    if not request.is_last:
                        raise
                    failure = error
                was_over = self._timing.is_over
                values = identities(request.components)
                in_background = self.is_background and self.options.write
                try:
                    report = self._save(request, values, in_background=in_background)
                except BaseException:
                    self._timing.failed(time.monotonic() - request.asked_s)
                    raise
                if report.is_finished:
                    self._note(report)
            if request.is_whole:
                seconds = time.monotonic() - request.asked_s
                self._timing.saved(report.step, seconds, was_over=was_over)
            if failure is not None:
                self.wait()
                raise failure
            return report

    def _wait_before(self, request: SaveRequest) -> None:
        if self.is_background:
            with request.phases("wait"):
                self.wait()

    def _save(
        self,
        request: SaveRequest,
        values: Mapping[str, int],
        *,
        in_background: bool,
        is_again: bool = False,
    ) -> SaveReport:
        """Save, and a second time if what was to be reused is lost."""
        self._forget_replaced(request.components)
        saving = self._begin(request)
        try:
            if in_background:
                self._take(saving, request, values)
                report = saving.report(is_finished=False)
                self._under_way = weakref.ref(saving), report.bytes_total
                self._background.start(saving.finish)
                return report
            saving.take(request.savefns, values=values)
            finished = saving.finish()
            assert finished is not None  # Nothing else could have abandoned it.
            return finished
        except BaseException as error:
            saving.abandon()  # Unless the thread has it by now.
            is_lost = isinstance(error, LostError) and saving.is_repeatable
            if is_again or not is_lost:
                raise
            _logger.warning("Saving again without reuse: %s", error)
        return self._save(request, values, in_background=in_background, is_again=True)

    def _forget_replaced(self, components: Mapping[str, Component]) -> None:
        """Rely on nothing for components that are other objects than before."""
        for key, component in components.items():
            known = self._owners.get(key)
            if known is None or known() is not component.owner:
                self._history.forget([key])
        self._owners |= _references(components)

    def _take(
        self, saving: Saving, request: SaveRequest, values: Mapping[str, int]
    ) -> None:
        """Let a save own what it saves; in new memory if an interrupt ended the last.

        There might be threads which still write to the other.
        """
        memory, self._memory = self._memory, self._memory.like()
        try:
            saving.take(request.savefns, memory, values)
        except Exception:
            self._memory = memory
            raise
        self._memory = memory

    def begin(self, request: SaveRequest) -> Saving:
        """Begin a save that others write files to, when it is its turn."""
        with self.lock:
            if not self._turn.locked():
                self._wait_before(request)
            return self._begin(request)

    def _begin(self, request: SaveRequest) -> Saving:
        label = self._label(request)
        if request.begun is not None:
            request.begun.describe(label)
            return request.begun
        saving = Saving(
            self.options,
            label,
            target=request.target,
            listing=self._directory,
            history=self._history,
            notices=self._notices,
            phases=request.phases,
        )
        try:
            if request.target is None and self.options.write:
                self._writer_lock = lock_for_writing(saving.path.parent, saving.newest)
                if not self._writer_lock.is_contested:
                    self._provenance.compare(saving.newest, label.step)
                self._provenance.begins(saving.path)
        except BaseException:
            saving.abandon()
            raise
        return saving

    def _label(self, request: SaveRequest) -> SaveLabel:
        """Return what a new save says about itself, when it is its turn."""
        encoded, step = encode_metrics(request.metrics), self._timing.current_step()
        keep, found = self.options.keep, decode_metrics(encoded)
        retention.warn(keep, found, step, self._notices)
        return SaveLabel(
            step=step,
            metrics=encoded,
            metadata=merge(self._metadata, request.metadata),
            pin=request.pin,
            schedule=self._timing.schedule(step),
            lineage=self._provenance.lineage(),
            keys=sorted({*self.components, *self._provenance.left_out}),
        )

    def _note(self, report: SaveReport) -> None:
        """Take note of a finished save, and say where its time went."""
        long = [f"{x} {y:.2f}" for x, y in report.phases.items() if y >= 0.005]
        where, seconds = ", ".join(long) or "nothing took long", report.seconds
        _logger.info("Saved %s in %.2f s: %s.", report.path, seconds, where)
        if self._directory is not None and report.path.parent == self._directory.path:
            self._provenance.saved(report)

    # Waiting

    def wait(self, meter: Meter = SILENT) -> SaveReport | None:
        """Return when nothing is being saved or loaded: as for `Checkpoint.wait`.

        Args:
          meter: Counts the bytes of the state that are saved.
        """
        with self.lock:
            meter.begin(self._under_way[1])
            tell = functools.partial(self._tell, meter) if meter.is_on else None
            try:
                return self._background.wait(self._note_outcome, tell)
            finally:
                if not self._background.is_busy:
                    self._under_way = _no_save, 0

    def _tell(self, meter: Meter) -> None:
        ref, total = self._under_way
        saving = ref()
        if saving is not None:
            meter.reach(total - saving.left_bytes)

    def _note_outcome(self, outcome: SaveReport | BaseException | None) -> None:
        if isinstance(outcome, BaseException):
            self._timing.failed(0.0)
        elif outcome is not None:
            self._note(outcome)

    def check(self) -> None:
        """Raise what went wrong in the background, if it is known by now."""
        if self._background.is_done:
            self.wait()

    def join(self) -> None:
        """Return when nothing is under way, and leave what went wrong for `wait`."""
        self._background.join()

    def close(self) -> None:
        """Wait, as `wait` does, and let go of memory and the directory."""
        with self.lock:
            try:
                self.wait()
            finally:
                self._writer_lock = None
                self._timing.unwatch()
                self._memory = self._memory.like()

    # Resuming

    def forget(self, keys: Iterable[str]) -> None:
        """Take note that components are about to be loaded."""
        self._history.forget(keys)

    def loaded(
        self,
        found: SaveEntry,
        *,
        exact: Iterable[str],
        is_own: bool,
        is_whole: bool,
    ) -> None:
        """Take note of where the state comes from, and go on with the run there.

        Args:
          found: The save.
          exact: The components that are now as they are there, in the directory.
          is_own: Whether it is in the directory.
          is_whole: Whether all was loaded.
        """
        self._provenance.loaded(found, is_own=is_own)
        self._history.loaded(found, exact)
        self._owners |= _references({key: self.components[key] for key in exact})
        if is_own and is_whole and found.head is not None:
            self._provenance.resumed(
                found.path,
                found.head,
                self.components,
                self._metadata,
                writes=self.options.write,
            )
            self._timing.resumed(found.head.schedule, found.step)
        step = "" if found.step is None else f", of step {found.step}"
        _logger.info("Loaded %s%s.", found.path, step)


def _no_save() -> None:
    """Return no save, as a weak reference to one that is gone does."""


def _references(components: Mapping[str, Component]) -> dict[str, Callable[[], Any]]:
    """Return weak references to the objects, where they take any."""
    found: dict[str, Callable[[], Any]] = {}
    for key, component in components.items():
        owner = component.owner
        try:
            found[key] = weakref.ref(owner)
        except TypeError:
            found[key] = functools.partial(lambda x: x, owner)
    return found


class StagedSave(contextlib.AbstractContextManager[Any]):
    """Begins a save for a block that gets its folders, and makes it when that ends.

    Args:
      saver: What makes it.
      keys: Components whose files are written in the block.
      request: What to save then; but of components it is all there are.
    """

    def __init__(self, saver: Saver, keys: Sequence[str], request: SaveRequest) -> None:
        self._saver = saver
        self._keys = keys
        self._request = request
        self._saving: Saving | None = None

    def __enter__(self) -> Any:
        try:
            self._saving = self._saver.begin(self._request)
            folders = tuple(self._saving.stage(self._keys))
            return folders if len(folders) > 1 else folders[0]
        except BaseException:
            self._abandon()
            raise

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                components = dict(self._saver.components)  # Others may be there by now.
                self._saver.save(
                    replace(self._request, components=components, begun=self._saving)
                )
            else:
                self._abandon()
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        if self._saving is not None:
            self._saving.abandon()

"""The object that holds a run's components, and the functional form by its name."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import choice, components, compression, manifest, retention, signals
from .background import Background
from .claim import Claim, claim
from .components import Component
from .compression import Compress
from .disk import AnyPath, local
from .errors import (
    CheckpointError,
    ComponentError,
    DamagedError,
    SaveNotFoundError,
)
from .files import Files, folder_keys, takes_folder
from .folder import Directory, Found
from .functions import exists, load, save
from .history import History
from .look import describe
from .manifest import Head
from .metadata import changes as metadata_changes
from .metadata import decode_metrics, encode, encode_metrics, merge
from .origin import Origin
from .overlay import Selection
from .registry import Registry
from .reports import LoadReport, SaveInfo, SaveReport
from .restore import Reading, hand_over, restore
from .retention import Keep
from .schedule import Every
from .signals import Watch, watch
from .staging import Staging, default_bytes
from .store import About, Manner, Saving, store
from .stored import Options
from .wrappers import Saveable

__all__ = ["Checkpoint", "exists", "load", "save"]
_logger = logging.getLogger("elementsckpt")
_NAMES = ("latest", "best")  # By which `load` knows saves; no pins.


class Checkpoint(Registry):
    """A run's components, saved together and loaded together.

        directory/
          latest                        name of the newest save, for people
          <UTC timestamp>-<step>/       one save, complete in itself
            agent-000017-00000.safetensors
            replay-000017-00000.safetensors
            manifest.json               written last: it makes the folder a save

    Components are registered as attributes: `cp.agent = agent`. Any object will do
    that has `save()` and `load(data)`, or `state_dict()` and `load_state_dict(d)`, or
    `to_state_dict()` and `from_state_dict(d)`.

    Args:
      directory: Where saves go. Without it, `save` and `load` need a path.
      keep: How many of the newest saves to keep, or a `Keep`, which says more; None
        keeps all. What is left is removed after each save.
      step: Something that `int()` accepts, or a function that returns it, recorded
        with each save. By default a component named `step`, if there is one.
      write: Whether `save` writes. With False it does everything else, for all but
        one process of a group, for example.
      every: When `save_if_due` saves.
      metadata: Attached to each save, such as the configuration of the run; as for
        `save`, and what is given there comes on top.
      background: Whether `save` returns as soon as later changes cannot reach what is
        being saved: arrays that changed have been copied, JAX arrays are held. A
        thread does the rest, for one save at a time. What goes wrong there is logged
        at once and raised by the next `save`, `wait` or `close`. When the interpreter
        ends, it finishes the save first, except in `os._exit`.
      compress: Which leaves are stored as zstd frames: with "auto" those of 64 KiB or
        more that it at least halves, with None none, with a level from 1 to 22 all.
        Only what is stored as it is can be mapped.
      fsync: Whether a save is durable when it is finished. Without, it is complete or
        absent after a crash of the process, but not after one of the machine.
      staging_bytes: Memory for the copies that saves in the background make. It is
        reused, and when it is full, `save` writes before it returns. By default an
        eighth of the memory that the machine, or a container, has.

    What did not change since the newest save in the directory is not written again:
    the new save gets hard links to the files that hold it, where the file system has
    links.

    Source: elements.Checkpoint.
    """

    _OWN = frozenset(
        {"_directory", "_step", "_every", "_metadata", "_manner", "_background"}
        | {"_staging", "_lock", "_listing", "_history", "_is_saving"}
        | {"_origin", "_claim", "_watch", "_is_safe", "_saved_step", "_left_out"}
    )

    def __init__(
        self,
        directory: AnyPath | None = None,
        keep: int | Keep | None = 1,
        step: Any = None,
        write: bool = True,
        *,
        every: Every | None = None,
        metadata: Any = None,
        background: bool = False,
        compress: Compress = "auto",
        fsync: bool = True,
        staging_bytes: int | None = None,
    ) -> None:
        super().__init__()
        if every is not None and not isinstance(every, Every):
            raise ValueError(
                f"every={every!r}: pass elementsckpt.Every(steps=1000), for example."
            )
        if staging_bytes is not None and (
            type(staging_bytes) is not int or staging_bytes < 0
        ):
            raise ValueError(
                f"staging_bytes={staging_bytes!r}: pass a number of bytes, or None."
            )
        self._directory = None if directory is None else local(directory)
        self._step = step
        self._every = every
        self._metadata = encode(metadata)
        compress = compression.check(compress)
        self._manner = Manner(retention.checked(keep), write, fsync, compress)
        self._background: Background[SaveReport] | None = None
        self._staging: Staging | None = None
        if background:
            limit = default_bytes() if staging_bytes is None else staging_bytes
            self._background, self._staging = Background(), Staging(limit)
        self._lock = threading.RLock()
        self._listing = None if self._directory is None else Directory(self._directory)
        self._history = History()
        self._is_saving = False
        self._origin = Origin()
        self._claim: Claim | None = None  # From the first save on.
        self._watch: Watch | None = None
        self._is_safe = False  # All was saved since the run was preempted.
        self._saved_step: int | None = None
        # What the save that was resumed has and nobody registered.
        self._left_out: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        where = (
            "no directory" if self._directory is None else repr(str(self._directory))
        )
        newest = "none"
        with contextlib.suppress(CheckpointError):
            found = [] if self._listing is None else self._listing.saves()[::-1]
            if found:
                save = choice.newest(found)
                newest = f"{save.path.name}, step {save.step}"
        return f"Checkpoint({where}, keys={list(self._components)}, newest: {newest})"

    # Saving

    def save(
        self,
        path: AnyPath | None = None,
        keys: Iterable[str] | None = None,
        *,
        metrics: Mapping[str, Any] | None = None,
        metadata: Any = None,
        pin: str | None = None,
    ) -> SaveReport:
        """Save the components; complete, and durable with fsync, on return.

        In the background it is that when `wait` returns, with the complete report; the
        one returned here says what is known so far. If the save before is not finished,
        this waits for it. If that failed, this raises what it raised and saves nothing:
        call it again.

        Args:
          path: Folder to write instead of a new one in the directory. It must not
            exist or be empty, is never pruned, and does not move `latest`.
          keys: Components to save; all by default. Such a save counts for `keep` like
            any other, but never costs the newest save of a component that it lacks.
          metrics: Numbers by name, scalars of NumPy and JAX too, by which `Keep` and
            `best` rank.
          metadata: Mappings, sequences and scalars, nested in any way: configurations,
            dataclasses, namespaces, paths, enumerations. `info(path).metadata` returns
            it as dicts, lists and Python scalars.
          pin: Name under which `load` finds the save, which is never pruned.

        Raises:
          ComponentError: nothing is registered.
          SaveExistsError: `path` holds something.
          StateError: a state holds what cannot be saved; the message names the leaf.
          MetadataError: metadata or metrics of another type; the message says where.
          WriteError: the disk refused; earlier saves are untouched. In the background,
            also what went wrong with the save before.
          Exception: what a component's own `save()` raises, with a note of its key.
        """
        self._require_components()
        selected = self._select(keys)
        target = None if path is None else local(path)
        if target is None and self._directory is None:
            raise ValueError(
                "This Checkpoint has no directory: pass a path to save(), or a "
                "directory to Checkpoint()."
            )
        pin = _checked_pin(pin, target)
        return self._save_in_turn(
            lambda: self._begin(target, metrics, metadata, pin),
            selected,
            is_whole=target is None and keys is None,
        )

    @contextlib.contextmanager
    def staging(
        self,
        key: str,
        *,
        metrics: Mapping[str, Any] | None = None,
        metadata: Any = None,
        pin: str | None = None,
    ) -> Iterator[Path]:
        """Save, with files of one component that others write in this block.

            with cp.staging("policy") as folder:
                ray.get([worker.write_shard.remote(folder) for worker in workers])

        The block gets a folder inside the new save, for any process that sees the disk
        to write to. When it ends, all components are saved as `save` does it, but this
        one's own `save` is not called: what is in the folder is its content. If the
        block raises, no trace is left of the save. Other saves may be made meanwhile.

        Args:
          key: A component that is a `Files`.
          metrics: As for `save`.
          metadata: As for `save`.
          pin: As for `save`.

        Yields:
          The folder, empty; its parent becomes the save. With `write=False` it is not
          there: take the path from the process that writes.

        Raises:
          ComponentError: the component is not a `Files`.
          Exception: as for `save`.
        """
        selected = self._select(None)
        if not takes_folder(self._select([key])[key].load):
            raise ComponentError(
                f"{key!r} is no component that has files: register "
                f"elementsckpt.Files(load=function) to stage them."
            )
        self._required_listing()
        pin = _checked_pin(pin, None)
        with self._lock:
            if not self._is_saving:
                self._wait()
            saving = self._begin(None, metrics, metadata, pin)
        try:
            yield saving.stage(key)
            self._save_in_turn(lambda: saving, selected, is_whole=True)
        except BaseException:
            saving.abandon()
            raise

    def _save_in_turn(
        self,
        begin: Callable[[], Saving],
        selected: Mapping[str, Component],
        *,
        is_whole: bool,
    ) -> SaveReport:
        """Save when nothing else is being saved with this object."""
        start = time.monotonic()
        savefns = {key: component.save for key, component in selected.items()}
        with self._lock:
            if self._is_saving:  # A signal handler saves, or a component's save().
                return store(begin, savefns)
            self._wait()
            self._is_saving = True
            try:
                is_safe = self.preempted
                report = self._save(begin, savefns)
            finally:
                self._is_saving = False
            if is_whole:
                self._is_safe = is_safe
                self._saved_step = report.step
                if self._every is not None:
                    self._every.mark(report.step, time.monotonic() - start)
        return report

    def save_if_due(
        self,
        *,
        metrics: Mapping[str, Any] | None = None,
        metadata: Any = None,
        final: bool = False,
    ) -> SaveReport | None:
        """Save if `every` says so, or if the run is preempted and did not save since.

        Args:
          metrics: As for `save`.
          metadata: As for `save`.
          final: Save whatever `every` says, unless this very step has been saved: what
            a run ends with.

        Returns:
          The report, or None if it was not time.

        Raises:
          ValueError: the Checkpoint has no `every`, or that needs a step.
          Exception: as for `save`.
        """
        if self._every is None:
            raise ValueError(
                "save_if_due() needs to know when: pass every=Every(steps=1000), for "
                "example, to Checkpoint()."
            )
        step = self._current_step()
        if final:
            is_due = step is None or step != self._saved_step
        else:
            is_due = self._every.is_due(step) or self._must_save
        if not is_due:
            return None
        return self.save(metrics=metrics, metadata=metadata)

    @property
    def _must_save(self) -> bool:
        return self.preempted and not self._is_safe

    def _save(
        self, begin: Callable[[], Saving], savefns: Mapping[str, Callable[[], Any]]
    ) -> SaveReport:
        if self._background is None or not self._manner.write:
            report = store(begin, savefns)
            self._note(report)
            return report
        saving = begin()
        saving.take(savefns, self._staging)
        report = saving.report(is_finished=False)
        try:
            self._background.start(saving.finish)
        except BaseException:
            saving.abandon()
            raise
        return report

    def _begin(
        self,
        target: Path | None,
        metrics: Mapping[str, Any] | None,
        metadata: Any,
        pin: str | None,
    ) -> Saving:
        about = self._about(metrics, metadata, pin)
        saving = Saving(
            self._manner,
            target=target,
            listing=self._listing,
            history=self._history,
            about=about,
        )
        if target is None and self._manner.write:
            self._claim = claim(saving.path.parent, saving.newest)
            if not self._claim.is_contested:
                self._origin.compare(saving.newest, about.step)
        return saving

    def _note(self, report: SaveReport) -> None:
        if report.path.parent == self._directory:
            self._origin.saved(report)

    def _about(
        self, metrics: Mapping[str, Any] | None, metadata: Any, pin: str | None
    ) -> About:
        """Return what a new save says about itself."""
        encoded, step = encode_metrics(metrics), self._current_step()
        self._manner.keep.report(decode_metrics(encoded), step)
        return About(
            step=step,
            metrics=encoded,
            metadata=merge(self._metadata, encode(metadata)),
            pin=pin,
            schedule=None if self._every is None else self._every.save(step),
            lineage=self._origin.lineage(),
            keys=frozenset(self._components) | self._left_out,
        )

    def _current_step(self) -> int | None:
        if self._step is not None:
            try:
                return int(self._step() if callable(self._step) else self._step)
            except (TypeError, ValueError) as error:
                raise ComponentError(
                    f"step={self._step!r} of this Checkpoint is no number: {error}. "
                    f"Pass something that int() accepts, such as a Counter."
                ) from error
        if "step" in self._components:
            try:
                return int(self._components["step"].value)
            except (TypeError, ValueError):
                return None
        return None

    # Loading

    def load(
        self,
        path: AnyPath | None = None,
        keys: Iterable[str] | None = None,
        *,
        step: int | None = None,
        regex: str | None = None,
        rename: Mapping[str, str] | None = None,
        strict: bool = True,
        cast: bool = False,
        mmap: bool = False,
        verify: bool = True,
        allow_pickle: bool | None = None,
        dry_run: bool = False,
    ) -> LoadReport:
        """Load the components; nothing changes before all is read and verified.

        A component gets what it saved, as it is. With `regex`, `rename`,
        `strict=False` or `cast=True` it gets its own current state with the matched
        leaves replaced, if their shapes and dtypes fit: `regex=".*"` loads all, and
        checks.

        Args:
          path: A save, or a directory whose newest good save is meant; or a name in
            this object's directory: "latest", "best", or that of a pin. By default
            the newest good save in the directory. What is named is never substituted.
          keys: Components to load; all by default.
          step: Loads the save of this step in the directory, the newest if there are
            several.
          regex: Loads the leaves whose names it matches from their start, as
            `re.match` does: `params/enc/.*`. The key is not part of the name. Only
            the blocks that hold these leaves are read. Not for components that were
            saved by a generator, or as files.
          rename: Pattern to replacement, for `re.sub` on the names that matched.
          strict: Whether a matched leaf that only one side has is an error.
          cast: Whether to convert dtypes, within NumPy's same-kind casting.
          mmap: Whether arrays that are stored as they are, each in one place, become
            copy-on-write views of the files instead of being read. Writing to them
            changes nothing on the disk. They outlive a save that is pruned or removed,
            whose space is free only when they are gone. But truncating or overwriting
            the files changes them or ends the process, on a network disk each first
            access may wait for the network, and if it is gone end the process, too.
            The rest is read: compressed leaves, and those of which a later save wrote
            only a part anew.
          verify: Whether to verify what is mapped, which reads all of it once. Without,
            a load takes no time, and damage goes unnoticed. Of components that are
            `Files`, only the sizes of their files are verified then.
          allow_pickle: Whether code from the save may run. By default only inside
            this object's own directory.
          dry_run: Whether to return the report without loading; what does not fit is
            in it instead of being raised.

        Raises:
          SaveNotFoundError: there is no save.
          MissingKeyError: a key is not registered or not in the save.
          MismatchError: leaves do not fit, or none is matched.
          PickleError: the save needs pickle, and that is not allowed.
          DamagedError: the save, or each one in the directory, is damaged.
          VersionError: it was written by a newer elementsckpt.
        """
        selected = self._select(keys)
        start = time.monotonic()
        with self._lock:
            self._join()
            loadfns = {key: component.load for key, component in selected.items()}
            restored = restore(
                lambda: self._candidates(path, step),
                Reading(
                    keys=list(selected),
                    options=lambda save: Options(
                        self._trusts(save, allow_pickle), mmap, verify
                    ),
                    current=lambda key: selected[key].save(),
                    folders=folder_keys(loadfns),
                    selection=Selection(regex, rename, strict, cast),
                    templates=components.templates(selected),
                    dry_run=dry_run,
                ),
            )
            if not dry_run:
                if self._listing is not None:
                    self._listing.distrust(restored.damaged)
                hand_over(restored, loadfns)
                self._resume(restored.found, is_whole=keys is None)
        return restored.report(time.monotonic() - start)

    def copy_of(
        self,
        key: str,
        path: AnyPath | None = None,
        *,
        step: int | None = None,
        allow_pickle: bool | None = None,
    ) -> Any:
        """Return a copy of a component with the state that it has in a save.

        The component stays as it is, such as in the midst of its training.

        Args:
          key: The component, of which `copy.deepcopy` makes the copy.
          path: As for `load`.
          step: As for `load`.
          allow_pickle: As for `load`.

        Raises:
          ComponentError: it cannot be copied.
          CheckpointError: as for `load`.
        """
        copied = Checkpoint(self._directory, keep=self._manner.keep)
        value = self._select([key])[key].value
        if isinstance(value, Files) or (
            isinstance(value, Saveable) and not value.is_of_attributes
        ):
            raise ComponentError(
                f"{key!r} is made of functions, which load into what they belong to: "
                f"no copy of them would. Use elementsckpt.read(path, keys=[{key!r}])."
            )
        try:
            setattr(copied, key, copy.deepcopy(value))
        except Exception as error:
            raise ComponentError(
                f"{key!r} cannot be copied: {error!r}. Make another "
                f"{type(value).__name__}, register it with a Checkpoint() of its own, "
                f"and load(path, keys=[{key!r}])."
            ) from error
        with self._lock:
            self._join()
            copied.load(path, step=step, allow_pickle=allow_pickle)
        return getattr(copied, key)

    def load_or_save(self) -> bool:
        """Resume from the newest good save, or write the first one.

        Returns:
          Whether it resumed.

        Raises:
          ComponentError: nothing is registered yet.
          CheckpointError: there are saves, and none can be loaded. A run is never
            started afresh over them.
        """
        self._require_components()
        listing = self._required_listing()
        with self._lock:
            self._join()
            if listing.saves():
                self.load()
                return True
            self.save()
            return False

    def _candidates(self, path: AnyPath | None, step: int | None) -> list[Found]:
        if step is not None:
            if path is not None:
                raise ValueError("Pass a path or a step to load(), not both.")
            return choice.with_step(self._required_listing(), int(step))
        if isinstance(path, int):
            raise ValueError(f"{path} is no path: pass step={path} to mean a step.")
        name = path if isinstance(path, str) else None
        if path is None or name == "latest":
            path = self._required_listing().path
        elif name == "best":
            return [self._required_best()]
        elif name is not None and self._listing is not None:
            found = choice.pinned(self._listing, name)
            if found:
                return found
        return choice.find(local(path), self._listing)

    def _resume(self, found: Found, *, is_whole: bool) -> None:
        """Take note of where the state comes from, and go on with the run there."""
        is_own = self._is_own(found.path)
        self._origin.loaded(found, is_own=is_own)
        if is_own and is_whole and found.head is not None:
            self._compare(found.path, found.head)
        if is_whole and is_own and found.head is not None and self._every is not None:
            saved = found.head.schedule if type(found.head.schedule) is dict else {}
            self._every.load({**saved, "step": found.step})
        _logger.info("Loaded %s, of step %s.", found.path, found.step)

    def _compare(self, path: Path, head: Head) -> None:
        """Warn of what in the save is not as in the run that resumes."""
        saved = {str(item.key) for item in head.components}
        self._left_out = frozenset(saved - set(self._components))
        if self._left_out:
            _logger.warning(
                "%s has %s, which nobody has registered: what you save now lacks that. "
                "Its newest save stays as long as this process prunes.",
                path,
                ", ".join(map(repr, sorted(self._left_out))),
            )
        changes = metadata_changes(self._metadata, head.metadata)
        if changes:
            _logger.warning(
                "%s was saved with other metadata: %s. If that is another run, choose "
                "another directory.",
                path,
                "; ".join(changes),
            )

    def _trusts(self, save: Path, allow_pickle: bool | None) -> bool:
        return self._is_own(save) if allow_pickle is None else allow_pickle

    def _is_own(self, save: Path) -> bool:
        """Tell whether the save is in this object's directory, not linked there."""
        if self._directory is None:
            return False
        return os.path.realpath(save.parent) == os.path.realpath(
            self._directory
        ) and not os.path.islink(save)

    # Looking

    def exists(self, path: AnyPath | None = None) -> bool:
        """Tell whether there is a save in the directory, or at `path`.

        Like `latest` and `saves`, it does not wait for a save in the background.
        """
        return exists(self._required_listing().path if path is None else path)

    def latest(self) -> Path | None:
        """Return the newest save whose manifest is not damaged, or None."""
        found = self._required_listing().saves()
        with contextlib.suppress(DamagedError):
            return choice.newest(found[::-1]).path if found else None
        return None

    def best(self) -> Path | None:
        """Return the best save by the metric of `keep`, or None if none has it.

        Without one it ranks as the newest save says, so that evaluation needs to know
        nothing of the training. A metric that is not finite is never the best.

        Raises:
          ValueError: there are metrics, and nobody said which one counts.
        """
        found = choice.best(self._required_listing(), self._manner.keep)
        return None if found is None else found.path

    def _required_best(self) -> Found:
        found = choice.best(self._required_listing(), self._manner.keep)
        if found is None:
            raise SaveNotFoundError(
                f"No save in {self._directory} has a finite metric to be the best by. "
                f"Load the newest with load(), or give metrics= to save()."
            )
        return found

    def saves(self) -> list[SaveInfo]:
        """Return the saves in the directory that are not damaged, oldest first."""
        infos = []
        for found in self._required_listing().saves():
            if found.error is None:
                with contextlib.suppress(DamagedError):
                    infos.append(describe(found))
        return infos

    # Removing

    def prune(self) -> list[Path]:
        """Remove the saves that `keep` does not ask for, as each save does.

        Returns:
          Those that were removed; failing to only warns.
        """
        with self._lock:
            self._join()
            keep, fsync = self._manner.keep, self._manner.fsync
            keys = frozenset(self._components)
            return self._required_listing().prune(keep, keys, fsync=fsync)

    def delete(
        self, path: AnyPath | None = None, *, step: int | None = None
    ) -> list[Path]:
        """Remove the save at a path, pinned or not, or all saves of a step.

        Args:
          path: A save in the directory, or a name as for `load`. It may be damaged.
          step: Step of the saves.

        Returns:
          Those that were removed; failing to only warns.

        Raises:
          SaveNotFoundError: there is none.
          ValueError: it was not written here, or it is the only complete save.
        """
        if (path is None) == (step is None):
            raise ValueError("Pass either the path or the step of what to delete.")
        with self._lock:
            self._join()
            listing = self._required_listing()
            found = self._candidates(path, step)
            is_name = isinstance(path, str) and path in _NAMES
            if path is not None and not is_name and local(path) == listing.path:
                raise ValueError(
                    f"{path} is a directory of saves: name the one to delete."
                )
            found = found[:1] if step is None else found
            _refuse_deletion(found, listing)
            return listing.delete(found, fsync=self._manner.fsync)

    # Preemption

    def watch_signals(self, signals: Iterable[int] = signals.DEFAULT) -> None:
        """Let `preempted` tell of these signals, which then end the process no more.

        The handlers that were there are called, too. `close` puts them back.

        Args:
          signals: By default SIGTERM and SIGUSR1.

        Raises:
          ValueError: this is not the main thread.
        """
        if self._watch is None:
            self._watch = watch(signals)

    @property
    def preempted(self) -> bool:
        """Whether a watched signal came, or the deadline of `every` is past."""
        if self._watch is not None and self._watch.received is not None:
            return True
        return self._every is not None and self._every.is_past_deadline

    # Ending

    def wait(self) -> SaveReport | None:
        """Return when nothing is being saved or loaded with this object.

        Returns:
          The report of the save in the background that was begun last, or None if
          there was none since the last `wait`.

        Raises:
          Exception: what went wrong with that save.
        """
        with self._lock:
            return self._wait()

    def _wait(self) -> SaveReport | None:
        report = None if self._background is None else self._background.wait()
        if report is not None:
            self._note(report)
        return report

    def _join(self) -> None:
        """Return when nothing is under way, and leave what went wrong for `wait`."""
        if self._background is not None:
            self._background.join()

    def close(self) -> None:
        """Wait, as `wait` does, free memory and watch no signals any more.

        The object stays usable.
        """
        with self._lock:
            try:
                self._wait()
            finally:
                self._claim = None
                if self._watch is not None:
                    self._watch.stop()
                    self._watch = None
                if self._staging is not None:
                    self._staging = Staging(self._staging.limit_bytes)

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        # What went wrong in the background is logged; it must not hide another error.
        with (
            contextlib.nullcontext() if kind is None else contextlib.suppress(Exception)
        ):
            self.close()

    def _required_listing(self) -> Directory:
        if self._listing is None:
            raise ValueError(
                "This Checkpoint has no directory: pass a path, or a directory to "
                "Checkpoint()."
            )
        return self._listing


def _checked_pin(pin: Any, target: Path | None) -> str | None:
    if pin is None:
        return None
    if target is not None:
        raise ValueError("A save to a path of its own is never pruned: leave pin= out.")
    if not isinstance(pin, str) or not pin or "/" in pin or pin in _NAMES:
        raise ValueError(
            f"pin={pin!r}: pass a name without slashes, other than 'latest' and 'best'."
        )
    return manifest.display(pin)


def _refuse_deletion(found: Sequence[Found], listing: Directory) -> None:
    """Refuse to remove what was not written here, and the only complete save."""
    here = listing.saves()
    for item in found:
        if item.path not in [other.path for other in here if other.is_removable]:
            raise ValueError(
                f"{item.path} was not written as one of the saves in {listing.path}, "
                f"so it is not removed. Remove the folder yourself."
            )
    gone = [item.path for item in found]
    good = [item for item in here if item.error is None]
    if good and all(item.path in gone for item in good):
        raise ValueError(
            f"{good[-1].path} is the only complete save, so it is not removed. Make "
            f"another one first, or remove the folder yourself."
        )

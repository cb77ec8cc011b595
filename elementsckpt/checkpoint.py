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
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar, overload

from .components import protocols, rng
from .components.files import Files, folder_keys, takes_folder
from .components.protocols import Component
from .components.registry import Registry
from .components.rng import GlobalRNG
from .components.value import Value
from .components.wrappers import Saveable
from .directory import lookup, retention
from .directory.listing import Directory, Found
from .directory.metadata import changes as metadata_changes
from .directory.metadata import decode_metrics, encode, encode_metrics, merge
from .directory.retention import Keep
from .errors import (
    CheckpointError,
    ComponentError,
    DamagedError,
    SaveNotFoundError,
    reason,
)
from .format import compression, manifest, scalars
from .format.compression import Compress
from .format.manifest import Head
from .functions import exists, load, save
from .inspection import describe
from .kinds import jax_arrays
from .loading import verbs
from .loading.component import Options
from .loading.load import Reading, restore_into
from .loading.request import Regex, Rename, Request
from .loading.verbs import Verb
from .reports import LoadReport, SaveInfo, SaveReport
from .run import signals
from .run.background import Background
from .run.provenance import Origin
from .run.schedule import Every
from .run.timing import Timing
from .run.writer_lock import Claim, claim
from .saving.history import History
from .saving.save import About, Manner, Saving, store
from .saving.staging import Staging, default_bytes
from .storage.disk import AnyPath, local
from .system import forks, job
from .system.job import Agreement
from .user import arguments, attributes
from .user.arguments import flag, shown
from .user.notices import Notices

__all__ = ["Checkpoint", "exists", "load", "save"]
_logger = logging.getLogger("elementsckpt")
_Self = TypeVar("_Self", bound="Checkpoint")
MYPY = False  # Which mypy takes to be true, and other type checkers do not.

if TYPE_CHECKING:

    class _Undeclared(Protocol):
        """A Checkpoint, but none of a subclass: lists of those are of another type."""

        @property
        def _of_its_class(self) -> list[Checkpoint]: ...


def __dir__() -> list[str]:
    return __all__


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
    `to_state_dict()` and `from_state_dict(d)`, or `get_state()` and `set_state(state)`;
    and random generators and typed keys. A subclass that declares them tells type
    checkers which there are:

        class Run(Checkpoint):
            agent: Agent

    Args:
      directory: Where saves go. Without it, `save` and `load` need a path.
      keep: How many of the newest saves to keep, or a `Keep`, which says more; None
        keeps all. What is left is removed after each save.
      step: Something that `int()` accepts, or a function that returns it, recorded
        with each save. By default a component named `step`, if there is one.
      write: Whether `save` writes, and anything is removed. With False it calls the
        components all the same, but for functions of `Files`, which need a folder: for
        all but one process of a group, for example.
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
        eighth of the memory that the machine, or the job, has.

    What did not change since the newest save in the directory is not written again:
    the new save gets hard links to the files that hold it, where the file system has
    links.

    Source: elements.Checkpoint.
    """

    _OWN = frozenset(
        {"_directory", "_step", "_timing", "_metadata", "_manner", "_background"}
        | {"_staging", "_lock", "_turn", "_listing", "_history"}
        | {"_origin", "_claim", "_agreement", "_left_out", "_notices"}
    )

    if TYPE_CHECKING:  # Only what a subclass declares is an attribute of its objects.

        @property
        def _of_its_class(self: _Self) -> list[_Self]: ...

        if MYPY:  # It refuses an object that is no `_Undeclared`.

            def __getattr__(self: _Undeclared, key: str) -> Any: ...

            def __setattr__(self: _Undeclared, key: str, value: Any) -> None: ...

        else:  # The others let it have the second form, which no key fits.

            @overload
            def __getattr__(self: _Undeclared, key: str) -> Any: ...
            @overload
            def __getattr__(self, key: NoReturn) -> NoReturn: ...
            def __getattr__(self, key: Any) -> Any: ...

            @overload
            def __setattr__(self: _Undeclared, key: str, value: Any) -> None: ...
            @overload
            def __setattr__(self, key: NoReturn, value: Any) -> None: ...
            def __setattr__(self, key: Any, value: Any) -> None: ...

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
                f"every={shown(every)}: pass elementsckpt.Every(steps=1000), for "
                f"example."
            )
        if staging_bytes is not None and (
            type(staging_bytes) is not int or staging_bytes < 0
        ):
            raise ValueError(
                f"staging_bytes={shown(staging_bytes)}: pass a number of bytes, or "
                f"None."
            )
        self._directory = None if directory is None else local(directory)
        self._step = step
        self._timing = Timing(every)
        self._metadata = None if metadata is None else encode(metadata)
        compress = compression.check(compress)
        write, fsync = flag("write", write), flag("fsync", fsync)
        self._manner = Manner(retention.checked(keep), write, fsync, compress)
        self._background: Background[SaveReport] | None = None
        self._staging: Staging | None = None
        if flag("background", background):
            limit = default_bytes() if staging_bytes is None else staging_bytes
            self._background, self._staging = Background(), Staging(limit)
        self._lock = threading.RLock()
        self._notices = Notices()
        self._listing: Directory | None = None
        if self._directory is not None:
            self._listing = Directory(self._directory, self._notices)
        self._history = History()
        self._turn = threading.Lock()  # Held while this object saves.
        self._origin = Origin()
        self._claim: Claim | None = None  # From the first save on.
        self._agreement: Agreement | None = None  # From the first load_or_save on.
        # What the save that was resumed has and nobody registered.
        self._left_out: frozenset[str] = frozenset()
        forks.watch(self)

    def _after_fork(self) -> None:
        self._lock = threading.RLock()
        self._turn = threading.Lock()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            "A Checkpoint can be neither pickled nor copied, as it holds what belongs "
            "to one process. Where another process or a copy needs one, make "
            "Checkpoint(directory, write=False) there; an object that holds one, such "
            "as a trainer, leaves it out in its __getstate__(); to evaluate a copy of "
            "a component use copy_of()."
        )

    def __repr__(self) -> str:
        where = (
            "no directory" if self._directory is None else repr(str(self._directory))
        )
        newest = "none"
        with contextlib.suppress(CheckpointError):
            found = [] if self._listing is None else self._listing.saves()[::-1]
            if found:
                save = lookup.newest(found)
                newest = save.path.name
                if save.step is not None:
                    newest += f", step {save.step}"
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
        if arguments.is_integer(path):
            raise ValueError(
                f"{path} is no path: call save() without it. The step is that of the "
                f"component cp.step, or of Checkpoint(step=...)."
            )
        if isinstance(keys, Mapping):
            raise ValueError(
                f"keys is a list of keys: pass keys={shown([*keys])}. Only load() "
                f"takes a mapping, to the keys in the save."
            )
        selected = self._select(keys)
        target = None if path is None else local(path)
        if target is None and self._directory is None:
            raise ValueError(
                "This Checkpoint has no directory: pass a path to save(), or a "
                "directory to Checkpoint()."
            )
        pin = _checked_pin(pin, target)
        return self._save_in_turn(
            lambda: self._begin(target, self._about(metrics, metadata, pin)),
            selected,
            time.monotonic(),
            is_whole=target is None and keys is None,
        )

    def staging(
        self,
        *keys: str,
        metrics: Mapping[str, Any] | None = None,
        metadata: Any = None,
        pin: str | None = None,
    ) -> contextlib.AbstractContextManager[Any]:
        """Save, with files of components that others write in this block.

            with cp.staging("policy") as folder:
                ray.get([worker.write_shard.remote(folder) for worker in workers])

        The block gets a folder inside the new save, for any process that sees the disk
        to write to. When it ends, all components are saved as `save` does it, but the
        `save` of this one is not called: what is in the folder is its content. If the
        block raises, no trace is left of the save. Other saves may be made meanwhile.

        Args:
          keys: Components that are a `Files`.
          metrics: As for `save`.
          metadata: As for `save`.
          pin: As for `save`.

        Returns:
          What gives the block the folder, empty, a `pathlib.Path`; its parent becomes
          the save. With several keys, a tuple of folders. With `write=False` they are
          not there: take the paths from the process that writes.

        Raises:
          ComponentError: a component is not a `Files`, or another one has files that
            only such a block can write.
          Exception: as for `save`. What goes wrong meanwhile, in the background, is
            raised when this save is made.
        """
        return _Begun(self._staged(keys, metrics, metadata, pin))

    @contextlib.contextmanager
    def _staged(
        self,
        keys: tuple[str, ...],
        metrics: Mapping[str, Any] | None,
        metadata: Any,
        pin: str | None,
    ) -> Iterator[Any]:
        self._require_stageable(keys)
        self._required_listing()
        pin = _checked_pin(pin, None)
        start = time.monotonic()
        saving: Saving | None = None

        def begin() -> Saving:
            assert saving is not None
            saving.describe(self._about(metrics, metadata, pin))
            return saving

        try:
            with self._lock:
                if not self._turn.locked():
                    self._wait()
                saving = self._begin(None, self._about(metrics, metadata, pin))
            folders = tuple(saving.stage(key) for key in keys)
            yield folders if len(folders) > 1 else folders[0]
            self._save_at_last(begin, self._select(None), start)
        except BaseException:
            if saving is not None:
                saving.abandon()
            raise

    def _require_stageable(self, keys: Sequence[str]) -> None:
        if not all(isinstance(key, str) for key in keys):
            raise ValueError(
                f"staging({', '.join(map(shown, keys))}): pass keys one by one, as in "
                f"staging('policy', 'critic')."
            )
        if not keys or not all(
            takes_folder(x.load) for x in self._select(keys).values()
        ):
            raise ComponentError(
                f"Cannot stage {_listed(keys)}: name components that have files, such "
                f"as cp.policy = elementsckpt.Files(load=function)."
            )
        others = [key for key in self._staged_only() if key not in keys]
        if others:
            raise ComponentError(
                f"The files of {_listed(others)} are written in such a block, too: "
                f"name all of these, with staging({_listed([*keys, *others])})."
            )

    def _staged_only(self) -> list[str]:
        """Return the keys of the components whose files only `staging` writes."""
        values = {key: component.value for key, component in self._components.items()}
        return [
            key
            for key, x in values.items()
            if attributes.is_instance(x, Files) and x.is_staged_only
        ]

    def save_if_due(
        self,
        *,
        metrics: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
        metadata: Any = None,
        final: bool = False,
    ) -> SaveReport | None:
        """Save if `every` says so, or if the run is preempted and did not save since.

        Args:
          metrics: As for `save`; or a function that returns them, such as what
            evaluates the agent, which is called only if it is time.
          metadata: As for `save`.
          final: Save whatever `every` says, unless this very step has been saved: what
            a run ends with.

        Returns:
          The report, or None if it was not time.

        Raises:
          ValueError: the Checkpoint has no `every`, or that needs a step.
          Exception: as for `save`. If a save in the background failed, that is raised
            as soon as it is known, and it is time at once; at the end of a run, by
            `final` or preemption, when this save is made.
        """
        final = flag("final", final)
        is_last = final or self._timing.is_urgent
        if self._background is not None and self._background.is_done and not is_last:
            with self._lock:
                self._wait()
        if not self._timing.is_due(self._current_step(), final=final):
            return None
        found = metrics() if callable(metrics) else metrics
        if not is_last:
            return self.save(metrics=found, metadata=metadata)
        self._require_components()

        def begin() -> Saving:
            return self._begin(None, self._about(found, metadata, None))

        self._required_listing()
        return self._save_at_last(begin, self._select(None), time.monotonic())

    def _save_at_last(
        self,
        begin: Callable[[], Saving],
        selected: Mapping[str, Component],
        start: float,
    ) -> SaveReport:
        """Save what there may be no second chance to save.

        What went wrong with the save before is raised when this one is made.
        """
        with self._lock:
            failure: Exception | None = None
            try:
                if not self._turn.locked():
                    self._wait()
            except Exception as error:
                failure = error
            report = self._save_in_turn(begin, selected, start, is_whole=True)
            if failure is not None:
                self._wait()
                raise failure
            return report

    def _save_in_turn(
        self,
        begin: Callable[[], Saving],
        selected: Mapping[str, Component],
        start: float,
        *,
        is_whole: bool,
    ) -> SaveReport:
        """Save when nothing else is being saved with this object."""
        savefns = rng.last({key: x.saving for key, x in selected.items()})
        with self._lock:
            if self._turn.locked():  # A signal handler saves, or a component's save().
                return store(begin, savefns)
            with self._turn:
                self._wait()
                was_over = self._timing.is_over
                try:
                    report = self._save(begin, savefns, selected)
                except BaseException:
                    self._timing.failed(time.monotonic() - start)
                    raise
            if is_whole:
                seconds = time.monotonic() - start
                self._timing.saved(report.step, seconds, was_over=was_over)
        return report

    def _save(
        self,
        begin: Callable[[], Saving],
        savefns: Mapping[str, Callable[[], Any]],
        selected: Mapping[str, Component],
    ) -> SaveReport:
        values = protocols.identities(selected)
        if self._background is None or not self._manner.write:
            report = store(begin, savefns, values)
            self._note(report)
            return report
        saving = begin()
        try:
            self._take(saving, savefns, values)
            report = saving.report(is_finished=False)
            self._background.start(saving.finish)
        except BaseException:
            saving.abandon()  # Unless the thread has it by now.
            raise
        return report

    def _take(
        self,
        saving: Saving,
        savefns: Mapping[str, Callable[[], Any]],
        values: Mapping[str, int],
    ) -> None:
        """Let a save own what it saves; in new memory if an interrupt ended the last.

        There might be threads which still write to the other.
        """
        assert self._staging is not None
        staging = self._staging
        self._staging = Staging(staging.limit_bytes)
        try:
            saving.take(savefns, staging, values)
        except BaseException as error:
            if isinstance(error, Exception):
                self._staging = staging
            raise
        self._staging = staging

    def _begin(self, target: Path | None, about: About) -> Saving:
        saving = Saving(
            self._manner,
            target=target,
            listing=self._listing,
            history=self._history,
            about=about,
            notices=self._notices,
        )
        try:
            if target is None and self._manner.write:
                self._claim = claim(saving.path.parent, saving.newest)
                if not self._claim.is_contested:
                    self._origin.compare(saving.newest, about.step)
                self._origin.begins(saving.path)
        except BaseException:
            saving.abandon()
            raise
        return saving

    def _note(self, report: SaveReport) -> None:
        if report.path.parent == self._directory:
            self._origin.saved(report)

    def _about(
        self, metrics: Mapping[str, Any] | None, metadata: Any, pin: str | None
    ) -> About:
        """Return what a new save says about itself."""
        encoded, step = encode_metrics(metrics), self._current_step()
        keep, found = self._manner.keep, decode_metrics(encoded)
        retention.warn(keep, found, step, self._notices)
        return About(
            step=step,
            metrics=encoded,
            metadata=merge(self._metadata, metadata),
            pin=pin,
            schedule=self._timing.schedule(step),
            lineage=self._origin.lineage(),
            keys=sorted({*self._components, *self._left_out}),
        )

    def _current_step(self) -> int | None:
        if self._step is not None:
            step = self._step() if callable(self._step) else self._step
            try:
                return int(step)
            except (TypeError, ValueError, OverflowError) as error:
                raise ComponentError(
                    f"The step of this Checkpoint is no number: {reason(error)}. Pass "
                    f"as step= what int() accepts, such as a Counter."
                ) from error
        if "step" in self._components:
            value = self._components["step"].value
            try:
                return int(value.value if isinstance(value, Value) else value)
            except (TypeError, ValueError, OverflowError):
                return None
        return None

    # Loading

    def load(
        self,
        path: AnyPath | None = None,
        keys: Iterable[str] | Mapping[str, str] | None = None,
        *,
        step: int | None = None,
        regex: Regex | None = None,
        rename: Rename | None = None,
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

        Patterns are for the names of leaves: `params/enc/.*`. One that finds none in
        all that is loaded is for full names, with the key, as reports have them:
        `agent/params/enc/.*`.

        Args:
          path: A save, or a directory whose newest good save is meant; or a name in
            this object's directory: "latest", "best", or that of a pin. By default
            the newest good save in the directory that has what is to be loaded. What
            is named is never substituted.
          keys: Components to load; all by default. A mapping, from their keys here to
            those in the save, loads what is saved under other keys.
          step: Loads the save of this step in the directory, the newest good one if
            there are several.
          regex: Loads the leaves whose names it matches from their start, as
            `re.match` does; components in which it matches none are left alone. Or a
            mapping from keys to such patterns: the others are left alone. Only the
            blocks that hold these leaves are read. Not for components that were saved
            by a generator, or as files.
          rename: Pattern to replacement, for `re.sub` on the names that matched; in
            full names the key must stay. Or a mapping from keys to such mappings: the
            others are loaded as they are. A pattern that matches nothing is told of in
            the log where `strict=False` leaves leaves as they are.
          strict: Whether a matched leaf that only one side has is an error. Components
            that load a state dict take what theirs does not have yet, as that of a
            fresh optimizer; not so torch modules, which have all from the start.
          cast: Whether to convert dtypes, within NumPy's same-kind casting, and typed
            keys to legacy ones and back.
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
          dry_run: Whether to read and check everything, but call no `load()`; what does
            not fit is in the report instead of being raised.

        Raises:
          ComponentError: nothing is registered.
          SaveNotFoundError: there is no save.
          MissingKeyError: a key is not registered or not in the save.
          MismatchError: leaves do not fit, or none is matched.
          PickleError: the save needs pickle, and that is not allowed.
          DamagedError: the save, or each one in the directory, is damaged.
          VersionError: it was written by a newer elementsckpt.
          ValueError: an argument makes no sense, such as `keys=[]`.
        """
        self._require_components()
        return self._load(
            verbs.LOAD,
            path,
            Request(regex, rename, flag("strict", strict), flag("cast", cast)),
            keys=keys,
            step=step,
            mmap=mmap,
            verify=verify,
            allow_pickle=allow_pickle,
            dry_run=flag("dry_run", dry_run),
        )

    def _load(
        self,
        verb: Verb,
        path: AnyPath | None,
        request: Request,
        *,
        keys: Iterable[str] | Mapping[str, str] | None = None,
        step: int | None = None,
        mmap: bool = False,
        verify: bool = True,
        allow_pickle: bool | None = None,
        dry_run: bool = False,
    ) -> LoadReport:
        """Load, as `load` does, for the verb that the user called."""
        selected = self._select(keys)
        saved = arguments.saved_keys(keys, selected)
        selected = {key: selected[key] for key in request.wanted(selected)}
        saved = {key: saved[key] for key in selected}
        start = time.monotonic()
        with self._lock:
            self._join()
            loadfns = rng.last({key: x.load for key, x in selected.items()})
            restored = restore_into(
                loadfns,
                lambda: self._candidates(path, step, saved.values()),
                Reading(
                    keys=saved,
                    options=lambda save: Options.of(
                        verb,
                        mmap,
                        verify,
                        allow_pickle,
                        trusted=self._is_own(save),
                    ),
                    current=lambda key: selected[key].save(),
                    folders=folder_keys(loadfns),
                    request=request,
                    growing=protocols.growing(selected),
                    templates=protocols.templates(selected),
                    rebuilt={key for key, x in selected.items() if x.is_empty},
                    dry_run=dry_run,
                    distrust=self._distrust,
                    announce=self._announce,
                ),
            )
            if not dry_run:
                is_whole = keys is None and request.regex is None
                self._resume(restored.found, is_whole=is_whole)
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
        value = self._select([arguments.key(key)])[key].value
        why_not = _why_no_copy(value)
        if why_not is not None:
            raise ComponentError(
                f"{key!r} is made of {why_not}. Use "
                f"elementsckpt.read(path, keys=[{key!r}])."
            )
        try:
            with jax_arrays.unchecked():
                setattr(copied, key, copy.deepcopy(value))
        except Exception as error:
            raise ComponentError(
                f"{key!r} cannot be copied: {reason(error)}. Make another "
                f"{type(value).__name__}, register it with a Checkpoint() of its own, "
                f"and load(path, keys=[{key!r}])."
            ) from error
        with self._lock:
            self._join()
            copied.load(path, [key], step=step, allow_pickle=allow_pickle)
        return getattr(copied, key)

    def load_or_save(
        self, *, strict: bool = True, cast: bool = False, rename: Rename | None = None
    ) -> bool:
        """Resume from the newest good save, or write the first one.

        If some of the files can only be written by `staging`, there is none to write.

        Where jax.distributed or torch.distributed is initialized, processes with
        `write=False` wait for process 0 and resume the very save that it does, or start
        afresh with it: what it has just written is nothing to resume from.

        Args:
          strict: As for `load`.
          cast: As for `load`.
          rename: As for `load`.

        Returns:
          Whether it resumed.

        Raises:
          ComponentError: nothing is registered yet.
          CheckpointError: there are saves, and none can be loaded. A run is never
            started afresh over them.
          ReadError: process 0 could not resume, or did not call this for ten minutes.
        """
        self._require_components()
        strict, cast = flag("strict", strict), flag("cast", cast)
        request = Request(rename=rename, strict=strict, cast=cast)
        request.wanted(self)
        listing = self._required_listing()
        with self._lock:
            self._join()
            with Agreement(listing.path, writes=self._manner.write) as self._agreement:
                if self._agreement.is_followed:
                    save = self._agreement.wait()
                    if save is not None:
                        self._load_as_agreed(save, request)
                        return True
                elif listing.saves():
                    self._load(verbs.LOAD_OR_SAVE, None, request)
                    return True
                self._agreement.tell(None)
                if not self._staged_only():
                    self.save()
                return False

    def _announce(self, save: Path) -> None:
        """Tell the other processes, before components load: some need all of them."""
        if self._agreement is not None:
            self._agreement.tell(save)

    def _load_as_agreed(self, save: Path, request: Request) -> None:
        """Load the save that process 0 of the job resumes."""
        try:
            self._load(verbs.LOAD_OR_SAVE, save, request)
        except SaveNotFoundError as error:
            raise SaveNotFoundError(
                f"{reason(error)}. Process 0 of this job resumed it, so it was pruned "
                f"since, or is on another machine. Call save() only when all processes "
                f"have resumed, in a directory that all of them see."
            ) from error

    def _candidates(
        self, path: AnyPath | None, step: int | None, keys: Iterable[str] = ()
    ) -> list[Found]:
        if path is None and step is None:
            return lookup.with_keys(self._required_listing(), keys)
        if self._listing is None and path is not None and step is None:
            return lookup.find(local(path))
        return lookup.named(self._required_listing(), path, step, self._manner.keep)

    def _resume(self, found: Found, *, is_whole: bool) -> None:
        """Take note of where the state comes from, and go on with the run there."""
        is_own = self._is_own(found.path)
        self._origin.loaded(found, is_own=is_own)
        if is_own and is_whole and found.head is not None:
            self._compare(found.path, found.head)
            self._timing.resumed(found.head.schedule, found.step)
        step = "" if found.step is None else f", of step {found.step}"
        _logger.info("Loaded %s%s.", found.path, step)

    def _compare(self, path: Path, head: Head) -> None:
        """Warn of what in the save is not as in the run that resumes."""
        saved = scalars.decode_keys(item.key for item in head.components)
        self._left_out = frozenset({*saved, *scalars.decode_keys(head.keys)} - {*self})
        if self._left_out and self._manner.write:
            _logger.warning(
                "%s is of a run with %s, which is not registered: new saves lack that. "
                "The newest save that has it stays until you delete it.",
                path,
                ", ".join(map(repr, sorted(self._left_out))),
            )
        changes = metadata_changes(self._metadata or {}, head.metadata)
        if changes:
            _logger.warning(
                "%s was saved with other metadata: %s. If that is another run, choose "
                "another directory.",
                path,
                "; ".join(changes),
            )

    def _distrust(self, save: Path) -> None:
        if self._listing is not None:
            self._listing.distrust(save)

    def _is_own(self, save: Path) -> bool:
        """Tell whether the save is in this object's directory, not linked there."""
        if self._directory is None:
            return False
        return os.path.realpath(save.parent) == os.path.realpath(
            self._directory
        ) and not os.path.islink(save)

    # Looking

    def exists(self, path: AnyPath | None = None) -> bool:
        """Tell whether there is a save in the directory, or at `path`, as for `load`.

        Like `latest` and `saves`, it does not wait for a save in the background.
        """
        if path is None:
            job.warn_of_looking(self._required_listing().path, self._notices)
        try:
            return bool(self._candidates(path, None))
        except SaveNotFoundError:
            return False

    def latest(self) -> Path | None:
        """Return the newest save whose manifest is not damaged, or None."""
        found = self._required_listing().saves()
        with contextlib.suppress(DamagedError):
            return lookup.newest(found[::-1]).path if found else None
        return None

    def best(self) -> Path | None:
        """Return the best save by the metric of `keep`, or None if none has it.

        Without one it ranks as the newest save says, so that evaluation needs to know
        nothing of the training. A metric that is not finite is never the best.

        Raises:
          ValueError: there are metrics, and nobody said which one counts.
        """
        found = lookup.best(self._required_listing(), self._manner.keep)
        return None if found is None else found.path

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
          Those that were removed; failing to only warns. None with `write=False`.
        """
        listing = self._required_listing()
        with self._lock:
            self._join()
            if not self._manner.write:
                return []
            return listing.prune(self._manner.keep, fsync=self._manner.fsync)

    def delete(
        self, path: AnyPath | None = None, *, step: int | None = None
    ) -> list[Path]:
        """Remove the save at a path, pinned or not, or all saves of a step.

        Args:
          path: A save in the directory, or a name as for `load`. It may be damaged.
          step: Step of the saves.

        Returns:
          Those that were removed; failing to only warns. None with `write=False`.

        Raises:
          SaveNotFoundError: there is none.
          ValueError: it was not written here, or it is the only complete save.
        """
        with self._lock:
            self._join()
            listing = self._required_listing()
            found = lookup.deletable(listing, path, step, self._manner.keep)
            if not self._manner.write:
                return []
            return listing.delete(found, fsync=self._manner.fsync)

    # Preemption

    def watch_signals(self, signals: Iterable[int] = signals.DEFAULT) -> None:
        """Let `preempted` tell of these signals, which then end the process no more.

        Handlers in Python that were there are called, too; those in C, such as of
        `faulthandler.register`, are not, which is logged. `close` puts them back. What
        takes a signal over later is logged when `preempted` is asked.

        Args:
          signals: By default SIGTERM and SIGUSR1.

        Raises:
          ValueError: this is not the main thread.
        """
        self._timing.watch(signals)

    @property
    def preempted(self) -> bool:
        """Whether a watched signal came, or the deadline of `every` is past.

        Any thread is told at once, also while the main one is in compiled code.
        """
        return self._timing.is_over

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
        if self._background is None:
            return None
        return self._background.wait(self._note_outcome)

    def _note_outcome(self, outcome: SaveReport | BaseException | None) -> None:
        if isinstance(outcome, BaseException):
            self._timing.failed(0.0)
        elif outcome is not None:
            self._note(outcome)

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
                self._timing.unwatch()
                if self._staging is not None:
                    self._staging = Staging(self._staging.limit_bytes)

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        # What went wrong in the background is logged; it must not hide another error.
        with (
            contextlib.nullcontext() if kind is None else contextlib.suppress(Exception)
        ):
            self.close()

    def _elsewhere(self, directory: Path) -> Checkpoint:
        """Return one that saves other components as this one would, to a directory."""
        return Checkpoint(
            directory,
            step=self._step,
            background=self._background is not None,
            compress=self._manner.compress,
            fsync=False,
        )

    def _required_listing(self) -> Directory:
        if self._listing is None:
            raise ValueError(
                "This Checkpoint has no directory: pass a path, or a directory to "
                "Checkpoint()."
            )
        return self._listing


class _Begun(contextlib.AbstractContextManager[Any]):
    """Ends what was begun for a block, also if an interrupt comes before its start."""

    def __init__(self, inner: contextlib._GeneratorContextManager[Any]) -> None:
        self._inner = inner

    def __enter__(self) -> Any:
        try:
            return self._inner.__enter__()
        except BaseException:
            self._inner.gen.close()
            raise

    def __exit__(self, *error: Any) -> bool | None:
        return self._inner.__exit__(*error)


def _checked_pin(pin: Any, target: Path | None) -> str | None:
    if pin is None:
        return None
    if target is not None:
        raise ValueError("A save to a path of its own is never pruned: leave pin= out.")
    if not isinstance(pin, str) or not pin or "/" in pin or pin in lookup.NAMES:
        raise ValueError(
            f"pin={shown(pin)}: pass a name without slashes, other than 'latest' and "
            f"'best'."
        )
    return manifest.escape(pin)


def _why_no_copy(value: Any) -> str | None:
    """Say of what a component is made that has its state elsewhere, or return None."""
    if attributes.is_instance(value, GlobalRNG):
        return "the global generators of the process: loading a copy would set them"
    if attributes.is_instance(value, Files) or (
        attributes.is_instance(value, Saveable) and not value.is_of_attributes
    ):
        return "functions, which load into what they belong to: no copy of them would"
    return None


def _listed(keys: Iterable[str]) -> str:
    return ", ".join(map(repr, keys))

"""The object that holds a run's components, and the functional form by its name."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar, overload

from .components import copies, staging
from .components.registry import Registry
from .directory import lookup, retention
from .directory.listing import Directory, SaveEntry
from .directory.metadata import encode
from .directory.retention import Keep
from .errors import CheckpointError, DamagedError, SaveNotFoundError
from .format import compression
from .format.compression import Compress
from .format.sizes import DEFAULT
from .functions import exists, load, save
from .inspection import describe
from .loading import load as loading
from .loading import verbs
from .loading.candidates import Candidates
from .loading.request import Regex, Rename, Request
from .reports import LoadReport, SaveInfo, SaveReport
from .run import signals
from .run.saver import Saver, SaveRequest, StagedSave
from .run.schedule import Every
from .run.timing import Timing
from .saving.arenas import default_bytes
from .saving.save import SaveOptions
from .storage.paths import AnyPath, local
from .system import job
from .system.job import Agreement
from .system.phases import Phases
from .user import arguments
from .user.arguments import flag, shown
from .user.notices import Notices

__all__ = ["Checkpoint", "exists", "load", "save"]
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
        {"_step", "_options", "_notices", "_directory", "_timing", "_saver"}
    )

    _SIZES = DEFAULT

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
        self._step = step
        self._notices = Notices()
        self._directory: Directory | None = None
        if directory is not None:
            self._directory = Directory(local(directory), self._notices)
        self._timing = Timing(every, step, self._components)
        encoded = None if metadata is None else encode(metadata)
        compress = compression.check(compress)
        write, fsync = flag("write", write), flag("fsync", fsync)
        keep = retention.checked(keep)
        self._options = SaveOptions(keep, write, fsync, compress, self._SIZES)
        copy_bytes = None
        if flag("background", background):
            copy_bytes = default_bytes() if staging_bytes is None else staging_bytes
        self._saver = Saver(
            self._directory,
            self._options,
            self._components,
            self._timing,
            metadata=encoded,
            copy_bytes=copy_bytes,
            notices=self._notices,
        )

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            "A Checkpoint can be neither pickled nor copied, as it holds what belongs "
            "to one process. Where another process or a copy needs one, make "
            "Checkpoint(directory, write=False) there; an object that holds one, such "
            "as a trainer, leaves it out in its __getstate__(); to evaluate a copy of "
            "a component use copy_of()."
        )

    def __repr__(self) -> str:
        where, newest = "no directory", "none"
        if self._directory is not None:
            where = repr(str(self._directory.path))
            with contextlib.suppress(CheckpointError):
                if found := self._directory.saves():
                    save = lookup.newest(found[::-1])
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
        return self._saver.save(
            SaveRequest(
                components=selected,
                target=target,
                metrics=metrics,
                metadata=metadata,
                pin=lookup.checked_pin(pin, target),
                is_whole=target is None and keys is None,
            )
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
        staging.require_stageable(keys, self._select, self._components)
        self._required_directory()
        pin = lookup.checked_pin(pin, None)
        request = self._last_request(metrics, metadata, pin)
        return StagedSave(self._saver, keys, request)

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
        if not is_last:
            self._saver.check()
        if not self._timing.is_due(final=final):
            return None
        found = metrics() if callable(metrics) else metrics
        if not is_last:
            return self.save(metrics=found, metadata=metadata)
        self._require_components()
        self._required_directory()
        return self._saver.save(self._last_request(found, metadata, None))

    def _last_request(
        self, metrics: Mapping[str, Any] | None, metadata: Any, pin: str | None
    ) -> SaveRequest:
        """Return a save of everything that there may be no second chance to make."""
        return SaveRequest(
            components=self._select(None),
            metrics=metrics,
            metadata=metadata,
            pin=pin,
            is_whole=True,
            is_last=True,
        )

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
        request = Request(
            verb=verbs.LOAD,
            keys=arguments.saved_keys(keys, self._select(keys)),
            regex=regex,
            rename=rename,
            strict=strict,
            cast=cast,
            mmap=mmap,
            verify=verify,
            allow_pickle=allow_pickle,
            dry_run=dry_run,
        )
        is_whole = keys is None and regex is None
        return self._load(request, path, step, is_whole=is_whole)

    def _load(
        self,
        request: Request,
        path: AnyPath | None = None,
        step: int | None = None,
        *,
        is_whole: bool = True,
        announce: Callable[[Path], None] = lambda path: None,
    ) -> LoadReport:
        """Load what was asked for; `is_whole` if that is all that is registered.

        What it has read is announced before components load.
        """
        start, phases, keys = time.monotonic(), Phases(), request.keys or {}
        with self._saver.lock:
            with phases("wait"):
                self._saver.join()
            targets = {key: self._components[key].target for key in keys}
            find = functools.partial(self._candidates, path, step, keys.values())
            candidates = Candidates(find, self._directory)
            loaded = loading.read(request, targets, candidates, phases)
            with contextlib.closing(loaded):
                if not request.dry_run:
                    announce(loaded.found.path)
                    loading.hand_over(loaded, targets)
            if not request.dry_run:
                is_own = candidates.are_own(loaded.found.path)
                self._saver.loaded(loaded.found, is_own=is_own, is_whole=is_whole)
        return loaded.report(time.monotonic() - start)

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
        directory = None if self._directory is None else self._directory.path
        copied = Checkpoint(directory, keep=self._options.keep)
        value = self._select([arguments.key(key)])[key].value
        copies.register(copied, key, value)
        with self._saver.lock:
            self._saver.join()
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
        request = Request(
            verb=verbs.LOAD_OR_SAVE,
            keys={key: key for key in self},
            rename=rename,
            strict=strict,
            cast=cast,
        )
        directory = self._required_directory()
        with self._saver.lock:
            self._saver.join()
            with Agreement(directory.path, writes=self._options.write) as agreement:
                if agreement.is_followed:
                    save = agreement.wait()
                    if save is not None:
                        self._load(request, save)
                        return True
                elif directory.saves():
                    self._load(request, announce=agreement.tell)
                    return True
                agreement.tell(None)
                if not staging.staged_only(self._components):
                    self.save()
                return False

    def _candidates(
        self, path: AnyPath | None, step: int | None, keys: Iterable[str] = ()
    ) -> list[SaveEntry]:
        if path is None and step is None:
            return lookup.with_keys(self._required_directory(), keys)
        if self._directory is None and path is not None and step is None:
            return lookup.find(local(path))
        return lookup.named(self._required_directory(), path, step, self._options.keep)

    # Looking

    def exists(self, path: AnyPath | None = None) -> bool:
        """Tell whether there is a save in the directory, or at `path`, as for `load`.

        Like `latest` and `saves`, it does not wait for a save in the background.
        """
        if path is None:
            job.warn_of_looking(self._required_directory().path, self._notices)
        try:
            return bool(self._candidates(path, None))
        except SaveNotFoundError:
            return False

    def latest(self) -> Path | None:
        """Return the newest save whose manifest is not damaged, or None."""
        found = self._required_directory().saves()
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
        found = lookup.best(self._required_directory(), self._options.keep)
        return None if found is None else found.path

    def saves(self) -> list[SaveInfo]:
        """Return the saves in the directory that are not damaged, oldest first."""
        infos = []
        for found in self._required_directory().saves():
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
        directory = self._required_directory()
        with self._saver.lock:
            self._saver.join()
            if not self._options.write:
                return []
            saves, options = directory.saves(), self._options
            return directory.prune(options.keep, saves, fsync=options.fsync)

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
        with self._saver.lock:
            self._saver.join()
            directory = self._required_directory()
            found = lookup.deletable(directory, path, step, self._options.keep)
            if not self._options.write:
                return []
            return directory.delete(found, fsync=self._options.fsync)

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
        return self._saver.wait()

    def close(self) -> None:
        """Wait, as `wait` does, free memory and watch no signals any more.

        The object stays usable.
        """
        self._saver.close()

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
            background=self._saver.is_background,
            compress=self._options.compress,
            fsync=False,
        )

    def _required_directory(self) -> Directory:
        if self._directory is None:
            raise ValueError(
                "This Checkpoint has no directory: pass a path, or a directory to "
                "Checkpoint()."
            )
        return self._directory

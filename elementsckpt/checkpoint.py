"""The object that holds a run's components, and the functional form's import path."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar, overload

from msgspec.structs import replace

from .components import copies
from .components.registry import Registry
from .directory import lookup, retention
from .directory.listing import Directory, SaveEntry
from .directory.metadata import encode
from .directory.retention import Keep
from .errors import CheckpointError, DamagedError, SaveNotFoundError
from .format import compression
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
from .saving.options import SaveOptions
from .storage.paths import AnyPath, local
from .system import job
from .system.phases import Phases
from .user import arguments
from .user.arguments import flag, shown
from .user.notices import Notices

__all__ = ["Checkpoint", "exists", "load", "save"]
_Self = TypeVar("_Self", bound="Checkpoint")
MYPY = False  # True for mypy, but not for other type checkers.

if TYPE_CHECKING:

    class _Undeclared(Protocol):
        """A Checkpoint, but not of a subclass: a list of these has another type."""

        @property
        def _of_its_class(self) -> list[Checkpoint]: ...


def __dir__() -> list[str]:
    return __all__


class Checkpoint(Registry):
    """Saves and loads all components of a run together.

        directory/
          latest                        name of the newest save, for people
          <UTC timestamp>-<step>/       one complete save
            agent-000017-00000.safetensors
            replay-000017-00000.safetensors
            manifest.json               written last: it makes the folder a save

    Components are registered as attributes: `cp.agent = agent`. A component is any
    object with `save()` and `load(data)`, or `state_dict()` and `load_state_dict(d)`,
    or `to_state_dict()` and `from_state_dict(d)`, or `get_state()` and
    `set_state(state)`; or a random generator or a typed key. For type checkers, a
    subclass can declare its components:

        class Run(Checkpoint):
            agent: Agent

    Args:
      directory: Where saves go. Without it, `save` and `load` need a path.
      keep: How many of the newest saves to keep; or a `Keep`, for other rules; or None
        to keep all. All others are removed after each save.
      step: An object that `int()` accepts, or a function that returns one, recorded
        with each save. By default a component named `step`, if there is one.
      write: Whether `save` writes, and saves are removed. With False, `save` still
        calls the components, except functions of `Files`, which need a folder. Use it,
        for example, in all processes of a group but one.
      every: When `save_if_due` saves.
      metadata: Attached to each save, such as the configuration of the run. The
        metadata of `save` is merged into it.
      background: Whether `save` returns as soon as later changes cannot reach the save:
        arrays that changed have been copied, JAX arrays are held. A thread does the
        rest, for one save at a time. On Linux it gives way to the program for up to a
        minute, or until `wait`, `close`, `load` or `save` waits for it, and takes long
        on busy cores. An error in the thread is logged at once and raised by the next
        `save`, `wait` or `close`. When the interpreter ends, it finishes the save
        first, except in `os._exit`.
      compress: Which leaves are stored as zstd frames. "auto" compresses leaves of 64
        KiB or more that shrink to half or less, None no leaves, and a level from 1 to
        22 all leaves. Only leaves that are not compressed can be mapped.
      fsync: Whether a save is durable when it is finished. Without, it is complete or
        absent after a crash of the process, but not after a crash of the machine.
      staging_bytes: Memory for the copies that saves in the background make. It is
        reused. When it is full, `save` writes before it returns. By default an eighth
        of the memory of the machine, or of the job.

    Arrays that did not change since the newest save in the directory are not written
    again: the new save gets hard links to the files that hold them, if the file system
    has links.

    Source: elements.Checkpoint.
    """

    _OWN = frozenset(
        {"_step", "_options", "_notices", "_directory", "_timing", "_saver"}
    )

    _SIZES = DEFAULT

    if TYPE_CHECKING:  # Only what a subclass declares is an attribute of its objects.

        @property
        def _of_its_class(self: _Self) -> list[_Self]: ...

        if MYPY:  # It refuses an object that is not an `_Undeclared`.

            def __getattr__(self: _Undeclared, key: str) -> Any: ...

            def __setattr__(self: _Undeclared, key: str, value: Any) -> None: ...

        else:  # The others use the second overload, which no key fits.

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
        compress: compression.Compress = "auto",
        fsync: bool = True,
        staging_bytes: int | None = None,
    ) -> None:
        super().__init__()
        is_size = type(staging_bytes) is int and staging_bytes >= 0
        if staging_bytes is not None and not is_size:
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
        """Save the components; the save is complete, and with fsync durable, on return.

        In the background, it is complete when `wait` returns, with the complete report;
        the report returned here has what is known so far. If the last save is not
        finished, this waits for it. If the last save failed, this raises its error and
        saves nothing: call it again.

        Args:
          path: Folder to write instead of a new one in the directory. It must not
            exist or be empty. It is never pruned, and does not move `latest`.
          keys: Components to save; all by default. Such a save counts for `keep` like
            any other, but the newest save of each component that it lacks stays.
          metrics: Numbers by name, scalars of NumPy and JAX too, by which `Keep` and
            `best` rank saves.
          metadata: Mappings, sequences and scalars, nested in any way: configurations,
            dataclasses, namespaces, paths, enumerations. `info(path).metadata` returns
            it as dicts, lists and Python scalars.
          pin: Name under which `load` finds the save. The save is never pruned.

        Raises:
          ComponentError: nothing is registered.
          SaveExistsError: `path` holds something.
          StateError: a state holds what cannot be saved; the message names the leaf.
          MetadataError: metadata or metrics of another type; the message says where.
          WriteError: the disk refused a change; earlier saves are unchanged. In the
            background, also an error of the last save.
          Exception: what a component's own `save()` raises, with a note of its key.
        """
        if arguments.is_integer(path):
            raise ValueError(
                f"{path} is not a path: call save() without it. The step is that of "
                f"the component cp.step, or of Checkpoint(step=...)."
            )
        if isinstance(keys, Mapping):
            raise ValueError(
                f"keys is a list of keys: pass keys={shown([*keys])}. Only load() "
                f"takes a mapping, to the keys in the save."
            )
        target = None if path is None else local(path)
        return self._saver.save(
            self._request(metrics, metadata, pin, keys=keys, target=target)
        )

    def staging(
        self,
        *keys: str,
        metrics: Mapping[str, Any] | None = None,
        metadata: Any = None,
        pin: str | None = None,
    ) -> contextlib.AbstractContextManager[Any]:
        """Save with files that the program writes for components in this block.

            with cp.staging("policy") as folder:
                ray.get([worker.write_shard.remote(folder) for worker in workers])

        The block gets an empty folder inside the new save. Any process that sees the
        disk may write to it. When the block ends, all components are saved as by
        `save`, except that the `save` of these components is not called: the files in
        the folder are their content. If the block raises, the save is removed. Other
        saves may be made during the block.

        Args:
          keys: Keys of `Files` components.
          metrics: As for `save`.
          metadata: As for `save`.
          pin: As for `save`.

        Returns:
          A context that returns the folder, a `pathlib.Path`, whose parent becomes the
          save. With several keys, a tuple of folders. With `write=False` the folders
          do not exist: take the paths from the process that writes.

        Raises:
          ComponentError: a component is not a `Files`, or another one has files that
            only such a block can write.
          Exception: as for `save`. An error of another save in the background is raised
            when this save is made.
        """
        self._require_stageable(keys)
        request = self._request(metrics, metadata, pin, is_last=True)
        return StagedSave(self._saver, keys, request)

    def save_if_due(
        self,
        *,
        metrics: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
        metadata: Any = None,
        final: bool = False,
    ) -> SaveReport | None:
        """Save if a save is due, or if the run was preempted after the last save.

        Args:
          metrics: As for `save`; or a function that returns them, for example by
            evaluating the agent. It is called only if a save is due.
          metadata: As for `save`.
          final: Save even if none is due, unless this step has been saved already. Pass
            True at the end of a run.

        Returns:
          The report, or None if no save was due.

        Raises:
          ValueError: the Checkpoint has no `every`, or its `every` needs a step.
          Exception: as for `save`. If a save in the background failed, its error is
            raised by the next call, and a save is due at once. At the end of a run,
            with `final` or after preemption, the new save is made before the error is
            raised.
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
        return self._saver.save(self._request(found, metadata, is_last=True))

    def _request(
        self,
        metrics: Mapping[str, Any] | None,
        metadata: Any,
        pin: str | None = None,
        *,
        keys: Iterable[str] | None = None,
        target: Path | None = None,
        is_last: bool = False,
    ) -> SaveRequest:
        self._require_components()
        if target is None:
            self._required_directory()
        selected, pin = self._select(keys), lookup.checked_pin(pin, target)
        is_whole = target is None and keys is None
        return SaveRequest(
            selected, target, metrics, metadata, pin, is_whole=is_whole, is_last=is_last
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
        """Load the components; no component changes before all is read and verified.

        A component gets its saved state. With `regex`, `rename`, `strict=False` or
        `cast=True` it gets its own current state with the matched leaves replaced, if
        their shapes and dtypes fit. So `regex=".*"` loads all leaves and checks that
        they fit.

        Patterns match names of leaves: `params/enc/.*`. A pattern that matches no such
        name in the whole load matches full names, with the key, as in reports:
        `agent/params/enc/.*`.

        Args:
          path: A save, or a directory, for its newest good save; or a name in this
            object's directory: "latest", "best", or the name of a pin. By default the
            newest good save in the directory that has the components to load. A save
            given by path or name is never replaced by another.
          keys: Components to load; all by default. A mapping from keys here to keys in
            the save loads components that were saved under other keys.
          step: Loads the save of this step in the directory, the newest good one if
            there are several.
          regex: Loads only leaves whose names it matches from their start, as
            `re.match` does; components without a match stay unchanged. Or a mapping
            from keys to such patterns; other components stay unchanged. Only the
            blocks that hold these leaves are read. Not for components that were saved
            by a generator, or as files.
          rename: Patterns to replacements, for `re.sub` on the names that matched; in
            full names the key must stay. Or a mapping from keys to such mappings; the
            leaves of other components keep their names. If a pattern matches nothing
            while `strict=False` leaves leaves unmatched, a warning is logged.
          strict: Whether a matched leaf that only one side has is an error. Components
            that load a state dict also take leaves that they do not have yet, such as
            the state of a fresh optimizer; torch modules do not, as they have all
            leaves from the start.
          cast: Whether to convert dtypes, within NumPy's same-kind casting, and typed
            keys to legacy ones and back.
          mmap: Whether arrays become copy-on-write views of the files instead of being
            read. Writing to them changes nothing on the disk. They outlive a save that
            is pruned or removed; its disk space is free only when they are gone. If the
            files are truncated or overwritten, they change, or the process ends. On a
            network disk, each first access may wait for the network, and ends the
            process if the network is gone. Compressed leaves are read, as are leaves of
            which a later save has written only a part again.
          verify: Whether to verify mapped arrays, which reads all of them once.
            Without, a load takes no time, and damage goes unnoticed. For `Files`, only
            the sizes of the files are verified then.
          allow_pickle: Whether code from the save may run. By default only for saves
            inside this object's own directory.
          dry_run: Whether to read and check everything, but call no `load()`. The
            report lists leaves that do not fit, instead of an error.

        Raises:
          ComponentError: nothing is registered.
          SaveNotFoundError: there is no save.
          MissingKeyError: a key is not registered or not in the save.
          MismatchError: leaves do not fit, or none is matched.
          PickleError: the save needs pickle, which is not allowed.
          DamagedError: the save, or each one in the directory, is damaged.
          VersionError: the save was written by a newer elementsckpt.
          ValueError: an argument is not valid, such as `keys=[]`.
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
        return self._load(request, path, step, is_whole=keys is None and regex is None)

    def _load(
        self,
        request: Request,
        path: AnyPath | None = None,
        step: int | None = None,
        *,
        is_whole: bool = True,
        announce: Callable[[Path], None] = lambda path: None,
    ) -> LoadReport:
        """Load what is requested.

        Args:
          request: The request.
          path: As for `load`.
          step: As for `load`.
          is_whole: Whether all of each registered component is requested.
          announce: Called with the path of the save before components load.
        """
        start, phases, keys = time.monotonic(), Phases(), request.keys or {}
        with self._saver.lock:
            with phases("wait"):
                self._saver.join()
            targets = {key: self._components[key].target for key in keys}
            find = functools.partial(self._candidates, path, step, keys.values())
            candidates = Candidates(find, self._directory)

            def before(save: Path) -> None:
                announce(save)
                self._saver.forget(keys)

            loaded = loading.load(request, targets, candidates, phases, before)
            if not request.dry_run:
                is_own = candidates.are_own(loaded.found.path)
                self._saver.loaded(
                    loaded.found,
                    exact=request.exact_keys if is_own else (),
                    is_own=is_own,
                    is_whole=is_whole,
                )
        return loaded.report(time.monotonic() - start)

    def copy_of(
        self,
        key: str,
        path: AnyPath | None = None,
        *,
        step: int | None = None,
        allow_pickle: bool | None = None,
    ) -> Any:
        """Return a copy of a component with its state in a save.

        The component itself does not change, so it may be in the middle of training.

        Args:
          key: Key of the component, which `copy.deepcopy` copies.
          path: As for `load`.
          step: As for `load`.
          allow_pickle: As for `load`.

        Raises:
          ComponentError: the component cannot be copied.
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

        If some files can only be written in `staging`, no first save is written.

        If jax.distributed or torch.distributed is initialized, processes with
        `write=False` wait for process 0. They resume the same save as process 0, or
        start afresh if it does: they do not resume the save that it has just written.

        Args:
          strict: As for `load`.
          cast: As for `load`.
          rename: As for `load`.

        Returns:
          Whether it resumed.

        Raises:
          ComponentError: nothing is registered yet.
          CheckpointError: there are saves, but none can be loaded. A run never starts
            afresh over them.
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
            with job.Agreement(directory.path, writes=self._options.write) as agreement:
                if agreement.is_followed:
                    save = agreement.wait()
                    if save is not None:
                        self._load(request, save)
                        return True
                elif directory.has_saves():
                    self._load(request, announce=agreement.tell)
                    return True
                agreement.tell(None)
                if not self._staged_only():
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
        """Return whether there is a save in the directory, or at `path`, as for `load`.

        Like `latest` and `saves`, it does not wait for a save in the background.
        """
        if path is None:
            directory = self._required_directory()
            job.warn_of_looking(directory.path, self._notices)
            return directory.has_saves()
        with contextlib.suppress(SaveNotFoundError):
            return bool(self._candidates(path, None))
        return False

    def latest(self) -> Path | None:
        """Return the newest save whose manifest is not damaged, or None."""
        found = self._required_directory().saves()
        with contextlib.suppress(DamagedError):
            return lookup.newest(found[::-1]).path if found else None
        return None

    def best(self) -> Path | None:
        """Return the best save by the metric of `keep`, or None if no save has it.

        If `keep` has no metric, the newest save that records a ranking decides, so that
        an evaluation needs no settings of the training. A save whose metric is not
        finite is never the best.

        Raises:
          ValueError: saves have metrics, but neither `keep` nor a save says which one
            to use.
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
        """Remove the saves that `keep` does not keep, as each save does.

        Returns:
          Paths of the removed saves; [] with `write=False`. A save that cannot be
          removed only causes a warning.
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
          Paths of the removed saves; [] with `write=False`. A save that cannot be
          removed only causes a warning.

        Raises:
          SaveNotFoundError: there is no such save.
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
        """Make these signals set `preempted` instead of ending the process.

        Earlier handlers in Python are called, too. Earlier handlers in C, such as those
        of `faulthandler.register`, are not called, which is logged. `close` restores
        both. If another handler replaces ours later, reading `preempted` logs it.

        Args:
          signals: By default SIGTERM and SIGUSR1.

        Raises:
          ValueError: this is not the main thread.
        """
        self._timing.watch(signals)

    @property
    def preempted(self) -> bool:
        """Whether a watched signal came, or the deadline of `every` has passed.

        It is correct at once in any thread, even if the main one runs compiled code.
        """
        return self._timing.is_over

    # Ending

    def wait(self) -> SaveReport | None:
        """Wait until this object is neither saving nor loading.

        Returns:
          The report of the last save in the background, or None if none has begun
          since the last `wait`.

        Raises:
          Exception: the error of that save.
        """
        return self._saver.wait()

    def close(self) -> None:
        """Wait as `wait` does, free memory, and stop watching signals.

        The object stays usable.
        """
        self._saver.close()

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        # An error in the background is logged; it must not hide another error.
        hidden = () if kind is None else (Exception,)
        with contextlib.suppress(*hidden):
            self.close()

    def _elsewhere(self, directory: Path) -> Checkpoint:
        """Return a Checkpoint with these settings to try another directory.

        It looks at all of each `Ring`.
        """
        other = Checkpoint(
            directory,
            step=self._step,
            background=self._saver.is_background,
            compress=self._options.compress,
            fsync=False,
        )
        other._saver.options = replace(other._saver.options, ring_check=1)
        return other

    def _required_directory(self) -> Directory:
        if self._directory is None:
            raise ValueError(
                "This Checkpoint has no directory: pass a path, or a directory to "
                "Checkpoint()."
            )
        return self._directory

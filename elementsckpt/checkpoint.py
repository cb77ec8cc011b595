"""The object that holds a run's components, and the functional form's import path.

An object without components needs neither NumPy nor what saves and loads. These are
imported with `engine`, all at once, when the first component is registered: so neither
a signal handler nor a forked child imports anything in a save.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar, overload

from msgspec.structs import replace

from .components.registry import Registry
from .directory import retention
from .directory.retention import Keep
from .errors import CheckpointError
from .format import compression
from .format.sizes import DEFAULT
from .loading import verbs
from .loading.request import Regex, Rename, Request
from .run import signals
from .run.schedule import Every
from .run.timing import Timing
from .saving.options import SaveOptions
from .system import memory
from .user import arguments
from .user.arguments import AnyPath, flag, local, shown
from .user.notices import Notices

if TYPE_CHECKING:
    from .components.component import Component
    from .engine import Engine
    from .functions import exists, load, save
    from .reports import LoadReport, SaveList, SaveReport
    from .run.saver import SaveRequest

__all__ = ["Checkpoint", "exists", "load", "save"]
_Self = TypeVar("_Self", bound="Checkpoint")
MYPY = False  # True for mypy, but not for other type checkers.
_COPY_SHARE = 8  # Copies in the background take one in so many bytes of memory.

if TYPE_CHECKING:

    class _Undeclared(Protocol):
        """A Checkpoint, but not of a subclass: a list of these has another type."""

        @property
        def _of_its_class(self) -> list[Checkpoint]: ...

else:

    def __getattr__(name):
        if name in __all__:
            return getattr(importlib.import_module(".functions", __package__), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


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
        {"_step", "_options", "_notices", "_path", "_timing", "_copy_bytes"}
    )

    _SIZES = DEFAULT
    _made: Engine | None = None

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
        self._path = None if directory is None else local(directory)
        self._timing = Timing(every, step, self._components)
        compress = compression.check(compress)
        write, fsync = flag("write", write), flag("fsync", fsync)
        keep = retention.checked(keep)
        self._options = SaveOptions(keep, write, fsync, compress, self._SIZES)
        self._copy_bytes = None
        if flag("background", background):
            share = memory.memory_bytes() // _COPY_SHARE
            self._copy_bytes = share if staging_bytes is None else staging_bytes
        if metadata is not None:
            self._make(metadata)

    def __repr__(self) -> str:
        where, newest = "no directory", "none"
        if self._path is not None:
            where = repr(str(self._path))
            with contextlib.suppress(CheckpointError):
                if (save := self._engine.newest()) is not None:
                    newest = save.path.name
                    if save.step is not None:
                        newest += f", step {save.step}"
        return f"Checkpoint({where}, keys={list(self._components)}, newest: {newest})"

    @property
    def _engine(self) -> Engine:
        return self._make() if self._made is None else self._made

    def _make(self, metadata: Any = None) -> Engine:
        from .engine import Engine  # Brings NumPy: see above.

        made = Engine(
            self._path,
            self._options,
            self._components,
            self._timing,
            metadata=metadata,
            copy_bytes=self._copy_bytes,
            notices=self._notices,
        )
        # Another thread, or a signal handler, may have been faster.
        return vars(self).setdefault("_made", made)  # type: ignore[no-any-return]

    def _component(self, key: str, value: Any) -> Component:
        return self._engine.component(key, value)

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
        request = self._request(metrics, metadata, pin, keys=keys, target=target)
        return self._engine.saver.save(request)

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
        return self._engine.stage(keys, request)

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
            self._engine.saver.check()
        if not self._timing.is_due(final=final):
            return None
        found = metrics() if callable(metrics) else metrics
        if not is_last:
            return self.save(metrics=found, metadata=metadata)
        request = self._request(found, metadata, is_last=True)
        return self._engine.saver.save(request)

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
        return self._engine.request(
            target,
            pin,
            components=self._select(keys),
            metrics=metrics,
            metadata=metadata,
            is_whole=target is None and keys is None,
            is_last=is_last,
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
        is_whole = keys is None and regex is None
        return self._engine.load(request, path, step, is_whole=is_whole)

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
        self._select([arguments.key(key)])
        copied = Checkpoint(self._path, keep=self._options.keep)
        load = partial(copied.load, path, [key], step=step, allow_pickle=allow_pickle)
        return self._engine.load_copy(key, copied, load)

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
        return self._engine.load_or_save(request, self._save_first)

    def _save_first(self) -> None:
        """Write the first save of a run, if that can be done without `staging`."""
        if not self._staged_only():
            self.save()

    # Looking

    def exists(self, path: AnyPath | None = None) -> bool:
        """Return whether there is a save in the directory, or at `path`, as for `load`.

        Like `latest` and `saves`, it does not wait for a save in the background.
        """
        return self._engine.has_saves(path)

    def latest(self) -> Path | None:
        """Return the newest save whose manifest is not damaged, or None."""
        found = self._engine.newest()
        return None if found is None else found.path

    def best(self) -> Path | None:
        """Return the best save by the metric of `keep`, or None if no save has it.

        If `keep` has no metric, the newest save that records a ranking decides, so that
        an evaluation needs no settings of the training. A save whose metric is not
        finite is never the best.

        Raises:
          ValueError: saves have metrics, but neither `keep` nor a save says which one
            to use.
        """
        found = self._engine.best()
        return None if found is None else found.path

    def saves(self) -> SaveList:
        """Return the saves in the directory that are not damaged, oldest first."""
        return self._engine.saves()

    # Removing

    def prune(self) -> list[Path]:
        """Remove the saves that `keep` does not keep, as each save does.

        Returns:
          Paths of the removed saves; [] with `write=False`. A save that cannot be
          removed only causes a warning.
        """
        return self._engine.prune()

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
        return self._engine.delete(path, step)

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
        return None if self._made is None else self._made.wait()

    def close(self) -> None:
        """Wait as `wait` does, free memory, and stop watching signals.

        The object stays usable.
        """
        if self._made is None:
            self._timing.unwatch()
        else:
            self._made.saver.close()

    def _repr_html_(self) -> str:
        """Return its saves as HTML, for a notebook."""
        return self._engine.outline([*self]).html()

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
            background=self._copy_bytes is not None,
            compress=self._options.compress,
            fsync=False,
        )
        other._options = replace(other._options, ring_check=1)
        return other

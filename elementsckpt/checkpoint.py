"""Checkpoints: the object that holds a run's components, and the functions below it."""

from __future__ import annotations

import contextlib
import inspect
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from . import components, folder, manifest, scalars
from .components import Component
from .elements_folder import files as elements_files
from .errors import (
    ComponentError,
    DamagedError,
    MetadataError,
    MissingKeyError,
    SaveNotFoundError,
)
from .folder import Directory, Draft, Found
from .manifest import Head, Manifest
from .overlay import Selection
from .reports import ComponentInfo, Lineage, LoadReport, SaveInfo, SaveReport
from .restore import Restored, restore
from .store import add_note, store
from .stored import Options, damage

AnyPath = str | os.PathLike[str]
_FUTURE_METHODS = frozenset({"best", "prune", "delete", "copy_of", "preempted"})


class Checkpoint:
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
      keep: How many of the newest saves to keep; None keeps all.
      step: Something that `int()` accepts, recorded with each save. By default a
        component named `step`, if there is one.
      write: Whether `save` writes. With False it does everything else, for all but
        one process of a group, for example.
      fsync: Whether a save is durable when `save` returns. Without, it is complete or
        absent after a crash of the process, but not after one of the machine.

    Source: elements.Checkpoint.
    """

    _OWN = frozenset(
        {"_directory", "_keep", "_step", "_write", "_fsync"}
        | {"_components", "_lock", "_listing", "_loaded_from"}
    )

    def __init__(
        self,
        directory: AnyPath | None = None,
        keep: int | None = 1,
        step: Any = None,
        write: bool = True,
        *,
        fsync: bool = True,
    ) -> None:
        if keep is not None and keep < 1:
            raise ValueError(
                f"keep={keep!r}: pass the number of saves to keep, or None."
            )
        self._directory = None if directory is None else _local(directory)
        self._keep = keep
        self._step = step
        self._write = write
        self._fsync = fsync
        self._components: dict[str, Component] = {}
        self._lock = threading.RLock()
        self._listing = None if self._directory is None else Directory(self._directory)
        self._loaded_from: str | None = None

    # Registration

    def __setattr__(self, key: str, value: Any) -> None:
        if key in self._OWN:
            object.__setattr__(self, key, value)
            return
        if key.startswith("_") or key in _FUTURE_METHODS or hasattr(type(self), key):
            raise ComponentError(
                f"Cannot register {key!r}: names that begin with an underscore and "
                f"names of methods are taken. Choose another attribute name."
            )
        if not key.isidentifier():
            raise ComponentError(
                f"Cannot register {key!r}: a key must be an identifier. The functions "
                f"in elementsckpt.checkpoint take any text."
            )
        self._components[key] = components.component(key, value)

    def __getattr__(self, key: str) -> Any:
        # Also asked before __init__ has run, by copy and pickle.
        registered = self.__dict__.get("_components", {})
        if key in registered:
            return registered[key].value
        raise AttributeError(
            f"No component {key!r} is registered; there are: {_listed(registered)}."
        )

    def __delattr__(self, key: str) -> None:
        if key not in self._components:
            raise AttributeError(f"No component {key!r} is registered.")
        del self._components[key]

    def __contains__(self, key: object) -> bool:
        return key in self._components

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._components))

    def __len__(self) -> int:
        return len(self._components)

    def __bool__(self) -> bool:
        return True  # Without components, too.

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._components})

    def __repr__(self) -> str:
        where = (
            "no directory" if self._directory is None else repr(str(self._directory))
        )
        newest = None if self._directory is None else self.latest()
        return (
            f"Checkpoint({where}, keys={list(self._components)}, "
            f"newest={newest.name if newest else None})"
        )

    # Saving

    def save(
        self,
        path: AnyPath | None = None,
        keys: Iterable[str] | None = None,
        *,
        metadata: Any = None,
    ) -> SaveReport:
        """Save the components; complete, and durable with fsync, on return.

        Args:
          path: Folder to write instead of a new one in the directory. It must not
            exist or be empty, is never pruned, and does not move `latest`.
          keys: Components to save; all by default.
          metadata: JSON types, tuples, mappings, dataclasses, NumPy scalars and
            paths, returned by `elementsckpt.info(path).metadata`.

        Raises:
          SaveExistsError: `path` holds something.
          StateError: a state holds what cannot be saved; the message names the leaf.
          MetadataError: metadata of another type; the message says where.
          WriteError: the disk refused; earlier saves are untouched.
          Exception: what a component's own `save()` raises, with a note of its key.
        """
        selected = self._select(keys)
        target = None if path is None else _local(path)
        if target is None and self._directory is None:
            raise ValueError(
                "This Checkpoint has no directory: pass a path to save(), or a "
                "directory to Checkpoint()."
            )
        with self._lock:
            return _save(
                {key: component.save for key, component in selected.items()},
                target=target,
                listing=self._listing,
                keep=self._keep,
                step=self._current_step(),
                metadata=metadata,
                loaded_from=self._loaded_from,
                write=self._write,
                fsync=self._fsync,
            )

    def _current_step(self) -> int | None:
        if self._step is not None:
            return int(self._step)
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
        regex: str | None = None,
        rename: Mapping[str, str] | None = None,
        strict: bool = True,
        cast: bool = False,
        mmap: bool = False,
        allow_pickle: bool | None = None,
        dry_run: bool = False,
    ) -> LoadReport:
        """Load the components; nothing changes before all is read and verified.

        With `regex`, `rename`, `strict=False` or `cast=True` a component gets its own
        current state with the matched leaves replaced.

        Args:
          path: A save, or a directory whose newest good save is meant. By default
            that of the directory.
          keys: Components to load; all by default.
          regex: Loads the leaves whose names it matches from their start, as
            `re.match` does: `params/enc/.*`. Only their bytes are read.
          rename: Pattern to replacement, for `re.sub` on the saved names.
          strict: Whether a leaf that only one side has is an error.
          cast: Whether to convert dtypes, within NumPy's same-kind casting.
          mmap: Whether arrays are mapped, copy-on-write, instead of read. They rely on
            the files then: do not truncate these, and expect network disks to be slow.
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
            restored = restore(
                self._candidates(path),
                selected,
                options=lambda save: Options(self._trusts(save, allow_pickle), mmap),
                current=lambda key: selected[key].save(),
                selection=Selection(regex, rename, strict, cast),
                dry_run=dry_run,
            )
            if not dry_run:
                loadfns = {key: component.load for key, component in selected.items()}
                _hand_over(restored, loadfns)
                self._loaded_from = manifest.display(str(restored.found.path))
        return restored.report(time.monotonic() - start)

    def load_or_save(self) -> bool:
        """Resume from the newest good save, or write the first one.

        Returns:
          Whether it resumed.

        Raises:
          CheckpointError: there are saves, and none can be loaded. A run is never
            started afresh over them.
        """
        if self._required_listing().saves():
            self.load()
            return True
        self.save()
        return False

    def _candidates(self, path: AnyPath | None) -> list[Found]:
        if path is None:
            path = self._required_listing().path
        return folder.find(_local(path), self._listing)

    def _trusts(self, save: Path, allow_pickle: bool | None) -> bool:
        if allow_pickle is not None:
            return allow_pickle
        if self._directory is None:
            return False
        return os.path.realpath(save.parent) == os.path.realpath(
            self._directory
        ) and not os.path.islink(save)

    # Looking

    def exists(self, path: AnyPath | None = None) -> bool:
        """Tell whether there is a save in the directory, or at `path`."""
        return exists(self._required_listing().path if path is None else path)

    def latest(self) -> Path | None:
        """Return the newest save in the directory that is not damaged, or None."""
        found = [x for x in self._required_listing().saves() if x.error is None]
        return found[-1].path if found else None

    def saves(self) -> list[SaveInfo]:
        """Return the saves in the directory that are not damaged, oldest first."""
        infos = []
        for found in self._required_listing().saves():
            if found.error is None:
                with contextlib.suppress(DamagedError):
                    infos.append(_info(found))
        return infos

    # Ending

    def wait(self) -> None:
        """Return when no thread is saving or loading with this object."""
        with self._lock:
            pass

    def close(self) -> None:
        """Wait for what is under way; the object stays usable."""
        self.wait()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _select(self, keys: Iterable[str] | None) -> dict[str, Component]:
        if keys is None:
            return dict(self._components)
        if isinstance(keys, str):
            raise ValueError(f"keys is a list of keys: pass keys=[{keys!r}].")
        wanted = list(keys)
        missing = [key for key in wanted if key not in self._components]
        if missing:
            raise MissingKeyError(
                f"Not registered: {', '.join(map(repr, missing))}. Registered are: "
                f"{_listed(self._components)}."
            )
        return {key: self._components[key] for key in wanted}

    def _required_listing(self) -> Directory:
        if self._listing is None:
            raise ValueError(
                "This Checkpoint has no directory: pass a path, or a directory to "
                "Checkpoint()."
            )
        return self._listing


def _listed(keys: Iterable[str]) -> str:
    return ", ".join(map(repr, keys)) or "none"


def _local(path: AnyPath) -> Path:
    text = os.fspath(path)
    if "://" in text:
        raise ValueError(
            f"{text}: only local paths are supported. Save locally and copy the folder."
        )
    return Path(text).expanduser().absolute()


# The functional form


def save(
    path: AnyPath,
    savefns: Mapping[str, Callable[[], Any]],
    write: bool = True,
    *,
    metadata: Any = None,
    fsync: bool = True,
) -> SaveReport:
    """Write one save to this very folder.

    Args:
      path: The folder, which must not exist or be empty.
      savefns: Functions that return a state, by key. Keys may be any text.
      write: As for `Checkpoint`.
      metadata: As for `Checkpoint.save`.
      fsync: As for `Checkpoint`.

    Raises:
      CheckpointError: as for `Checkpoint.save`.

    Source: elements.checkpoint.save.
    """
    return _save(
        savefns, target=_local(path), metadata=metadata, write=write, fsync=fsync
    )


def load(
    path: AnyPath,
    loadfns: Mapping[str, Callable[[Any], Any]],
    *,
    mmap: bool = False,
    allow_pickle: bool | None = None,
) -> LoadReport:
    """Load components of a save and give each to its function.

    Args:
      path: A save, or a directory whose newest good save is meant.
      loadfns: Functions that take a state, by key.
      mmap: As for `Checkpoint.load`.
      allow_pickle: Whether code from the save may run; not by default.

    Raises:
      CheckpointError: as for `Checkpoint.load`; no function has been called then.

    Source: elements.checkpoint.load.
    """
    start = time.monotonic()
    options = Options(bool(allow_pickle), mmap)
    restored = restore(folder.find(_local(path)), loadfns, options=lambda _: options)
    _hand_over(restored, loadfns)
    return restored.report(time.monotonic() - start)


def exists(path: AnyPath) -> bool:
    """Tell whether the path is a save or a directory with saves, even damaged ones."""
    try:
        return bool(folder.find(_local(path)))
    except SaveNotFoundError:
        return False


def info(path: AnyPath) -> SaveInfo:
    """Return what a save says about itself, reading no arrays.

    Args:
      path: A save, or a directory whose newest good save is meant.

    Raises:
      SaveNotFoundError: there is no save.
      DamagedError, VersionError: its manifest is not valid.
    """
    found = folder.find(_local(path))
    good = [save for save in found if save.error is None]
    if good:
        return _info(good[0])
    assert found[0].error is not None
    raise found[0].error


def read(
    path: AnyPath,
    keys: Iterable[str] | None = None,
    regex: str | None = None,
    mmap: bool = True,
    *,
    allow_pickle: bool | None = None,
) -> dict[str, Any]:
    """Return the states in a save as NumPy arrays, without the objects they are for.

    Args:
      path: A save, or a directory whose newest good save is meant.
      keys: Components to read; all by default.
      regex: Reads only leaves whose names it matches from their start. A list or
        tuple of which some is left out becomes a dict by position.
      mmap: Whether arrays are mapped, copy-on-write, instead of read.
      allow_pickle: Whether pickled leaves may be read, which can run code.

    Returns:
      State by key. NamedTuples and dataclasses are dicts by field, JAX and torch
      arrays are NumPy arrays, typed keys their data, functions their import paths. A
      component that was saved by a generator is a list of its shards.

    Raises:
      CheckpointError: as for `Checkpoint.load`.
    """
    options = Options(bool(allow_pickle), mmap, plain=True)
    candidates = folder.find(_local(path))
    if isinstance(keys, str):
        raise ValueError(f"keys is a list of keys: pass keys=[{keys!r}].")
    wanted = None if keys is None else list(keys)
    restored = restore(
        candidates,
        wanted,
        options=lambda _: options,
        selection=Selection(regex),
    )
    return {
        key: list(state) if inspect.isgenerator(state) else state
        for key, state in restored.states.items()
    }


def _hand_over(restored: Restored, loadfns: Mapping[str, Callable[[Any], Any]]) -> None:
    for key, state in restored.states.items():
        try:
            loadfns[key](state)
        except Exception as error:
            path = restored.found.path
            add_note(error, f"Raised while loading the component {key!r} from {path}.")
            raise


# One save


def _save(
    savefns: Mapping[str, Callable[[], Any]],
    *,
    target: Path | None,
    listing: Directory | None = None,
    keep: int | None = None,
    step: int | None = None,
    metadata: Any = None,
    loaded_from: str | None = None,
    write: bool,
    fsync: bool,
) -> SaveReport:
    """Write a save to `target`, or to a new folder of the directory `listing`."""
    start = time.monotonic()
    encoded = _encode_metadata(metadata)
    explicit = target is not None
    directory = Directory(target.parent) if target is not None else listing
    assert directory is not None
    sequence = directory.next_sequence()
    draft = None
    if write:
        if target is None:
            directory.sweep()
            draft = folder.begin(directory.path, step, fsync=fsync)
        else:
            draft = folder.begin_at(target, fsync=fsync)
    now = datetime.now(timezone.utc)
    path = (
        draft.path if draft else target or directory.path / folder.save_name(now, step)
    )
    written = manifest.Manifest(
        name=manifest.display(path.name),
        explicit=explicit,
        sequence=sequence,
        step=step,
        time=now,
        durable=fsync,
        metrics={},
        metadata=encoded,
        lineage=manifest.Lineage(loaded_from),
        libraries=_libraries(),
        components=[],
    )
    bytes_written = _write(written, savefns, draft, fsync=fsync)
    if draft is not None and not explicit:
        directory.write_latest(path.name, fsync=fsync)
        if keep is not None:
            directory.prune(keep)
    return SaveReport(
        path=path,
        step=step,
        sequence=sequence,
        bytes_written=bytes_written,
        bytes_total=sum(component.size_bytes for component in written.components),
        seconds=time.monotonic() - start,
    )


def _write(
    written: Manifest,
    savefns: Mapping[str, Callable[[], Any]],
    draft: Draft | None,
    *,
    fsync: bool,
) -> int:
    """Store the components and commit; returns the size of the files written."""
    where = None if draft is None else draft.path
    try:
        stored = store(savefns, where, sequence=written.sequence, fsync=fsync)
        for component in stored:
            written.components.append(component)
        if draft is None:
            return 0
        content = manifest.encode(written)
        draft.commit(content)
    except BaseException:
        if draft is not None:
            draft.abandon()
        raise
    segments = [x.size for item in written.components for x in item.segments]
    return len(content) + sum(segments)


def _encode_metadata(metadata: Any) -> Any:
    try:
        return scalars.encode_metadata({} if metadata is None else metadata)
    except (scalars.NotScalarError, RecursionError) as error:
        problem = "it holds itself" if isinstance(error, RecursionError) else error
        raise MetadataError(
            f"Metadata cannot be saved: {problem}. It may hold JSON types, tuples, "
            f"mappings, dataclasses, NumPy scalars and paths; nothing was written."
        ) from error


def _libraries() -> dict[str, str]:
    """Return the versions that a save depends on, of libraries imported already."""
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    for name in ("elementsckpt", "jax", "torch", "ml_dtypes"):
        version = getattr(sys.modules.get(name), "__version__", None)
        if isinstance(version, str):
            versions[name] = version
    return versions


def _info(found: Found) -> SaveInfo:
    if found.head is None:
        return _elements_info(found)
    head = found.head
    with damage(str(found.path / manifest.NAME)):
        return _info_of(found.path, head)


def _info_of(path: Path, head: Head) -> SaveInfo:
    return SaveInfo(
        path=path,
        step=head.step,
        sequence=head.sequence,
        time=head.time,
        metrics=head.metrics,
        metadata=scalars.decode_metadata(head.metadata),
        components={
            scalars.decode(item.key): ComponentInfo(
                item.size_bytes, item.leaf_count, item.shards
            )
            for item in head.components
        },
        lineage=Lineage(head.lineage.loaded_from),
    )


def _elements_info(found: Found) -> SaveInfo:
    sizes = {
        key: ComponentInfo(
            bytes=sum(file.stat().st_size for file in files),
            leaves=None,
            shards=len(files) if len(files) > 1 else None,
        )
        for key, files in elements_files(found.path).items()
    }
    modified = (found.path / "done").stat().st_mtime
    return SaveInfo(
        path=found.path,
        step=found.step,
        sequence=0,
        time=datetime.fromtimestamp(modified, timezone.utc),
        components=sizes,
    )

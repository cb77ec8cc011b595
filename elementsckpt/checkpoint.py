"""The object that holds a run's components, and the functional form by its name."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from . import components, compression, folder, manifest
from .background import Background
from .components import Component
from .compression import Compress
from .disk import AnyPath, local
from .errors import (
    CheckpointError,
    ComponentError,
    DamagedError,
    MissingKeyError,
)
from .folder import Directory, Found
from .functions import exists, load, save
from .history import History
from .look import describe
from .overlay import Selection
from .reports import LoadReport, SaveInfo, SaveReport
from .restore import hand_over, restore
from .staging import Staging, default_bytes
from .store import Manner, Saving, store
from .stored import Options

__all__ = ["Checkpoint", "exists", "load", "save"]
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
        {"_directory", "_step", "_manner", "_background", "_staging"}
        | {"_components", "_lock", "_listing", "_history", "_is_saving", "_loaded_from"}
    )

    def __init__(
        self,
        directory: AnyPath | None = None,
        keep: int | None = 1,
        step: Any = None,
        write: bool = True,
        *,
        background: bool = False,
        compress: Compress = "auto",
        fsync: bool = True,
        staging_bytes: int | None = None,
    ) -> None:
        if keep is not None and (type(keep) is not int or keep < 1):
            raise ValueError(
                f"keep={keep!r}: pass the number of saves to keep, or None."
            )
        if staging_bytes is not None and (
            type(staging_bytes) is not int or staging_bytes < 0
        ):
            raise ValueError(
                f"staging_bytes={staging_bytes!r}: pass a number of bytes, or None."
            )
        self._directory = None if directory is None else local(directory)
        self._step = step
        self._manner = Manner(keep, write, fsync, compression.check(compress))
        self._background: Background[SaveReport] | None = None
        self._staging: Staging | None = None
        if background:
            limit = default_bytes() if staging_bytes is None else staging_bytes
            self._background, self._staging = Background(), Staging(limit)
        self._components: dict[str, Component] = {}
        self._lock = threading.RLock()
        self._listing = None if self._directory is None else Directory(self._directory)
        self._history = History()
        self._is_saving = False
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
        newest = "none"
        with contextlib.suppress(CheckpointError):
            found = [] if self._listing is None else self._listing.saves()[::-1]
            if found:
                save = folder.newest(found)
                newest = f"{save.path.name}, step {save.step}"
        return f"Checkpoint({where}, keys={list(self._components)}, newest: {newest})"

    # Saving

    def save(
        self,
        path: AnyPath | None = None,
        keys: Iterable[str] | None = None,
        *,
        metadata: Any = None,
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
            any other.
          metadata: JSON types, tuples, mappings, dataclasses, NumPy scalars and
            paths, returned by `elementsckpt.info(path).metadata`.

        Raises:
          ComponentError: nothing is registered.
          SaveExistsError: `path` holds something.
          StateError: a state holds what cannot be saved; the message names the leaf.
          MetadataError: metadata of another type; the message says where.
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
        savefns = {key: component.save for key, component in selected.items()}
        with self._lock:
            if self._is_saving:  # A signal handler saves, or a component's save().
                return store(lambda: self._begin(target, metadata), savefns)
            self._wait()
            self._is_saving = True
            try:
                return self._save(target, metadata, savefns)
            finally:
                self._is_saving = False

    def _save(
        self,
        target: Path | None,
        metadata: Any,
        savefns: Mapping[str, Callable[[], Any]],
    ) -> SaveReport:
        if self._background is None or not self._manner.write:
            return store(lambda: self._begin(target, metadata), savefns)
        saving = self._begin(target, metadata, self._staging)
        saving.take(savefns, background=True)
        report = saving.report(is_finished=False)
        try:
            self._background.start(saving.finish)
        except BaseException:
            saving.abandon()
            raise
        return report

    def _begin(
        self, target: Path | None, metadata: Any, staging: Staging | None = None
    ) -> Saving:
        return Saving(
            self._manner,
            target=target,
            listing=self._listing,
            history=self._history,
            staging=staging,
            step=self._current_step(),
            metadata=metadata,
            loaded_from=self._loaded_from,
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
          path: A save, or a directory whose newest good save is meant. By default
            that of the directory.
          keys: Components to load; all by default.
          regex: Loads the leaves whose names it matches from their start, as
            `re.match` does: `params/enc/.*`. The key is not part of the name. Only
            the blocks that hold these leaves are read. Not for components that were
            saved by a generator.
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
            a load takes no time, and damage goes unnoticed.
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
            if self._background is not None:
                self._background.join()
            restored = restore(
                self._candidates(path),
                selected,
                options=lambda save: Options(
                    self._trusts(save, allow_pickle), mmap, verify
                ),
                current=lambda key: selected[key].save(),
                templates={x: y.template for x, y in selected.items() if y.template},
                selection=Selection(regex, rename, strict, cast),
                dry_run=dry_run,
            )
            if not dry_run:
                loadfns = {key: component.load for key, component in selected.items()}
                hand_over(restored, loadfns)
                self._loaded_from = manifest.display(str(restored.found.path))
        return restored.report(time.monotonic() - start)

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
            if self._background is not None:
                self._background.join()
            if listing.saves():
                self.load()
                return True
            self.save()
            return False

    def _candidates(self, path: AnyPath | None) -> list[Found]:
        if path is None:
            path = self._required_listing().path
        return folder.find(local(path), self._listing)

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
        """Tell whether there is a save in the directory, or at `path`.

        Like `latest` and `saves`, it does not wait for a save in the background.
        """
        return exists(self._required_listing().path if path is None else path)

    def latest(self) -> Path | None:
        """Return the newest save whose manifest is not damaged, or None."""
        found = self._required_listing().saves()
        with contextlib.suppress(DamagedError):
            return folder.newest(found[::-1]).path if found else None
        return None

    def saves(self) -> list[SaveInfo]:
        """Return the saves in the directory that are not damaged, oldest first."""
        infos = []
        for found in self._required_listing().saves():
            if found.error is None:
                with contextlib.suppress(DamagedError):
                    infos.append(describe(found))
        return infos

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
        return None if self._background is None else self._background.wait()

    def close(self) -> None:
        """Wait, as `wait` does, and free memory; the object stays usable."""
        with self._lock:
            try:
                self._wait()
            finally:
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

    def _require_components(self) -> None:
        """Refuse to replace a run's state by nothing, or to resume nothing."""
        if not self._components:
            raise ComponentError(
                "Nothing is registered. Assign the components first, such as "
                "cp.agent = agent; what is registered later is not loaded."
            )

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

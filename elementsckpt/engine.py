"""What a `Checkpoint` does: makes, finds, loads and removes the saves of a run."""

from __future__ import annotations

import contextlib
import copy
import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .components import protocols
from .components.component import Component
from .components.files import Files
from .components.registry import Registry
from .components.rng import GlobalRNG
from .components.wrappers import Saveable
from .directory import choice, lookup
from .directory.entries import SaveEntry
from .directory.listing import Directory
from .directory.metadata import encode
from .errors import ComponentError, DamagedError, SaveNotFoundError, reason
from .inspection.infos import describe_run, good_saves
from .kinds import jax_arrays
from .loading import load as loading
from .loading.candidates import Candidates
from .loading.request import Request
from .reports import LoadReport, SaveList, SaveReport
from .reports.outline import Outline
from .run.saver import Saver, SaveRequest, StagedSave
from .run.timing import Timing
from .saving.options import SaveOptions
from .system import job
from .system.phases import Phases
from .system.progress import Meter
from .user import attributes
from .user.arguments import AnyPath, local
from .user.notices import Notices


class Engine:
    """Does what the verbs of a `Checkpoint` say, when their arguments are checked.

    Args:
      path: The directory, or None if each save has a folder that the caller names.
      options: How saves are written.
      components: All that is registered, which may change.
      timing: When to save.
      metadata: Of the run, or None.
      copy_bytes: As for `Saver`.
      notices: What is said of the run, and was.

    Attributes:
      saver: Makes the saves.

    Raises:
      MetadataError: the metadata cannot be saved.
    """

    def __init__(
        self,
        path: Path | None,
        options: SaveOptions,
        components: Mapping[str, Component],
        timing: Timing,
        *,
        metadata: Any,
        copy_bytes: int | None,
        notices: Notices,
    ) -> None:
        encoded = None if metadata is None else encode(metadata)
        self._directory = None if path is None else Directory(path, notices)
        self._options = options
        self._components = components
        self._notices = notices
        self.saver = Saver(
            self._directory,
            options,
            components,
            timing,
            metadata=encoded,
            copy_bytes=copy_bytes,
            notices=notices,
        )

    def _required_directory(self) -> Directory:
        if self._directory is None:
            raise ValueError(
                "This Checkpoint has no directory: pass a path, or a directory to "
                "Checkpoint()."
            )
        return self._directory

    component = staticmethod(protocols.component)

    # Saving

    def request(
        self, target: Path | None, pin: str | None, **fields: Any
    ) -> SaveRequest:
        """Return a request for a save; `fields` are the others that it has.

        Raises:
          ValueError: the pin is not valid, or there is no directory and no target.
        """
        if target is None:
            self._required_directory()
        pin = lookup.checked_pin(pin, target)
        return SaveRequest(target=target, pin=pin, **fields)

    def stage(self, keys: Sequence[str], request: SaveRequest) -> StagedSave:
        """Return a context in which the files of some components are written."""
        return StagedSave(self.saver, keys, request)

    def wait(self) -> SaveReport | None:
        """Return when nothing is being saved or loaded: as for `Checkpoint.wait`."""
        with Meter("wait") as meter:
            return self.saver.wait(meter)

    # Loading

    def load(
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
          path: As for `Checkpoint.load`.
          step: As for `Checkpoint.load`.
          is_whole: Whether all of each registered component is requested.
          announce: Called with the path of the save before components load.
        """
        start, phases, keys = time.monotonic(), Phases(), request.keys or {}
        with self.saver.lock:
            with phases("wait"):
                self.saver.join()
            targets = {key: self._components[key].target for key in keys}
            find = functools.partial(self._candidates, path, step, keys.values())
            candidates = Candidates(find, self._directory)

            def before(save: Path) -> None:
                announce(save)
                self.saver.forget(keys)

            with Meter("load") as meter:
                loaded = loading.load(
                    request, targets, candidates, phases, meter, before
                )
            if not request.dry_run:
                is_own = candidates.are_own(loaded.found.path)
                self.saver.loaded(
                    loaded.found,
                    exact=request.exact_keys if is_own else (),
                    is_own=is_own,
                    is_whole=is_whole,
                )
        return loaded.report(time.monotonic() - start)

    def load_or_save(self, request: Request, save: Callable[[], object]) -> bool:
        """Load the newest good save, or call `save` where there is none."""
        directory = self._required_directory()
        with self.saver.lock:
            self.saver.join()
            with job.Agreement(directory.path, writes=self._options.write) as agreement:
                if agreement.is_followed:
                    found = agreement.wait()
                    if found is not None:
                        self.load(request, found)
                        return True
                elif directory.has_saves():
                    self.load(request, announce=agreement.tell)
                    return True
                agreement.tell(None)
                save()
                return False

    def load_copy(self, key: str, copied: Registry, load: Callable[[], object]) -> Any:
        """Return a copy of a component, loaded: as for `Checkpoint.copy_of`.

        Args:
          key: The key of the component.
          copied: Where to register the copy.
          load: Loads what is registered there.
        """
        _copy(key, self._components[key].value, copied)
        with self.saver.lock:
            self.saver.join()
            load()
        return getattr(copied, key)

    def _candidates(
        self, path: AnyPath | None, step: int | None, keys: Iterable[str] = ()
    ) -> list[SaveEntry]:
        if path is None and step is None:
            return lookup.with_keys(self._required_directory(), keys)
        if self._directory is None and path is not None and step is None:
            return lookup.find(local(path), to_load=True)
        return lookup.named(self._required_directory(), path, step, self._options.keep)

    # Looking

    def has_saves(self, path: AnyPath | None) -> bool:
        """Return whether there is a save: as for `Checkpoint.exists`."""
        if path is None:
            directory = self._required_directory()
            job.warn_of_looking(directory.path, self._notices)
            return directory.has_saves()
        with contextlib.suppress(SaveNotFoundError):
            return bool(self._candidates(path, None))
        return False

    def newest(self) -> SaveEntry | None:
        """Return the newest save whose manifest is not damaged, or None."""
        with contextlib.suppress(DamagedError):
            return choice.latest(self._required_directory())
        return None

    def best(self) -> SaveEntry | None:
        """Return the best save: as for `Checkpoint.best`."""
        return choice.best(self._required_directory(), self._options.keep)

    def saves(self) -> SaveList:
        """Return the saves in the directory that are not damaged, oldest first."""
        return good_saves(self._required_directory())

    def outline(self, keys: Sequence[str]) -> Outline:
        """Return what to show of the directory and of what is registered."""
        path = None if self._directory is None else self._directory.path
        return describe_run(path, keys, self._directory)

    # Removing

    def prune(self) -> list[Path]:
        """Remove the saves that `keep` does not keep; return their paths."""
        directory, options = self._required_directory(), self._options
        with self.saver.lock:
            self.saver.join()
            if not options.write:
                return []
            return directory.prune(options.keep, directory.saves(), fsync=options.fsync)

    def delete(self, path: AnyPath | None, step: int | None) -> list[Path]:
        """Remove the save at a path, or all of a step: as for `Checkpoint.delete`."""
        with self.saver.lock:
            self.saver.join()
            directory, options = self._required_directory(), self._options
            found = lookup.deletable(directory, path, step, options.keep)
            if not options.write:
                return []
            return directory.delete(found, fsync=options.fsync)


def _copy(key: str, value: Any, registry: Registry) -> None:
    """Register a copy of a component, to load a save into the copy.

    Raises:
      ComponentError: the component cannot be copied.
    """
    why_not = _why_not(value)
    if why_not is not None:
        raise ComponentError(
            f"{key!r} is made of {why_not}. Use "
            f"elementsckpt.read(path, keys=[{key!r}])."
        )
    try:
        with jax_arrays.unchecked():
            setattr(registry, key, copy.deepcopy(value))
    except Exception as error:
        raise ComponentError(
            f"{key!r} cannot be copied: {reason(error)}. Make another "
            f"{type(value).__name__}, register it with a Checkpoint() of its own, "
            f"and load(path, keys=[{key!r}])."
        ) from error


def _why_not(value: Any) -> str | None:
    """Return what a component refers to if its state is elsewhere, or None."""
    if attributes.is_instance(value, GlobalRNG):
        return "the global generators of the process: loading a copy would set them"
    if attributes.is_instance(value, Files) or (
        attributes.is_instance(value, Saveable) and not value.is_of_attributes
    ):
        return "functions, which load into what they belong to, not into a copy"
    return None

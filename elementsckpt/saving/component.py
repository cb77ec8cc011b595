"""Calls the components' `save()` and writes what they return.

The counterpart of `loading.component`: there a component's state comes out of a save.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from ..components.files import Folder
from ..errors import StateError, add_note, naming
from ..format import scalars
from ..format.manifest import Component, Tree, encode_tree
from ..format.names import stems
from ..kinds import losses as pickle_losses
from ..state import flattening, recurring, saved_tree
from ..state.recurring import Recurring
from ..state.sharing import Losses
from ..system.phases import Phases
from ..user.notices import Notices
from .component_writer import ComponentWriter
from .reuse import BlockIndex
from .writer import Writer

_NAMES_TOLD = 10


def collect(
    savefns: Mapping[str, Callable[[], Any]],
    writer: Writer | None,
    known: Callable[[str], BlockIndex],
    collected: list[ComponentSave],
    *,
    staged: Mapping[str, Path],
    background: bool,
    notices: Notices,
    phases: Phases,
    recurring: MutableMapping[str, Recurring | None],
) -> None:
    """Call each function and give what it returns to the writer.

    Args:
      savefns: What returns the state of a component, by key.
      writer: What writes, or None to do everything but write.
      known: Returns what an earlier save of a component holds.
      collected: Gets each component before its function is called.
      staged: Folders that have been written already, by key, instead of calling these
        components' functions.
      background: Whether the writer owns what it was given when this returns.
      notices: What is said of the run, and was.
      phases: The clock of the save.
      recurring: What is known of the states of earlier saves, by key; kept up to date.

    Raises:
      StateError: a state cannot be saved.
      WriteError: the disk refused.
    """
    # The staged first, so that they have the stems that `Saving.stage` gave them.
    stem_of = stems(list(dict.fromkeys([*staged, *savefns])))
    for key, savefn in savefns.items():
        own = None
        if writer is not None:
            with phases("find"):
                index = known(key)
            own = writer.component(stem_of[key], index)
        component = ComponentSave(key, writer, own, notices, phases, recurring)
        collected.append(component)
        if key in staged:
            component.take_folder(staged[key])
        else:
            component.take(savefn)
        if writer is not None and background:
            writer.own()


class ComponentSave:
    """One component of a save.

    Args:
      key: Its key.
      writers: What writes all components, or None if nothing is written.
      writer: What writes this one, likewise.
      notices: What is said of the run, and was.
      phases: The clock of the save.
      recurring: What is known of its state of an earlier save, by key.

    Attributes:
      key: Its key.
      writer: What writes its segments and blocks, or None.
      entry: What the manifest has of it, without these.
      pickled: Names of its leaves that only pickle holds.
    """

    def __init__(
        self,
        key: str,
        writers: Writer | None,
        writer: ComponentWriter | None,
        notices: Notices,
        phases: Phases,
        recurring: MutableMapping[str, Recurring | None],
    ) -> None:
        self.key = key
        self.writer = writer
        self.entry = Component(scalars.encode(key), None, 0, 0, [], [], [])
        self.pickled: list[str] = []
        self._writers = writers
        self._notices = notices
        self._phases = phases
        self._recurring = recurring
        self._unshared: list[str] = []

    def take(self, savefn: Callable[[], Any]) -> None:
        """Take what the component's function returns."""
        with naming(self.key):
            state = self._call(savefn)
        if isinstance(state, Folder):
            self.take_folder(self._write(state))
            return
        if isinstance(state, flattening.ValueState):
            self.entry.skeleton = state.skeleton
        if inspect.isgenerator(state):
            if self.writer is not None:
                self.writer.stream()
            self._take_shards(state)
        else:
            self._encode(state, "")
            del state
        if self.writer is not None:
            self.writer.close()
        self._tell_of_memory()

    def take_folder(self, path: Path | None) -> None:
        """Take the folder that the component wrote; None if nothing is written."""
        writer = self.writer
        if writer is not None and path is not None:
            self._call(lambda: writer.add_folder(path, self.entry))
            self._tell_of_no_files(path, self.entry.leaf_count)

    def _tell_of_no_files(self, path: Path, count: int) -> None:
        about = "no files", self.key
        if count:
            self._notices.settle(about)
            return
        self._notices.warn(
            about,
            "No file was written to %s, so there will be nothing to load. Write to the "
            "folder that the function, or the block, is given.",
            path,
        )

    def _write(self, folder: Folder) -> Path | None:
        """Let the component write to a folder, unless nothing is written."""
        write = folder.write
        if write is None:
            raise StateError(
                f"{self.key!r} has no function that writes its files. Let others "
                f"write them in `with cp.staging({self.key!r}) as folder:`, which "
                f"saves all, or leave it out with keys=[...]."
            )
        if self.writer is None:
            return None
        path = self.writer.make_folder()
        self._call(lambda: write(path))
        return path

    def _call(self, function: Callable[[], Any]) -> Any:
        """Call the component's code; its errors get a note that names the key."""
        try:
            with self._phases("collect"):
                return function()
        except StopIteration:
            raise
        except Exception as error:
            add_note(error, f"Raised while saving the component {self.key!r}.")
            raise

    def _take_shards(self, generator: Any) -> None:
        """Take shard by shard; the generator may reuse its arrays after each."""
        self.entry.shards = 0
        while True:
            try:
                shard = self._call(generator.__next__)
            except StopIteration:
                return
            self._encode(shard, f"{self.entry.shards}/")
            del shard
            self.entry.shards += 1
            if self._writers is not None:
                self._writers.own()
                if self._writers.is_full:
                    self._writers.flush()

    def _encode(self, state: Any, prefix: str) -> None:
        with self._phases("flatten"):
            self.entry.trees.append(encode_tree(self._add(state, prefix)))

    def _add(self, state: Any, prefix: str) -> Tree:
        is_value = isinstance(state, flattening.ValueState)
        losses: Losses = {}
        encoded, self._recurring[self.key] = recurring.encode(
            state.state if is_value else state,
            self.key,
            losses,
            self._recurring.get(self.key),
        )
        saved, storages, owners = encoded.tree, encoded.storages, encoded.owners
        names = [prefix + name for name in encoded.unshared]
        self._unshared += [saved_tree.full_name(self.key, name) for name in names]
        self._tell_of_losses(losses, prefix)
        if is_value:
            state.check(self.key, saved)
        for group, arrays in zip(saved.leaves, storages, strict=True):
            self.entry.leaf_count += len(group.names)
            if arrays:
                self.entry.size_bytes += len(arrays) * arrays[0].nbytes
        for name in saved_tree.pickled_names(saved):
            self.pickled.append(saved_tree.full_name(self.key, prefix + name))
        if self.writer is not None:
            saved.leaves = self.writer.add(saved.leaves, storages, owners, prefix)
            self._tell_of_rings(self.writer.untrue_rings)
        return saved

    def _tell_of_rings(self, untrue: Mapping[str, tuple[int, int]]) -> None:
        for name, (first, last) in untrue.items():
            self._notices.warn(
                ("ring", self.key, name),
                "%s has changed in rows %s to %s, where its Ring has added none since "
                "the last save. From now on it is saved whole. Count in `added` each "
                "row that is written, or save the array without Ring.",
                *(saved_tree.full_name(self.key, name), first, last),
            )

    def _tell_of_memory(self) -> None:
        if not self._unshared:
            return
        self._notices.warn(
            ("memory", self.key),
            "%s share memory, and will come back apart: what is then written to one "
            "does not reach the others. That is kept for arrays without objects that "
            "are parts of one another. Save one, and make the others from it in "
            "load().",
            _some(self._unshared),
        )

    def _tell_of_losses(self, losses: Losses, prefix: str) -> None:
        """Warn of objects whose pickles are not all of them."""
        for cls, (names, attributes) in losses.items():
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            self._notices.warn(
                ("losses", self.key, cls),
                "%s%s holds a %s.%s, whose pickle leaves out %s, so a load will not "
                "bring that back. %s",
                saved_tree.full_name(self.key, prefix + names[0]),
                more,
                cls.__module__,
                cls.__qualname__,
                _some(attributes, " attributes"),
                _ENVIRONMENT if pickle_losses.is_ez_pickle(cls) else _BY_HAND,
            )


_ENVIRONMENT = (
    "Register the environment by itself, as elementsckpt.Environment(env), which saves "
    "it in the middle of its episode; or call its reset() in load(), where a new "
    "episode then begins."
)
_BY_HAND = (
    "Save it by hand, beside the object, and set it in load(); or begin anew there on "
    "purpose."
)


def _some(names: Sequence[str], what: str = "") -> str:
    more = len(names) - _NAMES_TOLD
    listed = ", ".join(names[:_NAMES_TOLD])
    return f"{listed} and {more} more{what}" if more > 0 else listed

"""Calls the components' `save()` and writes what they return.

The counterpart of `loading.component`: there a component's state comes out of a save.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Raw, Struct

from ..components.files import Folder
from ..errors import StateError, add_note, naming
from ..format import scalars
from ..format.manifest import Component, Tree, encode_tree
from ..format.names import stems
from ..state import flattening, grouping, tree
from ..state.sharing import Losses
from ..system.phases import Phases
from ..user.notices import Notices
from .component_writer import ComponentWriter
from .reuse import BlockIndex
from .writer import Writer

_NAMES_TOLD = 5


class Collected(Struct):
    """What a component saved.

    Attributes:
      key: Its key.
      component: Its entry in the manifest, without segments and blocks.
      writer: What writes these, or None if nothing is written.
      pickled: Names of its leaves that only pickle holds.
      apart: Names of those that share memory and will come back apart.
    """

    key: str
    component: Component
    writer: ComponentWriter | None
    pickled: list[str]
    apart: list[str]


def collect(
    savefns: Mapping[str, Callable[[], Any]],
    writer: Writer | None,
    known: Callable[[str], BlockIndex],
    *,
    staged: Mapping[str, Path],
    background: bool,
    notices: Notices,
    phases: Phases,
) -> list[Collected]:
    """Call each function and give what it returns to the writer.

    Args:
      savefns: What returns the state of a component, by key.
      writer: What writes, or None to do everything but write.
      known: Returns what an earlier save of a component holds.
      staged: Folders that have been written already, by key, instead of calling these
        components' functions.
      background: Whether the writer owns what it was given when this returns, instead
        of having written it.
      notices: What is said of the run, and was.
      phases: The clock of the save.

    Raises:
      StateError: a state cannot be saved.
      WriteError: the disk refused.
    """
    # The staged first, so that they have the stems that `stem` gave them.
    stem_of = stems(list(dict.fromkeys([*staged, *savefns])))
    collected = []
    for key, savefn in savefns.items():
        own = None if writer is None else writer.component(stem_of[key], known(key))
        collecting = _Collecting(key, writer, own, notices, phases)
        if key in staged:
            component = collecting.take_folder(staged[key])
        else:
            component = collecting.run(savefn)
        collected.append(
            Collected(key, component, own, collecting.pickled, collecting.apart)
        )
        if writer is not None:
            writer.own() if background else writer.flush()
    return collected


class _Collecting:
    """Writes one component."""

    def __init__(
        self,
        key: str,
        writer: Writer | None,
        own: ComponentWriter | None,
        notices: Notices,
        phases: Phases,
    ) -> None:
        self._notices = notices
        self._phases = phases
        self._key = key
        self._writer = writer
        self._own = own
        self._leaf_count = 0
        self.pickled: list[str] = []
        self.apart: list[str] = []
        self._size_bytes = 0

    def run(self, savefn: Callable[[], Any]) -> Component:
        """Save what the component's function returns."""
        with naming(self._key):
            state = self._call(savefn)
        if isinstance(state, Folder):
            return self.take_folder(self._write(state))
        shards = skeleton = None
        if isinstance(state, flattening.ValueState):
            skeleton = state.skeleton
        if inspect.isgenerator(state):
            if self._own is not None:
                self._own.stream()
            trees = list(self._shards(state))
            shards = len(trees)
        else:
            trees = [self._encode(state, "")]
            del state
        if self._own is not None:
            self._own.close()
        component = self._component(trees, shards)
        component.skeleton = skeleton
        return component

    def take_folder(self, path: Path | None) -> Component:
        """Save the folder that the component wrote; None if nothing is written."""
        component = self._component([])
        own = self._own
        if own is not None and path is not None:
            self._call(lambda: own.add_folder(path, component))
            self._tell_of_no_files(path, component.leaf_count)
        return component

    def _tell_of_no_files(self, path: Path, count: int) -> None:
        about = "no files", self._key
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
                f"{self._key!r} has no function that writes its files. Let others "
                f"write them in `with cp.staging({self._key!r}) as folder:`, which "
                f"saves all, or leave it out with keys=[...]."
            )
        if self._own is None:
            return None
        path = self._own.make_folder()
        self._call(lambda: write(path))
        return path

    def _component(self, trees: Sequence[Raw], shards: int | None = None) -> Component:
        return Component(
            key=scalars.encode(self._key),
            shards=shards,
            leaf_count=self._leaf_count,
            size_bytes=self._size_bytes,
            segments=[],
            blocks=[],
            trees=list(trees),
        )

    def _call(self, function: Callable[[], Any]) -> Any:
        """Call the component's code; its errors get a note that names the key."""
        try:
            with self._phases("collect"):
                return function()
        except StopIteration:
            raise
        except Exception as error:
            add_note(error, f"Raised while saving the component {self._key!r}.")
            raise

    def _shards(self, generator: Any) -> Iterator[Any]:
        """Store shard by shard; the generator may reuse its arrays after each."""
        index = 0
        while True:
            try:
                shard = self._call(generator.__next__)
            except StopIteration:
                return
            yield self._encode(shard, f"{index}/")
            del shard
            index += 1
            if self._writer is not None:
                self._writer.own()
                if self._writer.is_full:
                    self._writer.flush()

    def _encode(self, state: Any, prefix: str) -> Raw:
        with self._phases("flatten"):
            return encode_tree(self._add(state, prefix))

    def _add(self, state: Any, prefix: str) -> Tree:
        is_value = isinstance(state, flattening.ValueState)
        flat = flattening.flatten(state.state if is_value else state, self._key)
        losses: Losses = {}
        encoded = grouping.encode(flat, self._key, losses)
        saved, storages, owners = encoded.tree, encoded.storages, encoded.owners
        names = [prefix + name for name in encoded.unshared]
        self.apart += [tree.full_name(self._key, name) for name in names]
        self._tell_of_losses(losses, prefix)
        if is_value:
            state.check(self._key, saved)
        for group, arrays in zip(saved.leaves, storages, strict=True):
            self._leaf_count += len(group.names)
            if arrays:
                self._size_bytes += len(arrays) * arrays[0].nbytes
        for name in tree.pickled_names(saved):
            self.pickled.append(tree.full_name(self._key, prefix + name))
        if self._own is not None:
            saved.leaves = self._own.add(saved.leaves, storages, owners, prefix)
        return saved

    def _tell_of_losses(self, losses: Losses, prefix: str) -> None:
        """Warn of objects whose pickles are not all of them."""
        for cls, (names, attributes) in losses.items():
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            self._notices.warn(
                ("losses", self._key, cls),
                "%s%s holds a %s.%s, whose pickle leaves out %s, so a load will not "
                "bring that back. Save it by hand, beside the object, and set it in "
                "load(); or begin anew there on purpose, as reset() of an environment "
                "does.",
                tree.full_name(self._key, prefix + names[0]),
                more,
                cls.__module__,
                cls.__qualname__,
                _some(attributes),
            )


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMES_TOLD
    listed = ", ".join(names[:_NAMES_TOLD])
    return f"{listed} and {more} more attributes" if more > 0 else listed

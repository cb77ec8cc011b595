"""One component of a save → its state, some of its leaves, or its shards.

This module reads components that this library wrote; `imported` has the same methods
for components that elements wrote.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from ..errors import MismatchError, damage, reason
from ..format.manifest import Component, Tree
from ..kinds import leaves
from ..kinds.kind import Spec
from ..state import replacing, saved_tree, skeletons, unflattening, view_leaves, walking
from ..state.same_names import Keys
from . import refusals
from .decoding import Decoder


class SavedComponent:
    """A component that this library wrote.

    Args:
      decoder: Builds its values.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.key = decoder.key
        self.streams = decoder.entry.shards is not None
        self._where, self._entry = decoder.where, decoder.entry
        self._request, self._notes = decoder.request, decoder.notes
        self._reader, self._decoder = decoder.reader, decoder

    def open(self) -> None:
        """Open the files, so that they can be read even if they are removed."""
        with damage(self._where):
            self._reader.open()

    def state(self) -> Any:
        """Return the state, read and verified; `LEFT_OUT` if it is a pickled leaf."""
        with damage(self._where):
            return self._decoder.whole(self._tree)

    def rebuilt(self, state: Any) -> Any:
        """Return the tree, with its classes, that a value saved as this state."""
        skeleton = self._entry.skeleton
        if skeleton is None:
            return state
        if not skeleton:
            raise refusals.no_skeleton(self._where, "that could not be pickled")
        if not self._request.allow_pickle:
            problem = "that are pickled, and loading them could run any code"
            trust = ", or pass allow_pickle=True if you trust who wrote the save"
            raise refusals.no_skeleton(self._where, problem, trust)
        try:
            return skeletons.load(skeleton, state)
        except Exception as error:
            problem = f"that cannot be unpickled: {reason(error)}"
            raise refusals.no_skeleton(self._where, problem) from error

    def some(self, named: Sequence[tuple[str, int]]) -> Any:
        """Return the state with only some leaves; `LEFT_OUT` if none can be read.

        Args:
          named: Names of the leaves, as `names` returns them, and their numbers.
        """
        with damage(self._where):
            saved = self._tree
            numbers = self._decoder.admitted(saved, {n for _, n in named}, named)
            if not numbers:
                return unflattening.LEFT_OUT
            values = self._decoder.some(saved, numbers)
            return unflattening.unflatten_some(saved.root, saved.nodes, values)

    @property
    def held_bytes(self) -> int:
        """How much memory its state takes; 0 for shards, which are read one by one."""
        mapped = self._request.mmap
        return 0 if self.streams else self._reader.held_bytes(mapped=mapped)

    def bytes_to_read(self, numbers: Collection[int] | None = None) -> int:
        """Return how many bytes a load reads: of leaves, or of the whole component."""
        if (
            numbers is None or len(numbers) >= self._entry.leaf_count
        ):  # Shards are verified first, and then read again.
            return self._reader.size_bytes * (1 + self.streams)
        with damage(self._where):
            picked = [group for _, group in saved_tree.pick(self._tree, {*numbers})]
            groups = [group for group in picked if group.kind != "view"]
            return sum(leaves.layout_of(x)[2] * len(x.names) for x in groups)

    def contents(self) -> list[str]:
        """Return the name of each leaf, or of each shard."""
        if self.streams:
            return [str(index) for index in range(self._entry.shards or 0)]
        with damage(self._where):
            saved = self._tree
            names, hidden = saved_tree.leaf_names(saved), saved_tree.hidden(saved)
            return [x for n, x in enumerate(names) if n not in hidden]

    def names(self) -> list[tuple[str, int]]:
        """Return name and number of each leaf, several for a leaf in several places."""
        with damage(self._where):
            return self._names

    @functools.cached_property
    def _names(self) -> list[tuple[str, int]]:
        try:
            return walking.names(self._tree, self._notes.allowance)
        except MismatchError as error:
            raise MismatchError(f"In {self._where} {error}") from error

    def specs(self) -> list[tuple[str, int, Spec]]:
        """Return name, number and spec of each leaf, without reading its bytes."""
        names = self.names()
        with damage(self._where):
            groups = self._tree.leaves
            specs = [spec for x in groups for spec in leaves.named(x).specs(x)]
            return [(name, number, specs[number]) for name, number in names]

    def values(
        self, numbers: Iterable[int], as_saved: Collection[int] = ()
    ) -> dict[int, Any]:
        """Return leaves and containers by number, read and verified.

        All are read together, so a shared leaf stays one object. Leaves inside pickles
        and requested containers come as they were saved. Other arrays come as NumPy
        arrays, except tensors whose dtype NumPy lacks without ml_dtypes.

        Args:
          numbers: Numbers of leaves.
          as_saved: Numbers of leaves that come as they were saved, and of containers.
        """
        with damage(self._where):
            saved, numbers = self._tree, {*numbers}
            picked = saved_tree.pick(saved, numbers.difference(as_saved))
            others = [x for x in picked if not leaves.named(x[1]).is_numpy(x[1])]
            whole = saved_tree.needed(
                saved, [*as_saved, *saved_tree.numbers_in(others)]
            )
            return self._decoder.some(
                saved, [*numbers.difference(whole), *whole], {*whole}
            )

    @property
    def is_plain(self) -> bool:
        """Whether it has neither pickles nor attributes of containers."""
        saved = self._tree
        return not (
            any(x.attributes for x in saved.nodes) or saved_tree.has_pickles(saved)
        )

    def structure(self) -> replacing.Structure:
        """Return the structure of its containers."""
        with damage(self._where):
            saved = self._tree
            count = len(saved_tree.leaf_names(saved))
            return replacing.describe(saved.root, saved.nodes, count)

    def barred(self, numbers: Iterable[int]) -> dict[int, str]:
        """Return the leaves and containers that need pickle if it is not allowed.

        Returns:
          Their numbers, to the full name of the leaf that needs pickle.
        """
        found: dict[int, str] = {}
        with damage(self._where):
            saved = self._tree
            for number in () if self._request.allow_pickle else numbers:
                below = [x for x in saved_tree.needed(saved, [number]) if x >= 0]
                groups = [group for _, group in saved_tree.pick(saved, below)]
                names = [n for x in groups if leaves.named(x).is_code for n in x.names]
                if names:
                    found[number] = saved_tree.full_name(self.key, min(names, key=len))
        return found

    def shared(self) -> set[int]:
        """Return the numbers of leaves that share memory or are inside other leaves."""
        with damage(self._where):
            saved = self._tree
            pairs = view_leaves.pairs(saved_tree.numbered(saved))
            return {n for pair in pairs for n in pair} | saved_tree.held_elsewhere(
                saved
            )

    def places(self) -> list[tuple[str, walking.Place]]:
        """Return name and place of each leaf and each empty container."""
        with damage(self._where):
            return list(walking.places(self._tree, self._notes.allowance))

    def keys(self) -> list[tuple[str, int, Keys]]:
        """Return name and number of each leaf, and the keys that lead to it."""
        with damage(self._where):
            return list(walking.keys(self._tree, self._notes.allowance))

    def verify(self) -> None:
        """Read all shards once, so that streaming them later will not fail."""
        self._reader.hold()
        self._notes.bytes_read += self._entry.size_bytes
        for index in range(self._entry.shards or 0):
            self._shard(index)
            with damage(self._where):
                # A shard whose block begins in another shard finds it in memory.
                if self._reader.is_repeating:
                    raise ValueError("two shards claim the same bytes")

    def shards(self) -> Iterator[Any]:
        """Return a generator of the shards."""
        try:
            for index in range(self._entry.shards or 0):
                shard = self._shard(index)
                yield None if shard is unflattening.LEFT_OUT else shard
        finally:
            self._reader.close()

    def _shard(self, index: int) -> Any:
        with damage(self._where):
            return self._decoder.whole(self._entry.tree(index), str(index))

    def close(self) -> None:
        """Close the files."""
        self._reader.close()

    @functools.cached_property
    def _tree(self) -> Tree:
        return self._entry.tree()


def names_in_block(component: Component, key: str, block: int) -> str:
    """Return the names of the leaves in a block, for errors."""
    last, names = -1, [""]  # Leaves that begin in the block, or the last before it.
    with contextlib.suppress(Exception):
        for index in range(len(component.trees)):
            prefix = "" if component.shards is None else f"{index}/"
            for group in component.tree(index).leaves:
                if last < group.block <= block:
                    last, names = group.block, []
                if group.block == last:
                    names += [prefix + name for name in group.names]
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return saved_tree.full_name(key, names[0]) + more

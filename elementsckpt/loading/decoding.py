"""Entries of a manifest → values: read, decoded, unpickled, put into containers."""

from __future__ import annotations

import collections
import functools
import itertools
from collections.abc import Callable, Iterable, Sequence, Set
from typing import Any

from msgspec import Struct

from ..format.manifest import Component, LeafGroup, Node, Tree
from ..kinds import leaves, pickles
from ..kinds.kind import Stored
from ..kinds.references import Resolver
from ..state import saved_tree, unflattening, view_leaves, walking
from ..storage.reader import Reader
from . import refusals
from .loaded import Notes
from .request import Request

_FindClass = Callable[[int, Node], type | None]


class Decoder(Struct):
    """Builds the state, or some leaves, of one component of a save.

    Attributes:
      entry: Its entry in the manifest.
      key: Its key.
      where: Name of the component and the save, for errors.
      reader: Reads its blocks.
      resolver: Finds classes and functions.
      request: How to read it.
      notes: Collects what the report will say.
    """

    entry: Component
    key: str
    where: str
    reader: Reader
    resolver: Resolver
    request: Request
    notes: Notes

    def whole(self, saved: Tree, shard: str = "") -> Any:
        """Return a whole state; `LEFT_OUT` if it is a pickle that is left out.

        Args:
          saved: The tree in the manifest.
          shard: The number of the shard, if the component has shards.
        """
        if self.request.leaves_out and saved_tree.has_pickles(saved):
            return self._rest(saved, shard)
        is_bare = self.request.plain
        values = self._read(saved.leaves, [not is_bare] * len(saved.leaves))
        numbered = list(saved_tree.numbered(saved))
        view_leaves.restore(numbered, values)
        find_class = self._class_finder(saved)
        made = self._unpickle_all(numbered, values, saved, find_class)
        if is_bare:  # Only unpickled objects hold real containers.
            made, find_class = {}, _no_class
        return unflattening.unflatten(saved.root, saved.nodes, values, find_class, made)

    def _class_finder(self, saved: Tree) -> _FindClass:
        """Return a function that finds containers' classes, and notes those not found.

        It notes the first container of each class that has changed, too.
        """
        notes, resolver = self.notes, self.resolver

        @functools.cache
        def names() -> dict[int, str]:
            return walking.container_names(saved, notes.allowance)

        def find_class(number: int, node: Node) -> type | None:
            cls = resolver.container(node)
            if cls is None:
                notes.plain[self._full_name(names().get(~number, ""))] = node.name
                notes.reasons |= resolver.reasons
            elif node.name in resolver.changes and node.name not in notes.changes:
                first = self._full_name(names().get(~number, ""))
                notes.changes[node.name] = resolver.changes[node.name], first
            return cls

        return find_class

    def _rest(self, saved: Tree, shard: str) -> Any:
        """Return the state without its pickled leaves."""
        places = {n for node in saved.nodes for n in node.children if n >= 0}
        if saved.root >= 0:
            places.add(saved.root)
        named = walking.all_names(saved, self.notes.allowance)
        values = self.some(saved, self.admitted(saved, places, named, shard))
        return unflattening.unflatten_rest(saved.root, saved.nodes, values)

    def some(
        self, saved: Tree, wanted: Iterable[int], as_saved: Set[int] = frozenset()
    ) -> dict[int, Any]:
        """Return leaves and containers by number, read together.

        Args:
          saved: The tree.
          wanted: Their numbers.
          as_saved: Numbers of those that come as they were saved, and of all that these
            need. Other arrays come as NumPy arrays.
        """
        wanted = list(wanted)
        numbers = [number for number in saved_tree.needed(saved, wanted) if number >= 0]
        picked = saved_tree.pick(saved, as_saved & {*numbers})
        count = len(picked)
        picked += saved_tree.pick(saved, set(numbers) - as_saved)
        is_bare = not any(group.kind == "pickle" for _, group in picked)
        # Pickled objects may hold arrays that share this memory.
        views = dict(view_leaves.pairs(picked)) if is_bare else {}
        picked = list(view_leaves.with_bases(saved, picked, self.entry.blocks))
        whole = [index < count for index in range(len(picked))]
        read = self._read([group for _, group in picked], whole)
        values = dict(zip(saved_tree.numbers_in(picked), read, strict=True))
        view_leaves.restore(picked, values)
        find_class = self._class_finder(saved)
        made = self._unpickle_all(picked, values, saved, find_class, as_saved)
        counts = collections.Counter([*numbers, *views.values()])
        for number, base in views.items():
            if counts[base] == 1 and number not in as_saved:  # Nothing else needs it.
                values[number] = values[number].copy("A")
        values |= made
        return {number: values[number] for number in wanted}

    def _read(self, groups: Sequence[LeafGroup], whole: Sequence[bool]) -> list[Any]:
        """Return the leaves of groups, with payloads in place of pickled ones.

        Args:
          groups: Their entries in the manifest.
          whole: For each group, whether its leaves come as they were saved; otherwise
            arrays come as NumPy arrays, and functions as their import paths.
        """
        self._refuse_pickles(groups)
        layouts = [leaves.layout_of(group) for group in groups]
        wants = [
            (group.block, group.offset, size * len(group.names))
            for group, (_, _, size) in zip(groups, layouts, strict=True)
        ]
        mapped = self.request.mmap
        with self.notes.phases("read"):
            if mapped:
                mappable = [leaves.named(group).is_array for group in groups]
                verify = self.request.verify
                memories = self.reader.map(wants, mappable, verify=verify)
            else:
                memories = self.reader.read(wants)
        if self.entry.shards is None:  # `verify` has counted the bytes of shards.
            self.notes.bytes_read += sum(size for _, _, size in wants)
        decoded = [
            leaves.decode(group, Stored(layout, memory, at, not is_whole, mapped))
            for group, layout, (memory, at), is_whole in zip(
                groups, layouts, memories, whole, strict=True
            )
        ]
        chosen = list(itertools.compress(zip(groups, decoded, strict=True), whole))
        leaves.build(chosen, self.key, self.where)
        for group, items in chosen:
            if group.kind == "function":
                items[:] = map(self._function, items, group.names)
        return [item for items in decoded for item in items]

    def _unpickle_all(
        self,
        groups: Iterable[tuple[int, LeafGroup]],
        values: Any,
        saved: Tree,
        find_class: _FindClass,
        wanted: Iterable[int] = (),
    ) -> dict[int, Any]:
        """Replace payloads by the unpickled objects; return the containers made.

        Args:
          groups: The leaves, with the first number of each group.
          values: Values of leaves by number; payloads in it are replaced.
          saved: The tree.
          find_class: As for `unflattening.unflatten`.
          wanted: Containers to make besides those that pickles need.
        """
        pickled = {
            number: (name, parts)
            for first, group in groups
            if group.kind == "pickle"
            for number, name, parts in zip(
                itertools.count(first), group.names, group.value, strict=False
            )
        }
        made: dict[int, Any] = {}
        needed = saved_tree.needed(saved, [*pickled, *(n for n in wanted if n < 0)])
        if needed:
            unflattening.check(saved.nodes)
        for number in needed:
            if number < 0:
                made[number] = unflattening.put(
                    saved.nodes, ~number, values, made, find_class
                )
            elif number in pickled:
                name, parts = pickled[number]
                there = [values[n] if n >= 0 else made[n] for n in parts]
                values[number] = self._unpickle(values[number], there, name)
        return made

    def _refuse_pickles(self, groups: Iterable[LeafGroup]) -> None:
        names = [name for x in groups if x.kind == "pickle" for name in x.names]
        if names and not self.request.allow_pickle:
            name = min(names, key=len)  # A leaf inside another one has a longer name.
            raise refusals.pickled(self._full_name(name), self.request.less)

    def _function(self, path: str, name: str) -> Any:
        function = self.resolver.function(path)
        if function is None:
            full, less = self._full_name(name), self.request.less
            raise refusals.unknown_function(full, less, path)
        return function

    def _unpickle(self, payload: Any, parts: list[Any], name: str) -> Any:
        try:
            return pickles.load(memoryview(payload), parts)
        except Exception as error:
            full, less = self._full_name(name), self.request.less
            raise refusals.not_unpickled(full, less, error) from error

    def _full_name(self, name: str) -> str:
        return saved_tree.full_name(self.key, name)

    def admitted(
        self,
        saved: Tree,
        numbers: Set[int],
        named: Iterable[tuple[str, int]],
        shard: str = "",
    ) -> Set[int]:
        """Return the leaves to read: without pickled ones if these are left out."""
        if not self.request.leaves_out:
            return numbers
        picked = saved_tree.pick(saved, numbers)
        pickled = {*saved_tree.numbers_in(x for x in picked if x[1].kind == "pickle")}
        for name, number in named if pickled else ():
            if number in pickled:
                full = saved_tree.full_name(shard, name) if shard else name
                self.notes.left_out[self._full_name(full)] = None
        return numbers - pickled


def _no_class(number: int, node: Node) -> type | None:
    """Find no class, so that containers come as dicts."""
    return None

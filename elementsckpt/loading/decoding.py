"""Entries of a manifest → values: read, decoded, unpickled, in containers again."""

from __future__ import annotations

import collections
import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from typing import Any

from ..format.manifest import Component, Leaves, Node, Tree
from ..kinds import leaves, pickles
from ..kinds.references import Resolver
from ..state import tree, unflattening, view_leaves, walking
from ..storage.reader import Reader
from . import refusals
from .loaded import Notes
from .request import Request

_FindClass = Callable[[int, Node], type | None]


class Decoder:
    """Makes what one component of a save holds.

    Args:
      entry: Its entry in the manifest.
      key: Its key.
      where: Which it is, for errors.
      reader: Reads its blocks.
      resolver: Finds classes and functions.
      request: How to read it.
      notes: Where to note what the report will say.
    """

    def __init__(
        self,
        entry: Component,
        key: str,
        where: str,
        reader: Reader,
        resolver: Resolver,
        request: Request,
        notes: Notes,
    ) -> None:
        self._entry = entry
        self._key = key
        self._where = where
        self._reader = reader
        self._resolver = resolver
        self._request = request
        self._notes = notes
        self._by = request.verb.by("keys", "regex")  # Leaves can be left out with it.

    def whole(self, saved: Tree, shard: str = "") -> Any:
        """Return a state; `LEFT_OUT` if it is a pickled leaf, and these are left out.

        Args:
          saved: What the manifest says of it.
          shard: Its number, if it is one of several.
        """
        if self._request.leaves_out and tree.has_pickles(saved):
            return self._rest(saved, shard)
        values = self._read(saved.leaves, [self._request.plain] * len(saved.leaves))
        numbered = list(tree.numbered(saved))
        view_leaves.restore(numbered, values)
        with self._finding_classes(saved) as find_class:
            made = self._unpickle_all(numbered, values, saved, find_class)
            if self._request.plain:  # But objects get what they had.
                made, find_class = {}, _no_class
            return unflattening.unflatten(
                saved.root, saved.nodes, values, find_class, made
            )

    @contextlib.contextmanager
    def _finding_classes(self, saved: Tree) -> Iterator[_FindClass]:
        """Give what finds the classes of containers, and note which it does not."""
        lost: list[tuple[int, str]] = []
        changed: dict[str, int] = {}  # First container of each class that changed.

        def find_class(number: int, node: Node) -> type | None:
            cls = self._resolver.container(node)
            if cls is None:
                lost.append((~number, node.name))
            elif node.name in self._resolver.changes:
                changed.setdefault(node.name, ~number)
            return cls

        yield find_class
        if lost or changed:
            self._note_classes(saved, lost, changed)

    def _rest(self, saved: Tree, shard: str) -> Any:
        """Return the state without what is pickled."""
        places = {n for node in saved.nodes for n in node.children if n >= 0}
        if saved.root >= 0:
            places.add(saved.root)
        named = walking.all_names(saved, self._notes.allowance)
        picked = self.admitted(tree.pick(saved, places), named, shard)
        values = self.some(saved, tree.numbers_in(picked))
        return unflattening.unflatten_rest(saved.root, saved.nodes, values)

    def _note_classes(
        self, saved: Tree, lost: list[tuple[int, str]], changed: dict[str, int]
    ) -> None:
        names = walking.container_names(saved, self._notes.allowance)
        for number, cls in lost:
            self._notes.plain[self._full_name(names.get(number, ""))] = cls
        self._notes.reasons |= self._resolver.reasons
        for cls, number in changed.items():
            first = self._full_name(names.get(number, ""))
            change = self._resolver.changes[cls]
            self._notes.changes.setdefault(cls, (change, first))

    def some(
        self, saved: Tree, wanted: Iterable[int], as_saved: Set[int] = frozenset()
    ) -> dict[int, Any]:
        """Return leaves and containers by number, read together.

        Args:
          saved: The tree.
          wanted: Their numbers.
          as_saved: Those that are not for looking at, and what they need.
        """
        wanted = list(wanted)
        numbers = [number for number in tree.needed(saved, wanted) if number >= 0]
        picked = tree.pick(saved, as_saved & {*numbers})
        count = len(picked)
        picked += tree.pick(saved, set(numbers) - as_saved)
        is_bare = not any(group.kind == "pickle" for _, group in picked)
        # What is pickled may hold what is in the same memory.
        views = dict(view_leaves.pairs(picked)) if is_bare else {}
        picked = list(view_leaves.with_bases(saved, picked, self._entry.blocks))
        plain = [index >= count for index in range(len(picked))]
        read = self._read([group for _, group in picked], plain)
        values = dict(zip(tree.numbers_in(picked), read, strict=True))
        view_leaves.restore(picked, values)
        with self._finding_classes(saved) as find_class:
            made = self._unpickle_all(picked, values, saved, find_class, as_saved)
        counts = collections.Counter([*numbers, *views.values()])
        for number, base in views.items():
            if counts[base] == 1 and number not in as_saved:  # Nothing else needs it.
                values[number] = values[number].copy("A")
        values |= made
        return {number: values[number] for number in wanted}

    def _read(self, groups: Sequence[Leaves], plain: Sequence[bool]) -> list[Any]:
        """Return the leaves of groups, pickled ones as their payload.

        Args:
          groups: Their entries in the manifest.
          plain: Whether those of each group are for looking at.
        """
        self._refuse_pickles(groups)
        layouts = [leaves.layout_of(group) for group in groups]
        wants = [
            (group.block, group.offset, size * len(group.names))
            for group, (_, _, size) in zip(groups, layouts, strict=True)
        ]
        mapped = self._request.mmap
        with self._notes.phases("read"):
            if mapped:
                mappable = [leaves.named(group).is_array for group in groups]
                verify = self._request.verify
                memories = self._reader.map(wants, mappable, verify=verify)
            else:
                memories = self._reader.read(wants)
        if self._entry.shards is None:  # Theirs were counted when they were verified.
            self._notes.bytes_read += sum(size for _, _, size in wants)
        decoded = [
            leaves.decode(group, layout, memory, offset, plain=is_plain, mapped=mapped)
            for group, layout, (memory, offset), is_plain in zip(
                groups, layouts, memories, plain, strict=True
            )
        ]
        found = zip(groups, decoded, plain, strict=True)
        others = [(group, items) for group, items, is_plain in found if not is_plain]
        leaves.build(others, self._key, self._where)
        for group, items in others:
            if group.kind == "function":
                items[:] = map(self._function, items, group.names)
        return [item for items in decoded for item in items]

    def _unpickle_all(
        self,
        groups: Iterable[tuple[int, Leaves]],
        values: Any,
        saved: Tree,
        find_class: _FindClass,
        wanted: Iterable[int] = (),
    ) -> dict[int, Any]:
        """Replace payloads by what they hold; return the containers made.

        Args:
          groups: The leaves, with the first number of each group.
          values: What is known of them, by number; changed.
          saved: The tree.
          find_class: As for `unflattening.unflatten`.
          wanted: Containers to make beside those that are needed for that.
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
        needed = tree.needed(saved, [*pickled, *(n for n in wanted if n < 0)])
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

    def _refuse_pickles(self, groups: Iterable[Leaves]) -> None:
        names = [name for x in groups if x.kind == "pickle" for name in x.names]
        if names and not self._request.allow_pickle:
            name = min(names, key=len)  # What is only a part of it has a longer one.
            raise refusals.pickled(self._full_name(name), self._by)

    def _function(self, path: str, name: str) -> Any:
        function = self._resolver.function(path)
        if function is None:
            raise refusals.unknown_function(self._full_name(name), self._by, path)
        return function

    def _unpickle(self, payload: Any, parts: list[Any], name: str) -> Any:
        try:
            return pickles.load(memoryview(payload), parts)
        except Exception as error:
            full = self._full_name(name)
            raise refusals.not_unpickled(full, self._by, error) from error

    def _full_name(self, name: str) -> str:
        return tree.full_name(self._key, name)

    def admitted(
        self,
        picked: Sequence[tuple[int, Leaves]],
        named: Iterable[tuple[str, int]],
        shard: str = "",
    ) -> list[tuple[int, Leaves]]:
        """Return leaves without those that are pickled, if these are left out."""
        if not self._request.leaves_out:
            return list(picked)
        pickled = [x for x in picked if x[1].kind == "pickle"]
        numbers = set(tree.numbers_in(pickled))
        for name, number in named if numbers else ():
            if number in numbers:
                full = tree.full_name(shard, name) if shard else name
                self._notes.left_out[self._full_name(full)] = None
        return [x for x in picked if x[1].kind != "pickle"]


def _no_class(number: int, node: Node) -> type | None:
    """Find no class, so that containers come as dicts."""
    return None

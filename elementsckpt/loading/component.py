"""One component of a save → its state, some of its leaves, or its shards.

There are two sources with the same methods: a component that this library wrote, and
one that elements wrote.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Set
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from ..errors import (
    CheckpointError,
    DamagedError,
    MismatchError,
    PickleError,
    ReadError,
    reason,
)
from ..foreign import elements
from ..format import manifest
from ..format.manifest import Component, LeafGroup, Node, Tree
from ..kinds import leaves, pickles
from ..kinds.classes import Change
from ..kinds.kind import Spec
from ..kinds.references import Resolver
from ..state import (
    flattening,
    skeletons,
    tree,
    unflattening,
    view_leaves,
    walking,
    wholes,
)
from ..storage.reader import Reader
from ..user.arguments import flag
from .verbs import Verb

_FindClass = Callable[[int, Node], type | None]


class Options(Struct, frozen=True):
    """How a save is read.

    Attributes:
      allow_pickle: Whether code from the save may run: pickles and imports.
      mapped: Whether arrays are mapped instead of read.
      verify: Whether what is mapped is verified, as all that is read is.
      plain: Whether the state is for looking at: NamedTuples and dataclasses become
        dicts, arrays of JAX and torch NumPy's, functions their import paths.
      verb: What the user called.
    """

    verb: Verb
    allow_pickle: bool
    mapped: bool = False
    verify: bool = True
    plain: bool = False

    @classmethod
    def of(
        cls,
        verb: Verb,
        mmap: Any,
        verify: Any,
        allow_pickle: Any,
        *,
        trusted: bool = False,
        plain: bool = False,
    ) -> Options:
        """Return what arguments of these names say; without, `trusted` decides."""
        return cls(
            verb,
            trusted if allow_pickle is None else flag("allow_pickle", allow_pickle),
            flag("mmap", mmap),
            flag("verify", verify),
            plain,
        )

    def __post_init__(self) -> None:
        if not self.verify and not self.mapped:
            raise ValueError(
                "verify=False is for mmap=True: leave it out, as what is read is "
                "verified on the way."
            )

    @property
    def leaves_out(self) -> bool:
        """Whether pickled leaves are left out, instead of refused."""
        return self.plain and not self.allow_pickle


class Notes(Struct):
    """What the report will say about loading.

    Attributes:
      plain: Container to the class that was not found; names begin with the key.
      left_out: What is left out, as it is pickled.
      reasons: Why classes that were found are not used, by path.
      changes: Classes whose fields have changed, to what changed and in which
        container that was first met.
      bytes_read: Size of the leaves that were read.
      allowance: What the names of places may still cost.
    """

    plain: dict[str, str] = {}
    left_out: dict[str, None] = {}
    reasons: dict[str, str] = {}
    changes: dict[str, tuple[Change, str]] = {}
    bytes_read: int = 0
    allowance: walking.Allowance = field(default_factory=walking.Allowance)


@contextlib.contextmanager
def damage(where: str) -> Iterator[None]:
    """Turn errors from decoding what a file says into a DamagedError."""
    try:
        yield
    except CheckpointError:
        raise
    except ImportError as error:
        raise ReadError(
            f"{where} needs what is not installed here ({reason(error)}). Install it, "
            f"or leave it out with keys= or regex=; of tensors, elementsckpt.read "
            f"gives NumPy arrays."
        ) from error
    except MemoryError as error:
        raise ReadError(
            f"{where} does not fit into memory. Load less of it at a time, or map its "
            f"arrays with mmap=True."
        ) from error
    except Exception as error:  # Whatever NumPy, torch and classes make of nonsense.
        found = f"{type(error).__name__}: {reason(error)}"
        raise DamagedError(f"{where} is not a valid save ({found}).") from error


class SavedComponent:
    """A component that this library wrote."""

    def __init__(
        self,
        path: Path,
        key: str,
        component: Component,
        where: str,
        options: Options,
        resolver: Resolver,
        notes: Notes,
    ) -> None:
        self.key = key
        self.streams = component.shards is not None
        self._where = where
        self._component = component
        self._options = options
        self._resolver = resolver
        self._notes = notes
        self._by = options.verb.by("keys", "regex")  # Leaves can be left out with it.
        names = _name_in_block(component, key)
        self._reader = Reader(path, component, names, self._by)
        self._only: Tree | None = None
        self._names: list[tuple[str, int]] | None = None

    def open(self) -> None:
        """Open the files, so that they can be read when somebody removes them."""
        with damage(self._where):
            self._reader.open()

    def state(self) -> Any:
        """Return the state, read and verified; `LEFT_OUT` if it is a pickled leaf."""
        with damage(self._where):
            return self._state(self._tree())

    def rebuilt(self, state: Any) -> Any:
        """Return the tree of which a value saved the state."""
        skeleton = self._component.skeleton
        if skeleton is None:
            return state
        what = f"{self._where} is a Value's, with classes or static fields"
        remedy = "Give the Value that loads it a template: Value(one_like_the_saved)"
        if not skeleton:
            raise PickleError(f"{what} that could not be pickled. {remedy}.")
        if not self._options.allow_pickle:
            raise PickleError(
                f"{what} that are pickled, and loading them could run any code. "
                f"{remedy}, or pass allow_pickle=True if you trust who wrote the save."
            )
        try:
            return skeletons.load(skeleton, state)
        except Exception as error:
            raise PickleError(
                f"{what} that cannot be unpickled: {reason(error)}. {remedy}."
            ) from error

    def some(self, named: Sequence[tuple[str, int]]) -> Any:
        """Return the state with only some leaves; `LEFT_OUT` if it has none then.

        Args:
          named: Their names, as `names` has them, and their numbers.
        """
        with damage(self._where):
            saved = self._tree()
            picked = self._admitted(tree.pick(saved, (n for _, n in named)), named)
            if not picked:
                return unflattening.LEFT_OUT
            values = self._some(saved, tree.numbers_in(picked))
            return unflattening.unflatten_some(saved.root, saved.nodes, values)

    def _admitted(
        self,
        picked: Sequence[tuple[int, LeafGroup]],
        named: Iterable[tuple[str, int]],
        shard: str = "",
    ) -> list[tuple[int, LeafGroup]]:
        """Return leaves without those that are pickled, if these are left out."""
        if not self._options.leaves_out:
            return list(picked)
        pickled = [x for x in picked if x[1].kind == "pickle"]
        numbers = set(tree.numbers_in(pickled))
        for name, number in named if numbers else ():
            if number in numbers:
                full = tree.full_name(shard, name) if shard else name
                self._notes.left_out[self._full_name(full)] = None
        return [x for x in picked if x[1].kind != "pickle"]

    @property
    def held_bytes(self) -> int:
        """How much memory its state takes; its shards are never there at once."""
        mapped = self._options.mapped
        return 0 if self.streams else self._reader.held_bytes(mapped=mapped)

    def contents(self) -> list[str]:
        """Return the name of each leaf, or of each shard."""
        if self.streams:
            return [str(index) for index in range(self._shard_count)]
        with damage(self._where):
            saved = self._tree()
            names, hidden = tree.leaf_names(saved), tree.hidden(saved)
            return [x for n, x in enumerate(names) if n not in hidden]

    def names(self) -> list[tuple[str, int]]:
        """Return name and number of each leaf, an aliased one for each place."""
        with damage(self._where):
            if self._names is None:
                try:
                    self._names = walking.names(self._tree(), self._notes.allowance)
                except MismatchError as error:
                    raise MismatchError(f"In {self._where} {error}") from error
            return self._names

    def specs(self) -> list[tuple[str, int, Spec]]:
        """Return name, number and spec of each leaf, reading none of their bytes."""
        names = self.names()
        with damage(self._where):
            groups = self._tree().leaves
            specs = [spec for x in groups for spec in leaves.named(x).specs(x)]
            return [(name, number, specs[number]) for name, number in names]

    def values(
        self, numbers: Iterable[int], as_saved: Collection[int] = ()
    ) -> dict[int, Any]:
        """Return leaves and containers by number, read and verified.

        All are read together, so what was one of them is one. What pickles and
        containers hold comes as it was saved, and such containers come, too; other
        arrays come as NumPy arrays, but for tensors whose dtype NumPy lacks without
        ml_dtypes.

        Args:
          numbers: Numbers of leaves.
          as_saved: Numbers of leaves that come as they were saved, and of containers.
        """
        with damage(self._where):
            saved, numbers = self._tree(), {*numbers}
            picked = tree.pick(saved, numbers.difference(as_saved))
            others = [x for x in picked if not leaves.named(x[1]).is_numpy(x[1])]
            whole = tree.needed(saved, [*as_saved, *tree.numbers_in(others)])
            return self._some(saved, [*numbers.difference(whole), *whole], {*whole})

    @property
    def is_plain(self) -> bool:
        """Whether it has neither pickles nor attributes of containers."""
        saved = self._tree()
        return not (any(x.attributes for x in saved.nodes) or tree.has_pickles(saved))

    def structure(self) -> wholes.Saved:
        """Return what its containers hold."""
        with damage(self._where):
            return wholes.describe(self._tree())

    def barred(self, numbers: Iterable[int]) -> dict[int, str]:
        """Return those leaves and containers that need pickle, which is not allowed.

        Returns:
          By number the full name of the leaf that needs it.
        """
        found: dict[int, str] = {}
        with damage(self._where):
            saved = self._tree()
            for number in () if self._options.allow_pickle else numbers:
                below = [x for x in tree.needed(saved, [number]) if x >= 0]
                groups = [group for _, group in tree.pick(saved, below)]
                names = [n for x in groups if leaves.named(x).is_code for n in x.names]
                if names:
                    found[number] = self._full_name(min(names, key=len))
        return found

    def shared(self) -> set[int]:
        """Return the numbers of the leaves that share memory, or are in others."""
        with damage(self._where):
            saved = self._tree()
            pairs = view_leaves.pairs(tree.numbered(saved))
            return {n for pair in pairs for n in pair} | tree.held_elsewhere(saved)

    def places(self) -> list[tuple[str, walking.Place]]:
        """Return name and place of each leaf and each empty container."""
        with damage(self._where):
            return list(walking.places(self._tree(), self._notes.allowance))

    def verify(self) -> None:
        """Read all shards once, so that streaming them later will not fail."""
        self._reader.hold()
        self._notes.bytes_read += self._component.size_bytes
        for index in range(self._shard_count):
            self._shard(index)
            with damage(self._where):
                # What one needs of a block that another has begun is still there.
                if self._reader.is_repeating:
                    raise ValueError("two shards claim the same bytes")

    def shards(self) -> Iterator[Any]:
        """Return a generator of the shards."""
        try:
            for index in range(self._shard_count):
                shard = self._shard(index)
                yield None if shard is unflattening.LEFT_OUT else shard
        finally:
            self._reader.close()

    def _shard(self, index: int) -> Any:
        with damage(self._where):
            return self._state(self._component.tree(index), str(index))

    @property
    def _shard_count(self) -> int:
        return self._component.shards or 0

    def close(self) -> None:
        """Close the files."""
        self._reader.close()

    def _tree(self) -> Tree:
        if self._only is None:
            self._only = self._component.tree()
        return self._only

    def _state(self, saved: Tree, shard: str = "") -> Any:
        if self._options.leaves_out and tree.has_pickles(saved):
            return self._rest(saved, shard)
        values = self._read(saved.leaves, [self._options.plain] * len(saved.leaves))
        numbered = list(tree.numbered(saved))
        view_leaves.restore(numbered, values)
        with self._finding_classes(saved) as find_class:
            made = self._unpickle_all(numbered, values, saved, find_class)
            if self._options.plain:  # But objects get what they had.
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
        picked = self._admitted(tree.pick(saved, places), named, shard)
        values = self._some(saved, tree.numbers_in(picked))
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

    def _some(
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
        picked = list(view_leaves.with_bases(saved, picked, self._component.blocks))
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

    def _read(self, groups: Sequence[LeafGroup], plain: Sequence[bool]) -> list[Any]:
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
        if self._options.mapped:
            mappable = [leaves.named(group).is_array for group in groups]
            verify = self._options.verify
            memories = self._reader.map(wants, mappable, verify=verify)
        else:
            memories = self._reader.read(wants)
        if not self.streams:  # Whose bytes were counted when they were verified.
            self._notes.bytes_read += sum(size for _, _, size in wants)
        mapped = self._options.mapped
        decoded = [
            leaves.decode(group, layout, memory, offset, plain=is_plain, mapped=mapped)
            for group, layout, (memory, offset), is_plain in zip(
                groups, layouts, memories, plain, strict=True
            )
        ]
        found = zip(groups, decoded, plain, strict=True)
        others = [(group, items) for group, items, is_plain in found if not is_plain]
        leaves.build(others, self.key, self._where)
        for group, items in others:
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

    def _refuse_pickles(self, groups: Iterable[LeafGroup]) -> None:
        names = [name for x in groups if x.kind == "pickle" for name in x.names]
        if names and not self._options.allow_pickle:
            name = min(names, key=len)  # What is only a part of it has a longer one.
            raise PickleError(
                f"{self._full_name(name)} was saved with pickle, and loading it "
                f"could run any code, so it needs allow_pickle=True. Pass that if you "
                f"trust who wrote the save, or leave the leaf out{self._by}."
            )

    def _function(self, path: str, name: str) -> Any:
        function = self._resolver.function(path)
        if function is None:
            raise PickleError(
                f"{self._full_name(name)} is the function {path}, which is not in the "
                f"component's current state or was not found. Pass allow_pickle=True "
                f"if you trust who wrote the save, or leave the leaf out{self._by}."
            )
        return function

    def _unpickle(self, payload: Any, parts: list[Any], name: str) -> Any:
        try:
            return pickles.load(memoryview(payload), parts)
        except Exception as error:
            raise PickleError(
                f"{self._full_name(name)} cannot be unpickled: {reason(error)}. Make "
                f"its class importable, or leave it out{self._by}."
            ) from error

    def _full_name(self, name: str) -> str:
        return tree.full_name(self.key, name)


def _no_class(number: int, node: Node) -> type | None:
    """Find no class, so that containers come as dicts."""
    return None


def _name_in_block(component: Component, key: str) -> Callable[[int], str]:
    """Return what names the leaves in a block, for errors."""

    def name(block: int) -> str:
        last, names = -1, [""]  # The leaves that begin in the block, or last before it.
        with contextlib.suppress(Exception):
            for index in range(len(component.trees)):
                prefix = "" if component.shards is None else f"{index}/"
                for group in component.tree(index).leaves:
                    if last < group.block <= block:
                        last, names = group.block, []
                    if group.block == last:
                        names += [prefix + name for name in group.names]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        return tree.full_name(key, names[0]) + more

    return name


class ElementsComponent:
    """A component that elements wrote; its pickles are read whole."""

    def __init__(
        self, key: str, files: list[Path], options: Options, notes: Notes
    ) -> None:
        self.key = key
        self.streams = elements.is_sharded(files)
        self._files = files
        self._options = options
        self._notes = notes
        self._flat: flattening.Flat | None = None

    def open(self) -> None:
        """Nothing is opened before it is read."""

    def state(self) -> Any:
        """Return the state."""
        self._notes.bytes_read += elements.size_bytes(self._files)
        with damage(f"{self.key!r} in {self._files[0]}"):
            (state,) = self._read()
        return state

    def rebuilt(self, state: Any) -> Any:
        """Return the state, as elements saves no more."""
        return state

    def some(self, named: Sequence[tuple[str, int]]) -> Any:
        """Return the state with only some leaves, or None if there are none."""
        flat, values = self._flattened(), self.values(number for _, number in named)
        return unflattening.unflatten_some(flat.root, flat.nodes, values)

    @property
    def held_bytes(self) -> int:
        """How much memory its state takes; its shards are never there at once."""
        return 0 if self.streams else elements.size_bytes(self._files)

    def contents(self) -> list[str]:
        """Return the name of each leaf, or of each shard."""
        if self.streams:
            return [str(index) for index in range(len(self._files))]
        return [name for name, _ in self.names()]

    def names(self) -> list[tuple[str, int]]:
        """Return name and number of each leaf."""
        names = self._flattened().names
        return [(manifest.escape(name), number) for number, name in enumerate(names)]

    def specs(self) -> list[tuple[str, int, Spec]]:
        """Return name, number and spec of each leaf."""
        flat = self._flattened()
        return [(name, number, flat.spec(number)) for name, number in self.names()]

    def values(
        self, numbers: Iterable[int], as_saved: Collection[int] = ()
    ) -> dict[int, Any]:
        """Return leaves by number."""
        return {number: self._flattened().values[number] for number in numbers}

    is_plain = True

    def structure(self) -> wholes.Saved:
        """Return no containers, as nothing is known of their attributes."""
        return wholes.Saved(0, [], [])

    def barred(self, numbers: Iterable[int]) -> dict[int, str]:
        """Return no leaves, as all have been read."""
        return {}

    def shared(self) -> set[int]:
        """Return the numbers of the leaves that share memory: none does."""
        return set()

    def verify(self) -> None:
        """Read all shards once, so that streaming them later will not fail."""
        self._notes.bytes_read += elements.size_bytes(self._files)
        with damage(f"{self.key!r} in {self._files[0]}"):
            for _ in self._read():
                pass

    def shards(self) -> Iterator[Any]:
        """Return a generator of the shards."""
        yield from self._read()

    def close(self) -> None:
        """Nothing is open."""

    def _read(self) -> Iterator[Any]:
        allow = self._options.allow_pickle
        return elements.shards(self._files, self.key, allow_pickle=allow)

    def _flattened(self) -> flattening.Flat:
        if self._flat is None:
            self._flat = flattening.flatten(self.state(), self.key, by_name=True)
        return self._flat


Selectable = SavedComponent | ElementsComponent

"""The schema of `manifest.json`: the specification in code.

`codec` reads and writes the file.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from ..user.times import datetime

FORMAT: Literal["elementsckpt"] = "elementsckpt"
VERSION = 2  # docs/format.md says what each version added; all of them load.
MAX_BLOCK_BYTES = 16 << 20
MAX_SEQUENCE = 1 << 52  # A larger one is forged.

# Kinds whose leaves have a value each, so that `value` of a group is a list.
OWN_VALUE = frozenset({"python", "function", "pickle", "view"})

_INDEX = Annotated[int, Meta(ge=0, lt=1 << 62)]
_MAX_AXES = 64  # As in NumPy; with more, counting the elements takes long.
_SHAPE = Annotated[tuple[_INDEX, ...], Meta(max_length=_MAX_AXES)]
_DIGEST = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
_PID = Annotated[int, Meta(gt=0, lt=1 << 31)]


class LeafGroup(
    Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False
):
    """Consecutive leaves that differ only in name and content.

    Attributes:
      kind: Name of their kind; `kinds.leaves` has the list.
      dtype: Element type, as `format.dtypes` encodes it.
      shape: Sizes of the axes of each leaf.
      order: "F" if the bytes of each leaf are the transposed array in C order.
      block: First block with their bytes, or -1 if they have none. A single leaf that
        does not fit into the rest of that block continues in the following ones.
      offset: Offset of the first leaf in that block, in bytes.
      value: What else the kind needs; a list with one item for each leaf if the kind
        is in `OWN_VALUE`.
      ring: Of a ring buffer, how many rows had been written to it, and the axis along
        which they lie; None of others. Such a leaf is a group of its own.
      names: Leaf names: the paths inside the component, joined by "/". They are for
        people: a leaf is identified by its position.
    """

    kind: str
    dtype: Any = None
    shape: _SHAPE = ()
    order: Literal["C", "F"] = "C"
    block: Annotated[int, Meta(ge=-1)] = -1
    offset: _INDEX = 0
    value: Any = None
    ring: tuple[Annotated[int, Meta(ge=0)], _INDEX] | None = None
    names: list[str]


class Node(Struct, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """One container: its kind and what it holds.

    Attributes:
      kind: "dict", "list", ...; `state.containers` has the list.
      children: A number n >= 0 is leaf n of the tree. A number n < 0 is node -n - 1,
        which comes earlier in the list. Equal numbers are the same object.
      keys: The keys or field names of the children, as scalars.
      name: Class of a NamedTuple or dataclass as "module:qualname".
      value: What else the kind needs.
      attributes: Names of other attributes, as scalars. Their values are the last
        children.
    """

    kind: str
    children: list[int] = []
    keys: list[Any] = []
    name: str = ""
    value: Any = None
    attributes: list[Any] = []


class Tree(Struct, forbid_unknown_fields=True):
    """The state of a component, or of one shard: containers ending in leaves."""

    root: int
    nodes: list[Node]
    leaves: list[LeafGroup]


class Segment(Struct, array_like=True, forbid_unknown_fields=True):
    """One file of array bytes in the save folder.

    Attributes:
      file: Its name.
      size: Its size in bytes.
      start: Where its data begins, after the header.
      digest: xxh3-128 of the header.
    """

    file: str
    size: _INDEX
    start: _INDEX
    digest: _DIGEST


class Block(Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """A byte range of a segment.

    Attributes:
      segment: Position of the segment in its list.
      offset: Where in the file the range begins.
      size: Bytes in the file.
      digest: xxh3-128 of the content.
      unpacked: Size of the content if the range is a zstd frame, or 0 if the range is
        the content itself.
    """

    segment: _INDEX
    offset: _INDEX
    size: Annotated[int, Meta(gt=0, le=2 * MAX_BLOCK_BYTES)]
    digest: _DIGEST
    unpacked: Annotated[int, Meta(ge=0, le=MAX_BLOCK_BYTES)] = 0

    @property
    def content_size(self) -> int:
        """Size of the content in bytes."""
        return self.unpacked or self.size


class File(Struct, array_like=True, forbid_unknown_fields=True):
    """A file that a component wrote itself, in the component's folder in the save.

    Attributes:
      path: Path in that folder, its parts joined by "/".
      size: Its size in bytes.
      digest: xxh3-128 of its content.
    """

    path: str
    size: _INDEX
    digest: _DIGEST


class Files(Struct, forbid_unknown_fields=True):
    """The folder that a component wrote itself.

    Attributes:
      folder: Its name in the save folder.
      files: The files in it and in the folders below it.
    """

    folder: str
    files: list[File]


class Component(Struct, forbid_unknown_fields=True):
    """What one component saved.

    Attributes:
      key: Its key, as a scalar.
      shards: Number of shards if its `save()` returned a generator, else None.
      leaf_count: Leaves in all trees, or files.
      size_bytes: Size of the leaves that are stored in blocks, or of the files.
      segments: Files that hold its blocks.
      blocks: Its blocks, in the order in which leaves refer to them.
      trees: Its state, or the state of each shard. `saved_tree` decodes them one by
        one, because there may be very many.
      files: The folder that it wrote itself, or None if it has a state. With a folder,
        the lists above are empty.
      skeleton: Pickled classes, static fields and functions of a pytree whose leaves
        the state holds, in base64; "" if they could not be pickled; None if there are
        none. Persistent ids in the pickle number the leaves in the order of the state.
    """

    key: Any
    shards: _INDEX | None
    leaf_count: _INDEX
    size_bytes: _INDEX
    segments: list[Segment]
    blocks: list[Block]
    trees: list[Raw]
    files: Files | None = None
    skeleton: str | None = None

    def tree(self, index: int = 0) -> Tree:
        """Decode one tree.

        Raises:
          msgspec.ValidationError: it does not follow the schema.
        """
        return msgspec.json.decode(self.trees[index], type=Tree)


class Lineage(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a save comes from; lone surrogates in it are escaped.

    Attributes:
      loaded_from: Path of the save that the writing object last loaded, or None.
      parent: Path of the save that the object last loaded or wrote, or None.
      run: Identifies the run. A process that resumes the run keeps it.
      host: Name of the machine.
      pid: Number of the process.
      commit: Git commit of the program, or None.
    """

    loaded_from: str | None = None
    parent: str | None = None
    run: str | None = None
    host: str | None = None
    pid: _PID | None = None
    commit: str | None = None


class Summary(Struct, kw_only=True, omit_defaults=True):
    """The part of a component that is in the head, too."""

    key: Any
    shards: _INDEX | None = None
    leaf_count: _INDEX
    size_bytes: _INDEX


class Head(Struct, kw_only=True):
    """The part of a manifest that lists and ranks saves, with a digest of its own.

    Attributes:
      format: Always "elementsckpt".
      version: Of the format; readers refuse a higher one.
      name: Name of the save folder when it was written, lone surrogates escaped.
      explicit: Whether the caller gave the path: such a save is never pruned.
      sequence: Number of the save, which orders the saves of a directory.
      step: Step of the run, or None.
      time: When it was written, in UTC.
      durable: Whether its files were synced.
      metrics: Numbers by which saves are ranked.
      metadata: The caller's metadata, as `metadata.encode` encodes it.
      lineage: Where the save comes from.
      libraries: Versions of elementsckpt, Python and the array libraries.
      pin: Name under which the save is kept for ever, or None.
      ranking: Metric by which the run ranks its saves, and "max" or "min", or None.
      schedule: State of the schedule that decides when to save, or None.
      keys: Keys of all components of the run, as scalars; the save may have fewer.
      bytes_written: Size of the segments and files that the save did not take from an
        earlier one, or None if that is unknown.
      summaries: What the components are, without their contents.
    """

    format: Literal["elementsckpt"] = FORMAT
    version: Annotated[int, Meta(gt=0)] = VERSION
    name: str
    explicit: bool
    sequence: Annotated[int, Meta(ge=0, lt=MAX_SEQUENCE)]
    step: int | None
    time: Annotated[datetime, Meta(tz=True)]
    durable: bool
    metrics: dict[str, Any]
    metadata: Any
    lineage: Lineage
    libraries: dict[str, str]
    pin: str | None = None
    ranking: tuple[str, Literal["max", "min"]] | None = None
    schedule: Any = None
    keys: list[Any] = []
    bytes_written: _INDEX | None = None
    summaries: list[Summary] = []

    def marks(self) -> set[str]:
        """Return the `key_id` of each of its components."""
        return {key_id(item.key) for item in self.summaries}


class Manifest(Head, kw_only=True, forbid_unknown_fields=True):
    """A whole manifest.

    Attributes:
      rest_bytes: Size of what follows the head in the file; 0 if it has no head.
      head_digest: Digest of the head; "" if it has no head.
      components: What is saved.
      digest: Digest of the manifest.
    """

    rest_bytes: _INDEX = 0
    head_digest: str = ""
    components: list[Component]
    digest: _DIGEST = "0" * 32

    def head(self) -> Head:
        """Return the part that `codec.decode_head` would return."""
        head = msgspec.convert(self, Head, from_attributes=True)
        head.summaries = msgspec.convert(
            self.components, list[Summary], from_attributes=True
        )
        return head


def encode_tree(tree: Tree) -> Raw:
    """Return the tree as JSON, as a manifest holds it."""
    return Raw(msgspec.json.encode(tree))


def part_of(group: LeafGroup, start: int, stop: int) -> LeafGroup:
    """Return some leaves of a group as a group; its block and offset stay the same."""
    own = group.value[start:stop] if group.kind in OWN_VALUE else group.value
    return msgspec.structs.replace(group, value=own, names=group.names[start:stop])


def key_id(key: Any) -> str:
    """Return a hashable text that identifies a key, which `scalars` has encoded."""
    return repr(key)  # A key that is not valid UTF-8 is encoded as a dict.


def escape(text: str) -> str:
    """Return the text with lone surrogates escaped, so that it is valid UTF-8."""
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode()

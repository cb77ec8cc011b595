"""The header of a segment: what other tools call its tensors, and where they are.

A segment that a save has written is linked into later ones, in which its leaves may
have other values. So its names are dated, which stays true: `weight@17` is the leaf
`weight` of save 17, `weight[0:131]@17` are some of its rows. Under its own name a leaf
is where no other save can have the file, or only while all of its names are true.

Source: the layout is safetensors' (github.com/huggingface/safetensors).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import islice, repeat
from typing import Any

from msgspec import Struct, json

ALIGN = 64  # Of leaves: a cache line, and what XLA wants to share memory.
_PADDING = "__padding_%d__"
_ENTRY_BYTES = 256  # More than an entry takes, with its padding and without its name.
_ABOUT = {"elementsckpt": "x@n is x of save n; manifest.json says what is in this one"}
_DATED = b'{"__metadata__":'  # Only headers with dated names begin like this,
_DATED_AT = 8  # after their length.


class Tensors(Struct, gc=False):
    """Tensors of one form that follow each other, in the header of a segment.

    Attributes:
      dtype: Element type in safetensors' terms.
      shape: Sizes of the axes of each.
      begin: Where in the block, or run of blocks, the first begins.
      size: Bytes of each.
      count: How many there are.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    size: int
    count: int


class Naming(Struct, frozen=True):
    """What the tensors in a segment are called.

    Attributes:
      sequence: Number of the save that writes the segment.
      is_plain: Whether leaves have their own names, where these are unique and cannot
        be taken for dated ones.
      repeated: Names that several leaves of the component have.
    """

    sequence: int
    is_plain: bool
    repeated: Collection[str] = ()

    def of_leaves(self, names: Sequence[str]) -> Sequence[str]:
        """Return what to call whole leaves that are stored as they are."""
        if not self.is_plain:
            return self.of_others(names)
        text = "\n".join(names)
        if not self.repeated and "@" not in text and "__" not in text:
            return names
        return [name if self._is_fit(name) else self._dated(name) for name in names]

    def of_others(self, names: Sequence[str]) -> list[str]:
        """Return what to call parts of leaves, and frames."""
        date = self._dated("")
        return [name + date for name in names]

    def _is_fit(self, name: str) -> bool:
        is_reserved = "@" in name or name.startswith("__")
        return not is_reserved and name not in self.repeated

    def _dated(self, name: str) -> str:
        return f"{name}@{self.sequence}"


def is_dated(read: Callable[[bytearray, int], None]) -> bool:
    """Tell whether all names in a segment are dated.

    Args:
      read: Fills memory with what is in the file from a place on.
    """
    begin = bytearray(len(_DATED))
    read(begin, _DATED_AT)
    return begin == _DATED


class _Entry(Struct, gc=False):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class Header:
    """The header of a segment that is being laid out.

    Args:
      is_dated: Whether all names will be dated.

    Attributes:
      end: Where the data ends so far.
    """

    def __init__(self, *, is_dated: bool) -> None:
        self.end = 0
        self._entries: dict[str, Any] = {}
        if is_dated:
            self._entries["__metadata__"] = _ABOUT

    def add(self, names: Sequence[str], runs: Sequence[Tensors], block: int) -> None:
        """Add the tensors of a block that begins there; gaps become padding."""
        free = iter(self._free(names))
        for tensors in runs:
            begin, size = block + tensors.begin, tensors.size
            if begin > self.end:
                padding = _Entry("U8", (begin - self.end,), (self.end, begin))
                self._entries[_PADDING % len(self._entries)] = padding
            self.end = begin + size * tensors.count
            begins = range(begin, self.end, size)
            ends = range(begin + size, self.end + size, size)
            places = zip(begins, ends, strict=True)
            made = map(_Entry, repeat(tensors.dtype), repeat(tensors.shape), places)
            self._entries.update(zip(islice(free, tensors.count), made, strict=True))

    def _free(self, names: Sequence[str]) -> Sequence[str]:
        """Return the names, those changed that are taken."""
        taken = self._entries
        if len(set(names)) == len(names) and taken.keys().isdisjoint(names):
            return names
        free: dict[str, None] = {}
        for name in names:
            if name in taken or name in free:
                number = len(taken) + len(free)
                while f"{name}~{number}" in taken or f"{name}~{number}" in free:
                    number += 1
                name = f"{name}~{number}"
            free[name] = None
        return list(free)

    def encode(self, size: int = 0) -> bytes:
        """Return the bytes before the data, padded to `size` or what aligns it."""
        text = json.encode(self._entries)
        size = max(size, round_up(8 + len(text), ALIGN))
        return (size - 8).to_bytes(8, "little") + text.ljust(size - 8)


def room_for(names: Sequence[str]) -> int:
    """Return a size that the header of tensors with these names does not exceed."""
    text = len(json.encode([*names, _ABOUT]))
    return round_up(8 + text + _ENTRY_BYTES * (1 + len(names)), ALIGN)


def round_up(size: int, multiple: int) -> int:
    """Return the next multiple that is not below the size."""
    return -(-size // multiple) * multiple

"""The header of a segment: names and positions of its tensors, for other tools.

Later saves link a segment that an earlier one wrote, and their leaves of the same names
may have other values. So names are dated, and stay true: `weight@17` is the leaf
`weight` of save 17, and `weight[0:131]@17` are some of its rows. A leaf has its plain
name where no other save links the file, or only while all names in it are true.

Source: the layout is safetensors' (github.com/huggingface/safetensors).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import islice, repeat
from typing import Any

from msgspec import Struct, json

ALIGN = 64  # Of leaves: a cache line; XLA shares memory that is aligned like this.
_PADDING = "__padding_%d__"
_ENTRY_BYTES = 256  # More than an entry and its padding take, without the name.
_ABOUT = {"elementsckpt": "x@n is x of save n; manifest.json says what is in this one"}
_DATED = b'{"__metadata__":'  # Only headers with dated names begin like this.
_DATED_AT = 8  # Position of that: after the length of the header.


class Tensors(Struct, gc=False):
    """Consecutive tensors of one form in the header of a segment.

    Attributes:
      dtype: Element type in safetensors' terms.
      shape: Sizes of the axes of each tensor.
      begin: Where in the block, or run of blocks, the first tensor begins.
      size: Bytes of each tensor.
      count: Number of tensors.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    size: int
    count: int


class Naming(Struct, frozen=True):
    """How the tensors in a segment are named.

    Attributes:
      sequence: Number of the save that writes the segment.
      is_plain: Whether leaves have their plain names, if these are unique and do not
        look like dated ones.
      repeated: Names that several leaves of the component have.
      prefix: Start of dated names, in a segment of several components.
    """

    sequence: int
    is_plain: bool
    repeated: Collection[str] = ()
    prefix: str = ""

    def of_leaves(self, names: Sequence[str]) -> Sequence[str]:
        """Return the names in the header of whole leaves that are not compressed."""
        if not self.is_plain:
            return self.of_others(names)
        text = "\n".join(names)
        if not self.repeated and "@" not in text and "__" not in text:
            return names
        return [name if self._is_fit(name) else self._dated(name) for name in names]

    def of_others(self, names: Sequence[str]) -> list[str]:
        """Return the names in the header of parts of leaves, and of frames."""
        date, prefix = f"@{self.sequence}", self.prefix
        return [prefix + name + date for name in names]

    def _is_fit(self, name: str) -> bool:
        is_reserved = "@" in name or name.startswith("__")
        return not is_reserved and name not in self.repeated

    def _dated(self, name: str) -> str:
        return f"{self.prefix}{name}@{self.sequence}"


def is_dated(read: Callable[[bytearray, int], None]) -> bool:
    """Return whether all names in a segment are dated.

    Args:
      read: Fills memory with the bytes of the file from a position on.
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
        """Add the tensors of the block that begins at `block`; gaps become padding."""
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
        """Return the names, and new ones in place of those that are taken."""
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
        """Return the bytes before the data, padded to `size` or until it is aligned."""
        text = json.encode(self._entries)
        size = max(size, round_up(8 + len(text), ALIGN))
        return (size - 8).to_bytes(8, "little") + text.ljust(size - 8)


def room_for(names: Sequence[str]) -> int:
    """Return an upper bound on the header's size for tensors of these names."""
    text = len(json.encode([*names, _ABOUT]))
    return round_up(8 + text + _ENTRY_BYTES * (1 + len(names)), ALIGN)


def round_up(size: int, multiple: int) -> int:
    """Return the smallest multiple that is at least the size."""
    return -(-size // multiple) * multiple

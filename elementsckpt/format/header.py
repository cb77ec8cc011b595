"""The header of a segment: names and positions of its tensors, for other tools.

Later saves link a segment that an earlier one wrote, and their leaves of the same names
may have other values. So names are dated, and stay true: `weight@17` is the leaf
`weight` of save 17, and `weight[0:131]@17` are some of its rows. A leaf has its plain
name where no other save links the file, or only while all names in it are true.

Source: the layout is safetensors' (github.com/huggingface/safetensors).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import islice

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

    @property
    def date(self) -> str:
        """What follows all names in the header; "" if not all are dated alike."""
        return "" if self.is_plain else f"@{self.sequence}"

    def of_leaves(self, names: Sequence[str]) -> Sequence[str]:
        """Return the names of whole leaves that are not compressed, without `date`."""
        if not self.is_plain:
            return self._prefixed(names)
        text = "\n".join(names)
        if not self.repeated and "@" not in text and "__" not in text:
            return names
        return [name if self._is_fit(name) else self._dated(name) for name in names]

    def of_others(self, names: Sequence[str]) -> Sequence[str]:
        """Return the names of parts of leaves, and of frames, without `date`."""
        if self.is_plain:
            return [self._dated(name) for name in names]
        return self._prefixed(names)

    def _prefixed(self, names: Sequence[str]) -> Sequence[str]:
        return [self.prefix + name for name in names] if self.prefix else names

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


class Header:
    """The header of a segment that is being laid out.

    Args:
      date: What follows all names; "" if they are as they are to be.

    Attributes:
      end: Where the data ends so far.
    """

    def __init__(self, date: str) -> None:
        self.end = 0
        self._date = date
        self._taken: set[str] = set()  # Without the date.
        self._others: set[str] = set()  # Full names in place of those.
        self._count = 0
        self._entries: list[bytes] = []
        if date:
            self._count = 1
            self._entries.append(b'"__metadata__":' + json.encode(_ABOUT))

    def add(self, names: Sequence[str], runs: Sequence[Tensors], block: int) -> None:
        """Add the tensors of the block that begins at `block`; gaps become padding."""
        new, date = set(names), self._date
        is_free = new.isdisjoint(self._taken) and new.isdisjoint(self._others)
        if len(new) < len(names) or not is_free:
            names, date = self._free(names), ""
        self._taken = self._taken | new if self._taken else new
        free = iter(names)
        for tensors in runs:
            gap = block + tensors.begin - self.end
            if gap > 0:
                padding = Tensors("U8", (gap,), 0, gap, 1)
                self._add([_PADDING % self._count], padding, "")
            self._add(list(islice(free, tensors.count)), tensors, date)

    def _add(self, names: Sequence[str], tensors: Tensors, date: str) -> None:
        """Add tensors that follow each other, in loops of C."""
        begin, size = self.end, tensors.size
        self.end += size * tensors.count
        self._count += tensors.count
        places = json.encode([*range(begin, self.end + size, size)])[1:-1].split(b",")
        form = date.encode(), json.encode(tensors.dtype), json.encode(tensors.shape)
        middle = b'%s":{"dtype":%s,"shape":%s,"data_offsets":[' % form
        parts = [b"", middle, b"", b",", b"", b']},"'] * tensors.count
        # The bytes between two texts of JSON are in none of them.
        parts[0::6] = json.encode(names)[2:-2].split(b'","')
        parts[2::6], parts[4::6] = places[:-1], places[1:]
        self._entries.append(b'"' + b"".join(parts)[:-2])

    def _free(self, names: Sequence[str]) -> list[str]:
        """Return full names, with new ones in place of those that are taken."""
        free: list[str] = []
        taken = set(self._taken)
        for plain in names:
            name = plain + self._date
            if plain in taken or name in self._others:
                number = self._count + len(free)
                while (other := f"{name}~{number}") in self._others or other in taken:
                    number += 1
                name = other
                self._others.add(name)
            taken.add(plain)
            free.append(name)
        return free

    def encode(self, size: int = 0) -> bytes:
        """Return the bytes before the data, padded to `size` or until it is aligned."""
        text = b"{%s}" % b",".join(self._entries)
        size = max(size, round_up(8 + len(text), ALIGN))
        return (size - 8).to_bytes(8, "little") + text.ljust(size - 8)


def room_for(names: Sequence[str]) -> int:
    """Return an upper bound on the header's size for tensors of these names."""
    text = len(json.encode([*names, _ABOUT]))
    return round_up(8 + text + _ENTRY_BYTES * (1 + len(names)), ALIGN)


def round_up(size: int, multiple: int) -> int:
    """Return the smallest multiple that is at least the size."""
    return -(-size // multiple) * multiple

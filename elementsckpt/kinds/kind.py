"""The protocol of a kind of leaf: recognise, describe, fetch, build, compare.

What is above this package asks a leaf's kind, and never which library a leaf is of.
Kinds of a library are one module, which `leaves` registers with one line each.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from msgspec import Struct

from ..format import dtypes
from ..format.manifest import Leaves


class Form(Struct, frozen=True, gc=False):
    """What leaves that are stored together have in common, as in `manifest.Leaves`."""

    kind: str
    dtype: Any = None
    shape: tuple[int, ...] = ()
    order: Literal["C", "F"] = "C"
    value: Any = None


# Form and storage of a leaf, and the value that is its own. The storage is an array
# whose elements in C order are the leaf's bytes, or None.
Encoded = tuple[Form, np.ndarray | None, Any]
# Element type and shape in which a leaf is stored, and how many bytes that is.
Layout = tuple[np.dtype[Any], tuple[int, ...], int]
_NO_BYTES: Layout = (np.dtype(np.uint8), (0,), 0)
MAX_AXES = 32  # Of NumPy before version 2.


class Stored(NamedTuple):
    """The bytes of a group of leaves.

    Attributes:
      layout: How each leaf is stored.
      memory: uint8[n], which the leaves may keep.
      offset: Where in `memory` the first starts.
      is_plain: Whether they are for looking at, as NumPy arrays: `build` is not called.
      is_mapped: Whether arrays stay in `memory` wherever they begin.
    """

    layout: Layout
    memory: np.ndarray
    offset: int
    is_plain: bool = False
    is_mapped: bool = False

    def elements(
        self, group: Leaves, strides: tuple[int, ...] | None = None
    ) -> list[np.ndarray]:
        """Return the elements of each leaf, sharing the memory."""
        dtype, shape, size = self.layout
        count, offset = len(group.names), self.offset
        is_c = group.order == "C" and strides is None
        if count > 1 and is_c and len(shape) < MAX_AXES:
            # Rows of one array: several times faster than to make each.
            rows = np.ndarray((count, *shape), dtype, self.memory, offset)
            return list(rows) if shape else [rows[i, ...] for i in range(count)]
        starts = range(offset, offset + count * size, size) if size else [0] * count
        return [
            np.ndarray(shape, dtype, self.memory, start, strides, group.order)
            for start in starts
        ]


class UnstorableError(TypeError):
    """No kind but pickle can hold the value."""


class Spec(NamedTuple):
    """What two leaves must have in common for one to replace the other.

    Attributes:
      kind: "array", "key", or the Python type of anything else.
      dtype: Element type of an array, generator of a key.
      shape: Sizes of the axes.
      weak: Whether it is a number, or an array of them, that takes the type of what it
        is combined with, as JAX has it; None if its library has no such types. They
        need not have this in common.
      maker: The kind that makes such arrays, if it may make them narrower. They need
        not have this in common, either.
    """

    kind: str
    dtype: Any = None
    shape: tuple[int, ...] = ()
    weak: bool | None = None
    maker: Kind | None = None

    def is_like(self, other: Spec) -> bool:
        """Return whether leaves of one can take the place of those of the other."""
        return self[:3] == other[:3]

    def __str__(self) -> str:
        if self.kind not in ("array", "key"):
            return self.kind
        name = str(self.dtype) if self.kind == "array" else f"key<{self.dtype}>"
        return f"{name}[{','.join(map(str, self.shape))}]"


class Kind:
    """A kind of leaf; what it does not override suits what only pickle holds.

    A new kind must have a `name`, `recognise` its leaves, `encode` and `decode` them.
    Arrays of a library derive from `ArrayKind`, which needs less. Everything here is
    asked of leaves that the kind has recognised, or of saved ones of its name.

    No method may import the library of its leaves, but for `build`: a library that is
    not in `sys.modules` has no leaves. `fetch`, `encode` and `build` take most of the
    time of 10,000 small leaves; the first and the last get all of them at once.

    Attributes:
      name: What the manifest calls it. Kinds of one name are decoded by the one that is
        registered first.
      types: Types whose leaves are of this kind, whatever their value.
      is_of_type: Whether `recognise` need not see a second leaf of a type.
      is_array: Whether leaves have elements, a dtype and a shape.
      is_abstract: Whether leaves have a shape and no elements, to load into.
      is_foreign: Whether these are not in NumPy's memory.
      is_value: Whether equal leaves are as good as one, so that it does not matter
        whether they are the same object.
      is_opaque: Whether only pickle holds them.
      is_code: Whether only a trusted save may hold them.
      is_frozen: Whether nothing can write to their storage.
      is_immutable: Whether nothing should, as it is frozen or shared with a library.
      is_known_by_identity: Whether an object has the same elements at each save.
      fetch: Returns several leaves as NumPy arrays, which `encode` gets. Kinds that
        have the same function get theirs together. None if `encode` needs no help.
      build: Turns what `decode` returned for several groups into leaves, in place. It
        gets the groups, their leaves and the component's key, and kinds that have the
        same function get theirs together. None if `decode` was enough.
      maker: Whose fault it is if `build` fails, for people; "" if it is the save's.
      refusals: What `encode` raises for leaves that cannot be saved.
      traits: Returns of arrays, at least cost, what makes two of one `spec` and place.
    """

    name = "pickle"
    types: tuple[type, ...] = ()
    is_of_type = False
    is_array = False
    is_abstract = False
    is_foreign = False
    is_value = False
    is_opaque = False
    is_code = False
    is_frozen = False
    is_immutable = False
    is_known_by_identity = False
    fetch: Callable[[Sequence[Any]], Sequence[np.ndarray]] | None = None
    build: Callable[[Sequence[Leaves], Sequence[list[Any]], str], None] | None = None
    maker = ""
    refusals: tuple[type[Exception], ...] = ()
    traits: Callable[[Any], Any] | None = None

    # Saving

    def recognise(self, value: Any) -> Kind | None:
        """Return the kind of a value if it is this one, or one of the same library."""
        return None

    def problem(self, value: Any) -> str | None:
        """Say why a leaf cannot be saved, not even by pickle, or return None."""
        return None

    def encode(self, value: Any, fetched: np.ndarray | None) -> Encoded:
        """Describe a leaf and give its storage, without copying arrays.

        Raises:
          UnstorableError, UnknownDtypeError, NotScalarError, KeyError: only pickle
            holds it.
        """
        raise UnstorableError(value)

    # Loading

    def layout(self, group: Leaves) -> Layout:
        """Return how the elements of each leaf of a group are stored.

        Raises:
          ValueError, TypeError, KeyError: the manifest describes no such leaves.
        """
        if group.dtype is None:
            return _NO_BYTES
        dtype, shape = self.storage(group)
        return dtype, shape, dtype.itemsize * math.prod(shape)

    def storage(self, group: Leaves) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """Return element type and shape in which leaves that have bytes are stored."""
        dtype = dtypes.decode(group.dtype)
        if dtype.hasobject:
            raise ValueError(f"a {self.name} of {dtype}")
        return dtype, group.shape

    def decode(self, group: Leaves, stored: Stored) -> list[Any]:
        """Return the leaves of a group, sharing memory where they can.

        Raises:
          ValueError, TypeError, KeyError: the manifest describes no such leaves.
        """
        return stored.elements(group)

    def is_numpy(self, group: Leaves) -> bool:
        """Return whether saved leaves can come as NumPy arrays here."""
        return self.is_array

    # Comparing, and in the place of another

    def spec(self, value: Any) -> Spec:
        """Return what a current leaf, or what stands for it, must have in common."""
        return Spec(self.name)

    def specs(self, group: Leaves) -> list[Spec]:
        """Return the spec of each leaf of a saved group.

        Raises:
          ValueError, TypeError, KeyError: the manifest describes no such leaves.
        """
        return [Spec(self.name)] * len(group.names)

    def narrowing(self, dtype: np.dtype[Any]) -> str | None:
        """Say that the library would make such elements narrower, or return None."""
        return None

    def is_vacant(self, value: Any) -> bool:
        """Return whether a leaf says that nothing is there yet."""
        return False

    def unwrapped(self, current: Any) -> tuple[Any, Kind]:
        """Return what a leaf is that stands for something else, and its kind."""
        return current, self

    def misplaced(self, current: Any) -> str | None:
        """Return where a current leaf should be, if nothing of its shape can be."""
        return None

    def where(self, current: Any) -> str | None:
        """Say where a leaf is; None if it is where everything is."""
        return None

    def device_key(self, current: Any) -> Any:
        """Return where and what a leaf is besides its elements, to compare it.

        None for leaves that are always replaced, though they be the same.
        """
        return None

    def numbers(self, value: Any) -> np.ndarray:
        """Return elements as a NumPy array; those that it may lack as wider ones."""
        return np.asarray(value)

    def comparable(self, value: Any) -> Any:
        """Return a leaf whose bytes, once encoded, are those of all equal ones."""
        return value

    def fit(self, current: Any, value: Any, kind: Kind, taken: Spec | None) -> Any:
        """Return a saved leaf as what the current one is.

        Args:
          current: The current leaf.
          value: The saved leaf.
          kind: The kind of this.
          taken: Its spec, if the current one takes its type.
        """
        return value


class ArrayKind(Kind):
    """Arrays of a library: says how they become NumPy arrays, and the reverse.

    A new one must have a `name`, `recognise` its arrays, return their elements in
    `numbers`, and make some in `make`.
    """

    is_array = True
    is_foreign = True
    traits: Callable[[Any], Any] | None = operator.attrgetter("dtype", "shape")

    def make(self, array: np.ndarray, current: Any = None) -> Any:
        """Return the elements as an array of the library.

        Args:
          array: The elements, which may be in memory of others.
          current: An array, where the new one is to be; by default where new ones are.
        """
        raise NotImplementedError

    def build(
        self, groups: Sequence[Leaves], decoded: Sequence[list[Any]], key: str
    ) -> None:
        for arrays in decoded:
            arrays[:] = map(self.make, arrays)

    def encode(self, value: Any, fetched: np.ndarray | None) -> Encoded:
        array = np.asarray(self.numbers(value), order="C")
        return Form(self.name, dtypes.encode(array.dtype), array.shape), array, None

    def spec(self, value: Any) -> Spec:
        return Spec("array", value.dtype, tuple(value.shape))

    def specs(self, group: Leaves) -> list[Spec]:
        return [Spec("array", dtype_of(group.dtype), group.shape)] * len(group.names)

    def fit(self, current: Any, value: Any, kind: Kind, taken: Spec | None) -> Any:
        return self.make(cast(kind.numbers(value), current.dtype), current)


def dtype_of(code: Any) -> Any:
    """Return the dtype, or its name where a library has it and NumPy has not."""
    try:
        return dtypes.decode(code)
    except ImportError:
        return code


def cast(array: np.ndarray, dtype: Any) -> np.ndarray:
    """Return the elements in another type, as NumPy casts them."""
    with np.errstate(all="ignore"):  # What the caller finds by it is not here.
        return array.astype(dtype, order="K", copy=False)

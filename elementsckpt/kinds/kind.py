"""The protocol of a kind of leaf: recognise, describe, fetch, build, compare.

Packages above ask a leaf's kind, and never which library the leaf is from. The kinds of
a library are one module, and `leaves` registers them with one line.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from msgspec import Struct

from ..format import dtypes
from ..format.manifest import LeafGroup
from .remote import Remote, Storage


class Form(Struct, frozen=True, gc=False):
    """The properties that leaves stored together share, as in `manifest.LeafGroup`."""

    kind: str
    dtype: Any = None
    shape: tuple[int, ...] = ()
    order: Literal["C", "F"] = "C"
    value: Any = None


# Form and storage of a leaf, and its own value in the manifest. The storage is an array
# whose elements in C order are the leaf's bytes, or None.
Encoded = tuple[Form, Storage | None, Any]
# Element type and shape in which a leaf is stored, and its size in bytes.
Layout = tuple[np.dtype[Any], tuple[int, ...], int]
NO_BYTES: Layout = (np.dtype(np.uint8), (0,), 0)
_NO_MEMORY = np.empty(0, np.uint8)
MAX_AXES = 32  # Limit of NumPy before version 2.


class Stored(NamedTuple):
    """The bytes of a group of leaves.

    Attributes:
      layout: How each leaf is stored.
      memory: uint8[n], which the leaves may keep; None if they have no bytes.
      offset: Where in `memory` the first leaf starts.
      is_numpy: Whether they stay NumPy arrays: `build` is not called.
      is_mapped: Whether arrays stay in `memory`, even if they are not aligned.
    """

    layout: Layout
    memory: np.ndarray | None
    offset: int
    is_numpy: bool = False
    is_mapped: bool = False

    def elements(
        self, group: LeafGroup, strides: tuple[int, ...] | None = None
    ) -> list[np.ndarray]:
        """Return the elements of each leaf, sharing the memory."""
        dtype, shape, size = self.layout
        count, offset = len(group.names), self.offset
        memory = _NO_MEMORY if self.memory is None else self.memory
        is_c = group.order == "C" and strides is None
        if count > 1 and is_c and len(shape) < MAX_AXES:
            # Rows of one array: several times faster than making each array.
            rows = np.ndarray((count, *shape), dtype, memory, offset)
            return list(rows) if shape else [rows[i, ...] for i in range(count)]
        starts = range(offset, offset + count * size, size) if size else [0] * count
        return [
            np.ndarray(shape, dtype, memory, start, strides, group.order)
            for start in starts
        ]


class UnstorableError(TypeError):
    """Only pickle can hold the value."""


class Spec(NamedTuple):
    """Properties of a leaf; kind, dtype and shape must agree to replace another leaf.

    Attributes:
      kind: "array", "key", or the name of the Python type of anything else.
      dtype: Element type of an array, generator of a key.
      shape: Sizes of the axes.
      weak: Whether the type is weak, as JAX calls it: a number, or an array, that takes
        the type of its operands; None if the library has no such types.
      maker: The kind that makes such arrays, if it may make them narrower.
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


FitAll = Callable[[Sequence[tuple[Any, np.ndarray, Spec | None]]], Sequence[Any]]


class Kind:
    """A kind of leaf; the defaults suit leaves that only pickle holds.

    A new kind must have a `name`, `recognise` its leaves, `encode` and `decode` them.
    Arrays of a library derive from `ArrayKind`, which needs less. The other methods are
    called only with leaves that the kind has recognised, or for saved leaves of its
    name.

    No method except `build` may import the library of its leaves: a library that is not
    in `sys.modules` has no leaves. `fetch`, `encode` and `build` take most of the time
    of 10,000 small leaves; `fetch` and `build` get all of them at once.

    Attributes:
      name: Name of the kind in the manifest. Of kinds with the same name, the one that
        is registered first decodes the leaves.
      types: Types whose leaves are of this kind, whatever their value.
      is_of_type: Whether all leaves of a type are of the kind if one of them is.
      is_array: Whether leaves have elements, a dtype and a shape.
      is_abstract: Whether leaves have a shape and no elements, to load into.
      is_foreign: Whether leaves are arrays outside of NumPy's memory.
      is_value: Whether only the value of a leaf matters, not the identity of the
        object.
      is_raw: Whether leaves are stored as any number of bytes.
      is_opaque: Whether only pickle holds them.
      is_code: Whether only a trusted save may hold them.
      is_frozen: Whether nothing can write to their storage.
      is_immutable: Whether nothing should write to it: it is frozen, or shared with a
        library.
      is_known_by_identity: Whether an object has the same elements at each save.
      fetch: Returns several leaves as NumPy arrays, which `encode` gets. Leaves of
        kinds with the same function are fetched together. None if not needed.
      remote: Returns an array that need not be fetched whole, which `encode` gets
        instead; None if it has to be, or is in memory.
      build: Turns the results of `decode` for several groups into leaves, in place. It
        gets the groups, their leaves and the component's key. Leaves of kinds with the
        same function are built together. None if not needed.
      library: Name of the library to blame if `build` fails; "" to blame the save.
      refusals: Exceptions that `encode` raises for leaves that cannot be saved.
      fit_all: Returns what `fit` returns for each of many NumPy arrays, made together;
        None for those that `fit` must convert. It gets the current leaves, the arrays
        and, as for `fit`, what they take.
      spec_key: Returns a quickly computed key of an array: arrays with equal keys have
        the same `spec` and the same sharding check.
    """

    name = "pickle"
    types: tuple[type, ...] = ()
    is_of_type = False
    is_array = False
    is_abstract = False
    is_foreign = False
    is_value = False
    is_raw = False
    is_opaque = False
    is_code = False
    is_frozen = False
    is_immutable = False
    is_known_by_identity = False
    fetch: Callable[[Sequence[Any]], Sequence[np.ndarray]] | None = None
    remote: Callable[[Any], Remote | None] | None = None
    build: Callable[[Sequence[LeafGroup], Sequence[list[Any]], str], None] | None = None
    library = ""
    refusals: tuple[type[Exception], ...] = ()
    fit_all: FitAll | None = None
    spec_key: Callable[[Any], Any] | None = None

    # Saving

    @property
    def is_stable(self) -> bool:
        """Whether held storage stays as it is, whatever becomes of a leaf."""
        return self.is_immutable

    def recognise(self, value: Any) -> Kind | None:
        """Return the kind of a value if it is this kind, or one of the same library.

        The value may be any object, so this looks at its type: attributes may raise.
        """
        return None

    def problem(self, value: Any) -> str | None:
        """Return why a leaf cannot be saved, not even by pickle, or None."""
        return None

    def encode(self, value: Any, fetched: Any) -> Encoded:
        """Describe a leaf and give its storage, without copying arrays.

        Raises:
          UnstorableError, UnknownDtypeError, NotScalarError, KeyError: only pickle
            holds it.
        """
        raise UnstorableError(value)

    # Loading

    def layout(self, group: LeafGroup) -> Layout:
        """Return how the elements of each leaf of a group are stored.

        Raises:
          ValueError, TypeError, KeyError: the manifest does not describe such leaves.
        """
        if group.dtype is None:
            return NO_BYTES
        dtype, shape = self.storage(group)
        if self.is_raw and (dtype != np.uint8 or len(shape) != 1):
            raise ValueError("bytes that are an array")
        return dtype, shape, dtype.itemsize * math.prod(shape)

    def storage(self, group: LeafGroup) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """Return the element type and shape in which leaves with bytes are stored."""
        dtype = dtypes.decode(group.dtype)
        if dtype.hasobject:
            raise ValueError(f"a {self.name} of {dtype}")
        return dtype, group.shape

    def decode(self, group: LeafGroup, stored: Stored) -> list[Any]:
        """Return the leaves of a group, sharing memory where they can.

        Raises:
          ValueError, TypeError, KeyError: the manifest does not describe such leaves.
        """
        return stored.elements(group)

    def is_numpy(self, group: LeafGroup) -> bool:
        """Return whether saved leaves can be read as NumPy arrays on this machine."""
        return self.is_array

    # Comparing, and replacing another leaf

    def spec(self, value: Any) -> Spec:
        """Return the spec of a current leaf, or of an object that stands for one."""
        return Spec(self.name)

    def specs(self, group: LeafGroup) -> list[Spec]:
        """Return the spec of each leaf of a saved group.

        Raises:
          ValueError, TypeError, KeyError: the manifest does not describe such leaves.
        """
        return [Spec(self.name)] * len(group.names)

    def narrowing(self, dtype: np.dtype[Any]) -> str | None:
        """Return a text if the library would make such elements narrower, else None."""
        return None

    def is_vacant(self, value: Any) -> bool:
        """Return whether a leaf only stands for one that does not exist yet."""
        return False

    def unwrapped(self, current: Any) -> tuple[Any, Kind]:
        """Return the object that a leaf stands for, by default itself, and its kind."""
        return current, self

    def misplaced(self, current: Any) -> str | None:
        """Return the sharding of a current leaf if its shape does not allow it."""
        return None

    def where(self, current: Any) -> str | None:
        """Return the place of a leaf as text; None if there is only one place."""
        return None

    def device_key(self, current: Any) -> Any:
        """Return the place and properties of a leaf besides its elements, to compare.

        None if leaves are always replaced, even by equal ones.
        """
        return None

    def numbers(self, value: Any) -> np.ndarray:
        """Return the elements as a NumPy array, wider if NumPy may lack their type."""
        return np.asarray(value)

    def comparable(self, value: Any) -> Any:
        """Return an equal leaf whose encoded bytes depend on its elements only."""
        return value

    def fit(self, current: Any, value: Any, kind: Kind, taken: Spec | None) -> Any:
        """Return a saved leaf, converted to the kind, type and place of a current one.

        Args:
          current: The current leaf.
          value: The saved leaf.
          kind: The kind of the saved leaf.
          taken: The spec of the saved leaf if the current one takes its type.
        """
        return value


class ArrayKind(Kind):
    """Arrays of a library ⇄ NumPy arrays.

    A new one must have a `name`, `recognise` its arrays, return their elements in
    `numbers`, and make arrays in `make`.
    """

    is_array = True
    is_foreign = True
    spec_key: Callable[[Any], Any] | None = operator.attrgetter("dtype", "shape")

    def make(self, array: np.ndarray, current: Any = None) -> Any:
        """Return the elements as an array of the library.

        Args:
          array: The elements, in memory that others may use.
          current: An array on the device to use; None for the default device.
        """
        raise NotImplementedError

    def build(
        self, groups: Sequence[LeafGroup], decoded: Sequence[list[Any]], key: str
    ) -> None:
        for arrays in decoded:
            arrays[:] = map(self.make, arrays)

    def encode(self, value: Any, fetched: Any) -> Encoded:
        array = np.asarray(self.numbers(value), order="C")
        return Form(self.name, dtypes.encode(array.dtype), array.shape), array, None

    def spec(self, value: Any) -> Spec:
        return Spec("array", value.dtype, tuple(value.shape))

    def specs(self, group: LeafGroup) -> list[Spec]:
        return [Spec("array", dtype_of(group.dtype), group.shape)] * len(group.names)

    def fit(self, current: Any, value: Any, kind: Kind, taken: Spec | None) -> Any:
        return self.make(cast(kind.numbers(value), current.dtype), current)


def dtype_of(code: Any) -> Any:
    """Return the dtype, or its name if NumPy does not have it."""
    try:
        return dtypes.decode(code)
    except ImportError:
        return code


def cast(array: np.ndarray, dtype: Any) -> np.ndarray:
    """Return the elements cast to another type by NumPy."""
    with np.errstate(all="ignore"):  # The caller's settings are for its own code.
        return array.astype(dtype, order="K", copy=False)

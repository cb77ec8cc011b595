"""Leaves ⇄ bytes: what kinds of leaf there are and how each is stored.

    kind        stored as                                   `value` in the manifest
    python      its value in the manifest                   the scalars, or sets of them
    str         UTF-8, lone surrogates included             -
    bytes       its bytes; bytearray likewise               -
    numpy       its elements                                -
    view        nothing: it is in the memory of another     number of that leaf, offset,
                                                            strides
    jax         its elements                                whether weakly typed
    key         uint32 data of typed PRNG keys              name of the generator
    torch       its elements, as they lie in memory         parameter, requires_grad,
                                                            strides, device
    function    "module:qualname" of an importable one      the same
    pickle      cloudpickle, its arrays out-of-band         their leaf numbers

Each is a `Kind`, whose docstring says what a new one needs. Register it below.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..errors import CheckpointError, ReadError, StateError, reason
from ..format import dtypes, scalars
from ..format.manifest import OWN_VALUE, LeafGroup, part_of
from .jax_kinds import ABSTRACT, JAX, KEY, KEY_DATA
from .kind import Encoded, Kind, Layout, Stored, UnstorableError
from .numpy_kinds import NUMPY, VIEW
from .python_kinds import BYTEARRAY, BYTES, FUNCTION, OBJECT, PYTHON, STR
from .remote import Storage
from .torch_kinds import OPAQUE_TENSOR, TENSOR

PLAIN: dict[type, Kind] = {}  # Types that are leaves, whatever their value.
_BY_NAME: dict[str, Kind] = {}
_RECOGNISING: list[Kind] = []


def register(*kinds: Kind) -> None:
    """Add kinds of leaf; those added first are asked first."""
    for kind in kinds:
        PLAIN.update(dict.fromkeys(kind.types, kind))
        _BY_NAME.setdefault(kind.name, kind)
        if type(kind).recognise is not Kind.recognise:  # Type objects only.
            _RECOGNISING.append(kind)


register(PYTHON, STR, BYTES, BYTEARRAY)
register(NUMPY, VIEW)
register(TENSOR, OPAQUE_TENSOR)  # Before JAX's, as these are asked once for each type.
register(JAX, KEY, KEY_DATA, ABSTRACT)
register(FUNCTION, OBJECT)


def kind_of(value: Any) -> Kind:
    """Return the kind of leaf that the value is."""
    cls = type(value)
    kind = PLAIN.get(cls)
    if kind is not None:
        return kind
    for candidate in _RECOGNISING:
        kind = candidate.recognise(value)
        if kind is not None:
            if kind.is_of_type:
                PLAIN[cls] = kind
            return kind
    return OBJECT


def named(group: LeafGroup) -> Kind:
    """Return the kind of saved leaves.

    Raises:
      KeyError: there is none of this name.
    """
    return _BY_NAME[group.kind]


def is_vacant(value: Any) -> bool:
    """Return whether the value only stands for a leaf that does not exist yet."""
    return kind_of(value).is_vacant(value)


def check(value: Any, kind: Kind, name: str) -> None:
    """Refuse leaves that cannot be saved.

    Raises:
      StateError: the leaf cannot be saved; the message has its name.
    """
    problem = kind.problem(value)
    if problem is not None:
        raise StateError(f"{name} {problem}.")


def refusal(value: Any, name: str, error: Exception) -> StateError:
    """Return the error for a leaf of this full name that cannot be saved."""
    return StateError(
        f"{name}, of type {type(value).__qualname__}, cannot be saved: "
        f"{reason(error)}. Leave it out of what save() returns, and make it anew in "
        f"load()."
    )


def encode(
    value: Any, kind: Kind, fetched: Storage | None = None, name: str = "A leaf"
) -> Encoded:
    """Describe a leaf and give its storage, without copying arrays.

    Args:
      value: The leaf.
      kind: Its kind.
      fetched: The result of the kind's `fetch` for it, if it was called for many, or
        of its `remote`.
      name: Its full name, for errors.

    Raises:
      StateError: it cannot be saved.
      UnstorableError: it must be pickled.
    """
    try:
        if fetched is None and kind.fetch is not None:
            (fetched,) = kind.fetch([value])
        return kind.encode(value, fetched)
    except (dtypes.UnknownDtypeError, scalars.NotScalarError, KeyError) as error:
        raise UnstorableError(value) from error
    except kind.refusals as error:
        raise refusal(value, name, error) from error


def fetch(values: Sequence[Any], kinds: Sequence[Kind]) -> list[np.ndarray | None]:
    """Fetch leaves, all of a library at once; None for kinds that fetch nothing."""
    found: list[np.ndarray | None] = [None] * len(values)
    together: dict[Any, list[int]] = {}
    for place, kind in enumerate(kinds):
        if kind.fetch is not None:
            together.setdefault(kind.fetch, []).append(place)
    for function, places in together.items():
        arrays = function([values[place] for place in places])
        for place, array in zip(places, arrays, strict=True):
            found[place] = array
    return found


# Back


def layout_of(group: LeafGroup) -> Layout:
    """Return how the elements of each leaf are stored.

    Raises:
      ValueError, TypeError, KeyError: the manifest does not describe such leaves.
    """
    return named(group).layout(group)


def part(group: LeafGroup, start: int, stop: int) -> LeafGroup:
    """Return consecutive leaves of a group as a group.

    Raises:
      ValueError, TypeError, KeyError, IndexError: there are no such leaves.
    """
    part = part_of(group, start, stop)
    part.offset += start * layout_of(group)[2]
    return part


def decode(group: LeafGroup, stored: Stored) -> list[Any]:
    """Return the leaves of a group, sharing the memory where they can.

    Arrays come as NumPy arrays, from which the kind's `build` makes arrays of its
    library. Pickled leaves come as their payload, functions as their import path.

    Args:
      group: Their entry in the manifest.
      stored: Their bytes.

    Raises:
      ValueError, TypeError, KeyError: the manifest does not describe such leaves.
    """
    if group.kind in OWN_VALUE and (
        type(group.value) is not list or len(group.value) != len(group.names)
    ):
        raise ValueError("a group has more or fewer values than leaves")
    return named(group).decode(group, stored)


def build(found: Iterable[tuple[LeafGroup, list[Any]]], key: str, where: str) -> None:
    """Turn decoded leaves into arrays of their libraries, all of a library at once.

    Args:
      found: Entries in the manifest, and the leaves of each, which are replaced.
      key: The component's key, for errors.
      where: Its key and the save, for errors.

    Raises:
      MismatchError: a library would change the leaves.
      ReadError: the library failed.
      ValueError, TypeError, KeyError: the manifest does not describe such leaves.
    """
    together: dict[Any, tuple[Kind, list[LeafGroup], list[list[Any]]]] = {}
    for group, items in found:
        kind = named(group)
        if kind.build is not None:
            _, groups, decoded = together.setdefault(kind.build, (kind, [], []))
            groups.append(group)
            decoded.append(items)
    for function, (kind, groups, decoded) in together.items():
        try:
            function(groups, decoded, key)
        except (CheckpointError, ImportError):
            raise
        except Exception as error:
            if not kind.library:
                raise
            raise ReadError(  # The save may be good.
                f"{kind.library} could not make the arrays of {where}: "
                f"{reason(error)}. Free memory of the device, or load less at a time."
            ) from error

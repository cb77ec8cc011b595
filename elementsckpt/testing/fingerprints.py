"""A live state → a fingerprint of each leaf, which identifies its content.

For an array of any library, the content is its dtype, shape and bits. For another
object, it is the pickle, no matter which of its parts are the same object.
"""

from __future__ import annotations

import contextlib
import inspect
import reprlib
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import xxhash
from msgspec import Struct

from ..format import scalars
from ..kinds import leaves, pickles
from ..kinds.kind import UnstorableError
from ..kinds.remote import in_memory
from ..saving import blocks
from ..state import flattening

_COPY_BYTES = 16 << 20
_BY_VALUE = frozenset({type(None), bool, int, float})  # In pickles.


class Fingerprint(Struct, frozen=True, eq=False):
    """The content of a leaf, shortened.

    Attributes:
      digest: xxh3-128 of its content.
      copy: The object, if only pickle holds it and it is small, else None.
    """

    digest: str
    copy: Any = None

    def matches(self, other: Fingerprint) -> bool:
        """Return whether two leaves have the same content, or are equal objects."""
        if self.digest == other.digest:
            return True
        return self.copy is not None and _are_equal(self.copy, other.copy)


def take(key: str, state: Any) -> dict[str, Fingerprint]:
    """Return the fingerprint of each leaf of a component's state, by full name."""
    return {name: _take(value) for name, value in leaves_of(key, state)}


def leaves_of(key: str, state: Any) -> Iterator[tuple[str, Any]]:
    """Yield full name and value of each leaf.

    Args:
      key: The component's key.
      state: The result of its `save()`; a generator yields shards.
    """
    is_streamed = inspect.isgenerator(state)
    seen: set[str] = set()
    for number, shard in enumerate(state if is_streamed else [state]):
        index = str(number) if is_streamed else ""
        flat = flattening.flatten(shard, key, aliases=False)
        for name, value in zip(flat.names, flat.values, strict=True):
            full = "/".join(part for part in (key, index, name) if part)
            while full in seen:  # Leaves may have equal names.
                full += "~"
            seen.add(full)
            yield full, value


def _take(value: Any) -> Fingerprint:
    content = _content(value)
    return _take_object(value) if content is None else Fingerprint(_digest(*content))


def _content(value: Any) -> tuple[str, np.ndarray | bytes] | None:
    """Return type and bytes of a leaf, or None if only pickle holds it."""
    value = leaves.kind_of(value).comparable(value)
    kind = leaves.kind_of(value)
    try:
        form, storage, own = leaves.encode(value, kind)
    except UnstorableError:
        return None
    spec = str(kind.spec(value))
    if storage is None:
        return spec, msgspec.json.encode(_sorted(own))
    array = in_memory(storage)
    return spec, blocks.flat_bytes(array.T if form.order == "F" else array)


def _sorted(code: Any) -> Any:
    """Return an encoded scalar with the members of sets in sorted order."""
    if type(code) is list:
        return [_sorted(item) for item in code]
    if type(code) is not dict:
        return code
    ((name, items),) = code.items()
    items = _sorted(items)
    is_set = name in ("$set", "$frozenset")
    return {name: sorted(items, key=msgspec.json.encode) if is_set else items}


def _digest(spec: str, content: Any) -> str:
    digest = xxhash.xxh3_128(f"{spec}\n".encode())
    digest.update(content)
    return digest.hexdigest()


# Objects


def _take_object(value: Any) -> Fingerprint:
    """Return the fingerprint of an object that only pickle holds.

    It is taken after a round trip through pickle, as loaded objects have made one, too.
    """
    copy = None
    with contextlib.suppress(Exception):
        payload = pickles.dump(value, lambda _: None)
        value = pickles.load(payload)
        copy = value if len(payload) <= _COPY_BYTES else None
    contents: dict[str, int] = {}

    def by_content(item: Any) -> int | None:
        content = _content_in_object(item)
        if content is None:
            return None
        return contents.setdefault(_digest(*content), len(contents))

    payload = pickles.dump(value, by_content)
    return Fingerprint(_digest("".join(contents), payload), copy)


def _content_in_object(item: Any) -> tuple[str, np.ndarray | bytes] | None:
    """Return type and bytes of an object that pickle would identify by its identity."""
    if type(item) in _BY_VALUE:
        return None
    if type(item) is tuple:
        with contextlib.suppress(scalars.NotScalarError):
            return "tuple", msgspec.json.encode(_sorted(scalars.encode(item)))
        return None
    return _content(item)


def _are_equal(first: Any, second: Any) -> bool:
    try:
        if isinstance(first, np.ndarray):
            return bool(np.array_equal(first, second))
        return bool(first == second)
    except Exception:  # The user's own comparison may raise anything.
        return False


# For people


def difference(first: Any, second: Any) -> str:
    """Return how two leaves differ, as a part of a message."""
    specs = [_spec(value) for value in (first, second)]
    if specs[0] != specs[1]:
        return " and ".join(specs)
    kind = leaves.kind_of(first)
    if not kind.is_array and not isinstance(first, np.generic):
        shown = " and ".join(map(reprlib.repr, (first, second)))
        return f"{specs[0]}, {shown}"
    arrays = [leaves.kind_of(value).numbers(value) for value in (first, second)]
    if arrays[0].size == 1:
        return f"{specs[0]}, {arrays[0].item()!r} and {arrays[1].item()!r}"
    return f"{specs[0]}{_gap(*arrays)}"


def _spec(value: Any) -> str:
    spec = str(leaves.kind_of(value).spec(value))
    return type(value).__name__ if spec == "pickle" else spec


def _gap(first: np.ndarray, second: np.ndarray) -> str:
    """Return how many numbers differ, and by how much; "" if they are not numbers."""
    try:
        first, second = (np.asarray(x, np.complex128) for x in (first, second))
    except (TypeError, ValueError):
        return ""
    differ = (first != second) & ~(np.isnan(first) & np.isnan(second))
    if not differ.any():
        return ", equal numbers in other bits, such as 0.0 and -0.0"
    with np.errstate(all="ignore"):
        gaps = np.abs(first - second)[differ]
    finite = gaps[np.isfinite(gaps)]
    largest = f" by up to {finite.max():.3g}" if finite.size else ""
    return f", {gaps.size} of {first.size} elements{largest}"

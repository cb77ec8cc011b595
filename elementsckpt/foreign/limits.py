"""What a pickle that is not trusted may cost: time, memory and depth, by its size.

In a few bytes, objects can refer to each other so often that hashing, copying or
walking them takes exponential time.
"""

from __future__ import annotations

import collections
import pickle
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

# Steps and bytes that a file may cost: for each of its bytes, and for any file.
_COST_PER_BYTE = 16
_COST_FREE = 1 << 16
_MOST_LEVELS = 100  # The interpreter frees nested objects by recursion in C.
_MOST_PARTS = 4096  # Of a key.
_MOST_TWINS = 64  # Keys of one hash.

_SMALL_INT = 1 << 60  # Below it, no two integers have the same hash.
_SHORT_TEXT = 256

MAPS = (dict, collections.OrderedDict, collections.defaultdict)
_TABLES = (*MAPS, collections.Counter)
_SEQUENCES = (list, tuple, set, frozenset, collections.deque)
_SMALL = (type(None), bool, float, complex)
_LEAVES = (*_SMALL, int, str, bytes, bytearray, type, np.dtype, np.generic, np.ndarray)


class ForbiddenError(pickle.UnpicklingError):
    """The pickle names something that the restricted unpickler does not admit."""


def expect(condition: Any, what: str) -> None:
    """Raise an error for a pickle that is damaged, unless the condition holds."""
    if not condition:
        raise pickle.UnpicklingError(f"a damaged {what}")


class _ById(dict[int, tuple[int, Any]]):
    """Numbers of objects, which may have no hash; it keeps the objects alive."""

    def of(self, item: Any, default: int) -> int:
        return self.get(id(item), (default,))[0]

    def note(self, item: Any, number: int) -> None:
        self[id(item)] = number, item


class Limits:
    """What is left of the cost that a pickle may have.

    Args:
      size_bytes: Size of the pickle.

    Attributes:
      fields: The number of fields of dtypes that have several.
    """

    def __init__(self, size_bytes: int) -> None:
        self.fields = _ById()
        self._budget = _COST_PER_BYTE * size_bytes + _COST_FREE
        self._weights = _ById()
        self._hashes: dict[int, Any] = {}
        self._twins: dict[int, set[Any]] = {}
        self._levels = _ById()
        self._nested: set[int] = set()

    def charge(self, cost: int) -> None:
        """Take a cost from the budget; refuse it if too little is left."""
        self._budget -= cost
        if self._budget < 0:
            raise ForbiddenError("more memory or time than its size justifies")

    def charge_walk(self, value: Any) -> None:
        """Charge a walk through a value, which visits shared parts each time."""
        self._weights.clear()
        self.charge(self._weigh(value))

    def _weigh(self, value: Any) -> int:
        """Return the number of parts of a value; a shared part counts each time."""
        kind = type(value)
        if kind in _SMALL:
            return 1
        parts: Iterable[Any]
        if kind in _TABLES:
            parts = value.values()
        elif kind in _SEQUENCES:
            parts = value
        elif kind is np.ndarray and value.dtype.hasobject:
            parts = value.ravel().tolist()
        elif isinstance(value, _LEAVES):
            return 1 + (sys.getsizeof(value) >> 8 if kind is not np.ndarray else 0)
        else:
            raise ForbiddenError(f"a {kind.__name__} as a value")
        if id(value) not in self._weights:
            self._weights.note(value, 0)  # In case it holds itself.
            self._weights.note(value, 1 + sum(map(self._weigh, parts)))
        return self._weights.of(value, 0)

    def check_keys(self, keys: Iterable[Any]) -> None:
        """Refuse keys that would take long to hash or to compare."""
        for key in keys:
            kind = type(key)
            if (kind is str or kind is bytes) and len(key) <= _SHORT_TEXT:
                continue
            if kind is int and -_SMALL_INT < key < _SMALL_INT:
                continue
            weight = self._weigh(key)
            self.charge(weight)
            if weight > _MOST_PARTS:
                raise ForbiddenError("a key of thousands of parts")
            code = hash(key)
            if self._hashes.setdefault(code, key) != key:
                twins = self._twins.setdefault(code, set())
                twins.add(key)
                if len(twins) > _MOST_TWINS:
                    raise ForbiddenError("keys made to have the same hash")

    def check_nesting(self, holder: Any, items: Iterable[Any]) -> None:
        """Refuse a nesting so deep that freeing it would overflow the C stack.

        The interpreter frees the other containers without recursion.
        """
        level = 0
        for item in items:
            if _is_freed_by_recursion(item):
                known = self._levels.of(item, 0)
                self._levels.note(item, known)
                self._nested.add(id(item))
                level = max(level, known + 1)
        if level > _MOST_LEVELS or (level and id(holder) in self._nested):
            raise ForbiddenError("so deep a nesting")
        if level > self._levels.of(holder, 0):
            self._levels.note(holder, level)


def _is_freed_by_recursion(value: Any) -> bool:
    if type(value) is np.ndarray:
        return bool(value.dtype.hasobject)
    return type(value) in (collections.deque, collections.defaultdict)

"""An unpickler for files that are not trusted: it admits plain data and NumPy arrays.

It runs no code from the file. NumPy restores its pickled objects without checking them,
so this module builds arrays and dtypes with NumPy's public constructors instead. The
size of a file limits the time and memory that it may take: in a few bytes, objects can
refer to each other so often that hashing, copying or walking them takes exponential
time.

It reads what `pickle.dumps` writes in protocols 4 and 5.
"""

from __future__ import annotations

import collections
import importlib
import io
import math
import pickle
import re
import struct
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

# Steps and bytes that a file may cost: for each of its bytes, and for any file.
_COST_PER_BYTE = 16
_COST_FREE = 1 << 16
# Limits on what the interpreter and NumPy process by recursion in C.
_MOST_FIELDS = 1000
_MOST_LEVELS = 100
_MOST_PARTS = 4096
_MOST_TWINS = 64  # Keys of one hash.
_ALIGNED = 0x80

_CODE = re.compile(r"[biufcmMSUVO]\d{1,10}")
_UNIT = re.compile(rb"[A-Za-z]{1,2}|generic")
_SMALL_INT = 1 << 60  # Below it, no two integers have the same hash.
_SHORT_TEXT = 256

_MAPS = (dict, collections.OrderedDict, collections.defaultdict)
_TABLES = (*_MAPS, collections.Counter)
_SEQUENCES = (list, tuple, set, frozenset, collections.deque)
_SMALL = (type(None), bool, float, complex)
_LEAVES = (*_SMALL, int, str, bytes, bytearray, type, np.dtype, np.generic, np.ndarray)


class ForbiddenError(pickle.UnpicklingError):
    """The pickle names something that the restricted unpickler does not admit."""


def load_restricted(content: bytes) -> Any:
    """Unpickle builtin containers, scalars and NumPy arrays, running no foreign code.

    It takes memory and time in proportion to the size of the content.

    Raises:
      ForbiddenError: the pickle needs something else.
      Exception: the pickle is damaged.
    """
    return _Restricted(content).load()


class _Unbuilt:
    """Stands for an array or a dtype until its state is read, then refers to it.

    Args:
      code: The code of a dtype; None for an array.
    """

    def __init__(self, code: Any = None) -> None:
        self.code = code
        self.built: Any = None


class _Memo(dict[int, Any]):
    def __getitem__(self, index: int) -> Any:
        value = super().__getitem__(index)
        if type(value) is not _Unbuilt:
            return value
        if value.built is None:
            raise ForbiddenError("an array that holds itself")
        return value.built


# The unpickler in Python: the one in C hashes keys before they can be checked, and
# allocates memory for the largest index in the memo.
class _Restricted(pickle._Unpickler):
    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]
    readinto: Callable[[bytearray], int]

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))
        self.memo = _Memo()
        self._size_bytes = len(content)
        self._budget = _COST_PER_BYTE * len(content) + _COST_FREE
        self._weights: dict[int, tuple[int, Any]] = {}  # By id; keeps the object alive.
        self._hashes: dict[int, Any] = {}
        self._twins: dict[int, set[Any]] = {}
        self._fields: dict[int, tuple[int, Any]] = {}
        self._levels: dict[int, tuple[int, Any]] = {}
        self._held: set[int] = set()

    def load(self) -> Any:
        value = super().load()
        # Code that walks through the value visits shared parts each time.
        self._weights = {}
        self._charge(self._weigh(value))
        return value

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy._core", "numpy.core")
        admitted = _ADMITTED.get((module, name))
        if admitted is None and module == "ml_dtypes":
            admitted = _ml_dtype(name)
        if admitted is None:
            raise ForbiddenError(f"{module}.{name}"[:200])
        return admitted

    # Limits on the cost.

    def _charge(self, cost: int) -> None:
        self._budget -= cost
        if self._budget < 0:
            raise ForbiddenError("more memory or time than its size justifies")

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
        known = self._weights.get(id(value))
        if known is None:
            self._weights[id(value)] = 0, value  # In case it holds itself.
            known = 1 + sum(map(self._weigh, parts)), value
            self._weights[id(value)] = known
        return known[0]

    def _check_keys(self, keys: Iterable[Any]) -> None:
        """Refuse keys that would take long to hash or to compare."""
        for key in keys:
            kind = type(key)
            if (kind is str or kind is bytes) and len(key) <= _SHORT_TEXT:
                continue
            if kind is int and -_SMALL_INT < key < _SMALL_INT:
                continue
            weight = self._weigh(key)
            self._charge(weight)
            if weight > _MOST_PARTS:
                raise ForbiddenError("a key of thousands of parts")
            code = hash(key)
            if self._hashes.setdefault(code, key) != key:
                twins = self._twins.setdefault(code, set())
                twins.add(key)
                if len(twins) > _MOST_TWINS:
                    raise ForbiddenError("keys made to have the same hash")

    def _hold(self, holder: Any, items: Iterable[Any]) -> None:
        """Refuse a nesting so deep that freeing it would overflow the C stack.

        The interpreter frees the other containers without recursion.
        """
        level = 0
        for item in items:
            if _is_freed_by_recursion(item):
                known, _ = self._levels.setdefault(id(item), (0, item))
                self._held.add(id(item))
                level = max(level, known + 1)
        if level > _MOST_LEVELS or (level and id(holder) in self._held):
            raise ForbiddenError("so deep a nesting")
        if level > self._levels.get(id(holder), (0,))[0]:
            self._levels[id(holder)] = level, holder

    # Opcodes.

    def _refuse(self) -> None:
        raise ForbiddenError("an object that is more than data")

    def _load_bytearray8(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        _expect(size <= self._size_bytes, "length")
        value = bytearray(size)
        self.readinto(value)
        self.append(value)

    def _load_append(self) -> None:
        self._extend([self.stack.pop()])

    def _load_appends(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        _expect(type(target) in (list, collections.deque), "list")
        if type(target) is collections.deque:
            self._hold(target, items)
        target.extend(items)

    def _load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._update([key, value])

    def _load_setitems(self) -> None:
        self._update(self.pop_mark())

    def _update(self, items: list[Any]) -> None:
        target = self.stack[-1]
        _expect(type(target) in _MAPS, "dict")
        keys, values = items[::2], items[1::2]
        self._check_keys(keys)
        if type(target) is collections.defaultdict:
            self._hold(target, values)
        target.update(zip(keys, values, strict=True))

    def _load_additems(self) -> None:
        items = self.pop_mark()
        _expect(type(self.stack[-1]) is set, "set")
        self._check_keys(items)
        self.stack[-1].update(items)

    def _load_frozenset(self) -> None:
        items = self.pop_mark()
        self._check_keys(items)
        self.append(frozenset(items))

    def _load_reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack[-1]
        make = _MAKERS.get(id(function))  # By id: its hash might never end.
        if make is None:
            raise ForbiddenError(f"a call of a {type(function).__name__}")
        _expect(type(arguments) is tuple and len(arguments) <= 5, "call")
        self.stack[-1] = make(self, *arguments)

    def _load_build(self) -> None:
        state, unbuilt = self.stack.pop(), self.stack[-1]
        if type(unbuilt) is not _Unbuilt:
            raise ForbiddenError(f"a {type(unbuilt).__name__} with attributes")
        _expect(type(state) is tuple and len(state) <= 9, "state")
        if unbuilt.code is None:
            unbuilt.built = self._build_array(*state)
        else:
            unbuilt.built = self._build_dtype(unbuilt.code, *state)
        self.stack[-1] = unbuilt.built

    # Functions that a pickle may call. Arguments that pickle never writes are refused.

    def _ordered_dict(self) -> Any:
        return collections.OrderedDict()

    def _defaultdict(self, factory: Any = None) -> Any:
        if factory is not None and not isinstance(factory, type):
            raise ForbiddenError(f"a defaultdict of a {type(factory).__name__}")
        return collections.defaultdict(factory)

    def _deque(self, items: Any = (), maxlen: Any = None) -> Any:
        _expect(type(items) is tuple and not items, "deque")
        return collections.deque(maxlen=maxlen)

    def _counter(self, counts: Any) -> Any:
        _expect(type(counts) is dict, "Counter")
        self._charge(8 * len(counts))
        return collections.Counter(counts)

    def _complex(self, real: Any, imaginary: Any) -> complex:
        _expect(type(real) is float and type(imaginary) is float, "complex")
        return complex(real, imaginary)

    def _bytearray(self, data: Any = b"") -> bytearray:
        _expect(type(data) is bytes, "bytearray")
        self._charge(len(data))
        return bytearray(data)

    # NumPy.

    def _dtype(self, code: Any, align: Any = False, copy: Any = True) -> _Unbuilt:
        _expect(isinstance(code, (str, type)), "dtype")
        return _Unbuilt(code)

    def _build_dtype(
        self,
        code: Any,
        version: Any,
        order: Any,
        subarray: Any,
        names: Any,
        fields: Any,
        itemsize: Any,
        alignment: Any,
        flags: Any,
        metadata: Any = None,
    ) -> np.dtype[Any]:
        if isinstance(code, type):
            _expect(issubclass(code, np.generic), "dtype")  # One of ml_dtypes.
            return np.dtype(code)
        _expect(_CODE.fullmatch(code), "dtype")
        _expect(type(order) is str and order in ("<", ">", "|", "="), "byte order")
        if subarray is not None:
            base, shape = subarray
            size = _size(shape)
            count = self._count_fields([base]) * (1 if base.itemsize else max(1, size))
            dtype = np.dtype((base, shape))
        elif names is not None:
            _expect(type(names) is tuple and type(fields) is dict, "dtype")
            _expect(all(type(name) is str for name in names), "dtype")
            columns = [fields[name] for name in names[: _MOST_FIELDS + 1]]
            count = self._count_fields([column[0] for column in columns])
            dtype = _structured(names, columns, itemsize, bool(flags & _ALIGNED))
        else:
            unit = _unit(metadata) if code[0] in "mM" else ""
            return np.dtype(f"{order}{code}{unit}")
        _expect(count <= _MOST_FIELDS, "dtype")
        self._charge(count)
        self._fields[id(dtype)] = count, dtype
        return dtype

    def _count_fields(self, parts: list[Any]) -> int:
        """Return the number of fields of a new dtype, with those of its parts."""
        count = 1
        for part in parts:
            if not isinstance(part, np.dtype) or part.hasobject:
                raise ForbiddenError("a dtype with objects inside")
            count += self._fields.get(id(part), (1,))[0]
        if count > _MOST_FIELDS:
            raise ForbiddenError(f"a dtype of more than {_MOST_FIELDS} fields")
        return count

    def _reconstruct(self, subtype: Any, shape: Any, code: Any) -> _Unbuilt:
        if subtype is not np.ndarray:
            raise ForbiddenError("a subclass of arrays")
        return _Unbuilt()

    def _build_array(
        self, version: Any, shape: Any, dtype: Any, is_fortran: Any, data: Any
    ) -> np.ndarray:
        if type(data) is not list:
            return self._array(data, dtype, shape, "F" if is_fortran else "C")
        _expect(isinstance(dtype, np.dtype) and _size(shape) == len(data), "array")
        if dtype != np.dtype(object):
            raise ForbiddenError("an array of records with objects")
        self._charge(8 * len(data))
        array = np.fromiter(data, object, len(data)).reshape(shape)
        array = np.asfortranarray(array) if is_fortran is True else array
        self._hold(array, data)
        return array

    def _array(
        self, data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None
    ) -> np.ndarray:
        _expect(isinstance(dtype, np.dtype), "array")
        if dtype.hasobject:
            raise ForbiddenError("objects by their address")
        _expect(type(data) in (bytes, bytearray), "array")
        size = _size(shape)
        _expect(size * dtype.itemsize == len(data), "array")
        self._charge(max(size, len(data)) + self._fields.get(id(dtype), (1,))[0])
        buffer = data if type(data) is bytearray else bytearray(data)
        if axes is not None:  # Order of the axes in memory, as NumPy 2 writes it.
            _expect(_size(axes) == 0, "array")  # A permutation of 0 to n.
            return np.ndarray(shape, dtype, buffer).transpose(axes)
        _expect(type(order) is str and order in ("C", "F"), "array")
        return np.ndarray(shape, dtype, buffer, order=order)

    def _scalar(self, dtype: Any, data: Any) -> Any:
        return self._array(data, dtype, (), "C")[()]


def _expect(condition: Any, what: str) -> None:
    if not condition:
        raise pickle.UnpicklingError(f"a damaged {what}")


def _size(shape: Any) -> int:
    _expect(type(shape) is tuple and len(shape) <= 64, "shape")
    _expect(all(type(n) is int and 0 <= n < 1 << 63 for n in shape), "shape")
    return math.prod(shape)


def _structured(
    names: Any, columns: list[Any], itemsize: Any, align: bool
) -> np.dtype[Any]:
    titles = [column[2] if len(column) > 2 else None for column in columns]
    _expect(all(title is None or type(title) is str for title in titles), "dtype")
    offsets = [column[1] for column in columns]
    _expect(all(type(offset) is int for offset in [*offsets, itemsize]), "dtype")
    formats = [column[0] for column in columns]
    spec = {"names": names, "formats": formats, "offsets": offsets, "titles": titles}
    make: Any = np.dtype
    return make({**spec, "itemsize": itemsize}, align=align)  # type: ignore[no-any-return]


def _unit(metadata: Any) -> str:
    """Return the unit in the state of a dtype of dates or times, such as [25us]."""
    _, (unit, step, _, _) = metadata
    _expect(type(unit) is bytes and _UNIT.fullmatch(unit), "unit")
    _expect(type(step) is int and 0 < step < 1 << 31, "unit")
    return "" if unit == b"generic" else f"[{step}{unit.decode()}]"


def _is_freed_by_recursion(value: Any) -> bool:
    if type(value) is np.ndarray:
        return bool(value.dtype.hasobject)
    return type(value) in (collections.deque, collections.defaultdict)


def _ml_dtype(name: str) -> Any:
    try:
        scalar = getattr(importlib.import_module("ml_dtypes"), name, None)
    except ImportError:
        return None
    is_scalar = isinstance(scalar, type) and issubclass(scalar, np.generic)
    return scalar if is_scalar else None


_FUNCTIONS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Restricted._reconstruct,
    ("numpy.core.multiarray", "scalar"): _Restricted._scalar,
    ("numpy.core.numeric", "_frombuffer"): _Restricted._array,
}
_CLASSES: dict[type, Any] = {
    np.dtype: _Restricted._dtype,
    complex: _Restricted._complex,
    bytearray: _Restricted._bytearray,
    collections.OrderedDict: _Restricted._ordered_dict,
    collections.defaultdict: _Restricted._defaultdict,
    collections.deque: _Restricted._deque,
    collections.Counter: _Restricted._counter,
}
_NAMED_ONLY = (np.ndarray, bool, int, float, str, list, tuple, dict, set, frozenset)
_ADMITTED: dict[tuple[str, str], Any] = {
    **_FUNCTIONS,
    **{(cls.__module__, cls.__name__): cls for cls in (*_CLASSES, *_NAMED_ONLY)},
}
# Functions and classes that a pickle may call, by id, and what is called instead.
_MAKERS: dict[int, Callable[..., Any]] = {
    **{id(function): function for function in _FUNCTIONS.values()},
    **{id(cls): make for cls, make in _CLASSES.items()},
}

# The base class reads these; all others are refused.
_PLAIN_OPCODES = (
    *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "GLOBAL", "STACK_GLOBAL"),
    *("MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "LONG4"),
    *("BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET", "EMPTY_TUPLE"),
    *("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
)
_PLAIN: Any = {getattr(pickle, name)[0] for name in _PLAIN_OPCODES}
_DISPATCH: Any = {
    **{
        opcode: load if opcode in _PLAIN else _Restricted._refuse
        for opcode, load in pickle._Unpickler.dispatch.items()
    },
    pickle.BYTEARRAY8[0]: _Restricted._load_bytearray8,
    pickle.APPEND[0]: _Restricted._load_append,
    pickle.APPENDS[0]: _Restricted._load_appends,
    pickle.SETITEM[0]: _Restricted._load_setitem,
    pickle.SETITEMS[0]: _Restricted._load_setitems,
    pickle.ADDITEMS[0]: _Restricted._load_additems,
    pickle.FROZENSET[0]: _Restricted._load_frozenset,
    pickle.REDUCE[0]: _Restricted._load_reduce,
    pickle.BUILD[0]: _Restricted._load_build,
}
_Restricted.dispatch = _DISPATCH

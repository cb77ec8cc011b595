"""An unpickler for files that are not trusted: it admits plain data and NumPy arrays.

It runs no code from the file. `restricted_arrays` builds arrays and dtypes; `limits`
bounds the time and memory that a file may take.

It reads what `pickle.dumps` writes in protocols 4 and 5.
"""

from __future__ import annotations

import collections
import io
import pickle
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from . import restricted_arrays
from .limits import MAPS, ForbiddenError, Limits, expect
from .restricted_arrays import Unbuilt


def load_restricted(content: bytes) -> Any:
    """Unpickle builtin containers, scalars and NumPy arrays, running no foreign code.

    It takes memory and time in proportion to the size of the content.

    Raises:
      ForbiddenError: the pickle needs something else.
      Exception: the pickle is damaged.
    """
    return _Restricted(content).load()


class _Memo(dict[int, Any]):
    def __getitem__(self, index: int) -> Any:
        value = super().__getitem__(index)
        if type(value) is not Unbuilt:
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
        self._limits = Limits(len(content))

    def load(self) -> Any:
        value = super().load()
        self._limits.charge_walk(value)
        return value

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy._core", "numpy.core")
        admitted = _ADMITTED.get((module, name))
        if admitted is None and module == "ml_dtypes":
            admitted = restricted_arrays.ml_dtype(name)
        if admitted is None:
            raise ForbiddenError(f"{module}.{name}"[:200])
        return admitted

    def _refuse(self) -> None:
        raise ForbiddenError("an object that is more than data")

    def load_bytearray8(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        expect(size <= self._size_bytes, "length")
        value = bytearray(size)
        self.readinto(value)
        self.append(value)

    def load_append(self) -> None:
        self._extend([self.stack.pop()])

    def load_appends(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        expect(type(target) in (list, collections.deque), "list")
        if type(target) is collections.deque:
            self._limits.check_nesting(target, items)
        target.extend(items)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._update([key, value])

    def load_setitems(self) -> None:
        self._update(self.pop_mark())

    def _update(self, items: list[Any]) -> None:
        target = self.stack[-1]
        expect(type(target) in MAPS, "dict")
        keys, values = items[::2], items[1::2]
        self._limits.check_keys(keys)
        if type(target) is collections.defaultdict:
            self._limits.check_nesting(target, values)
        target.update(zip(keys, values, strict=True))

    def load_additems(self) -> None:
        items = self.pop_mark()
        expect(type(self.stack[-1]) is set, "set")
        self._limits.check_keys(items)
        self.stack[-1].update(items)

    def load_frozenset(self) -> None:
        items = self.pop_mark()
        self._limits.check_keys(items)
        self.append(frozenset(items))

    def load_reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack[-1]
        make = _MAKERS.get(id(function))  # By id: its hash might never end.
        if make is None:
            raise ForbiddenError(f"a call of a {type(function).__name__}")
        expect(type(arguments) is tuple and len(arguments) <= 5, "call")
        self.stack[-1] = make(self._limits, *arguments)

    def load_build(self) -> None:
        state, unbuilt = self.stack.pop(), self.stack[-1]
        if type(unbuilt) is not Unbuilt:
            raise ForbiddenError(f"a {type(unbuilt).__name__} with attributes")
        expect(type(state) is tuple and len(state) <= 9, "state")
        self.stack[-1] = unbuilt.build(state)


# What a pickle may call. Arguments that pickle never writes are refused.


def _ordered_dict(limits: Limits) -> Any:
    return collections.OrderedDict()


def _defaultdict(limits: Limits, factory: Any = None) -> Any:
    if factory is not None and not isinstance(factory, type):
        raise ForbiddenError(f"a defaultdict of a {type(factory).__name__}")
    return collections.defaultdict(factory)


def _deque(limits: Limits, items: Any = (), maxlen: Any = None) -> Any:
    expect(type(items) is tuple and not items, "deque")
    return collections.deque(maxlen=maxlen)


def _counter(limits: Limits, counts: Any) -> Any:
    expect(type(counts) is dict, "Counter")
    limits.charge(8 * len(counts))
    return collections.Counter(counts)


def _complex(limits: Limits, real: Any, imaginary: Any) -> complex:
    expect(type(real) is float and type(imaginary) is float, "complex")
    return complex(real, imaginary)


def _bytearray(limits: Limits, data: Any = b"") -> bytearray:
    expect(type(data) is bytes, "bytearray")
    limits.charge(len(data))
    return bytearray(data)


_FUNCTIONS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): restricted_arrays.reconstruct,
    ("numpy.core.multiarray", "scalar"): restricted_arrays.scalar,
    ("numpy.core.numeric", "_frombuffer"): restricted_arrays.array,
}
_CLASSES: dict[type, Any] = {
    np.dtype: restricted_arrays.dtype,
    complex: _complex,
    bytearray: _bytearray,
    collections.OrderedDict: _ordered_dict,
    collections.defaultdict: _defaultdict,
    collections.deque: _deque,
    collections.Counter: _counter,
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

# What is not one of these is refused.
_OPCODES = (
    *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "GLOBAL", "STACK_GLOBAL"),
    *("MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "LONG4"),
    *("BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET", "EMPTY_TUPLE"),
    *("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET"),
    *("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "REDUCE", "BUILD"),
)
_ADMITTED_OPCODES: Any = {getattr(pickle, name)[0] for name in _OPCODES}
# The base class finds methods in this table, so without it none is overridden.
_DISPATCH: Any = {
    opcode: getattr(_Restricted, load.__name__)
    if opcode in _ADMITTED_OPCODES
    else _Restricted._refuse
    for opcode, load in pickle._Unpickler.dispatch.items()
}
_Restricted.dispatch = _DISPATCH

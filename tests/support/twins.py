"""Whether two object graphs are alike: written apart from what saves and loads them."""

from __future__ import annotations

import collections
import copy
import functools
import pathlib
import types
import weakref

import numpy as np

from elementsckpt.environments import snapshots

PLAIN = (
    *(type(None), bool, int, float, complex, str, bytes, type, types.ModuleType),
    pathlib.PurePath,
)


def reload(old, new, parts=None):
    """Load what is saved of one environment into another; return that."""
    data = copy.deepcopy(snapshots.capture(old, parts))
    snapshots.restore(new, data, parts)
    return new


class Twins:
    """Compares two graphs, object by object, in both directions.

    Attributes:
      arrays: Arrays of both, in the order in which they were met.
    """

    def __init__(self):
        self.there, self.back, self.arrays, self.held = {}, {}, [], []

    def differ(self, a, b, path="env"):
        """Return where they differ first, or None."""
        todo = [(a, b, path)]
        while todo:
            a, b, path = todo.pop()
            found = self._one(a, b, path, todo)
            if found:
                return found
        return self._memory()

    def _one(self, a, b, path, todo):
        if type(a) is not type(b):
            return f"{path}: {type(a).__name__} and {type(b).__name__}"
        if isinstance(a, (*PLAIN, np.generic, np.dtype)):
            same = a is b or repr(a) == repr(b)
            return None if same else f"{path}: {a!r} and {b!r}"
        known = self.there.get(id(a)), self.back.get(id(b))
        if any(x is not None for x in known):
            return None if known == (id(b), id(a)) else f"{path}: aliases differ"
        if type(a) is tuple and not a:
            return None
        self.there[id(a)], self.back[id(b)] = id(b), id(a)
        self.held.append((a, b))
        return self._content(a, b, path, todo)

    def _content(self, a, b, path, todo):
        if isinstance(a, types.FunctionType):
            if a.__code__.co_code != b.__code__.co_code:
                return f"{path}: other code"
            todo += zip_cells(a, b, path)
        elif isinstance(a, types.CellType):
            todo.append((content(a), content(b), f"{path}.cell_contents"))
        elif isinstance(a, types.MethodType):
            todo.append((a.__self__, b.__self__, f"{path}.__self__"))
            return None if a.__func__ is b.__func__ else f"{path}: other function"
        elif isinstance(a, functools.partial):
            todo.append(
                ((a.func, a.args, a.keywords), (b.func, b.args, b.keywords), path)
            )
        elif isinstance(a, weakref.ref):
            todo.append((a(), b(), f"{path}()"))
        elif isinstance(a, np.random.Generator):
            todo.append((a.bit_generator, b.bit_generator, f"{path}.bits"))
        elif isinstance(a, np.random.BitGenerator):
            if repr(a.state) != repr(b.state):
                return f"{path}: other state"
            todo.append((a.seed_seq, b.seed_seq, f"{path}.seed"))
        elif isinstance(a, np.random.SeedSequence):
            return None if repr(a.state) == repr(b.state) else f"{path}: other seed"
        elif isinstance(a, np.ndarray):
            return self._array(a, b, path, todo)
        else:
            return self._items(a, b, path, todo)
        return None

    def _array(self, a, b, path, todo):
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            return f"{path}: {a.dtype}{a.shape} and {b.dtype}{b.shape}"
        self.arrays.append((a, b, path))
        if a.dtype == object:
            pairs = zip(a.ravel().tolist(), b.ravel().tolist(), strict=True)
            todo += ((x, y, f"{path}[{i}]") for i, (x, y) in enumerate(pairs))
            return None
        return None if a.tobytes() == b.tobytes() else f"{path}: other elements"

    def _items(self, a, b, path, todo):
        if isinstance(a, dict):
            is_ordered = isinstance(a, collections.OrderedDict)
            base = collections.OrderedDict if is_ordered else dict
            pairs = [*base.items(a)], [*base.items(b)]
            if len(pairs[0]) != len(pairs[1]):
                return f"{path}: {len(pairs[0])} and {len(pairs[1])} items"
            for i, ((k, x), (n, y)) in enumerate(zip(*pairs, strict=True)):
                todo += [(k, n, f"{path}.key{i}"), (x, y, f"{path}[{i}]")]
            if isinstance(a, collections.defaultdict):
                todo.append((a.default_factory, b.default_factory, f"{path}.factory"))
        elif isinstance(a, (list, tuple, collections.deque, set, frozenset)):
            if len(a) != len(b):
                return f"{path}: {len(a)} and {len(b)} items"
            if getattr(a, "maxlen", None) != getattr(b, "maxlen", None):
                return f"{path}: other maxlen"
            todo += (
                (x, y, f"{path}[{i}]")
                for i, (x, y) in enumerate(zip(a, b, strict=True))
            )
        elif isinstance(a, bytearray) and a != b:
            return f"{path}: other bytes"
        mine, other = attributes(a), attributes(b)
        if [*mine] != [*other]:
            return f"{path}: attributes {[*mine]} and {[*other]}"
        todo += ((mine[x], other[x], f"{path}.{x}") for x in mine)
        return None

    def _memory(self):
        """Return which arrays share memory in one graph and not in the other."""
        for i, (a, b, path) in enumerate(self.arrays):
            for c, d, other in self.arrays[:i]:
                if np.shares_memory(a, c) != np.shares_memory(b, d):
                    return f"{path} and {other}: memory"
        return None


def zip_cells(a, b, path):
    """Return pairs of the cells, attributes and defaults of functions."""
    found = [((a.__defaults__, a.__dict__), (b.__defaults__, b.__dict__), f"{path}.d")]
    cells = zip(a.__closure__ or (), b.__closure__ or (), strict=True)
    for i, (x, y) in enumerate(cells):
        found.append((x, y, f"{path}<{i}>"))
    return found


def content(cell):
    try:
        return cell.cell_contents
    except ValueError:
        return ...


def attributes(value):
    """Return attributes in the `__dict__` and in slots, in their order."""
    found = dict(getattr(value, "__dict__", {}))
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name) and name not in ("__dict__", "__weakref__"):
                found[name] = getattr(value, name)
    return found


def differ(a, b):
    """Return where two graphs differ first, or None."""
    return Twins().differ(a, b)

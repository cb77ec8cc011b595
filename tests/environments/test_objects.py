"""What CPython says of objects: whether they hold more than Python sees."""

import _random
import abc
import array
import collections
import ctypes
import dataclasses
import enum
import functools
import io
import itertools
import random
import types
import typing
import weakref
import zlib

import pytest

from elementsckpt.environments import objects

from support.worlds import Keyed, More, Row, Slots, Thing


@dataclasses.dataclass(slots=True)
class Slotted:
    a: int


class Named(typing.NamedTuple):
    a: int


class Mixin(abc.ABC):  # noqa: B024 (an abstract method would be in the way)
    __slots__ = ()


class Table(Mixin, dict):
    __slots__ = ("a",)


class Private(Slots):
    __slots__ = ("__secret", "a")  # The second for the second time.


class Generic(typing.Generic[typing.TypeVar("T")]):
    pass


@pytest.mark.parametrize(
    "cls",
    [
        *(object, Thing, Slots, More, Row, Keyed, Slotted, Named, Mixin, Table),
        *(Private, Generic, type("A", (list,), {}), type("B", (set,), {})),
        *(type("C", (tuple,), {"__slots__": ()}), collections.Counter),
        *(type("D", (collections.deque,), {"__slots__": ["a", "__dict__"]}),),
        *(collections.OrderedDict, collections.defaultdict, collections.ChainMap),
        *(random.Random, types.SimpleNamespace, weakref.WeakSet, functools.partial),
        *(weakref.KeyedRef, bytearray, _random.Random, enum.auto),
    ],
)
def test_python_sees_all_of_these(cls):
    assert not objects.layout(cls).is_hidden


@pytest.mark.parametrize(
    "cls",
    [
        *(type(iter([])), itertools.count, type(zlib.decompressobj()), array.array),
        *(memoryview, io.StringIO, ctypes.c_int * 3, type("E", (int,), {}), float),
        *(type("F", (itertools.count,), {}), BaseException, type(x for x in ())),
    ],
)
def test_these_hold_more_than_it_sees(cls):
    assert objects.layout(cls).is_hidden


def test_attributes_are_read_and_given_without_code_of_the_class():
    class Odd(Slots):
        __slots__ = ("__dict__",)

        def __getattribute__(self, name):
            raise AssertionError

        __setattr__ = __delattr__ = __getattribute__

    made = objects.make(Odd)
    known = objects.layout(Odd)
    known.give(made, {"x": 1, "a": 2, "y": 3})
    assert known.attributes(made) == {"x": 1, "y": 3, "a": 2}
    known.give(made, {"y": 4, "b": 5, "x": 6})
    assert [*known.attributes(made).items()] == [("y", 4), ("x", 6), ("b", 5)]


def test_objects_are_made_without_their_own_code():
    class Loud:
        def __new__(cls):
            raise AssertionError

        __init__ = __new__

    class Abstract(abc.ABC):
        @abc.abstractmethod
        def method(self): ...

    assert type(objects.make(Loud)) is Loud
    with pytest.raises(TypeError):
        objects.make(Abstract)

"""Any graph of objects comes back, in place, whatever the target was."""

import collections
import functools
import random
import types
import weakref

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from support.strategies import PROPERTY
from support.twins import differ, reload
from support.worlds import (
    NOTHING,
    UNSET,
    Color,
    Keyed,
    More,
    Point,
    Rights,
    Row,
    Slots,
    Thing,
    World,
    counter,
)


def closure(held):
    def function(more=held):
        return held, more

    function.note = held
    return function


def slotted(cls, a, b):
    made = cls()
    made.a, made.b = a, b
    if cls is More:
        made.z = a
    return made


def row(a, b):
    made = Row((a, b))
    made.note = b
    return made


def keyed(a, b):
    key = Keyed((len(repr(type(a))), 1))
    key.back = b
    return key


def view(a):
    owner = a if isinstance(a, np.ndarray) and a.dtype == float else np.arange(8.0)
    return owner[1:-1:2] if owner.size > 4 else owner[::-1]


# Each makes an object of two others.
MAKERS = [
    lambda a, b: [a, b],
    lambda a, b: (a, [b]),
    lambda a, b: {"a": a, 2: b},
    lambda a, b: {keyed(a, b): b},
    lambda a, b: {keyed(a, b), 5},
    lambda a, b: frozenset([keyed(a, b)]),
    lambda a, b: (frozenset([keyed(a, b)]), a),
    lambda a, b: collections.deque([a, b], maxlen=3),
    lambda a, b: collections.OrderedDict(x=a, y=b),
    lambda a, b: collections.defaultdict(list, k=a),
    lambda a, b: Thing(a=a, b=b),
    lambda a, b: slotted(Slots, a, b),
    lambda a, b: slotted(More, a, b),
    lambda a, b: Point(a, b),
    row,
    lambda a, b: Thing(bound=Thing(a=a).method, up=[b].append),
    lambda a, b: closure(a),
    lambda a, b: functools.partial(closure(a), b),
    lambda a, b: types.SimpleNamespace(a=a),
    lambda a, b: np.arange(6.0),
    lambda a, b: np.arange(6.0).reshape(2, 3).T,
    lambda a, b: view(a),
    lambda a, b: np.array([a, b, None], dtype=object)[:2],
    lambda a, b: np.random.default_rng(len(repr(type(a)))),
    lambda a, b: a if isinstance(a, np.random.Generator) else random.Random(3),
    lambda a, b: Rights.READ | Rights.RUN,
    lambda a, b: Color.BLUE,
    lambda a, b: (..., np.dtype("f4"), np.float32(2.5), range(3), NotImplemented),
    lambda a, b: weak(a),
    lambda a, b: bytearray(b"ab"),
    lambda a, b: Thing(unset=UNSET, nothing=NOTHING),
]


def weak(a):
    try:
        return [weakref.ref(a), a]
    except TypeError:
        return weakref.ref(Thing())  # It is dead.


def build(choices):
    """Return a world of objects that refer to each other, some of them in cycles."""
    made = [None, 1.5, "text"]
    for maker, first, second in choices:
        a, b = made[first % len(made)], made[second % len(made)]
        made.append(MAKERS[maker](a, b))
    for maker, first, second in choices:
        holder, held = made[second % len(made)], made[first % len(made)]
        if isinstance(holder, Thing) and maker % 2:
            holder.late = held
        elif type(holder) is list:
            holder.append(held)
    return World(made=made, example=closure(1), last=made[-1])


CHOICES = st.lists(
    st.tuples(st.integers(0, len(MAKERS) - 1), st.integers(0, 30), st.integers(0, 30)),
    max_size=12,
)


@hypothesis.settings(PROPERTY, max_examples=300)
@hypothesis.given(CHOICES, CHOICES)
def test_a_graph_comes_back_in_another_one(saved, live):
    old, new = build(saved), build(live)
    assert reload(old, new) is new
    assert differ(old, new) is None


@hypothesis.settings(PROPERTY, max_examples=50)
@hypothesis.given(CHOICES)
def test_what_was_made_alike_stays_the_same_objects(choices):
    old, new = build(choices), build(choices)
    before = [*new.made]
    reload(old, new)
    unchanging = (tuple, frozenset, types.MethodType, functools.partial)
    unchanging += (float, str)
    for was, now in zip(before, new.made, strict=True):
        assert was is now or isinstance(now, unchanging)


@pytest.mark.parametrize("number", range(len(MAKERS)))
def test_each_object_is_made_where_there_is_none(number):
    old = World(made=MAKERS[number]([1], Thing(x=2)), example=closure(1))
    new = reload(old, World(example=closure(2)))
    assert differ(old, new) is None


def test_closures_share_what_they_shared():
    old, new = (World(pair=counter(x), apart=counter(x)[0]) for x in (3, 30))
    reload(old, new)
    assert new.pair[0]() == old.pair[0]() == 4
    assert new.pair[1]() == 4
    assert new.apart() == 4


def test_closures_that_are_live_in_one_cell_come_apart_again():
    up, read = counter(0)
    new = World(pair=(up, read), other=up, again=read)
    (a, b), (c, d) = counter(1), counter(5)
    reload(World(pair=(a, b), other=c, again=d), new)
    assert (new.pair[0](), new.other(), new.pair[1](), new.again()) == (2, 6, 2, 6)

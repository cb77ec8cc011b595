"""States of one structure: what one save worked out serves the next, and only then."""

import copy
import functools
import math
import threading
from collections import OrderedDict, deque
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elementsckpt import Ring
from elementsckpt.format import dtypes
from elementsckpt.format.manifest import encode_tree
from elementsckpt.state import flattening, grouping, recurring, stretches, structure

from support import strategies
from support.boxes import make, visible
from support.folders import component_of, manifest_of
from support.strategies import PROPERTY, Pair, assert_same

PARTS = np.dtype([("a", "i1"), ("b", "<i4")], align=True)
# Equal to that, but not aligned.
UNALIGNED = np.dtype(
    {"names": ["a", "b"], "formats": ["i1", "<i4"], "offsets": [0, 4], "itemsize": 8}
)


def content(encoded):
    """All that a save takes of an encoded state, for comparison."""
    storages = [
        [(x.dtype.str, x.shape, x.tobytes()) for x in some] for some in encoded.storages
    ]
    return bytes(encode_tree(encoded.tree)), storages, encoded.owners, encoded.unshared


def from_scratch(state):
    return content(grouping.encode(flattening.flatten(state, "agent"), "agent", {}))


def after(last, state):
    """Return the content of a state after another one, and how it was found."""
    with mock.patch.object(
        flattening, "flatten", side_effect=flattening.flatten
    ) as flattened:
        encoded, known = recurring.encode(state, "agent", {}, last)
    return content(encoded), known, not flattened.called


def known_of(state):
    return recurring.encode(state, "agent", {}, None)[1]


def check(before, state):
    """Compare what is found after another state with what is found from scratch."""
    found, known, _ = after(known_of(before), state)
    assert found == from_scratch(state)
    again, _, _ = after(known, state)
    assert again == found


def ones(*shape, dtype="<f4"):
    return np.ones(shape, dtype)


def noted(value, **attributes):
    vars(value).update(attributes)
    return value


ONE, BASE, NONE = ones(3), ones(4), ones(0)
VIEW = BASE[1:]
LIST = [1]
NAN = math.nan

SAME = {
    "other arrays": ({"a": ones(3), "b": [1, 2.0]}, {"a": ones(3) * 2, "b": [3, 4.0]}),
    "lists of lists": ([[ones(2), ones(3)]] * 0 or [[ones(2)], [ones(2)]],) * 2,
    "tuples": ((1, (ones(2), "x")), (2, (ones(2), "yy"))),
    "ordered": (OrderedDict(a=1, b=ones(1)), OrderedDict(a=2, b=ones(1))),
    "other numbers": ({1: ones(2), True + 1: 0.5}, {1: ones(2), 2: -0.0}),
    "in Fortran order": ([np.ones((3, 2)).T], [np.zeros((3, 2)).T]),
    "scattered": ([ones(6)[::2]], [np.zeros(6, "f4")[::2]]),
    "empty": ([ones(0), [], {}, [[]]], [ones(0), [], {}, [[]]]),
    "structured": ([np.zeros(2, PARTS)], [np.ones(2, PARTS)]),
    "a structured one of another dtype": ([np.zeros(2, PARTS)], [np.zeros(2, "i4,i2")]),
    "text": ([b"x", "y", bytearray(b"z")], [b"xy", "yz" * 1000, bytearray(2000)]),
    "long text": (["x", 1], ["y" * 2000, 1]),
    "a set": ([{1, 2}], [{3}]),
    "a set of what only pickle holds": ([{1}, 2], [{len}, 2]),
    "an array of another dtype": ([ones(3)], [np.ones(3)]),
    "an array of another shape": ([ones(3)], [ones(1, 3)]),
    "an array of other strides": ([ones(3)], [ones(6)[::2]]),
    "in another order": ([np.ones((2, 2))], [np.ones((2, 2)).T]),
    "another byte order": ([ones(3, dtype="<f4")], [ones(3, dtype=">f4")]),
    "objects": ([ones(3)], [np.array([None, 1, 2])]),
    "a view of another": ([ones(4), ones(2)], [BASE, BASE[1:3]]),
    "views that are apart": ([ones(2), ones(2)], [BASE[:2], BASE[2:]]),
    "views of views": ([ones(2), ones(1)], [BASE[:3][:2], BASE[3:]]),
    "views that overlap": ([ones(3), ones(3)], [BASE[:3], BASE[1:]]),
}
OTHER = {
    "a scalar of another type": ([1, 0.0], [True, 0.0]),
    "an equal float": ([1], [1.0]),
    "an array for a scalar": ([1.0], [np.array(1.0)]),
    "a scalar of NumPy": ([np.float32(1)], [np.float64(1)]),
    "a container for a leaf": ({"a": 1}, {"a": [1]}),
    "a leaf for a container": ([[1]], [1]),
    "a tuple for a list": ([[1]], [(1,)]),
    "an ordered dict": ({"a": {"b": 1}}, {"a": OrderedDict(b=1)}),
    "attributes": ([OrderedDict(a=1)], [noted(OrderedDict(a=1), x=ONE)]),
    "attributes of an empty one": ([OrderedDict()], [noted(OrderedDict(), x=ONE)]),
    "another order of keys": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "other keys": ({"a": 1}, {"b": 1}),
    "an equal key": ({1: 0}, {True: 0}),
    "an equal key, a float": ({1: 0}, {1.0: 0}),
    "a key of NumPy": ({1: 0}, {np.int64(1): 0}),
    "text of NumPy": ({"a": 0}, {np.str_("a"): 0}),
    "zeros": ({0.0: 1}, {-0.0: 1}),
    "tuples that are equal": ({(1,): 1}, {(True,): 1}),
    "more": ([1, 2], [1, 2, 3]),
    "fewer": ([1, 2], [1]),
    "moved": ([[1], [2, 3]], [[1, 2], [3]]),
    "an array twice": ([ones(3), ones(3)], [ONE, ONE]),
    "an array twice beside a scalar": ([ones(3), 1, ones(3)], [ONE, 1, ONE]),
    "an empty array twice": ([ones(0), ones(0)], [NONE, NONE]),
    "a view twice": ([ones(3), ones(3)], [VIEW, VIEW]),
    "a view of an empty array twice": ([ones(0), ones(0)], [BASE[4:]] * 2),
    "a list twice": ([[1], [1]], [LIST, LIST]),
    "no longer twice": ([ONE, ONE], [ones(3), ones(3)]),
    "a subclass": ([(1, 2)], [Pair(1, 2)]),
    "a ring": ([ones(3)], [Ring(ones(3), 1)]),
    "another class of array": ([ones(3)], [ones(3).view(np.recarray)]),
    "code": ([1], [len]),
    "an object": ([1], [1 << 3, object]),
    "maximal lengths": ([deque([1], 3)], [deque([1], 4)]),
    "keys with surrogates": ({"a": 1}, {"\ud800": 1}),
    "the state itself": ({"a": 1}, [1]),
    "a leaf": ({"a": 1}, ONE),
}


@pytest.mark.parametrize("name", SAME)
def test_a_structure_that_recurs_is_not_worked_out_again(name):
    before, state = SAME[name]
    check(before, state)
    _, _, is_known = after(known_of(before), state)
    assert is_known


@pytest.mark.parametrize("name", OTHER)
def test_another_structure_is_noticed(name):
    before, state = OTHER[name]
    check(before, state)
    check(state, before)
    _, _, is_known = after(known_of(before), state)
    assert not is_known


def test_descriptions_of_equal_dtypes_are_their_own():
    assert PARTS == UNALIGNED
    state = [np.zeros(2, PARTS), np.zeros(2, UNALIGNED), np.ones(2, PARTS)]
    tree = grouping.encode(flattening.flatten(state, ""), "", {}).tree
    assert sorted(x.dtype["aligned"] for x in tree.leaves) == [False, True]
    check([np.zeros(2, PARTS)] * 1, [np.zeros(2, UNALIGNED)])


def test_what_is_changed_in_place_is_noticed():
    array, parts = np.ones(6, "<f4"), np.zeros(2, np.dtype([("a", "<i4")]))
    state = {"array": array, "list": [1, 2], "parts": parts}
    known = known_of(state)

    def reshape():
        array.shape = 2, 3

    def retype():
        array.dtype = "<i4"

    def rename():
        parts.dtype.names = ("b",)

    for change in (
        reshape,
        retype,
        rename,
        lambda: state["list"].append(3),
        lambda: state.update(array=state.pop("array")),
    ):
        change()
        found, known, _ = after(known, state)
        assert found == from_scratch(state)


# Any state, and one change


@functools.cache
def nested():
    arrays = strategies.arrays() | st.builds(ones, st.integers(0, 2), st.just(2))
    leaves = arrays | strategies.scalars() | st.sampled_from([1, True, 1.0, "a"])

    def containers(inside):
        tables = st.dictionaries(
            strategies.keys().filter(strategies.hashable) | st.sampled_from("ab"),
            inside,
        )
        return st.one_of(
            st.lists(inside, max_size=3),
            st.lists(inside, max_size=3).map(tuple),
            tables,
            tables.map(OrderedDict),
            tables.map(lambda table: noted(OrderedDict(table), x=1)),
            st.builds(Pair, inside, inside),
        )

    return st.recursive(leaves, containers, max_leaves=12)


def places(state, path=()):
    """Yield the paths of all containers and leaves."""
    yield path
    if isinstance(state, dict):
        for index, value in enumerate(state.values()):
            yield from places(value, (*path, index))
    elif isinstance(state, list | tuple):
        for index, value in enumerate(state):
            yield from places(value, (*path, index))


def at(state, path):
    for index in path:
        state = [*state.values()][index] if isinstance(state, dict) else state[index]
    return state


def put(state, path, new):
    """Return the state with another object at a place, in new containers."""
    if not path:
        return new
    index, *rest = path
    if isinstance(state, dict):
        made = copy.copy(state)
        key = [*state][index]
        made[key] = put(state[key], rest, new)
        return made
    items = [*state]
    items[index] = put(items[index], rest, new)
    return type(state)(*items) if type(state) is Pair else type(state)(items)


@st.composite
def changed(draw):
    """Two states, of which the other one differs in one place, or not at all."""
    state = draw(nested())
    found = [*places(state)]
    path = draw(st.sampled_from(found))
    old = at(state, path)
    change = draw(st.sampled_from(["same", "other", "alias", "copy", "order", "view"]))
    if change == "other":
        return state, put(state, path, draw(nested()))
    if change == "alias":
        return state, put(state, path, at(state, draw(st.sampled_from(found))))
    if change == "copy":
        return state, put(state, path, copy.deepcopy(old))
    if change == "order" and isinstance(old, dict):
        return state, put(state, path, type(old)(reversed(old.items())))
    if change == "view" and isinstance(old, np.ndarray):
        return state, put(state, path, old[..., None].view())
    return state, copy.deepcopy(state)


@PROPERTY
@given(changed())
def test_one_change_in_any_state_is_noticed(states):
    before, state = states
    for one, other in ((before, state), (state, before), (state, state)):
        check(one, other)


@PROPERTY
@given(changed())
def test_both_saves_load_as_what_was_saved(tmp_path_factory, states):
    directory = tmp_path_factory.mktemp("run")
    cp = make(directory, None, fsync=False, keep=None)
    for state in (*states, states[0]):
        cp.agent.state = state
        cp.save()
        other = make(directory, None)
        other.load(cp.latest())
        assert_same(state, other.agent.state)


# What a save works out


def test_a_failed_save_leaves_nothing_wrong_behind(tmp_path):
    cp = make(tmp_path, {"a": ones(3), "b": [1, 2]}, fsync=False, keep=None)
    cp.save()
    cp.agent.state = {"a": ones(3), "b": [1, threading.Lock()]}
    with pytest.raises(Exception, match="cannot be saved"):
        cp.save()
    for state in ({"a": ones(3), "b": [1, 3]}, {"a": ones(2), "b": (1, 3)}):
        cp.agent.state = state
        cp.save()
        other = make(tmp_path, None)
        other.load()
        assert_same(state, other.agent.state)


def replay(count, dtype_of):
    random = np.random.default_rng(0)
    items = []
    for number in range(count):
        item = np.zeros((), dtype_of(number))
        item["data"] = random.integers(0, 256, item["data"].shape)
        items.append([item])
    return items


def parts_of(number):
    return np.dtype([("data", "u1", (1000 + number * 7 % 50,)), ("shape", "<i4")])


def test_structured_arrays_of_one_form_are_groups(tmp_path):
    cp = make(tmp_path, replay(5000, parts_of), fsync=False, keep=None)
    first = cp.save()
    component = component_of(first.path)
    groups = component["trees"][0]["leaves"]
    assert len(groups) < 1000
    other = make(tmp_path, None)
    other.load()
    assert_same(cp.agent.state, other.agent.state)


def test_what_changes_in_one_place_changes_few_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(stretches, "_MEAN_BYTES", 1 << 18)
    cp = make(tmp_path, replay(10_000, parts_of), fsync=False, keep=None)
    first = cp.save()
    random = np.random.default_rng(1)
    for [item] in cp.agent.state[3000:3100]:
        item["data"] = random.integers(0, 256, item["data"].shape)
    del cp.agent.state[:110]
    cp.agent.state += replay(100, lambda number: parts_of(number + 3))
    second = cp.save()
    assert second.bytes_written - manifest_bytes(second.path) < first.bytes_total / 2
    other = make(tmp_path, None)
    other.load()
    assert_same(cp.agent.state, other.agent.state)


def manifest_bytes(save):
    assert manifest_of(save)
    return (save / "manifest.json").stat().st_size


def test_each_dtype_is_described_once(monkeypatch):
    made = [parts_of(number) for number in range(50)]
    state = [np.zeros((), made[number % 50]) for number in range(1000)]
    encode = mock.Mock(side_effect=dtypes._encode_fields)
    monkeypatch.setattr(dtypes, "_encode_fields", encode)
    grouping.encode(flattening.flatten(state, ""), "", {})
    assert encode.call_count <= 3 * 50


def test_no_more_leaves_are_known_than_is_allowed(monkeypatch):
    state = [1, 2, 3]
    assert structure.of(flattening.flatten(state, "")) is not None
    monkeypatch.setattr(structure, "_MOST_LEAVES", 2)
    assert structure.of(flattening.flatten(state, "")) is None


def test_saves_of_one_structure_do_not_flatten(tmp_path):
    state = {f"layer{i}": {"w": ones(3), "b": 1.0} for i in range(9)}
    cp = make(tmp_path, state, fsync=False)
    cp.save()
    with mock.patch.object(flattening, "flatten", side_effect=AssertionError):
        for layer in state.values():
            layer.update(w=layer["w"] + 1, b=layer["b"] + 1)
        cp.save()
    assert len(visible(tmp_path)) >= 1
    other = make(tmp_path, None)
    other.load()
    assert_same(state, other.agent.state)

"""Leaves that have the same name: they are told apart by the keys that lead to them."""

import collections
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elementsckpt import Checkpoint, MismatchError, load_pytree, save_pytree

from support.boxes import Lazy, make
from support.strategies import PROPERTY

KEYS = st.sampled_from(["", "a", "a/b", "/a", "b", "0", 0, "1", 1, 1.5, "1.5", None])


def nested(children):
    return st.dictionaries(KEYS, children, max_size=3) | st.lists(children, max_size=2)


TREES = st.recursive(st.just(0), nested, max_leaves=6)


def numbered(tree, numbers):
    """Return the tree with leaves that all differ."""
    if isinstance(tree, dict):
        return {key: numbered(value, numbers) for key, value in tree.items()}
    if isinstance(tree, list):
        return [numbered(value, numbers) for value in tree]
    return next(numbers)


def turned(tree):
    """Return the tree with its keys in the reverse order, and other leaves."""
    if isinstance(tree, dict):
        return {key: turned(tree[key]) for key in reversed(tree)}
    return list(map(turned, tree)) if isinstance(tree, list) else -1


@PROPERTY
@given(TREES)
def test_a_part_loads_into_a_state_in_another_order(tree):
    saved = {"x": numbered(tree, iter(range(100))), "step": 100}
    with tempfile.TemporaryDirectory() as directory:
        make(directory, saved, fsync=False).save()
        cp = make(directory, turned(saved))
        cp.load(regex="")
    assert cp.agent.state == saved


@PROPERTY
@given(TREES)
def test_a_pytree_loads_into_a_template_in_another_order(tree):
    saved = numbered(tree, iter(range(100)))
    with tempfile.TemporaryDirectory() as directory:
        save_pytree(f"{directory}/tree", saved, fsync=False)
        assert load_pytree(f"{directory}/tree", turned(saved)) == saved


def test_leaves_that_cannot_be_told_apart_are_refused(tmp_path):
    make(tmp_path, {"a/b/c": 1, "a": {"b/c": 2}}).save()
    cp = make(tmp_path, {"a/b": {"c": 8}, "a": {"b": {"c": 9}}})
    with pytest.raises(MismatchError, match=r"2 saved leaves .* in other places than"):
        cp.load(regex="a")
    assert cp.agent.state == {"a/b": {"c": 8}, "a": {"b": {"c": 9}}}


def test_keys_that_equal_nothing_do_not_tell_leaves_apart(tmp_path):
    nans = float("nan"), float("nan")
    make(tmp_path, dict.fromkeys(nans, 1)).save()
    cp = make(tmp_path, dict.fromkeys(nans, 2))
    with pytest.raises(MismatchError, match="nan: 2 saved leaves have this name"):
        cp.load(regex="")
    assert [*cp.agent.state.values()] == [2, 2]
    cp.load()
    assert [*cp.agent.state.values()] == [1, 1]


def test_one_of_a_name_on_each_side_is_a_pair(tmp_path):
    make(tmp_path, {"a/b": 1, "a": {"b": 2}, "c/d": 3}).save()
    cp = make(tmp_path, {"a": {"b": 8}, "a/b": 9, "c": {"d": 7}})
    cp.load(regex="")
    assert cp.agent.state == {"a": {"b": 2}, "a/b": 1, "c": {"d": 3}}


def test_renamed_leaves_are_told_apart(tmp_path):
    make(tmp_path, {"old": {"a/b": 1, "a": {"b": 2}}}).save()
    cp = make(tmp_path, {"new": {"a": {"b": 8}, "a/b": 9}})
    cp.load(regex="", rename={"^old": "new"})
    assert cp.agent.state == {"new": {"a": {"b": 2}, "a/b": 1}}


@pytest.mark.parametrize(
    ("saved", "current"),
    [
        ({"o": {1: 5, "1": 6}}, {}),
        ({"a/b": 5, "a": {"b": 6}}, {}),
        ({"a/b": 5, "a": {"b": 6}}, {"a/b": None, "a": {"b": None}}),
        ({"a/b": 5, "a": {"b": 6}}, {"a": {"b": 0}}),
    ],
)
def test_all_of_one_name_are_added(tmp_path, saved, current):
    cp = Checkpoint(tmp_path, fsync=False)
    cp.c = Lazy({**saved, "step": 1})
    cp.save()
    cp.c = grown = Lazy({**current, "step": 0})
    if current == {"a": {"b": 0}}:  # One of two is there.
        with pytest.raises(MismatchError, match="2 saved leaves have this name"):
            cp.load(regex="")
    else:
        cp.load(regex="")
        assert grown.state == {**saved, "step": 1}


def test_attributes_go_to_the_containers_that_they_are_of(tmp_path):
    def state(first, second):
        tables = {1: collections.OrderedDict(), "1": collections.OrderedDict()}
        tables[1].meta, tables["1"].meta = first, second
        return tables

    make(tmp_path, {"x": 3, **state("int", "text")}).save()
    cp = make(tmp_path, {"x": 0, **dict(reversed(state("a", "b").items()))})
    cp.load(regex="")
    found = {
        type(key): table.meta for key, table in cp.agent.state.items() if key != "x"
    }
    assert found in ({int: "int", str: "text"}, {int: "a", str: "b"})

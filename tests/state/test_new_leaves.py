"""Partial loads into components that do not have all of their state dict yet."""

import collections
import dataclasses
import typing
from collections import Counter, OrderedDict

import numpy as np
import pytest

from elementsckpt import Checkpoint, MismatchError

from support.boxes import Box, Lazy
from support.strategies import assert_same


class Lazier(Lazy):
    """Likewise, by the other protocol."""

    to_state_dict = Lazy.state_dict
    from_state_dict = Lazy.load_state_dict
    state_dict = load_state_dict = None


class Pair(typing.NamedTuple):
    first: object
    second: object


@dataclasses.dataclass
class Point:
    x: object


def moments(value=1.0):
    """Return the state of an optimizer that has stepped."""
    return {
        "state": {
            number: {"step": 3, "mean": np.full(2, value, np.float32), "history": []}
            for number in range(3)
        },
        "param_groups": [{"lr": 0.1, "params": [0, 1, 2]}],
    }


def fresh():
    return {"state": {}, "param_groups": [{"lr": 0.5, "params": [0, 1, 2]}]}


def load(directory, state, now, component=Lazy, **options):
    """Save one state and load it into another; return what that is then."""
    cp = Checkpoint(directory, fsync=False)
    cp.opt = component(state)
    cp.save()
    cp.opt = component(now)
    report = cp.load(**options)
    return cp.opt.state, report


WAYS = {
    "regex": {"regex": ".*"},
    "rename": {"rename": {"^nothing": ""}},
    "cast": {"cast": True},
    "not strict": {"strict": False},
}


@pytest.mark.parametrize("component", [Lazy, Lazier])
@pytest.mark.parametrize("way", WAYS)
def test_what_is_not_there_yet_is_taken(tmp_path, way, component):
    state, report = load(tmp_path, moments(), fresh(), component, **WAYS[way])
    assert_same(moments(), state)
    assert len(report.loaded) == 6 + 4
    assert (report.missing, report.unexpected, report.mismatched) == ((), (), ())


def with_note(container, note):
    container.note = note
    return container


def test_what_is_new_has_the_attributes_that_it_had(tmp_path):
    def state(note):
        inner = {"a": [with_note(OrderedDict(m=np.ones(2)), note)]}
        inner["b"] = with_note(OrderedDict(), note)
        return {"state": with_note(OrderedDict(inner), note), "n": 1}

    def now():
        return {"state": with_note(OrderedDict(), "of now"), "n": 2}

    found, _ = load(tmp_path, state("saved"), now(), regex=".*")
    assert_same(state("saved"), found)
    found, _ = load(tmp_path / "2", state("saved"), now(), regex="state/a")
    assert found["state"].note == "of now"
    assert found["state"]["a"][0].note == "saved"


def test_what_grows_keeps_its_attributes(tmp_path):
    now = {"c": with_note(Counter(a=5), "of now")}
    found, _ = load(tmp_path, {"c": Counter(a=1, b=2)}, now, regex="c/b")
    assert_same({"c": with_note(Counter(a=5, b=2), "of now")}, found)


def test_a_dry_run_tells_of_it(tmp_path):
    state, report = load(tmp_path, moments(), fresh(), regex="state", dry_run=True)
    assert state == fresh()
    assert "opt/state/2/mean" in report.loaded
    assert len(report.loaded) == 6


def test_only_what_is_selected_is_taken(tmp_path):
    state, report = load(tmp_path, moments(), fresh(), regex="state/1/(mean|hist)")
    expected = {**fresh(), "state": {1: moments()["state"][1]}}
    del expected["state"][1]["step"]
    assert_same(expected, state)
    assert report.loaded == ("opt/state/1/mean",)


def test_what_is_there_is_replaced_and_the_rest_taken(tmp_path):
    now = {**fresh(), "state": {1: {"step": 0, "mean": np.zeros(2, np.float32)}}}
    state, _ = load(tmp_path, moments(), now, regex=".*")
    assert state["state"].keys() == {0, 1, 2}
    assert state["state"][1]["history"] == []
    assert_same(moments()["state"][2], state["state"][2])
    assert state["state"][1]["mean"].tolist() == [1, 1]


def test_the_current_state_stays_as_it_is(tmp_path):
    now = {"a": {"b": [{"c": 1}], "d": 5}, "e": collections.OrderedDict()}
    copies = {"a": {"b": [{"c": 1}], "d": 5}, "e": collections.OrderedDict()}
    saved = {"a": {"b": [{"c": 1, "x": 2}]}, "e": {"f": 3}}
    state, _ = load(tmp_path, saved, now, regex=".*", strict=False)
    assert_same(copies, now)
    expected = {
        "a": {"b": [{"c": 1, "x": 2}], "d": 5},
        "e": collections.OrderedDict(f=3),
    }
    assert_same(expected, state)


@pytest.mark.parametrize(
    ("saved", "now"),
    [
        ({"x": np.ones(3)}, {"x": None}),
        ({"x": {"y": [1, (2, {})]}}, {"x": None}),
        ({"x": None}, {"x": None}),
        ({"x": [np.ones(2), {"a": ()}, []]}, {"x": []}),
        ({"x": ((), 1)}, {"x": ()}),
        ({"x": collections.deque([1, 2], 5)}, {"x": collections.deque(maxlen=5)}),
        ({"x": collections.defaultdict(list, {2: [1]})}, {}),
        ({"x": collections.Counter(a=2)}, {"x": collections.Counter()}),
        ({"x": {(1, "a"): 2, None: 3}}, {}),
        ({"x": {}, "y": 1}, {}),
        ({"x": [[], {}], "y": 1}, {}),
        ({"x": np.random.default_rng(3)}, {}),
        ({"x": (1, [2])}, {"x": []}),
    ],
)
def test_it_is_taken_as_it_was_saved(tmp_path, saved, now):
    state, _ = load(tmp_path, saved, now, regex=".*")
    assert_same(saved, state)


def test_one_object_in_two_places_stays_one(tmp_path):
    array = np.ones(3)
    state, report = load(tmp_path, {"a": array, "b": {"c": array}}, {}, regex=".*")
    assert state["a"] is state["b"]["c"]
    assert set(report.loaded) == {"opt/a", "opt/b/c"}


def test_pickled_leaves_are_taken_too(tmp_path):
    saved = {"x": {"f": [1, lambda: 7, np.ones(2)]}}
    state, _ = load(tmp_path, saved, {}, regex="x")
    assert state["x"]["f"][1]() == 7


@pytest.mark.parametrize(
    ("rename", "expected"),
    [
        ({"old": "new"}, {"state": {"new.w": {"mean": 1}, 3: {"mean": 2}}}),
        ({"state/3": "state/4"}, {"state": {"old.w": {"mean": 1}, 4: {"mean": 2}}}),
        ({"mean": "m"}, {"state": {"old.w": {"m": 1}, 3: {"m": 2}}}),
    ],
)
def test_it_is_taken_under_its_new_name(tmp_path, rename, expected):
    saved = {"state": {"old.w": {"mean": 1}, 3: {"mean": 2}}}
    state, report = load(tmp_path, saved, {"state": {}}, rename=rename)
    assert_same(expected, state)
    assert report.unexpected == ()


def test_slashes_in_keys_stay_there(tmp_path):
    saved = {"params": {"torso/w": np.ones(2), "torso/b": np.zeros(1)}}
    state, _ = load(tmp_path, saved, {"params": {}}, rename={"torso": "net/torso"})
    assert_same(
        {"params": {"net/torso/w": np.ones(2), "net/torso/b": np.zeros(1)}}, state
    )


REFUSED = {
    "another shape": ({"x": np.ones(2)}, {"x": np.ones(3)}, "x: saved float64"),
    "another type": ({"x": 1}, {"x": "a"}, "x: saved int, expected str"),
    "nothing where something is": ({"x": None}, {"x": 1}, "x: saved NoneType"),
    "what is only here": ({"x": 1}, {"x": 1, "y": 2}, "y: not in the save"),
    "nothing that is only here": ({"x": 1}, {"x": 1, "y": None}, "y: not in the save"),
    "a longer list": ({"x": [1, 2]}, {"x": [1]}, "x/1: only in the save"),
    "a leaf in the way": ({"x": {"y": 1}}, {"x": 2}, "x/y: only in the save"),
    "a list for a dict": ({"x": [1]}, {"x": {"a": 1}}, "x/0: only in the save"),
    "a class of its own": ({"x": Pair(1, 2)}, {}, "x/first: only in the save"),
    "a class of its own inside": ({"x": [Point(1)]}, {}, "x/0/x: only in the save"),
    "a field": ({"x": Point(1)}, {"x": Point(None)}, "x/x: saved int"),
    "a rename to another level": ({"old": {"a": 1}}, {}, "new/level/a: only in"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_place_is_still_an_error(tmp_path, name):
    saved, now, said = REFUSED[name]
    with pytest.raises(MismatchError, match=f"opt/{said}"):
        load(tmp_path, saved | {"z": 1}, now | {"z": 0}, rename={"old": "new/level"})


def test_a_part_of_a_list_is_no_list(tmp_path):
    saved = {"x": [{"a": 1}, {"b": 2}], "y": 3}
    with pytest.raises(MismatchError, match="opt/x/1/b: only in the save"):
        load(tmp_path, saved, {"x": [], "y": 0}, regex="x/1|y")


def test_a_component_that_loads_what_it_saves_takes_only_what_it_has(tmp_path):
    with pytest.raises(MismatchError, match="opt/state/0/mean: only in the save"):
        load(tmp_path, moments(), fresh(), Box, regex=".*")
    state, report = load(tmp_path, moments(), fresh(), Box, strict=False)
    assert state["state"] == {}
    assert "opt/state/0/mean" in report.unexpected

"""`Value` as a component: its value is the template of what is loaded."""

import dataclasses
import threading
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elementsckpt
from elementsckpt import (
    Checkpoint,
    ComponentError,
    DamagedError,
    MismatchError,
    StateError,
    Value,
)

from support.boxes import Box, Stream, block_with, damage


class State(typing.NamedTuple):
    params: typing.Any
    step: typing.Any


@dataclasses.dataclass(frozen=True)
class Stats:
    mean: typing.Any
    count: int = 0


def state(value, step=0):
    params = {"enc": {"w": np.full((2, 3), float(value))}, "b": np.full(2, int(value))}
    return State(params, step)


def opened(directory, *values, **more):
    """Return a checkpoint of values called a, b, ..., and of components by name."""
    cp = Checkpoint(directory)
    for key, value in zip("abc", values, strict=False):
        setattr(cp, key, Value(value))
    for key, component in more.items():
        setattr(cp, key, component)
    return cp


def assert_equal(expected, actual):
    trees = expected, actual
    one, other = map(jax.tree_util.tree_structure, trees)
    assert one == other
    for pair in zip(*map(jax.tree_util.tree_leaves, trees), strict=True):
        np.testing.assert_array_equal(*pair)


def test_a_value_is_the_object_that_was_registered_and_can_be_set(tmp_path):
    cp = Checkpoint(tmp_path)
    value = Value(1)
    cp.state = value
    assert cp.state is value
    cp.state.value = 2
    assert value.value == 2
    cp.save()
    cp.state.value = 0
    cp.load()
    assert value.value == 2


def test_a_run_resumes_from_its_value(tmp_path):
    def run(steps):
        cp = opened(tmp_path, state(0))
        resumed = cp.load_or_save()
        for _ in range(steps):
            old = cp.a.value
            params = jax.tree_util.tree_map(lambda x: x + 1, old.params)
            cp.a.value = State(params, old.step + 1)
        cp.save()
        return resumed, cp.a.value

    resumed, value = run(3)
    assert not resumed
    assert_equal(state(3, 3), value)
    resumed, value = run(2)
    assert resumed
    assert_equal(state(5, 5), value)


def test_loading_changes_nothing_in_the_old_value(tmp_path):
    opened(tmp_path, state(1)).save()
    old = state(0)
    cp = opened(tmp_path, old)
    cp.load()
    assert_equal(state(1), cp.a.value)
    assert_equal(state(0), old)


def test_a_save_holds_leaves_by_their_natural_names(tmp_path):
    cp = opened(tmp_path, State({"enc": {"w": jnp.ones(2)}}, Stats(np.ones(1))))
    report = cp.save()
    assert report.pickled == ()
    assert set(cp.load(dry_run=True).loaded) == {
        *("a/params/enc/w", "a/step/mean", "a/step/count"),
    }
    read = elementsckpt.read(tmp_path)["a"]
    assert type(read) is dict
    assert read["step"]["count"] == 0
    assert read["params"]["enc"]["w"].tolist() == [1, 1]


def test_a_plain_object_reads_what_a_value_saved(tmp_path):
    opened(tmp_path, state(1)).save()
    cp = Checkpoint(tmp_path)
    cp.a = Box()
    cp.load()
    np.testing.assert_equal(
        cp.a.state,
        {"params": {"b": np.ones(2, int), "enc": {"w": np.ones((2, 3))}}, "step": 0},
    )


def test_a_value_takes_what_a_plain_object_saved(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.a = Box(state(1, np.int64(5)))
    cp.save()
    cp = opened(tmp_path, state(0))
    cp.load()
    assert_equal(state(1, 5), cp.a.value)


# What does not fit


def test_one_mismatch_and_no_component_changes(tmp_path):
    cp = opened(tmp_path, state(1), state(1), first=Box(1), last=Box(1))
    cp.save()
    values = state(0), State({"enc": {}, "b": np.zeros(2, int)}, 0)
    cp = opened(tmp_path, *values, first=Box(0), last=Box(0))
    with pytest.raises(MismatchError, match="b/params/enc/w: only in the save"):
        cp.load()
    assert (cp.a.value, cp.b.value) == values
    assert (cp.first.loads, cp.last.loads) == (0, 0)


def test_mismatches_of_several_values_are_in_one_error(tmp_path):
    opened(tmp_path, {"w": np.ones(2)}, {"w": np.ones(2)}, {"w": 1}).save()
    cp = opened(tmp_path, {"w": np.ones(3)}, {"v": np.ones(2)}, {"w": 0})
    with pytest.raises(MismatchError, match="differ in 3 leaves") as error:
        cp.load()
    for line in (
        "a/w: saved float64[2], expected float64[3]",
        "b/v: not in the save",
        "b/w: only in the save",
    ):
        assert f"\n  {line}\n" in str(error.value)
    assert "c/w" not in str(error.value)


def test_the_error_shows_the_way(tmp_path):
    opened(tmp_path, {"w": np.ones(2), "old": 1}).save()
    current = {"w": np.zeros(2), "new": 0}
    cp = opened(tmp_path, current)
    with pytest.raises(MismatchError, match=r"strict=False") as error:
        cp.load()
    assert str(cp.latest()) in str(error.value)
    cp.load(strict=False)
    assert cp.a.value["w"].tolist() == [1, 1]
    assert cp.a.value["new"] == 0


def test_a_dry_run_reports_what_does_not_fit(tmp_path):
    opened(tmp_path, {"w": np.ones(2), "v": 1, "old": 1}, 5).save()
    cp = opened(tmp_path, {"w": np.ones(3), "v": 0, "new": 1}, 0)
    report = cp.load(dry_run=True)
    assert set(report.mismatched) == {"a/w"}
    assert set(report.missing) == {"a/new"}
    assert set(report.unexpected) == {"a/old"}
    assert set(report.loaded) == {"a/v", "b"}
    assert cp.b.value == 0


def test_shards_do_not_fit_a_value(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.a = Stream([1, 2])
    cp.save()
    with pytest.raises(MismatchError, match=r"'a' .*was saved in shards"):
        opened(tmp_path, [0, 0]).load()


def test_a_mismatch_falls_back_to_no_older_save(tmp_path):
    cp = Checkpoint(tmp_path, keep=None)
    cp.a = Value(np.ones(2))
    cp.save()
    cp.a.value = np.ones(3)
    cp.save()
    cp.a.value = np.zeros(2)
    with pytest.raises(MismatchError, match="saved float64"):
        cp.load()


def test_damage_falls_back_to_an_older_save(tmp_path):
    cp = Checkpoint(tmp_path, keep=None, compress=None)
    cp.a, cp.box = Value({"w": np.ones(50_000)}), Box(1)
    cp.save()
    cp.a.value, cp.box.state = {"w": np.full(50_000, 2.0)}, 2
    cp.save()
    damage(block_with(cp.latest(), np.full(100, 2.0).tobytes()))
    report = cp.load()
    assert report.fell_back_from == cp.saves()[-1].path
    assert (cp.a.value["w"][0], cp.box.state) == (1, 1)
    with pytest.raises(DamagedError, match="a/w"):
        cp.load(report.fell_back_from)


# Together with other components


def test_components_are_loaded_in_the_order_of_their_registration(tmp_path):
    order = []

    class Watched(Box):
        def load(self, data):
            order.append(("box", cp.a.value, data))

    cp = Checkpoint(tmp_path)
    cp.before, cp.a, cp.after = Watched(1), Value(2), Watched(3)
    cp.save()
    cp.a.value = 0
    report = cp.load()
    assert order == [("box", 0, 1), ("box", 2, 3)]
    assert set(report.loaded) == {"before", "a", "after"}


def test_values_without_leaves_are_values(tmp_path):
    cp = opened(tmp_path, (), {"a": [None]})
    cp.save()
    cp.load()
    assert (cp.a.value, cp.b.value) == ((), {"a": [None]})


def test_some_components_can_be_chosen(tmp_path):
    opened(tmp_path, 1, np.ones(2)).save()
    cp = opened(tmp_path, 0, np.ones(3))
    assert cp.load(keys=["a"]).loaded == ("a",)
    assert cp.a.value == 1


def test_a_background_save_owns_the_value(tmp_path):
    array = np.zeros(100_000)
    with Checkpoint(tmp_path, background=True) as cp:
        cp.a = Value({"w": array, "j": jnp.ones(3)})
        cp.save()
        array += 1
        cp.wait()
        cp.load()
        assert not cp.a.value["w"].any()
        assert isinstance(cp.a.value["j"], jax.Array)


def test_what_did_not_change_is_not_written_again(tmp_path):
    cp = Checkpoint(tmp_path, keep=None, compress=None)
    cp.a = Value({"w": np.random.default_rng(0).normal(size=500_000), "n": 0})
    first = cp.save()
    cp.a.value = {**cp.a.value, "n": 1}
    assert cp.save().bytes_written < first.bytes_written / 100


# Parts


def test_a_part_is_loaded_by_regex(tmp_path):
    opened(tmp_path, state(1, 7)).save()
    cp = opened(tmp_path, state(0))
    kept = cp.a.value.params["b"]
    report = cp.load(regex="params/enc")
    assert report.loaded == ("a/params/enc/w",)
    assert type(cp.a.value) is State
    assert cp.a.value.params["enc"]["w"].tolist() == [[1] * 3] * 2
    assert cp.a.value.params["b"] is kept
    assert cp.a.value.step == 0


def test_other_components_are_loaded_by_the_same_regex(tmp_path):
    opened(tmp_path, {"w": 1, "v": 1}, box=Box({"w": 1, "v": 1})).save()
    cp = opened(tmp_path, {"w": 0, "v": 0}, box=Box({"w": 0, "v": 0}))
    cp.load(regex="w")
    assert cp.a.value == cp.box.state == {"w": 1, "v": 0}


def test_leaves_are_renamed_and_cast(tmp_path):
    opened(tmp_path, {"old": np.ones(2)}).save()
    cp = opened(tmp_path, Stats(np.zeros(2, np.float32), 3))
    cp.load(rename={"old": "mean"}, cast=True, strict=False)
    assert cp.a.value.mean.dtype == np.float32
    assert (cp.a.value.mean.tolist(), cp.a.value.count) == ([1, 1], 3)


def test_read_shows_a_part(tmp_path):
    opened(tmp_path, state(1)).save()
    read = elementsckpt.read(tmp_path, regex="params/enc")
    np.testing.assert_equal(read, {"a": {"params": {"enc": {"w": np.ones((2, 3))}}}})


def test_numbers_fit_in_any_partial_load(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.box = Box({"step": jnp.int32(5), "x": 0.5})
    cp.save()
    cp.box.state = {"step": 0, "x": 0}
    cp.load(regex="step")
    assert cp.box.state == {"step": 5, "x": 0}
    cp.load(regex=".*")
    assert cp.box.state == {"step": 5, "x": 0.5}
    cp.box.state = {"step": 0, "x": False}
    with pytest.raises(MismatchError, match=r"box/x: saved float, expected bool"):
        cp.load(regex=".*")


# Without a checkpoint


def test_save_and_load_of_a_value_are_inverse():
    value = Value(state(1, 5))
    saved = value.save()
    assert type(saved) is dict
    value.value = state(0)
    value.load(saved)
    assert_equal(state(1, 5), value.value)


def test_load_takes_a_value_like_its_own():
    value = Value({"w": jnp.zeros(2), "s": state(0)})
    value.load({"w": np.ones(2, np.float32), "s": state(1)})
    assert isinstance(value.value["w"], jax.Array)
    assert_equal(state(1), value.value["s"])


def test_load_checks_as_well():
    value = Value({"a": np.zeros(2), "b": False, "c": 0})
    old = value.value
    with pytest.raises(MismatchError, match="differ in 3 leaves") as error:
        value.load({"a": np.ones(3), "b": 0.5, "d": 1, "c": 1})
    for name in ("a: saved", "b: saved float", "d: only"):
        assert f"\n  {name}" in str(error.value)
    assert value.value is old


def test_the_functional_form_takes_its_methods(tmp_path):
    value = Value(State({"w": jnp.ones(2)}, 1))
    elementsckpt.checkpoint.save(tmp_path / "a", {"any text": value.save})
    value.value = State({"w": jnp.zeros(2)}, 0)
    elementsckpt.checkpoint.load(tmp_path / "a", {"any text": value.load})
    assert value.value.step == 1
    assert value.value.params["w"].tolist() == [1, 1]
    value.value = State({"w": jnp.zeros(3)}, 0)
    with pytest.raises(MismatchError, match="params/w"):
        elementsckpt.checkpoint.load(tmp_path / "a", {"any text": value.load})


def test_a_subclass_may_load_in_its_own_way(tmp_path):
    class Doubled(Value):
        def save(self):
            return {"half": self.value / 2}

        def load(self, data):
            self.value = data["half"] * 2

    cp = Checkpoint(tmp_path)
    cp.a = Doubled(6)
    cp.save()
    cp.a.value = 0
    cp.load()
    assert cp.a.value == 6
    assert elementsckpt.read(tmp_path) == {"a": {"half": 3}}


# What cannot be


def test_shapes_are_filled_by_load_and_refused_by_save(tmp_path):
    def init():
        return State({"w": jnp.ones((2, 3))}, jnp.int32(1))

    cp = opened(tmp_path, init())
    cp.save()
    cp.a.value = jax.eval_shape(init)
    with pytest.raises(StateError, match="params/w is") as error:
        cp.save()
    assert any("'a'" in note for note in error.value.__notes__)
    cp.load()
    assert_equal(init(), cp.a.value)
    cp.save()


def test_a_tree_that_is_registered_as_it_is_gets_told_of_value():
    with pytest.raises(ComponentError, match=r"cp\.state = elementsckpt\.Value\(it\)"):
        Checkpoint().state = {"w": np.ones(2)}


def test_a_leaf_that_cannot_be_saved_is_named(tmp_path):
    cp = opened(tmp_path, {"lock": [threading.Lock()]})
    with pytest.raises(StateError, match="a/lock/0"):
        cp.save()
    assert cp.latest() is None

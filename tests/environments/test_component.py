"""`Environment`: saved in the middle of an episode, and loaded in place."""

import gc
import json
import logging
import sys

import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint, Environment, MismatchError, StateError
from elementsckpt.testing import check_resume

from support.boxes import Box
from support.worlds import Other, Steps, Thing, World, Wrapper, roll

REMEDY = (
    "Remove it, give parts={type: (save, load)}, or parts={type: None} if no step "
    "depends on it."
)


def lived(seed, steps):
    env = Wrapper(Wrapper(Steps(), seen=[seed]), note=seed)
    env.env.env.reset(seed)
    roll(env, steps)
    return env


def save(path, env, parts=None):
    cp = Checkpoint(path)
    cp.env = Environment(env, parts)
    return cp.save()


def names(path):
    return {leaf.name for leaf in elementsckpt.leaves(path)}


@pytest.mark.parametrize("steps", range(12))
@pytest.mark.parametrize("is_fresh", [True, False])
def test_an_episode_goes_on_from_where_it_was_saved(tmp_path, steps, is_fresh):
    env = lived(1, steps)
    report = save(tmp_path, env)
    expected = roll(env, 30)
    other = Wrapper(Wrapper(Steps(), seen=[])) if is_fresh else lived(2, 2 * steps)
    cp = Checkpoint(tmp_path)
    cp.env = Environment(other)
    cp.load()
    assert roll(other, 30) == expected
    assert not report.pickled


def test_what_the_agent_holds_of_the_environment_stays_valid(tmp_path):
    save(tmp_path, lived(1, 5))
    env = lived(2, 3)
    inner = env.env.env
    held = inner, inner.position, inner.rng, inner.trace
    cp = Checkpoint(tmp_path)
    cp.env = Environment(env)
    cp.load()
    assert (env.env.env, inner.position, inner.rng, inner.trace) == held
    assert held[1] is inner.position


def test_leaves_are_named_by_attributes_below_any_wrappers(tmp_path):
    save(tmp_path, lived(1, 5))
    assert names(tmp_path) == {
        "#graph",
        "note",
        "unwrapped/position",
        "unwrapped/rng",
        "unwrapped/time",
    }
    state = elementsckpt.read(tmp_path)["env"]
    assert state["unwrapped/time"] == 5
    assert state["unwrapped/position"].shape == (3,)


def test_some_leaves_can_be_loaded_by_name(tmp_path):
    env = lived(1, 5)
    save(tmp_path, env)
    position = env.env.env.position.copy()
    roll(env, 2)
    cp = Checkpoint(tmp_path)
    cp.env = Environment(env)
    cp.load(regex=r"env/unwrapped/position")
    assert (env.env.env.position == position).all()
    assert env.env.env.time == 7


def test_two_saves_are_compared_by_names(tmp_path):
    env = lived(1, 5)
    first = save(tmp_path / "a", env)
    roll(env, 1)
    found = elementsckpt.diff(first.path, save(tmp_path / "b", env).path)
    assert "env/unwrapped/time" in str(found)
    assert "env/unwrapped/position" in str(found)


def test_a_cart_pole_costs_a_small_manifest(tmp_path):
    gymnasium = pytest.importorskip("gymnasium")
    env = gymnasium.make("CartPole-v1")
    env.reset(seed=1)
    env.action_space.seed(2)
    report = save(tmp_path, env)
    size = (report.path / "manifest.json").stat().st_size
    assert size <= 4096
    document = json.loads((report.path / "manifest.json").read_text())
    assert document["components"][0]["leaf_count"] > 10


def test_a_cart_pole_goes_on(tmp_path):
    gymnasium = pytest.importorskip("gymnasium")

    def make(seed, steps):
        env = gymnasium.make("CartPole-v1")
        env = gymnasium.wrappers.FrameStackObservation(env, 3)
        env = gymnasium.wrappers.Autoreset(gymnasium.wrappers.NormalizeReward(env))
        env.reset(seed=seed)
        env.action_space.seed(seed)
        play(env, steps)
        return env

    def play(env, steps):
        return [repr(env.step(env.action_space.sample())) for _ in range(steps)]

    env = make(1, 31)
    save(tmp_path, env)
    expected = play(env, 100)
    for steps in (0, 50):
        cp = Checkpoint(tmp_path)
        other = make(2, steps)
        cp.env = Environment(other)
        cp.load()
        assert play(other, 100) == expected


def test_all_that_cannot_be_saved_is_in_one_error(tmp_path):
    env = lived(1, 2)
    with open(__file__) as env.env.env.log:
        env.env.items = {"a": [iter([])]}
        env.more = (x for x in ())
        env.object = memoryview(b"")
        with pytest.raises(StateError) as caught:
            save(tmp_path, env)
        assert str(caught.value) == (
            "Cannot save 'env': more is a generator that is running "
            "(test_all_that_cannot_be_saved_is_in_one_error.<locals>.<genexpr>); "
            "object is a memoryview, whose state is not in Python; unwrapped.log is an "
            f"open file ({__file__!r}); env.items['a'][0] is an iterator "
            f"(list_iterator). {REMEDY}"
        )
        assert not [*tmp_path.glob("2*")]
        with pytest.raises(StateError, match="Cannot save the environment: more"):
            Environment(env).save()
        del env.more, env.object, env.env.items, env.env.env.log
    save(tmp_path, env)


def test_only_some_of_very_many_problems_are_shown(tmp_path):
    world = World(logs=[iter([]) for _ in range(20)])
    with pytest.raises(StateError, match=r"logs\[5\] .*; and 14 more\. Remove it"):
        save(tmp_path, world)


def test_other_wrappers_are_refused_before_anything_changes(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.agent, cp.env = Box([1]), Environment(lived(1, 5))
    cp.save()
    env = Other(lived(2, 3).env)
    agent = Box([2])
    cp = Checkpoint(tmp_path)
    cp.agent, cp.env = agent, Environment(env)
    before = roll(lived(2, 3), 9)
    with pytest.raises(MismatchError) as caught:
        cp.load()
    assert str(caught.value) == (
        "Cannot load 'env': the environment: a support.worlds.Wrapper was saved, and "
        "here is a support.worlds.Other. Saved was Wrapper<Wrapper<Steps>>, and here "
        "is Other<Wrapper<Steps>>. Make it by the code that made the saved one; "
        "nothing has changed."
    )
    assert agent.loads == 0
    assert roll(env, 9) == before


def test_a_missing_wrapper_is_refused(tmp_path):
    save(tmp_path, lived(1, 5))
    cp = Checkpoint(tmp_path)
    cp.env = Environment(Wrapper(Steps()))
    with pytest.raises(MismatchError, match=r"here is Wrapper<Steps>\. Make"):
        cp.load()


@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_environments_is_refused(tmp_path, count):
    save(tmp_path, World(envs=[Steps(), Steps()], num_envs=2))
    cp = Checkpoint(tmp_path)
    envs = [Steps() for _ in range(count)]
    cp.env = Environment(World(envs=envs, num_envs=count))
    with pytest.raises(MismatchError) as caught:
        cp.load()
    said = str(caught.value)
    assert f"2 environments were saved, and there are {count} here" in said
    assert f"Saved was World[2], and here is World[{count}]. Make it by the" in said
    assert len(envs) == count


def test_what_is_no_environment_is_refused(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.env = Box({"a": 1})
    cp.save()
    cp = Checkpoint(tmp_path)
    cp.env = Environment(Steps())
    with pytest.raises(MismatchError, match=r"'env': Saved is \{'a': 1\}, and an Env"):
        cp.load()


def test_a_dry_run_says_that_an_environment_does_not_fit(tmp_path):
    save(tmp_path, lived(1, 5))
    cp = Checkpoint(tmp_path)
    cp.env = Environment(Steps())
    assert cp.load(dry_run=True).mismatched == ("env",)


def test_a_save_of_another_directory_needs_no_pickle(tmp_path):
    env = lived(1, 5)
    path = save(tmp_path / "a", env).path
    other = lived(2, 2)
    cp = Checkpoint(tmp_path / "b")
    cp.env = Environment(other)
    cp.load(path, allow_pickle=False)
    assert roll(other, 9) == roll(env, 9)


def test_a_save_in_the_background_has_the_state_of_its_call(tmp_path):
    env = lived(1, 5)
    cp = Checkpoint(tmp_path, background=True)
    cp.env = Environment(env)
    cp.save()
    expected = roll(env, 20)
    cp.wait()
    cp.load()
    assert roll(env, 20) == expected


def test_a_run_resumes_exactly():
    def make():
        env = lived(1, 0)
        return {"env": Environment(env)}, env

    report = check_resume(make, lambda made: roll(made[1], 4), steps=3)
    assert report.leaves == 5


def test_saving_changes_nothing_and_leaves_nothing_behind():
    env = lived(1, 5)
    expected = roll(lived(1, 5), 20)
    for _ in range(3):
        Environment(env).save()
    assert roll(env, 20) == expected


def test_a_save_and_a_load_hold_nothing_when_they_are_over():
    gc.disable()  # Cycles would hold it until then.
    try:
        thing = Thing(array=np.arange(3), view=[1])
        count = sys.getrefcount(thing)
        env = World(thing=thing, method=thing.method)
        data = Environment(env).save()
        Environment(env).load(data)
        with pytest.raises(MismatchError):
            Environment(Wrapper(env)).load(data)
        env.log = iter([])
        with pytest.raises(StateError):
            Environment(env).save()
        del env
        assert sys.getrefcount(thing) == count
    finally:
        gc.enable()


def test_other_versions_are_told_of_once(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(np, "__version__", "1.0.0", raising=True)
    data = Environment(World(spec=Thing(id="World-v1"))).save()
    monkeypatch.undo()
    env = Environment(World(spec=Thing(id="World-v2")))
    caplog.set_level(logging.WARNING, "elementsckpt")
    for _ in range(2):
        env.load(data)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"The environment was saved with numpy 1.0.0, id World-v1, and here is "
        f"numpy {np.__version__}, id World-v2: it may go on in another way than it "
        f"would have."
    )


class Simulator:
    """Its state is not in Python."""

    __slots__ = ("_handle",)

    def __init__(self, value):
        self._handle = iter([value])

    def get(self):
        (value,) = self._handle
        self.set({"value": value})
        return {"value": np.array([value])}

    def set(self, state):
        self._handle = iter([int(np.asarray(state["value"]).item())])


def test_parts_say_how_objects_of_a_type_are_saved(tmp_path):
    parts = {Simulator: (Simulator.get, Simulator.set), type(iter([])): None}
    save(tmp_path, World(sim=Simulator(3), view=iter([1])), parts)
    view = iter([2])
    env = World(sim=Simulator(5), view=view)
    sim = env.sim
    cp = Checkpoint(tmp_path)
    cp.env = Environment(env, parts)
    cp.load()
    assert env.sim is sim
    assert sim.get()["value"] == 3
    assert env.view is view
    assert "unwrapped/sim/value" in names(tmp_path)


def test_what_is_left_alone_may_be_absent_on_either_side():
    left = type(iter([]))
    data = Environment(World(a=iter([]), b=None, d=1), {left: None}).save()
    view, other = iter([1]), iter([2])
    env = World(b=view, c=other, d=2)
    Environment(env, {left: None}).load(data)
    assert vars(env) == {"b": view, "c": other, "d": 1}


def test_parts_that_return_objects_are_refused():
    parts = {Thing: (lambda x: {"deep": [Thing()]}, lambda x, y: None)}
    with pytest.raises(StateError, match=r"thing is saved as a support\.worlds\.Thing"):
        Environment(World(thing=Thing()), parts).save()


@pytest.mark.parametrize(
    "parts", [[Thing], {"Thing": None}, {Thing: 1}, {Thing: (1, 2)}]
)
def test_parts_are_pairs_of_functions_by_type(parts):
    with pytest.raises(ValueError, match=r"^parts=.*: pass a dict of types, each with"):
        Environment(World(), parts)

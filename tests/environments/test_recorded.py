"""What cannot be reached is played again, and has to do what it did."""

import hashlib
import random

import gymnasium
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import elementsckpt
from elementsckpt import Checkpoint, Environment, MismatchError, Recorded, StateError
from elementsckpt.environments import actions, families

from support import boxes
from support.snapshots import refusal, saved, steps


class World:
    """Stands for a simulator in C: nobody can read what it holds, but for a digest."""

    def __init__(self):
        self.hidden = hashlib.sha256()

    def move(self, *forces):
        self.hidden.update(repr(forces).encode())
        return np.frombuffer(self.hidden.digest(), np.uint8)[:4].astype(np.float64)


class Hidden(gymnasium.Env):
    """Has a world that is made at each reset, and state that can be reached."""

    def __init__(self):
        self.observation_space = gymnasium.spaces.Box(0, 255, (4,), np.float64)
        self.action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float64)
        self.world, self.bodies = None, []
        self.episodes = self.age = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.world = World()
        self.bodies = [self.world, {"first": self.world}]
        self.episodes += 1
        self.age = 0
        return self.world.move(self.np_random.normal(), str(options)), {}

    def step(self, action):
        self.age += 1
        seen = self.world.move(self.np_random.normal(), action.tolist())
        action[:] = 0  # Some write into what they are given.
        return seen, float(seen[0]), self.age > 30, False, {"episodes": self.episodes}


def recorded(cls=Hidden, seed=1, count=10):
    env = gymnasium.wrappers.RecordEpisodeStatistics(Recorded(cls()))
    env.reset(seed=seed)
    env.action_space.seed(seed)
    steps(env, count)
    return env


@pytest.mark.parametrize("count", [0, 1, 17, 31, 45, 70])
def test_an_environment_that_is_played_again_goes_on_as_it_would(count):
    env = recorded(count=count)
    other = recorded(seed=2, count=13)
    Environment(other).load(saved(env))
    assert steps(other, 50) == steps(env, 50)


def test_it_is_loaded_into_one_that_was_never_reset_and_the_other_way_round():
    fresh = gymnasium.wrappers.RecordEpisodeStatistics(Recorded(Hidden()))
    begun = recorded()
    first, state = saved(fresh), saved(begun)
    Environment(fresh).load(state)
    assert steps(fresh, 40) == steps(begun, 40)
    Environment(begun).load(first)
    Environment(begun).load(saved(begun))
    seen = [env.reset(seed=5)[0] for env in (begun, recorded(seed=7))]
    assert np.array_equal(*seen)


def test_a_reset_asks_for_the_families_as_often_however_much_there_is(monkeypatch):
    asked, of_all = [], families.families
    monkeypatch.setattr(families, "families", lambda: asked.append(0) or of_all())

    def count(attributes):
        env = Recorded(Hidden())
        vars(env.env).update({f"a{i}": [i] for i in range(attributes)})
        asked.clear()
        env.reset(seed=1)
        return len(asked)

    assert count(1) == count(30) <= 2


def test_what_cannot_be_reached_is_looked_at_up_to_the_first_refusal(monkeypatch):
    env = Recorded(Hidden())
    env.env.many = [iter(()) for _ in range(50)]
    refused = []
    made = families.Refused.__init__
    monkeypatch.setattr(
        families.Refused,
        "__init__",
        lambda error, *args, **more: refused.append(0) or made(error, *args, **more),
    )
    env.reset(seed=1)
    assert 0 < len(refused) < 5


def test_what_was_loaded_is_saved_and_loaded_again():
    env, other = recorded(count=5), recorded(seed=2)
    for _ in range(4):
        Environment(other).load(saved(env))
        assert steps(other, 3) == steps(env, 3)
        env, other = other, recorded(seed=2)


def test_the_arguments_of_reset_are_a_part_of_it():
    env, other = Recorded(Hidden()), Recorded(Hidden())
    options = {"level": [1, 2]}
    env.reset(seed=1, options=options)
    options["level"].append(3)
    env.action_space.seed(1)
    Environment(other).load(saved(env))
    assert steps(other, 5) == steps(env, 5)


def test_nothing_of_it_is_pickled(tmp_path):
    cp = Checkpoint(tmp_path, fsync=False)
    cp.env = Environment(recorded())
    assert cp.save().pickled == ()


def test_without_it_the_same_environment_is_refused():
    env = Hidden()
    env.reset(seed=1)
    message = refusal(StateError, Environment(env).save)
    assert "unwrapped.world.hidden is a _hashlib.HASH, whose state is not in" in message


def test_a_world_that_depends_on_more_than_its_actions_is_an_error():
    class Counted(Hidden):
        lives = 0

        def reset(self, **arguments):
            Counted.lives += 1
            return super().reset(**arguments)

        def step(self, action):
            self.world.move(Counted.lives if self.age == 6 else 0)
            return super().step(action)

    env = recorded(Counted)
    message = refusal(MismatchError, Environment(recorded(Counted)).load, saved(env))
    assert message.startswith("Played again, Recorded<")
    assert message.endswith(
        "is not what it was saved as: step 7 of 10 returned something else. It depends "
        "on more than its actions and the generators that can be reached, or the "
        "program drew from these. Call reset(): the episode cannot go on."
    )


def test_a_program_that_draws_from_its_generator_is_an_error():
    env = recorded()
    env.unwrapped.np_random.normal()
    steps(env, 1)
    message = refusal(MismatchError, Environment(recorded(seed=2)).load, saved(env))
    assert "step 11 of 11 returned something else" in message


def test_after_an_error_in_a_step_it_is_refused_until_its_reset():
    env = recorded()
    with pytest.raises(AttributeError):
        env.step(None)
    message = refusal(StateError, Environment(env).save)
    assert message == (
        "Cannot save the environment: env is a Recorded environment in which reset() "
        "or step() raised an error. Call reset()."
    )
    env.reset()
    saved(env)


def test_global_generators_stay_as_they_are():
    class Drawing(Hidden):
        def step(self, action):
            random.random()
            np.random.normal()
            return super().step(action)

    state, other = saved(recorded(Drawing)), recorded(Drawing)
    before = random.getstate(), np.random.get_state()[1:3]
    Environment(other).load(state)
    after = random.getstate(), np.random.get_state()[1:3]
    assert str(before) == str(after)


def test_another_environment_is_refused_before_anything_changes():
    class Other(Hidden):
        pass

    other = recorded(Other)
    age = other.unwrapped.age
    message = refusal(MismatchError, Environment(other).load, saved(recorded()))
    assert "Hidden was saved, and here is" in message
    assert other.unwrapped.age == age
    steps(other, 1)


def test_gymnasium_is_not_imported_until_it_is_asked_for():
    script = """
import sys, elementsckpt
elementsckpt.Checkpoint
print("gymnasium" in sys.modules)
elementsckpt.Recorded
print("gymnasium" in sys.modules)
"""
    assert boxes.printed(script) == ["False", "True"]
    assert issubclass(elementsckpt.Recorded, gymnasium.Wrapper)


# Simulators that are known to be out of reach

REMEDY = (
    "Make it with elementsckpt.Recorded(env) below its other wrappers: its actions are "
    "then saved, and played again at a load."
)


@pytest.mark.environments
def test_box2d_is_refused_with_the_remedy():
    pytest.importorskip("Box2D")
    env = gymnasium.make("LunarLander-v3")
    env.reset(seed=1)
    message = refusal(StateError, Environment(env).save)
    assert "unwrapped.world is a Box2D.b2World, whose world is not in Py" in message
    assert message.endswith(REMEDY)


@pytest.mark.environments
def test_nethack_is_refused_with_the_remedy():
    pytest.importorskip("nle")
    env = gymnasium.make("NetHackScore-v0")
    env.reset()
    assert refusal(StateError, Environment(env).save) == (
        f"Cannot save the environment: unwrapped.nethack is a game of NetHack, which "
        f"is not in Python. {REMEDY}"
    )


def falling_ball():
    """Return an environment that holds a world of PyBullet."""
    pybullet = pytest.importorskip("pybullet")
    client = pytest.importorskip("pybullet_utils.bullet_client")

    class Ball(gymnasium.Env):
        def __init__(self):
            self.client = client.BulletClient(pybullet.DIRECT)
            self.action_space = gymnasium.spaces.Box(-1, 1, (3,), np.float64)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.client.resetSimulation()
            self.client.setGravity(0, 0, self.np_random.uniform(-10, -5))
            shape = self.client.createCollisionShape(pybullet.GEOM_SPHERE, radius=0.1)
            self.ball = self.client.createMultiBody(1, shape)
            return np.zeros(3), {}

        def step(self, action):
            noise = action + self.np_random.normal(size=3)
            frame = pybullet.WORLD_FRAME
            self.client.applyExternalForce(self.ball, -1, noise, [0, 0, 0], frame)
            self.client.stepSimulation()
            seen = np.array(self.client.getBasePositionAndOrientation(self.ball)[0])
            return seen, seen[2], False, False, {}

    return Ball


@pytest.mark.environments
def test_pybullet_is_refused_with_the_remedy():
    message = refusal(StateError, Environment(falling_ball()()).save)
    assert "whose world PyBullet holds" in message
    assert message.endswith(REMEDY)


@pytest.mark.environments
def test_pybullet_is_played_again():
    ball = falling_ball()
    env, other = recorded(ball, count=60), recorded(ball, seed=2)
    Environment(other).load(saved(env))
    assert steps(other, 50) == steps(env, 50)


@pytest.mark.environments
@pytest.mark.parametrize("name", ["BipedalWalker-v3", "CarRacing-v3"])
def test_worlds_that_outlive_their_episodes_are_refused(name):
    """What earlier episodes left in them shows in a later one, and in no comparison."""
    pytest.importorskip("Box2D")
    env = recorded(lambda: gymnasium.make(name), 0, 3)
    assert refusal(StateError, Environment(env).save) == (
        "Cannot save the environment: env is a Recorded environment, of which reset() "
        "keeps 'world', whose state is not in Python. It cannot be played again: save "
        "when an episode has ended, without it, and begin a new one after a load."
    )


# Actions

numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.booleans()
arrays = st.tuples(st.sampled_from(["f4", "i8", "u1"]), st.integers(0, 3)).map(
    lambda x: np.arange(x[1], dtype=x[0])
)
one = numbers | arrays | st.none() | st.text(max_size=3) | st.just(np.float32(0.1))
nested = st.recursive(
    one,
    lambda x: (
        st.lists(x, max_size=3)
        | st.lists(x, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=2), x, max_size=3)
    ),
    max_leaves=6,
)


def same(one, other):
    """Return whether two values are the same, of the same types."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and same([*one.values()], [*other.values()])
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return one == other


@hypothesis.given(st.lists(st.sampled_from([0, 1, 2]), max_size=8), st.data())
@hypothesis.settings(deadline=None)
def test_actions_are_packed_and_unpacked(order, data):
    forms = data.draw(st.lists(nested, min_size=3, max_size=3))
    given = [forms[i] for i in order]
    assert same(list(actions.unpack(actions.pack(given))), given)


def test_actions_of_one_form_are_one_array():
    def of_agents(n):
        return {"a": np.array([n, 1.5]), "b": (n, np.int64(n))}

    (run,) = actions.pack([of_agents(n) for n in range(1000)])
    assert [x.shape for x in run["columns"]] == [(1000, 2), (1000,), (1000,)]

"""ALE: the action that sticks comes back, too; what cannot come back is refused."""

import numpy as np
import pytest

from elementsckpt import Environment, MismatchError, StateError

from support.snapshots import refusal, saved, steps

ale_py = pytest.importorskip("ale_py")
gymnasium = pytest.importorskip("gymnasium")
pytestmark = pytest.mark.environments


def make(name="Pong", **options):
    gymnasium.register_envs(ale_py)
    return gymnasium.make(f"ALE/{name}-v5", **options)


def play(env, frames, rng):
    """Play frames with actions that are drawn; return what they return."""
    found = []
    for _ in range(frames):
        seen, reward, *ends, _ = env.step(int(rng.integers(env.action_space.n)))
        found.append((seen.tobytes(), reward, *ends))
        if any(ends):
            env.reset()
    return found


@pytest.mark.parametrize("chance", [0.25, 0.7, 0.0, 1.0])
@pytest.mark.parametrize("name", ["Pong", "Seaquest"])
def test_the_action_that_sticks_comes_back(name, chance):
    options = {"repeat_action_probability": chance, "frameskip": 1}
    env, other = make(name, **options), make(name, **options)
    env.reset(seed=3)
    other.reset(seed=8)
    sticking = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        play(env, int(rng.integers(1, 30)), rng)
        play(other, int(rng.integers(1, 9)), rng)
        state = saved(env)
        sticking += state["unwrapped/ale"]["frames"] > 0
        Environment(other).load(state)
        one, same = (np.random.default_rng(seed) for _ in range(2))
        assert play(other, 40, same) == play(env, 40, one)
    assert (sticking > 5) == (0 < chance < 1)


def test_a_save_changes_nothing():
    env, twin = make(), make()
    for x in (env, twin):
        x.reset(seed=3)
        x.action_space.seed(1)
    for _ in range(60):
        Environment(env).save()
        assert steps(env, 1) == steps(twin, 1)


SAVES = {
    "continuous": (
        {"continuous": True},
        "unwrapped is an Atari environment with continuous and sticky actions, and the "
        "one that sticks is not in its state. Make it with "
        "repeat_action_probability=0, or without continuous.",
    ),
    "sound": (
        {"sound_obs": True},
        "unwrapped.ale is an ALE with sound_obs, whose sound is not in its state. Make "
        "it without sound_obs.",
    ),
}


@pytest.mark.parametrize("name", SAVES)
def test_what_is_not_in_the_state_is_refused_at_the_save(name):
    options, what = SAVES[name]
    env = make(**options)
    env.reset(seed=1)
    message = refusal(StateError, Environment(env).save)
    assert message == f"Cannot save the environment: {what}"
    env.step(env.action_space.sample())


def test_continuous_actions_that_do_not_stick_are_exact():
    options = {"continuous": True, "repeat_action_probability": 0}
    env, other = make(**options), make(**options)
    env.reset(seed=1)
    steps(env, 20)
    other.reset(seed=2)
    Environment(other).load(saved(env))
    assert steps(other, 40) == steps(env, 40)


LOADS = {
    "game": ({"name": "Breakout"}, "saved with the game pong; here it is breakout"),
    "chance": (
        {"repeat_action_probability": 0},
        "saved with repeat_action_probability=0.25; here it is 0.0",
    ),
}


@pytest.mark.parametrize("name", LOADS)
def test_another_game_is_refused_before_anything_changes(name):
    options, what = LOADS[name]
    env, other = make(), make(**options)
    env.reset(seed=1)
    other.reset(seed=2)
    before = other.unwrapped.ale.getRAM()
    message = refusal(MismatchError, Environment(other).load, saved(env))
    assert f"unwrapped.ale: {what}. Saved was " in message
    assert np.array_equal(other.unwrapped.ale.getRAM(), before)


def test_many_emulators_in_one_object_are_refused():
    if not hasattr(ale_py, "AtariVectorEnv"):
        pytest.skip("this version of ALE has none")
    envs = ale_py.AtariVectorEnv("pong", num_envs=2)
    message = refusal(StateError, Environment(envs).save)
    assert "ALEVectorInterface, whose state is not in Python" in message

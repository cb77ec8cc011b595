"""ALE: the action that sticks comes back, too; what cannot come back is refused."""

import numpy as np
import pytest

from elementsckpt import Environment, MismatchError, StateError
from elementsckpt.environments import ale
from elementsckpt.environments.families import Refused

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


@pytest.mark.parametrize("name", ["capture", "register"])
def test_an_interrupt_amid_a_save_changes_nothing(name, monkeypatch):
    """It comes when the frames that tell what sticks have been played."""
    options = {"repeat_action_probability": 0.7, "frameskip": 1}
    env, twin = make(**options), make(**options)
    for x in (env, twin):
        x.reset(seed=3)
        x.action_space.seed(1)
    component = Environment(env)

    def interrupt(_):
        raise KeyboardInterrupt

    interrupted = 0
    for _ in range(30):
        with monkeypatch.context() as patch:
            patch.setattr(ale, "digest", interrupt)
            try:
                component.save() if name == "capture" else Environment(env)
            except KeyboardInterrupt:
                interrupted += 1
        assert steps(env, 1) == steps(twin, 1)
    assert interrupted > 5 or name == "register"


def test_an_action_that_sticks_for_long_is_saved():
    options = {"repeat_action_probability": 0.999, "frameskip": 1}
    env, other = make(**options), make(**options)
    env.reset(seed=3)
    found = set()
    for _ in range(12):
        steps(env, 1)
        state = saved(env)
        found.add(state["unwrapped/ale"]["frames"])
        Environment(other).load(state)
        assert steps(other, 3)
    assert max(found) > 0


def test_the_frames_that_stick_are_counted_however_many():
    bits = np.random.MT19937(5)
    state = bits.state["state"]
    text = b" ".join(b"%d" % x for x in (*state["key"], state["pos"]))
    draws = bits.random_raw(40_000)[::2] / 2**32
    chance = 0.9998
    assert ale._stuck(text, chance) == np.argmax(draws >= chance) > 1000
    with pytest.raises(Refused, match="sticks for 1000000 frames or more"):
        ale._stuck(b"0 " * 624 + b"624", 0.5)


def test_an_action_that_none_does_is_a_mismatch(monkeypatch):
    env = make(repeat_action_probability=0.9, frameskip=1)
    env.reset(seed=3)
    state = saved(env)
    while not state["unwrapped/ale"]["frames"]:
        steps(env, 1)
        state = saved(env)
    state["unwrapped/ale"]["after"] = "another"
    message = refusal(MismatchError, Environment(env).load, state)
    assert "No action of this ALE sticks as the saved one did" in message


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

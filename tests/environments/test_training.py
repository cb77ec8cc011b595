"""Training with environments, resumed in the middle of an episode."""

import types

import gymnasium
import numpy as np
import pytest

from elementsckpt import Checkpoint, Environment, Recorded
from elementsckpt.testing import ResumeError, check_resume

from support import lives, zoo
from support.boxes import Box


class Training:
    """Learns a little from each observation, which the next action depends on."""

    def __init__(self, env):
        self.env = env
        self.weights = np.zeros(4)
        self.seen, _ = env.reset(seed=1)
        env.action_space.seed(1)

    def save(self):
        return {"weights": self.weights, "seen": self.seen}

    def load(self, data):
        self.weights, self.seen = data["weights"], data["seen"]

    def step(self):
        guess = int(self.weights @ self.seen > 0)
        action = guess if self.env.np_random.random() < 0.9 else 1 - guess
        self.seen, reward, end, cut, _ = self.env.step(action)
        self.weights = self.weights + 0.01 * reward * self.seen
        if end or cut:
            self.seen, _ = self.env.reset()


def make(wrap=Environment):
    training = Training(gymnasium.make("CartPole-v1"))
    parts = {"training": training}
    if wrap is not None:
        parts["env"] = wrap(training.env)
    return parts


def step(parts):
    parts["training"].step()


def test_training_with_an_environment_resumes_exactly():
    assert check_resume(make, step, steps=25).steps == 25


def test_training_with_many_environments_resumes_exactly():
    def make_many():
        envs = gymnasium.vector.SyncVectorEnv([zoo.cart] * 2)
        seen, _ = envs.reset(seed=1)
        for space in lives.spaces(envs):
            space.seed(1)  # Gymnasium makes them with seeds from the system.
        return {"seen": Box(seen), "env": Environment(envs)}

    def step_many(parts):
        envs = parts["env"].env
        parts["seen"].state = envs.step(envs.action_space.sample())[0]

    check_resume(make_many, step_many, steps=45)


def test_an_environment_that_is_not_registered_is_found():
    with pytest.raises(ResumeError, match="Is all of it registered"):
        check_resume(lambda: make(wrap=None), step, steps=5)


def test_an_environment_that_is_played_again_resumes_exactly():
    def make_recorded():
        training = Training(Recorded(gymnasium.make("CartPole-v1")))
        training.step = types.MethodType(step_by_noise, training)
        return {"training": training, "env": Environment(training.env)}

    def step_by_noise(training):
        training.seen, _, end, cut, _ = training.env.step(
            training.env.action_space.sample()
        )
        training.weights = training.weights + training.seen
        if end or cut:
            training.env.reset()

    check_resume(make_recorded, step, steps=30)


# Environments that are functions, as those of gymnax and Brax, have no state of their
# own: what their steps return is a pytree, which any component saves.


class Cart:
    """A functional environment, in the manner of gymnax."""

    def reset(self, key):
        import jax

        state = jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)
        return state, {"position": state, "time": 0, "key": key}

    def step(self, key, state, action):
        import jax
        import jax.numpy as jnp

        noise = jax.random.normal(key, (4,)) * 0.01
        position = state["position"] + noise + 0.1 * (action - 0.5)
        over = state["time"] >= 7
        first, fresh = self.reset(key)
        new = {"position": position, "time": state["time"] + 1, "key": key}
        new = jax.tree.map(lambda a, b: jnp.where(over, a, b), fresh, new)
        return jnp.where(over, first, position), new, position.sum(), over


def functional():
    jax = pytest.importorskip("jax")
    key, start = jax.random.split(jax.random.key(0))
    seen, state = Cart().reset(start)
    return {"loop": Box({"key": key, "seen": seen, "env": state})}


def functional_step(parts):
    import jax

    loop = parts["loop"].state
    key, draw, move = jax.random.split(loop["key"], 3)
    action = jax.random.randint(draw, (), 0, 2)
    seen, state, _, _ = jax.jit(Cart().step)(move, loop["env"], action)
    parts["loop"].state = {"key": key, "seen": seen, "env": state}


def test_a_functional_environment_is_a_pytree():
    check_resume(functional, functional_step, steps=12)


@pytest.mark.environments
def test_an_environment_of_gymnax_is_a_pytree(tmp_path):
    gymnax = pytest.importorskip("gymnax")
    import jax

    env, params = gymnax.make("CartPole-v1")

    def make():
        _, state = env.reset(jax.random.key(1), params)
        return {"loop": Box({"key": jax.random.key(2), "env": state, "params": params})}

    def step(parts):
        loop = parts["loop"].state
        key, draw, move = jax.random.split(loop["key"], 3)
        action = env.action_space(params).sample(draw)
        _, state, *_ = env.step(move, loop["env"], action, params)
        parts["loop"].state = {**loop, "key": key, "env": state}

    check_resume(make, step, steps=15)
    cp = Checkpoint(tmp_path, fsync=False)
    cp.loop = make()["loop"]
    assert cp.save().pickled == ()

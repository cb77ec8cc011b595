"""Stoix's way: jitted training, the best is restored. Run it again: it resumes."""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import elementsckpt

LOGDIR = "logdir/stoix"


@dataclass(frozen=True)
class Config:
    hidden: int = 32
    learning_rate: float = 0.02
    poles: int = 64  # That are balanced at the same time.
    length: int = 100  # Of an episode, and so the highest return.
    updates: int = 40


class Learner(NamedTuple):
    params: Any
    opt_state: Any
    key: jax.Array


def init(config):
    key, init_key = jax.random.split(jax.random.key(0))
    hidden = jax.random.normal(init_key, (2, config.hidden))
    params = {"hidden": hidden, "output": jnp.zeros(config.hidden)}
    return Learner(params, optax.adam(config.learning_rate).init(params), key)


@functools.partial(jax.jit, static_argnames="config")
def evaluate(params, key, config):
    def step(poles, _):  # Pushed to the left or right, they should stay upright.
        pushes = jnp.tanh(jnp.tanh(poles @ params["hidden"]) @ params["output"])
        angles, spins = poles.T
        spins += 0.02 * (15 * jnp.sin(angles) + 5 * pushes)
        return jnp.stack([angles + 0.02 * spins, spins], -1), jnp.cos(angles).mean()

    poles = jax.random.uniform(key, (config.poles, 2), minval=-0.1, maxval=0.1)
    return jax.lax.scan(step, poles, length=config.length)[1].sum()


@functools.partial(jax.jit, static_argnames="config")
def train(learner, config):  # By the gradient of the return, through the physics.
    key, episode_key = jax.random.split(learner.key)
    grads = jax.grad(evaluate)(learner.params, episode_key, config)
    uphill = optax.adam(-config.learning_rate)
    changes, opt_state = uphill.update(grads, learner.opt_state)
    return Learner(optax.apply_updates(learner.params, changes), opt_state, key)


config, key = Config(), jax.random.key(1)
keep = elementsckpt.Keep(latest=2, best=1, metric="episode_return", every=20)
every = elementsckpt.Every(steps=5)
cp = elementsckpt.Checkpoint(LOGDIR, keep, every=every, metadata=config)
cp.step, cp.learner = elementsckpt.Counter(), elementsckpt.Value(init(config))
cp.load_or_save()
while cp.step < config.updates:
    cp.learner.value = train(cp.learner.value, config)
    cp.step.increment()
    score = evaluate(cp.learner.value.params, key, config)
    if cp.save_if_due(metrics={"episode_return": score}):
        print(f"Update {int(cp.step)}: episode return {score:.1f}, saved")

# Nothing but the folder is needed to restore the best, as it has the configuration.
cp = elementsckpt.Checkpoint(LOGDIR, write=False)
best = elementsckpt.info(cp.best())
config = Config(**best.metadata)
cp.learner = elementsckpt.Value(init(config))
cp.load("best")
score = evaluate(cp.learner.value.params, key, config)
assert score == best.metrics["episode_return"] > 0.9 * config.length
assert {save.step for save in cp.saves()} == {0, 20, 35, 40, best.step}

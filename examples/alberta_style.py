"""Alberta's way: all of a learner is one pytree. Run it again: it resumes."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

import elementsckpt

LOGDIR = Path("logdir/alberta")
SIZE, STEPS = 5_000, 30_000  # Of a chunk of its life, and in all.
INPUTS, RELEVANT, META_RATE = 20, 5, 0.005


class Learner(NamedTuple):
    """Regression on a target that keeps changing; the world is a part of the state."""

    weights: jax.Array
    log_rates: jax.Array  # Each weight learns how fast it should learn,
    traces: jax.Array  # from how its last changes agree.
    target: jax.Array
    step: jax.Array
    key: jax.Array


def born(inputs=INPUTS):
    zeros, target = jnp.zeros(inputs), (jnp.arange(inputs) < RELEVANT).astype(float)
    log_rates = jnp.full_like(zeros, jnp.log(0.05))
    return Learner(zeros, log_rates, zeros, target, jnp.int32(0), jax.random.key(0))


def learn(old, _):  # One step of IDBD (Sutton, 1992).
    key, flip_key, input_key = jax.random.split(old.key, 3)
    flipped = jax.random.randint(flip_key, (), 0, RELEVANT)
    target = old.target.at[flipped].multiply(jnp.where(old.step % 20 == 0, -1, 1))
    inputs = jax.random.normal(input_key, target.shape)
    error = (target - old.weights) @ inputs
    log_rates = old.log_rates + META_RATE * error * inputs * old.traces
    change = jnp.exp(log_rates) * error * inputs
    decay = jnp.maximum(1 - jnp.exp(log_rates) * inputs**2, 0)
    traces, weights = decay * old.traces + change, old.weights + change
    return Learner(weights, log_rates, traces, target, old.step + 1, key), error**2


@jax.jit
def live(learner):
    return jax.lax.scan(learn, learner, length=SIZE)


def problem(path, template):
    try:
        elementsckpt.load_pytree(path, template)
    except (FileNotFoundError, ValueError) as error:
        return error


learner = born()
if elementsckpt.exists(LOGDIR):  # Of the saves in there, the newest is meant.
    print("Resumed:", elementsckpt.info(LOGDIR).metadata)
    learner = elementsckpt.load_pytree(LOGDIR, learner)
while learner.step < STEPS:
    learner, errors = live(learner)
    metadata = {"step": int(learner.step), "error": float(errors.mean())}
    elementsckpt.save_pytree(LOGDIR / str(learner.step), learner, metadata)
    print("Saved:", metadata)

# It found out what is relevant. From the save before, it lives the very same life.
assert learner.log_rates[:RELEVANT].min() > learner.log_rates[RELEVANT:].max() + 1
again, _ = live(elementsckpt.load_pytree(LOGDIR / str(STEPS - SIZE), born()))
assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), again, learner))
# What does not fit is refused, with all leaves that differ in one error.
message = str(problem(LOGDIR, born(inputs=30)))
assert all(name in message for name in ("weights", "log_rates", "traces", "target"))
assert isinstance(problem(LOGDIR / "typo", born()), FileNotFoundError)

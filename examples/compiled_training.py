"""Compiled training: all of it is one `lax.scan`, which saves as it goes.

python examples/compiled_training.py             # Run it again: it resumes.
python examples/compiled_training.py --chunked   # A scan for each save instead.

An actor-critic learns to balance poles, with several seeds side by side. In the first
form, the compiled program calls back to save, and nothing else runs Python. In the
second, the state is donated from one scan to the next, and saves are in the background.
"""

import functools
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import io_callback

import elementsckpt

SEEDS, UPDATES, SAVE_EVERY = 3, 60, 20
POLES, LENGTH = 32, 16  # Poles for each seed, and steps of each in an update.
OPTIMIZER = optax.adam(0.01)


class Runner(NamedTuple):
    params: Any
    opt_state: Any
    poles: jax.Array  # Angle and spin of each.
    key: jax.Array
    falls: jax.Array  # Mean number for each pole so far.


def init(key):
    key, hidden_key, pole_key = jax.random.split(key, 3)
    hidden = 0.5 * jax.random.normal(hidden_key, (2, 32))
    params = {"hidden": hidden, "actor": jnp.zeros(32), "critic": jnp.zeros(32)}
    poles = jax.random.uniform(pole_key, (POLES, 2), minval=-0.1, maxval=0.1)
    # Python's 0.0 is weakly typed: what the scan makes of it is what is saved.
    return Runner(params, OPTIMIZER.init(params), poles, key, jax.jit(lambda: 0.0)())


def features(params, poles):
    return jnp.tanh(5 * poles @ params["hidden"])


def play(params, carry, _):
    poles, key = carry
    key, push_key, pole_key = jax.random.split(key, 3)
    right = jax.nn.sigmoid(features(params, poles) @ params["actor"])
    pushes = jax.random.uniform(push_key, right.shape) < right
    angles, spins = poles.T
    spins += 0.05 * (15 * jnp.sin(angles) + jnp.where(pushes, 5, -5))
    angles += 0.05 * spins
    fallen = jnp.abs(angles) > 0.3
    others = jax.random.uniform(pole_key, (POLES, 2), minval=-0.1, maxval=0.1)
    after = jnp.where(fallen[:, None], others, jnp.stack([angles, spins], -1))
    return (after, key), (poles, pushes, fallen, after)


def loss(params, batch):
    poles, pushes, fallen, after = batch
    now, then = features(params, poles), features(params, after)
    value, following = now @ params["critic"], then @ params["critic"]
    target = jnp.where(fallen, -1, 0.95 * jax.lax.stop_gradient(following))
    advantage = jax.lax.stop_gradient(target - value)
    chance = jax.nn.log_sigmoid(jnp.where(pushes, 1, -1) * (now @ params["actor"]))
    return ((target - value) ** 2 - advantage * chance).mean()


def update(runner):
    carry = runner.poles, runner.key
    step = functools.partial(play, runner.params)
    (poles, key), batch = jax.lax.scan(step, carry, length=LENGTH)
    grads = jax.grad(loss)(runner.params, batch)
    changes, opt_state = OPTIMIZER.update(grads, runner.opt_state)
    params = optax.apply_updates(runner.params, changes)
    return Runner(params, opt_state, poles, key, runner.falls + batch[2].sum(0).mean())


def train(runner, updates, save=None):
    def body(runner, number):
        runner = jax.vmap(update)(runner)  # The seeds, each with all of the above.
        if save is not None:
            is_due = (number + 1) % SAVE_EVERY == 0
            call = functools.partial(io_callback, save, None, ordered=True)
            jax.lax.cond(is_due, call, lambda *_: None, number + 1, runner)
        return runner, runner.falls.mean()

    return jax.lax.scan(body, runner, updates)


is_chunked = "--chunked" in sys.argv
logdir = "logdir/chunked" if is_chunked else "logdir/compiled"
keys = jax.random.split(jax.random.key(0), SEEDS)
cp = elementsckpt.Checkpoint(logdir, keep=2, background=is_chunked)
cp.step = elementsckpt.Counter()
# A template needs shapes only: a run that resumes makes no first state.
cp.runner = elementsckpt.Value(jax.eval_shape(jax.vmap(init), keys))
if cp.exists():
    cp.load()
    print("Resumed at update", int(cp.step))
else:
    cp.runner.value = jax.jit(jax.vmap(init))(keys)


def save(step, runner):
    cp.step.value, cp.runner.value = int(step), runner
    # NumPy's mean: what is called back must not make JAX compute, as the scan waits.
    cp.save(metrics={"falls": np.asarray(runner.falls).mean()})


if is_chunked:
    scan = jax.jit(train, donate_argnums=0)
    while cp.step < UPDATES:
        end = int(cp.step) + SAVE_EVERY
        runner, _ = scan(cp.runner.value, jnp.arange(int(cp.step), end))
        save(end, runner)
    cp.close()
elif cp.step < UPDATES:
    # Nothing is donated: `cp.runner` holds it until the first save, and then JAX may
    # wait for the end of the scan, which waits for the save.
    scan = jax.jit(train, static_argnames="save")
    start = cp.runner.value.falls.mean()
    runner, falls = scan(cp.runner.value, jnp.arange(int(cp.step), UPDATES), save)
    before, after = falls[0] - start, (falls[-1] - falls[-11]) / 10
    print(f"{before:.2f} falls of a pole in an update at first, {after:.2f} at the end")

"""Flashbax's way: a replay of (batch, time, ...) in JAX. Run it again: it resumes."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import elementsckpt

LOGDIR, ROUNDS, STEPS = "logdir/flashbax", 10, 128
BATCH, TIME, PLACES, PIXELS = 2, 1024, 16, 64  # The replay has 8 MiB.


class Replay(NamedTuple):  # As a TrajectoryBufferState.
    experience: Any  # Arrays of (BATCH, TIME, ...).
    current_index: jax.Array  # In TIME; it does not say how often it went around.
    is_full: jax.Array

    def add(self, step):
        index, full = self.current_index, self.is_full
        data = {k: x.at[:, index].set(step[k]) for k, x in self.experience.items()}
        return Replay(data, (index + 1) % TIME, full | (index + 1 == TIME))

    def sample(self, key, size=64):
        ends = jnp.array([BATCH, jnp.where(self.is_full, TIME, self.current_index)])
        batch, time = jax.random.randint(key, (size, 2), 0, ends).T
        return {k: x[batch, time] for k, x in self.experience.items()}


def observe(places):  # An image for each: the column where the walker is is white.
    columns = jnp.arange(PIXELS) * PLACES // PIXELS == places[:, None]
    return jnp.repeat(columns[:, None].astype(jnp.uint8) * 255, PIXELS, axis=1)


def walk(carry, _):  # Q-learning from random walks through a corridor, to its end.
    replay, values, places, key = carry
    key, *keys = jax.random.split(key, 4)
    action = jax.random.randint(keys[0], (BATCH,), 0, 2)
    after = jnp.maximum(places + 2 * action - 1, 0)
    replay = replay.add({"image": observe(places), "action": action, "next": after})
    old = replay.sample(keys[1])
    where = old["image"][:, 0, :: PIXELS // PLACES].argmax(-1), old["action"]
    future = jnp.where(old["next"] == PLACES - 1, 1, 0.9 * values[old["next"]].max(-1))
    start = jax.random.randint(keys[2], (BATCH,), 0, PLACES - 1)
    places = jnp.where(after == PLACES - 1, start, after)
    return (replay, values.at[where].set(future), places, key), None


class Run:
    def __init__(self):
        images = jnp.zeros((BATCH, TIME, PIXELS, PIXELS), jnp.uint8)
        data = {x: jnp.zeros((BATCH, TIME), int) for x in ("action", "next")}
        replay = Replay({"image": images, **data}, jnp.int32(0), jnp.bool(False))
        values, places = jnp.zeros((PLACES, 2)), jnp.zeros(BATCH, int)
        self.carry = replay, values, places, jax.random.key(0)
        self.train = jax.jit(lambda carry: jax.lax.scan(walk, carry, length=STEPS)[0])

    def save(self):  # Of the replay, a save looks only at what is new.
        added, (replay, *others) = STEPS * int(cp.step), self.carry
        ring = functools.partial(elementsckpt.Ring, added=added, axis=1)
        rings = replay._replace(experience=jax.tree.map(ring, replay.experience))
        return rings, *others

    def load(self, carry):
        self.carry = tuple(carry)


cp = elementsckpt.Checkpoint(LOGDIR, keep=3, compress=None)
cp.step, cp.run = elementsckpt.Counter(), Run()
cp.load_or_save()
while cp.step < ROUNDS:
    cp.run.carry = cp.run.train(cp.run.carry)
    cp.step.increment()
    report = cp.save()
    print(int(cp.step), f"{report.bytes_written / report.bytes_total:.0%} written")
values = cp.run.carry[1]
assert (values.argmax(-1)[:-1] == 1).all(), values  # To the end, from everywhere.

"""Generators draw on as they did, and share what they shared."""

import random

import numpy as np
import pytest

from elementsckpt.environments import families, snapshots

from support.twins import differ, reload
from support.worlds import World

BITS = ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"]


def draws(rng):
    small = rng.integers(0, 9, 3, dtype=np.uint8).tolist()
    return [*rng.normal(size=5).tolist(), *small, rng.random(dtype=np.float32)]


@pytest.mark.parametrize("name", BITS)
@pytest.mark.parametrize("live", ["PCG64", "MT19937", None])
def test_a_generator_draws_on_and_spawns_as_it_would(name, live):
    rng = np.random.Generator(getattr(np.random, name)(3))
    draws(rng)
    rng.spawn(2) if hasattr(rng, "spawn") else None
    env = World(rng=None)
    if live:
        env.rng = np.random.Generator(getattr(np.random, live)(5))
    held = env.rng
    reload(World(rng=rng), env)
    assert env.rng is held or held is None
    assert draws(env.rng) == draws(rng)
    assert draws(env.rng.spawn(1)[0]) == draws(rng.spawn(1)[0])


def test_generators_share_bits_as_they_did():
    def make(is_shared):
        first = np.random.default_rng(1)
        bits = first.bit_generator if is_shared else np.random.PCG64(2)
        return World(a=first, b=np.random.Generator(bits), bits=bits)

    for saved in (True, False):
        old, new = make(saved), make(not saved)
        reload(old, new)
        assert differ(old, new) is None
        assert (new.a.bit_generator is new.bits) == saved
        assert [draws(new.a), draws(new.b)] == [draws(old.a), draws(old.b)]


@pytest.mark.parametrize("name", BITS)
def test_old_generators_of_numpy_draw_on(name):
    def make(seed):
        rng = np.random.RandomState(getattr(np.random, name)(seed))
        rng.normal()  # Of two, one is kept.
        return rng

    env = World(rng=make(2))
    old = make(1)
    held = env.rng
    reload(World(rng=old), env)
    assert env.rng is held
    assert env.rng.normal(size=5).tolist() == old.normal(size=5).tolist()
    old = np.random.RandomState(3)
    assert reload(World(rng=old), World()).rng.rand() == old.rand()


class Own(random.Random):
    """With attributes."""


@pytest.mark.parametrize("kind", [random.Random, Own])
def test_generators_of_python_draw_on(kind):
    old = kind(3)
    old.note = [1]
    old.gauss(0, 1)  # Of two, one is kept.
    for env in (World(rng=kind(4)), World()):
        reload(World(rng=old), env)
        assert env.rng.note == [1]
        assert type(env.rng) is kind
        state = old.getstate()
        assert env.rng.gauss(0, 1) == old.gauss(0, 1)
        assert env.rng.random() == old.random()
        old.setstate(state)


def test_a_generator_is_one_small_leaf():
    data = snapshots.capture(World(rng=np.random.default_rng(1)))
    assert data["unwrapped/rng"].nbytes == 64


def test_bits_of_others_are_refused():
    class Bits(np.random.PCG64):
        pass

    with pytest.raises(families.Refused) as caught:
        snapshots.capture(World(rng=np.random.Generator(Bits(1))))
    assert caught.value.inside == (
        "unwrapped.rng.bit_generator is a test_random_nodes."
        "test_bits_of_others_are_refused.<locals>.Bits, whose state is not in Python",
    )

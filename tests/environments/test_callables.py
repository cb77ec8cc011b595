"""Functions are the live ones, with what they close over."""

import functools
import operator
import types

import numpy as np
import pytest

from elementsckpt.environments import families, snapshots

from support.twins import differ, reload
from support.worlds import Thing, World, counter


def clip(value):
    return value


def make(rate, held):
    """Return a world with functions of several kinds."""
    scale = np.array([rate])

    def reward(x, bonus=held):
        return float(x * scale[0]) + len(bonus)

    reward.calls = rate
    thing = Thing(rate=rate)
    up, read = counter(int(rate))
    return World(
        reward=reward,
        again=reward,
        short=lambda x: x + rate,
        named=clip,
        ufunc=np.tanh,
        builtin=len,
        method=thing.method,
        thing=thing,
        inherited=held.append,
        partial=functools.partial(np.clip, a_min=held),
        of_closure=functools.partial(reward, bonus=held),
        up=up,
        read=read,
        held=held,
        draw=np.random.default_rng(int(rate)).normal,
    )


def test_functions_stay_the_live_ones_with_other_content():
    old, new = make(2.0, [1, 2]), make(5.0, [])
    held = new.reward, new.short, new.up, new.partial
    reload(old, new)
    assert differ(old, new) is None
    assert held == (new.reward, new.short, new.up, new.partial)
    assert new.reward is new.again
    assert (new.reward(3), new.short(1), new.reward.calls) == (8.0, 3.0, 2.0)
    assert new.method() is new.thing
    new.inherited(7)
    assert new.held == [1, 2, 7]
    assert new.partial.keywords["a_min"] is new.held
    assert (new.up(), new.read()) == (3, 3)
    assert new.draw() == old.draw()


def test_a_bound_method_is_made_where_there_is_none():
    old, new = make(2.0, [1]), make(5.0, [])
    new.method = new.inherited = new.draw = None
    reload(old, new)
    assert differ(old, new) is None


def test_another_lambda_of_the_same_name_is_refused():
    data = snapshots.capture(World(reward=lambda x: x * 2))
    with pytest.raises(families.Unfit) as caught:
        snapshots.restore(World(reward=lambda x: x * 3), data)
    (said,) = caught.value.inside
    assert said.startswith("unwrapped.reward: test_callables:")
    assert said.endswith("<lambda> is another function here")


def test_a_lambda_that_is_elsewhere_here_is_found():
    functions = [lambda x: x + 1, lambda x: x + 2]
    data = snapshots.capture(World(now=functions[0], all=functions))
    env = World(now=None, all=functions)
    snapshots.restore(env, data)
    assert env.now is functions[0]


def test_functions_of_modules_are_found_only_where_they_do_no_harm():
    data = snapshots.capture(World(now=clip))
    with pytest.raises(families.Unfit, match="clip was saved, and there is none here"):
        snapshots.restore(World(), data)
    env = World(other=clip)
    snapshots.restore(env, data)
    assert env.now is clip

    class Own(World):
        pass

    env = Own()  # Of the module that has the function.
    snapshots.restore(env, snapshots.capture(Own(now=clip)))
    assert env.now is clip


def test_empty_cells_stay_empty():
    def late():
        def inner():
            return value

        if False:
            value = 1
        return inner

    old, new = World(f=late()), World(f=late())
    reload(old, new)
    assert differ(old, new) is None


def test_cells_that_hold_the_same_are_still_two():
    def pair(start):
        value = start

        def read():
            return value

        def add():
            nonlocal value
            value += 1

        return read, add

    read, add = pair(0)
    old = World(read=read, add=add)
    env = World(read=pair(0)[0], add=pair(0)[1])  # Each with a cell of its own.
    reload(old, env)
    assert differ(old, env) is None
    env.add()
    assert env.read() == 1


def test_cells_may_hold_arrays():
    def reader(array):
        return lambda: array

    def two(one, other):
        return World(a=reader(one), b=reader(other), live=[])

    shared = reader(np.arange(3.0))
    old = World(a=shared, b=shared)
    old.b = types.FunctionType(
        shared.__code__, shared.__globals__, shared.__name__, None, shared.__closure__
    )
    old.b.__qualname__ = shared.__qualname__
    env = two(np.arange(3.0), np.arange(3.0))
    reload(old, env)
    assert env.a() is env.b()


def test_recursive_functions_come_back():
    def make(start):
        total = start

        def again(n):
            nonlocal total
            total += 1
            return again(n - 1) if n else total

        return again

    env = reload(World(f=make(5)), World(f=make(1)))
    assert env.f(2) == 8


def test_cached_and_wrapped_functions_are_the_live_ones():
    def make(n):
        return World(
            cached=functools.lru_cache(lambda x: x + 1),
            wrapped=functools.wraps(clip)(n),
        )

    def plain(x):
        return x

    old, new = make(plain), make(plain)
    held = new.cached
    reload(old, new)
    assert new.cached is held


def test_functions_of_c_without_a_name_are_refused():
    with pytest.raises(families.Refused, match=r"a is an operator\.itemgetter, whose"):
        snapshots.capture(World(a=operator.itemgetter(1)))


def test_jitted_functions_are_the_live_ones():
    jax = pytest.importorskip("jax")

    def make(rate):
        return World(
            step=jax.jit(lambda x: x + 1), key=jax.random.key(rate), x=jax.numpy.ones(2)
        )

    old, new = make(1), make(2)
    step = new.step
    reload(old, new)
    assert new.step is step
    assert (new.key == old.key).all()
    with pytest.raises(families.Unfit, match=r"step: .* was saved, and here is"):
        reload(old, World(step=jax.jit(lambda x: x - 1)))

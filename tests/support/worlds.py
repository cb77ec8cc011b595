"""Environments of one's own, for tests: they need no library."""

from __future__ import annotations

import collections
import enum

import numpy as np


class World:
    """An environment whose state is whatever is put into it."""

    unwrapped = None  # As in Gymnasium, of which only the names are asked.

    def __init__(self, **attributes):
        self.__dict__.update(attributes)

    def reset(self):
        return 0, {}

    def step(self, action):
        return 0, 0.0, False, False, {}


class Wrapper:
    """A wrapper of an environment."""

    unwrapped = None

    def __init__(self, env, **attributes):
        self.env = env
        self.__dict__.update(attributes)

    def reset(self):
        return self.env.reset()

    def step(self, action):
        return self.env.step(action)


class Other(Wrapper):
    """Another wrapper."""


class Thing:
    """An object of a world."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)

    def method(self):
        return self


class Slots:
    __slots__ = ("__weakref__", "a", "b")


class More(Slots):
    __slots__ = ("__dict__", "c")


class Row(tuple):
    """A tuple with attributes."""


class Keyed:
    """An object that is hashed by what it holds."""

    def __init__(self, key):
        self.key = key

    def __hash__(self):
        return hash(self.key)

    def __eq__(self, other):
        return self.key == other.key


class Rights(enum.Flag):
    READ = 1
    WRITE = 2
    RUN = 4


class Color(enum.Enum):
    RED = bytearray(b"1")  # Which has no hash.
    BLUE = bytearray(b"2")


Point = collections.namedtuple("Point", "x y")
UNSET = object()


class Unset:
    """The class of a sentinel."""


NOTHING = Unset()


def counter(start):
    """Return two functions that share a number."""
    count = start

    def up():
        nonlocal count
        count += 1
        return count

    def read():
        return count

    return up, read


class Steps(World):
    """A small environment with randomness, whose episodes end by themselves."""

    def __init__(self):
        self.rng = np.random.default_rng(0)
        self.position = np.zeros(3)
        self.time = 0

    def reset(self, seed=None):
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.position[:] = self.rng.normal(size=3)
        self.trace = collections.deque(maxlen=4)
        self.time = 0
        return self.position.copy(), {}

    def step(self, action):
        self.time += 1
        self.position += self.rng.normal(size=3) * action
        self.trace.append(float(self.position[0]))
        reward = sum(self.trace)
        return self.position.copy(), reward, self.time >= 9, False, {}


def roll(env, count):
    """Return what an environment answers."""
    found = []
    for i in range(count):
        answer = env.step(1 + i % 3)
        found.append(repr(answer))
        if answer[2]:
            found.append(repr(env.reset()))
    return found

"""Environments that cannot be saved, and what does not fit one."""

from __future__ import annotations

import copy
import json
import sys
import types

import numpy as np
import pytest

from elementsckpt import (
    Checkpoint,
    DamagedError,
    Environment,
    MismatchError,
    Recorded,
    StateError,
)

from support.boxes import Box
from support.worlds import Keyed, Steps, Thing, World, Wrapper

from .table import says


def made(tmp, env):
    cp = Checkpoint(tmp)
    cp.env = Environment(env)
    return cp


@says(
    StateError,
    "Cannot save 'env': unwrapped.log is an open file ('…worlds.py'); unwrapped.items"
    "['a'][0] is an iterator (list_iterator). Remove it, give parts={type: (save, "
    "load)}, or parts={type: None} if no step depends on it.",
)
def an_environment_with_a_file(tmp, _):
    from support import worlds

    with open(worlds.__file__) as file:
        cp = made(tmp, World(log=file, items={"a": [iter([])]}))
        yield
        cp.save()


@says(
    MismatchError,
    "Cannot load 'env': the environment: a support.worlds.Wrapper was saved, and here "
    "is a support.worlds.Steps. Saved was Wrapper<Steps>, and here is Steps. Make it "
    "by the code that made the saved one; nothing has changed.",
)
def an_environment_without_its_wrapper(tmp, _):
    made(tmp, Wrapper(Steps())).save()
    cp = made(tmp, Steps())
    yield
    cp.load()


@says(
    MismatchError,
    "Component 'env': Saved is {'a': 1}, and an Environment loads the state of an "
    "environment. Register what it was saved from; nothing has changed.",
)
def what_is_no_environment(tmp, _):
    cp = Checkpoint(tmp)
    cp.env = Box({"a": 1})
    cp.save()
    cp = made(tmp, Steps())
    yield
    cp.load()


@says(
    DamagedError,
    "The state of an environment is not a valid save: its keys cannot be hashed "
    "(unhashable type: 'list'). Load another one; nothing has changed.",
)
def an_environment_whose_keys_have_no_hash(tmp, _):
    data = Environment(World(keys={Keyed(1): 2}, more=[])).save()
    graph = json.loads(data["#graph"])
    (key,) = (x for x in graph["nodes"] if x[-1] == {"key": 1})
    key[-1]["key"] = [graph["nodes"].index(["list", []])]
    env = Environment(World(keys={Keyed(1): 2}, more=[Thing()]))
    yield
    env.load({**data, "#graph": json.dumps(graph)})


@says(
    ValueError,
    "parts={'Simulator': 1}: pass a dict of types, each with a pair of functions "
    "(save, load), or with None to leave its objects alone.",
)
def parts_by_name(tmp, _):
    yield
    Environment(World(), {"Simulator": 1})


@says(
    MismatchError,
    "Component 'env': Played again, Recorded<Moody> is not what it was saved as: step "
    "2 of 3 returned something else. It depends on more than its actions and the "
    "generators that can be reached, or the program drew from these. Call reset(): the "
    "episode cannot go on.",
)
def an_environment_that_is_played_again_and_differs(tmp, _):
    gymnasium = pytest.importorskip("gymnasium")
    moods = iter("aaabb")

    class Moody(gymnasium.Env):
        def reset(self, *, seed=None, options=None):
            return "", {}

        def step(self, action):
            return next(moods), 0.0, False, False, {}

    Moody.__qualname__ = "Moody"
    env = Recorded(Moody())
    env.reset()
    cp = made(tmp, env)
    for _ in range(3):
        env.step(0)
    cp.save()
    moods = iter("aba")
    yield
    cp.load()


class Emulator:
    """An ALE in which all actions do the same."""

    def restoreState(self, state):
        pass

    def cloneState(self, include_rng):
        return self

    def serialize(self):
        return b"state"

    def act(self, action):
        pass

    def getMinimalActionSet(self):
        return [0, 1]

    getLegalActionSet = getMinimalActionSet


@says(
    MismatchError,
    "No action of this ALE sticks as the saved one did. Call reset(): the episode "
    "cannot go on.",
)
def an_emulator_in_which_no_action_sticks_as_it_did(tmp, patch):
    from elementsckpt.environments import ale

    library = types.SimpleNamespace(ALEState=bytes)
    patch.setitem(sys.modules, "ale_py", library)
    data = {"state": np.zeros(1, np.uint8), "frames": 1, "after": "another"}
    yield
    ale.load(Emulator(), data)


def cart_pole():
    return pytest.importorskip("gymnasium").make("CartPole-v1")


@says(
    DamagedError,
    "worker 1: The state of an environment is not a valid save (ValidationError: …). "
    "Load another save by its path, or restore this one from a copy.",
)
def a_worker_whose_state_is_damaged(tmp, _):
    vector = pytest.importorskip("gymnasium").vector
    # This process has threads, so it does not fork.
    envs = vector.AsyncVectorEnv([cart_pole] * 2, context="forkserver")
    try:
        envs.reset(seed=1)
        data = copy.deepcopy(Environment(envs).save())
        data["unwrapped"]["workers"][1]["env"]["#graph"] = "{}"
        cp = Checkpoint(tmp)
        cp.env = Box(data)
        cp.save()
        cp = made(tmp, envs)
        yield
        cp.load()
    finally:
        envs.close()

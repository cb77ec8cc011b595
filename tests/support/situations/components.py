"""What cannot be registered."""

from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest

from elementsckpt import (
    Checkpoint,
    ComponentError,
    Files,
    GlobalRNG,
    MismatchError,
    Saveable,
)

from support.boxes import Box, make

from .table import says

PAIRS = (
    " Or add a pair of methods: save() and load(data), state_dict() and "
    "load_state_dict(d), to_state_dict() and from_state_dict(d), or get_state() and "
    "set_state(state)."
)
FILES = (
    " If it writes files, wrap it: cp.agent = elementsckpt.Files(save=function_that_"
    "gets_a_folder, load=function_that_gets_it_back)."
)
FUNCTIONS = (
    " Pass two functions that do that: cp.agent = elementsckpt.Saveable("
    "function_that_returns_its_state, function_that_takes_it)."
)


@says(
    ComponentError,
    "Cannot register 'agent': an object of type dict has no usable save() and "
    "load(data). As a pytree, which cannot change itself, wrap it: cp.agent = "
    "elementsckpt.Value(it).",
    PAIRS,
)
def an_object_without_methods(tmp, _):
    cp = Checkpoint(tmp)
    yield
    cp.agent = {}


@says(
    ComponentError,
    "Cannot register 'agent': Box is a class, not an instance of it. Register one with "
    "save() and load(data): cp.agent = Box(...).",
)
def a_class(tmp, _):
    cp = Checkpoint(tmp)
    yield
    cp.agent = Box


@says(
    ComponentError,
    "Cannot register 'step': an object of type int has no usable save() and "
    "load(data). Numbers that change are counters: cp.step = elementsckpt.Counter(7).",
    PAIRS,
)
def a_number(tmp, _):
    cp = Checkpoint(tmp)
    yield
    cp.step = 7


class Replay:
    def __init__(self):
        self.pos, self.full, self._lock = 0, False, None


@says(
    ComponentError,
    "Cannot register 'replay': an object of type Replay has no usable save() and "
    "load(data). Name its attributes: cp.replay = elementsckpt.Saveable([...], of=it) "
    "with the names of all that changes, of 'pos', 'full', '_lock'.",
    PAIRS,
)
def an_object_of_somebody_else(tmp, _):
    cp = Checkpoint(tmp)
    yield
    cp.replay = Replay()


class Loads:
    def save(self):
        return 1

    def load(self):
        pass


@says(
    ComponentError,
    "Cannot register 'agent': an object of type Loads has no usable save() and "
    "load(data) (its load() does not take one argument).",
    FUNCTIONS,
    PAIRS,
)
def an_object_whose_load_takes_nothing(tmp, _):
    cp = Checkpoint(tmp)
    yield
    cp.agent = Loads()


class WritesFiles:
    def save(self, path="agent.npy", *more):
        pass

    def load(self, data):
        pass


@says(
    ComponentError,
    "Cannot register 'agent': an object of type WritesFiles has no usable save() and "
    "load(data) (its save(path, *more) can take a place to write to).",
    FILES,
    PAIRS,
)
def an_object_that_writes_files(tmp, _):
    cp = Checkpoint(tmp)
    yield
    cp.agent = WritesFiles()


class Makes:
    def save(self):
        return 1

    @classmethod
    def load(cls, data):
        return cls()


@says(
    ComponentError,
    "Cannot register 'agent': an object of type Makes has no usable save() and "
    "load(data) (its load is of the class, so it cannot change this object).",
    FUNCTIONS,
    PAIRS,
)
def an_object_whose_load_makes_another(tmp, _):
    cp = Checkpoint(tmp)
    yield
    cp.agent = Makes()


@says(
    MismatchError,
    "Component 'rng': A Generator of PCG64 was saved, and it is loaded into a "
    "Generator of Philox. Register a generator like the one that was saved; this one "
    "has not changed.",
)
def a_generator_of_another_kind(tmp, _):
    cp = Checkpoint(tmp)
    cp.rng = np.random.default_rng(0)
    cp.save()
    cp.rng = np.random.Generator(np.random.Philox(0))
    yield
    cp.load()


@says(
    ComponentError,
    "Cannot register 'save': names that begin with an underscore and names of methods "
    "are taken. Choose another attribute name.",
)
def a_name_of_a_method(tmp, _):
    cp = Checkpoint(tmp)
    yield
    cp.save = Box()


@says(
    ComponentError,
    "Cannot register 'my agent': a key must be an identifier. Choose another, or use "
    "the functions in elementsckpt.checkpoint, which take any text.",
)
def a_key_with_a_space(tmp, _):
    cp = Checkpoint(tmp)
    yield
    setattr(cp, "my agent", Box())


@says(
    ComponentError,
    "Cannot register 'model': flax.nnx.update cannot set the state of this Module (…). "
    "Hold its arrays in nnx.Variables, as the optimizers of newer versions of Flax do.",
)
def a_module_of_nnx_whose_state_cannot_be_set(tmp, monkeypatch):
    nnx = pytest.importorskip("flax.nnx")

    class Module(nnx.Module):
        pass

    def update(*_):
        raise ValueError("no variable there")

    monkeypatch.setattr(nnx, "update", update)
    cp = Checkpoint(tmp)
    yield
    cp.model = Module()


@says(
    ComponentError,
    "Nothing is registered. Assign the components first, such as cp.agent = agent; "
    "what is registered later is not loaded.",
)
def nothing_to_save(tmp, _):
    cp = Checkpoint(tmp)
    yield
    cp.save()


@says(
    ComponentError,
    "The step of this Checkpoint is not a number: invalid literal for int() with base "
    "10: 'x'. Pass as step= what int() accepts, such as a Counter.",
)
def a_step_that_is_no_number(tmp, _):
    cp = make(tmp, 1, step="x")
    yield
    cp.save()


@says(
    ComponentError,
    "The step of this Checkpoint is not a number: int() argument must be … not "
    "'NoneType'. Pass as step= what int() accepts, such as a Counter.",
)
def a_function_that_returns_no_step(tmp, _):
    cp = make(tmp, 1, step=lambda: None)
    yield
    cp.save()


@says(
    ComponentError,
    "Cannot stage 'agent': name components that have files, such as cp.policy = "
    "elementsckpt.Files(load=function).",
)
def staging_a_state(tmp, _):
    cp = make(tmp, 1)
    yield
    with cp.staging("agent"):
        pass


@says(
    ComponentError,
    "The files of 'critic' are written in such a block, too: name all of these, with "
    "staging('policy', 'critic').",
)
def staging_one_of_two(tmp, _):
    cp = Checkpoint(tmp)
    cp.policy, cp.critic = Files(load=print), Files(load=print)
    yield
    with cp.staging("policy"):
        pass


@says(
    ComponentError,
    "'agent' cannot be copied: cannot pickle '_thread.lock' object. Make another Box, "
    "register it with a Checkpoint() of its own, and load(path, keys=['agent']).",
)
def a_copy_of_a_lock(tmp, _):
    cp = make(tmp, 1)
    cp.agent.lock = threading.Lock()
    cp.save()
    yield
    cp.copy_of("agent")


@says(
    ComponentError,
    "'policy' is made of functions, which load into what they belong to, not into a "
    "copy. Use elementsckpt.read(path, keys=['policy']).",
)
def a_copy_of_functions(tmp, _):
    cp = Checkpoint(tmp)
    cp.policy = Saveable(save=int, load=print)
    cp.save()
    yield
    cp.copy_of("policy")


@says(
    ComponentError,
    "'rng' is made of the global generators of the process: loading a copy would set "
    "them. Use elementsckpt.read(path, keys=['rng']).",
)
def a_copy_of_global_generators(tmp, _):
    cp = Checkpoint(tmp)
    cp.rng = GlobalRNG()
    cp.save()
    yield
    cp.copy_of("rng")


@says(
    TypeError,
    "A Checkpoint can be neither pickled nor copied, as it holds what belongs to one "
    "process. Where another process or a copy needs one, make Checkpoint(directory, "
    "write=False) there; an object that holds one, such as a trainer, leaves it out in "
    "its __getstate__(); to evaluate a copy of a component use copy_of().",
)
def a_checkpoint_for_a_spawned_process(tmp, _):
    cp = make(tmp, 1)
    yield
    pickle.dumps(cp)

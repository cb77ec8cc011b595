"""What a user can run into, and what the error says then.

Each function sets a situation up, yields, and does what fails. Above it is the error
and its message, in which {tmp} is the directory that the function gets, and … anything.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import errno
import functools
import os
import pathlib
import pickle
import shutil
import signal
import threading
from datetime import timedelta
from typing import Any, NamedTuple

import numpy as np
import pytest

import elementsckpt
from elementsckpt import (
    Checkpoint,
    ComponentError,
    Counter,
    DamagedError,
    Every,
    Files,
    GlobalRNG,
    Keep,
    MetadataError,
    MismatchError,
    MissingKeyError,
    PickleError,
    ReadError,
    Saveable,
    SaveExistsError,
    SaveNotFoundError,
    StateError,
    Value,
    VersionError,
    WriteError,
)
from elementsckpt.storage import disk
from elementsckpt.system.job import Group

from support.boxes import Box, Stream, make
from support.faults import use_small_segments
from support.folders import flip, flip_block, forge, noise


class Situation(NamedTuple):
    """What to do, the class of the error, and its message."""

    steps: Any
    error: type[Exception]
    message: str


ALL: dict[str, Situation] = {}


def says(error, *message):
    """Add a function to the table, with the error that it ends with."""

    def add(steps):
        ALL[steps.__name__] = Situation(steps, error, "".join(message))
        return steps

    return add


def refuse(monkeypatch, call, number, name=""):
    """Have one system call fail on paths that contain a name."""

    def syscall(function, *args):
        if function is call and name in str(args[0]):
            raise OSError(number, os.strerror(number))
        return function(*args)

    monkeypatch.setattr(disk, "syscall", syscall)


# There is no save

CHECK = " Check the path, or make a save there first."


@says(SaveNotFoundError, "There is no save in {tmp}: the folder is empty.", CHECK)
def an_empty_directory(tmp, _):
    cp = make(tmp)
    yield
    cp.load()


@says(
    SaveNotFoundError,
    "There is no save in {tmp}/typo: that path was not found ({tmp} is there and holds "
    "mine).",
    CHECK,
)
def a_path_that_is_not_there(tmp, _):
    (tmp / "mine").touch()
    yield
    elementsckpt.read(tmp / "typo")


@says(
    SaveNotFoundError, "There is no save in {tmp}: the folder holds mine, yours.", CHECK
)
def a_folder_of_something_else(tmp, _):
    (tmp / "mine").touch()
    (tmp / "yours").mkdir()
    yield
    elementsckpt.info(tmp)


@says(
    SaveNotFoundError,
    "There is no save in {tmp}/mine: it is a file, and a save is a folder.",
    CHECK,
)
def a_file(tmp, _):
    (tmp / "mine").touch()
    yield
    elementsckpt.load_pytree(tmp / "mine", 0)


@says(
    SaveNotFoundError,
    "There is no save in {tmp}/save: it is a save that was never finished.",
    CHECK,
)
def a_save_that_a_crash_interrupted(tmp, _):
    path = make(state=1).save(tmp / "save").path
    (path / "manifest.json").rename(path / ".manifest.json")
    yield
    make().load(path)


@says(
    SaveNotFoundError,
    "There is no save of step 5 in {tmp}. Choose one of these steps: 1, 2.",
)
def a_step_that_was_not_saved(tmp, _):
    cp = make(tmp, 0, keep=None, step=Counter())
    for cp._step.value in (1, 2):
        cp.save()
    yield
    cp.load(step=5)


@says(
    SaveNotFoundError,
    "There is no save of step 5 in {tmp}. No save there has a step: pass its path "
    "instead.",
)
def a_step_where_there_are_none(tmp, _):
    cp = make(tmp, 0)
    cp.save()
    yield
    cp.delete(step=5)


@says(
    SaveNotFoundError,
    "No save in {tmp} has the name or the pin 'god'; near it are 'good', 'latest', "
    "'best', …. There is no save in {tmp}/god: that path was not found ({tmp} is there "
    "and holds …).",
    CHECK,
)
def a_pin_that_is_not_there(tmp, monkeypatch):
    monkeypatch.chdir(tmp)
    cp = make(tmp, 0)
    cp.save(pin="good")
    yield
    cp.load("god")


@says(
    SaveNotFoundError,
    "No save in {tmp} has a finite metric to be the best by. Load the newest with "
    "load(), or give metrics= to save().",
)
def the_best_where_nothing_was_measured(tmp, _):
    cp = make(tmp, 0, keep=Keep(metric="return"))
    cp.save()
    yield
    cp.load("best")


# There is something already

TAKEN = " Choose another path or remove it first; it was not touched."


@says(SaveExistsError, "Cannot save to {tmp}/save: it holds a save already.", TAKEN)
def a_path_with_a_save(tmp, _):
    cp = make(state=1)
    cp.save(tmp / "save")
    yield
    cp.save(tmp / "save")


@says(SaveExistsError, "Cannot save to {tmp}/…: it holds a save already.", TAKEN)
def a_path_of_a_save_that_this_user_may_not_remove(tmp, monkeypatch):
    cp = make(tmp, 1, keep=None)
    path = cp.save().path
    cp.save()
    yield
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    assert cp.delete(path) == []
    cp.save(path)


@says(SaveExistsError, "Cannot save to {tmp}: it holds mine.", TAKEN)
def a_folder_with_files(tmp, _):
    (tmp / "mine").touch()
    yield
    elementsckpt.save_pytree(tmp, 1)


@says(SaveExistsError, "Cannot save to {tmp}/mine: it is a file.", TAKEN)
def a_file_where_to_save(tmp, _):
    (tmp / "mine").touch()
    yield
    elementsckpt.save_pytree(tmp / "mine", 1)


BUSY = (
    "Cannot save to {tmp}/save: another save is being written there. Choose another "
    "path, or wait until it is finished."
)


@says(SaveExistsError, BUSY)
def a_path_to_which_is_being_saved(tmp, _):
    inner = make(state=1)
    outer = Checkpoint()
    outer.nested = Saveable(save=lambda: inner.save(tmp / "save"), load=print)
    yield
    outer.save(tmp / "save")


@says(SaveExistsError, BUSY)
def a_path_to_which_somebody_else_is_faster_to_save(tmp, monkeypatch):
    monkeypatch.setattr(disk, "lock", lambda _: False)
    yield
    make(state=1).save(tmp / "save")


def as_it_begins(monkeypatch, path, do):
    """Do something just before the draft of a save to a path is made."""

    def syscall(call, *args):
        if call is os.open and args[0] == path / ".manifest.json":
            monkeypatch.setattr(disk, "syscall", lambda call, *args: call(*args))
            do()
        return call(*args)

    monkeypatch.setattr(disk, "syscall", syscall)


@says(SaveExistsError, "Cannot save to {tmp}/save: it holds a save already.", TAKEN)
def a_path_to_which_somebody_else_has_saved_meanwhile(tmp, monkeypatch):
    path = tmp / "save"
    yield
    as_it_begins(monkeypatch, path, lambda: make(state=1).save(path))
    make(state=2).save(path)


@says(SaveExistsError, BUSY)
def a_path_to_which_two_begin_to_save_at_once(tmp, monkeypatch):
    draft = tmp / "save" / ".manifest.json"
    yield
    as_it_begins(monkeypatch, draft.parent, draft.touch)
    make(state=1).save(draft.parent)


# There is no such component


@says(
    MissingKeyError,
    "{tmp}/… has no 'critic', 'replay'. It has 'agent'. Nothing was loaded. To go on "
    "without what it lacks, load(keys=['agent']) what it has; the next save() has all "
    "that is registered.",
)
def keys_that_the_save_lacks(tmp, _):
    make(tmp, 1).save()
    cp = make(tmp)
    cp.critic, cp.replay = Box(), Box()
    yield
    cp.load()


@says(
    MissingKeyError,
    "{tmp}/… has no 'critic'. It has 'agent'. Nothing was loaded. Load what it has "
    "under another key with load(keys={'critic': 'agent'}), from keys here to those in "
    "the save.",
)
def a_key_that_the_save_has_under_another_name(tmp, _):
    make(tmp, {"w": 1, "b": 2}).save()
    cp = Checkpoint(tmp)
    cp.critic = Box({"w": 1, "b": 2})
    yield
    cp.load()


@says(
    MissingKeyError,
    "Not registered: 'agnet'. Registered are: 'agent'. Register the rest first, or "
    "leave it out of keys=.",
)
def a_key_that_is_not_registered(tmp, _):
    cp = make(tmp, 1)
    yield
    cp.save(keys=["agnet"])


# This cannot be registered

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
    " Name two functions that do that: cp.agent = elementsckpt.Saveable("
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
    "The step of this Checkpoint is no number: invalid literal for int() with base 10: "
    "'x'. Pass as step= what int() accepts, such as a Counter.",
)
def a_step_that_is_no_number(tmp, _):
    cp = make(tmp, 1, step="x")
    yield
    cp.save()


@says(
    ComponentError,
    "The step of this Checkpoint is no number: int() argument must be … not "
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
    "'policy' is made of functions, which load into what they belong to: no copy of "
    "them would. Use elementsckpt.read(path, keys=['policy']).",
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


# This state cannot be saved


@says(
    StateError,
    "agent/lock, of type lock, cannot be saved: cannot pickle '_thread.lock' object. "
    "Leave it out of what save() returns, and make it anew in load().",
)
def a_lock_in_a_state(tmp, _):
    cp = make(tmp, {"lock": threading.Lock()})
    yield
    cp.save()


@says(
    StateError,
    "agent/0/file, of type …, cannot be saved: an open file. Leave it out of what "
    "save() returns, and make it anew in load().",
)
def an_open_file_in_a_state(tmp, _):
    with (tmp / "mine").open("w") as file:
        cp = make(tmp, [{"file": file}])
        yield
        cp.save()


@says(
    StateError,
    "agent/0, of type Folder, cannot be saved: what Files.save() returns must be all "
    "of a component's state, not a part. Leave it out of what save() returns, and make "
    "it anew in load().",
)
def files_inside_of_a_state(tmp, _):
    cp = make(tmp, [Files(save=print, load=print).save()])
    yield
    cp.save()


@says(
    StateError,
    "The state of 'agent' is nested too deeply to be saved. Return a flatter state "
    "from save(), for example lists instead of linked objects.",
)
def a_state_that_is_too_deep(tmp, _):
    state = []
    for _ in range(10_000):
        state = [state]
    cp = make(tmp, state)
    yield
    cp.save()


@says(
    StateError,
    "agent/w is a deleted JAX array: it was donated to a jitted function or delete() "
    "was called; save what that function returned instead.",
)
def a_donated_array(tmp, _):
    jax = pytest.importorskip("jax")
    cp = make(tmp, {"w": jax.numpy.ones(3)})
    cp.agent.state["w"].delete()
    yield
    cp.save()


@says(StateError, "agent/w is a tracer: call save() outside of jit, grad and vmap.")
def a_save_inside_of_jit(tmp, _):
    jax = pytest.importorskip("jax")
    cp = make(tmp)

    def step(w):
        cp.agent.state = {"w": w}
        cp.save()

    yield
    jax.jit(step)(1.0)


@says(
    StateError,
    "agent/w is a tensor without data, on the device meta: initialize it first.",
)
def a_tensor_without_data(tmp, _):
    torch = pytest.importorskip("torch")
    cp = make(tmp, {"w": torch.empty(3, device="meta")})
    yield
    cp.save()


@says(
    StateError,
    "agent/w is a DTensor, and this process holds only its own shard: save what its "
    "full_tensor() returns, or what get_model_state_dict() of "
    "torch.distributed.checkpoint.state_dict does with "
    "StateDictOptions(full_state_dict=True).",
)
def a_torch_tensor_of_which_others_have_a_part(tmp, _):
    torch = pytest.importorskip("torch")
    tensor = pytest.importorskip("torch.distributed.tensor")
    group = torch.distributed
    group.init_process_group("gloo", store=group.HashStore(), rank=0, world_size=1)
    try:
        mesh = group.device_mesh.init_device_mesh("cpu", (1,))
        cp = make(tmp, {"w": tensor.distribute_tensor(torch.ones(4), mesh)})
        yield
        cp.save()
    finally:
        group.destroy_process_group()


@says(
    StateError,
    "agent/w is a FakeTensor, which has no data: save what FakeTensorMode is not for.",
)
def a_fake_torch_tensor(tmp, _):
    torch = pytest.importorskip("torch")
    with torch._subclasses.FakeTensorMode():
        cp = make(tmp, {"w": torch.ones(3)})
    yield
    cp.save()


@says(
    StateError,
    "agent/w, of type Tensor, cannot be saved: …. Leave it out of what ",
    "save() returns, and make it anew in load().",
)
def a_torch_tensor_in_a_layout_of_its_own(tmp, _):
    torch = pytest.importorskip("torch")
    cp = make(tmp, {"w": torch.ones(3).to_mkldnn()})
    yield
    cp.save()


@says(StateError, "agent/w is a tensor of torch.…: convert it to another dtype first.")
def a_tensor_of_a_rare_type(tmp, _):
    torch = pytest.importorskip("torch")
    cp = make(tmp, {"w": torch.empty(3, dtype=torch.bits8)})
    yield
    cp.save()


@says(
    StateError,
    "Component 'state': w is ShapeDtypeStruct(…), a shape without elements: load "
    "something into it, or set the value to arrays, before it is saved.",
)
def a_value_that_was_never_loaded(tmp, _):
    jax = pytest.importorskip("jax")
    cp = Checkpoint(tmp)
    cp.state = Value({"w": jax.ShapeDtypeStruct((3,), "float32")})
    yield
    cp.save()


@says(
    StateError,
    "Component 'state': net/0 is a module of Flax that is bound to its variables: save "
    "these, which unbind() returns with the module, and bind it anew.",
)
def a_module_that_is_bound(tmp, _):
    linen = pytest.importorskip("flax.linen")
    cp = Checkpoint(tmp)
    cp.state = Value({"net": [linen.Dense(1).bind({"params": {}})]})
    yield
    cp.save()


@says(
    StateError,
    "Component 'state': The value is nested too deeply, or holds itself. Make it "
    "flatter, for example with lists instead of linked objects.",
)
def a_value_that_holds_itself(tmp, _):
    cp = Checkpoint(tmp)
    value = []
    value.append(value)
    cp.state = Value(value)
    yield
    cp.save()


@says(
    StateError,
    "'policy' has no function that writes its files. Let others write them in `with "
    "cp.staging('policy') as folder:`, which saves all, or leave it out with "
    "keys=[...].",
)
def files_that_nobody_writes(tmp, _):
    cp = Checkpoint(tmp)
    cp.policy = Files(load=print)
    yield
    cp.save()


@says(
    StateError,
    "{tmp}/…/policy.files is not a folder any more. Write files to the folder that the "
    "function gets, and leave the folder itself in place.",
)
def a_folder_that_its_component_removes(tmp, _):
    cp = Checkpoint(tmp)
    cp.policy = Files(save=os.rmdir, load=print)
    yield
    cp.save()


@says(
    StateError,
    "{tmp}/…/policy.files holds what cannot be part of a save:\n  link is a symbolic "
    "link: copy the file instead.\n  pipe is neither a file nor a folder: remove it.",
)
def a_folder_with_links_and_pipes(tmp, _):
    def write(folder):
        (folder / "link").symlink_to(tmp)
        os.mkfifo(folder / "pipe")

    cp = Checkpoint(tmp)
    cp.policy = Files(save=write, load=print)
    yield
    cp.save()


# These metadata cannot be saved

METADATA = (
    " It may hold mappings, sequences, dataclasses, namespaces, paths, enumerations, "
    "numbers and text: leave the rest out, or put its name in its place. Nothing was "
    "written."
)


@says(
    MetadataError,
    "Metadata cannot be saved: metadata['net'][0] is of type Box.",
    METADATA,
)
def an_object_in_metadata(tmp, _):
    cp = make(tmp, 1)
    yield
    cp.save(metadata={"net": [Box()]})


@says(
    MetadataError,
    "Metadata cannot be saved: metadata['flags'] is of type FlagValues. Pass the "
    "result of its flag_values_dict(). Nothing was written.",
)
def flags_in_metadata(tmp, _):
    flags = pytest.importorskip("absl.flags")
    yield
    Checkpoint(tmp, metadata={"flags": flags.FLAGS})


class Unset:
    __module__ = "omegaconf.dictconfig"

    def keys(self):
        return ["lr"]

    def __getitem__(self, key):
        raise LookupError(f"Missing mandatory value: {key}")


@says(
    MetadataError,
    "Metadata cannot be saved: reading metadata['run'] failed with LookupError: "
    "Missing mandatory value: lr. Set what is missing, or pass "
    "OmegaConf.to_container(config), in which it is text. Nothing was written.",
)
def a_configuration_with_missing_values(tmp, _):
    yield
    Checkpoint(tmp, metadata={"run": Unset()})


@says(MetadataError, "Metadata cannot be saved: it holds itself.", METADATA)
def metadata_that_hold_themselves(tmp, _):
    metadata = {}
    metadata["self"] = metadata
    yield
    Checkpoint(tmp, metadata=metadata)


@says(
    MetadataError,
    "Metadata cannot be saved: the key (1, 2) of metadata is a sequence.",
    METADATA,
)
def a_tuple_as_a_key_of_metadata(tmp, _):
    yield
    elementsckpt.save_pytree(tmp / "save", 1, metadata={(1, 2): 3})


@says(
    MetadataError,
    "The metadata of the Checkpoint is a dict and that of this save a list: pass "
    "mappings, which can be united. Nothing was written.",
)
def metadata_that_do_not_unite(tmp, _):
    cp = make(tmp, 1, metadata={"seed": 0})
    yield
    cp.save(metadata=[1, 2])


@says(
    MetadataError,
    "metrics is of type float: pass numbers by name, such as metrics={'return': "
    "213.0}. Nothing was written.",
)
def a_number_as_metrics(tmp, _):
    cp = make(tmp, 1)
    yield
    cp.save(metrics=3.5)


@says(
    MetadataError,
    "metrics['return'] is of type str: pass a number, by a name that is text. What is "
    "not a number can be in metadata. Nothing was written.",
)
def a_metric_that_is_text(tmp, _):
    cp = make(tmp, 1)
    yield
    cp.save(metrics={"return": "high"})


# What was saved does not fit

NOTHING = "; nothing was loaded."


@says(
    MismatchError,
    "The current state and {tmp}/… differ in 3 leaves:\n"
    "  agent/w: saved float32[3], expected float32[4]\n"
    "  agent/new: not in the save\n"
    "  agent/old: only in the save\n"
    "Nothing was loaded. Leave these leaves out with "
    "load(regex='(?!(?:w$|new$|old$))'), or map names in the save to current ones, as "
    "with rename={'^old$': 'new'}, or load what only both have with strict=False.",
)
def leaves_that_do_not_fit(tmp, _):
    make(tmp, {"w": np.ones(3, "f4"), "b": [0] * 3, "old": 1}).save()
    cp = make(tmp, {"w": np.ones(4, "f4"), "b": [0] * 3, "new": 1})
    yield
    cp.load(regex=".*")


@says(
    MismatchError,
    "The current state and {tmp}/… differ in 1 leaf:\n"
    "  agent/w: saved float64[3], expected float32[3]\n"
    "Nothing was loaded. Convert dtypes, never shapes, with cast=True.",
)
def a_leaf_of_another_type(tmp, _):
    make(tmp, {"w": np.ones(3)}).save()
    cp = make(tmp, {"w": np.ones(3, "f4")})
    yield
    cp.load(regex=".*")


@says(
    MismatchError,
    "The current state and {tmp}/… differ in 1 leaf:\n"
    "  agent/w: saved int64[2], expected int64[3]\n"
    "Nothing was loaded. Register an object like the one that was saved.",
)
def the_only_leaf_that_does_not_fit(tmp, _):
    make(tmp, {"w": np.arange(2)}).save()
    cp = make(tmp, {"w": np.arange(3)})
    yield
    cp.load(regex=".*")


LIKE = (
    "Nothing was loaded. Load into a value like the one that was saved, which "
    "elementsckpt.read shows"
)


@says(
    MismatchError,
    "The current state and {tmp}/save differ in 2 leaves:\n"
    "  tree/w: saved int64[3], expected int64[4]\n"
    "  tree/n: saved float, expected bool\n",
    LIKE,
    ", or leave these leaves out with load_pytree(regex='(?!(?:w$|n$))').",
)
def a_template_that_does_not_fit(tmp, _):
    elementsckpt.save_pytree(tmp / "save", {"w": np.arange(3), "n": 0.5, "b": [1, 2]})
    yield
    elementsckpt.load_pytree(tmp / "save", {"w": np.arange(4), "n": True, "b": [1, 2]})


@says(
    MismatchError,
    "The current state and {tmp}/save differ in 2 leaves:\n"
    "  tree/b: not in the save\n"
    "  tree/a: only in the save\n",
    LIKE,
    ", or map names in the save to current ones, as with rename={'^a$': 'b'}.",
)
def a_template_of_other_names(tmp, _):
    elementsckpt.save_pytree(tmp / "save", {"a": 1})
    yield
    elementsckpt.load_pytree(tmp / "save", {"b": 1})


@says(
    MismatchError,
    "The current state and {tmp}/save differ in 1 leaf:\n"
    "  tree/w: saved float64[3], expected float32[3]\n",
    LIKE,
    ".",
)
def a_value_of_functions_that_does_not_fit(tmp, _):
    elementsckpt.save_pytree(tmp / "save", {"w": np.ones(3)})
    value = Value({"w": np.ones(3, "f4")})
    yield
    elementsckpt.checkpoint.load(tmp / "save", {"tree": value.load})


@says(
    MissingKeyError,
    "{tmp}/… has no 'tree'. It has 'agent'. Nothing was loaded. Pass key= to load one "
    "of these.",
)
def a_pytree_that_is_a_component(tmp, _):
    make(tmp, 1).save()
    yield
    elementsckpt.load_pytree(tmp, 0)


@says(
    MissingKeyError,
    "{tmp}/… has no 'critic'. It has 'agent'. Nothing was loaded. Pass keys that it "
    "has.",
)
def keys_to_read_that_are_not_there(tmp, _):
    make(tmp, 1).save()
    yield
    elementsckpt.read(tmp, keys=["critic"])


@says(
    MissingKeyError,
    "{tmp}/… has no 'critic'. It has 'agent'. Nothing was loaded. Pass functions for "
    "what it has.",
)
def functions_for_what_is_not_there(tmp, _):
    make(tmp, 1).save()
    yield
    elementsckpt.checkpoint.load(tmp, {"critic": print})


@says(
    MissingKeyError,
    "regex names 'critic', and to be loaded are 'agent'. Correct its keys",
    NOTHING,
)
def a_pattern_of_another_component(tmp, _):
    cp = make(tmp, 1)
    cp.save()
    yield
    cp.load(regex={"agent": ".*", "critic": ".*"})


@says(
    MismatchError,
    "rename has replacements beside mappings: pass {pattern: replacement}, or {key: "
    "{pattern: replacement}} for some of the components",
    NOTHING,
)
def a_rename_of_two_forms(tmp, _):
    cp = make(tmp, 1)
    cp.save()
    yield
    cp.load(rename={"agent": {"a": "b"}, "c": "d"})


@says(
    MismatchError,
    "rename takes agent/old out of its component, to old. Keep 'agent' in the "
    "replacement, or load what is saved under another key with "
    "keys={key_here: key_in_the_save}",
    NOTHING,
)
def a_rename_that_loses_the_key(tmp, _):
    cp = make(tmp, {"old": 1})
    cp.save()
    yield
    cp.load(rename={"^agent/": ""})


@says(
    MismatchError,
    "rename takes agent/old out of its component, to policy/old. Keep 'agent' in the "
    "replacement, or load what is saved under another key with "
    "keys={'policy': 'agent'}",
    NOTHING,
)
def a_rename_of_the_key(tmp, _):
    cp = make(tmp, {"old": 1})
    cp.save()
    yield
    cp.load(rename={"^agent/": "policy/"})


@says(
    MismatchError,
    "The current state and what load() was given differ in 1 leaf:\n"
    "  The value: saved float64[2], expected float64[3]\n"
    "Nothing was loaded. Load into a value like the one that was saved.",
)
def a_value_that_is_given_something_else(tmp, _):
    value = Value(np.ones(3))
    yield
    value.load(np.ones(2))


@says(
    MismatchError,
    "regex='enc/.*' matches no leaf of 'agent' in {tmp}/…. The nearest names in "
    "the save are 'head', 'torso/kernel'. Correct the pattern, which must match from "
    "the start of a name, with or without the key",
    NOTHING,
)
def a_pattern_that_matches_nothing(tmp, _):
    make(tmp, {"torso": {"kernel": 1}, "head": 2}).save()
    yield
    elementsckpt.read(tmp, regex="enc/.*")


@says(
    MismatchError,
    "regex='torso/.*' matches no leaf of 'agent' in {tmp}/…. The nearest names in the "
    "save are 'trunk/w', 'trunk/b'. It matches 'torso/w' of the current state, and "
    "patterns are for names in the save, which rename= maps to current ones. Correct "
    "the pattern, which must match from the start of a name, with or without the key",
    NOTHING,
)
def a_pattern_for_the_current_state(tmp, _):
    make(tmp, {"trunk": {"w": 1, "b": 2}}).save()
    cp = make(tmp, {"torso": {"w": 1, "b": 2}})
    yield
    cp.load(regex="torso/.*")


@says(
    MismatchError,
    "regex='.*' matches no leaf of 'agent' in {tmp}/…, where none has a name: leaves "
    "in attributes of containers have none, and there may be no others. Load it whole, "
    "without regex=",
    NOTHING,
)
def a_pattern_for_what_is_in_attributes(tmp, _):
    state = collections.OrderedDict()
    state.version = np.arange(3)
    make(tmp, state).save()
    yield
    elementsckpt.read(tmp, regex=".*")


@says(
    MismatchError,
    "No matched leaf of {tmp}/… is in the current state: agent/old. Map names in the "
    "save to current ones, as with rename={'^old$': 'new'}",
    NOTHING,
)
def matched_leaves_that_are_not_there_now(tmp, _):
    make(tmp, {"old": 1}).save()
    cp = make(tmp, {"new": 1})
    yield
    cp.load(regex="o.*")


@says(
    MismatchError,
    "No matched leaf of {tmp}/… is in the current state: agent/odd. Correct "
    "rename={'l': 'd'}, which does not make these names fit, as "
    "rename={'l': 'd', '^odd$': 'new'} may",
    NOTHING,
)
def names_that_a_rename_does_not_make_fit(tmp, _):
    make(tmp, {"old": 1}).save()
    cp = make(tmp, {"new": 1})
    yield
    cp.load(rename={"l": "d"})


@says(
    MismatchError,
    "rename gives agent/a and agent/b the same name agent/c. Make the pattern or the "
    "regex more specific",
    NOTHING,
)
def two_leaves_renamed_to_one_name(tmp, _):
    make(tmp, {"a": 1, "b": 2}).save()
    cp = make(tmp, {"c": 1})
    yield
    cp.load(rename={"a|b": "c"})


@says(
    MismatchError,
    "'(enc' is not a regular expression: missing ), unterminated subpattern at "
    "position 0. Correct it, or pass re.escape(name) to match a name as it is",
    NOTHING,
)
def a_pattern_that_is_none(tmp, _):
    cp = make(tmp, 1)
    cp.save()
    yield
    cp.load(regex="(enc")


@says(
    MismatchError,
    r"Cannot rename 'enc' by 'e' to '\\1': invalid group reference 1 at position 1. "
    r"Correct "
    "the replacement, which is as for re.sub",
    NOTHING,
)
def a_replacement_that_is_none(tmp, _):
    make(tmp, {"enc": 1}).save()
    cp = make(tmp, {"dec": 1})
    yield
    cp.load(rename={"e": r"\1"})


@says(
    MismatchError,
    "rename is of type list: pass a dict from pattern to replacement, such as "
    "{'^encoder': 'torso'}.",
)
def a_rename_that_is_a_list(tmp, _):
    cp = make(tmp, 1)
    cp.save()
    yield
    cp.load(rename=["enc", "torso"])


NO_NAMES = ", so its leaves have no names to select or compare them by. Leave it out"


def streaming(directory):
    cp = make(directory, {"w": 1})
    cp.replay = Stream([1, 2])
    return cp


@says(
    MismatchError,
    "'replay' in {tmp}/… was saved in shards by a generator",
    NO_NAMES,
    " with keys=['agent']",
    NOTHING,
)
def a_pattern_for_a_generator(tmp, _):
    streaming(tmp).save()
    yield
    elementsckpt.read(tmp, regex="w")


@says(
    MismatchError,
    "'agent' is saved in shards by a generator",
    NO_NAMES,
    " with keys=[...]",
    NOTHING,
)
def a_pattern_for_what_is_a_generator_now(tmp, _):
    make(tmp, {"w": 1}).save(tmp / "save")
    cp = Checkpoint(tmp)
    cp.agent = Stream([1])
    yield
    cp.load(tmp / "save", regex="w")


@says(
    MismatchError,
    "'policy' in {tmp}/… was saved as files",
    NO_NAMES,
    " with keys=['agent']",
    NOTHING,
)
def a_pattern_for_files(tmp, _):
    cp = make(tmp, {"w": 1})
    cp.policy = Files(save=lambda _: None, load=print)
    cp.save()
    yield
    cp.load(regex=".*")


@says(
    MismatchError,
    "'replay' in {tmp}/… was saved in shards by a generator, so its leaves have no "
    "names to select or compare them by. Load it with a Checkpoint, into what it was "
    "saved from",
    NOTHING,
)
def a_generator_as_a_pytree(tmp, _):
    streaming(tmp).save()
    yield
    elementsckpt.load_pytree(tmp, 0, key="replay")


@says(
    MismatchError,
    "'agent' in {tmp}/… is a folder of files, and what loads it takes a state. Use "
    "elementsckpt.Files(load=function), or leave it out with keys=",
    NOTHING,
)
def files_for_what_takes_a_state(tmp, _):
    cp = Checkpoint(tmp)
    cp.agent = Files(save=lambda _: None, load=print)
    cp.save()
    yield
    make(tmp).load()


@says(
    MismatchError,
    "'agent' in {tmp}/… is a state, and what loads it is a Files, which takes a "
    "folder. Use what it was saved with, or leave it out with keys=",
    NOTHING,
)
def a_state_for_what_takes_files(tmp, _):
    make(tmp, 1).save()
    cp = Checkpoint(tmp)
    cp.agent = Files(load=print)
    yield
    cp.load()


@says(
    MismatchError,
    "The leaves of 'agent' that are selected make no state with those that are not: …. "
    "Select more or fewer of them with another regex",
    NOTHING,
)
def leaves_that_make_no_generator(tmp, _):
    cp = make(tmp, {"rng": np.random.default_rng(0)})

    def change(manifest):
        for group in manifest["components"][0]["trees"][0]["leaves"]:
            for number, name in enumerate(group["names"]):
                if name.endswith("pool_size"):
                    group["value"][number] = 1

    forge(cp.save().path, change)
    yield
    cp.load(regex=".*", strict=False)


@says(
    MismatchError,
    "agent/w is a JAX array of int64, which JAX would silently make 32 bits wide. Set "
    "jax_enable_x64, as the run that saved it did.",
)
def an_array_too_wide_for_jax(tmp, monkeypatch):
    jax = pytest.importorskip("jax")
    cp = make(tmp, {"w": jax.numpy.ones(3)})
    path = cp.save().path

    def widen(manifest):
        manifest["components"][0]["trees"][0]["leaves"][0]["dtype"] = "<i8"
        manifest["components"][0]["trees"][0]["leaves"][0]["shape"] = [0]

    forge(path, widen)
    yield
    cp.load()


@says(
    MismatchError,
    "In 'agent' in {tmp}/…/manifest.json the same containers appear in too many "
    "places, or too deep ones, for their leaves to be selected by name. Load it whole, "
    "without regex=",
    NOTHING,
)
def containers_that_hold_each_other_many_times(tmp, _):
    state = [0]
    for _ in range(30):
        state = [state, state]
    make(tmp, state).save()
    yield
    elementsckpt.read(tmp, regex="0")


# Pickle is needed


class Plain:
    pass


def foreign(tmp, state):
    """Return another object's checkpoint, and a save with this state."""
    return make(state=0), make(state=state).save(tmp / "save").path


CLASSES = "'state' in {tmp}/…/manifest.json is a Value's, with classes or static fields"
TEMPLATE = "Give the Value that loads it a template: Value(one_like_the_saved)"


class Settings(NamedTuple):
    """Is no plain container."""

    content: Any


def make_value(directory, content):
    """Return a checkpoint of a value that is saved with its class."""
    cp = Checkpoint(directory)
    cp.state = Value(Settings(content))
    cp.save()
    return cp


@says(
    PickleError,
    CLASSES,
    " that are pickled, and loading them could run any code. ",
    TEMPLATE,
    ", or pass allow_pickle=True if you trust who wrote the save.",
)
def classes_of_a_value_from_elsewhere(tmp, _):
    path = make_value(tmp, 1).latest()
    cp = Checkpoint()
    cp.state = Value()
    yield
    cp.load(path)


@says(PickleError, CLASSES, " that could not be pickled. ", TEMPLATE, ".")
def classes_of_a_value_that_cannot_be_pickled(tmp, _):
    lock = threading.Lock()
    make_value(tmp, [lambda: lock])
    cp = Checkpoint(tmp)
    cp.state = Value()
    yield
    cp.load()


@says(
    PickleError,
    CLASSES,
    " that cannot be unpickled: changed its mind. ",
    TEMPLATE,
    ".",
)
def classes_of_a_value_that_cannot_be_loaded(tmp, _):
    make_value(tmp, functools.partial(print, Fickle()))
    cp = Checkpoint(tmp)
    cp.state = Value()
    yield
    cp.load()


@says(
    PickleError,
    "agent/odd was saved with pickle, and loading it could run any code, so it needs "
    "allow_pickle=True. Pass that if you trust who wrote the save, or leave the leaf "
    "out with keys= or regex=.",
)
def a_pickle_from_elsewhere(tmp, _):
    cp, path = foreign(tmp, {"odd": Plain()})
    yield
    cp.load(path)


@says(
    PickleError,
    "agent/act is the function math:tanh, which is not in the component's current "
    "state or was not found. Pass allow_pickle=True if you trust who wrote the save, "
    "or leave the leaf out with keys= or regex=.",
)
def a_function_from_elsewhere(tmp, _):
    import math

    cp, path = foreign(tmp, {"act": math.tanh})
    yield
    cp.load(path)


class Fickle:
    def __reduce__(self):
        return fail, ("changed its mind",)


def fail(text):
    raise RuntimeError(text)


@says(
    PickleError,
    "agent/odd cannot be unpickled: changed its mind. Make its class importable, or "
    "leave it out with keys= or regex=.",
)
def a_pickle_that_cannot_be_loaded(tmp, _):
    cp = make(tmp, {"odd": Fickle()})
    cp.save()
    yield
    cp.load()


@dataclasses.dataclass
class Changing:
    x: Any


@says(
    ReadError,
    "The new field 'link' of support.situations.Changing cannot be given its default: "
    "'Fickle' object has no attribute 'missing'. Correct its default_factory; nothing "
    "was loaded.",
)
def a_new_field_whose_default_cannot_be_made(tmp, monkeypatch):
    @dataclasses.dataclass
    class Changed(Changing):
        link: Any = dataclasses.field(default_factory=lambda: Fickle().missing)

    make(tmp, {"a": Changing(1)}).save()
    cp = make(tmp)
    Changed.__qualname__, Changed.__module__ = "Changing", __name__
    monkeypatch.setitem(globals(), "Changing", Changed)
    yield
    cp.load()


def of_elements(folder, content):
    """Make a save as elements writes it, with these bytes."""
    folder.mkdir()
    (folder / "agent.pkl").write_bytes(content)
    (folder / "done").touch()
    return folder


@says(
    PickleError,
    "agent in {tmp}/old/agent.pkl needs support.situations.Plain, and more than "
    "builtin containers, scalars and NumPy arrays is read only with "
    "allow_pickle=True, because a pickle can run any code. Pass it if you trust who "
    "wrote the file.",
)
def a_class_in_a_folder_of_elements(tmp, _):
    path = of_elements(tmp / "old", pickle.dumps(Plain()))
    yield
    make().load(path)


@says(
    PickleError,
    "agent in {tmp}/old/agent.pkl needs a class that was not found: No module named "
    "'nowhere'. Make it importable, or leave agent out.",
)
def a_missing_class_in_a_folder_of_elements(tmp, _):
    path = of_elements(tmp / "old", b"cnowhere\nThing\n.")
    yield
    make().load(path, allow_pickle=True)


# A newer version


@says(
    VersionError,
    "{tmp}/…/manifest.json is in version 9 of the format, and this elementsckpt reads "
    "versions up to 2: update elementsckpt to load it.",
)
def a_save_of_a_newer_version(tmp, _):
    cp = make(tmp, 1)
    forge(cp.save().path, lambda manifest: manifest.update(version=9))
    yield
    cp.load()


# A save is damaged

OTHER = " Load another save by its path, or restore this one from a copy."
CLAIMS = "{tmp}/…/manifest.json is damaged, or not what it claims to be: it "


def saved(tmp, change):
    """Save leaves and files, change the save, and return the object."""
    cp = make(tmp, {"n": 1, "w": noise(0), "v": np.zeros(100_000)})
    cp.policy = Files(save=lambda x: (x / "a").write_text("12"), load=lambda _: None)
    change(cp.save().path)
    return cp


def forged(tmp, change):
    return saved(tmp, lambda path: forge(path, lambda x: change(x["components"])))


def raw(path):
    return min(path.glob("*.safetensors"), key=lambda x: "U8" in repr(x.read_bytes()))


@says(
    DamagedError, "{tmp}/…/manifest.json is damaged: its digest does not match.", OTHER
)
def a_manifest_that_changed(tmp, _):
    cp = saved(tmp, lambda path: flip(path / "manifest.json", 30))
    yield
    cp.load()


@says(
    DamagedError,
    "{tmp}/…/manifest.json is damaged: its digest does not match. Restore it from a "
    "copy, or choose another save.",
)
def the_information_of_a_damaged_save(tmp, _):
    saved(tmp, lambda path: flip(path / "manifest.json", 30))
    yield
    elementsckpt.info(tmp)


@says(
    DamagedError,
    "All 2 saves in {tmp} are damaged:\n"
    "  …: {tmp}/…/manifest.json is damaged: its digest does not match.\n"
    "  …: {tmp}/…/manifest.json is damaged: its digest does not match.\n"
    "Restore one from a copy, or start in another directory.",
)
def two_saves_that_changed(tmp, _):
    cp = make(tmp, 1, keep=2)
    for _ in range(2):
        flip(cp.save().path / "manifest.json", 30)
    yield
    cp.load_or_save()


@says(
    DamagedError,
    "{tmp}/…/manifest.json is damaged: it has 4294967297 bytes, more than ….",
    OTHER,
)
def a_huge_manifest(tmp, _):
    cp = saved(tmp, lambda path: os.truncate(path / "manifest.json", (1 << 32) + 1))
    yield
    cp.load()


@says(DamagedError, "{tmp}/…/manifest.json is damaged: byte … of it is zero.", OTHER)
def a_manifest_with_a_hole(tmp, _):
    cp = saved(tmp, lambda path: os.truncate(path / "manifest.json", 1 << 31))
    yield
    cp.load()


@says(
    DamagedError,
    "{tmp}/…/manifest.json is not a manifest: Expected `int | null`, got `str` - at "
    "`$.step`.",
    OTHER,
)
def a_manifest_of_something_else(tmp, _):
    cp = saved(tmp, lambda path: forge(path, lambda x: x.update(step="one")))
    yield
    cp.load()


@says(
    DamagedError,
    "{tmp}/…/manifest.json is not a manifest: metrics that are no numbers.",
    OTHER,
)
def metrics_that_are_none(tmp, _):
    cp = saved(
        tmp, lambda path: forge(path, lambda x: x.update(metrics={"return": "x"}))
    )
    yield
    cp.load()


@says(
    DamagedError,
    "{tmp}/… is a link to a folder that is not there. Bring the folder back, or remove "
    "the link.",
    OTHER,
)
def a_link_that_leads_nowhere(tmp, _):
    cp = make(tmp, 1)
    path = cp.save().path
    shutil.rmtree(path)
    path.symlink_to(tmp / "elsewhere")
    yield
    cp.load()


@says(
    DamagedError,
    "Cannot read {tmp}/…/agent-000001-00000.safetensors: No such file or directory. It "
    "holds agent/….",
    OTHER,
)
def a_segment_that_is_gone(tmp, _):
    cp = saved(tmp, lambda path: (path / "agent-000001-00000.safetensors").unlink())
    yield
    cp.load()


@says(
    DamagedError,
    "{tmp}/…/agent-000001-00000.safetensors is not a regular file. It holds agent/….",
    OTHER,
)
def a_pipe_in_the_place_of_a_segment(tmp, _):
    def replace(path):
        (path / "agent-000001-00000.safetensors").unlink()
        os.mkfifo(path / "agent-000001-00000.safetensors")

    cp = saved(tmp, replace)
    yield
    cp.load()


@says(
    DamagedError,
    "{tmp}/…/agent-000001-00000.safetensors is damaged: it has 100 bytes, expected …. "
    "It holds agent/….",
    OTHER,
)
def a_segment_that_is_shorter(tmp, _):
    cp = saved(
        tmp, lambda path: os.truncate(path / "agent-000001-00000.safetensors", 100)
    )
    yield
    cp.load()


@says(
    DamagedError,
    "{tmp}/…/agent-….safetensors is truncated: it ends at byte 0, … bytes "
    "early. It holds agent/….",
    OTHER,
)
def a_segment_that_gets_shorter_meanwhile(tmp, monkeypatch):
    cp = saved(tmp, lambda _: None)
    read = os.preadv

    def end(fd, *args):
        is_segment = "safetensors" in os.readlink(f"/proc/self/fd/{fd}")
        return 0 if is_segment else read(fd, *args)

    yield
    monkeypatch.setattr(os, "preadv", end)
    cp.load(keys=["agent"])


@says(
    DamagedError,
    "Cannot read {tmp}/…/agent-….safetensors: Input/output error. It holds agent/….",
    OTHER,
)
def a_disk_that_cannot_read(tmp, monkeypatch):
    cp = saved(tmp, lambda _: None)
    read = os.preadv

    def fail(fd, *args):
        if "safetensors" in os.readlink(f"/proc/self/fd/{fd}"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(fd, *args)

    yield
    monkeypatch.setattr(os, "preadv", fail)
    cp.load(keys=["agent"])


@says(
    DamagedError,
    "{tmp}/…/agent-000001-00000.safetensors is damaged in its first … bytes: their "
    "digest is …, expected …. It holds agent/….",
    OTHER,
)
def the_header_of_a_segment_that_changed(tmp, _):
    cp = saved(tmp, lambda path: flip(path / "agent-000001-00000.safetensors", 10))
    yield
    cp.load()


@says(
    DamagedError,
    "{tmp}/…/agent-000001-….safetensors is damaged between bytes … and …: the digest "
    "is …, expected …. It holds agent/w.",
    OTHER,
)
def a_block_that_changed(tmp, _):
    cp = make(tmp, {"w": noise(0)})
    flip_block(cp.save().path, 0)
    yield
    cp.load()


@says(
    DamagedError,
    "{tmp}/…/agent-000001-….safetensors is damaged between bytes … and …: it is no "
    "zstd frame (…). It holds agent/v.",
    OTHER,
)
def a_compressed_block_that_changed(tmp, _):
    cp = make(tmp, {"v": np.zeros(100_000)})
    flip_block(cp.save().path, 0)
    yield
    cp.load()


@says(
    DamagedError,
    "{tmp}/…/agent-000001-….safetensors is damaged between bytes … and …: its zstd "
    "frame does not hold … bytes. It holds agent/v.",
    OTHER,
)
def a_compressed_block_of_another_size(tmp, _):
    cp = make(tmp, {"v": np.zeros(100_000)})

    def shorten(manifest):
        (component,) = manifest["components"]
        component["size_bytes"] -= 8
        component["blocks"][0][4] -= 8
        component["trees"][0]["leaves"][0]["shape"] = [99_999]

    forge(cp.save().path, shorten)
    yield
    cp.load()


@says(
    DamagedError,
    "'agent' in {tmp}/…/manifest.json is not a valid save (ValueError: a group has "
    "more or fewer values than leaves).",
    OTHER,
)
def leaves_without_values(tmp, _):
    cp = make(tmp, {"n": 1})

    def empty(manifest):
        manifest["components"][0]["trees"][0]["leaves"][0]["value"] = []

    forge(cp.save().path, empty)
    yield
    cp.load()


@says(DamagedError, CLAIMS, "names a file '../x', which is no segment.", OTHER)
def a_segment_elsewhere(tmp, _):
    cp = forged(tmp, lambda x: x[0]["segments"][0].__setitem__(0, "../x"))
    yield
    cp.load()


@says(DamagedError, CLAIMS, "has a block in a segment that it lacks.", OTHER)
def a_block_without_a_segment(tmp, _):
    cp = forged(tmp, lambda x: x[0]["blocks"][0].__setitem__(0, 9))
    yield
    cp.load()


@says(DamagedError, CLAIMS, "has a block of 16777217 bytes, more than 16777216.", OTHER)
def a_block_that_is_too_large(tmp, _):
    cp = make(tmp, {"w": noise(0)})
    forge(
        cp.save().path,
        lambda x: x["components"][0]["blocks"][0].__setitem__(2, (16 << 20) + 1),
    )
    yield
    cp.load()


@says(
    DamagedError,
    CLAIMS,
    "has a block at bytes 0 to … of agent-….safetensors that overlaps another, or an "
    "end of the file.",
    OTHER,
)
def blocks_that_overlap(tmp, _):
    cp = forged(tmp, lambda x: x[0]["blocks"][0].__setitem__(1, 0))
    yield
    cp.load()


@says(DamagedError, CLAIMS, "has data of agent-….safetensors beyond its end.", OTHER)
def a_segment_that_is_all_header(tmp, _):
    cp = forged(tmp, lambda x: x[0]["segments"][0].__setitem__(2, 1 << 40))
    yield
    cp.load()


@says(DamagedError, CLAIMS, "has blocks of … bytes, for leaves of 1.", OTHER)
def more_blocks_than_leaves(tmp, _):
    cp = forged(tmp, lambda x: x[0].update(size_bytes=1))
    yield
    cp.load()


@says(DamagedError, CLAIMS, "has 0 trees, expected 1.", OTHER)
def a_component_without_a_structure(tmp, _):
    cp = forged(tmp, lambda x: x[0]["trees"].clear())
    yield
    cp.load()


@says(DamagedError, CLAIMS, "has a component with files and a state.", OTHER)
def a_component_of_two_kinds(tmp, _):
    cp = forged(tmp, lambda x: x[0].update(files=x[1]["files"]))
    yield
    cp.load()


@says(DamagedError, CLAIMS, "names a folder '..', which is none of files.", OTHER)
def files_in_a_folder_elsewhere(tmp, _):
    cp = forged(tmp, lambda x: x[1]["files"].update(folder=".."))
    yield
    cp.load()


@says(DamagedError, CLAIMS, "names 'a' twice.", OTHER)
def a_file_that_is_there_twice(tmp, _):
    cp = forged(tmp, lambda x: x[1]["files"]["files"].append(x[1]["files"]["files"][0]))
    yield
    cp.load()


@says(DamagedError, CLAIMS, "names a file '../a' outside of policy.files.", OTHER)
def a_file_elsewhere(tmp, _):
    cp = forged(tmp, lambda x: x[1]["files"]["files"][0].__setitem__(0, "../a"))
    yield
    cp.load()


@says(DamagedError, "{tmp}/…/policy.files is not a folder.", OTHER)
def a_link_in_the_place_of_the_files(tmp, _):
    def replace(path):
        (path / "policy.files").rename(tmp / "away")
        (path / "policy.files").symlink_to(tmp / "away")

    cp = saved(tmp, replace)
    yield
    cp.load()


@says(
    DamagedError,
    "Cannot read {tmp}/…/policy.files: No such file or directory.",
    OTHER,
)
def files_that_are_gone(tmp, _):
    cp = saved(tmp, lambda path: shutil.rmtree(path / "policy.files"))
    yield
    cp.load()


@says(
    DamagedError,
    "{tmp}/…/policy.files/a is damaged: it has 3 bytes, expected 2.",
    OTHER,
)
def a_file_that_grew(tmp, _):
    def grow(path):
        (path / "policy.files" / "a").unlink()
        (path / "policy.files" / "a").write_text("123")

    cp = saved(tmp, grow)
    yield
    cp.load()


@says(
    DamagedError,
    "{tmp}/…/policy.files/a is damaged: its digest is …, expected ….",
    OTHER,
)
def a_file_that_changed(tmp, _):
    def change(path):
        (path / "policy.files" / "a").unlink()
        (path / "policy.files" / "a").write_text("21")

    cp = saved(tmp, change)
    yield
    cp.load()


@says(
    DamagedError,
    "{tmp}/…/policy.files/a has changed while 'policy' was loaded, so the save is "
    "damaged, and others that share the file. What loads it must not write to the "
    "folder that it gets: let it copy first.",
)
def a_load_that_writes_to_its_folder(tmp, _):
    cp = saved(tmp, lambda _: None)

    def write(folder):
        (folder / "a").chmod(0o644)
        (folder / "a").write_text("changed")

    cp.policy = Files(load=write)
    yield
    cp.load(keys=["policy"])


@says(
    DamagedError,
    "{tmp}/…/policy.files/a has changed while 'policy' was loaded. What loads it must "
    "not write to the folder that it gets: let it copy first.",
)
def a_load_that_moves_its_files(tmp, _):
    cp = saved(tmp, lambda _: None)
    cp.policy = Files(load=lambda folder: (folder / "a").rename(tmp / "a"))
    yield
    cp.load(keys=["policy"])


@says(
    ReadError,
    "{tmp}/…/policy.files/b is not of the save, and what loads 'policy' would see it. "
    "The files of the save could not be linked elsewhere (Read-only file system). "
    "Remove it, or copy the save to where links can be made.",
)
def a_file_of_others_where_nothing_can_be_linked(tmp, monkeypatch):
    cp = saved(tmp, lambda path: (path / "policy.files" / "b").touch())
    refuse(monkeypatch, os.mkdir, errno.EROFS)
    yield
    cp.load()


@says(
    SaveNotFoundError,
    "{tmp}/… was removed while 'policy' was loaded from it, which may have seen some "
    "of its files only. They could not be linked elsewhere (Read-only file system). "
    "Load again, or from another save.",
)
def a_save_that_is_removed_where_nothing_can_be_linked(tmp, monkeypatch):
    cp = saved(tmp, lambda _: None)
    cp.policy = Files(load=lambda folder: shutil.rmtree(folder.parent))
    refuse(monkeypatch, os.mkdir, errno.EROFS)
    yield
    cp.load()


@says(
    DamagedError,
    "{tmp}/old/agent.pkl, which holds agent, is not a valid pickle (KeyError: 110).",
    OTHER,
)
def a_folder_of_elements_without_a_pickle(tmp, _):
    path = of_elements(tmp / "old", b"no pickle.")
    yield
    make().load(path)


@says(DamagedError, "{tmp}/old/agent.pkl is damaged: it does not end with b'.'.", OTHER)
def a_folder_of_elements_with_a_hole(tmp, _):
    path = of_elements(tmp / "old", pickle.dumps(7))
    os.truncate(path / "agent.pkl", 1 << 31)
    yield
    make().load(path)


@says(
    DamagedError,
    "{tmp}/old lacks shard 1 of agent: agent-0002.pkl is next.",
    OTHER,
)
def a_folder_of_elements_that_lacks_a_shard(tmp, _):
    path = of_elements(tmp / "old", b"")
    (path / "agent.pkl").unlink()
    for number in (0, 2):
        (path / f"agent-{number:04d}.pkl").write_bytes(pickle.dumps(number))
    yield
    make().load(path)


@says(
    DamagedError,
    "{tmp}/…/replay-….safetensors is damaged between bytes … and …: the digest is …, "
    "expected …. The save that was to reuse it was not made. Save again: the next one "
    "does without.",
)
def a_reused_block_that_is_lost(tmp, monkeypatch):
    use_small_segments(monkeypatch.setattr)
    state = {"kept": noise(0, 2048), "changed": noise(1, 4096)}
    cp = Checkpoint(tmp, fsync=False)
    cp.replay = Stream([state])
    path = cp.save().path
    state["changed"][:] = noise(2, 4096)
    yield
    for file in path.glob("*.safetensors"):
        flip(file, 600, keep_time=True)
    cp.save()


# The system refuses to read


@says(
    ReadError,
    "Cannot read {tmp}/…/manifest.json: Permission denied. The save itself may be "
    "fine: check who may read it.",
)
def a_save_of_somebody_else(tmp, monkeypatch):
    cp = make(tmp, 1)
    path = cp.save(tmp / "save").path
    yield
    refuse_to_open(monkeypatch, errno.EACCES)
    make().load(path)


@says(
    ReadError,
    "Cannot read {tmp}: Permission denied. The save itself may be fine: check who may "
    "read it.",
)
def a_directory_of_somebody_else(tmp, monkeypatch):
    cp = make(tmp, 1)
    cp.save()
    yield
    refuse_to_list(monkeypatch)
    cp.load()


@says(
    ReadError,
    "Cannot read {tmp}/…/policy.files: Permission denied. The save itself may be fine: "
    "check who may read it.",
)
def a_folder_that_its_component_hides(tmp, monkeypatch):
    cp = Checkpoint(tmp)
    cp.policy = Files(save=lambda _: refuse_to_list(monkeypatch), load=print)
    yield
    cp.save()


@says(
    ReadError,
    "Cannot read {tmp}/save: Permission denied. The save itself may be fine: check who "
    "may read it.",
)
def a_folder_to_save_to_that_may_not_be_listed(tmp, monkeypatch):
    (tmp / "save").mkdir()
    yield
    refuse_to_list(monkeypatch, "listdir")
    make(state=1).save(tmp / "save")


def refuse_to_list(monkeypatch, call="scandir"):
    error = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    monkeypatch.setattr(os, call, failing(error))


@says(
    ReadError,
    "Cannot read {tmp}/…/manifest.json: Too many open files. The save itself may be "
    "fine: close files that are open, or allow more with ulimit -n.",
)
def too_many_open_files(tmp, monkeypatch):
    path = make(state=1).save(tmp / "save").path
    yield
    refuse_to_open(monkeypatch, errno.EMFILE)
    elementsckpt.read(path)


@says(
    ReadError,
    "Cannot read {tmp}/…/manifest.json: Resource temporarily unavailable. The save "
    "itself may be fine: try again.",
)
def a_system_that_is_busy(tmp, monkeypatch):
    path = make(state=1).save(tmp / "save").path
    yield
    refuse_to_open(monkeypatch, errno.EAGAIN)
    elementsckpt.read(path)


def failing(error):
    def fail(*_):
        raise error

    return fail


def refuse_to_open(monkeypatch, number):
    error = OSError(number, os.strerror(number))
    monkeypatch.setattr(os, "open", failing(error))


@says(
    ReadError,
    "{tmp}/… does not fit into memory: what is to be loaded takes 100,000 bytes, and "
    "of the … of this machine, or job, 4,096 are left. Load less of it with keys= or "
    "regex=, or map its arrays with mmap=True, which does not help where they are "
    "compressed.",
)
def more_than_there_is_memory(tmp, monkeypatch):
    cp = make(tmp, {"w": noise(0)})
    cp.save()
    yield
    monkeypatch.setattr(elementsckpt.system.memory, "_OFTEN_BYTES", 0)
    monkeypatch.setattr(elementsckpt.system.memory, "left_bytes", lambda: 4096)
    cp.load()


@says(
    ReadError,
    "{tmp}/…/manifest.json does not fit into memory: it has … bytes. The save itself "
    "may be fine: free memory and try again.",
)
def a_manifest_that_does_not_fit_into_memory(tmp, monkeypatch):
    path = make(tmp, 1).save(tmp / "save").path
    yield
    monkeypatch.setattr(disk.File, "read", failing(MemoryError()))
    elementsckpt.info(path)


@says(
    ReadError,
    "'agent' in {tmp}/…/manifest.json does not fit into memory. Load less of it at a "
    "time, or map its arrays with mmap=True.",
)
def more_than_fits_into_memory(tmp, monkeypatch):
    cp = make(tmp, {"w": noise(0)})
    cp.save()
    yield
    monkeypatch.setattr("elementsckpt.storage.reader._memory", failing(MemoryError()))
    cp.load()


@says(
    ReadError,
    "'agent' in {tmp}/…/manifest.json needs what is not installed here (…). Install "
    "it, or leave it out with keys= or regex=; of tensors, elementsckpt.read gives "
    "NumPy arrays.",
)
def a_library_that_is_not_installed(tmp, monkeypatch):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    cp = make(tmp, {"w": np.ones(3, ml_dtypes.bfloat16)})
    forge(
        cp.save().path,
        lambda x: x["components"][0]["trees"][0]["leaves"][0].update(dtype="float7"),
    )
    yield
    cp.load()


# Other processes of the job


def as_process_1(monkeypatch, answer):
    """Be one of two processes, to which process 0 said something, or nothing."""
    job = Group("torch.distributed", 1, 2, print, lambda key: answer)
    monkeypatch.setattr("elementsckpt.system.job.current", lambda: job)


@says(
    ReadError,
    "Process 0 of torch.distributed did not call load_or_save() with {tmp} for 0 s, "
    "and process 1 of 2 of torch.distributed, with write=False, resumes what that one "
    "does. Call the same methods in all processes, or load() in one that loads by "
    "itself.",
)
def a_process_that_does_not_tell_what_it_resumes(tmp, monkeypatch):
    cp = make(tmp, 0, write=False)
    as_process_1(monkeypatch, None)
    monkeypatch.setattr("elementsckpt.system.job._TIMEOUT_S", 0.0)
    yield
    cp.load_or_save()


IN_JOB = (
    "This is process 1 of 2 of torch.distributed: if others of them save there, too, "
    "let process 0 alone write, with Checkpoint(..., write=rank == 0), or call "
    "save_pytree() in that one only. If not, choose another path"
)


@says(
    SaveExistsError,
    f"Cannot save to {{tmp}}/save: it holds a save already. {IN_JOB}",
    " or remove it first; it was not touched.",
)
def a_path_to_which_another_process_of_the_job_has_saved(tmp, monkeypatch):
    as_process_1(monkeypatch, None)
    make(state=1).save(tmp / "save")
    yield
    elementsckpt.save_pytree(tmp / "save", 1)


@says(
    SaveExistsError,
    f"Cannot save to {{tmp}}/save: another save is being written there. {IN_JOB}",
    ", or wait until it is finished.",
)
def a_path_to_which_another_process_of_the_job_is_saving(tmp, monkeypatch):
    as_process_1(monkeypatch, None)
    monkeypatch.setattr(disk, "lock", lambda _: False)
    yield
    make(state=1).save(tmp / "save")


@says(
    ReadError,
    "Process 0 of torch.distributed could not resume from {tmp}: it is damaged. So "
    "process 1 of 2 of torch.distributed cannot either: restore there what that one "
    "needs, and start all of them again.",
)
def a_process_that_could_not_resume(tmp, monkeypatch):
    cp = make(tmp, 0, write=False)
    as_process_1(monkeypatch, '{"error": "it is damaged"}')
    yield
    cp.load_or_save()


@says(
    SaveNotFoundError,
    "There is no save in {tmp}/gone: that path was not found (…). Check the path, or "
    "make a save there first. Process 0 of this job resumed it, so it was pruned "
    "since, or is on another machine. Call save() only when all processes have "
    "resumed, in a directory that all of them see.",
)
def a_save_that_another_process_resumed_and_that_is_gone(tmp, monkeypatch):
    cp = make(tmp, 0, write=False)
    as_process_1(monkeypatch, '{"save": "gone"}')
    yield
    cp.load_or_save()


@says(
    ReadError,
    "JAX could not make the arrays of 'agent' in {tmp}/…/manifest.json: out of memory. "
    "Free memory of the device, or load less at a time.",
)
def a_device_without_memory(tmp, monkeypatch):
    jax = pytest.importorskip("jax")
    cp = make(tmp, {"w": jax.numpy.ones(3)})
    cp.save()
    yield
    monkeypatch.setattr(jax, "device_put", failing(RuntimeError("out of memory.")))
    cp.load()


@says(
    ReadError,
    "state/w cannot be put where the current one is, …: out of memory. Choose another "
    "device or sharding, or free memory of this one",
    NOTHING,
)
def a_device_without_memory_for_a_leaf(tmp, monkeypatch):
    jax = pytest.importorskip("jax")
    cp = Checkpoint(tmp)
    cp.state = Value({"w": jax.numpy.ones(3)})
    cp.save()
    yield
    monkeypatch.setattr(jax, "device_put", failing(RuntimeError("out of memory.")))
    cp.load()


@says(
    ReadError,
    "agent/key holds typed keys of 'dice', which the installed JAX does not make: …. "
    "Install one that does.",
)
def a_generator_that_jax_does_not_know(tmp, _):
    jax = pytest.importorskip("jax")
    cp = make(tmp, {"key": jax.random.key(0)})
    forge(
        cp.save().path,
        lambda x: x["components"][0]["trees"][0]["leaves"][0].update(value="dice"),
    )
    yield
    cp.load()


@says(
    ReadError,
    "20 times a save in {tmp} was removed while it was read: another process saves "
    "there, and faster than this one reads. Keep more saves with keep=.",
)
def a_run_that_saves_faster_than_others_read(tmp, monkeypatch):
    trainer = make(tmp, noise(0))
    trainer.save()
    opened = elementsckpt.loading.open_save.OpenSave.components

    def components(self, *args):
        trainer.save()
        return opened(self, *args)

    yield
    monkeypatch.setattr(
        elementsckpt.loading.open_save.OpenSave, "components", components
    )
    elementsckpt.read(tmp)


# The disk refuses to write

REFUSED = "The disk refused a change to {tmp}/… (%s): earlier saves are untouched; "
GONE = (
    "The disk refused a change to {tmp}/ckpt/… (No such file or directory): it was "
    "removed or moved, so check who else uses it, and save again."
)


def refusing(number, text, remedy, call=os.mkdir):
    """Return a situation in which one system call fails."""

    @says(WriteError, REFUSED % text, remedy, ".")
    def steps(tmp, monkeypatch):
        cp = make(tmp, 1)
        cp.save()
        yield
        refuse(monkeypatch, call, number)
        cp.save()

    name = f"a_disk_that_says_{errno.errorcode[number]}_to_{call.__name__}"
    ALL[name] = ALL.pop("steps")
    return steps


SPACE = "free space, keep fewer saves with keep=, or choose another directory"
FILES = "close files that are open, or allow more with ulimit -n"
refusing(errno.ENOSPC, "No space left on device", SPACE)
refusing(errno.EDQUOT, "Disk quota exceeded", SPACE)
refusing(errno.EACCES, "Permission denied", "check who may write there")
refusing(errno.EPERM, "Operation not permitted", "check who may write there")
refusing(errno.EROFS, "Read-only file system", "choose another directory")
refusing(errno.EMFILE, "Too many open files", FILES)
refusing(errno.ENFILE, "Too many open files in system", FILES)
refusing(errno.ENAMETOOLONG, "File name too long", "choose a shorter path")
refusing(errno.EIO, "Input/output error", "check the disk, or choose another directory")
refusing(
    errno.EIO,
    "Input/output error",
    "check the disk, or choose another directory",
    call=os.fsync,
)
refusing(errno.EMFILE, "Too many open files", FILES, call=os.open)


@says(
    WriteError,
    REFUSED % "Not a directory",
    "a part of the path is a file, so choose another directory.",
)
def a_file_in_the_path(tmp, _):
    (tmp / "mine").touch()
    cp = make(tmp / "mine" / "ckpt", 1)
    yield
    cp.save()


NOWHERE = "{tmp}/link is a link to {tmp}/unmounted, which is not there."


@says(
    WriteError,
    "Cannot save to {tmp}/link/ckpt: ",
    NOWHERE,
    " Mount or make what it leads to, or choose another directory.",
)
def a_directory_below_a_link_that_leads_nowhere(tmp, _):
    (tmp / "link").symlink_to(tmp / "unmounted")
    cp = make(tmp / "link" / "ckpt", 1)
    yield
    cp.load_or_save()


@says(SaveNotFoundError, "There is no save in {tmp}/link: ", NOWHERE, CHECK)
def a_path_that_is_a_link_that_leads_nowhere(tmp, _):
    (tmp / "link").symlink_to(tmp / "unmounted")
    yield
    elementsckpt.read(tmp / "link")


@says(SaveExistsError, "Cannot save to {tmp}/link: ", NOWHERE, TAKEN)
def a_link_that_leads_nowhere_where_to_save(tmp, _):
    (tmp / "link").symlink_to(tmp / "unmounted")
    yield
    elementsckpt.save_pytree(tmp / "link", 1)


@says(WriteError, GONE)
def a_directory_that_is_removed_meanwhile(tmp, _):
    cp = Checkpoint(tmp / "ckpt")
    cp.agent = Saveable(save=lambda: shutil.rmtree(tmp / "ckpt"), load=print)
    yield
    cp.save()


@says(WriteError, GONE)
def a_folder_that_is_removed_before_it_is_synced(tmp, monkeypatch):
    cp = make(tmp / "ckpt", 1)

    def remove(call, *args):
        result = call(*args)
        if call is os.replace and args[1].name == "manifest.json":
            shutil.rmtree(tmp / "ckpt")
        return result

    yield
    monkeypatch.setattr(disk, "syscall", remove)
    cp.save()


@says(
    WriteError,
    "The disk has no room: {tmp}/… needs … bytes more and 4,096 are free. Earlier "
    "saves are untouched; free space, keep fewer saves with keep=, or choose another "
    "directory.",
)
def a_disk_with_too_little_room(tmp, monkeypatch):
    cp = make(tmp, {"w": noise(0)})
    found = os.statvfs(tmp)
    small = os.statvfs_result((found[0], 4096, 100, 1, 1, *found[5:]))
    yield
    monkeypatch.setattr(os, "statvfs", lambda _: small)
    cp.save()


@says(
    WriteError,
    "Cannot make a save folder in {tmp}: 100 times something was in the way, or the "
    "directory vanished. Check what it is and who else uses it.",
)
def a_directory_in_which_all_names_are_taken(tmp, monkeypatch):
    cp = make(tmp, 1)
    yield
    refuse(monkeypatch, os.mkdir, errno.EEXIST)
    cp.save()


# Arguments that make no sense


def refused(error, *message):
    """Add a situation that needs no setting up; its name is that of the function."""

    def add(call):
        @says(error, *message)
        def steps(tmp, _):
            cp = make(tmp, 1)
            yield
            call(tmp, cp)

        ALL[call.__name__] = ALL.pop("steps")
        return call

    return add


@refused(ValueError, "every=1000: pass elementsckpt.Every(steps=1000), for example.")
def a_number_as_every(tmp, _):
    Checkpoint(tmp, every=1000)


@refused(ValueError, "staging_bytes=-1: pass a number of bytes, or None.")
def less_than_no_memory(tmp, _):
    Checkpoint(tmp, staging_bytes=-1)


@refused(
    ValueError, "compress='zip': pass 'auto', None, or a level of zstd from 1 to 22."
)
def another_compression(tmp, _):
    Checkpoint(tmp, compress="zip")


@refused(
    ValueError,
    "keep=0: pass the number of newest saves to keep, None for all, or "
    "elementsckpt.Keep(latest=..., best=..., metric=..., every=...).",
)
def keeping_nothing(tmp, _):
    Checkpoint(tmp, keep=0)


URL = (
    " looks like a URL, as a part of it ends in a colon, and only local paths are "
    "supported. Save to a local folder and copy that; to load a save from elsewhere, "
    "copy its folder here first."
)


@refused(ValueError, "gs://bucket/run", URL)
def a_bucket(tmp, _):
    Checkpoint("gs://bucket/run")


@refused(ValueError, "gs:/bucket/run", URL)
def a_bucket_to_read(tmp, _):
    elementsckpt.read(pathlib.Path("gs://bucket/run"))


@refused(
    ValueError,
    "~nobody-has-this-name/run begins with a home that was not found. Pass the path "
    "without `~`.",
)
def a_home_of_a_user_who_is_not_there(tmp, _):
    Checkpoint("~nobody-has-this-name/run")


@refused(
    ValueError,
    "{tmp}/${NO_SUCH_PLACE}/run names the variable ${NO_SUCH_PLACE}, which is not set, "
    "or empty. Set it, or pass the path itself.",
)
def a_variable_that_is_not_set(tmp, _):
    elementsckpt.save_pytree(tmp / "${NO_SUCH_PLACE}" / "run", 1)


@refused(
    ValueError,
    "This Checkpoint has no directory: pass a path to save(), or a directory to "
    "Checkpoint().",
)
def a_save_without_a_directory(tmp, _):
    make(state=1).save()


@refused(
    ValueError,
    "This Checkpoint has no directory: pass a path, or a directory to Checkpoint().",
)
def a_load_without_a_directory(tmp, _):
    make(state=1).load()


@refused(ValueError, "A save to a path of its own is never pruned: leave pin= out.")
def a_pin_at_a_path(tmp, cp):
    cp.save(tmp / "save", pin="good")


@refused(
    ValueError,
    "pin='latest': pass a name without slashes, other than 'latest' and 'best'.",
)
def a_pin_that_is_called_latest(tmp, cp):
    cp.save(pin="latest")


@refused(
    ValueError,
    "save_if_due() needs to know when: pass every=Every(steps=1000), for example, to "
    "Checkpoint().",
)
def a_save_that_is_never_due(tmp, cp):
    cp.save_if_due()


@refused(
    ValueError,
    "5 is no path: call save() without it. The step is that of the component cp.step, "
    "or of Checkpoint(step=...).",
)
def a_step_to_save(tmp, cp):
    cp.save(np.int64(5))


@refused(
    AttributeError,
    "No component 'latest_step' is registered; there are: 'agent'. If no component is "
    "meant, use saves()[-1].step.",
)
def a_method_of_another_library(tmp, cp):
    cp.latest_step()


@refused(
    ValueError,
    "5 is no path: pass text or a pathlib.Path. A step is passed by name, to "
    "load(step=5), copy_of() or delete().",
)
def a_step_as_a_path(tmp, cp):
    cp.load(5)


@refused(ValueError, "Pass either the path or the step, not both.")
def a_path_and_a_step(tmp, cp):
    cp.load(tmp, step=5)


@refused(ValueError, "Pass either the path or the step of what to delete.")
def deleting_without_saying_what(tmp, cp):
    cp.delete()


@refused(ValueError, "{tmp} is a directory of saves: name the one to delete.")
def deleting_a_directory(tmp, cp):
    cp.save()
    cp.delete(tmp)


@refused(
    ValueError,
    "{tmp}/mine was not written as one of the saves in {tmp}, so it is not removed. "
    "Remove the folder yourself.",
)
def deleting_what_a_person_copied(tmp, cp):
    shutil.copytree(cp.save().path, tmp / "mine")
    cp.delete(tmp / "mine")


@refused(
    ValueError,
    "{tmp}/… is the only complete save, so it is not removed. Make another one first, "
    "or remove the folder yourself.",
)
def deleting_the_only_save(tmp, cp):
    cp.delete(cp.save().path)


@refused(
    ValueError,
    "Which save in {tmp} is the best? There are the metrics loss, return: pass "
    "keep=Keep(metric='loss') to Checkpoint(), with mode='min' if less is better.",
)
def the_best_by_one_of_two_metrics(tmp, cp):
    cp.save(metrics={"return": 1, "loss": 2})
    cp.best()


@refused(
    ValueError,
    "keys is a list of keys: pass keys=['agent']. Only load() takes a mapping, to the "
    "keys in the save.",
)
def a_mapping_of_keys_to_save(tmp, cp):
    cp.save(keys={"agent": "params"})


@refused(ValueError, "keys is a list of keys: pass keys=['agent'].")
def a_key_as_keys(tmp, cp):
    cp.save(keys="agent")


@refused(ValueError, "keys is a list of keys: pass keys=['agent'].")
def a_key_as_keys_to_read(tmp, cp):
    elementsckpt.read(cp.save().path, keys="agent")


@refused(
    ValueError,
    "verify=False is for mmap=True: leave it out, as what is read is verified on the "
    "way.",
)
def reading_without_verifying(tmp, cp):
    cp.save()
    cp.load(verify=False)


@refused(
    ValueError,
    "Signals can only be watched from the main thread, where Python handles them: call "
    "watch_signals() there, before other threads begin.",
)
def signals_in_another_thread(tmp, cp):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(cp.watch_signals).result()


@refused(
    ValueError,
    "SIGKILL cannot be watched: Invalid argument. Choose signals that may be handled, "
    "such as SIGTERM.",
)
def a_signal_that_nobody_can_handle(tmp, cp):
    cp.watch_signals([signal.SIGKILL])


@refused(AttributeError, "No component 'agnet' is registered; there are: 'agent'.")
def an_attribute_that_is_not_there(tmp, cp):
    return cp.agnet


@refused(AttributeError, "No component 'agnet' is registered; there are: 'agent'.")
def removing_what_is_not_registered(tmp, cp):
    del cp.agnet


@refused(ValueError, "save='x': pass a function that gets a folder.")
def a_path_instead_of_functions(tmp, _):
    Files(save="x", load=print)


@refused(ValueError, "attrs is a list of names: pass ['step'].")
def an_attribute_as_attrs(tmp, _):
    Saveable("step")


@refused(
    ValueError,
    "Saveable takes either attrs, names of attributes, or two functions, save and "
    "load.",
)
def half_of_a_saveable(tmp, _):
    Saveable(save=int)


@refused(
    ValueError,
    "Saveable takes the object that has the attributes as of=: pass "
    "Saveable(['pos'], of=it), where it is the Replay.",
)
def an_object_before_its_attributes(tmp, _):
    Saveable(Replay(), ["pos"])


@refused(
    MissingKeyError,
    "Not registered: 'params'. Registered are: 'agent'. Pass keys={'agent': 'params'}: "
    "it goes from keys here to those in the save.",
)
def keys_that_are_turned(tmp, cp):
    cp.load(keys={"params": "agent"})


@refused(
    MissingKeyError,
    "{tmp}/… has no 'critic'. It has 'agent'. Nothing was loaded. To go on without "
    "what it lacks, load(keys=['agent']) what it has, once, in place of "
    "load_or_save(); the next save() has all that is registered.",
)
def a_component_more_than_the_run_had(tmp, cp):
    cp.save()
    cp.critic = Box()
    cp.load_or_save()


@refused(
    ComponentError,
    "Cannot register 'recent': an object of type deque has no usable save() and "
    "load(data). As its owner changes it in place, register the owner, or name two "
    "functions: cp.recent = elementsckpt.Saveable(function_that_returns_its_content, "
    "function_that_fills_it).",
    PAIRS,
)
def a_queue(tmp, cp):
    cp.recent = collections.deque()


@refused(
    MismatchError,
    "No matched leaf of {tmp}/… is in the current state: agent/enc. Pass "
    "rename={'^enc$': 'torso'}, which goes from names in the save to current ones",
    NOTHING,
)
def a_rename_that_is_turned(tmp, _):
    make(tmp, {"enc": 1}).save()
    make(tmp, {"torso": 1}).load(rename={"^torso$": "enc"})


@refused(
    MismatchError,
    "regex='agent/w' matches no leaf of 'policy' in {tmp}/…. The nearest names in the "
    "save are 'w'. The key in full names is the one here, 'policy', not 'agent'. "
    "Correct the pattern, which must match from the start of a name, with or without "
    "the key",
    NOTHING,
)
def a_pattern_with_the_key_in_the_save(tmp, _):
    make(tmp, {"w": 1}).save()
    cp = Checkpoint(tmp)
    cp.policy = Box({"w": 1})
    cp.load(keys={"policy": "agent"}, regex="agent/w")


@refused(
    ValueError,
    "of= is the object that has the attributes in attrs: leave it out, as the two "
    "functions know what they are of.",
)
def functions_of_an_object(tmp, cp):
    Saveable(int, print, of=cp)


@refused(ValueError, "latest=-1: pass how many saves to keep, from 0 on.")
def keeping_less_than_nothing(tmp, _):
    Keep(latest=-1)


@refused(ValueError, "mode='most': pass 'max' or 'min'.")
def another_mode(tmp, _):
    Keep(mode="most")


@refused(
    ValueError,
    "metric=3: pass the name of a metric, or a function that takes the metrics and "
    "returns a number.",
)
def a_number_as_the_metric(tmp, _):
    Keep(metric=3)


@refused(
    ValueError,
    "best=2 needs metric=, by which to rank: pass metric='return', for example.",
)
def the_best_by_nothing(tmp, _):
    Keep(best=2)


@refused(ValueError, "every=datetime.timedelta(0): pass a time longer than zero.")
def keeping_one_in_no_time(tmp, _):
    Keep(every=timedelta(0))


@refused(
    ValueError,
    "every='1h': pass an int, for multiples of so many steps, or a datetime.timedelta.",
)
def keeping_one_in_a_text(tmp, _):
    Keep(every="1h")


@refused(
    ValueError, "Every() is never due: pass steps, seconds, overhead or a deadline."
)
def a_schedule_of_nothing(tmp, _):
    Every()


@refused(TypeError, "steps='1k': pass an integer.")
def a_text_as_steps(tmp, _):
    Every("1k")


@refused(ValueError, "steps=0: pass a positive integer.")
def every_zero_steps(tmp, _):
    Every(0)


@refused(TypeError, "seconds='1h': pass a number of seconds or a timedelta.")
def a_text_as_seconds(tmp, _):
    Every(seconds="1h")


@refused(ValueError, "deadline=-1: pass what is positive and finite.")
def a_deadline_in_the_past(tmp, _):
    Every(deadline=-1)


@refused(TypeError, "overhead='2%': pass a share, such as 0.02.")
def a_text_as_overhead(tmp, _):
    Every(overhead="2%")


@refused(ValueError, "overhead=2: pass a share between 0 and 1.")
def more_overhead_than_there_is_time(tmp, _):
    Every(overhead=2)


@refused(
    ValueError,
    "Every(steps=1000) counts steps: pass the step, as in every(step). A Checkpoint "
    "takes it from its argument step, or from a component that is named step.",
)
def a_schedule_that_is_not_told_the_step(tmp, _):
    Every(1000)()


# Arguments of another type


@refused(ValueError, "write='False': pass True or False.")
def a_text_instead_of_a_truth_value(tmp, _):
    Checkpoint(tmp, write="False")


@refused(
    ValueError,
    "keys=3: pass a list of keys, such as keys=['agent'], or leave it out for all "
    "components.",
)
def a_number_as_keys(tmp, cp):
    cp.load(keys=3)


@refused(
    ValueError,
    "keys={'agent': 3}: pass a mapping from keys here to those in the save, such as "
    "keys={'agent': 'params'}.",
)
def a_number_as_a_key_in_the_save(tmp, cp):
    cp.load(keys={"agent": 3})


@refused(
    ValueError,
    "key=['agent']: pass the key of one component, such as key='agent'.",
)
def a_list_as_a_key(tmp, cp):
    cp.copy_of(["agent"])


@refused(
    ValueError,
    "staging(['policy']): pass keys one by one, as in staging('policy', 'critic').",
)
def a_list_of_keys_to_stage(tmp, cp):
    with cp.staging(["policy"]):
        pass


@refused(
    ValueError,
    "savefns={'agent': 3}: pass functions that save a component, by key, such as "
    "{'agent': agent.save}.",
)
def a_number_as_a_function(tmp, _):
    elementsckpt.checkpoint.save(tmp / "save", {"agent": 3})


@refused(ValueError, "step='7': pass an integer.")
def a_text_as_the_step_of_a_save(tmp, cp):
    cp.load(step="7")


@refused(ValueError, "b'run' is no path: pass text or a pathlib.Path.")
def a_path_of_bytes(tmp, _):
    elementsckpt.info(b"run")


@refused(
    ValueError, "The path is empty text. Pass '.' if the working directory is meant."
)
def an_empty_path(tmp, _):
    Checkpoint("")


@refused(
    ValueError,
    r"'a\x00b' is no path, as it holds a character that no file can have in its name. "
    "Pass one without.",
)
def a_path_that_no_file_can_have(tmp, _):
    Checkpoint("a\x00b")


@refused(
    ComponentError,
    "Nothing is registered. Assign the components first, such as cp.agent = agent; "
    "what is registered later is not loaded.",
)
def a_load_of_nothing(tmp, cp):
    Checkpoint().load(cp.save().path)


@refused(
    MismatchError,
    "regex names no component, so nothing would be loaded. Pass {key: pattern}, or one "
    "pattern for all of the components.",
)
def a_pattern_for_no_component(tmp, cp):
    cp.save()
    cp.load(regex={})


@refused(
    MismatchError,
    "b'w' is not a regular expression. Pass one as text, in which | is between "
    "alternatives, as in 'enc/|dec/', or pass a mapping from keys to such; nothing was "
    "loaded.",
)
def a_pattern_of_bytes(tmp, cp):
    cp.save()
    cp.load(regex=b"w")


@refused(
    MismatchError,
    "rename replaces names by text, not by 3. Pass a dict from pattern to replacement; "
    "nothing was loaded.",
)
def a_number_as_a_replacement(tmp, cp):
    cp.load_or_save(rename={"w": 3})


@refused(
    ValueError,
    "signals=['SIGTERM']: pass a list of signals, such as [signal.SIGTERM].",
)
def the_name_of_a_signal(tmp, cp):
    cp.watch_signals(["SIGTERM"])


@refused(
    ValueError,
    "attrs=[0]: pass a list of names of attributes, such as ['pos', 'full'].",
)
def a_number_as_an_attribute(tmp, _):
    Saveable([0])


@refused(
    StateError,
    "Component 'replay': Replay has no attribute 'size'; it has 'full', 'pos'. Correct "
    "the names that Saveable was given.",
)
def an_attribute_that_an_object_lacks(tmp, cp):
    cp.replay = Saveable(["pos", "size"], of=Replay())
    cp.save()


@refused(
    MismatchError,
    "Component 'agent': Saved is 'w', without 'pos', 'full'. Load it into what it was "
    "saved from, or what both have with strict=False; no attribute has changed.",
)
def attributes_that_were_not_saved(tmp, cp):
    cp.agent.state = {"w": 1}
    cp.save()
    cp.agent = Saveable(["pos", "full"], of=Replay())
    cp.load()


@refused(ValueError, "initial='0': pass a number.")
def a_text_as_a_number(tmp, _):
    Counter("0")


@refused(
    MismatchError,
    "Component 'agent': Saved is {'w': 1}, and a Counter loads a number. Register what "
    "it was saved from; this counter has not changed.",
)
def a_counter_for_something_else(tmp, cp):
    cp.agent.state = {"w": 1}
    cp.save()
    cp.agent = Counter()
    cp.load()


@refused(
    MismatchError,
    "Component 'agent': Saved is 1, and a GlobalRNG loads states of global generators. "
    "Register what it was saved from; they have not changed.",
)
def global_generators_for_something_else(tmp, cp):
    cp.save()
    cp.agent = GlobalRNG()
    cp.load()


@refused(TypeError, "step=[]: pass a number, as int() takes it.")
def a_list_as_a_step_of_a_schedule(tmp, _):
    Every(10)([])


@refused(ValueError, "seconds_blocked=nan: pass a number of seconds, from 0 on.")
def a_time_that_is_no_number(tmp, _):
    Every(10).mark(10, seconds_blocked=float("nan"))

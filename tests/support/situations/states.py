"""State and metadata that cannot be saved."""

from __future__ import annotations

import os
import threading

import pytest

import elementsckpt
from elementsckpt import Checkpoint, Files, MetadataError, StateError, Value

from support.boxes import Box, make

from .table import says

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
    "agent/w is a FakeTensor, which has no data: make it without FakeTensorMode.",
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
    "metrics['return'] is of type str: pass a number. What is not a number can be in "
    "metadata. Nothing was written.",
)
def a_metric_that_is_text(tmp, _):
    cp = make(tmp, 1)
    yield
    cp.save(metrics={"return": "high"})


@says(
    MetadataError,
    "metrics has the name 1 of type int: pass numbers by names that are text. Nothing "
    "was written.",
)
def a_metric_by_a_number(tmp, _):
    cp = make(tmp, 1)
    yield
    cp.save(metrics={1: 2.0})

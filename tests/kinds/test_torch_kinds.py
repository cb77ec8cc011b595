"""Tensors that are more than dense elements: exact, or refused by the leaf's name."""

import contextlib
import sys

import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint, StateError, Value
from elementsckpt.format import dtypes
from elementsckpt.kinds import torch_tensors

from support.boxes import Box
from support.strategies import assert_same, round_trip

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # More of them wait for each other, and busily.
nn = torch.nn

pytestmark = [
    # Of torch, while it makes or pickles some of these.
    pytest.mark.filterwarnings("ignore:.*(nested tensors|MaskedTensors|CSR|BSR)"),
    pytest.mark.filterwarnings("ignore:.*(quantize|TypedStorage|Sparse invariant)"),
    pytest.mark.filterwarnings("ignore:ComplexHalf"),
]


class Holder:
    """An object that only pickle holds."""

    def __init__(self, content):
        self.content = content


def refusal(directory, state, key="agent"):
    """Return why a state cannot be saved; nothing is left of the try."""
    cp = Checkpoint(directory, fsync=False)
    setattr(cp, key, state if hasattr(state, "state_dict") else Box(state))
    with pytest.raises(StateError) as caught:
        cp.save()
    assert list(directory.glob("[!.]*")) == []
    return str(caught.value)


# Attributes


def marked(tensor, **attributes):
    for name, value in attributes.items():
        setattr(tensor, name, value)
    return tensor


MARKED = {
    "tensor": lambda: marked(torch.arange(3.0), kind="a", history=[1, None]),
    "parameter": lambda: marked(nn.Parameter(torch.ones(2)), is_initialized=True),
    "frozen": lambda: marked(nn.Parameter(torch.ones(2), requires_grad=False), k=1),
    "wanted": lambda: marked(torch.ones(2, requires_grad=True), k=1),
    "buffer": lambda: getattr(nn, "Buffer", lambda x: marked(x, k=1))(torch.ones(2)),
    "tensors": lambda: marked(torch.ones(2), main_grad=torch.arange(2.0)),
    "half": lambda: marked(torch.ones(3, dtype=torch.bfloat16), scale=0.5),
    "channels last": lambda: marked(
        torch.rand(1, 2, 3, 4).to(memory_format=torch.channels_last), k=1
    ),
}


@pytest.mark.parametrize("name", MARKED)
def test_attributes_of_a_tensor_are_kept(name):
    tensor = MARKED[name]()
    loaded = round_trip([tensor, Holder(tensor)], own=True)[0]
    assert_same(tensor, loaded)
    assert_same(vars(tensor), vars(loaded))
    assert loaded.is_leaf


def test_attributes_of_a_tensor_in_an_object_are_kept():
    holder = Holder(MARKED["parameter"]())
    loaded = round_trip({"h": holder}, own=True)["h"]
    assert_same(holder.content, loaded.content)
    assert loaded.content.is_initialized is True


def test_a_tensor_that_is_its_own_attribute_comes_back_as_one():
    tensor = torch.arange(3.0)
    tensor.me = tensor
    loaded = round_trip([tensor], own=True)[0]
    assert loaded.me is loaded
    assert loaded.tolist() == [0, 1, 2]


def test_elements_of_a_tensor_with_attributes_are_stored_as_those_of_others(tmp_path):
    tensor = marked(torch.arange(3_000_000.0), kind="a")
    cp = Checkpoint(tmp_path, fsync=False, compress=None)
    cp.box = Box([tensor])
    cp.save()
    tensor[0] = 1
    report = cp.save()
    assert report.pickled == ("box/0",)
    assert report.bytes_written < tensor.nbytes / 2
    assert report.bytes_total > tensor.nbytes


def test_attributes_that_cannot_be_saved_are_an_error_that_names_the_leaf(tmp_path):
    tensor = marked(torch.ones(3), file=sys.stderr.buffer)
    assert refusal(tmp_path, {"w": tensor}).startswith("agent/w, of type Tensor, ")


def test_a_module_with_marked_parameters_needs_no_pickle(tmp_path):
    model = nn.Linear(2, 2)
    model.weight.is_initialized = True
    cp = Checkpoint(tmp_path, fsync=False)
    cp.model = model
    assert cp.save().pickled == ()


# Classes and layouts that only pickle holds


class Sub(torch.Tensor):
    pass


class Weight(nn.Parameter):
    pass


def coo():
    return torch.eye(3).to_sparse()


def quantized():
    return torch.quantize_per_tensor(torch.arange(3.0), 0.5, 1, torch.qint8)


KINDS = {
    "subclass": lambda: torch.arange(3.0).as_subclass(Sub),
    "marked subclass": lambda: marked(torch.arange(3.0).as_subclass(Sub), k=[1]),
    "parameter of a class": lambda: Weight(torch.arange(3.0)),
    "frozen parameter of a class": lambda: Weight(torch.ones(2), requires_grad=False),
    "marked parameter of a class": lambda: marked(Weight(torch.ones(2)), k=1),
    "coordinates": coo,
    "marked coordinates": lambda: marked(coo(), k=1),
    "uncoalesced": lambda: torch.sparse_coo_tensor(
        torch.tensor([[0, 0], [1, 1]]), torch.ones(2), (2, 2)
    ),
    "parameter of coordinates": lambda: nn.Parameter(coo()),
    "rows": lambda: torch.eye(3).to_sparse_csr(),
    "columns": lambda: torch.eye(3).to_sparse_csc(),
    "blocks": lambda: torch.eye(4).to_sparse_bsr((2, 2)),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "jagged": lambda: torch.nested.nested_tensor(
        [torch.ones(2), torch.ones(3)], layout=torch.jagged
    ),
    "masked": lambda: torch.masked.masked_tensor(
        torch.arange(2.0), torch.tensor([True, False])
    ),
    "quantized": quantized,
    "quantized by channel": lambda: torch.quantize_per_channel(
        torch.ones(2, 2), torch.ones(2), torch.zeros(2), 0, torch.qint8
    ),
}


def text(tensor):
    """Return all of a tensor of any kind, sizes that torch made up left out."""
    if tensor.is_nested:
        return [text(part) for part in tensor.unbind()], tensor.layout
    if tensor.layout is torch.sparse_coo and not tensor.is_coalesced():
        return "uncoalesced", text(tensor._indices()), text(tensor._values())
    return repr(tensor), tensor.layout, tensor.dtype


@pytest.mark.parametrize("wanted", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_a_tensor_of_any_kind_comes_back_the_same(name, wanted):
    tensor = KINDS[name]()
    if wanted:
        with contextlib.suppress(RuntimeError):  # Integers want none.
            tensor.requires_grad_()
    loaded = round_trip({"w": tensor, "h": Holder(tensor)}, own=True)["w"]
    assert type(loaded) is type(tensor)
    assert loaded.requires_grad == tensor.requires_grad
    assert loaded.is_leaf
    assert text(loaded.detach()) == text(tensor.detach())
    if not tensor.is_nested and name != "masked":  # They keep what they are made of.
        assert_same(vars(tensor), vars(loaded))


def test_a_tensor_of_a_class_goes_on_being_trained():
    loaded = round_trip([Weight(torch.ones(2))], own=True)[0]
    optimizer = torch.optim.SGD([loaded], 0.5)
    (loaded**2).sum().backward()
    optimizer.step()
    assert loaded.tolist() == [0, 0]


def test_a_lazy_module_that_saw_nothing_yet_comes_back(tmp_path):
    cp = Checkpoint(tmp_path, fsync=False)
    cp.model = nn.LazyLinear(2)
    cp.save()
    cp.model = again = nn.LazyLinear(2)
    cp.load()
    assert again.has_uninitialized_params()
    assert again(torch.ones(1, 3)).shape == (1, 2)


@pytest.mark.parametrize("where", ["memory", "a file"])
def test_a_tensor_in_a_file_is_saved_as_its_elements(tmp_path, where):
    tensordict = pytest.importorskip("tensordict")
    file = None if where == "memory" else tmp_path / "frames"
    mapped = tensordict.MemoryMappedTensor.from_tensor(torch.arange(3.0), filename=file)
    cp = Checkpoint(tmp_path / "ckpt", fsync=False)
    cp.box = Box({"frames": mapped, "holder": Holder(mapped)})
    cp.save()
    mapped.zero_()  # The file, and not the save.
    cp.load()
    assert type(cp.box.state["frames"]) is torch.Tensor
    assert cp.box.state["frames"].tolist() == [0, 1, 2]
    assert cp.box.state["holder"].content is cp.box.state["frames"]


# What cannot be saved


def fake():
    with torch._subclasses.FakeTensorMode():
        return torch.ones(3)


def traced():
    found = []
    torch.func.vmap(lambda x: found.append(x) or x)(torch.ones(3, 2))
    return found[0]


LOST = {
    "without data": (lambda: torch.ones(3, device="meta"), "without data, on the "),
    "fake": (fake, "is a FakeTensor, which has no data: "),
    "traced": (traced, "of type Tensor, cannot be saved: "),
    "zero": (lambda: torch._efficientzerotensor((3,)), "of type Tensor, cannot be "),
    "opaque": (lambda: torch.ones(3).to_mkldnn(), "cannot be saved: "),
    "of bits": (lambda: torch.ones(3, dtype=torch.uint8).view(torch.bits8), "bits8: "),
}


@pytest.mark.parametrize("name", LOST)
def test_a_tensor_that_cannot_be_saved_is_an_error_that_names_the_leaf(tmp_path, name):
    make, reason = LOST[name]
    for state in [{"w": make()}, {"w": Holder([1, make()])}]:
        said = refusal(tmp_path, state)
        assert said.startswith("agent/w")
        assert reason in said or state["w"].__class__ is Holder


@pytest.fixture(scope="module")
def mesh():
    distributed = pytest.importorskip("torch.distributed.tensor")
    group = torch.distributed
    if not group.is_available() or not hasattr(distributed, "DTensor"):
        pytest.skip("this torch has no DTensor")
    group.init_process_group("gloo", store=group.HashStore(), rank=0, world_size=1)
    yield group.device_mesh.init_device_mesh("cpu", (1,))
    group.destroy_process_group()


def test_a_shard_is_not_saved_as_the_whole(tmp_path, mesh):
    tensor = torch.distributed.tensor.distribute_tensor(torch.ones(4, 2), mesh)
    states = {
        "agent/w": {"w": tensor},
        "agent/p/0": {"p": [nn.Parameter(tensor)]},
        "agent/h/": {"h": Holder({"inner": [tensor]})},
    }
    for name, state in states.items():
        said = refusal(tmp_path, state)
        assert said.startswith(name)
        assert "is a DTensor, and this process holds only its own shard: " in said
        assert "full_tensor()" in said


def test_a_sharded_module_and_its_optimizer_are_not_saved_as_whole(tmp_path, mesh):
    fsdp = pytest.importorskip("torch.distributed.fsdp")
    model = nn.Linear(4, 2)
    fsdp.fully_shard(model, mesh=mesh)
    assert refusal(tmp_path, model).startswith("agent/weight is a DTensor")
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(3, 4)).sum().backward()
    optimizer.step()
    said = refusal(tmp_path, optimizer)
    assert said.startswith("agent/state/0/exp_avg is a DTensor")


def test_what_a_process_gathered_of_its_shards_is_saved(tmp_path, mesh):
    shards = torch.distributed.tensor.distribute_tensor(torch.ones(4, 2), mesh)
    loaded = round_trip({"w": shards.full_tensor()})
    assert_same({"w": torch.ones(4, 2)}, loaded)


# Element types that NumPy has from ml_dtypes only

NARROW = [
    name
    for name in (
        *("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz"),
        *("float8_e5m2fnuz", "float8_e8m0fnu", "complex32"),
    )
    if hasattr(torch, name)
]


@pytest.fixture
def no_ml_dtypes(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)  # As if it was not installed.
    dtypes._decode_name.cache_clear()
    yield
    dtypes._decode_name.cache_clear()


@pytest.mark.usefixtures("no_ml_dtypes")
@pytest.mark.parametrize("name", NARROW)
def test_narrow_tensors_load_into_tensors_without_ml_dtypes(tmp_path, name):
    x = torch.tensor([0.5, 1.0, 2.0]).to(getattr(torch, name))
    state, zeros = {"x": x, "s": x[0]}, {"x": torch.zeros_like(x), "s": x[1]}
    cp = Checkpoint(tmp_path, fsync=False)
    cp.box, cp.value = Box(state), Value(state)
    cp.save()
    for options in ({}, {"regex": ".*"}, {"cast": True}, {"mmap": True}):
        cp.box, cp.value = Box(zeros), Value(zeros)
        cp.load(**options)
        assert_same(state, cp.box.state)
        assert_same(state, cp.value.value)


@pytest.mark.usefixtures("no_ml_dtypes")
@pytest.mark.parametrize("name", NARROW)
def test_narrow_tensors_are_converted_without_ml_dtypes(tmp_path, name):
    wide = torch.tensor([0.5, 1.0, 2.0]).to(
        torch.complex64 if name == "complex32" else torch.float32
    )
    narrow = wide.to(getattr(torch, name))
    cp = Checkpoint(tmp_path, fsync=False)
    cp.box = Box({"narrow": narrow, "wide": wide, "other": narrow})
    cp.save()
    zeros = np.zeros_like(wide.numpy())
    state = {"narrow": wide * 0, "wide": torch.zeros_like(narrow), "other": zeros}
    cp.box = Box(state)
    cp.load(cast=True)
    assert_same({"narrow": wide, "wide": narrow, "other": wide.numpy()}, cp.box.state)


@pytest.mark.usefixtures("no_ml_dtypes")
def test_reading_says_which_package_narrow_tensors_need(tmp_path):
    cp = Checkpoint(tmp_path, fsync=False)
    cp.box = Box({"w": torch.ones(3, dtype=torch.bfloat16)})
    cp.save()
    with pytest.raises(elementsckpt.ReadError, match=r"ml_dtypes.*\. Install it, or"):
        elementsckpt.read(tmp_path)


# Many of one form


def test_many_tensors_are_made_of_their_memory_together(tmp_path, monkeypatch):
    state = [torch.full((3,), float(number)) for number in range(500)]
    steps = [torch.tensor(number) for number in range(500)]
    cp = Checkpoint(tmp_path, fsync=False)
    cp.box = Box({"moments": state, "steps": steps})
    cp.save()
    alone = []
    monkeypatch.setattr(torch_tensors, "_with_strides", lambda x, **_: alone.append(x))
    cp.box = Box()
    cp.load()
    assert not alone
    assert_same({"moments": state, "steps": steps}, cp.box.state)
    for tensor in cp.box.state["moments"]:
        assert tensor.untyped_storage().nbytes() == tensor.nbytes
        assert not tensor.data_ptr() % 64


def test_writing_to_one_of_many_tensors_changes_no_other(tmp_path):
    state = [torch.full((3,), float(number)) for number in range(100)]
    cp = Checkpoint(tmp_path, fsync=False)
    cp.box = Box(state)
    cp.save()
    cp.box = Box()
    cp.load()
    cp.box.state[50].add_(1)
    assert_same([*state[:50], state[50] + 1, *state[51:]], cp.box.state)
    assert [x._version for x in cp.box.state] == [x == 50 for x in range(100)]

"""Torch tensors, parameters, modules and optimizers, without pickle."""

import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import elementsckpt
from elementsckpt import Checkpoint, StateError

from support.boxes import Box
from support.strategies import PROPERTY, assert_same, round_trip

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # More of them wait for each other, and busily.
pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf")

NAMES = [
    name
    for name in (
        *("bool", "uint8", "int8", "int16", "int32", "int64"),
        *("float16", "bfloat16", "float32", "float64"),
        *("complex32", "complex64", "complex128"),
        *("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"),
        *("float8_e8m0fnu", "uint16", "uint32", "uint64"),
    )
    if hasattr(torch, name)
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 1), (2, 3, 4)])
def test_tensor_of_any_dtype_comes_back_the_same(name, shape):
    size = int(np.prod(shape, dtype=int))
    tensor = torch.arange(size).reshape(shape) % 2
    tensor = tensor.to(torch.float32).to(getattr(torch, name))
    assert_same({"a": [tensor]}, round_trip({"a": [tensor]}))


@pytest.mark.parametrize("name", NAMES)
def test_a_value_takes_tensors_of_any_dtype(name):
    dtype = getattr(torch, name)
    given = {
        "x": torch.tensor([0.0, 1.0, 2.0]).to(dtype),
        "scalar": torch.ones(()).to(dtype),
    }
    value = elementsckpt.Value({name: torch.zeros_like(x) for name, x in given.items()})
    value.load(given)
    assert_same(given, value.value)


@PROPERTY
@given(st.binary(max_size=64), st.sampled_from(NAMES[1:]))
def test_tensor_of_any_bits_comes_back_the_same(data, name):
    raw = torch.tensor(list(data[: len(data) // 16 * 16]), dtype=torch.uint8)
    tensor = raw.view(getattr(torch, name))
    assert_same(tensor, round_trip(tensor))


def test_tensor_of_any_strides_comes_back_the_same():
    base = torch.arange(24.0).reshape(2, 3, 4)
    state = {
        "transposed": base.transpose(0, 2),
        "strided": base[:, ::2, 1:],
        "expanded": torch.ones(3, 1).expand(3, 4),
        "offset": base[1],
        "flipped": base.flip(0),
        "channels last": torch.rand(1, 2, 3, 4).to(memory_format=torch.channels_last),
        "one channel": torch.rand(2, 1, 3, 4).to(memory_format=torch.channels_last),
        "volume": torch.rand(1, 2, 3, 2, 2).to(memory_format=torch.channels_last_3d),
        "row": torch.rand(1, 5).t(),
        "empty": torch.rand(2, 0, 3).transpose(0, 2),
        "conjugate": torch.tensor([1 + 2j, 3j]).conj(),
        "negative": torch.tensor([1 + 2j, 3j]).conj().imag,
        "overlapping": torch.arange(5).as_strided((3, 3), (1, 1)),
    }
    assert_same(state, round_trip(state))


LAYOUTS = {
    "small": lambda: torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "large": lambda: torch.rand(2, 64, 80, 90).to(memory_format=torch.channels_last),
    "transposed": lambda: torch.rand(700, 900).t(),
    "half": lambda: torch.rand(64, 90, 3).permute(2, 0, 1).to(torch.bfloat16),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_is_computed_of_a_loaded_tensor_is_the_same(tmp_path, name):
    """Kernels add numbers in the order in which they lie."""
    torch.manual_seed(0)
    state = {"x": LAYOUTS[name](), "y": LAYOUTS[name]()}
    cp = Checkpoint(tmp_path, fsync=False, compress=None)
    cp.box, cp.value = Box(state), elementsckpt.Value(state)
    cp.save()
    zeros = {key: torch.zeros_like(x) for key, x in state.items()}
    for options in ({}, {"mmap": True}, {"regex": ".*"}):
        cp.box, cp.value = Box(zeros), elementsckpt.Value(zeros)
        cp.load(**options)
        for loaded in (cp.box.state, cp.value.value):
            assert_same(state, loaded)
            assert [x.sum() for x in loaded.values()] == [
                state["x"].sum(),
                state["y"].sum(),
            ]
    read = elementsckpt.read(tmp_path)["box"]["x"]
    assert read.astype(np.float64).tolist() == state["x"].tolist()


def test_into_another_layout_elements_come_to_their_places(tmp_path):
    x = LAYOUTS["small"]()
    cp = Checkpoint(tmp_path, fsync=False)
    cp.box = Box([x, x.contiguous(), x[:, :1]])
    cp.save()
    cp.box = Box(
        [torch.zeros(2, 3, 4, 5), torch.zeros_like(x), torch.zeros(2, 1, 4, 5)]
    )
    cp.load(regex=".*")
    assert all(map(torch.equal, cp.box.state, [x, x, x[:, :1]]))
    assert cp.box.state[0].is_contiguous()
    assert cp.box.state[1].stride() == x.stride()


def test_other_tools_see_the_axes_as_they_lie_in_memory(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    x = LAYOUTS["small"]()
    cp = Checkpoint(tmp_path, fsync=False, compress=None)
    cp.box = Box({"x": x})
    (segment,) = cp.save().path.glob("*.safetensors")
    assert torch.equal(safetensors.load_file(segment)["x"], x.permute(0, 2, 3, 1))


def test_parameters_and_gradients_wanted_are_kept():
    frozen = torch.nn.Parameter(torch.ones(2), requires_grad=False)
    state = {
        "parameter": torch.nn.Parameter(torch.arange(3.0)),
        "frozen": frozen,
        "half": torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16)),
        "leaf": torch.ones(2, requires_grad=True),
        "constant": torch.ones(2),
        "computed": (torch.ones(2, requires_grad=True) * 2).detach(),
    }
    loaded = round_trip(state)
    assert_same(state, loaded)
    assert type(loaded["parameter"]) is torch.nn.Parameter
    (loaded["parameter"] ** 2).sum().backward()
    assert loaded["parameter"].grad.tolist() == [0, 2, 4]


def test_tensor_that_was_computed_comes_back_without_its_graph():
    weight = torch.ones(3, requires_grad=True)
    loaded = round_trip({"loss": weight * 2})["loss"]
    assert loaded.tolist() == [2, 2, 2]
    assert loaded.grad_fn is None


def test_tensor_met_twice_comes_back_as_one_and_equal_tensors_as_two():
    tensor = torch.zeros(100)
    state = {"a": tensor, "b": [tensor], "c": torch.zeros(100)}
    loaded = round_trip(state)
    assert_same(state, loaded)
    loaded["a"][:] = 1
    assert loaded["c"].sum() == 0


@pytest.mark.parametrize("mmap", [False, True])
def test_loaded_tensors_are_written_without_changing_the_save(tmp_path, mmap):
    cp = Checkpoint(tmp_path, fsync=False, compress=None)
    cp.box = Box({"small": torch.ones(3), "large": torch.ones(300_000)})
    cp.save()
    for _ in range(2):
        cp.load(mmap=mmap)
        assert cp.box.state["small"].sum() == 3
        assert cp.box.state["large"].sum() == 300_000
        cp.box.state["small"].zero_()
        cp.box.state["large"].zero_()


def test_torch_and_numpy_are_told_apart():
    state = [torch.ones(2), np.ones(2, np.float32), torch.tensor(1.0), 1.0]
    assert_same(state, round_trip(state))


def test_large_tensor_comes_back_the_same():
    tensor = torch.arange(5 * 2**20).reshape(-1, 1024)
    loaded = round_trip([tensor, tensor.t()])
    assert torch.equal(loaded[0], tensor)
    assert torch.equal(loaded[1], tensor.t())


def test_read_gives_numpy_arrays(tmp_path):
    cp = Checkpoint(tmp_path, fsync=False)
    state = {"w": torch.arange(3.0), "half": torch.arange(3, dtype=torch.bfloat16)}
    cp.box = Box(state)
    cp.save()
    found = elementsckpt.read(tmp_path)["box"]
    assert_same(np.arange(3, dtype=np.float32), np.array(found["w"]))
    assert isinstance(found["half"], np.ndarray)
    assert str(found["half"].dtype) == "bfloat16"
    assert found["half"].tolist() == [0, 1, 2]


def test_tensors_in_an_object_come_back_the_same():
    class Holder:
        pass

    holder = Holder()
    holder.tensor = torch.arange(3.0)
    holder.parameter = torch.nn.Parameter(torch.ones(2))
    loaded = round_trip({"holder": holder, "tensor": holder.tensor}, own=True)
    assert_same(vars(holder), vars(loaded["holder"]))
    assert loaded["tensor"] is loaded["holder"].tensor


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_sparse_tensor_comes_back_the_same_in_the_own_directory():
    tensor = torch.eye(3).to_sparse()
    loaded = round_trip([tensor], own=True)[0]
    assert loaded.is_sparse
    assert torch.equal(loaded.to_dense(), torch.eye(3))


def test_tensor_without_data_is_an_error_that_names_key_and_leaf(tmp_path):
    cp = Checkpoint(tmp_path, fsync=False)
    cp.agent = Box({"layer/w": torch.ones(3, device="meta")})
    with pytest.raises(StateError, match="agent/layer/w"):
        cp.save()
    assert list(tmp_path.glob("[!.]*")) == []


# Modules and optimizers, by state_dict() and load_state_dict()


def network():
    return torch.nn.Sequential(
        collections.OrderedDict(
            linear=torch.nn.Linear(3, 4),
            norm=torch.nn.BatchNorm1d(4),
            head=torch.nn.Linear(4, 2, dtype=torch.float32),
        )
    )


def train(model, optimizer, steps):
    x = torch.linspace(-1, 1, 15).reshape(5, 3)
    for _ in range(steps):
        optimizer.zero_grad()
        model(x).pow(2).sum().backward()
        optimizer.step()


@pytest.mark.parametrize("own", [False, True])
def test_module_and_optimizer_go_on_as_if_never_saved(tmp_path, own):
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 0.01, amsgrad=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, [lambda epoch: 0.9])
    train(model, optimizer, 3)
    scheduler.step()
    cp = Checkpoint(tmp_path, fsync=False)
    cp.model, cp.optimizer, cp.scheduler = model, optimizer, scheduler
    cp.save()

    again = network()
    other = torch.optim.Adam(again.parameters(), 0.5)
    resumed = Checkpoint(tmp_path if own else None)
    resumed.model, resumed.optimizer = again, other
    resumed.scheduler = torch.optim.lr_scheduler.LambdaLR(other, [lambda epoch: 0.9])
    resumed.load(tmp_path)
    assert_same(dict(model.state_dict()), dict(again.state_dict()))
    assert other.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]

    train(model, optimizer, 3)
    train(again, other, 3)
    assert_same(dict(model.state_dict()), dict(again.state_dict()))


def test_tied_weights_of_a_module_stay_tied(tmp_path):
    def tied():
        model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
        model[1].weight = model[0].weight
        return model

    model, again = tied(), tied()
    cp = Checkpoint(tmp_path, fsync=False)
    cp.model = model
    cp.save()
    cp.model = again
    cp.load()
    assert again[0].weight is again[1].weight
    assert torch.equal(again[0].weight, model[0].weight)


def test_layer_of_a_module_is_loaded_by_regex(tmp_path):
    model, again = network(), network()
    cp = Checkpoint(tmp_path, fsync=False)
    cp.model = model
    cp.save()
    before = again.state_dict()["head.weight"].clone()
    transfer = Checkpoint()
    transfer.model = again
    report = transfer.load(tmp_path, regex=r"linear\.")
    assert set(report.loaded) == {"model/linear.weight", "model/linear.bias"}
    assert torch.equal(again.linear.weight, model.linear.weight)
    assert torch.equal(again.head.weight, before)

"""State on an accelerator comes back there, and where there is none, too."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint, GlobalRNG, Ring, Value
from elementsckpt.kinds import jax_arrays

from support.boxes import Box, make, python
from support.strategies import assert_same

if jax.default_backend() == "cpu":
    pytest.skip("there is no accelerator", allow_module_level=True)

DEVICE = jax.devices()[0]
CPU = jax.devices("cpu")[0]


def state(seed=0):
    """Return arrays of many types on the accelerator."""
    rng = np.random.default_rng(seed)
    types = "bool", "int8", "uint16", "int32", "float16", "bfloat16", "float32"
    made = {name: jnp.asarray(rng.integers(0, 2, (3, 5)), name) for name in types}
    return made | {
        "key": jax.random.key(seed),
        "keys": jax.random.split(jax.random.key(seed, impl="rbg"), 4),
        "weak": jnp.asarray(2.5) * 2,
        "empty": jnp.zeros((0, 4)),
        "transposed": jnp.asarray(rng.random((64, 33)), jnp.float32).T,
        "large": jnp.asarray(rng.random((1 << 20) + 3), jnp.float32),
    }


def devices(tree):
    """Return where the leaves are."""
    return {device for x in jax.tree.leaves(tree) for device in x.devices()}


@pytest.mark.parametrize("background", [False, True])
def test_arrays_come_back_as_they_were_where_they_were(tmp_path, background):
    expected = state()
    with make(tmp_path, expected, background=background) as cp:
        cp.save()
    found = make(tmp_path)
    found.load()
    assert_same(expected, found.agent.state)
    assert devices(found.agent.state) == {DEVICE}


def test_donated_arrays_are_saved_as_they_were(tmp_path):
    step = jax.jit(
        lambda tree: jax.tree.map(lambda x: x * 3 + 1, tree), donate_argnums=0
    )
    expected = {"a": jnp.arange(1 << 22, dtype=jnp.float32), "b": jnp.ones((7, 9))}
    cp = make(tmp_path, expected, background=True)
    for _ in range(5):
        host = jax.tree.map(np.array, cp.agent.state)
        report = cp.save()
        cp.agent.state = step(cp.agent.state)
        cp.agent.state = step(cp.agent.state)
        report = cp.wait() or report
        found = make()
        found.load(report.path)
        assert_same(host, jax.tree.map(np.array, found.agent.state))
    cp.close()


def test_what_was_saved_before_is_not_written_again(tmp_path):
    cp = make(tmp_path, state())
    first = cp.save()
    report = cp.save()
    assert report.bytes_written < first.bytes_written / 100


def test_arrays_that_nothing_pinned_can_hold_are_fetched_all_the_same(
    tmp_path, monkeypatch
):
    def refuse(*_):
        raise RuntimeError("RESOURCE_EXHAUSTED")

    monkeypatch.setattr(jax, "device_put", refuse)
    expected = state()
    make(tmp_path, expected).save()
    monkeypatch.undo()
    found = make(tmp_path)
    found.load()
    assert_same(expected, found.agent.state)


def test_transfers_are_explicit(tmp_path):
    expected = state()
    with jax.transfer_guard("disallow"):
        make(tmp_path, expected).save()
        found = make(tmp_path)
        found.load()
    assert_same(expected, found.agent.state)


def test_a_value_puts_each_leaf_where_the_current_one_is(tmp_path):
    value = {"here": jnp.arange(9.0), "there": jax.device_put(jnp.arange(5), CPU)}
    cp = Checkpoint(tmp_path)
    cp.value = Value(value)
    cp.save()
    swapped = {
        "here": jax.device_put(jnp.zeros(9), CPU),
        "there": jax.device_put(jnp.zeros(5, int), DEVICE),
    }
    other = Checkpoint(tmp_path)
    other.value = Value(swapped)
    other.load()
    found = other.value.value
    assert found["here"].devices() == {CPU}
    assert found["there"].devices() == {DEVICE}
    np.testing.assert_array_equal(found["here"], np.arange(9.0))
    np.testing.assert_array_equal(found["there"], np.arange(5))


WITHOUT = """
import os, sys, json
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
import jax
from support.boxes import make
cp = make(sys.argv[1])
cp.load()
found = jax.tree.map(lambda x: float(x.sum()), cp.agent.state)
devices = {d for x in jax.tree.leaves(cp.agent.state) for d in x.devices()}
assert {device.platform for device in devices} == {"cpu"}
cp.agent.state = jax.tree.map(lambda x: x + 1, cp.agent.state)
cp.save()
print(json.dumps(found))
"""


def test_a_save_goes_to_a_machine_without_accelerator_and_back(tmp_path):
    tree = {"a": jnp.arange(1000), "b": jnp.ones((30, 3), jnp.bfloat16)}
    make(tmp_path, tree).save()
    done = python(WITHOUT, tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"a": 499500.0, "b": 90.0}
    found = make(tmp_path)
    found.load()
    assert devices(found.agent.state) == {DEVICE}
    assert_same(jax.tree.map(lambda x: x + 1, tree), found.agent.state)


# Torch


@pytest.fixture
def torch():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch has no CUDA here")
    return torch


@pytest.mark.parametrize("background", [False, True])
def test_tensors_come_back_where_they_were(tmp_path, torch, background):
    expected = {
        "here": torch.arange(12.0, device="cuda").reshape(3, 4),
        "half": torch.ones(5, dtype=torch.bfloat16, device="cuda:0"),
        "parameter": torch.nn.Parameter(torch.ones(2, 2, device="cuda")),
        "there": torch.arange(5),
    }
    cp = make(tmp_path, expected, background=background)
    before = {key: x.detach().clone() for key, x in expected.items()}
    cp.save()
    with torch.no_grad():
        for tensor in expected.values():
            tensor.add_(1)
    cp.close()
    found = make(tmp_path)
    found.load()
    for key, tensor in found.agent.state.items():
        assert type(tensor) is type(expected[key])
        assert tensor.device == expected[key].device
        assert torch.equal(tensor, before[key])


def test_a_module_and_its_optimizer_go_on_as_if_nothing_had_been(tmp_path, torch):
    def train(model, optimizer, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            x = torch.rand(8, 4, device="cuda")
            model(x).square().mean().backward()
            optimizer.step()

    def run(seed):
        torch.manual_seed(seed)
        model = torch.nn.Linear(4, 3).cuda()
        optimizer = torch.optim.Adam(model.parameters())
        cp = Checkpoint(tmp_path)
        cp.model, cp.optimizer, cp.rng = model, optimizer, GlobalRNG()
        return cp, model, optimizer

    cp, model, optimizer = run(0)
    train(model, optimizer, 3)
    cp.save()
    train(model, optimizer, 3)
    other, again, optimizer = run(1)
    other.load()
    train(again, optimizer, 3)
    for key, tensor in again.state_dict().items():
        assert tensor.device.type == "cuda"
        assert torch.equal(tensor, model.state_dict()[key])


def test_all_devices_random_states_are_restored(tmp_path, torch):
    torch.cuda.init()
    cp = Checkpoint(tmp_path)
    cp.rng = GlobalRNG()
    cp.save()
    expected = torch.rand(3, device="cuda")
    torch.cuda.manual_seed_all(5)
    cp.load()
    assert torch.equal(expected, torch.rand(3, device="cuda"))


@pytest.mark.parametrize("background", [False, True])
def test_of_a_ring_only_new_rows_come_from_the_accelerator(
    tmp_path, background, monkeypatch
):
    rows = np.zeros((64, 1 << 18), np.float32)  # 64 blocks.
    read, count = jax_arrays._read, [0]

    def counted(values, otherwise):
        count[0] += sum(value.nbytes for value in values)
        return read(values, otherwise)

    monkeypatch.setattr(jax_arrays, "_read", counted)
    cp = Checkpoint(tmp_path, fsync=False, background=background, compress=None)
    cp.replay = Box()
    for added in range(64, 70):
        rows[added % 64] = added
        cp.replay.state = Ring(jax.device_put(rows, DEVICE), added)
        count[0] = 0
        with jax.transfer_guard("disallow"):
            report = cp.save()
        cp.replay.state.array.delete()
        cp.wait()
        assert np.array_equal(elementsckpt.read(report.path)["replay"], rows)
        assert added == 64 or count[0] <= 3 * 2 * rows[0].nbytes  # Twice: it is nested.

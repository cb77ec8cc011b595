"""Objects of Flax NNX as components: modules, optimizers and random numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import elementsckpt
from elementsckpt import Checkpoint, ComponentError, MismatchError

# Until then an optimizer keeps arrays where flax.nnx.update cannot set them.
HAS_OPTIMIZERS = hasattr(nnx, "to_pure_dict")


class Net(nnx.Module):
    def __init__(self, rngs, width=4):
        self.first = nnx.Linear(3, width, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        layers = [nnx.Linear(width, width, rngs=rngs) for _ in range(2)]
        self.layers = nnx.List(layers) if hasattr(nnx, "List") else layers
        self.shared = self.first
        self.calls = nnx.Variable(jnp.int32(0))
        self.width = width

    def __call__(self, x):
        x = self.dropout(self.norm(self.first(x)))
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return x


class Agent(nnx.Module):
    """Says itself what is saved."""

    def __init__(self, rngs):
        self.net = nnx.Linear(2, 2, rngs=rngs)
        self.data = None

    def save(self):
        return {"kernel": np.ones(3)}

    def load(self, data):
        self.count = int(data["kernel"].sum())


def registered(directory, seed, width=4):
    cp = Checkpoint(directory)
    cp.model = Net(nnx.Rngs(seed, dropout=seed + 1), width)
    cp.rngs = nnx.Rngs(seed + 2)
    if HAS_OPTIMIZERS:
        cp.optimizer = nnx.Optimizer(cp.model, optax.adam(1e-2), wrt=nnx.Param)
    return cp


@nnx.jit
def step(model, x):
    return (model(x) ** 2).mean()


@nnx.jit
def train(model, optimizer, x):
    def loss(model):
        return (model(x) ** 2).mean()

    value, grads = nnx.value_and_grad(loss)(model)
    optimizer.update(model, grads)
    return value


def run(cp, steps):
    """Train, or only run, and return what each step gave."""
    outputs = []
    for _ in range(steps):
        x = jax.random.normal(cp.rngs.params(), (5, 3))
        if HAS_OPTIMIZERS:
            outputs.append(float(train(cp.model, cp.optimizer, x)))
        else:
            outputs.append(float(step(cp.model, x)))
    return outputs


def test_a_run_resumes_bit_for_bit(tmp_path):
    cp = registered(tmp_path, 0)
    run(cp, 3)
    assert cp.save().pickled == ()
    expected = run(cp, 4)
    fresh = registered(tmp_path, 10)
    model = fresh.model
    fresh.load()
    assert fresh.model is model
    assert run(fresh, 4) == expected
    assert len(set(expected)) == 4


def test_a_foreign_save_needs_no_pickle(tmp_path):
    cp = registered(tmp_path, 0)
    cp.save(tmp_path / "elsewhere")
    expected = run(cp, 1)
    fresh = registered(None, 10)
    fresh.load(tmp_path / "elsewhere")
    assert run(fresh, 1) == expected


def test_leaves_have_the_names_of_attributes(tmp_path):
    cp = registered(tmp_path, 0)
    cp.save()
    model = elementsckpt.read(tmp_path)["model"]
    assert model["first"]["kernel"].shape == (3, 4)
    assert model["layers"][1]["bias"].shape == (4,)
    assert model["norm"]["mean"].shape == (4,)
    assert model["calls"] == 0
    assert "shared" not in model or not model["shared"]
    if HAS_OPTIMIZERS:
        optimizer = elementsckpt.read(tmp_path)["optimizer"]
        assert optimizer["opt_state"][0]["mu"]["first"]["kernel"].shape == (3, 4)


def test_what_is_shared_stays_shared(tmp_path):
    registered(tmp_path, 0).save()
    cp = registered(tmp_path, 10)
    cp.load()
    assert cp.model.shared is cp.model.first
    assert cp.model.shared.kernel is cp.model.first.kernel


def test_a_part_is_loaded_by_regex(tmp_path):
    cp = registered(tmp_path, 0)
    cp.save()
    fresh = registered(tmp_path, 10)
    bias = np.asarray(fresh.model.layers[0].kernel[...])
    report = fresh.load(keys=["model"], regex="first/")
    assert set(report.loaded) == {"model/first/kernel", "model/first/bias"}
    np.testing.assert_array_equal(
        cp.model.first.kernel[...], fresh.model.first.kernel[...]
    )
    np.testing.assert_array_equal(bias, fresh.model.layers[0].kernel[...])


def test_a_module_of_another_shape_is_left_alone(tmp_path):
    registered(tmp_path, 0).save()
    cp = registered(tmp_path, 10, width=5)
    before = np.asarray(cp.model.first.kernel[...])
    with pytest.raises(MismatchError, match="model/first/kernel: saved float32") as e:
        cp.load()
    assert "model/layers/1/bias" in str(e.value)
    np.testing.assert_array_equal(before, cp.model.first.kernel[...])


def test_a_module_that_can_save_itself_does(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.agent = Agent(nnx.Rngs(0))
    cp.save()
    assert list(elementsckpt.read(tmp_path)["agent"]) == ["kernel"]
    cp.load()
    assert cp.agent.count == 3


def test_registering_changes_nothing():
    model = Net(nnx.Rngs(0))
    graph, state = nnx.split(model)
    cp = Checkpoint()
    cp.model, cp.rngs = model, nnx.Rngs(5)
    other_graph, other = nnx.split(model)
    assert graph == other_graph
    leaves = map(jax.tree_util.tree_leaves, (state, other))
    assert all(one is two for one, two in zip(*leaves, strict=True))
    assert int(cp.rngs["default"].count[...]) == 0


def test_a_metric_is_saved_too(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.metric = nnx.metrics.Average()
    cp.metric.update(values=jnp.arange(5.0))
    cp.save()
    cp.metric.reset()
    cp.load()
    assert cp.metric.compute() == 2


@pytest.mark.skipif(HAS_OPTIMIZERS, reason="a new flax")
def test_optimizers_of_an_old_flax_are_refused():
    model = Net(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-2))
    with pytest.raises(ComponentError, match=r"nnx\.update cannot set"):
        Checkpoint().optimizer = optimizer


def test_arrays_that_cannot_be_set_are_refused():
    class Odd(nnx.Module):
        def __init__(self):
            pair = (jnp.ones(2), jnp.zeros(2))
            self.pair = nnx.data(pair) if hasattr(nnx, "data") else pair

    with pytest.raises(ComponentError, match=r"Hold its arrays in nnx\.Variables"):
        Checkpoint().odd = Odd()


class Activated(nnx.Module):
    def __init__(self, act):
        self.linear = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
        self.act = act


def test_arrays_in_code_of_modules_are_told_of(tmp_path, caplog):
    array = np.full(2, 7.0)
    model = Activated(functools.partial(jnp.multiply, array))
    model.inner = Activated(lambda x: x * array)
    cp = Checkpoint(tmp_path)
    cp.model = model
    for _ in range(2):
        cp.save()
    said = [x for x in caplog.messages if "holds arrays" in x]
    assert len(said) == 2
    assert "model/act is static and holds arrays, in an argument of" in caplog.text
    assert "model/inner/act is static and holds arrays, in 'array', w" in caplog.text


def test_code_of_modules_without_arrays_is_not_told_of(tmp_path, caplog):
    cp = registered(tmp_path, 1)
    cp.other = Activated(nnx.relu)
    cp.save()
    assert "holds arrays" not in caplog.text

"""JAX arrays, typed keys and the states of optax, flax, chex and equinox."""

import dataclasses
import functools
import inspect
import math
import tempfile
from collections.abc import Callable
from typing import Any

import chex
import equinox as eqx
import flax.core
import flax.struct
import flax.training.train_state
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import elementsckpt
from elementsckpt import Checkpoint, CheckpointError, StateError, Value

from support.boxes import Box
from support.forks import Forks
from support.strategies import PROPERTY, assert_same, round_trip


@pytest.fixture
def guarded():
    """Forbid implicit transfers in all threads, as DreamerV3 does."""
    jax.config.update("jax_transfer_guard", "disallow")
    yield
    jax.config.update("jax_transfer_guard", "allow")


@pytest.fixture
def x64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def existing(*names):
    """Return the element types of these names that this JAX has."""
    return [name for name in names if hasattr(jnp, name)]


# Arrays

WIDE = existing(
    *("bool_", "int8", "int16", "int32", "uint8", "uint16", "uint32"),
    *("float16", "bfloat16", "float32", "complex64"),
)
NARROW = existing(
    *("float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz", "float8_e4m3fnuz"),
    *("float8_e5m2fnuz", "float8_e3m4", "float8_e4m3", "float8_e8m0fnu"),
    *("float4_e2m1fn", "int4", "uint4", "int2", "uint2"),
)


@pytest.mark.parametrize("name", WIDE + NARROW)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 1), (2, 3, 5)])
def test_array_of_any_element_type_comes_back_the_same(name, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape) % 2
    array = jnp.asarray(array.astype(getattr(jnp, name)))
    assert_same({"a": [array]}, round_trip({"a": [array]}))


@PROPERTY
@given(st.binary(min_size=4, max_size=40), st.sampled_from(WIDE[1:]))
def test_array_of_any_bits_comes_back_the_same(data, name):
    array = np.frombuffer(data[: len(data) // 8 * 8], np.dtype(getattr(jnp, name)))
    array = jnp.asarray(array)
    assert_same(array, round_trip(array))


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("mmap", [False, True])
def test_array_alone_comes_back_as_a_jax_array(own, mmap):
    array = jnp.arange(6.0).reshape(2, 3)
    loaded = round_trip(array, own=own, mmap=mmap)
    assert isinstance(loaded, jax.Array)
    assert_same(array, loaded)


def test_weak_types_stay_weak_and_strong_ones_strong():
    state = {
        "weak": [jnp.asarray(value) for value in (1, 1.5, 2j)],
        "weak of a shape": jnp.full((2, 2), 1.0) * jnp.asarray(2.0),
        "strong": [jnp.float32(1), jnp.zeros(2, jnp.float32)],
    }
    assert [array.weak_type for array in state["weak"]] == [True] * 3
    loaded = round_trip(state)
    assert_same(state, loaded)
    half = jnp.ones(2, jnp.bfloat16)
    assert (half * loaded["weak"][1]).dtype == jnp.bfloat16
    assert (half * loaded["strong"][0]).dtype == jnp.float32


def test_loaded_weak_array_does_not_compile_a_function_anew():
    calls = []

    @jax.jit
    def function(x):
        calls.append(x)
        return x + 1

    state = [jnp.asarray(1.0), jnp.float32(1)]
    for array in state + round_trip(state):
        function(array)
    assert len(calls) == 2


def test_array_met_twice_comes_back_as_one_and_equal_arrays_as_two():
    array = jnp.ones(100)
    state = {"a": array, "b": [array], "c": jnp.ones(100)}
    loaded = round_trip(state)
    assert_same(state, loaded)
    assert loaded["a"] is loaded["b"][0]
    assert loaded["a"] is not loaded["c"]


def test_transposed_and_large_arrays_come_back_the_same():
    large = jnp.arange(6 * 2**20, dtype=jnp.int32).reshape(-1, 1024)
    state = {"large": large, "transposed": large.T, "row": large[3]}
    assert_same(state, round_trip(state))


def test_jax_and_numpy_arrays_are_told_apart():
    state = [jnp.ones(2), np.ones(2, np.float32), np.float32(1), jnp.float32(1), 1.0]
    assert_same(state, round_trip(state))


def test_donating_a_loaded_array_changes_no_other():
    state = {"a": np.ones(1000, np.float32), "b": jnp.ones(1000), "c": jnp.zeros(9)}
    loaded = round_trip(state)
    double = jax.jit(lambda x: x * 2, donate_argnums=0)
    double(loaded["b"]).block_until_ready()
    assert_same([state["a"], state["c"]], [loaded["a"], loaded["c"]])


def test_arrays_given_to_jax_by_load_are_never_written_again(tmp_path):
    cp = Checkpoint(tmp_path, fsync=False)
    cp.box = Box({"a": np.arange(1000.0, dtype=np.float32)})
    cp.save()
    placed = []
    for _ in range(3):
        cp.load()
        placed.append(jax.device_put(cp.box.state["a"]))
    for array in placed:
        np.testing.assert_array_equal(array, np.arange(1000))


def test_read_gives_numpy_arrays_and_the_data_of_keys(tmp_path):
    key = jax.random.key(3)
    cp = Checkpoint(tmp_path, fsync=False)
    cp.box = Box({"w": jnp.arange(3, dtype=jnp.bfloat16), "key": key})
    cp.save()
    found = elementsckpt.read(tmp_path)["box"]
    assert isinstance(found["w"], np.ndarray)
    assert found["w"].dtype == jnp.bfloat16
    assert found["w"].tolist() == [0, 1, 2]
    assert isinstance(found["key"], np.ndarray)
    np.testing.assert_array_equal(found["key"], jax.random.key_data(key))


# 64 bits


def test_wide_elements_come_back_the_same_where_jax_has_them(x64):
    state = [jnp.asarray([1, -0.0], name) for name in ("float64", "complex128")]
    state += [jnp.asarray([1, 2], name) for name in ("int64", "uint64")]
    state += [jnp.asarray(1), jnp.asarray(0.5), jnp.asarray(2j)]
    assert {array.dtype.itemsize for array in state} == {8, 16}
    assert_same(state, round_trip(state))


def test_wide_elements_are_never_narrowed_in_silence(tmp_path):
    jax.config.update("jax_enable_x64", True)
    try:
        cp = Checkpoint(tmp_path, fsync=False)
        cp.box = Box({"wide": jnp.arange(3.0), "narrow": jnp.ones(3, jnp.float32)})
        cp.save()
    finally:
        jax.config.update("jax_enable_x64", False)
    cp.box = Box("untouched")
    with pytest.raises(CheckpointError, match=r"(?s)box/wide.*jax_enable_x64"):
        cp.load()
    assert cp.box.state == "untouched"


# Typed keys

IMPLEMENTATIONS = ["threefry2x32", "rbg", "unsafe_rbg"]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_typed_keys_go_on_with_the_same_numbers(implementation):
    key = jax.random.key(7, impl=implementation)
    state = {"key": key, "split": jax.random.split(key, (2, 3)), "none": key[None][:0]}
    loaded = round_trip(state)
    assert_same(state, loaded)
    expected, actual = (jax.random.normal(s["split"][1, 2], 9) for s in (state, loaded))
    np.testing.assert_array_equal(expected, actual)


def test_raw_keys_stay_plain_arrays():
    key = jax.random.PRNGKey(3)
    assert_same(key, round_trip(key))


def test_typed_key_met_twice_comes_back_as_one():
    key = jax.random.key(0)
    state = {"a": key, "b": key, "c": jax.random.key(0)}
    assert_same(state, round_trip(state))


# Transfers


def test_saves_and_loads_need_no_implicit_transfer(tmp_path, guarded):
    with jax.transfer_guard("allow"):
        state = {
            "array": jnp.arange(5.0),
            "half": jnp.arange(5).astype(jnp.bfloat16),
            "weak": jnp.asarray(1.0),
            "key": jax.random.key(0, impl="rbg"),
            "keys": jax.random.split(jax.random.key(0), 3),
            "opt": optax.adam(1e-3).init({"w": jnp.ones(3)}),
        }
    cp = Checkpoint(tmp_path, fsync=False)
    cp.box = Box(state)
    cp.save()
    cp.load()
    foreign = Checkpoint()
    foreign.box = Box(state)
    foreign.load(tmp_path)
    foreign.load(tmp_path, regex="array|key|weak|half")
    elementsckpt.read(tmp_path)
    jax.config.update("jax_transfer_guard", "allow")
    assert_same(state, cp.box.state)
    assert_same(state, foreign.box.state)


# Arrays that are gone


# What people switch on to find mistakes of their own.
FLAGS = {
    "jax_debug_nans": True,
    "jax_debug_infs": True,
    "jax_debug_key_reuse": True,
    "jax_disable_jit": True,
    "jax_enable_checks": True,
    "jax_enable_x64": True,
    "jax_check_tracer_leaks": True,
    "jax_no_execution": True,
    "jax_no_tracing": True,
    "jax_numpy_dtype_promotion": "strict",
    "jax_numpy_rank_promotion": "raise",
    "jax_transfer_guard": "disallow",
}


def make_state_with_all_bits():
    """Return arrays of each element type with NaN and infinity, weak ones, and keys."""
    odd = np.array([np.nan, np.inf, -0.0])
    with np.errstate(invalid="ignore"):  # Some types have no infinity, or no NaN.
        arrays = {
            name: jnp.asarray(odd.astype(getattr(jnp, name)))
            for name in WIDE + NARROW
            if name.startswith(("float", "bfloat", "complex"))
        }
    weak = {
        "nan": jnp.asarray(math.nan),
        "inf": jnp.asarray(math.inf),
        "vector": jnp.full(2, math.nan),
        "complex": jnp.asarray(complex(np.nan, 1)),
        "int": jnp.asarray(1),
    }
    assert all(array.weak_type for array in weak.values())
    return {
        "arrays": arrays,
        "weak": weak,
        "keys": jax.random.split(jax.random.key(1), 3),
        "legacy": jax.random.PRNGKey(1),
        "numpy": odd,
        "python": [math.nan, np.float32(np.nan)],
    }


@pytest.mark.parametrize("flag", ["jax_debug_nans", "jax_debug_infs"])
def test_no_flag_that_finds_odd_numbers_stops_a_copy(tmp_path, flag):
    cp = Checkpoint(tmp_path, fsync=False)
    cp.state = elementsckpt.Value({"x": jnp.array([np.nan, np.inf])})
    path = cp.save().path
    jax.config.update(flag, True)
    try:
        copied = cp.copy_of("state", path)
    finally:
        jax.config.update(flag, False)
    assert np.array_equal(copied.value["x"], [np.nan, np.inf], equal_nan=True)


@pytest.mark.parametrize("flag", sorted(FLAGS.keys() & jax.config.values))
def test_no_flag_that_finds_mistakes_stops_a_save_or_a_load(tmp_path, flag):
    state, other = make_state_with_all_bits(), make_state_with_all_bits()
    before = jax.config.values[flag]
    loaded = []
    jax.config.update(flag, FLAGS[flag])
    try:
        cp = Checkpoint(tmp_path)
        cp.box, cp.value = Box(state), Value(state)
        cp.save(metrics={"return": state["weak"]["nan"]})
        for options in ({}, {"mmap": True}, {"regex": ".*"}):
            cp = Checkpoint(tmp_path)
            cp.box, cp.value = Box(other), Value(other)
            cp.load(**options)
            loaded += [cp.box.state, cp.value.value]
    finally:
        jax.config.update(flag, before)
    for found in loaded:
        assert_same(state, found)


def test_deleted_array_is_an_error_that_names_key_and_leaf(tmp_path):
    array = jnp.ones(3)
    array.delete()
    cp = Checkpoint(tmp_path, fsync=False)
    cp.agent = Box({"params": {"enc/w": array, "fine": jnp.ones(1)}})
    with pytest.raises(StateError, match="agent/params/enc/w") as caught:
        cp.save()
    assert "deleted" in str(caught.value)
    assert not cp.saves()


def test_donated_array_is_an_error_that_names_key_and_leaf(tmp_path):
    array = jnp.ones(3)
    jax.jit(lambda x: x + 1, donate_argnums=0)(array)
    assert array.is_deleted()
    cp = Checkpoint(tmp_path, fsync=False)
    cp.agent = Box([0, array])
    with pytest.raises(StateError, match="agent/1"):
        cp.save()
    assert not cp.saves()


def test_deleted_key_is_an_error_that_names_key_and_leaf(tmp_path):
    key = jax.random.key(0)
    jax.random.key_data(key).delete()
    key = jax.random.clone(jax.random.key(1))
    key.delete()
    cp = Checkpoint(tmp_path, fsync=False)
    cp.agent = Box({"rng": key})
    with pytest.raises(StateError, match="agent/rng"):
        cp.save()
    assert not cp.saves()


def test_tracer_is_an_error_that_names_key_and_leaf(tmp_path):
    cp = Checkpoint(tmp_path, fsync=False)

    @jax.jit
    def save(x):
        cp.agent = Box({"traced": x})
        cp.save()
        return x

    with pytest.raises(StateError, match="agent/traced"):
        save(jnp.ones(2))
    assert not cp.saves()


# optax


def params():
    # Of one shape: what is computed with each is compiled once.
    return {"dense/kernel": jnp.ones(2), "dense": {"bias": jnp.zeros(2)}}


def noisy_sgd():
    if "key" in inspect.signature(optax.noisy_sgd).parameters:
        return optax.noisy_sgd(0.1, key=jax.random.key(1))
    return optax.noisy_sgd(0.1, seed=1)


OPTIMIZERS = {
    "sgd": lambda: optax.sgd(0.1, momentum=0.9),
    "adam": lambda: optax.adam(1e-3),
    "half": lambda: optax.adam(1e-3, mu_dtype=jnp.bfloat16),
    "schedule": lambda: optax.adamw(optax.cosine_decay_schedule(1.0, 100)),
    "chain": lambda: optax.chain(
        optax.clip_by_global_norm(1.0), optax.scale_by_rms(), optax.scale(-0.1)
    ),
    "masked": lambda: optax.masked(
        optax.adam(0.1), {"dense/kernel": True, "dense": {"bias": False}}
    ),
    "steps": lambda: optax.MultiSteps(optax.adam(0.1), 3),
    "injected": lambda: optax.inject_hyperparams(optax.adam)(learning_rate=0.1),
    "noise": noisy_sgd,
    "empty": lambda: optax.identity(),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_state_goes_on_as_if_never_saved(name):
    optimizer = OPTIMIZERS[name]()
    state = optimizer.init(params())
    grads = jax.tree_util.tree_map(lambda x: x * 0.1 + 1, params())
    _, state = optimizer.update(grads, state, params())
    loaded = round_trip(state)
    assert_same(state, loaded)
    one, other = (
        jax.tree_util.tree_structure(state),
        jax.tree_util.tree_structure(loaded),
    )
    assert one == other
    expected = optimizer.update(grads, state, params())
    assert_same_values(expected, optimizer.update(grads, loaded, params()))


def assert_same_values(expected, actual):
    """Compare what was computed: here what is aliased depends on JAX alone."""
    leaves = [jax.tree_util.tree_leaves(tree) for tree in (expected, actual)]
    for one, other in zip(*leaves, strict=True):
        if hasattr(one, "dtype") and jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        np.testing.assert_array_equal(one, other)


# flax


@flax.struct.dataclass
class Agent:
    params: Any
    step: int
    rng: jax.Array
    name: str = flax.struct.field(pytree_node=False)
    config: dict = flax.struct.field(pytree_node=False, default_factory=dict)


def test_flax_dataclass_keeps_its_static_fields():
    agent = Agent(params(), 3, jax.random.key(0), "agent", {"layers": (2, 3)})
    loaded = round_trip({"agent": agent})
    assert_same({"agent": agent}, loaded)
    assert loaded["agent"].replace(step=4).step == 4


def test_flax_frozen_dict_stays_frozen():
    state = flax.core.freeze({"b": {"w": jnp.ones(2)}, "a": (1, {"c": None})})
    loaded = round_trip({"params": state})
    assert_same({"params": state}, loaded)
    assert hash(round_trip(flax.core.freeze({}))) == hash(flax.core.freeze({}))
    with pytest.raises(ValueError, match="immutable"):
        loaded["params"]["b"] = 1


def apply(variables, x):
    return x @ variables["dense/kernel"]


def test_flax_train_state_goes_on_as_if_never_saved():
    state = flax.training.train_state.TrainState.create(
        apply_fn=apply, params=params(), tx=optax.adam(0.1)
    )
    loaded = round_trip(state, own=True)
    assert type(loaded) is type(state)
    assert_same_values(state, loaded)
    grads = jax.tree_util.tree_map(jnp.ones_like, state.params)
    expected, actual = (s.apply_gradients(grads=grads) for s in (state, loaded))
    assert_same_values(expected, actual)
    x = jnp.ones((1, 2))
    assert_same_values(apply(state.params, x), loaded.apply_fn(loaded.params, x))


# chex


@chex.dataclass
class Transition:
    obs: Any
    reward: Any
    info: dict = dataclasses.field(default_factory=dict)


@chex.dataclass(frozen=True, mappable_dataclass=False)
class Bounds:
    low: Any
    high: Any


def test_chex_dataclasses_come_back_the_same():
    state = [
        Transition(obs=jnp.ones(3), reward=1.0, info={"a": np.ones(1)}),
        Bounds(low=-1, high=Transition(obs=1, reward=2)),
    ]
    loaded = round_trip(state)
    assert_same(state, loaded)
    assert loaded[0]["reward"] == 1.0
    leaves = jax.tree_util.tree_leaves(loaded)
    assert len(leaves) == len(jax.tree_util.tree_leaves(state))
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded[1].low = 0


# equinox


class Net(eqx.Module):
    linear: eqx.nn.Linear
    scale: jax.Array
    activation: Callable = eqx.field(static=True)
    sizes: tuple = eqx.field(static=True, default=(2, 3))

    def __call__(self, x):
        return self.activation(self.linear(x)) * self.scale


def function_of_our_own(x):
    return x * jnp.tanh(x)


@pytest.mark.parametrize(
    "activation", [jax.nn.relu, jax.nn.silu, jnp.tanh, function_of_our_own]
)
def test_equinox_module_keeps_its_static_activation(activation):
    net = Net(eqx.nn.Linear(2, 3, key=jax.random.key(0)), jnp.ones(()), activation)
    loaded = round_trip(net, own=True)
    assert type(loaded) is Net
    assert loaded.activation is activation
    assert loaded.sizes == (2, 3)
    one, other = jax.tree_util.tree_structure(net), jax.tree_util.tree_structure(loaded)
    assert one == other
    np.testing.assert_array_equal(net(jnp.ones(2)), loaded(jnp.ones(2)))


def test_equinox_module_takes_a_foreign_function_from_the_current_state():
    net = Net(eqx.nn.Linear(2, 3, key=jax.random.key(0)), jnp.ones(()), jnp.tanh)
    current = jax.tree_util.tree_map(lambda x: x * 0, net)
    loaded = round_trip(net, into=current)
    assert loaded.activation is jnp.tanh
    np.testing.assert_array_equal(net(jnp.ones(2)), loaded(jnp.ones(2)))


def test_equinox_module_with_a_lambda_computes_the_same():
    factor = 3.0
    net = Net(
        eqx.nn.Linear(2, 3, key=jax.random.key(0)), jnp.ones(()), lambda x: x * factor
    )
    loaded = round_trip(net, own=True)
    np.testing.assert_array_equal(net(jnp.ones(2)), loaded(jnp.ones(2)))


@pytest.mark.parametrize(
    "make",
    [
        lambda key: eqx.nn.MLP(2, 3, 4, 2, key=key),
        lambda key: eqx.nn.MLP(2, 3, 4, 1, jax.nn.gelu, key=key),
        lambda key: eqx.nn.Sequential(
            [eqx.nn.Linear(2, 3, key=key), eqx.nn.LayerNorm(3)]
        ),
        lambda key: eqx.nn.Sequential(
            [eqx.nn.Linear(2, 3, key=key), eqx.nn.Identity()]
        ),
    ],
    ids=["mlp", "gelu", "norm", "identity"],
)
def test_equinox_network_computes_the_same(make):
    net = make(jax.random.key(0))
    loaded = round_trip({"net": net}, own=True)["net"]
    assert type(loaded) is type(net)
    np.testing.assert_array_equal(net(jnp.ones(2)), loaded(jnp.ones(2)))


def test_equinox_modules_arrays_alone_need_no_pickle():
    net = eqx.nn.MLP(2, 3, 4, 2, key=jax.random.key(0))
    arrays, static = eqx.partition(net, eqx.is_array)
    leaves = jax.tree_util.tree_leaves(arrays)
    loaded = round_trip(leaves)
    treedef = jax.tree_util.tree_structure(arrays)
    rebuilt = eqx.combine(jax.tree_util.tree_unflatten(treedef, loaded), static)
    np.testing.assert_array_equal(net(jnp.ones(2)), rebuilt(jnp.ones(2)))


# Other things that states hold


def test_jax_partial_and_jitted_functions_compute_the_same():
    state = {
        "partial": functools.partial(jnp.add, 1),
        "tree": jax.tree_util.Partial(function_of_our_own),
        "jitted": jnp.sin,
    }
    loaded = round_trip(state, own=True)
    for name in state:
        np.testing.assert_array_equal(state[name](2.0), loaded[name](2.0))


def test_arrays_in_object_go_out_of_band_and_come_back_as_jax_arrays():
    class Holder:
        pass

    holder = Holder()
    holder.array = jnp.arange(7, dtype=jnp.bfloat16)
    holder.key = jax.random.key(0)
    holder.weak = jnp.asarray(1.0)
    loaded = round_trip({"holder": holder, "array": holder.array}, own=True)
    assert_same(vars(holder), vars(loaded["holder"]))
    assert loaded["array"] is loaded["holder"].array


def test_generator_of_jax_shards_streams():
    class Stream(Box):
        def save(self):
            for i in range(3):
                yield {"x": jnp.full(4, i), "key": jax.random.key(i)}

        def load(self, data):
            self.state = list(data)

    with tempfile.TemporaryDirectory() as directory:
        cp = Checkpoint(directory, fsync=False)
        cp.stream = Stream()
        cp.save()
        cp.load()
        assert_same(list(Stream().save()), cp.stream.state)


DONATING = """
import sys, threading
import jax
import jax.numpy as jnp
import numpy as np
import elementsckpt
from elementsckpt.storage import disk

grow = jax.jit(
    lambda tree: jax.lax.scan(
        lambda carry, _: (jax.tree.map(lambda x: x + 1, carry), None), tree, length=3
    )[0],
    donate_argnums=0,
)
syscall, is_released = disk.syscall, threading.Event()

def late(call, *args):
    if threading.current_thread() is not threading.main_thread():
        assert is_released.wait(60)
    return syscall(call, *args)

disk.syscall = late
cp = elementsckpt.Checkpoint(sys.argv[1], background=True, fsync=False)
tree = {"large": jnp.zeros((300, 1000)), "small": jnp.zeros(9, jnp.int32)}
cp.agent = elementsckpt.Value(grow(tree))
cp.save()
donated = cp.agent.value
cp.agent.value = jax.block_until_ready(grow(donated))
is_released.set()
cp.wait()
cp.load()
again = grow(cp.agent.value)
others = [np.full(x.shape, 9, x.dtype) for x in donated.values() for _ in range(99)]
saved = elementsckpt.read(cp.saves()[-1].path)["agent"]
print(*(float(x.min()) for x in [*saved.values(), *again.values()]))
print(*(float(x.max()) for x in [*saved.values(), *again.values()]))
"""


SHARDED = """
import sys
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import elementsckpt

grow = jax.jit(lambda tree: jax.tree.map(lambda x: x + 3, tree), donate_argnums=0)
rows = NamedSharding(Mesh(np.array(jax.devices()), "x"), PartitionSpec("x"))
sizes = 3, 7, 31, 301, 3003, 30_003
tree = {n: jax.device_put(jnp.zeros((4, n)), rows) for n in sizes}
elementsckpt.save_pytree(sys.argv[1], tree, fsync=False)
grown = jax.block_until_ready(grow(elementsckpt.load_pytree(sys.argv[1], tree)))
others = [np.full(x.shape, 9.0) for x in tree.values() for _ in range(99)]
print(len(jax.devices()), *{float(y) for x in grown.values() for y in np.unique(x)})
"""


def printed_twice(script, folder, **variables):
    """Run a script in a process that compiles, and in one that finds it compiled."""
    variables |= {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    with Forks(folder, "jax.numpy", "elementsckpt.engine", **variables) as forks:
        done = [forks.run(script, folder / x) for x in ("compiles", "has it")]
    assert [x.returncode for x in done] == [0, 0], done
    assert any((folder / "compiled").iterdir())
    return [x.stdout.split() for x in done]


def test_donation_to_what_was_compiled_before_changes_neither_save_nor_what_loads(
    tmp_path,
):
    words = ["3.0", "3.0", "6.0", "6.0"] * 2
    assert printed_twice(DONATING, tmp_path) == [words] * 2


def test_no_shard_of_what_loads_is_in_memory_that_jax_does_not_keep(tmp_path):
    flags = "--xla_force_host_platform_device_count=4"
    assert printed_twice(SHARDED, tmp_path, XLA_FLAGS=flags) == [["4", "3.0"]] * 2

"""What a `Value` was made with: numbers without a type, keys, and what is told of."""

import functools
import gc
import logging
import typing
import weakref

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from jax.experimental import io_callback

import elementsckpt
from elementsckpt import Checkpoint, MismatchError, Value
from elementsckpt.testing import check_resume

from support.boxes import Box
from support.strategies import assert_same


class State(typing.NamedTuple):
    params: typing.Any
    ret: typing.Any


@pytest.fixture
def told(caplog):
    """Return a function that returns the warnings about forms so far."""
    caplog.set_level(logging.WARNING, "elementsckpt")
    return lambda: [x for x in caplog.messages if "in another form" in x]


def assert_like(expected, found):
    """Fail unless two dicts hold the same, in whatever order."""
    assert_same(dict(sorted(expected.items())), dict(sorted(found.items())))


def opened(directory, value, **options):
    cp = Checkpoint(directory, **options)
    cp.state = Value(value)
    return cp


# Numbers without a type of their own


def weak_state():
    """Return a state as programs make it, with integers that will be sums of floats."""
    return {
        "ret": jax.jit(lambda: 0)(),
        "rets": jax.jit(lambda: jnp.full((3,), 0))(),
        "count": 0,
        "strong": jnp.zeros((), jnp.int32),
    }


@jax.jit
def chunk(state):
    def body(state, _):
        ret, rets = state["ret"] + 0.5, state["rets"] + 1.5
        more = {"ret": ret, "rets": rets, "count": state["count"] + 0.25}
        return {**state, **more, "strong": state["strong"] + 1}, None

    return jax.lax.scan(body, state, None, 5)[0]


@pytest.mark.parametrize("abstract", [False, True])
def test_a_scan_that_promotes_resumes(tmp_path, told, abstract):
    cp = opened(tmp_path, weak_state())
    cp.load_or_save()
    cp.state.value = chunk(cp.state.value)
    assert cp.state.value["ret"].dtype == jnp.float32
    cp.save()
    template = jax.eval_shape(weak_state) if abstract else weak_state()
    resumed = opened(tmp_path, template)
    assert resumed.load_or_save()
    assert_like(cp.state.value, resumed.state.value)
    assert_same(chunk(cp.state.value), chunk(resumed.state.value))
    resumed.save()
    assert told() == []


# A template, what was saved in its place, and what else comes back than just that.
TAKEN = {
    "an array": (0, jnp.int32(5)),
    "an array for a float": (0.0, jnp.int32(5)),
    "a weak array": (0, jnp.asarray(5)),
    "an array that is no int": (0, jnp.float32(1)),
    "an array of another library's types": (0, jnp.bfloat16(2)),
    "an array of NumPy": (0, np.array(3, np.int32)),
    "a scalar of NumPy": (0.0, np.float32(3)),
    "an array of a bool": (False, jnp.array(True)),
    "a scalar of a bool": (False, np.bool_(True)),
    "an int for a float": (0.0, 3),
    "a float for an int": (0, 3.0),
    "a number for a weak array": (jnp.asarray(0.0), 0.1),
    "a large number for a weak array": (jnp.asarray(0), 1 << 40),
    "a number for an abstract one": (jax.eval_shape(lambda: 0), 5),
}


def assert_one(expected, found):
    """Fail unless two leaves are one number in one type, of one library."""
    assert type(expected) is type(found)
    for name in ("dtype", "weak_type"):
        assert getattr(expected, name, None) == getattr(found, name, None)
    assert_same(expected, found)


@pytest.mark.parametrize("kind", TAKEN)
def test_a_leaf_without_a_type_takes_what_was_saved_as_it_was(tmp_path, told, kind):
    template, saved = TAKEN[kind]
    cp = opened(tmp_path, {"a": template})
    cp.state.value = {"a": saved}
    cp.save()
    assert told() == []
    for options in ({}, {"regex": "a"}, {"cast": True}):
        cp.state.value = {"a": template}
        cp.load(**options)
        assert_one(saved, cp.state.value["a"])
    value = Value({"a": template})
    value.load({"a": saved})
    assert_one(saved, value.value["a"])


@pytest.mark.parametrize("template", [jnp.int32(0), np.int32(0), np.zeros((), "i4")])
def test_a_leaf_with_a_type_keeps_it(tmp_path, template):
    opened(tmp_path, {"a": 5}).save()
    cp = opened(tmp_path, {"a": template})
    cp.load()
    found = cp.state.value["a"]
    assert (type(found), found.dtype, int(found)) == (type(template), np.int32, 5)


def test_what_jax_would_narrow_stays_a_number_that_is_exact(tmp_path):
    jax.config.update("jax_enable_x64", True)
    try:
        opened(tmp_path, {"n": jnp.int64(1 << 40), "x": jnp.float64(0.1)}).save()
    finally:
        jax.config.update("jax_enable_x64", False)
    cp = opened(tmp_path, {"n": 0, "x": 0.0})
    cp.load()
    assert_same({"n": 1 << 40, "x": 0.1}, cp.state.value)


@pytest.mark.parametrize("kind", ["flax", "numbers"])
def test_a_compiled_training_that_began_with_numbers_resumes_exactly(kind):
    def made():
        if kind == "numbers":
            return {"step": 0.0, "count": 0, "done": False, "best": jnp.asarray(0.0)}
        net = nn.Dense(3)
        params = net.init(jax.random.key(0), jnp.ones((1, 2)))
        return TrainState.create(apply_fn=net.apply, params=params, tx=optax.adam(0.1))

    @jax.jit
    def train(state):
        if kind == "flax":
            return state.apply_gradients(grads=state.params)
        steps = {"step": state["step"] + 1, "count": state["count"] + 1}
        return {**state, **steps, "done": ~jnp.asarray(state["done"])}

    def make():
        cp = Checkpoint()
        cp.state = Value(made())
        return cp

    def step(cp):
        cp.state.value = train(cp.state.value)
        if kind == "numbers":  # As for a log: a number where an array was.
            cp.state.value["best"] = float(cp.state.value["step"]) / 10

    check_resume(make, step, steps=1)


def test_a_run_with_weak_types_resumes_as_if_it_had_not_stopped():
    def make():
        cp = Checkpoint()
        cp.state = Value({"ret": jnp.asarray(0.0), "sum": jnp.float32(0)})
        return cp

    def step(cp):
        ret = cp.state.value["ret"] + jnp.float32(0.1)
        # In which of the two types this is computed depends on the weak type.
        product = cp.state.value["ret"] * jnp.bfloat16(0.3)
        total = cp.state.value["sum"] + product.astype(jnp.float32)
        cp.state.value = {"ret": ret, "sum": total}

    check_resume(make, step, steps=2)


def test_strong_types_are_refused_as_ever(tmp_path):
    opened(tmp_path, {"ret": jnp.float32(1), "n": np.int64(1)}).save()
    cp = opened(tmp_path, {"ret": jnp.int32(1), "n": np.int32(1)})
    with pytest.raises(MismatchError, match="differ in 2 leaves") as error:
        cp.load()
    assert "state/ret: saved float32[], expected int32[]" in str(error.value)


# What is told of at the save


BEFORE = {"ret": jnp.zeros(()), "n": 1, "w": np.ones(3), "name": "a", "none": None}
CHANGES = {
    "shape": ({"ret": jnp.zeros(3)}, "state/ret: saved float32[3], expected float32[]"),
    "dtype": ({"w": np.ones(3, int)}, "state/w: saved int64[3], expected float64[3]"),
    "strong to weak": (
        {"ret": jnp.asarray(0)},
        "state/ret: saved int32[], expected float32[]",
    ),
    "a leaf more": ({"new": 1}, "state/new: only in the save"),
    "a container": ({"n": {"a": 1}}, "state/n: not in the save; state/n/a: only in"),
    "a kind": ({"n": "a"}, "state/n: saved str, expected int"),
    "a value": ({"none": 1}, "state/none: saved int, expected NoneType"),
    "a number that is lost": ({"ret": 0.1}, "state/ret: saved 0.1, expected float32[]"),
    "keys": ({"ret": jax.random.key(0)}, "state/ret: saved key<threefry2x32>[], expec"),
}


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("first", [True, False])
def test_the_first_save_in_another_form_is_told_of_once(tmp_path, told, kind, first):
    change, expected = CHANGES[kind]
    cp = opened(tmp_path, BEFORE)
    if not first:
        cp.load_or_save()
        cp.save()
        assert told() == []
    cp.state.value = BEFORE | change
    cp.save()
    (message,) = told()
    assert expected in message
    assert message.startswith("'state' is saved in another form than its Value was")
    cp.save()
    cp.state.value = {"another": 1}
    cp.save()
    assert len(told()) == 1
    with pytest.raises(MismatchError):  # As it said.
        opened(tmp_path, BEFORE).load()


SAME = {
    "the same": {},
    "other values": {"ret": jnp.ones(()), "n": 2, "w": np.zeros(3), "name": "b"},
    "a weak one": {"ret": jnp.asarray(0.5)},
    "a number that fits": {"ret": 0.5},
    "NumPy's": {"ret": np.float32(0.5), "w": np.ones(3)},
    "another order": dict(reversed(BEFORE.items())),
    "a number of another type": {"n": 0.5},
    "an array for a number": {"n": jnp.float32(0.5)},
    "long text": {"name": "a" * 5000},
}


@pytest.mark.parametrize("kind", SAME)
def test_what_fits_is_not_told_of(tmp_path, told, kind):
    cp = opened(tmp_path, BEFORE)
    cp.state.value = BEFORE | SAME[kind]
    cp.save()
    cp.save()
    assert told() == []
    opened(tmp_path, BEFORE).load()


def test_a_change_is_told_of_whenever_it_comes(tmp_path, told):
    cp = opened(tmp_path, BEFORE, background=True)
    for value in (1, 2.5, jnp.float32(3)):
        cp.state.value = BEFORE | {"n": value}
        cp.save()
    assert told() == []
    cp.state.value = BEFORE | {"n": np.ones(2)}
    cp.save()
    cp.close()
    assert len(told()) == 1


def test_many_differences_are_counted(tmp_path, told):
    cp = opened(tmp_path, {"a": 1})
    cp.state.value = [1, 2, 3, 4, 5]
    cp.save()
    (message,) = told()
    assert "state/a: not in the save; state/0: only in the save" in message
    assert "; and 3 more." in message


def test_a_value_in_place_of_a_tree_is_told_of(tmp_path, told):
    cp = opened(tmp_path, State({"w": np.ones(2)}, 0))
    cp.state.value.params["w"] = np.ones(3)  # Nobody sets the value.
    cp.save()
    assert "state/params/w: saved float64[3], expected float64[2]" in told()[0]


def test_without_a_template_nothing_is_told_of(tmp_path, told):
    cp = Checkpoint(tmp_path)
    cp.state = Value()
    for value in (1, {"a": np.ones(2)}, State(1, 2)):
        cp.state.value = value
        cp.save()
    elementsckpt.save_pytree(tmp_path / "tree", value)
    assert told() == []


def test_the_state_of_a_module_is_a_value_too(tmp_path, told):
    class Net(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(jnp.ones(2))

    cp = Checkpoint(tmp_path)
    cp.net = Net()
    cp.save()
    assert told() == []
    cp.net.w = nnx.Param(jnp.ones(3))
    cp.save()
    assert "net/w: saved float32[3], expected float32[2]" in told()[0]


def test_a_value_keeps_no_array_of_those_it_held():
    arrays = [jnp.ones(10), jnp.full(10, 1.0), jnp.zeros(10), np.ones(10)]
    names = ["w", "weak", "bound", "numpy"]
    tree = dict(zip(names, arrays, strict=True))
    tree["bound"] = functools.partial(jnp.add, tree["bound"])
    value = Value(tree)
    elementsckpt.checkpoint.save("anywhere", {"a": value.save}, write=False)
    references = list(map(weakref.ref, arrays))
    value.value = None
    del arrays, tree
    gc.collect()
    assert [reference() for reference in references] == [None] * 4


# Keys


def keyed_state():
    return {
        "key": jax.random.key(3),
        "keys": jax.random.split(jax.random.key(4), 3),
        "rbg": jax.random.key(5, impl="rbg"),
        "legacy": jax.random.PRNGKey(6),
        "counts": jnp.zeros(2, jnp.uint32),
    }


def data_of(state):
    """Return a state as `io_callback` hands it over."""
    return jax.tree_util.tree_map(
        lambda x: (
            jax.random.key_data(x)
            if jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
            else x
        ),
        state,
    )


@pytest.mark.parametrize("library", ["jax", "numpy"])
@pytest.mark.parametrize("abstract", [False, True])
def test_data_of_keys_is_saved_as_keys(tmp_path, told, library, abstract):
    state = keyed_state()
    cp = opened(tmp_path, jax.eval_shape(keyed_state) if abstract else state)
    data = data_of(state)
    cp.state.value = jax.device_get(data) if library == "numpy" else data
    cp.save()
    assert told() == []
    resumed = opened(tmp_path, data_of(state))
    with pytest.raises(MismatchError, match="differ in 3 leaves"):
        resumed.load()
    resumed = opened(tmp_path, keyed_state())
    resumed.load()
    assert_same(state, resumed.state.value)
    box = Checkpoint(tmp_path)
    box.state = Box()
    box.load()
    numbers = {"counts": np.zeros(2, np.uint32)} if library == "numpy" else {}
    legacy = {"legacy": np.asarray(state["legacy"])} if library == "numpy" else {}
    assert_like(state | numbers | legacy, box.state.state)


def test_keys_load_into_data_where_there_were_keys(tmp_path):
    cp = opened(tmp_path, keyed_state())
    cp.save()
    for data in (data_of(keyed_state()), jax.device_get(data_of(keyed_state()))):
        cp.state.value = jax.tree_util.tree_map(lambda x: 0 * x, data)
        cp.load()
        assert_same(data, cp.state.value)


def test_data_of_keys_may_be_written_to_while_it_is_saved(tmp_path):
    cp = opened(tmp_path, {"key": jax.random.key(1)}, background=True)
    cp.state.value = {"key": np.array(jax.random.key_data(jax.random.key(2)))}
    cp.save()
    cp.state.value["key"][:] = 9
    cp.close()
    resumed = opened(tmp_path, {"key": jax.random.key(0)})
    resumed.load()
    assert_same({"key": jax.random.key(2)}, resumed.state.value)


def test_what_is_no_data_of_the_keys_stays_what_it_is(tmp_path, told):
    cp = opened(tmp_path, {"key": jax.random.key(0)})
    cp.state.value = {"key": np.zeros(4, np.uint32)}
    cp.save()
    assert "state/key: saved uint32[4], expected key<threefry2x32>[]" in told()[0]


def test_a_whole_training_that_is_compiled_saves_by_itself(tmp_path, told):
    """Seeds side by side, each with a key of its own, saved within the computation."""

    def make():
        keys = jax.random.split(jax.random.key(0), 2)
        return {"key": keys, "w": jnp.zeros(2), "ret": jnp.zeros(2)}

    def step(state):
        keys, noise = jax.vmap(jax.random.split, out_axes=1)(state["key"]), None
        noise = jax.vmap(jax.random.normal)(keys[1])
        return {"key": keys[0], "w": state["w"] + noise, "ret": state["ret"] + 0.5}

    def host(state):
        cp.state.value = state
        cp.save()

    @jax.jit
    def train(state):
        def body(state, _):
            state = step(state)
            io_callback(host, None, state, ordered=True)
            return state, None

        return jax.lax.scan(body, state, None, 3)[0]

    cp = opened(tmp_path, make(), keep=None)
    expected = train(make())
    jax.effects_barrier()
    assert len(cp.saves()) == 3
    resumed = opened(tmp_path, jax.eval_shape(make))
    resumed.load(cp.saves()[1].path)
    assert_same(expected, jax.jit(step)(resumed.state.value))
    assert told() == []


LEGACY = {
    "threefry2x32": lambda: jax.random.PRNGKey(7),
    "rbg": lambda: jax.random.PRNGKey(7, impl="rbg"),
}


@pytest.mark.parametrize("name", LEGACY)
def test_legacy_keys_and_typed_ones_are_cast(tmp_path, name):
    legacy, typed = LEGACY[name](), jax.random.key(7, impl=name)
    opened(tmp_path / "legacy", {"key": legacy, "n": 1}).save()
    opened(tmp_path / "typed", {"key": typed, "n": 1}).save()
    for path, value, other in (
        (tmp_path / "legacy", jax.random.key(0, impl=name), typed),
        (tmp_path / "typed", jnp.zeros_like(legacy), legacy),
        (tmp_path / "typed", np.zeros(legacy.shape, np.uint32), np.asarray(legacy)),
    ):
        cp = opened(path, {"key": value, "n": 0})
        with pytest.raises(MismatchError, match="state/key: saved"):
            cp.load()
        with pytest.raises(MismatchError, match="with cast=True"):
            cp.load(regex="key")
        cp.load(cast=True)
        assert_same({"key": other, "n": 1}, cp.state.value)


def test_only_data_of_the_right_size_is_cast(tmp_path):
    opened(tmp_path, [jax.random.PRNGKey(0), np.zeros(2, np.int32)]).save()
    cp = opened(tmp_path, [jax.random.key(0, impl="rbg"), jax.random.key(0)])
    with pytest.raises(MismatchError, match="differ in 2 leaves"):
        cp.load(cast=True)


def test_a_run_that_holds_data_of_keys_resumes_as_if_it_had_not_stopped():
    def make():
        cp = Checkpoint()
        cp.state = Value({"key": jax.random.key(3)})
        return cp

    def step(cp):
        key = cp.state.value["key"]
        if key.dtype == jnp.uint32:
            key = jax.random.wrap_key_data(key)
        cp.state.value = {"key": jax.random.key_data(jax.random.split(key)[0])}

    check_resume(make, step, steps=2)

"""Arrays to which code in a `Value` is bound: saved, refused by name or told of."""

import dataclasses
import functools
import logging
import types

import equinox as eqx
import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from boxes import Box
from strategies import assert_same

import elementsckpt
from elementsckpt import Checkpoint, MismatchError, StateError, Value, save_pytree


def scaled(*args, **options):
    """Return what it was bound to."""
    return args, options


class Module(nn.Module):
    scale: object
    inner: object = None

    def __call__(self, x):
        return self.scale * x


@flax.struct.dataclass
class Struct:
    w: object

    def act(self):
        return self.w


class Layer(eqx.Module):
    w: jax.Array

    def act(self, x):
        return x * self.w


class Partial(functools.partial):
    """Has an attribute, too."""


def partial_with_attribute(value):
    made = Partial(scaled, np.full(2, value))
    made.note = "mine"
    return made


def w(value):
    return np.full(2, value)


# Makes code of a number; what of it is saved; and what it returns.
CODE = {
    "positional": (lambda x: functools.partial(scaled, w(x)), ["0"]),
    "by keyword": (lambda x: functools.partial(scaled, 1, scale=w(x)), ["scale"]),
    "nested": (
        lambda x: functools.partial(scaled, {"a": [w(x), 5], "b": "text"}, "text"),
        ["0/a/0", "0/a/1", "0/b"],
    ),
    "of jax": (lambda x: functools.partial(scaled, jnp.full(2, x)), ["0"]),
    "partial of a partial": (
        lambda x: functools.partial(scaled, functools.partial(scaled, w(x))),
        ["0/0"],
    ),
    "a subclass": (partial_with_attribute, ["0"]),
    "of a jitted one": (
        lambda x: functools.partial(jax.jit(lambda y: y + 1), w(x)),
        ["0"],
    ),
    "a method of a tree": (lambda x: Struct(w(x)).act, ["w"]),
    "a method of an array": (lambda x: w(x).tolist, [""]),
    "a method of a jax array": (lambda x: jnp.full(2, x).tolist, [""]),
    "a partial of a method": (
        lambda x: functools.partial(Struct(w(x)).act),
        ["func/w"],
    ),
    "a method of a container": (lambda x: [w(x)].copy, ["0"]),
    "a Linen module": (lambda x: functools.partial(Module(w(x)), 1), ["func/scale"]),
    "its method": (
        lambda x: functools.partial(Module(w(x)).apply, {}, 1),
        ["func/scale"],
    ),
    "a partial of JAX": (
        lambda x: jax.tree_util.Partial(jnp.multiply, w(x), jnp.ones(2)),
        ["0/0", "0/1"],
    ),
    "a method of Equinox": (
        lambda x: functools.partial(Layer(jnp.full(2, x)).act, jnp.ones(2)),
        ["0", "func/__self__/w"],
    ),
}


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.WARNING, "elementsckpt")
    return lambda: [x for x in caplog.messages if "elementsckpt" not in x]


def opened(directory, value):
    cp = Checkpoint(directory)
    cp.state = Value(value)
    return cp


@pytest.mark.parametrize("kind", CODE)
def test_arrays_to_which_code_is_bound_are_saved(tmp_path, told, kind):
    make, names = CODE[kind]
    opened(tmp_path, {"f": make(3.0)}).save()
    template = {"f": make(0.0)}
    cp = opened(tmp_path, template)
    report = cp.load()
    assert sorted(report.loaded) == [f"state/f/{x}".rstrip("/") for x in sorted(names)]
    found = cp.state.value["f"]
    assert type(found) is type(make(0.0))
    assert_same(plain(make(3.0)()), plain(found()))
    assert_same(plain(make(0.0)()), plain(template["f"]()))
    assert getattr(found, "note", "mine") == "mine"
    assert told() == []


def plain(value):
    """Return what code returned, with what nested code returns."""
    if isinstance(value, functools.partial):
        return plain(value())
    if isinstance(value, list | tuple):
        return [plain(x) for x in value]
    if isinstance(value, dict):
        return {key: plain(x) for key, x in value.items()}
    return value


def test_modules_with_arrays_among_their_attributes_are_saved(tmp_path):
    opened(tmp_path, [Module(w(3.0), Module(w(5.0)))]).save()
    cp = opened(tmp_path, [Module(w(0.0), Module(w(0.0)))])
    cp.load()
    (module,) = cp.state.value
    assert_same([w(3.0), w(5.0)], [module.scale, module.inner.scale])


WITHOUT = {
    "a function": scaled,
    "a partial": functools.partial(scaled, 1, scale=2.5),
    "a partial of containers": functools.partial(scaled, [1, "a"], {"b": None}),
    "a module": nn.Dense(3),
    "a method": nn.Dense(3).apply,
    "a method of text": "abc".upper,
    "an optimizer": optax.adam(optax.linear_schedule(0.1, 0, 10)),
    "a class": Struct,
}


@pytest.mark.parametrize("kind", WITHOUT)
def test_code_without_arrays_is_not_saved(tmp_path, told, kind):
    opened(tmp_path, {"f": WITHOUT[kind], "w": w(1.0)}).save()
    cp = opened(tmp_path, {"f": WITHOUT[kind], "w": w(0.0)})
    assert cp.load().loaded == ("state/w",)
    assert cp.state.value["f"] == WITHOUT[kind]
    assert told() == []


def bound():
    module = nn.Dense(2)
    return module.bind(module.init(jax.random.key(0), jnp.ones((1, 2))))


REFUSED = {
    "a module": (lambda: bound(), "net"),
    "its method": (lambda: bound().__call__, "net"),
    "a partial": (lambda: functools.partial(scaled, 1, bound()), "net/1"),
    "one in a module": (lambda: [Module(w(1.0), bound())], "net/0/inner"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_bound_modules_are_refused_by_name(tmp_path, kind):
    make, name = REFUSED[kind]
    with pytest.raises(StateError, match="is a module of Flax that is bound") as error:
        opened(tmp_path, {"net": make()}).save()
    assert str(error.value).startswith(f"{name} is a module")
    assert not elementsckpt.exists(tmp_path)
    with pytest.raises(StateError):
        save_pytree(tmp_path / "tree", {"net": make()})


class Agent:
    def __init__(self, value):
        self.w, self.steps = {"enc": w(value)}, 5

    def act(self, x):
        return self.w["enc"] * x


def closing_over(value):
    array, number = w(value), 5
    return lambda x: array * x + number


def with_default(value):
    array = w(value)

    def function(x, scale=(array, 1)):
        return x * scale[0]

    return function


HIDDEN = {
    "a closure": (closing_over, "'array', which it closes over"),
    "a jitted closure": (
        lambda x: jax.jit(closing_over(x)),
        "'array', which it closes over",
    ),
    "a partial of one": (
        lambda x: functools.partial(closing_over(x), 1),
        "'array', which it closes over",
    ),
    "a default": (with_default, "a default of its arguments"),
    "a method of an object": (
        lambda x: Agent(x).act,
        "the attribute 'w' of a Agent",
    ),
    "a jitted partial": (
        lambda x: jax.jit(functools.partial(scaled, w(x))),
        "an argument of a functools.partial",
    ),
    "a static partial": (
        lambda x: jax.tree_util.Partial(functools.partial(scaled, w(x)), 1.5),
        "the attribute 'args' of a",
    ),
}


@pytest.mark.parametrize("kind", HIDDEN)
def test_arrays_that_are_hidden_in_code_are_told_of_once(tmp_path, told, kind):
    make, where = HIDDEN[kind]
    cp = opened(tmp_path, {"w": w(1.0), "f": make(3.0)})
    for _ in range(3):
        cp.save()
        cp.state.value = {"w": w(2.0), "f": make(4.0)}
    (message,) = told()
    assert message.startswith("state/f is code that holds arrays, in ")
    assert where in message
    assert "number" not in message
    assert "steps" not in message
    cp.load()


def test_without_jax_code_is_bound_to_arrays_too(tmp_path):
    cp = opened(tmp_path, functools.partial(types.SimpleNamespace, w=w(1.0)))
    cp.save()
    cp.state.value = functools.partial(types.SimpleNamespace, w=w(0.0))
    cp.load()
    assert_same(w(1.0), cp.state.value().w)


def test_abstract_arrays_to_which_code_is_bound_are_filled(tmp_path):
    template = functools.partial(scaled, jax.ShapeDtypeStruct((2,), np.float64))
    with pytest.raises(StateError, match="0 is ShapeDtypeStruct"):
        opened(tmp_path, template).save()
    opened(tmp_path, functools.partial(scaled, np.ones(2, np.float32))).save()
    template = functools.partial(scaled, jax.ShapeDtypeStruct((2,), np.float32))
    cp = opened(tmp_path, template)
    cp.load()
    assert_same(jnp.ones(2), cp.state.value.args[0])


def test_arrays_of_code_that_do_not_fit_are_named(tmp_path):
    opened(tmp_path, {"f": functools.partial(scaled, w(1.0))}).save()
    cp = opened(tmp_path, {"f": functools.partial(scaled, np.ones(3))})
    with pytest.raises(MismatchError, match=r"state/f/0: saved float64\[2\]"):
        cp.load()
    cp = opened(tmp_path, {"f": scaled})
    with pytest.raises(MismatchError, match=r"state/f/0: only in the save"):
        cp.load()


def test_saves_without_the_arrays_of_code_load(tmp_path, caplog):
    cp = Checkpoint(tmp_path)
    cp.state = Box({"f": {}, "w": w(1.0)})  # What earlier versions saved.
    cp.save()
    template = {"f": functools.partial(scaled, w(5.0)), "w": w(0.0)}
    cp = opened(tmp_path, template)
    assert cp.load().loaded == ("state/w",)
    assert_same(w(1.0), cp.state.value["w"])
    assert cp.state.value["f"] is template["f"]
    assert f"state/f/0 is not in {cp.latest()}: it stays what the code" in caplog.text


@dataclasses.dataclass
class Policy:
    w: object
    act: object = None

    def forward(self, x):
        return self.w * x


def test_an_object_may_hold_its_own_method(tmp_path):
    policy = Policy(w(1.0))
    policy.act = functools.partial(policy.forward, 1)
    opened(tmp_path / "policy", policy).save()
    assert "w" in elementsckpt.read(tmp_path / "policy")["state"]
    agent = Agent(1.0)
    agent.act = agent.act
    opened(tmp_path, {"f": agent.act, "w": w(1.0)}).save()
    assert_same(
        {"f": {}, "w": w(1.0)}, elementsckpt.read(tmp_path, mmap=False)["state"]
    )

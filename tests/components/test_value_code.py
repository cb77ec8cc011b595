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
from flax import nnx
from flax.training.train_state import TrainState

import elementsckpt
from elementsckpt import Checkpoint, MismatchError, StateError, Value, save_pytree

from support.boxes import Box
from support.strategies import assert_same


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
    "its jitted method": (lambda: jax.jit(bound().__call__), "net"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_bound_modules_are_refused_by_name(tmp_path, kind):
    make, name = REFUSED[kind]
    with pytest.raises(StateError, match="is a module of Flax that is bound") as error:
        opened(tmp_path, {"net": make()}).save()
    assert str(error.value).startswith(f"Component 'state': {name} is a module")
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


HIDDEN |= {
    "a partial whose argument is a closure": (
        lambda x: functools.partial(scaled, closing_over(x)),
        "'array', which it closes over",
    ),
    "a module that has a closure": (
        lambda x: Module(1.5, closing_over(x)).apply,
        "'array', which it closes over",
    ),
    "a decorator": (lambda x: decorated(x), "'array', which it closes over"),
    "an attribute of a function": (
        lambda x: with_attribute(x),
        "the attribute 'table' of a function",
    ),
    "slots": (lambda x: Slotted(x).act, "the attribute 'w' of a Slotted"),
    "a closure over an object": (
        lambda x: (lambda agent: lambda: agent.w)(Agent(x)),
        "'agent', which it closes over",
    ),
    "a closure over a closure": (
        lambda x: (lambda inner: lambda: inner())(closing_over(x)),
        "'inner', which it closes over",
    ),
    "a partial whose argument is an object": (
        lambda x: functools.partial(Agent.act, Agent(x)),
        "an argument of a functools.partial",
    ),
    "one that is bound to an array, too": (
        lambda x: functools.partial(Agent.act, Agent(x), w(x)),
        "an argument of a functools.partial",
    ),
    "a closure over a bound module": (
        lambda x: (lambda module: lambda: module)(bound()),
        "'module', which it closes over",
    ),
}


def decorated(value):
    array = w(value)

    @functools.wraps(scaled)
    def function(*args):
        return scaled(array, *args)

    return function


def with_attribute(value):
    def function(x):
        return x

    function.table = w(value)
    return function


class Slotted:
    __slots__ = ("w",)

    def __init__(self, value):
        self.w = w(value)

    def act(self, x):
        return x


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
    assert "__wrapped__" not in message
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
    assert f"state/f/0 is not in {cp.latest()}: its current value, to" in caplog.text


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


# Static fields


class StaticLayer(eqx.Module):
    w: jax.Array
    f: object = eqx.field(static=True)


@flax.struct.dataclass
class StaticStruct:
    w: object
    f: object = flax.struct.field(pytree_node=False)


@dataclasses.dataclass
class StaticPlain:
    w: object
    f: object = dataclasses.field(metadata={"static": True})


@jax.tree_util.register_pytree_node_class
class Registered:
    def __init__(self, w, f):
        self.w, self.f = w, f

    def tree_flatten(self):
        return (self.w,), ("note", {"of": [self.f]})

    @classmethod
    def tree_unflatten(cls, static, children):
        return cls(*children, *static[1]["of"])


@jax.tree_util.register_static
class Static:
    def __init__(self, _, f):
        self.f = f


NET = nn.Dense(2)
PARAMS = {"params": {"kernel": np.ones((2, 2), "f4"), "bias": np.zeros(2, "f4")}}
PARAMS = jax.device_put(PARAMS)


def train_state(apply_fn=NET.apply, tx=None):
    return train_state_of(TrainState, apply_fn, tx)


def train_state_of(cls, apply_fn, tx, **others):
    tx = optax.adam(1e-3) if tx is None else tx
    return cls.create(apply_fn=apply_fn, params=PARAMS, tx=tx, **others)


HOLDERS = {
    "Flax": lambda f: StaticStruct(jnp.ones(2), f),
    "Equinox": lambda f: StaticLayer(jnp.ones(2), f),
    "a dataclass": lambda f: StaticPlain(jnp.ones(2), f),
    "a class of JAX": lambda f: Registered(jnp.ones(2), f),
    "a static class": lambda f: Static(None, f),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_arrays_in_static_fields_are_told_of_once(tmp_path, told, holder):
    make = functools.partial(functools.partial, scaled)
    cp = opened(tmp_path, [HOLDERS[holder](make(w(3.0)))])
    for _ in range(2):
        cp.save()
        cp.state.value = [HOLDERS[holder](make(w(4.0)))]
    (message,) = told()
    assert message.startswith("state/0/f is static and holds arrays, in an argument of")
    assert "neither saved nor loaded" in message
    cp.load()
    assert_same(w(4.0), cp.state.value[0].f()[0][0])


class Called(Agent):
    def __call__(self, x):
        return x

    @classmethod
    def circle(cls):
        found = cls(1.0)
        found.w = [found.act]
        return [found, found.act]


# What a static field holds besides, and how the message goes on.
STATIC = {
    name: (lambda f=make: f(3.0), where) for name, (make, where) in HIDDEN.items()
}
STATIC |= {
    "a partial of a method": (
        lambda: functools.partial(Module(w(3.0)).apply, {}),
        "the attribute 'scale' of a Module",
    ),
    "several": (lambda: (scaled, {"a": [closing_over(3.0)]}), "'array', which it"),
    "an object that is called": (lambda: Called(3.0), "the attribute 'w' of a Called"),
    "a module of Equinox": (lambda: Layer(jnp.ones(2)), " arrays: they are neither"),
    "a JAX array": (lambda: {"a": jnp.ones(2)}, " arrays: they are neither"),
    "a method of an array": (lambda: w(3.0).tolist, "the ndarray whose method it is"),
}


@pytest.mark.parametrize("kind", STATIC)
def test_arrays_in_whatever_is_static_are_told_of(tmp_path, told, kind):
    make, where = STATIC[kind]
    opened(tmp_path, train_state(make())).save()
    (message,) = told()
    assert message.startswith("state/apply_fn is static and holds arrays")
    assert where in message


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("holder", HOLDERS)
def test_bound_modules_in_static_fields_are_refused(tmp_path, holder, kind):
    make, _ = REFUSED[kind]
    with pytest.raises(StateError, match=r": x/f is a module of Flax that is bound to"):
        opened(tmp_path, {"x": HOLDERS[holder](make())}).save()
    assert not elementsckpt.exists(tmp_path)


class TargetState(TrainState):
    target: object
    count: int = flax.struct.field(pytree_node=False)


def inject():
    adam = optax.inject_hyperparams(optax.adam)
    return adam(learning_rate=jnp.float32(1e-3))


OPTIMIZERS = {
    "adam": lambda: optax.adam(1e-3),
    "of an array": lambda: optax.adam(jnp.float32(1e-3)),
    "scale": lambda: optax.scale(jnp.float32(1e-3)),
    "schedule": lambda: optax.adamw(optax.warmup_cosine_decay_schedule(0, 1, 2, 9)),
    "chain": lambda: optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.1, 0.9)),
    "inject_hyperparams": inject,
    "masked": lambda: optax.masked(optax.adam(1e-3), dict.fromkeys(PARAMS, True)),
    "MultiSteps": lambda: optax.MultiSteps(optax.adam(1e-3), 4),
}
SILENT = {
    name: (lambda f=make: train_state(tx=f())) for name, make in OPTIMIZERS.items()
}
SILENT |= {
    "a module with setup": lambda: train_state(Module(2.5, NET).apply),
    "jit": lambda: train_state(jax.jit(NET.apply)),
    "a partial": lambda: train_state(functools.partial(NET.apply, mutable=False)),
    "a lambda": lambda: train_state(lambda params, x: NET.apply(params, x)),
    "a target": lambda: train_state_of(TargetState, NET.apply, None, target=1, count=3),
    "constants of NumPy": lambda: StaticStruct(1, {"table": np.ones(3)}),
    "a mesh": lambda: StaticStruct(1, jax.sharding.Mesh(jax.devices(), ("x",))),
    "Equinox": lambda: eqx.nn.MLP(2, 2, 2, 1, key=jax.random.key(0)),
    "a method of Equinox": lambda: Layer(jnp.ones(2)).act,
    "NNX": lambda: nnx.split(nnx.Linear(2, 2, rngs=nnx.Rngs(0))),
    "frozen": lambda: flax.core.freeze({"a": {"b": jnp.ones(2)}}),
    "odd": lambda: StaticPlain(1, Odd()),
    "circles": lambda: StaticPlain(1, Called.circle()),
}


class Odd:
    """Cannot be asked for anything."""

    def __getattribute__(self, name):
        raise RuntimeError(name)

    def __call__(self):
        raise RuntimeError


@pytest.mark.parametrize("kind", SILENT)
def test_static_fields_without_arrays_are_not_told_of(tmp_path, told, kind):
    opened(tmp_path, {"x": SILENT[kind]()}).save()
    assert told() == []


def test_values_without_a_template_have_arrays_in_code_and_static_fields(
    tmp_path, told
):
    tree = {"s": StaticStruct(1, functools.partial(scaled, w(3.0))), "f": with_default}
    tree["g"] = closing_over(3.0)
    cp = Checkpoint(tmp_path / "run")
    cp.state = Value()
    cp.state.value = tree
    cp.save()
    assert told() == []
    cp = Checkpoint(tmp_path / "run")
    cp.state = Value()
    cp.load()
    assert_same(w(3.0), cp.state.value["s"].f()[0][0])
    assert_same(w(8.0), cp.state.value["g"](1.0))
    save_pytree(tmp_path / "tree", tree)
    assert [x.partition(" is ")[0] for x in told()] == ["tree/g", "tree/s/f"]


def test_what_cannot_be_pickled_is_told_of_without_a_template(tmp_path, told):
    cp = Checkpoint(tmp_path)
    cp.state = Value()
    cp.state.value = StaticStruct(1, functools.partial(scaled, np.ones(1 << 16)))
    cp.save()
    classes, arrays = told()
    assert (
        "they hold an array of 524,288 bytes, which is not a leaf. No Value()"
        in classes
    )
    assert arrays.startswith("state/f is static and holds arrays, in an argument of")

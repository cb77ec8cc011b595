"""`Value()` without a template takes what any `Value` saved, its classes, too."""

import base64
import collections
import copy
import dataclasses
import enum
import functools
import importlib
import json
import logging
import math
import pathlib
import pickle
import re
import sys
import threading
import typing

import chex
import equinox as eqx
import flax.core
import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState
from hypothesis import given
from hypothesis import strategies as st

import elementsckpt
from elementsckpt import Checkpoint, MismatchError, PickleError, Value
from elementsckpt.kinds import pickles

from support import strategies
from support.boxes import Box, Stream, python
from support.folders import forge
from support.forks import Forks
from support.strategies import PROPERTY, assert_same


class Pair(typing.NamedTuple):
    a: typing.Any
    b: typing.Any


@dataclasses.dataclass
class Config:
    """JAX does not know it."""

    w: typing.Any
    options: typing.Any = dataclasses.field(default=None, metadata={"static": True})


@flax.struct.dataclass
class Struct:
    w: typing.Any
    apply: typing.Any = flax.struct.field(pytree_node=False, default=None)


@chex.dataclass
class Transition:
    reward: typing.Any
    obs: typing.Any


@jax.tree_util.register_pytree_node_class
class Node:
    def __init__(self, parts, tag):
        self.parts, self.tag = parts, tag

    def tree_flatten(self):
        return self.parts, self.tag

    @classmethod
    def tree_unflatten(cls, tag, parts):
        return cls(tuple(parts), tag)


class Module(eqx.Module):
    w: jax.Array
    size: int = eqx.field(static=True)
    activation: typing.Any = jax.nn.gelu

    def act(self, x):
        return self.activation(x * self.w)


class Color(enum.Enum):
    RED = 1


def double(x):
    return 2 * x


def trees():
    """Return trees of many classes, and for each what of it is no leaf."""
    w = np.arange(3.0)
    rng = np.random.default_rng(5)
    rng.normal(size=3)
    adam = optax.chain(optax.clip(1.0), optax.adam(optax.linear_schedule(1e-3, 0, 9)))
    return {
        "plain": {"w": [w, (1, 2)], 5: {"b": 1, "a": 2}},
        "a leaf": jnp.arange(3),
        "nothing": None,
        "namedtuple": Pair(w, [jnp.ones(2), Pair(1, ())]),
        "dataclass": Config({"w": w}, {"lr": 0.1, "f": math.sin, "shape": (1, 2)}),
        "struct": Struct(jnp.ones(2), double),
        "chex": Transition(reward=w, obs={"b": 1, "a": 2}),
        "node": Node((w, {"k": 1}), ("tag", 5)),
        "equinox": Module(jnp.ones(2), 5),
        "optax": adam.init({"w": jnp.ones(2), "b": jnp.ones(3, jnp.bfloat16)}),
        "frozen": flax.core.freeze({"b": {"d": w, "c": 1}, "a": 2}),
        "box": {"w": nn.Partitioned(w, names=("x",))},
        "ordered": collections.OrderedDict(b=Pair(1, 2), a=w),
        "default": collections.defaultdict(list, {3: Pair(w, 1), 1: 2}),
        "factory": collections.defaultdict(functools.partial(int, 5), {"a": w}),
        "queue": collections.deque([w, Pair(1, 2)], maxlen=5),
        "keys of a dict": {Color.RED: w, 1: 2, "1": 3},
        "names that are one": [{"a/b": w, "a": {"b": 1}}, Pair({"a/b": 1, "a": 2}, 3)],
        "typed keys": Pair(jax.random.key(1), jax.random.split(jax.random.key(2), 3)),
        "weak types": Pair(jnp.asarray(1.0), jnp.float32(1)),
        "generator": Pair(rng, np.random.RandomState(5)),
        "partial": Pair(functools.partial(jnp.add, jnp.ones(2)), 1),
        "partial of jax": jax.tree_util.Partial(jnp.multiply, jnp.full(2, 3.0)),
        "scalars": Pair(1, [2.5, 1j, "a", b"b", None, True, np.float32(1)]),
    }


def resumed(directory, **keys):
    """Return what values without a template load."""
    cp = Checkpoint(directory)
    for key in keys or {"state": None}:
        setattr(cp, key, Value())
    cp.load()
    return cp


def save(directory, tree, **options):
    cp = Checkpoint(directory, **options)
    cp.state = Value(tree)
    cp.save()
    return cp


def assert_equal(expected, found):
    """Fail unless two trees have the same classes, static fields, leaves and order."""
    assert type(expected) is type(found)
    if isinstance(expected, functools.partial):
        assert expected.func is found.func
        assert_equal([expected.args, expected.keywords], [found.args, found.keywords])
    elif isinstance(expected, collections.defaultdict):
        made = [x.default_factory and x.default_factory() for x in (expected, found)]
        assert made[0] == made[1]
        assert_equal(list(expected.items()), list(found.items()))
    elif isinstance(expected, dict):
        assert_equal(list(expected.items()), list(found.items()))
    elif isinstance(expected, flax.core.FrozenDict):
        assert_equal(sorted(expected.items()), sorted(found.items()))
    elif isinstance(expected, Module):  # Its vars() depend on how it was made.
        for name in ("w", "size", "activation"):
            assert_equal(getattr(expected, name), getattr(found, name))
    elif type(expected) in (Node, Config, Struct, Transition, nn.Partitioned):
        assert_equal(sorted(vars(expected).items()), sorted(vars(found).items()))
    elif isinstance(expected, list | tuple | collections.deque):
        assert len(expected) == len(found)
        assert getattr(expected, "maxlen", 0) == getattr(found, "maxlen", 0)
        for one, other in zip(expected, found, strict=True):
            assert_equal(one, other)
    else:
        assert_same(expected, found)


@pytest.mark.parametrize("kind", trees())
def test_a_tree_comes_back_with_its_classes(tmp_path, kind):
    save(tmp_path, trees()[kind])
    assert_equal(trees()[kind], resumed(tmp_path).state.value)


def test_trees_of_all_kinds_come_back_together(tmp_path):
    save(tmp_path, {"trees": trees(), "pair": Pair(trees(), 1)})
    expected = {"trees": trees(), "pair": Pair(trees(), 1)}
    assert_equal(expected, resumed(tmp_path).state.value)


@PROPERTY
@given(strategies.states(), st.booleans())
def test_any_tree_comes_back(tmp_path_factory, tree, wrapped):
    tree = Struct([tree, 1], double) if wrapped else tree
    directory = tmp_path_factory.mktemp("run")
    save(directory, tree, fsync=False)
    found = resumed(directory).state.value
    assert_same(tree.w if wrapped else tree, found.w if wrapped else found)


def test_attributes_that_change_are_those_of_the_save(tmp_path):
    cp = Checkpoint(tmp_path, keep=None)
    ordered = collections.OrderedDict(a=np.ones(2))
    cp.state = Value(Pair(ordered, strategies.Noted(1, 2)))
    notes = 1, [2, np.ones(1)]
    for n, note in enumerate(notes):
        ordered.note = cp.state.value.b.note = note
        ordered.f = cp.state.value.b.f = lambda n=n: n
        ordered.last = cp.state.value.b.last = -1
        cp.save()
    fresh = resumed(tmp_path)
    for n, (save, note) in enumerate(zip(cp.saves(), notes, strict=True)):
        fresh.state.value = None
        fresh.load(save.path)
        assert_same([note, note], [x.note for x in fresh.state.value])
        assert [x.f() for x in fresh.state.value] == [n, n]
        assert [x.last for x in fresh.state.value] == [-1, -1]


def test_a_train_state_goes_on_bit_for_bit(tmp_path):
    def train(state):
        x = jnp.arange(4.0).reshape(2, 2)
        grads = jax.grad(lambda p: (state.apply_fn(p, x) ** 2).sum())(state.params)
        return state.apply_gradients(grads=grads)

    net = nn.Dense(3)
    params = net.init(jax.random.key(0), jnp.ones((1, 2)))
    tx = optax.adam(optax.linear_schedule(0.1, 0.01, 10))
    state = train(TrainState.create(apply_fn=net.apply, params=params, tx=tx))
    save(tmp_path, state)
    found = resumed(tmp_path).state.value
    assert type(found) is TrainState
    for _ in range(3):
        state, found = train(state), train(found)
    assert int(found.step) == 4
    assert_same(state.params, found.params)
    assert_same(state.opt_state, found.opt_state)


MODULE = """
import dataclasses
import numpy as np

@dataclasses.dataclass
class Agent:
    w: np.ndarray
    act: object = dataclasses.field(metadata={"static": True})

def make():
    factor = 3
    return Agent(np.arange(3.0), lambda agent: factor * agent.w)
"""
RESUME = """
import sys
sys.path.insert(0, "modules")
from elementsckpt import Checkpoint, Value

cp = Checkpoint("run")
cp.agent = Value()
cp.load()
assert type(cp.agent.value) is sys.modules["theirs"].Agent
assert cp.agent.value.act(cp.agent.value).tolist() == [0, 3, 6]
assert "jax" not in sys.modules
cp.save()
"""


def test_another_process_goes_on_with_the_classes(tmp_path, monkeypatch):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "theirs.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    theirs = importlib.import_module("theirs")
    cp = Checkpoint(tmp_path / "run")
    cp.agent = Value(theirs.make())
    cp.save()
    result = python(RESUME, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    cp.load()
    assert cp.agent.value.act(cp.agent.value).tolist() == [0, 3, 6]


# Classes and functions of the program itself

PROGRAM = """
import dataclasses
import json
import sys
import typing

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState

from elementsckpt import Checkpoint, Value

TOKEN = "sk-secret"
TABLE = np.full(250_000, 0.5)
SCALE = 2.0


class Net(nn.Module):
    features: int = 3

    @nn.compact
    def __call__(self, x):
        assert TOKEN, TABLE
        return nn.Dense(self.features)(x) * SCALE


class Pair(typing.NamedTuple):
    a: typing.Any
    b: typing.Any


@jax.jit
def scaled(x):
    return (SCALE + TABLE[0]) * x


class Agent(eqx.Module):
    w: jax.Array
    act: typing.Any
    other: typing.Any

    def __call__(self):
        return self.act(self.w) + self.other(self.w) + len(TOKEN)


def of_functions():
    class Local(Net):
        kind: str = "relu"
        late = lambda self: (TOKEN, TABLE)

    @dataclasses.dataclass
    class Config:
        w: typing.Any
        name: str = dataclasses.field(default="a", metadata={"static": True})
        many: list = dataclasses.field(default_factory=list, metadata={"static": True})

    class Module(eqx.Module):
        w: jax.Array

        def __call__(self):
            return self.w * SCALE

    def factorial(n):
        return n * factorial(n - 1) if n else 1

    local, factor = Local(), 3
    return Pair(train_state(local), [
        Config(np.ones(2)), Module(jnp.ones(2)), jax.jit(lambda x: SCALE * x),
        factorial, lambda: (factor, TOKEN), local.late,
    ])


def train_state(net):
    params = net.init(jax.random.key(0), jnp.ones((1, 2)))
    tx = optax.adam(lambda step: 0.1 * SCALE)
    return TrainState.create(apply_fn=net.apply, params=params, tx=tx)
"""
SAVE = """
cp = Checkpoint("run")
cp.train, cp.agent, cp.local = Value(train_state(Net())), Value(), Value()
cp.agent.value = Agent(jnp.ones(2), scaled, lambda x: SCALE * x)
cp.local.value = of_functions()
cp.save()
"""
LOAD = """
cp = Checkpoint("run")
cp.train, cp.agent, cp.local = Value(), Value(), Value()
cp.load()
assert type(cp.train.value.apply_fn.__self__) is Net
assert type(cp.agent.value) is Agent and cp.agent.value.act is scaled
outputs = [cp.train.value.apply_fn(cp.train.value.params, jnp.ones((1, 2)))]
state = jax.jit(lambda x: x.apply_gradients(grads=x.params))(cp.train.value)
outputs += [state.params["params"]["Dense_0"]["kernel"], cp.agent.value()]
assert type(cp.local.value) is Pair
config, module, jitted, factorial, both, late = cp.local.value.b
assert (config.name, config.many, factorial(3)) == ("a", [], 6)
assert both() == (3, TOKEN) and late() == (TOKEN, TABLE)
local = cp.local.value.a
outputs += [module(), jitted(1.0), local.apply_fn(local.params, jnp.ones((1, 2)))]
print(json.dumps([np.asarray(x).tolist() for x in outputs]))
import builtins
assert __builtins__ is builtins
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a function that runs the program, for which its modules are imported."""
    modules = re.findall("^(?:import|from) ([^ \n]+)", PROGRAM, re.MULTILINE)
    modules += ["elementsckpt.engine"]
    with Forks(tmp_path_factory.mktemp("forks"), *modules) as forks:
        yield forks.run


@pytest.fixture(scope="module")
def of_program(tmp_path_factory, run):
    """Return a directory in which a program saved what it had defined."""
    directory = tmp_path_factory.mktemp("program")
    result = run(PROGRAM + SAVE, cwd=directory)
    assert result.returncode == 0, result.stderr
    assert "without its classes" not in result.stderr
    return directory


def test_no_data_of_the_program_is_in_its_saves(of_program):
    (manifest,) = of_program.rglob("manifest.json")
    texts = [x.read_bytes() for x in of_program.rglob("*") if x.is_file()]
    components = json.loads(manifest.read_bytes())["components"]
    skeletons = {x["key"]: base64.b64decode(x["skeleton"]) for x in components}
    for text in [*texts, *skeletons.values()]:
        assert b"sk-secret" not in text
    assert manifest.stat().st_size < 100_000
    assert {key: len(x) // 10_000 for key, x in skeletons.items()} == {
        "train": 0,
        "agent": 0,
        "local": 2,
    }


def test_a_program_finds_its_classes_and_functions_again(run, of_program):
    """Also where it has mended them, or has other data, as a notebook may."""
    result = run(PROGRAM + LOAD, cwd=of_program)
    assert result.returncode == 0, result.stderr
    mended = PROGRAM.replace("SCALE = 2.0", "SCALE = 4.0").replace("sk-secret", "")
    mended = mended.replace("assert TOKEN, TABLE", "")
    other = run(mended + LOAD, cwd=of_program)
    assert other.returncode == 0, other.stderr
    before, after = (json.loads(x.stdout) for x in (result, other))
    assert_same([[2 * x for x in before[0][0]]], after[0])
    assert (before[2], after[2]) == ([13.5] * 2, [8.5] * 2)
    assert (before[3:5], after[3:5]) == ([[2.0, 2.0], 2.0], [[4.0, 4.0], 4.0])


def test_another_program_is_told_what_it_lacks(of_program):
    cp = Checkpoint(of_program / "run")
    cp.train = Value()
    with pytest.raises(
        PickleError, match=r"program does not define Net\. Give .* template"
    ):
        cp.load()


def test_a_skeleton_that_has_a_class_of_the_program_itself_loads(tmp_path):
    """As such were saved before."""
    cp = save(tmp_path, Pair(1, 2))
    reduced = elementsckpt.kinds.pickles._of_main, ("Gone", pickle.dumps(Pair))
    text = base64.b64encode(pickle.dumps(Reduced(*reduced))).decode()
    forge(cp.latest(), lambda x: x["components"][0].update(skeleton=text))
    assert resumed(tmp_path).state.value is Pair


@pytest.mark.parametrize(
    ("path", "arguments", "made"),
    [
        ("pickles _of_main", ("Gone", pickle.dumps(7)), 7),
        ("closures namespace", ("math",), vars(math)),
        ("reductions make", (list, list), []),
        ("wrappers Counter", (7,), 7),
        ("retention Keep", (7,), elementsckpt.Keep(7)),
        ("rng GlobalRNG", (), elementsckpt.GlobalRNG),
    ],
)
def test_what_saves_name_may_have_moved(path, arguments, made):
    module, name = path.split()
    start = f"celementsckpt.{module}\n{name}\n".encode()
    found = pickles.load(start + pickle.dumps(arguments, 2)[2:-1] + b"R.")
    assert found == made or type(found) is made or int(found) == made


class Reduced:
    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


@pytest.fixture
def in_main(monkeypatch):
    """Return a function that runs code as if it were the program's, and its globals."""
    names = vars(sys.modules["__main__"])

    def run(code, names=names):
        exec(code, names)
        return names["make"]()

    yield run
    names.pop("make", None)


CLOSING = {
    "text": ("token = 'sk-' + 'secret'", "lambda: token", "'token', of type str"),
    "an array": ("w = np.ones(3)", "lambda: w", "'w', of type ndarray"),
    "a list": ("many = []", "lambda: many", "'many', of type list"),
    "a method": ("split = 'sk-secret'.split", "lambda: split", "'split', of type buil"),
    "a partial": (
        "f = partial(print, 'sk-secret')",
        "lambda: f",
        "'f', of type partial",
    ),
    "a jitted one": ("w = np.ones(3)", "jax.jit(lambda: w)", "'w', of type ndarray"),
    "another's": ("w = {}; g = lambda: w", "lambda: g", "'w', of type dict"),
    "an attribute": (
        "f = lambda: 0; f.token = 'sk'",
        "f",
        "attribute 'token', of type",
    ),
    "a local class": (
        "token = 'sk-secret'",
        "type('Local', (), {'get': lambda self: token})()",
        "'token', of type str",
    ),
}


@pytest.mark.parametrize("kind", CLOSING)
def test_a_function_of_the_program_with_data_is_not_saved(
    tmp_path, caplog, in_main, kind
):
    before, function, told = CLOSING[kind]
    code = f"""
import jax
import numpy as np
from functools import partial
def make():
    {before}
    return {function}
"""
    function = in_main(code)
    cp = Checkpoint(tmp_path)
    cp.state = Value()
    for number in range(3):
        cp.state.value = Struct(number, function)
        cp.save()
    assert b"sk-secret" not in b"".join(
        x.read_bytes() for x in tmp_path.rglob("*") if x.is_file()
    )
    assert manifest_of(cp)["components"][0]["skeleton"] == ""
    (message,) = [x for x in caplog.messages if "is saved without its classes" in x]
    assert message.startswith("'state' is saved without its classes, static fields")
    assert "make.<locals>." in message
    assert told in message
    caplog.clear()
    cp.state = Value(Struct(0, function))  # Which needs none of that.
    cp.save()
    cp.load()
    assert cp.state.value == Struct(0, function)
    assert "without its classes" not in caplog.text


def test_globals_of_no_module_are_not_saved(tmp_path, caplog, in_main):
    names = {"__name__": "__main__", "token": "sk-secret", "f": abs}
    code = "def make(): return lambda: token"
    cp = Checkpoint(tmp_path)
    cp.state = Value()
    cp.state.value = Struct(1, in_main(code, names))
    cp.save()
    assert "uses 'token', of type str" in caplog.text
    cp.state = Value()
    cp.state.value = Struct(1, in_main("def make(): return lambda: f(-5)", names))
    cp.save()
    assert resumed(tmp_path).state.value.apply() == 5


def test_what_was_one_array_stays_one(tmp_path):
    array = np.ones(3)
    save(tmp_path, Pair(array, [array, np.ones(3)]))
    found = resumed(tmp_path).state.value
    assert found.a is found.b[0]
    assert found.a is not found.b[1]


def test_it_holds_none_until_it_is_given_a_value(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.state = Value()
    assert cp.state.value is None
    assert not cp.load_or_save()
    assert cp.load_or_save()
    assert cp.state.value is None
    cp.state.value = Pair(np.zeros(2), 0)
    cp.save()
    cp.state.value = Pair(np.ones(2), 1)  # Which is a template now.
    cp.load()
    assert_equal(Pair(np.zeros(2), 0), cp.state.value)
    cp.state.value = Pair(np.ones(3), 1)
    with pytest.raises(MismatchError, match="state/a"):
        cp.load()
    cp.state.value = None
    cp.load()
    assert_equal(Pair(np.zeros(2), 0), cp.state.value)


def test_none_is_a_template_like_any_other(tmp_path):
    save(tmp_path, Pair(1, 2))
    cp = Checkpoint(tmp_path)
    cp.state = Value(None)
    with pytest.raises(MismatchError):
        cp.load()


def test_it_takes_what_any_component_saved(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.state = Box({"pair": Pair(np.ones(2), 1)})
    cp.save()
    assert_equal({"pair": Pair(np.ones(2), 1)}, resumed(tmp_path).state.value)


def test_shards_are_no_value(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.state = Stream([1, 2])
    cp.save()
    with pytest.raises(MismatchError, match=r"'state' .*was saved in shards"):
        resumed(tmp_path)


def test_what_it_loaded_is_saved_with_its_classes_again(tmp_path):
    save(tmp_path, trees()["struct"])
    cp = resumed(tmp_path)
    cp.state.value = cp.state.value.replace(w=jnp.zeros(2))
    cp.save()
    assert_equal(Struct(jnp.zeros(2), double), resumed(tmp_path).state.value)


@pytest.mark.parametrize(
    "options",
    [{"mmap": True}, {"strict": False}, {"cast": True}, {"rename": {"x": "y"}}],
)
def test_there_is_no_part_of_nothing_so_all_is_loaded(tmp_path, options):
    save(tmp_path, Pair({"x": np.ones(2)}, 1))
    cp = Checkpoint(tmp_path)
    cp.state = Value()
    cp.load(**options)
    assert_equal(Pair({"x": np.ones(2)}, 1), cp.state.value)


def test_a_part_has_no_place_in_nothing(tmp_path):
    save(tmp_path, Pair({"x": np.ones(2)}, 1))
    cp = Checkpoint(tmp_path)
    cp.state = Value()
    with pytest.raises(MismatchError, match=r"No matched leaf of .* is in the current"):
        cp.load(regex="a/.*")
    assert cp.state.value is None


def test_a_dry_run_changes_nothing(tmp_path):
    save(tmp_path, Pair(1, 2))
    cp = Checkpoint(tmp_path)
    cp.state = Value()
    assert set(cp.load(dry_run=True).loaded) == {"state/a", "state/b"}
    assert cp.state.value is None


def test_a_background_save_holds_the_classes_of_then(tmp_path):
    with Checkpoint(tmp_path, background=True) as cp:
        cp.state = Value(Config(np.ones(2), {"lr": 1}))
        cp.save()
        cp.state.value.options["lr"] = 2
    assert resumed(tmp_path).state.value.options == {"lr": 1}


def test_the_functional_form_takes_one(tmp_path):
    value = Value(Pair(np.ones(2), 1))
    elementsckpt.checkpoint.save(tmp_path / "a", {"any text": value.save})
    other = Value()
    load = functools.partial(elementsckpt.checkpoint.load, tmp_path / "a")
    with pytest.raises(PickleError, match="any text"):
        load({"any text": other.load})
    load({"any text": other.load}, allow_pickle=True)
    assert_equal(Pair(np.ones(2), 1), other.value)
    other = Value()
    other.load(value.save())
    assert_same({"a": np.ones(2), "b": 1}, other.value)


def test_a_subclass_that_loads_by_itself_does(tmp_path):
    class Doubled(Value):
        def load(self, data):
            self.value = 2 * data["a"]

    cp = save(tmp_path, Pair(1, 2))
    value = Doubled(5)
    elementsckpt.checkpoint.load(cp.latest(), {"state": value.load})
    assert value.value == 2


# Whom it trusts


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path(self.path),)


def test_nothing_of_a_foreign_path_is_unpickled(tmp_path):
    path = save(
        tmp_path / "run", Struct(jnp.ones(2), Evil(tmp_path / "owned"))
    ).latest()
    for cp in (Checkpoint(), Checkpoint(tmp_path / "other")):
        cp.state = Value()
        with pytest.raises(PickleError, match="allow_pickle=True"):
            cp.load(path)
        cp.state = Value(Struct(jnp.zeros(2), double))
        cp.load(path)
        assert cp.state.value.apply is double
        cp.state = Box()
        cp.load(path)
    elementsckpt.read(path)
    elementsckpt.info(path)
    assert not (tmp_path / "owned").exists()
    cp.state = Value()
    cp.load(path, allow_pickle=True)
    assert (tmp_path / "owned").exists()


def test_plain_containers_load_from_anywhere(tmp_path):
    path = save(tmp_path / "run", trees()["plain"]).latest()
    cp = Checkpoint()
    cp.state = Value()
    cp.load(path)
    assert_equal(trees()["plain"], cp.state.value)


def test_a_skeleton_that_was_damaged_is_refused(tmp_path):
    cp = save(tmp_path, Pair(1, 2))
    for text in ("?", "AAAA", ""):
        forge(cp.latest(), lambda x, y=text: x["components"][0].update(skeleton=y))
        with pytest.raises(PickleError, match="Give the Value that loads it a"):
            resumed(tmp_path)
        other = Checkpoint(tmp_path)
        other.state = Value(Pair(0, 0))
        other.load()
        assert other.state.value == Pair(1, 2)


# What cannot be pickled, and what it costs


@pytest.mark.parametrize(
    "options",
    [threading.Lock(), np.ones(100_000), [jnp.ones(100_000)], "a" * 5_000_000],
    ids=["a lock", "an array", "an array of jax", "text"],
)
def test_what_cannot_be_pickled_is_left_out(tmp_path, caplog, options):
    caplog.set_level(logging.DEBUG, "elementsckpt")
    cp = save(tmp_path, Config(np.ones(2), options))
    assert "saved without its classes" in caplog.text
    assert manifest_of(cp)["components"][0]["skeleton"] == ""
    with pytest.raises(PickleError, match=r"could not be pickled\. Give the Value"):
        resumed(tmp_path)
    cp.load()
    assert_same({"w": np.ones(2)}, elementsckpt.read(tmp_path, mmap=False)["state"])


def manifest_of(cp):
    return json.loads((cp.latest() / "manifest.json").read_bytes())


def test_a_value_that_was_saved_can_be_copied_and_pickled(tmp_path):
    cp = save(tmp_path, trees()["node"])
    for value in (copy.deepcopy(cp.state), pickle.loads(pickle.dumps(cp.state))):
        assert_equal(trees()["node"], value.value)
        cp.state = value
        cp.save()


def test_plain_trees_have_no_skeleton(tmp_path):
    assert (
        manifest_of(save(tmp_path, trees()["plain"]))["components"][0]["skeleton"]
        is None
    )


def test_a_skeleton_is_made_anew_only_if_the_structure_changes(tmp_path, monkeypatch):
    made, dump = [], elementsckpt.state.skeletons.dump
    monkeypatch.setattr(
        elementsckpt.state.skeletons,
        "dump",
        lambda value, **options: made.append(value) or dump(value, **options),
    )
    net = nn.Dense(3)
    params = net.init(jax.random.key(0), jnp.ones((1, 2)))
    state = TrainState.create(apply_fn=net.apply, params=params, tx=optax.adam(0.1))
    cp = Checkpoint(tmp_path)
    cp.state = Value({"state": state, "pair": Pair(1, {"a": 2})})
    step = jax.jit(lambda state: state.apply_gradients(grads=state.params))
    for number in range(3):
        cp.state.value = {"state": step(state), "pair": Pair(number, {"a": 2})}
        cp.save()
    assert len(made) == 1
    changes = [
        {"state": state, "pair": Pair(1, {"b": 2})},
        {"state": state, "pair": Pair({"b": 2}, 1)},
        {"state": state, "pair": {"a": 1, "b": {"b": 2}}},
        {"state": state.replace(tx=optax.sgd(0.1)), "pair": {"a": 1, "b": {"b": 2}}},
        {"state": Config(1, "x")},
        {"state": Config(1, "y")},
        {"state": Config(1, ("y",))},
        {"state": [Pair(1, 2), 3]},
        {"state": [3, Pair(1, 2)]},
    ]
    for count, value in enumerate(changes, 2):
        cp.state.value = value
        cp.save()
        assert len(made) == count
    assert resumed(tmp_path).state.value == {"state": [3, Pair(1, 2)]}


def test_what_is_written_to_in_a_static_field_is_saved(tmp_path):
    config = Config(np.ones(2), {"lr": [1]})
    config.late = [1]
    cp = save(tmp_path, config)
    config.options["lr"].append(2)
    config.late.append(2)
    cp.save()
    found = resumed(tmp_path).state.value
    assert (found.options, found.late) == ({"lr": [1, 2]}, [1, 2])


def test_readers_of_names_see_the_leaves_alone(tmp_path):
    cp = save(tmp_path, Struct({"w": np.ones(2), "v": 1}, double))
    info = elementsckpt.info(tmp_path)
    assert (info.components["state"].leaves, info.components["state"].bytes) == (2, 16)
    assert set(cp.load(regex="w/.*").loaded) == {"state/w/w", "state/w/v"}
    assert_same(
        {"w": {"w": np.ones(2), "v": 1}},
        elementsckpt.read(tmp_path, mmap=False)["state"],
    )


def test_without_changes_nothing_is_written_again(tmp_path):
    cp = Checkpoint(tmp_path, keep=None, compress=None)
    cp.state = Value(Struct(np.random.default_rng(0).normal(size=500_000), double))
    first = cp.save()
    second = cp.save()
    assert second.bytes_written < first.bytes_written / 100
    assert second.bytes_reused == 4_000_000
    assert_equal(cp.state.value, resumed(tmp_path).state.value)


def test_a_save_of_an_earlier_version_comes_in_plain_containers(tmp_path, caplog):
    cp = Checkpoint(tmp_path)
    cp.state = Box({"a": np.ones(2), "b": 1})  # What such a version saved of a pair.
    cp.save()
    forge(cp.latest(), old)
    found = resumed(tmp_path)
    assert_same({"a": np.ones(2), "b": 1}, found.state.value)
    assert "was saved without its classes" in caplog.text
    cp = Checkpoint(tmp_path)
    cp.state = Value(Pair(np.zeros(2), 0))
    cp.load()
    assert_equal(Pair(np.ones(2), 1), cp.state.value)


def old(manifest):
    """Make a manifest one of version 1."""
    manifest["version"] = 1
    for component in manifest["components"]:
        component.pop("skeleton")

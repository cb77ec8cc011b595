"""`save_pytree` and `load_pytree`: what a tree may hold and what it comes back as."""

import collections.abc
import dataclasses
import enum
import functools
import math
import tempfile
import typing

import chex
import equinox as eqx
import flax.core
import flax.linen
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
from elementsckpt import (
    DamagedError,
    MismatchError,
    MissingKeyError,
    PickleError,
    SaveExistsError,
    SaveNotFoundError,
    StateError,
    load_pytree,
    save_pytree,
)
from elementsckpt.kinds.generators import states_of

from support.boxes import block_with, damage, python
from support.strategies import (
    PROPERTY,
    Empty,
    Frozen,
    Pair,
    Point,
    Slotted,
    assert_same,
    trees,
)


def round_trip(tree, template, **options):
    """Save a tree and return what is loaded with the template."""
    with tempfile.TemporaryDirectory() as directory:
        report = save_pytree(f"{directory}/tree", tree, fsync=False)
        assert report.pickled == ()
        return load_pytree(f"{directory}/tree", template, **options)


def read(tree):
    """Return a tree as `elementsckpt.read` shows it."""
    with tempfile.TemporaryDirectory() as directory:
        save_pytree(f"{directory}/tree", tree, fsync=False)
        return elementsckpt.read(f"{directory}/tree", mmap=False)["tree"]


def mismatches(tree, template):
    """Return the lines of the error about what does not fit."""
    with pytest.raises(MismatchError) as error:
        round_trip(tree, template)
    _, *lines, _ = str(error.value).splitlines()
    return sorted(line.strip() for line in lines)


def zeros(tree):
    """Return a tree like this one in which each leaf is zero, or empty."""
    kinds = (dict, collections.OrderedDict, collections.Counter)
    if isinstance(tree, collections.defaultdict):
        filled = {key: zeros(value) for key, value in tree.items()}
        return collections.defaultdict(tree.default_factory, filled)
    if type(tree) is collections.Counter:
        return collections.Counter({key: zeros(value) for key, value in tree.items()})
    if type(tree) in kinds:
        return type(tree)((key, zeros(value)) for key, value in tree.items())
    if isinstance(tree, collections.deque):
        return collections.deque(map(zeros, tree), tree.maxlen)
    if hasattr(tree, "_fields"):
        return type(tree)(*map(zeros, tree))
    if type(tree) in (list, tuple):
        return type(tree)(map(zeros, tree))
    if dataclasses.is_dataclass(tree):
        names = [field.name for field in dataclasses.fields(tree)]
        return type(tree)(**{name: zeros(getattr(tree, name)) for name in names})
    if isinstance(tree, np.random.Generator):
        return np.random.Generator(type(tree.bit_generator)(0))
    if isinstance(tree, np.ndarray):
        return np.zeros(tree.shape, tree.dtype)
    if isinstance(tree, np.generic):
        return np.zeros((), tree.dtype)[()]
    return None if tree is None else type(tree)()


@PROPERTY
@given(trees())
def test_any_tree_of_plain_containers_comes_back_the_same(tree):
    assert_same(tree, round_trip(tree, zeros(tree)))


# Leaves


def on_device(array):
    return jax.device_put(array)


KINDS = {"numpy": np.asarray, "jax": on_device, "scalar": lambda x: np.asarray(x)[()]}
TYPES = {"numpy": np.ndarray, "jax": jax.Array, "scalar": (np.generic, np.ndarray)}
DTYPES = ["bool", "int8", "uint32", "float16", "bfloat16", "float32", "complex64"]


@PROPERTY
@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(KINDS)),
            st.sampled_from(sorted(KINDS)),
            st.sampled_from(DTYPES),
            st.sampled_from([(), (0,), (3,), (2, 3)]),
            st.binary(min_size=48, max_size=48),
        ),
        max_size=5,
    )
)
def test_each_leaf_becomes_what_that_of_the_template_is_bit_for_bit(leaves):
    saved, template, expected = [], [], []
    for before, after, name, shape, data in leaves:
        dtype = np.dtype(getattr(jnp, name if name != "bool" else "bool_"))
        array = np.frombuffer(data, np.uint8)[: math.prod(shape) * dtype.itemsize]
        array = (array % 2 if name == "bool" else array).view(dtype).reshape(shape)
        saved.append(KINDS[before](array))
        template.append(KINDS[after](np.zeros(shape, dtype)))
        expected.append(array)
    loaded = round_trip(saved, template)
    for array, (_, after, *_), leaf in zip(expected, leaves, loaded, strict=True):
        assert isinstance(leaf, TYPES[after])
        assert (leaf.dtype, leaf.shape) == (array.dtype, array.shape)
        assert np.asarray(leaf).tobytes() == array.tobytes()


WEAK_SHAPE = jax.eval_shape(lambda: 0)
FITTING = [
    (5, jnp.int32(0), jnp.int32(5)),
    (5, jnp.float32(0), jnp.float32(5)),
    (5, np.int8(0), np.int8(5)),
    (5, np.zeros((), np.uint64), np.array(5, np.uint64)),
    (2**64 - 1, np.zeros((), np.uint64), np.array(2**64 - 1, np.uint64)),
    (0.5, jnp.bfloat16(0), jnp.bfloat16(0.5)),
    (math.inf, np.float16(0), np.float16(math.inf)),
    (True, np.zeros((), bool), np.array(True)),
]
TAKING = [
    (np.int64(5), 0, np.int64(5)),
    (np.array(5, np.uint8), 0, np.array(5, np.uint8)),
    (jnp.int32(5), 0, jnp.int32(5)),
    (jnp.asarray(True), False, jnp.asarray(True)),
    (np.bool_(True), False, np.bool_(True)),
    (jnp.float32(0.1), 0.0, jnp.float32(0.1)),
    (jnp.bfloat16(0.5), 0.0, jnp.bfloat16(0.5)),
    (np.float64("nan"), 0.0, np.float64("nan")),
    (np.complex64(1j), 0j, np.complex64(1j)),
    (5, 0.0, 5),
    (5, jnp.asarray(0), 5),
    (0.5, 0, 0.5),
    (np.float32(5), 0, np.float32(5)),
    (True, 0, True),
    (jnp.asarray(True), 0, jnp.asarray(True)),
    (jnp.float32(0.5), 0, jnp.float32(0.5)),
    (jnp.asarray(0.5), 0, jnp.asarray(0.5)),
    (np.array(0.5), 0, np.array(0.5)),
    (2**53 + 1, 0.0, 2**53 + 1),
    (10**400, 0.0, 10**400),
    (1j, 0.0, 1j),
    (jnp.float32(0.5), jnp.asarray(0), jnp.float32(0.5)),
    (jnp.asarray(0.5), jnp.asarray(0), jnp.asarray(0.5)),
    (jnp.bfloat16(0.5), jnp.asarray(0.0), jnp.bfloat16(0.5)),
    (jnp.asarray(1j), jnp.asarray(0.0), jnp.asarray(1j)),
    (jnp.asarray(True), jnp.asarray(0), jnp.asarray(True)),
    (jnp.float32(0.5), WEAK_SHAPE, jnp.float32(0.5)),
    (np.float32(0.5), jnp.asarray(0), jnp.float32(0.5)),
    (np.array([0.5], np.float32), jnp.full(1, 0), jnp.ones(1) / 2),
    (np.array([5], np.int32), jnp.full(1, 0), jnp.full(1, 5)),
    (jnp.ones(1, jnp.int32), jnp.full(1, 0), jnp.ones(1, jnp.int32)),
    (0.5, jnp.asarray(0), 0.5),
    (0.1, jnp.asarray(0.0), 0.1),
    (2**70, jnp.asarray(0), 2**70),
    (True, WEAK_SHAPE, True),
]
LOSSY = [
    (1, False),
    (np.array([5]), 0),
    (300, np.int8(0)),
    (-1, jnp.uint32(0)),
    (2**70, jnp.int32(0)),
    (0.1, jnp.float32(0)),
    (1e300, jnp.float32(0)),
    (5, "5"),
    (None, 0),
    (5, None),
    (jnp.int32(5), np.int64(0)),
    (5, np.datetime64(0, "s")),
    (5, np.zeros((), "V4")),
    (np.datetime64(5, "s"), 0),
    ("5", jnp.asarray(0)),
    (jnp.ones(1), jnp.asarray(0)),
    (0.5, jax.ShapeDtypeStruct((), np.float64)),
    (np.float64(0.1), jnp.asarray(0.0)),
    (jnp.float32(0.5), jnp.int32(0)),
    (jnp.float32(0.5), jax.ShapeDtypeStruct((), np.int32)),
    (jax.random.key(0), jnp.asarray(0)),
    (jax.random.key(0), 0),
]


@pytest.mark.parametrize(("saved", "template", "expected"), FITTING, ids=repr)
def test_a_number_fits_where_nothing_of_it_is_lost(saved, template, expected):
    assert_same([expected], round_trip([saved], [template]))


@pytest.mark.parametrize(("saved", "template", "expected"), TAKING, ids=repr)
def test_a_number_without_a_type_of_its_own_takes_what_was_saved(
    saved, template, expected
):
    assert_same([expected], round_trip([saved], [template]))


@pytest.mark.parametrize(("saved", "template"), LOSSY, ids=repr)
def test_a_number_that_would_change_does_not_fit(saved, template):
    (line,) = mismatches({"n": saved}, {"n": template})
    assert line.startswith("tree/n: saved ")


@pytest.mark.parametrize("before", ["threefry2x32", "rbg"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
def test_typed_keys_come_back_as_keys_of_their_generator(before, shape):
    def make(seed):
        key = jax.random.key(seed, impl=before)
        return jax.random.split(key, shape) if shape else key

    loaded = round_trip({"key": make(1)}, {"key": make(0)})["key"]
    assert_same(make(1), loaded)
    assert jax.random.normal(loaded.ravel()[0]) == jax.random.normal(make(1).ravel()[0])


def test_keys_of_another_generator_and_their_data_do_not_fit():
    key = {"key": jax.random.key(0)}
    (line,) = mismatches(key, {"key": jax.random.key(0, impl="rbg")})
    assert "key<threefry2x32>" in line
    assert "key<rbg>" in line
    assert mismatches(key, {"key": jax.random.PRNGKey(0)})
    assert mismatches({"key": jax.random.PRNGKey(0)}, key)


def test_strong_types_are_those_of_the_template_and_weak_ones_those_of_the_save():
    weak, strong = jnp.asarray(1.0), jnp.float32(0)
    loaded = round_trip([strong, weak, weak], [weak, strong, weak])
    assert [array.weak_type for array in loaded] == [False, False, True]


def test_what_was_one_number_stays_one_where_it_takes_its_type():
    number = jnp.float32(0.5)
    loaded = round_trip([number] * 4, [0, 1, jnp.asarray(0), jnp.asarray(1)])
    assert_same([number] * 2, loaded[:2])
    assert_same([number] * 2, loaded[2:])


def test_weak_leaves_go_where_the_template_says():
    device = jax.devices()[0]
    sharding = jax.sharding.SingleDeviceSharding(device)
    template = jax.ShapeDtypeStruct((2,), np.int32, sharding=sharding, weak_type=True)
    (loaded,) = round_trip([jnp.ones(2)], [template])
    assert_same(jnp.ones(2), loaded)
    assert loaded.sharding == sharding
    assert loaded._committed


def test_arrays_that_the_template_donated_still_say_what_fits():
    template = {"w": jnp.zeros(3), "key": jax.random.key(0)}
    template["w"].delete()
    loaded = round_trip({"w": jnp.ones(3), "key": jax.random.key(5)}, template)
    assert loaded["w"].tolist() == [1, 1, 1]


def test_abstract_leaves_become_arrays():
    def init():
        return {"w": jnp.ones((2, 3), jnp.bfloat16), "key": jax.random.key(7)}

    loaded = round_trip(init(), jax.eval_shape(init))
    assert list(loaded) == ["key", "w"]  # Which is how JAX orders them.
    assert_same(dict(sorted(init().items())), loaded)
    numpy = jax.ShapeDtypeStruct((3,), np.float32)
    assert isinstance(round_trip(np.ones(3, np.float32), numpy), jax.Array)


def test_abstract_leaves_say_what_fits():
    template = jax.eval_shape(lambda: (jnp.ones(3), jnp.ones(2), jax.random.key(0)))
    tree = (jnp.ones(4), jnp.ones(2, jnp.int32), jax.random.key(0, impl="rbg"))
    assert mismatches(tree, template) == [
        "tree/0: saved float32[4], expected float32[3]",
        "tree/1: saved int32[2], expected float32[2]",
        "tree/2: saved key<rbg>[], expected key<threefry2x32>[]",
    ]


def test_what_jax_would_make_narrower_does_not_fit():
    template = jax.ShapeDtypeStruct((2,), np.float64)
    (line,) = mismatches({"w": np.ones(2)}, {"w": template})
    assert "jax_enable_x64" in line


def test_transfers_are_explicit():
    tree = {"w": jnp.ones(3), "weak": jnp.asarray(1), "key": jax.random.key(1)}
    template = {name: jnp.zeros_like(x) for name, x in tree.items() if name != "key"}
    template["key"] = jax.random.key(0)
    jax.config.update("jax_transfer_guard", "disallow")
    try:
        loaded = round_trip(tree, template)
    finally:
        jax.config.update("jax_transfer_guard", "allow")
    assert_same(tree, loaded)


@pytest.mark.torch
@pytest.mark.torch
def test_tensors_come_back_as_tensors():
    torch = pytest.importorskip("torch")
    tree = {
        "w": torch.nn.Parameter(torch.ones(2, 3)),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "jax": np.ones(4, np.float32),
    }
    template = {
        "w": torch.nn.Parameter(torch.zeros(2, 3)),
        "half": jnp.zeros(2, jnp.bfloat16),
        "jax": torch.zeros(4),
    }
    loaded = round_trip(tree, template)
    assert_same(tree["w"], loaded["w"])
    assert_same(jnp.ones(2, jnp.bfloat16), loaded["half"])
    assert_same(torch.ones(4), loaded["jax"])


def test_what_was_one_array_stays_one_where_the_template_has_one_kind():
    array = np.arange(4.0)
    tree = {"a": array, "b": array, "c": array, "d": array}
    numpy, device = np.zeros(4), jax.ShapeDtypeStruct((4,), np.float64)
    jax.config.update("jax_enable_x64", True)
    try:
        loaded = round_trip(tree, {"a": device, "b": numpy, "c": device, "d": numpy})
        assert loaded["b"] is loaded["d"]
        assert loaded["a"] is loaded["c"]
        loaded["b"][:] = 9
        assert loaded["a"].tolist() == [0, 1, 2, 3]
    finally:
        jax.config.update("jax_enable_x64", False)


def test_what_was_two_arrays_stays_two():
    zero = np.zeros(3)
    loaded = round_trip([np.ones(3), np.full(3, 2.0)], [zero, zero])
    assert [x.tolist() for x in loaded] == [[1, 1, 1], [2, 2, 2]]


# Containers


class Schedule(typing.NamedTuple):
    step: typing.Any
    history: typing.Any


@dataclasses.dataclass
class Plain:
    w: typing.Any
    name: str = dataclasses.field(default="", metadata={"static": True})
    sizes: tuple = dataclasses.field(default=(), metadata={"pytree_node": False})
    late: typing.Any = dataclasses.field(init=False, default=None)
    made: typing.ClassVar[int] = 0

    def __post_init__(self):
        type(self).made += 1


@flax.struct.dataclass
class Struct:
    w: typing.Any
    apply: typing.Any = flax.struct.field(pytree_node=False)


@chex.dataclass
class Transition:
    obs: typing.Any
    reward: typing.Any


@chex.dataclass(frozen=True, mappable_dataclass=False)
class Bounds:
    low: typing.Any
    high: typing.Any


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["w"], meta_fields=["name"]
)
@dataclasses.dataclass
class Registered:
    w: typing.Any
    name: str


@jax.tree_util.register_pytree_with_keys_class
class Named:
    def __init__(self, left, right, tag):
        self.left, self.right, self.tag = left, right, tag

    def tree_flatten_with_keys(self):
        keys = [jax.tree_util.GetAttrKey(name) for name in ("left", "right")]
        return list(zip(keys, (self.left, self.right), strict=True)), self.tag

    @classmethod
    def tree_unflatten(cls, tag, children):
        return cls(*children, tag)


@jax.tree_util.register_pytree_node_class
class Nameless:
    def __init__(self, parts, tag):
        self.parts, self.tag = parts, tag

    def tree_flatten(self):
        return self.parts, self.tag

    @classmethod
    def tree_unflatten(cls, tag, parts):
        return cls(tuple(parts), tag)


@jax.tree_util.register_pytree_with_keys_class
class Twins(Nameless):
    def tree_flatten_with_keys(self):
        key = jax.tree_util.GetAttrKey("twin")
        return [(key, part) for part in self.parts], self.tag


class Color(enum.Enum):
    RED = 1
    BLUE = 2


def one(x=1.0):
    return np.full(2, float(x))


# A tree, another like it, and what `read` shows of the first.
TREES = {
    "namedtuple": (
        Schedule(one(), [one(2)]),
        Schedule(one(0), [one(0)]),
        {"step": one(), "history": [one(2)]},
    ),
    "dataclass": (
        Plain(one(), "saved", (1,)),
        Plain(one(0), "template", (2, 3)),
        {"w": one(), "late": None},
    ),
    "struct": (Struct(one(), math.sin), Struct(one(0), math.cos), {"w": one()}),
    "chex": (
        Transition(obs=one(), reward=2.0),
        Transition(obs=one(0), reward=0.0),
        {"obs": one(), "reward": 2.0},
    ),
    "chex, frozen": (
        Bounds(low=one(), high=Transition(obs=1, reward=2)),
        Bounds(low=one(0), high=Transition(obs=0, reward=0)),
        {"low": one(), "high": {"obs": 1, "reward": 2}},
    ),
    "registered dataclass": (
        Registered(one(), "saved"),
        Registered(one(0), "template"),
        {"w": one()},
    ),
    "node with keys": (
        Named(one(), {"a": 1}, "saved"),
        Named(one(0), {"a": 0}, "template"),
        {"left": one(), "right": {"a": 1}},
    ),
    "node without keys": (
        Nameless((one(), 1), "saved"),
        Nameless((one(0), 0), "template"),
        {0: one(), 1: 1},
    ),
    "node whose keys are one": (
        Twins((one(), one(2)), "saved"),
        Twins((one(0), one(0)), "template"),
        {0: one(), 1: one(2)},
    ),
    "frozen dict": (
        flax.core.freeze({"a": {"b": one()}}),
        flax.core.freeze({"a": {"b": one(0)}}),
        {"a": {"b": one()}},
    ),
    "linen box": (
        {"w": flax.linen.Partitioned(one(), names=("saved",))},
        {"w": flax.linen.Partitioned(one(0), names=("template",))},
        {"w": one()},
    ),
    "partial": (
        jax.tree_util.Partial(math.pow, one()),
        jax.tree_util.Partial(math.pow, one(0)),
        {0: ((one()),), 1: {}},
    ),
    "enum keys": (
        {Color.RED: one(), Color.BLUE: one(2)},
        {Color.BLUE: one(0), Color.RED: one(0)},
        {"Color.RED": one(), "Color.BLUE": one(2)},
    ),
    "keys that look alike": (
        {1: one(), "1": one(2)},
        {"1": one(0), 1: one(0)},
        {"1": one(), "'1'": one(2)},
    ),
    "names that look alike": (
        {"a/b": one(), "a": {"b": one(2)}},
        {"a": {"b": one(0)}, "a/b": one(0)},
        {"a/b": one(), "a": {"b": one(2)}},
    ),
    "nothing": ([None, {}, (), [], Empty()], [None, {}, (), [], Empty()], None),
    "a leaf": (one(), one(0), one()),
}


@pytest.mark.parametrize("kind", TREES)
def test_a_tree_is_saved_by_the_names_of_its_fields(kind):
    tree, _, expected = TREES[kind]
    if expected is not None:
        np.testing.assert_equal(read(tree), expected)


@PROPERTY
@given(trees())
def test_read_shows_a_tree_as_it_shows_any_state(tree):
    with tempfile.TemporaryDirectory() as directory:
        save = f"{directory}/save"  # Beside a save, others are looked for.
        elementsckpt.checkpoint.save(save, {"tree": lambda: tree}, fsync=False)
        expected = elementsckpt.read(save, mmap=False)["tree"]
    assert_same(expected, read(tree))


KEYS = {
    "numbers": {key: one(key) for key in range(12)},
    "numbers in no order": {3: 1, -1: 2, 11: 3, 2: 4},
    "tuples": {(0, 1): 1, (0, (1, 2)): 2},
    "several kinds": {"b": 1, 2: 2, "a": 3, None: 4, 1.5: 5, b"x": 6, True: 7},
    "with slashes": {"dec/w": 1, "enc/w": 2, "actor": 3},
    "in an order": collections.OrderedDict([("b", 1), ("a", {9: 1, 10: 2})]),
    "with a default": collections.defaultdict(list, {5: [1], 10: (2,), 2: []}),
    "counted": collections.Counter("cabba"),
    "in a NamedTuple": Pair({2: 1, 10: 2, 1: 3}, collections.OrderedDict(b=1, a=2)),
    "in a queue": collections.deque([{2: 1, 1: 2}], maxlen=5),
    "frozen": flax.core.freeze({"b": {"d": 1, "c": 2}, "a": 3}),
    "of chex": Transition(reward={"b": 1, "a": 2}, obs=2),
}


@pytest.mark.parametrize("kind", KEYS)
def test_read_keeps_keys_and_their_order(tmp_path, kind):
    tree = KEYS[kind]
    elementsckpt.checkpoint.save(tmp_path / "a", {"tree": lambda: tree})
    expected = elementsckpt.read(tmp_path / "a", mmap=False)["tree"]
    assert_same(expected, read(tree))
    assert repr(expected) == repr(read(tree))


@pytest.mark.parametrize("kind", TREES)
def test_a_tree_is_loaded_around_its_template(kind):
    tree, template, _ = TREES[kind]
    loaded = round_trip(tree, template)
    assert type(loaded) is type(template)
    np.testing.assert_equal(read(loaded), read(tree))
    if isinstance(template, dict) and "w" in template:
        template, loaded = template["w"], loaded["w"]
    for name in ("name", "names", "sizes", "tag", "apply", "func"):
        assert getattr(loaded, name, None) == getattr(template, name, None)


def test_a_dataclass_is_copied_and_never_initialized():
    tree, template = Plain(one(), "saved", (1,)), Plain(one(0), "template", (2, 3))
    tree.late, template.late = one(5), one(0)
    before = Plain.made
    loaded = round_trip(tree, template)
    assert Plain.made == before
    assert (loaded.name, loaded.sizes) == ("template", (2, 3))
    np.testing.assert_equal([loaded.w, loaded.late], [one(), one(5)])
    np.testing.assert_equal([template.w, template.late], [one(0), one(0)])


def test_the_template_stays_what_it_was():
    template = {"a": np.zeros(2), "b": [np.zeros(2)], "c": Point(np.zeros(2))}
    round_trip({"a": one(), "b": [one()], "c": Point(one())}, template)
    np.testing.assert_equal(template["a"], np.zeros(2))
    np.testing.assert_equal(template["b"], [np.zeros(2)])
    np.testing.assert_equal(template["c"].x, np.zeros(2))


def test_dicts_keep_the_order_of_the_template():
    template = collections.OrderedDict([("b", 0), ("a", 0)])
    loaded = round_trip({"a": 1, "b": 2}, template)
    assert list(loaded.items()) == [("b", 2), ("a", 1)]


def test_sequences_and_mappings_of_other_types_fit():
    tree = {"a": (1, [2]), "b": flax.core.freeze({"c": 3})}
    template = {"a": [0, (0,)], "b": collections.OrderedDict(c=0)}
    loaded = round_trip(tree, template)
    assert loaded == {"a": [1, (2,)], "b": {"c": 3}}
    assert type(loaded["b"]) is collections.OrderedDict


# Code


def function_of_our_own(x):
    return x


CODE = {
    "function": (function_of_our_own, math.sin),
    "lambda": (lambda x: x, lambda x: 2 * x),
    "partial": (functools.partial(math.pow, 2), functools.partial(math.pow, 3)),
    "method": ("abc".upper, "abc".lower),
    "linen method": (flax.linen.Dense(2).apply, flax.linen.Dense(3).apply),
    "class": (Plain, Point),
    "jitted": (jax.jit(lambda x: x), jax.jit(lambda x: 2 * x)),
    "custom derivative": (jax.nn.relu, jax.nn.silu),
    "ufunc": (np.add, np.multiply),
    "scalar type": (jnp.float32, jnp.bfloat16),
    "linen module": (flax.linen.Dense(2), flax.linen.Dense(3)),
    "optimizer": (optax.adam(0.1), optax.sgd(0.1)),
}


@pytest.mark.parametrize("kind", CODE)
def test_code_is_neither_saved_nor_loaded(kind):
    saved, own = CODE[kind]
    loaded = round_trip({"w": one(), "f": [saved]}, {"w": one(0), "f": [own]})
    np.testing.assert_equal(loaded["w"], one())
    if isinstance(own, tuple):
        assert all(x is y for x, y in zip(loaded["f"][0], own, strict=True))
    else:
        assert loaded["f"][0] is own


class Policy:
    """Can be called, has no name, and holds what must not be lost."""

    def __init__(self, w):
        self.w = w

    def __call__(self, x):
        return x * self.w


def test_objects_that_can_be_called_are_not_taken_for_code(tmp_path):
    report = save_pytree(tmp_path / "a", {"policy": Policy(one())})
    assert report.pickled == ("tree/policy",)
    with pytest.raises(PickleError, match="tree/policy"):
        load_pytree(tmp_path / "a", {"policy": Policy(one(0))})
    template = {"policy": Policy(one(0))}
    loaded = load_pytree(tmp_path / "a", template, allow_pickle=True)
    np.testing.assert_equal(loaded["policy"].w, one())


@pytest.mark.parametrize("make", [collections.UserDict, collections.UserList, Policy])
def test_what_nothing_opens_is_pickled(tmp_path, make):
    report = save_pytree(tmp_path / "a", [make([("a", 1)])])
    assert report.pickled == ("tree/0",)
    (loaded,) = load_pytree(tmp_path / "a", [make([("b", 2)])], allow_pickle=True)
    assert vars(loaded) == vars(make([("a", 1)]))


def make_train_state(seed, apply_fn=None, tx=None):
    net = flax.linen.Dense(3)
    params = net.init(jax.random.key(seed), jnp.ones((1, 2)))
    return TrainState.create(
        apply_fn=apply_fn or net.apply, params=params, tx=tx or optax.adam(0.1)
    )


def test_a_train_state_goes_on_bit_for_bit():
    @jax.jit
    def step(state, x):
        grads = jax.grad(lambda p: (state.apply_fn(p, x) ** 2).sum())(state.params)
        return state.apply_gradients(grads=grads)

    x = jnp.arange(4.0).reshape(2, 2)
    state = step(step(make_train_state(0), x), x)
    template = make_train_state(1)
    loaded = round_trip(state, template)
    assert_same(state.step, loaded.step)  # An array, not the template's int.
    assert loaded.tx is template.tx
    assert loaded.apply_fn is template.apply_fn
    for _ in range(3):
        state, loaded = step(state, x), step(loaded, x)
    assert_same(*map(jax.tree_util.tree_leaves, (state.params, loaded.params)))
    assert_same(*map(jax.tree_util.tree_leaves, (state.opt_state, loaded.opt_state)))


def test_an_equinox_model_goes_on_bit_for_bit():
    tx = optax.adam(0.1)

    def make(seed):
        net = eqx.nn.MLP(2, 3, 4, 1, jax.nn.gelu, key=jax.random.key(seed))
        return net, tx.init(eqx.filter(net, eqx.is_array))

    @eqx.filter_jit
    def step(net, state, x):
        def loss(net):
            return (jax.vmap(net)(x) ** 2).sum()

        updates, state = tx.update(eqx.filter_grad(loss)(net), state, net)
        return eqx.apply_updates(net, updates), state

    x = jnp.arange(4.0).reshape(2, 2)
    tree = step(*step(*make(0), x), x)
    loaded = round_trip(tree, make(1))
    assert type(loaded[0]) is eqx.nn.MLP
    for _ in range(3):
        tree, loaded = step(*tree, x), step(*loaded, x)
    arrays = [
        jax.tree_util.tree_leaves(eqx.filter(x, eqx.is_array)) for x in (tree, loaded)
    ]
    assert_same(*arrays)


def test_the_state_of_an_equinox_layer_is_a_tree_like_any():
    def make():
        return eqx.nn.make_with_state(eqx.nn.BatchNorm)(3, "batch", mode="batch")

    try:
        _, state = make()
    except TypeError:  # Before there were modes.
        _, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(3, "batch")
    other = jax.tree_util.tree_map(jnp.ones_like, state)
    loaded = round_trip(other, state)
    assert_same(*map(jax.tree_util.tree_leaves, (other, loaded)))


def test_trees_need_no_jax(tmp_path):
    script = """
import collections, dataclasses, sys, typing
import numpy as np
from elementsckpt import load_pytree, read, save_pytree

class Pair(typing.NamedTuple):
    a: typing.Any
    b: typing.Any

@dataclasses.dataclass(frozen=True)
class Point:
    x: typing.Any
    f: typing.Any = dataclasses.field(default=None, metadata={"static": True})

def make(value):
    return Pair({"w": np.full(2, value)}, Point(value, print))

save_pytree(sys.argv[1], make(5))
loaded = load_pytree(sys.argv[1], make(0))
assert type(loaded) is Pair and type(loaded.b) is Point
assert loaded.a["w"].tolist() == [5, 5] and loaded.b == Point(5, print)
assert list(read(sys.argv[1])["tree"]) == ["a", "b"]
assert "jax" not in sys.modules
"""
    result = python(script, tmp_path / "tree")
    assert result.returncode == 0, result.stderr


# What earlier versions saved


def by_name(tree):
    """Return nested dicts in the order of their keys."""
    if not isinstance(tree, dict):
        return tree
    return {key: by_name(tree[key]) for key in sorted(tree)}


# A tree, and what earlier versions saved of it.
OLD = {
    "keys as text": (
        {(0, 1): 1, "b": 2, None: 3, 2.5: 4},
        {"(0, 1)": 1, "2.5": 4, "None": 3, "b": 2},
    ),
    "integers by their text": (
        {key: key for key in range(12)},
        {key: key for key in sorted(range(12), key=str)},
    ),
    "keys that look alike": ({1: 5, "1": 6}, {"'1'": 6, "1": 5}),
    "enum keys": ({Color.RED: 5, Color.BLUE: 6}, {"Color.BLUE": 6, "Color.RED": 5}),
    "other containers": (
        collections.OrderedDict(b=[1], a=collections.deque([Pair(1, 2)])),
        {"a": [{"first": 1, "second": 2}], "b": [1]},
    ),
    "names that are one": (
        {"a/b": 1, "a": {"b": 2}, "c": collections.Counter({"d": 3})},
        {"a": {"b": 2}, "a/b": 1, "c": {"d": 3}},
    ),
    "generators": (
        {"rng": np.random.default_rng(5)},
        by_name({"rng": states_of(np.random.default_rng(5))}),
    ),
    "code": (
        {"f": functools.partial(function_of_our_own, one(5)), "w": 1},
        {"f": {}, "w": 1},
    ),
}


@pytest.mark.parametrize("kind", OLD)
def test_what_earlier_versions_saved_loads(tmp_path, kind):
    tree, state = OLD[kind]
    elementsckpt.checkpoint.save(tmp_path / "a", {"tree": lambda: state})
    template = tree if kind == "code" else zeros(tree)
    assert_same(tree, load_pytree(tmp_path / "a", template))


# What does not fit


DIFFERENCES = {
    "missing": ({"a": one()}, {"a": one(), "b": one()}, "b: not in the save"),
    "unexpected": ({"a": one(), "b": one()}, {"a": one()}, "b: only in the save"),
    "shape": (
        {"w": np.ones((2, 3))},
        {"w": np.ones((3, 2))},
        "w: saved float64[2,3], expected float64[3,2]",
    ),
    "rank": (
        {"w": one()},
        {"w": np.ones(())},
        "w: saved float64[2], expected float64[]",
    ),
    "dtype": (
        {"w": one()},
        {"w": np.ones(2, np.float32)},
        "w: saved float64[2], expected float32[2]",
    ),
    "byte order": (
        {"w": np.ones(2, "<f8")},
        {"w": np.ones(2, ">f8")},
        "w: saved float64[2], expected >f8[2]",
    ),
    "None": ({"w": one()}, {"w": None}, "w: saved float64[2], expected NoneType"),
    "array": ({"w": None}, {"w": one()}, "w: saved NoneType, expected float64[2]"),
    "text": ({"w": "a"}, {"w": one()}, "w: saved str, expected float64[2]"),
    "code": ({"w": one()}, {"w": math.sin}, "w: only in the save"),
    "leaf": ({"w": one()}, {"w": {"x": one()}}, "w/x: not in the save"),
    "length": ([1, 2], [1], "1: only in the save"),
    "more of one name": (
        {"a/b": one(), "a": {"b": one()}},
        {"a/b": one()},
        "a/b: 2 saved leaves have this name and 1 current ones",
    ),
}


@pytest.mark.parametrize("kind", DIFFERENCES)
def test_each_difference_is_named(kind):
    tree, template, expected = DIFFERENCES[kind]
    assert f"tree/{expected}" in mismatches(tree, template)


def test_all_differences_are_in_one_error():
    tree = {"a": one(), "b": one(), "c": one(), "d": 0.5, "e": 1}
    template = {"a": np.ones(3), "b": jnp.ones(2), "d": True, "e": 0, "f": one()}
    assert mismatches(tree, template) == [
        "tree/a: saved float64[2], expected float64[3]",
        "tree/b: saved float64[2], expected float32[2]",
        "tree/c: only in the save",
        "tree/d: saved float, expected bool",
        "tree/f: not in the save",
    ]


def test_a_mismatch_is_a_value_error_that_names_path_and_remedy(tmp_path):
    save_pytree(tmp_path / "a", one())
    with pytest.raises(ValueError, match="tree: saved") as error:
        load_pytree(tmp_path / "a", np.ones(3))
    assert str(tmp_path / "a") in str(error.value)
    assert "elementsckpt.read" in str(error.value)


@pytest.mark.parametrize("depth", [None, 100_000])
def test_a_tree_that_holds_itself_or_is_too_deep_is_refused(tmp_path, depth):
    tree = []
    if depth is None:
        tree.append(tree)
    else:
        for _ in range(depth):
            tree = [tree]
    with pytest.raises(StateError, match="nested too deeply"):
        save_pytree(tmp_path / "a", tree)
    assert not elementsckpt.exists(tmp_path / "a")
    save_pytree(tmp_path / "b", [1])
    with pytest.raises(StateError, match="nested too deeply"):
        load_pytree(tmp_path / "b", tree)


def test_a_shape_without_elements_is_not_saved(tmp_path):
    tree = {"params": [jnp.ones(2), jax.ShapeDtypeStruct((2, 3), np.float32)]}
    with pytest.raises(StateError, match=r"params/1 is .*\(2, 3\)"):
        save_pytree(tmp_path / "a", tree)
    assert not elementsckpt.exists(tmp_path / "a")


# Paths


def test_a_path_without_a_save_is_a_file_that_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        load_pytree(tmp_path / "none", one())
    assert isinstance(error.value, SaveNotFoundError)
    assert str(tmp_path / "none") in str(error.value)
    assert "not found" in str(error.value)


def test_a_save_is_never_overwritten(tmp_path):
    save_pytree(tmp_path / "a", one())
    with pytest.raises(SaveExistsError):
        save_pytree(tmp_path / "a", one(2))
    np.testing.assert_equal(load_pytree(tmp_path / "a", one(0)), one())


def test_metadata_is_in_info(tmp_path):
    path = tmp_path / "a"
    assert not elementsckpt.exists(path)
    save_pytree(path, one(), {"step": 3, "config": {"lr": 0.1}})
    assert elementsckpt.exists(path)
    assert elementsckpt.info(path).metadata == {"step": 3, "config": {"lr": 0.1}}


def test_a_directory_means_its_newest_good_save(tmp_path):
    contents = [np.full(50_000, x) for x in (1.0, 2.0, 3.0)]
    for number, content in enumerate(contents):
        save_pytree(tmp_path / f"{number}", content, compress=None)
    loaded = load_pytree(tmp_path, np.zeros(50_000))
    assert loaded[0] == 3
    damage(block_with(tmp_path / "2", contents[2][:1000].tobytes()))
    loaded = load_pytree(tmp_path, np.zeros(50_000))
    assert loaded[0] == 2
    with pytest.raises(DamagedError):
        load_pytree(tmp_path / "2", np.zeros(50_000))


def test_a_save_of_a_checkpoint_says_which_components_it_has(tmp_path):
    cp = elementsckpt.Checkpoint(tmp_path)
    cp.agent = elementsckpt.Value(one())
    cp.save()
    with pytest.raises(MissingKeyError, match="'agent'"):
        load_pytree(tmp_path, one(0))


def test_what_one_process_saved_a_checkpoint_loads(tmp_path):
    save_pytree(tmp_path / "a", Point(one(), 3))
    cp = elementsckpt.Checkpoint()
    cp.tree = elementsckpt.Value(Point(one(0), 0))
    cp.load(tmp_path / "a")
    np.testing.assert_equal(cp.tree.value.x, one())
    assert cp.tree.value.y == 3


@pytest.mark.parametrize("verify", [True, False])
def test_arrays_are_mapped_copy_on_write(tmp_path, verify):
    array = np.arange(100_000.0)
    save_pytree(tmp_path / "a", {"w": array, "n": 1}, compress=None)
    template = {"w": np.zeros(100_000), "n": 0}
    loaded = load_pytree(tmp_path / "a", template, mmap=True, verify=verify)
    np.testing.assert_equal(loaded["w"], array)
    loaded["w"][:] = 0
    np.testing.assert_equal(load_pytree(tmp_path / "a", template)["w"], array)


def test_damage_is_found(tmp_path):
    array = np.arange(100_000.0)
    save_pytree(tmp_path / "a", [Frozen(array), Slotted(1, Pair(2, 3))], compress=None)
    damage(block_with(tmp_path / "a", array[:100].tobytes()))
    template = [Frozen(np.zeros(100_000)), Slotted(0, Pair(0, 0))]
    with pytest.raises(DamagedError, match="tree/0/x"):
        load_pytree(tmp_path / "a", template)


def test_any_leaf_may_be_a_numpy_generator():
    rng = np.random.default_rng(5)
    rng.normal(size=3)
    loaded = round_trip({"rng": rng}, {"rng": np.random.default_rng(0)})["rng"]
    assert loaded.normal() == rng.normal()

"""Attributes and content of containers are kept, whatever their classes say of them."""

import copy
import copyreg
import dataclasses
import datetime
import decimal
import fractions
import functools
import logging
import pathlib
import sys
import threading
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any, NamedTuple

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import elementsckpt
from elementsckpt import Checkpoint, Saveable, Value

from support import strategies
from support.boxes import make, python
from support.folders import forge
from support.strategies import PROPERTY, Noted, Pair, Point, assert_same, round_trip


def noted(value, **attributes):
    vars(value).update(attributes)
    return value


# What a container has beside what it holds

LOOSE = {
    "OrderedDict": lambda: OrderedDict(a=np.ones(2), b=1),
    "Counter": lambda: Counter("aab"),
    "NamedTuple": lambda: Noted(1, [2]),
    "dataclass": lambda: Point(1),
}


@pytest.mark.parametrize("name", LOOSE)
@pytest.mark.parametrize("where", ["alone", "in a list", "twice"])
def test_attributes_of_a_container_need_no_pickle(name, where):
    value = noted(LOOSE[name](), _metadata=OrderedDict(v={"version": 2}), x=np.zeros(3))
    state = {"alone": value, "in a list": [value], "twice": [value, {"a": value}]}[
        where
    ]
    assert_same(state, round_trip(state))


def test_attributes_share_with_the_rest_of_the_state():
    array, inner = np.ones(3), noted(OrderedDict(), deep=[1])
    state = noted(OrderedDict(a=array, inner=inner), again=array, outer=[inner])
    loaded = round_trip({"state": state, "array": array})
    assert_same({"state": state, "array": array}, loaded)
    assert loaded["state"].again is loaded["array"]


def test_an_attribute_that_holds_its_container_goes_through_pickle():
    state = OrderedDict(a=1)
    state.me = state
    loaded = round_trip([state], own=True)[0]
    assert loaded.me is loaded
    assert loaded == {"a": 1}


def test_attributes_that_only_pickle_holds_come_back(tmp_path):
    state = noted(OrderedDict(a=np.ones(2)), f=lambda: 7)
    cp = make(tmp_path, {"x": state})
    assert cp.save().pickled == ("agent/x/.f",)
    cp.load()
    assert cp.agent.state["x"].f() == 7


def test_attributes_are_not_selected_by_name_and_stay_in_a_part(tmp_path):
    saved = noted(OrderedDict(a=np.ones(2), b=np.ones(2)), note=np.ones(3), old=1)
    path = make(tmp_path, {"x": saved}).save().path
    cp = make(state={"x": noted(OrderedDict(a=np.zeros(2)), note="mine")})
    cp.agent.state["x"]["b"] = np.zeros(2)
    report = cp.load(path, regex=".*/a")
    assert report.loaded == ("agent/x/a",)
    assert_same(np.ones(2), cp.agent.state["x"]["a"])
    assert vars(cp.agent.state["x"]) == {"note": "mine"}
    assert cp.load(path, regex=".*").loaded == ("agent/x/a", "agent/x/b")
    assert_same(vars(saved), vars(cp.agent.state["x"]))
    found = elementsckpt.read(path, regex=".*")["agent"]["x"]
    assert list(found) == ["a", "b"]
    assert vars(found) == {}
    assert cp.load(path).loaded == ("agent/x/a", "agent/x/b")
    assert cp.agent.state["x"].old == 1
    assert elementsckpt.read(path)["agent"]["x"].old == 1


def test_a_component_without_the_attributes_takes_a_save_with_them(tmp_path):
    path = make(tmp_path, noted(OrderedDict(a=1), note=2)).save().path
    cp = make(state=OrderedDict(a=5))
    cp.load(path, regex=".*")
    assert cp.agent.state == {"a": 1}
    assert vars(cp.agent.state) == {"note": 2}
    cp.agent.state = {"a": 5}  # Which takes none.
    cp.load(path, regex=".*")
    assert cp.agent.state == {"a": 1}


def test_attributes_of_a_class_that_is_not_found_are_in_the_dict(tmp_path):
    class Local(NamedTuple("Local", [("x", Any)])):
        pass

    path = make(tmp_path, [noted(Local(1), note=2)]).save().path
    cp = make()
    report = cp.load(path)
    assert cp.agent.state == [{"x": 1, "note": 2}]
    assert list(report.plain) == ["agent/0"]
    assert elementsckpt.read(path)["agent"] == [{"x": 1, "note": 2}]


def test_a_class_that_takes_no_attributes_any_more_is_not_used(tmp_path):
    class Local(NamedTuple("Local", [("x", Any)])):
        pass

    class Strict(NamedTuple("Local", [("x", Any)])):
        __slots__ = ()

    Strict.__qualname__ = Local.__qualname__
    path = make(tmp_path, [noted(Local(1), note=2)]).save().path
    cp = make(state=[Strict(5)])
    assert list(cp.load(path).plain) == ["agent/0"]
    assert cp.agent.state == [{"x": 1, "note": 2}]


TEMPLATES = {
    **LOOSE,
    "defaultdict": lambda: defaultdict(list, a=np.ones(2)),
    "nested": lambda: OrderedDict(a=noted(OrderedDict(b=np.ones(2)), deep=1)),
}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("jax", [False, True])
def test_a_template_keeps_its_attributes(monkeypatch, tmp_path, name, jax):
    if not jax:
        monkeypatch.delitem(sys.modules, "jax", raising=False)
    template = TEMPLATES[name]()
    if hasattr(template, "__dict__"):
        noted(template, _metadata={"version": 2}, keys="not the method")
    cp = Checkpoint(tmp_path, fsync=False)
    cp.state = Value({"x": template, "y": np.zeros(2)})
    cp.save()
    before = copy.deepcopy(getattr(template, "__dict__", {}))
    cp.state.value = {"x": template, "y": np.ones(2)}
    cp.load()
    loaded = cp.state.value["x"]
    assert type(loaded) is type(template)
    assert {**getattr(loaded, "__dict__", {})} == before
    assert_same(np.zeros(2), cp.state.value["y"])


# Loaded with what is in the container, or not at all


@jax.tree_util.register_pytree_with_keys_class
class Registered(dict):
    def tree_flatten_with_keys(self):
        keys = sorted(self)
        return [(jax.tree_util.DictKey(key), self[key]) for key in keys], tuple(keys)

    @classmethod
    def tree_unflatten(cls, keys, children):
        return cls(zip(keys, children, strict=True))


@chex.dataclass
class Chex:
    w: Any


@flax.struct.dataclass
class Struct:
    w: Any
    f: Any = flax.struct.field(pytree_node=False, default=None)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["w"], meta_fields=[])
@dataclasses.dataclass
class OfJax:
    w: Any


CONTAINERS = {
    "OrderedDict": lambda n: OrderedDict(w=np.full(2, n)),
    "Counter": lambda n: Counter({"w": n}),
    "NamedTuple": lambda n: Noted(np.full(2, n), [n]),
    "without leaves": lambda n: OrderedDict(),
}
TREES = {
    **CONTAINERS,
    "dataclass": lambda n: Point(np.full(2, n)),
    "dict of JAX": lambda n: Registered(w=np.full(2, n)),
    "chex": lambda n: Chex(w=np.full(2, n)),
    "flax": lambda n: Struct(np.full(2, n), min),
    "dataclass of JAX": lambda n: OfJax(w=np.full(2, n)),
}


def attributed(container, n):
    """Return a container all of which tells by what number it was made."""
    deep = noted(OrderedDict(k=jnp.full(2, n)), deeper=n)
    dates = np.array([n], ">M8[s]")  # Of which pickles of NumPy lose the byte order.
    return noted(container(n), note=n, deep=deep, dates=dates)


WAYS = {
    "not strict": {"strict": False},
    "cast": {"cast": True},
    "rename": {"rename": {"^nothing": ""}},
    "regex": {"regex": ".*"},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CONTAINERS)
def test_attributes_come_with_all_of_a_container(tmp_path, name, way):
    new = functools.partial(attributed, CONTAINERS[name])
    cp = make(tmp_path, {"x": new(1), "y": [new(2), 0]}, fsync=False)
    cp.save()
    cp.agent.state = {"x": new(3), "y": [new(4), 1]}
    cp.load(**WAYS[way])
    assert_same({"x": new(1), "y": [new(2), 0]}, cp.agent.state)


@pytest.mark.parametrize("name", TREES)
def test_attributes_come_with_all_of_a_container_in_a_value(tmp_path, name):
    new = functools.partial(attributed, TREES[name])

    def check(loaded, n):
        assert_same(new(n), loaded["x"])

    cp = Checkpoint(tmp_path, fsync=False)
    cp.state = Value({"x": new(1), "y": [0, 1]})
    path = cp.save().path
    for options in {}, *WAYS.values():
        cp.state.value = {"x": new(2), "y": [1, 2]}
        cp.load(**options)
        check(cp.state.value, 1)
    cp.state.value = {"x": new(2), "y": [1, 2]}
    cp.load(regex="y/0")
    check(cp.state.value, 2)
    other = Checkpoint()
    other.state = Value({"x": new(2), "y": [1, 2]})
    other.load(path)
    check(other.state.value, 1)
    other.state.load(cp.state.save())
    check(other.state.value, 2)
    fresh = Checkpoint(tmp_path)
    fresh.state = Value()
    fresh.load()
    check(fresh.state.value, 1)
    tree = elementsckpt.load_pytree(path, {"x": new(2), "y": [1, 2]}, key="state")
    check(tree, 1)


LOOSE_ONES = (OrderedDict, Counter, Noted)


def renewed(value, kinds):
    """Return a copy in which containers of these kinds have other attributes.

    No dict has two keys that are NaN or NaT: their leaves have one name, and no key
    equals another, so a load into a current state refuses them.
    """
    value = copy.deepcopy(value)

    def renew(item):
        held = {"x", "y"} if type(item) is Point else set()
        if isinstance(item, kinds):
            for name in vars(item).keys() - held:
                del vars(item)[name]
            item.other = "not saved"
        if isinstance(item, dict):
            assume(sum(key != key for key in item) < 2)
            children = list(dict.values(item))
        elif isinstance(item, list | tuple | deque):
            children = list(item)
        else:
            is_data = type(item).__module__ == Point.__module__
            children = [item.x, getattr(item, "y", 0)] if is_data else []
        for child in children:
            renew(child)

    renew(value)
    return value


@PROPERTY
@given(strategies.states(), st.sampled_from([*WAYS.values()][:3]))
def test_all_of_any_state_replaces_all(state, way):
    into = renewed(state, LOOSE_ONES)  # Those of dataclasses are leaves by name.
    assert_same(state, round_trip(state, into=into, **way))


@PROPERTY
@given(strategies.states())
def test_all_of_any_value_replaces_all(tmp_path_factory, state):
    directory = tmp_path_factory.mktemp("run")
    cp = Checkpoint(directory, fsync=False)
    cp.state = Value(state)
    cp.save()
    cp.state = Value(renewed(state, (*LOOSE_ONES, Point)))
    cp.load()
    assert_same(state, cp.state.value)


def test_renamed_as_a_whole_a_container_has_its_attributes(tmp_path):
    new = functools.partial(attributed, CONTAINERS["OrderedDict"])
    cp = make(tmp_path, {"ours": new(1), "other": new(2)}, fsync=False)
    cp.save()
    cp.agent.state = {"theirs": new(3), "other": new(4)}
    cp.load(rename={"^ours": "theirs"})
    assert_same({"theirs": new(1), "other": new(2)}, cp.agent.state)
    cp.agent.state = {"ours": OrderedDict(v=np.zeros(2, int)), "other": new(4)}
    cp.agent.state["ours"].note = "for v"
    cp.load(rename={"^ours/w": "ours/v"})  # It has other names then.
    assert vars(cp.agent.state["ours"]) == {"note": "for v"}


def test_containers_of_the_same_leaves_keep_their_own_attributes(tmp_path):
    array = np.ones(2)
    state = [noted(OrderedDict(w=array), note=n) for n in range(3)]
    cp = make(tmp_path, state, fsync=False)
    cp.save()
    cp.agent.state = [noted(OrderedDict(w=np.zeros(2)), note=9) for _ in range(3)]
    cp.load(strict=False)
    assert [x.note for x in cp.agent.state] == [0, 1, 2]
    assert_same(state, cp.agent.state)


def test_a_save_that_does_not_tell_of_attributes_leaves_them(tmp_path):
    cp = Checkpoint(tmp_path, fsync=False)
    cp.state = Value([Point(np.zeros(2))])
    cp.save()
    forge(cp.latest(), lambda manifest: manifest.update(version=1))
    cp = Checkpoint(tmp_path)
    cp.state = Value([noted(Point(np.ones(2)), note="mine")])
    cp.load()
    assert_same(noted(Point(np.zeros(2)), note="mine"), cp.state.value[0])


def test_a_template_without_a_place_for_attributes_has_none(tmp_path):
    cp = Checkpoint(tmp_path, fsync=False)
    cp.state = Value([noted(Point(np.ones(2), 1), note=1)])
    cp.save()
    for now in strategies.Slotted(np.zeros(2), 0), {"x": np.zeros(2), "y": 0}:
        cp.state = Value([now])
        cp.load()
        (loaded,) = cp.state.value
        assert type(loaded) is type(now)
        assert_same(np.ones(2), loaded["x"] if type(now) is dict else loaded.x)


def test_attributes_that_need_pickle_stay_where_it_is_not_allowed(tmp_path, caplog):
    saved = noted(OrderedDict(w=np.ones(2)), f=lambda: 1, note=1)
    path = make(tmp_path, {"x": saved}).save().path
    cp = make(state={"x": noted(OrderedDict(w=np.zeros(2)), f=lambda: 2, note=2)})
    cp.load(path, strict=False)
    found = cp.agent.state["x"]
    assert (found["w"].tolist(), found.note, found.f()) == ([1, 1], 1, 2)
    assert (
        "agent/x/.f was saved with pickle, so its current value is kept" in caplog.text
    )
    cp.load(path, strict=False, allow_pickle=True)
    assert cp.agent.state["x"].f() == 1


class Cached(NamedTuple("Cached", [("w", Any)])):
    @functools.cached_property
    def total(self):
        return self.w.sum()

    @functools.cached_property
    def step(self):
        return lambda: self.w


def test_what_only_pickle_holds_is_static_in_a_value_and_told_of(tmp_path, caplog):
    def new(n):
        value = noted(Cached(np.full(2, n)), f=lambda: n, lock=Locked(n), note=n)
        return value, value.total, value.step

    cp = Checkpoint(tmp_path, fsync=False)
    cp.state = Value({"x": new(1)[0]})
    cp.save()
    cp.state.value = {"x": new(2)[0]}
    cp.save()
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith("state/x has attributes beside what it holds that only ")
    assert ", lock: they are neither saved nor loaded." in message
    cp.state.value = {"x": new(3)[0]}
    cp.load()
    loaded = cp.state.value["x"]
    assert (loaded.f(), loaded.lock.n, loaded.note, loaded.total) == (3, 3, 2, 4)
    assert loaded.step().tolist() == [2, 2]  # It was bound to the value of before.


class Locked:
    def __init__(self, n):
        self.n, self.lock = n, threading.Lock()


def test_attributes_are_read_where_something_is_left_out(tmp_path):
    saved = noted(OrderedDict(a=1), note=[2], f=lambda: 0)
    path = make(tmp_path, {"x": saved, "odd": lambda: 0}).save().path
    found = elementsckpt.read(path)["agent"]
    assert found.keys() == {"x"}
    assert vars(found["x"]) == {"note": [2]}


# What torch keeps there


@pytest.mark.torch
def test_versions_of_torch_modules_reach_load_state_dict(tmp_path):
    torch = pytest.importorskip("torch")

    class Old(torch.nn.Linear):
        _version = 3

        def _load_from_state_dict(self, state, prefix, metadata, *args):
            self.found = metadata.get("version")
            super()._load_from_state_dict(state, prefix, metadata, *args)

    cp = Checkpoint(tmp_path, fsync=False)
    cp.model = torch.nn.Sequential(Old(2, 2))
    cp.save()
    cp.model = torch.nn.Sequential(Old(2, 2))
    cp.load()
    assert cp.model[0].found == 3
    for foreign in Checkpoint(), Checkpoint(tmp_path):
        foreign.model = torch.nn.Sequential(Old(2, 2))
        foreign.load(tmp_path, regex=".*")
        assert foreign.model[0].found == 3


@pytest.mark.torch
def test_a_tensordict_keeps_batch_size_and_what_is_no_tensor(tmp_path):
    torch = pytest.importorskip("torch")
    tensordict = pytest.importorskip("tensordict")

    def new(text, n):
        made = tensordict.TensorDict({"a": torch.full((3, 2), n)}, batch_size=[3])
        made["text"] = text
        return made

    def component(data):
        return Saveable(save=data.state_dict, load=data.load_state_dict)

    cp = Checkpoint(tmp_path, fsync=False)
    cp.data = component(new("saved", 1.0))
    cp.save()
    fresh = new("fresh", 2.0)
    cp.data = component(fresh)
    cp.load()
    assert fresh["text"] == "saved"
    assert fresh["a"].eq(1).all()
    assert fresh.batch_size == (3,)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.torch
def test_a_quantized_layer_comes_back(tmp_path):
    torch = pytest.importorskip("torch")
    quantized = torch.nn.quantized.dynamic

    def layer(seed):
        torch.manual_seed(seed)
        return quantized.Linear.from_float(prepared(torch.nn.Linear(4, 3)))

    def prepared(linear):
        linear.qconfig = torch.ao.quantization.default_dynamic_qconfig
        return linear

    first, second = layer(0), layer(1)
    cp = Checkpoint(tmp_path, fsync=False)
    cp.layer = first
    cp.save()
    cp.layer = second
    cp.load()
    x = torch.ones(2, 4)
    assert torch.equal(first(x), second(x))


# Classes that answer in their own way


class OtherList(list):
    def __iter__(self):
        return iter(["other"])

    def append(self, item):
        raise AssertionError

    extend = __len__ = __getitem__ = append


class OtherDict(dict):
    def items(self):
        return [("other", 1)]

    def __setitem__(self, key, value):
        raise AssertionError

    keys = values = __iter__ = lambda self: iter(["other"])


class OtherOrdered(OrderedDict):
    def items(self):
        return [("other", 1)]

    def __setitem__(self, key, value):
        raise AssertionError


class OtherDefault(defaultdict):
    def items(self):
        return [("other", 1)]


class OtherCounter(Counter):
    def items(self):
        return [("other", 1)]


class OtherSet(set):
    def __iter__(self):
        return iter(["other"])


class OtherFrozenSet(frozenset):
    def __iter__(self):
        return iter(["other"])


class OtherDeque(deque):
    def __iter__(self):
        return iter(["other"])


class OtherTuple(tuple):
    def __new__(cls, items, *, sure):
        assert sure
        return super().__new__(cls, items)

    def __iter__(self):
        return iter(["other"])


class OtherNamed(Pair):
    """Gives its items in the order that it needs, as normalized states do."""

    def __iter__(self):
        return iter(["other"])


OTHERS = {
    "list": (OtherList([1, np.ones(2)]), list.__iter__),
    "dict": (OtherDict(a=1, b=np.ones(2)), dict.items),
    "OrderedDict": (noted(OtherOrdered(), n=1), OrderedDict.items),
    "defaultdict": (OtherDefault(list, a=np.ones(2)), dict.items),
    "Counter": (OtherCounter({"a": 1}), dict.items),
    "set": (OtherSet([1]), set.__iter__),
    "frozenset": (OtherFrozenSet([1]), frozenset.__iter__),
    "deque": (OtherDeque([1, 2], 5), deque.__iter__),
    "tuple": (OtherTuple([1, np.ones(2)], sure=True), tuple.__iter__),
    "NamedTuple": (OtherNamed(1, np.ones(2)), tuple.__iter__),
}
OrderedDict.__setitem__(OTHERS["OrderedDict"][0], "a", np.ones(2))


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("attribute", [None, 5])
@pytest.mark.parametrize("held", [False, True])
def test_content_is_what_the_builtin_type_holds(name, attribute, held):
    value, content = OTHERS[name]
    if attribute is not None:
        value.attribute = attribute
    state = {"x": Holder(value) if held else value}
    loaded = round_trip(state, own=True)["x"]
    loaded = loaded.value if held else loaded
    assert type(loaded) is type(value)
    assert_same(list(content(value)), list(content(loaded)))
    assert_same(vars(value), vars(loaded))
    if name == "deque":
        assert loaded.maxlen == 5
    if name == "defaultdict":
        assert loaded.default_factory is list


class Holder:
    """Only pickle holds it."""

    def __init__(self, value):
        self.value = value


@pytest.mark.parametrize("jax", [False, True])
def test_a_named_tuple_of_a_value_is_its_fields(monkeypatch, tmp_path, jax):
    if not jax:
        monkeypatch.delitem(sys.modules, "jax", raising=False)
    cp = Checkpoint(tmp_path, fsync=False)
    cp.state = Value([OtherNamed(np.zeros(1), np.ones(2))])
    cp.save()
    cp.state.value = [OtherNamed(np.ones(1), np.zeros(2))]
    cp.load()
    (loaded,) = cp.state.value
    assert type(loaded) is OtherNamed
    assert_same([np.zeros(1), np.ones(2)], list(tuple.__iter__(loaded)))


def test_a_named_tuple_of_other_length_than_its_fields_comes_back():
    value = tuple.__new__(Pair, [1, 2, 3])
    loaded = round_trip([value], own=True)[0]
    assert type(loaded) is Pair
    assert tuple(loaded) == (1, 2, 3)


class Subclassed(np.ndarray):
    pass


class Weight(np.float64):
    pass


SUBCLASSES = {
    "Counter": lambda: type("C", (Counter,), {})("aab"),
    "defaultdict": lambda: type("D", (defaultdict,), {})(list, a=[1]),
    "OrderedDict": lambda: type("O", (OrderedDict,), {})(a=1),
    "array": lambda: np.arange(6.0).reshape(2, 3).T.view(Subclassed),
    "array of objects": lambda: np.array([None, [1]], object).view(Subclassed),
    "records": lambda: np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    "matrix": lambda: np.ones((2, 3)).view(np.matrix),
    "scalar": lambda: Weight(1.5),
    "text": lambda: type("T", (str,), {})("text"),
    "integer": lambda: type("I", (int,), {})(7),
    "bytes": lambda: type("B", (bytes,), {})(b"ab"),
    "number": lambda: type("F", (float,), {})(0.5),
    "date": lambda: type("D", (datetime.datetime,), {})(2026, 11, 20),
    "duration": lambda: type("D", (datetime.timedelta,), {})(1, 2),
    "decimal": lambda: type("D", (decimal.Decimal,), {})("0.10"),
    "fraction": lambda: type("F", (fractions.Fraction,), {})(1, 3),
    "path": lambda: type("P", (pathlib.PurePosixPath,), {})("a/b"),
}


@pytest.mark.parametrize("name", SUBCLASSES)
def test_attributes_of_what_derives_from_builtins_come_back(name):
    value = SUBCLASSES[name]()
    value.note = {"n": np.arange(2)}
    loaded = round_trip({"x": value}, own=True)["x"]
    assert type(loaded).__name__ == type(value).__name__
    assert_same(value.note, loaded.note)
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        assert loaded.tobytes() == value.tobytes()
        assert loaded.dtype == value.dtype
        assert loaded.flags.f_contiguous == value.flags.f_contiguous
    else:
        assert str(loaded) == str(value)


def test_a_counter_in_a_pickle_keeps_its_attributes():
    value = noted(Counter("aab"), note=np.ones(2))
    loaded = round_trip([Holder(value)], own=True)[0].value
    assert_same(value, loaded)


def test_masked_arrays_keep_all_that_they_are():
    value = np.ma.MaskedArray([1.0, 2.0, 3.0], [0, 1, 0], hard_mask=True, fill_value=9)
    value.note = [1]
    loaded = round_trip([value, np.ma.masked, value[1:]], own=True)
    assert loaded[1] is np.ma.masked
    loaded[0][1] = 5  # A hard mask stays.
    assert loaded[0].mask.tolist() == [False, True, False]
    assert loaded[0].data.tolist() == [1, 2, 3]
    assert loaded[0].fill_value == 9
    assert loaded[0].note == [1]
    assert loaded[2].mask.tolist() == [True, False]


class Itself(dict):
    """A dict whose items are its attributes, as configurations often are."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.__dict__ = self


def test_a_dict_that_is_its_own_attributes_stays_that():
    value = Itself(a=1, b=np.ones(2))
    value.c = Itself(d=2)
    loaded = round_trip([value], own=True)[0]
    assert_same({**value, "c": dict(value.c)}, {**loaded, "c": dict(loaded.c)})
    loaded.e = 5
    assert loaded["e"] == 5


class Kept(dict):
    """Says itself what is to be pickled of it."""

    def __getstate__(self):
        return {"kept": self.kept}

    def __setstate__(self, state):
        self.kept = state["kept"]
        self.handle = "opened anew"


class OfTable(dict):
    pass


def test_classes_that_say_how_to_be_pickled_are_asked(monkeypatch):
    value = Kept(a=1)
    value.kept, value.handle = 5, lambda: 0
    loaded = round_trip([value], own=True)[0]
    assert (loaded, loaded.kept, loaded.handle) == ({"a": 1}, 5, "opened anew")
    monkeypatch.setitem(
        copyreg.dispatch_table, OfTable, lambda value: (dict, ([("asked", 1)],))
    )
    assert round_trip([OfTable(a=1)], own=True)[0] == {"asked": 1}


# Attributes that cannot be had


class AttrDict(dict):
    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__


class Delegating:
    """Looks up what it has not in what it holds, before that is there, too."""

    def __init__(self, **values):
        self.values = values

    def __getattr__(self, name):
        return self.values[name]


class Guarded:
    """Refuses to be asked anything."""

    def __getattribute__(self, name):
        raise RuntimeError(name)


class Callable:
    def __getattr__(self, name):
        raise KeyError(name)

    def __call__(self):
        return 7


class Text(str):
    def __getattr__(self, name):
        raise KeyError(name)


ODD = {
    "dict": (AttrDict(a=np.ones(2), b=AttrDict(c=1)), lambda x: {**x}),
    "object": (Delegating(a=np.ones(2)), lambda x: [x.a, x.values]),
    "guarded": (Guarded(), lambda x: type(x).__name__),
    "callable": (Callable(), lambda x: x()),
    "text": (noted(Text("ab"), n=1), lambda x: [str(x), vars(x)]),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("held", [False, True])
def test_an_attribute_that_cannot_be_had_is_not_there(name, held):
    value, content = ODD[name]
    loaded = round_trip({"x": [Holder(value) if held else value]}, own=True)["x"][0]
    loaded = loaded.value if held else loaded
    assert type(loaded) is type(value)
    assert_same(content(value), content(loaded))


@pytest.mark.parametrize("name", ODD)
def test_odd_objects_can_be_in_a_value(tmp_path, name):
    value, content = ODD[name]
    cp = Checkpoint(tmp_path, fsync=False)
    cp.state = Value({"odd": value, "w": np.zeros(2)})
    cp.save()
    cp.state.value["w"] = np.ones(2)
    cp.load()
    assert_same(np.zeros(2), cp.state.value["w"])
    assert_same(content(value), content(cp.state.value["odd"]))


SCRIPT = """
import sys
import numpy as np
import elementsckpt

class AttrDict(dict):
    __getattr__ = dict.__getitem__

class Run(AttrDict):
    def save(self):
        return {"config": AttrDict(lr=0.1), "w": self.w}
    def load(self, data):
        self["loaded"] = data

run = Run(w=np.ones(2))
cp = elementsckpt.Checkpoint(sys.argv[1], metadata=AttrDict(env="CartPole"))
cp.run = run
print(cp.load_or_save(), cp.run is run, cp.saves()[-1].metadata)
if "loaded" in run:
    print(type(run.loaded["config"]) is AttrDict, run.loaded["config"].lr)
"""


def test_an_odd_object_is_a_component_of_a_script_with_odd_metadata(tmp_path):
    first, second = (python(SCRIPT, tmp_path) for _ in range(2))
    assert (first.stderr, second.stderr) == ("", "")
    assert first.stdout.split("\n")[0] == "False True {'env': 'CartPole'}"
    assert second.stdout.split("\n")[0] == "True True {'env': 'CartPole'}"
    assert second.stdout.split("\n")[1] == "True 0.1"


@pytest.mark.parametrize("name", ["dict", "object", "callable", "text"])
def test_what_is_no_component_is_said_to_be_none(name):
    with pytest.raises(elementsckpt.ComponentError, match="Cannot register 'odd'"):
        Checkpoint().odd = ODD[name][0]


@dataclasses.dataclass
class OddFields:
    x: Any
    later: Any = dataclasses.field(init=False)

    def __getattr__(self, name):
        raise KeyError(name)


def test_a_field_that_cannot_be_had_stays_unset():
    loaded = round_trip([OddFields(np.ones(2))])[0]
    assert vars(loaded).keys() == {"x"}


@pytest.mark.parametrize("jax", [False, True])
def test_a_dataclass_that_cannot_be_asked_is_a_template(monkeypatch, tmp_path, jax):
    if not jax:
        monkeypatch.delitem(sys.modules, "jax", raising=False)
    cp = Checkpoint(tmp_path, fsync=False)
    cp.state = Value([OddFields(np.zeros(2))])
    cp.save()
    cp.state.value = [OddFields(np.ones(2))]
    vars(cp.state.value[0])["note"] = "of later"
    cp.load()
    (loaded,) = cp.state.value
    assert_same(np.zeros(2), loaded.x)
    assert vars(loaded).keys() == {"x"}


METADATA = {
    "dict": AttrDict(lr=0.1, net=AttrDict(layers=[1])),
    "named like an array": AttrDict(shape=[2, 3], dtype="float32"),
}


@pytest.mark.parametrize("name", METADATA)
def test_metadata_of_odd_dicts_is_kept(tmp_path, name):
    path = make(tmp_path, 1).save(metadata=METADATA[name]).path
    assert elementsckpt.info(path).metadata == METADATA[name]


@pytest.mark.parametrize("name", ["dict", "object", "callable"])
def test_metrics_that_cannot_be_asked_are_refused_by_name(tmp_path, name):
    with pytest.raises(elementsckpt.MetadataError, match="'return'"):
        make(tmp_path, 1).save(metrics={"return": ODD[name][0]})


@pytest.mark.parametrize("name", ["OrderedDict", "Counter", "NamedTuple"])
def test_deep_attributes_are_freed_and_do_no_harm(name):
    inner = LOOSE[name]()
    for _ in range(60):
        inner = noted(LOOSE[name](), inner=inner)
    assert_same(inner, round_trip(inner))


def test_attributes_are_fingerprinted(tmp_path):
    from elementsckpt.testing import fingerprints

    values = [noted(OrderedDict(a=1), note=n) for n in (1, 2)]
    first, second = (fingerprints.take("key", value) for value in values)
    assert not first["key/.note"].matches(second["key/.note"])


def test_nothing_is_said_of_attributes(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "elementsckpt"):
        round_trip([noted(OrderedDict(a=1), note=np.ones(2))])
    assert caplog.records == []

"""Saves that somebody forged: each is refused or harmless, soon and in little memory.

`tests/fuzz.py` looks for more of them.
"""

import logging
import re
import sys
import types

import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint, CheckpointError, DamagedError, MismatchError

from support.boxes import make
from support.folders import forge, manifest_of
from support.forgery import (
    PCG,
    SEED,
    Looker,
    Tree,
    attributes,
    chain,
    chain_of_attributes,
    component_of,
    doubled,
    doubled_attributes,
    generator,
    keyed,
    many_below_a_long_name,
    many_lost_classes,
    names_at_each_level,
    saved,
    scalar,
    set_in,
    set_tree,
)
from support.strategies import NUMPY, Point


@pytest.fixture(scope="module")
def look():
    with Looker() as looker:
        yield looker.look


# In both, no dict and no set tells them apart before it compares them.


def ints():
    prime = (1 << 61) - 1
    return [{"$int": hex(number * prime)} for number in range(30_000)]


def complexes():
    return [{"$complex": [9e12 - 1000003 * n, float(n)]} for n in range(30_000)]


def generators_of_one_state():
    tree = Tree()
    children = [tree.dict(PCG), tree.dict(SEED)]
    tree.node("list", [tree.node("generator", children) for _ in range(10_000)])
    return tree.done()


def seed_of_doubled_lists():
    tree = Tree()
    state = tree.dict(PCG)
    last = tree.leaf(1)
    for _ in range(40):
        last = tree.node("list", [last, last])
    others = [tree.node("tuple"), tree.leaf(4), tree.leaf(0)]
    tree.node("generator", [state, tree.node("dict", [last, *others], SEED)])
    return tree.done()


STRING = {"string": {"coerce": True}}
# NumPy 1 has no such strings, which is no damage.
DAMAGED = ("DamagedError", *(["ReadError"] if NUMPY < "2.0.0" else []))
ADDRESS = "ff" * 15 + "60"  # A string that is somewhere else.
LARGE = {"$int": "0x1" + "0" * 1_000_000}
FROZEN = "flax.core.frozen_dict:FrozenDict"

REFUSED = {
    "defaultdicts one in another": lambda: chain("default", 30_000),
    "deques one in another": lambda: chain("deque", 30_000),
    "keys of one hash": lambda: keyed(ints()),
    "complex keys of one hash": lambda: keyed(complexes(), "ordered"),
    "a set of one hash": lambda: scalar({"$set": ints()}),
    "a frozenset of one hash": lambda: scalar({"$frozenset": complexes()}),
    "a key twice": lambda: keyed([1, {"$numpy": ["<i8", "0100000000000000"]}]),
    "a large pool of a seed": lambda: generator(seed={**SEED, "pool_size": 1 << 20}),
    "a large seed": lambda: generator(seed={**SEED, "entropy": LARGE}),
    "a seed of text": lambda: generator(seed={**SEED, "entropy": "1"}),
    "a seed of more": lambda: generator(seed={**SEED, "more": 1}),
    "a seed of doubled lists": seed_of_doubled_lists,
    "many generators of one state": generators_of_one_state,
    "a generator of text": lambda: generator(has_uint32="1"),
    "a generator of less": lambda: generator({"bit_generator": "PCG64"}),
    "no generator": lambda: generator(bit_generator="default_rng"),
    "a scalar by its address": lambda: scalar({"$numpy": [STRING, ADDRESS]}),
    "text beyond Unicode": lambda: scalar({"$numpy": ["<U1", "ffffffff"]}),
    "an object by its address": lambda: scalar({"$numpy": ["|O", "41" * 8]}),
    "attributes of a dict": lambda: attributes("x", "dict"),
    "attributes of a list": lambda: attributes("x", "list"),
    "attributes of a tuple": lambda: attributes("x", "tuple"),
    "more attributes than children": lambda: attributes("xyz"),
    "an attribute twice": lambda: attributes("xx", children=2),
    "an attribute that is no text": lambda: attributes([5]),
    "an element type of digits": lambda: scalar({"$numpy": ["<" + "9" * 5000, "00"]}),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_a_hostile_tree_is_refused(look, tmp_path, name):
    save = saved(tmp_path)
    forge(save, lambda content: set_tree(content, REFUSED[name]()))
    found = look(save)
    assert found["info"] == found["saves"] == found["best"] == "loaded"
    for way in ("read", "read all", "load"):
        assert found[way].startswith(DAMAGED), found


HARMLESS = {
    "lists one in another": lambda: chain("list", 30_000),
    "doubled lists": lambda: doubled("list", 100, "list"),
    "names at each level": names_at_each_level,
    "many names below a long one": many_below_a_long_name,
    "many classes that are not there": many_lost_classes,
    "lost classes one in another": lambda: chain("namedtuple", 20_000, name="no:Class"),
    "attributes one in another": lambda: chain_of_attributes(30_000, "ordered"),
    "attributes of counters": lambda: chain_of_attributes(30_000, "counter"),
    "doubled attributes": lambda: doubled_attributes(100),
    "attributes that every object has": lambda: attributes(
        ["__class__", "__dict__", "items", "__init__"], children=4
    ),
    "a generator": generator,
    "text of one hash": lambda: keyed([f"key {number}" for number in range(40_000)]),
    "many numbers": lambda: keyed([*range(40_000)]),
}


@pytest.mark.parametrize("name", list(HARMLESS))
def test_an_odd_tree_does_no_harm(look, tmp_path, name):
    save = saved(tmp_path)
    forge(save, lambda content: set_tree(content, HARMLESS[name]()))
    found = look(save)
    assert {found[way] for way in ("read", "read all", "load")} == {"loaded"}


@pytest.mark.parametrize("name", ["names at each level", "many names below a long one"])
def test_names_that_would_take_all_memory_are_refused(look, tmp_path, name):
    save = saved(tmp_path)
    forge(save, lambda content: set_tree(content, HARMLESS[name]()))
    found = look(save)
    for way in ("read some", "load some", "dry run"):
        assert "too many places" in found[way]


def test_frozen_dicts_of_doubled_dicts_are_refused(look, tmp_path):
    pytest.importorskip("flax")
    save = saved(tmp_path)
    tree = doubled("dict", 40, "frozen", name=FROZEN)
    forge(save, lambda content: set_tree(content, tree))
    found = look(save, "flax")
    assert "a FrozenDict holds a dict" in found["load"]
    assert found["read"] == "loaded"


def test_a_hash_that_many_keys_of_metadata_share_is_refused(look, tmp_path):
    save = saved(tmp_path)
    items = [[key, 1] for key in ints()]
    forge(save, lambda content: content.update(metadata={"$dict": items}))
    found = look(save)
    assert "same hash" in found["info"]
    assert found["load"] == "loaded"


# Generators that would read what is not theirs.

POSITIONS = {
    "MT19937": ("pos", (-1, 625, 1 << 30, -(1 << 31))),
    "Philox": ("buffer_pos", (-1, 5, -(1 << 30))),
}


@pytest.mark.parametrize("kind", ["generator", "randomstate"])
@pytest.mark.parametrize("name", list(POSITIONS))
def test_a_generator_at_a_place_that_it_has_not_is_refused(look, tmp_path, name, kind):
    bits = getattr(np.random, name)(0)
    is_generator = kind == "generator"
    make_one = np.random.Generator if is_generator else np.random.RandomState
    save = saved(tmp_path, {"rng": make_one(bits)})
    key, places = POSITIONS[name]
    content = manifest_of(save)
    group, index = place_of(content, f"{key}$")
    assert look(save)["read"] == "loaded"
    for place in places:
        group["value"][index] = place
        forge(save, lambda x, content=content: x.update(content))
        found = look(save)
        assert "a generator at position" in found["read"]
        assert found["read"].startswith("DamagedError")


def place_of(content, pattern):
    """Return group and index of the Python leaf whose name matches."""
    for group in content["components"][0]["trees"][0]["leaves"]:
        for index, name in enumerate(group["names"]):
            if group["kind"] == "python" and re.search(pattern, name):
                return group, index
    raise LookupError(pattern)


@pytest.mark.parametrize("dtype", ["<i8", "<u2"])
def test_a_generator_of_other_arrays_is_refused(tmp_path, dtype):
    save = saved(tmp_path, {"rng": np.random.Generator(np.random.MT19937(0))})

    def change(content):
        (group,) = [
            x
            for x in content["components"][0]["trees"][0]["leaves"]
            if x["kind"] == "numpy"
        ]
        size = np.dtype(group["dtype"]).itemsize * group["shape"][0]
        group.update(dtype=dtype, shape=[size // np.dtype(dtype).itemsize])

    forge(save, change)
    with pytest.raises(DamagedError, match="key is another array"):
        elementsckpt.read(save)


@pytest.mark.parametrize(
    "seed", [7, 1 << 4000, [1, 2], np.arange(50), None], ids=lambda x: type(x).__name__
)
def test_generators_of_usual_seeds_come_back(tmp_path, seed):
    rng = np.random.default_rng(seed)
    loaded = elementsckpt.read(saved(tmp_path, [rng]))["agent"][0]
    children = [x.spawn(1)[0] if hasattr(x, "spawn") else x for x in (rng, loaded)]
    assert children[0].bytes(9) == children[1].bytes(9)
    assert rng.bytes(9) == loaded.bytes(9)


def test_a_generator_of_a_seed_that_is_too_large_is_pickled(tmp_path):
    seeds = [
        np.random.SeedSequence(1, pool_size=1000),
        np.random.SeedSequence(1 << 5000),
        np.random.SeedSequence([*range(1000)]),
    ]
    state = [np.random.default_rng(seed) for seed in seeds]
    cp = make(tmp_path, state)
    assert cp.save().pickled == ("agent/0", "agent/1", "agent/2")
    cp.load()
    for rng, loaded in zip(state, cp.agent.state, strict=True):
        assert rng.bytes(9) == loaded.bytes(9)


# Leaves that are not what they seem.

BASE = {"base": STRING, "shape": [2]}
FIELDS = {"fields": [["a", STRING, 0]], "itemsize": 16, "aligned": False}
FIELD_OF_BASE = {"fields": [["a", BASE, 0]], "itemsize": 32, "aligned": False}
LEAVES = {
    # NumPy would follow addresses.
    "an array of strings by their address": {"dtype": BASE, "shape": [1]},
    "strings in a field": {"dtype": FIELDS, "shape": [2]},
    "an array of strings in a field": {"dtype": FIELD_OF_BASE, "shape": [1]},
    "strings of less than nothing": {"dtype": STRING, "shape": [1], "value": -8},
    "strings of a fraction": {"dtype": STRING, "shape": [1], "value": 32.0},
    "strings of an amount in text": {"dtype": STRING, "shape": [1], "value": "32"},
    "strings with bytes left": {"dtype": STRING, "shape": [0], "value": 32},
    "more strings than bytes": {"dtype": STRING, "shape": [5], "value": 32},
    # What takes for ever.
    "many axes": {"shape": [1 << 61] * 50_000},
    "text of elements without bytes": {
        "kind": "str",
        "dtype": "|V0",
        "shape": [1 << 61],
    },
    "bytes in two dimensions": {"kind": "bytes", "dtype": "|u1", "shape": [4, 8]},
    "bytes of numbers": {"kind": "bytearray", "dtype": "<f8", "shape": [4]},
    # What NumPy reads, but never writes.
    "several element types": {"dtype": "<" + "f4," * 100_000},
    "an element type in parentheses": {"dtype": "<" + "(" * 100_000},
    "an element type of many digits": {"dtype": "<f" + "9" * 5000},
    "an array for an element type": {"dtype": {"base": "<f8", "shape": [2]}},
    "a name of no element type": {"dtype": "finfo"},
    "fields beyond the end": {
        "dtype": {"fields": [["a", "<f8", 99]], "itemsize": 8, "aligned": False},
    },
    "fields before the start": {
        "dtype": {"fields": [["a", "<f8", -8]], "itemsize": 8, "aligned": False},
    },
    "an unknown kind": {"kind": "array"},
}


@pytest.mark.parametrize("name", list(LEAVES))
def test_a_hostile_leaf_is_refused(look, tmp_path, name):
    save = saved(tmp_path, {"w": np.arange(4.0)})

    def change(content):
        content["components"][0]["trees"][0]["leaves"][0].update(LEAVES[name])

    forge(save, change)
    found = look(save)
    for way in ("read", "read all", "load"):
        assert found[way].startswith(DAMAGED), found


@pytest.mark.parametrize("traits", [["requires_grad"], ["parameter", "requires_grad"]])
@pytest.mark.torch
@pytest.mark.torch
def test_torch_tensors_that_cannot_be_are_refused(tmp_path, traits):
    torch = pytest.importorskip("torch")
    save = saved(tmp_path, {"w": torch.arange(4)})

    def change(content):
        group = content["components"][0]["trees"][0]["leaves"][0]
        group.update(value=traits)

    forge(save, change)
    with pytest.raises(DamagedError, match="requires a gradient"):
        make().load(save)


@pytest.mark.torch
@pytest.mark.parametrize(
    "strides",
    ["1", "1,1", "3,2", "0,1", "-1,2", "1,4", "1,2,6", "a,b", "", "1,", "9" * 30],
)
@pytest.mark.torch
def test_strides_of_torch_tensors_that_cannot_be_are_refused(tmp_path, strides):
    torch = pytest.importorskip("torch")
    save = saved(tmp_path, {"w": torch.arange(6).reshape(2, 3).t()})

    def change(content):
        group = content["components"][0]["trees"][0]["leaves"][0]
        assert group["value"] == ["strides=1,3"]
        group.update(value=[f"strides={strides}"])

    forge(save, change)
    for look in (make().load, elementsckpt.read):
        with pytest.raises(DamagedError, match="not a valid save"):
            look(save)


# Numbers that do not fit together.


COMPONENT = "components", 0
INVALID = {
    "a size that is too small": set_in(*COMPONENT, "size_bytes", 8),
    "a size that is too large": set_in(*COMPONENT, "size_bytes", 1 << 40),
    "data beyond the end": set_in(*COMPONENT, "segments", 0, 2, 1 << 40),
    "a digest of other letters": set_in(*COMPONENT, "blocks", 0, 3, 31 * "0" + "g"),
    "a digest of capitals": set_in(*COMPONENT, "blocks", 0, 3, 31 * "0" + "A"),
    "a digest of no letters": set_in(*COMPONENT, "blocks", 0, 3, 31 * "0" + "é"),
    "a digest of a line": set_in(*COMPONENT, "blocks", 0, 3, "0" * 32 + "\n"),
    "a file of other digits": set_in(
        *COMPONENT, "segments", 0, 0, "agent-00000\u0661-00000.safetensors"
    ),
    "no version": set_in("version", 0),
    "a version before the first": set_in("version", -1),
    "a process that cannot be": set_in("lineage", {"pid": 1 << 40}),
    "all processes": set_in("lineage", {"pid": -1}),
    "a component twice": lambda content: content.update(
        components=content["components"] * 2
    ),
    "a component twice, spelled in another way": lambda content: content.update(
        components=[
            content["components"][0],
            {
                **content["components"][0],
                "key": {"$str": b"agent".hex()},
                "segments": [],
                "blocks": [],
                "size_bytes": 0,
                "trees": [scalar(1)],
            },
        ]
    ),
    "a component of a number": set_in(*COMPONENT, "key", 5),
    "a component of a set": set_in(*COMPONENT, "key", {"$set": [1]}),
    "a component of an array": set_in(
        *COMPONENT,
        "key",
        {
            "$numpy": [
                {"fields": [["a", "<f4", 0]], "itemsize": 4, "aligned": False},
                "00000000",
            ]
        },
    ),
}


@pytest.mark.parametrize("name", list(INVALID))
def test_manifests_that_contradict_themselves_are_refused(tmp_path, name):
    save = saved(tmp_path)
    forge(save, INVALID[name])
    for function in (elementsckpt.read, make().load):
        with pytest.raises(CheckpointError):
            function(save)


METRICS = [
    *("x", [1], {"a": 1}, {"$int": "zz"}, {"$tuple": []}, {"$set": []}, None, True),
    *({"$complex": [1, 2]}, {"$numpy": ["<f4", "00000000"]}, {"$bytes": "!"}),
]


@pytest.mark.parametrize("metric", METRICS, ids=repr)
def test_a_save_whose_metrics_are_no_numbers_is_damaged(tmp_path, metric):
    cp = make(tmp_path, 1, keep=None)
    good = cp.save(metrics={"m": 1.0}).path
    bad = cp.save(metrics={"m": 2.0}).path
    forge(bad, set_in("metrics", {"m": metric}))
    with pytest.raises(DamagedError, match="is not a manifest"):
        elementsckpt.info(bad)
    cp = make(tmp_path, keep=elementsckpt.Keep(latest=3, best=1, metric="m"))
    assert cp.best() == good
    assert [x.path for x in cp.saves()] == [good]
    assert cp.load().fell_back_from == bad
    cp.save(metrics={"m": 0.0})


KEYS = [
    5,
    None,
    True,
    [1],
    {},
    {"a": 1},
    {"$set": [1]},
    {"$numpy": ["<f4", "00000000"]},
]


@pytest.mark.parametrize("place", [("components", 0, "key"), ("keys", 0)])
@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_a_save_with_keys_that_are_no_text_is_damaged(tmp_path, key, place):
    good, bad = (make(tmp_path, n, keep=None).save().path for n in (1, 2))
    forge(bad, set_in(*place, key))
    cp = make(tmp_path)
    with pytest.raises(DamagedError, match="is not a manifest"):
        elementsckpt.info(bad)
    assert cp.exists()
    assert [x.path for x in cp.saves()] == [good]
    assert cp.load().fell_back_from == bad
    cp.save()
    assert (good.exists(), bad.exists()) == (False, True)


def test_a_metric_that_is_larger_than_any_float_is_never_the_best(tmp_path):
    cp = make(tmp_path, 1, keep=elementsckpt.Keep(latest=9, best=1, metric="m"))
    good = cp.save(metrics={"m": 1}).path
    cp.save(metrics={"m": 10**400})
    cp.save(metrics={"m": -(10**400)})
    assert cp.best() == good


def test_many_components_take_no_longer_than_they_are(look, tmp_path):
    save = saved(tmp_path)

    def change(content):
        set_tree(content, scalar(1))
        first = component_of(content)
        content["components"] = [{**first, "key": f"k{n}"} for n in range(4000)]

    forge(save, change)
    assert look(save)["read"] == "loaded"


def test_no_time_is_spent_on_long_names_that_are_not_meant(look, tmp_path):
    save = saved(tmp_path)
    names = [f"{number}/" + "no/name/" * 20_000 for number in range(100)]
    forge(save, lambda content: set_tree(content, keyed(names)))
    assert "matches no leaf" in look(save)["read none"]


def test_a_path_through_many_folders_is_refused_at_the_first(look, tmp_path):
    cp = Checkpoint()
    cp.agent = elementsckpt.Files(
        save=lambda folder: (folder / "a").write_text("a"), load=print
    )
    save = cp.save(tmp_path / "saves" / "one").path
    long = "x/" * 100_000 + "x"
    forge(
        save,
        lambda content: component_of(content)["files"]["files"].append(
            [long, 1, "0" * 32]
        ),
    )
    found = look(save)
    assert found["read"].startswith("DamagedError")
    assert len(found["read"]) < 1000


# Code that would run.


class Reached(BaseException):
    """Code ran that a save asked for."""


class Proxy:
    """Stands for what it makes when it is asked for anything, as lazy objects do."""

    def __getattribute__(self, name):
        raise Reached(name)


class Lazy(types.ModuleType):
    """Is imported when it is asked for anything."""

    def __getattribute__(self, name):
        raise Reached(name)


@pytest.mark.parametrize("path", ["lazy:Class", "hostile:proxy", "hostile:proxy.x.y"])
@pytest.mark.parametrize("kind", ["namedtuple", "dataclass", "frozen"])
def test_looking_for_a_class_runs_nothing(tmp_path, monkeypatch, path, kind):
    module = types.ModuleType("hostile")
    module.proxy = Proxy()
    monkeypatch.setitem(sys.modules, "hostile", module)
    monkeypatch.setitem(sys.modules, "lazy", Lazy("lazy"))
    save = saved(tmp_path, {"x": 1})

    def change(content):
        node = component_of(content)["trees"][0]["nodes"][0]
        node.update(kind=kind, name=path, value=["x"])

    forge(save, change)
    cp = make()
    cp.load(save)
    assert cp.agent.state == {"x": 1}


class Other:
    """What an object must not become."""


@pytest.mark.parametrize("name", ["__class__", "watched", "__dict__", "__init__"])
def test_attributes_are_put_into_an_object_without_running_code(tmp_path, name):
    save = saved(tmp_path, Point(1, Other))

    def change(content):
        component_of(content)["trees"][0]["nodes"][0]["keys"] = ["x", name]

    def watch(self, value):
        raise Reached(value)

    forge(save, change)
    Point.watched = property(fset=watch)
    try:
        cp = make(state=Point(1, Other))
        cp.load(save)
    finally:
        del Point.watched
    assert type(cp.agent.state) is Point
    assert object.__getattribute__(cp.agent.state, "__dict__") == {"x": 1, name: Other}


@pytest.mark.parametrize("key", [5, None, {"$bytes": ""}])
def test_attributes_that_are_no_names_are_refused(tmp_path, key):
    save = saved(tmp_path, Point(1, 2))

    def change(content):
        component_of(content)["trees"][0]["nodes"][0]["keys"] = ["x", key]

    forge(save, change)
    with pytest.raises(DamagedError):
        make(state=Point(1, 2)).load(save)


@pytest.mark.parametrize("kind", ["PCG64", "MT19937"])
def test_selected_leaves_that_make_no_generator_do_not_fit(tmp_path, kind):
    theirs = np.random.Generator(getattr(np.random, kind)(0))
    save = saved(tmp_path, {"rng": theirs})

    def change(content):
        group, index = place_of(content, "pool_size$")
        group["value"][index] = 1

    forge(save, change)
    cp = make(state={"rng": np.random.default_rng(1)})
    with pytest.raises(MismatchError, match="'agent' do not make a valid state"):
        cp.load(save, regex=".*", strict=False)
    assert cp.agent.loads == 0


# What is shown to people.

HIDDEN = "\x1b[2J\x1b]0;title\x07\rdone\x9b\u202etxt\u2028"


def visible(text):
    return not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e]", text)


def test_errors_hold_nothing_that_a_terminal_obeys(tmp_path):
    save = saved(tmp_path, {HIDDEN: np.zeros(3), "w": np.zeros(3)})
    attempts = [
        lambda: make(state={HIDDEN: np.zeros(4)}).load(save, regex=".*"),
        lambda: make(state={}).load(save, regex=".*"),
        lambda: elementsckpt.read(save, regex="none"),
        lambda: elementsckpt.read(save, keys=[HIDDEN]),
        lambda: elementsckpt.read(tmp_path / HIDDEN),
    ]
    for attempt in attempts:
        with pytest.raises(CheckpointError) as error:
            attempt()
        assert "\\x1b[2J" in str(error.value)
        assert visible(str(error.value))
        assert visible(error.value.message)


def test_an_unknown_field_of_a_manifest_is_shown_escaped(tmp_path):
    save = saved(tmp_path)
    forge(save, lambda content: content.update({HIDDEN: 1}))
    with pytest.raises(DamagedError) as error:
        elementsckpt.read(save)
    assert visible(str(error.value))


def test_records_of_the_log_are_one_line(tmp_path, caplog):
    tree = chain("namedtuple", 1, name="nowhere:C\n2026-11-20 INFO all is well\x1b[A")
    save = saved(tmp_path)
    forge(save, lambda content: set_tree(content, tree))
    with caplog.at_level(logging.WARNING, "elementsckpt"):
        make().load(save)
    (record,) = caplog.records
    message = record.getMessage()
    assert "nowhere:C\\n2026" in message
    assert "\n" not in message
    assert visible(message)


def test_few_of_many_lost_classes_are_logged(tmp_path, caplog):
    save = saved(tmp_path)
    forge(save, lambda content: set_tree(content, many_lost_classes()))
    with caplog.at_level(logging.WARNING, "elementsckpt"):
        report = make().load(save)
    assert len(report.plain) == 20_000
    assert len(caplog.records) < 50
    assert "19980 more" in caplog.text


def test_text_that_can_be_shown_stays_as_it_is():
    message = "naïve Ω 漢字 👩‍🚀 \n  second line"
    assert str(CheckpointError(message)) == message

"""What was once written must load for ever."""

import json
import pathlib

import pytest

import elementsckpt

import golden
from support.strategies import assert_same

DATA = pathlib.Path(__file__).parents[1] / "data"
STATES = {1: golden.OLD_STATES, 2: golden.STATES}
OF_TORCH = ("torch", "strides")
KEYS = [
    pytest.param(
        version, key, marks=[pytest.mark.torch] if key in OF_TORCH else [], id=key
    )
    for version, states in STATES.items()
    for key in states
    if key != "shards"
]


def save_of(version):
    return DATA / f"golden-{version}"


@pytest.mark.parametrize(("version", "key"), KEYS)
def test_a_golden_save_loads_as_what_it_was(version, key):
    if key in OF_TORCH:
        pytest.importorskip("torch")
    loaded = {}
    load = {key: lambda data: loaded.update(data=data)}
    elementsckpt.checkpoint.load(save_of(version), load, allow_pickle=True)
    assert_same(STATES[version][key](), loaded["data"])


@pytest.mark.parametrize("version", STATES)
def test_golden_shards_load_in_order(version):
    loaded = {}
    load = {"shards": lambda data: loaded.update(data=list(data))}
    elementsckpt.checkpoint.load(save_of(version), load)
    assert_same(list(golden.shards()), loaded["data"])


def test_golden_views_share_memory():
    loaded = elementsckpt.read(save_of(2), keys=["views"], mmap=False)["views"]
    loaded["whole"][:] = 0
    assert not any(array.any() for array in loaded.values())


def test_golden_objects_are_shared():
    loaded = {}
    load = {"shared": loaded.update}
    elementsckpt.checkpoint.load(save_of(2), load, allow_pickle=True)
    assert loaded["a"].content[0] is loaded["b"].content[0]
    assert loaded["a"].content[1] is loaded["listed"]


def test_a_golden_value_has_its_classes():
    value = elementsckpt.Value()
    elementsckpt.checkpoint.load(save_of(2), {"value": value.load}, allow_pickle=True)
    assert_same(golden.TREE.value, value.value)


@pytest.mark.parametrize("version", STATES)
def test_a_golden_save_tells_what_it_is(version):
    info = elementsckpt.info(save_of(version))
    assert info.metadata == {"for": "ever"}
    assert list(info.components) == list(STATES[version])
    assert info.components["shards"].shards == 3


@pytest.mark.parametrize("version", STATES)
def test_a_golden_save_holds_every_kind_there_is(version):
    manifest = json.loads((save_of(version) / "manifest.json").read_bytes())
    assert manifest["version"] == version
    trees = [tree for entry in manifest["components"] for tree in entry["trees"]]
    text = (DATA.parent.parent / "docs" / "format.md").read_text("utf-8")
    for kind in {leaf["kind"] for tree in trees for leaf in tree["leaves"]} | {
        node["kind"] for tree in trees for node in tree["nodes"]
    }:
        assert f"`{kind}`" in text
    for table in ("leaves", "nodes"):
        kinds = {item["kind"] for tree in trees for item in tree[table]}
        new = {"view"} if version > 1 and table == "leaves" else set()
        assert kinds == ALL_KINDS[table] | new


ALL_KINDS = {
    "leaves": {
        *("python", "str", "bytes", "bytearray", "numpy", "jax", "key", "torch"),
        *("function", "pickle"),
    },
    "nodes": {
        *("dict", "ordered", "counter", "default", "frozen", "list", "tuple", "deque"),
        *("namedtuple", "dataclass", "generator", "randomstate"),
    },
}

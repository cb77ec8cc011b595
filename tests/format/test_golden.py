"""What was once written must load for ever."""

import json
import pathlib

import pytest

import elementsckpt

import golden
from support.strategies import assert_same

DATA = pathlib.Path(__file__).parents[1] / "data"
# By version, and of version 2 also what was written before manifests had a head.
STATES = {"1": golden.OLD_STATES, "2": golden.STATES, "2-head": golden.STATES}
NEW = [name for name in STATES if name != "1"]
OF_TORCH = ("torch", "strides")
KEYS = [
    pytest.param(
        name, key, marks=[pytest.mark.torch] if key in OF_TORCH else [], id=key
    )
    for name, states in STATES.items()
    for key in states
    if key != "shards"
]


def save_of(name):
    return DATA / f"golden-{name}"


def content_of(name):
    return (save_of(name) / "manifest.json").read_bytes()


@pytest.mark.parametrize(("name", "key"), KEYS)
def test_a_golden_save_loads_as_what_it_was(name, key):
    if key in OF_TORCH:
        pytest.importorskip("torch")
    loaded = {}
    load = {key: lambda data: loaded.update(data=data)}
    elementsckpt.checkpoint.load(save_of(name), load, allow_pickle=True)
    assert_same(STATES[name][key](), loaded["data"])


@pytest.mark.parametrize("name", STATES)
def test_golden_shards_load_in_order(name):
    loaded = {}
    load = {"shards": lambda data: loaded.update(data=list(data))}
    elementsckpt.checkpoint.load(save_of(name), load)
    assert_same(list(golden.shards()), loaded["data"])


@pytest.mark.parametrize("name", NEW)
def test_golden_views_share_memory(name):
    loaded = elementsckpt.read(save_of(name), keys=["views"], mmap=False)["views"]
    loaded["whole"][:] = 0
    assert not any(array.any() for array in loaded.values())


@pytest.mark.parametrize("name", NEW)
def test_golden_objects_are_shared(name):
    loaded = {}
    load = {"shared": loaded.update}
    elementsckpt.checkpoint.load(save_of(name), load, allow_pickle=True)
    assert loaded["a"].content[0] is loaded["b"].content[0]
    assert loaded["a"].content[1] is loaded["listed"]


@pytest.mark.parametrize("name", NEW)
def test_a_golden_value_has_its_classes(name):
    value = elementsckpt.Value()
    elementsckpt.checkpoint.load(
        save_of(name), {"value": value.load}, allow_pickle=True
    )
    assert_same(golden.TREE.value, value.value)


def test_golden_components_share_segments():
    save = save_of("2-shared")
    components = json.loads((save / "manifest.json").read_bytes())["components"]
    files = [{file for file, *_ in entry["segments"]} for entry in components]
    assert files[1] & files[2]
    assert set.union(*files) == {path.name for path in save.glob("*.safetensors")}
    assert {file.split("-")[1] for file in set.union(*files)} == {"000001", "000002"}
    assert '"ring":[12,0]' in (save / "manifest.json").read_text("utf-8")
    expected = golden.shared_segments()
    expected["replay"]["frames"] = expected["replay"]["frames"].array
    assert_same(elementsckpt.read(save), expected)


@pytest.mark.parametrize("name", STATES)
def test_a_golden_save_tells_what_it_is(name):
    info = elementsckpt.info(save_of(name))
    assert info.metadata == {"for": "ever"}
    assert list(info.components) == list(STATES[name])
    assert info.components["shards"].shards == 3


@pytest.mark.parametrize("name", STATES)
def test_a_golden_save_holds_every_kind_there_is(name):
    manifest = json.loads(content_of(name))
    assert manifest["version"] == int(name[0])
    trees = [tree for entry in manifest["components"] for tree in entry["trees"]]
    text = (DATA.parent.parent / "docs" / "format.md").read_text("utf-8")
    for kind in {leaf["kind"] for tree in trees for leaf in tree["leaves"]} | {
        node["kind"] for tree in trees for node in tree["nodes"]
    }:
        assert f"`{kind}`" in text
    for table in ("leaves", "nodes"):
        kinds = {item["kind"] for tree in trees for item in tree[table]}
        new = {"view"} if name in NEW and table == "leaves" else set()
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

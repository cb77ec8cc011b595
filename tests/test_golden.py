"""What was once written must load for ever."""

import json
import pathlib

import golden
import pytest
from strategies import assert_same

import elementsckpt

SAVE = pathlib.Path(__file__).parent / "data" / "golden-1"
KEYS = [
    pytest.param(key, marks=[pytest.mark.torch] if key == "torch" else [])
    for key in golden.STATES
    if key != "shards"
]


@pytest.mark.parametrize("key", KEYS)
def test_the_golden_save_loads_as_what_it_was(key):
    if key == "torch":
        pytest.importorskip(key)
    loaded = {}
    load = {key: lambda data: loaded.update(data=data)}
    elementsckpt.checkpoint.load(SAVE, load, allow_pickle=True)
    assert_same(golden.STATES[key](), loaded["data"])


def test_the_golden_shards_load_in_order():
    loaded = {}
    load = {"shards": lambda data: loaded.update(data=list(data))}
    elementsckpt.checkpoint.load(SAVE, load)
    assert_same(list(golden.shards()), loaded["data"])


def test_the_golden_save_tells_what_it_is():
    info = elementsckpt.info(SAVE)
    assert info.metadata == {"for": "ever"}
    assert list(info.components) == list(golden.STATES)
    assert info.components["shards"].shards == 3


def test_the_golden_save_holds_every_kind_there_is():
    manifest = json.loads((SAVE / "manifest.json").read_bytes())
    trees = [tree for entry in manifest["components"] for tree in entry["trees"]]
    text = (SAVE.parent.parent.parent / "docs" / "format.md").read_text("utf-8")
    for kind in {leaf["kind"] for tree in trees for leaf in tree["leaves"]} | {
        node["kind"] for tree in trees for node in tree["nodes"]
    }:
        assert f"`{kind}`" in text
    for table in ("leaves", "nodes"):
        kinds = {item["kind"] for tree in trees for item in tree[table]}
        assert kinds == ALL_KINDS[table]


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

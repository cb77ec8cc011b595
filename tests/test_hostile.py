"""Saves that somebody forged: each is refused or harmless, soon and in little memory.

The manifests here are signed as the format asks for, so what they say is all that is
wrong. `tests/fuzz.py` looks for more of them.
"""

import copy
import json
import logging
import os
import re
import subprocess
import sys
import types

import numpy as np
import pytest
import xxhash
from boxes import ROOT, Box, LazyStream, make, python
from folders import MB, Reads, forge, manifest_of, noise
from strategies import NUMPY, Point

import elementsckpt
from elementsckpt import (
    Checkpoint,
    CheckpointError,
    DamagedError,
    MismatchError,
    ReadError,
)

# Looks at saves whose paths it reads, each in all ways, in a process that may take ten
# seconds and as much memory as 100 times the size of the save; uses what is in them.
LOOK = """
import importlib, json, logging, os, pathlib, resource, sys
logging.disable(logging.CRITICAL)
import numpy as np
import elementsckpt
from elementsckpt import Checkpoint, CheckpointError

class Box:
    def save(self):
        return {"w": np.zeros(3), "x": {"y": 1}}

    def load(self, data):
        use(data)

def use(data):
    stack, left = [data], 100_000
    while stack and left:
        item, left = stack.pop(), left - 1
        if isinstance(item, dict):
            stack += item.values()
        elif isinstance(item, (list, tuple)):
            stack += item
        elif isinstance(item, np.random.Generator):
            item.integers(9, size=1000, dtype=np.uint32)
        elif isinstance(item, np.random.RandomState):
            item.bytes(1000)
        elif isinstance(item, np.ndarray) and item.size < 1000:
            item.tolist()
        elif isinstance(item, np.generic):
            repr(item)

def make(directory=None):
    cp = Checkpoint(directory)
    cp.agent = Box()
    return cp

WAYS = {
    "info": elementsckpt.info,
    "saves": lambda path: repr(make(path.parent).saves()),
    "best": lambda path: make(path.parent).best(),
    "read": lambda path: use(elementsckpt.read(path)),
    "read all": lambda path: use(elementsckpt.read(path, mmap=False)),
    "read some": lambda path: use(elementsckpt.read(path, regex=".*")),
    "read none": lambda path: use(elementsckpt.read(path, regex="(no|name/){9}")),
    "load": lambda path: make().load(path),
    "load some": lambda path: make().load(path, regex=".*", strict=False),
    "dry run": lambda path: make().load(path, regex="x.*", dry_run=True),
}

def look(path):
    size = sum(file.stat().st_size for file in path.iterdir())
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    limit = used + 100 * size + (192 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
    found = {}
    for name, way in WAYS.items():
        try:
            way(path)
            found[name] = "loaded"
        except CheckpointError as error:
            found[name] = f"{type(error).__name__}: {error}"[:1000]
    return found

for line in sys.stdin:
    path, *modules = json.loads(line)
    process = os.fork()
    if not process:
        for name in modules:
            importlib.import_module(name)
        print(json.dumps(look(pathlib.Path(path))), flush=True)
        break
    _, status = os.waitpid(process, 0)
    if status:
        print(json.dumps({"died": status}), flush=True)
"""


@pytest.fixture(scope="module")
def look():
    """Return a function that looks at a save in all ways; returns what came of each."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(
        [sys.executable, "-c", LOOK],
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )

    def ask(save, *modules):
        child.stdin.write(json.dumps([str(save), *modules]) + "\n")
        child.stdin.flush()
        found = json.loads(child.stdout.readline())
        assert "died" not in found, found
        return found

    with child:
        yield ask
        child.stdin.close()


def saved(tmp_path, state=None, kind=Box, **options):
    cp = Checkpoint(**options)
    cp.agent = kind({"w": np.arange(3.0)} if state is None else state)
    return cp.save(tmp_path / "saves" / "one").path


# Trees that forged manifests have in the place of theirs.


class Tree:
    """A tree of a manifest that is put together by hand."""

    def __init__(self):
        self.nodes = []
        self.values = []

    def leaf(self, code):
        self.values.append(code)
        return len(self.values) - 1

    def node(self, kind, children=(), keys=(), **fields):
        node = {"kind": kind, "children": [*children], "keys": [*keys], **fields}
        self.nodes.append(node)
        return -len(self.nodes)

    def dict(self, items):
        """Add dicts and, as leaves, what is in them."""
        children = [self.item(item) for item in items.values()]
        return self.node("dict", children, items)

    def item(self, value):
        if value == ():
            return self.node("tuple")
        is_dict = type(value) is dict and "$int" not in value
        return self.dict(value) if is_dict else self.leaf(value)

    def done(self):
        leaves = {"kind": "python", "value": self.values, "names": []}
        leaves["names"] = [str(number) for number in range(len(self.values))]
        return {"root": -len(self.nodes), "nodes": self.nodes, "leaves": [leaves]}


def chain(kind, count, **fields):
    """Return a tree of containers, each of which holds the one before."""
    tree = Tree()
    last = tree.leaf(1)
    keys = ["x"] if kind not in ("list", "deque") else []
    for _ in range(count):
        last = tree.node(kind, [last], keys, **fields)
    return tree.done()


def doubled(kind, count, outer, **fields):
    """Return a tree of containers, each of which holds the one before twice."""
    tree = Tree()
    last = tree.leaf(1)
    for _ in range(count):
        last = tree.node(kind, [last, last], [] if kind == "list" else ["a", "b"])
    tree.node(outer, [last], [] if outer == "list" else ["x"], **fields)
    return tree.done()


def names_at_each_level():
    tree = Tree()
    one = last = tree.leaf(1)
    for _ in range(20_000):
        last = tree.node("list", [one, last])
    return tree.done()


def many_below_a_long_name():
    tree = Tree()
    one = tree.leaf(1)
    last = tree.node("list", [one] * 100_000)
    for _ in range(100):
        last = tree.node("dict", [last], ["long" * 1000])
    return tree.done()


def many_lost_classes(keys=("a",)):
    tree = Tree()
    one = tree.leaf(1)
    lost = [
        tree.node("namedtuple", [one], keys, name=f"nowhere:Class{n}")
        for n in range(20_000)
    ]
    tree.node("list", lost)
    return tree.done()


def keyed(keys, kind="dict"):
    tree = Tree()
    one = tree.leaf(1)
    tree.node(kind, [one] * len(keys), keys)
    return tree.done()


def scalar(code):
    tree = Tree()
    tree.node("list", [tree.leaf(code)])
    return tree.done()


# In both, no dict and no set tells them apart before it compares them.
PRIME = (1 << 61) - 1
INTS = [{"$int": hex(number * PRIME)} for number in range(40_000)]
COMPLEX = [{"$complex": [9e12 - 1000003 * n, float(n)]} for n in range(40_000)]

PCG = {
    "bit_generator": "PCG64",
    "state": {"state": 5, "inc": 7},
    "has_uint32": 0,
    "uinteger": 0,
}
SEED = {
    "entropy": 1,
    "spawn_key": (),
    "pool_size": 4,
    "n_children_spawned": 0,
}


def generator(state=PCG, seed=SEED, **changes):
    tree = Tree()
    children = [tree.dict({**state, **changes})]
    tree.node("generator", [*children, tree.dict(seed)])
    return tree.done()


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
FROZEN = "flax.core.frozen_dict:FrozenDict"

REFUSED = {
    "defaultdicts one in another": chain("default", 100_000),
    "deques one in another": chain("deque", 100_000),
    "keys of one hash": keyed(INTS),
    "complex keys of one hash": keyed(COMPLEX, "ordered"),
    "a set of one hash": scalar({"$set": INTS}),
    "a frozenset of one hash": scalar({"$frozenset": COMPLEX}),
    "a key twice": keyed([1, {"$numpy": ["<i8", "0100000000000000"]}]),
    "a large pool of a seed": generator(seed={**SEED, "pool_size": 1 << 20}),
    "a large seed": generator(
        seed={**SEED, "entropy": {"$int": "0x1" + "0" * 1_000_000}}
    ),
    "a seed of text": generator(seed={**SEED, "entropy": "1"}),
    "a seed of more": generator(seed={**SEED, "more": 1}),
    "a seed of doubled lists": seed_of_doubled_lists(),
    "many generators of one state": generators_of_one_state(),
    "a generator of text": generator(has_uint32="1"),
    "a generator of less": generator({"bit_generator": "PCG64"}),
    "no generator": generator(bit_generator="default_rng"),
    "a scalar by its address": scalar({"$numpy": [STRING, ADDRESS]}),
    "text beyond Unicode": scalar({"$numpy": ["<U1", "ffffffff"]}),
    "an object by its address": scalar({"$numpy": ["|O", "41" * 8]}),
    "an element type of expressions": scalar({"$numpy": ["<" + "9" * 5000, "00"]}),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_a_hostile_tree_is_refused(look, tmp_path, name):
    save = saved(tmp_path)
    forge(save, lambda content: set_tree(content, REFUSED[name]))
    found = look(save)
    assert found["info"] == found["saves"] == found["best"] == "loaded"
    for way in ("read", "read all", "load"):
        assert found[way].startswith(DAMAGED), found


def set_tree(content, tree):
    component = content["components"][0]
    component.update(trees=[tree], blocks=[], segments=[], size_bytes=0)


HARMLESS = {
    "lists one in another": chain("list", 100_000),
    "doubled lists": doubled("list", 100, "list"),
    "names at each level": names_at_each_level(),
    "many names below a long one": many_below_a_long_name(),
    "many classes that are not there": many_lost_classes(),
    "classes that are not there, one in another": chain(
        "namedtuple", 20_000, name="nowhere:Class"
    ),
    "a generator": generator(),
    "text of one hash": keyed([f"key {number}" for number in range(40_000)]),
    "many numbers": keyed([*range(40_000)]),
}


@pytest.mark.parametrize("name", list(HARMLESS))
def test_an_odd_tree_does_no_harm(look, tmp_path, name):
    save = saved(tmp_path)
    forge(save, lambda content: set_tree(content, HARMLESS[name]))
    found = look(save)
    assert {found[way] for way in ("read", "read all", "load")} == {"loaded"}


@pytest.mark.parametrize("name", ["names at each level", "many names below a long one"])
def test_names_that_would_take_all_memory_are_refused(look, tmp_path, name):
    save = saved(tmp_path)
    forge(save, lambda content: set_tree(content, HARMLESS[name]))
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
    items = [[key, 1] for key in INTS]
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
def test_torch_tensors_that_cannot_be_are_refused(tmp_path, traits):
    torch = pytest.importorskip("torch")
    save = saved(tmp_path, {"w": torch.arange(4)})

    def change(content):
        group = content["components"][0]["trees"][0]["leaves"][0]
        group.update(value=traits)

    forge(save, change)
    with pytest.raises(DamagedError, match="requires a gradient"):
        make().load(save)


# Bytes that are claimed more than once.


def component_of(content):
    return content["components"][0]


def other_components(content):
    first = component_of(content)
    content["components"] = [
        {**copy.deepcopy(first), "key": f"key{number}"} for number in range(500)
    ]


def other_segments(content):
    component = component_of(content)
    blocks, segments = component["blocks"], component["segments"]
    component["segments"] = segments * 500
    component["blocks"] = [[n, *x[1:]] for n in range(500) for x in blocks]
    component["size_bytes"] *= 500
    leaves = component["trees"][0]["leaves"]
    component["trees"][0]["leaves"] = [
        {**leaves[0], "block": number * len(blocks)} for number in range(500)
    ]
    component["trees"][0]["nodes"] = [{"kind": "list", "children": [*range(500)]}]
    component["trees"][0]["root"] = -1


def leaf_in_another(content):
    tree = component_of(content)["trees"][0]
    (leaf,) = tree["leaves"]
    tree["leaves"] = [leaf, {**leaf, "block": leaf["block"] + 1, "shape": [MB]}]
    tree["nodes"] = [{"kind": "list", "children": [0, 1]}]


@pytest.mark.parametrize("forging", [other_components, other_segments, leaf_in_another])
def test_bytes_that_are_claimed_twice_are_refused(look, tmp_path, forging):
    save = saved(tmp_path, {"w": noise(0, 3 * MB)}, compress=None)
    forge(save, forging)
    found = look(save)
    for way in ("read", "read all", "read some"):
        assert found[way].startswith("DamagedError"), found


def test_a_folder_that_two_components_claim_is_refused(tmp_path):
    cp = Checkpoint()
    cp.agent = elementsckpt.Files(
        save=lambda folder: (folder / "a").write_text("a"), load=print
    )
    save = cp.save(tmp_path / "save").path
    forge(save, other_components)
    with pytest.raises(DamagedError, match=r"'agent\.files' twice"):
        elementsckpt.read(save)


def same_shards(content):
    component = component_of(content)
    component.update(trees=component["trees"] * 500, shards=500)


def shards_in_turn(content):
    """One byte of each block in turn, so that none is at hand when it is needed."""
    component = component_of(content)
    tree = component["trees"][0]
    trees = []
    for number in range(2000):
        leaf = {**tree["leaves"][0], "shape": [1], "block": number % 3}
        trees.append({**tree, "leaves": [{**leaf, "offset": number // 3}]})
    component.update(trees=trees, shards=len(trees))


@pytest.mark.parametrize("forging", [same_shards, shards_in_turn])
@pytest.mark.parametrize("compress", [None, 1])
def test_shards_that_claim_the_same_bytes_are_refused(
    look, tmp_path, forging, compress
):
    state = [{"w": noise(0, 3 * MB)}]
    save = saved(tmp_path, state, LazyStream, compress=compress)
    forge(save, forging)
    with pytest.raises(DamagedError, match="claim the same bytes"):
        elementsckpt.read(save, mmap=False)
    with pytest.raises(DamagedError, match="claim the same bytes"):
        make().load(save)
    assert look(save)["read"] == "loaded" if compress is None else True


def test_what_is_mapped_is_verified_once(tmp_path, monkeypatch):
    state = [{"w": np.full(9, number)} for number in range(2000)]
    save = saved(tmp_path, state, LazyStream, compress=None)
    verified = []
    reader = elementsckpt.reader
    monkeypatch.setattr(
        reader, "_verify", lambda path, block, data: verified.append(data.size)
    )
    cp = Checkpoint()
    cp.agent = LazyStream()
    cp.load(save, mmap=True)
    assert [shard["w"][0] for shard in cp.agent.got] == [*range(2000)]
    assert sum(verified) <= component_of(manifest_of(save))["size_bytes"]


def test_the_headers_of_many_segments_are_verified_once(tmp_path, monkeypatch):
    monkeypatch.setattr("elementsckpt.writer.SEGMENT_BYTES", 150_000)
    state = [noise(number, 70_000) for number in range(160)]
    save = saved(tmp_path, state, LazyStream, compress=None)

    def spread(content):  # So that 64 other files are opened in between.
        trees = component_of(content)["trees"]
        component_of(content)["trees"] = trees[::2] + trees[1::2]

    forge(save, spread)
    headers = sum(segment[2] for segment in component_of(manifest_of(save))["segments"])
    reads = Reads()
    monkeypatch.setattr("os.preadv", reads)
    shards = elementsckpt.read(save, mmap=False)["agent"]
    assert all(map(np.array_equal, shards, state[::2] + state[1::2]))
    assert len(reads.bytes) == 80 + 1
    assert reads.segments == 2 * 160 * 70_000 + headers


# Numbers that do not fit together.


def set_in(*path):
    *outer, last, value = path

    def change(content):
        for step in outer:
            content = content[step]
        content[last] = value

    return change


COMPONENT = "components", 0
INVALID = {
    "a size that is too small": set_in(*COMPONENT, "size_bytes", 8),
    "a size that is too large": set_in(*COMPONENT, "size_bytes", 1 << 40),
    "data beyond the end": set_in(*COMPONENT, "segments", 0, 2, 1 << 40),
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
        content["components"] = [{**first, "key": f"k{n}"} for n in range(20_000)]

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


# Memory


def peak_of(save, script):
    """Return by how many bytes a script makes memory grow at most."""
    start = """
import pathlib, re, sys
import elementsckpt

def memory(field):
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(field + r":\\s+(\\d+)", status)[1]) << 10

pathlib.Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS")
"""
    child = python(f"{start}{script}\nprint(memory('VmHWM') - before)", save)
    assert child.returncode == 0, child.stderr
    return int(child.stdout)


LARGE = {
    "text": ("a" * (20 * MB) + "\U0001f600", 6),
    "bytes": (b"a" * (20 * MB), 2),
    "an array": (np.zeros(20 * MB, np.uint8), 1),
    "small arrays": ([np.zeros(99, np.uint8) for _ in range(200_000)], 4),
}


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory in /proc")
@pytest.mark.parametrize("name", list(LARGE))
def test_no_leaf_takes_more_than_six_times_its_bytes(tmp_path, name):
    state, factor = LARGE[name]
    save = saved(tmp_path, state, compress=None)
    size = sum(file.stat().st_size for file in save.iterdir())
    script = "elementsckpt.read(sys.argv[1], mmap=False)"
    assert peak_of(save, script) < factor * size + 16 * MB


def many(kind, count):
    tree = Tree()
    tree.node("list", [tree.node(kind) for _ in range(count)])
    return tree.done()


def many_generators(count):
    tree = Tree()
    seed = {**SEED, "pool_size": 64}
    parts = [[tree.dict(PCG), tree.dict(seed)] for _ in range(count)]
    tree.node("list", [tree.node("generator", part) for part in parts])
    return tree.done()


LISTED = {
    "deques": many("deque", 100_000),
    "defaultdicts": many("default", 100_000),
    "sets": scalar({"$tuple": [{"$set": []}] * 100_000}),
    "generators": many_generators(5_000),
}


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory in /proc")
@pytest.mark.parametrize("name", list(LISTED))
def test_what_is_listed_takes_less_than_a_hundred_times_the_manifest(tmp_path, name):
    save = saved(tmp_path)
    forge(save, lambda content: set_tree(content, LISTED[name]))
    script = "data = elementsckpt.read(sys.argv[1])"
    assert peak_of(save, script) < 100 * (save / "manifest.json").stat().st_size


@pytest.fixture
def set_limit(tmp_path, monkeypatch):
    """Return a function that makes this a container with so many bytes of memory."""
    limit = tmp_path / "memory.max"
    machine = elementsckpt.machine

    def set_limit(size_bytes):
        limit.write_text(str(size_bytes))
        monkeypatch.setattr(machine, "_LIMITS", (limit,))
        machine.memory_bytes.cache_clear()

    yield set_limit
    machine.memory_bytes.cache_clear()


@pytest.mark.parametrize("content", ["max", "", None])
def test_without_a_limit_the_memory_is_that_of_the_machine(
    tmp_path, set_limit, content
):
    memory = elementsckpt.machine.memory_bytes()
    set_limit(MB)
    assert elementsckpt.machine.memory_bytes() == MB < memory
    if content is None:
        (tmp_path / "memory.max").unlink()
        elementsckpt.machine.memory_bytes.cache_clear()
    else:
        set_limit(content)
    assert elementsckpt.machine.memory_bytes() >= memory


@pytest.fixture
def bomb(tmp_path):
    """A save of zeros, which take no room, with more of them than there is memory."""
    save = saved(tmp_path, {"w": np.zeros(16 * MB, np.uint8)}, compress=1)
    count = elementsckpt.machine.memory_bytes() // (16 * MB) + 1
    component = manifest_of(save)["components"][0]
    (name, _, start, _) = component["segments"][0]
    first = component["blocks"][0]
    file = save / name
    content = file.read_bytes()
    frame = content[first[1] : first[1] + first[2]]
    copies = count * 16  # Of a MiB each.
    file.write_bytes(content[:start] + frame * copies)

    def change(content):
        component = component_of(content)
        component["size_bytes"] = copies * MB
        component["segments"][0][1] = start + len(frame) * copies
        component["blocks"] = [
            [0, start + n * len(frame), len(frame), *first[3:]] for n in range(copies)
        ]
        component["trees"][0]["leaves"][0]["shape"] = [copies * MB]

    forge(save, change)
    return save


def test_a_save_that_holds_more_than_there_is_memory_is_refused(look, bomb):
    size = elementsckpt.info(bomb).components["agent"].bytes
    memory = elementsckpt.machine.memory_bytes()
    assert sum(x.stat().st_size for x in bomb.iterdir()) < size // 1000
    found = look(bomb)
    for way in ("read", "read all", "read some", "load"):
        assert found[way].startswith("ReadError")
        for part in (f"{size:,}", f"{memory:,}", "keys=", "regex=", "mmap=True"):
            assert part in found[way]


def test_what_does_not_fit_is_refused_before_anything_is_read(
    tmp_path, set_limit, monkeypatch
):
    cp = make(tmp_path / "ckpt", noise(0, MB), compress=None)
    cp.replay = Box(noise(1, MB))
    cp.save()
    set_limit(2 * MB - 1)  # Each of the two would fit.
    reads = Reads()
    monkeypatch.setattr("os.preadv", reads)
    with pytest.raises(ReadError, match="does not fit into memory"):
        cp.load()
    assert reads.segments == 0
    assert cp.agent.loads == cp.replay.loads == 0
    cp.load(mmap=True)
    cp.load(keys=["agent"])
    set_limit(2 * MB)
    cp.load()


def test_what_does_not_fit_does_not_fall_back(tmp_path, set_limit):
    cp = make(tmp_path / "ckpt", 1, keep=None)
    cp.save()
    cp.agent.state = noise(0, MB)
    cp.save()
    set_limit(MB - 1)
    with pytest.raises(ReadError):
        cp.load_or_save()
    assert cp.agent.loads == 0


def test_of_a_generator_each_shard_must_fit(tmp_path, set_limit):
    cp = Checkpoint(tmp_path / "ckpt", compress=None)
    cp.replay = LazyStream([noise(number, MB) for number in range(3)])
    cp.save()
    set_limit(MB)
    cp.load()
    assert sum(shard.size for shard in cp.replay.got) == 3 * MB
    set_limit(MB - 1)
    with pytest.raises(ReadError, match="does not fit into memory"):
        cp.load()


def test_what_is_selected_must_fit(tmp_path, set_limit):
    state = {"large": noise(0, 2 * MB), "small": noise(1, MB)}
    cp = make(tmp_path / "ckpt", state, compress=None)
    cp.save()
    set_limit(MB)
    cp.load(regex="small")
    with pytest.raises(ReadError, match="does not fit into memory"):
        cp.load(regex="large")


def test_a_manifest_that_is_mostly_a_hole_must_fit(tmp_path, set_limit):
    save = saved(tmp_path)
    with (save / "manifest.json").open("r+b") as file:
        file.truncate(1 << 31)
    set_limit(64 * MB)
    with pytest.raises(DamagedError, match="it has 2147483648 bytes"):
        elementsckpt.info(save)


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory in /proc")
def test_a_header_that_is_mostly_a_hole_takes_no_memory(tmp_path):
    save = saved(tmp_path)
    content = manifest_of(save)
    segment = content["components"][0]["segments"][0]
    file = save / segment[0]
    data = file.read_bytes()[segment[2] :]
    size = 256 * MB
    with file.open("wb") as opened:
        opened.truncate(size)
        opened.seek(size)
        opened.write(data)
    block = content["components"][0]["blocks"][0]
    block[1] += size - segment[2]
    segment[1:] = size + len(data), size, xxhash.xxh3_128_hexdigest(bytes(size))
    forge(save, lambda x: x.update(content))
    script = "assert elementsckpt.read(sys.argv[1])['agent']['w'][2] == 2"
    assert peak_of(save, script) < 32 * MB


def test_folders_of_elements_must_fit(tmp_path, set_limit):
    elements = pytest.importorskip("elements")
    theirs = elements.Checkpoint(str(tmp_path / "theirs"))
    theirs.agent = Box({"w": np.zeros(MB, np.uint8)})
    theirs.save()
    set_limit(MB)
    with pytest.raises(ReadError, match="does not fit into memory"):
        make(tmp_path / "theirs").load()
    set_limit(3 * MB)
    make(tmp_path / "theirs").load()


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
    with pytest.raises(MismatchError, match="'agent' that are selected make no state"):
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

"""Saves that claim more than they have: refused before they take memory or time."""

import copy
import sys

import numpy as np
import pytest
import xxhash

import elementsckpt
from elementsckpt import Checkpoint, DamagedError, ReadError
from elementsckpt.format.digests import digest

from support.boxes import Box, LazyStream, make
from support.faults import use_sizes
from support.folders import MB, Reads, forge, manifest_of, noise
from support.forgery import (
    PCG,
    SEED,
    Looker,
    Tree,
    component_of,
    saved,
    scalar,
    set_tree,
)
from support.jobs import made_up


@pytest.fixture(scope="module")
def look():
    with Looker() as looker:
        yield looker.look


# Bytes that are claimed more than once.


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
    reader = elementsckpt.storage.reader
    monkeypatch.setattr(
        reader, "digest", lambda data: verified.append(data.size) or digest(data)
    )
    cp = Checkpoint()
    cp.agent = LazyStream()
    cp.load(save, mmap=True)
    assert [shard["w"][0] for shard in cp.agent.got] == [*range(2000)]
    assert sum(verified) <= component_of(manifest_of(save))["size_bytes"]


def test_the_headers_of_many_segments_are_verified_once(tmp_path, monkeypatch):
    use_sizes(monkeypatch.setattr, segment=150_000)
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


# Memory


def peak_of(forked, save, script):
    """Return by how many bytes a script makes memory grow at most."""
    start = """
import pathlib, re, sys
import elementsckpt.engine, elementsckpt.functions, elementsckpt.inspection.states

def memory(field):
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(field + r":\\s+(\\d+)", status)[1]) << 10

pathlib.Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS")
"""
    child = forked(f"{start}{script}\nprint(memory('VmHWM') - before)", save)
    assert child.returncode == 0, child.stderr
    return int(child.stdout)


LARGE = {
    "text": (lambda: "a" * (20 * MB) + "\U0001f600", 6),
    "bytes": (lambda: b"a" * (20 * MB), 2),
    "an array": (lambda: np.zeros(20 * MB, np.uint8), 1),
    "small arrays": (lambda: [np.zeros(99, np.uint8) for _ in range(200_000)], 4),
}


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory in /proc")
@pytest.mark.parametrize("name", list(LARGE))
def test_no_leaf_takes_more_than_six_times_its_bytes(tmp_path, forked, name):
    state, factor = LARGE[name]
    save = saved(tmp_path, state(), compress=None)
    size = sum(file.stat().st_size for file in save.iterdir())
    script = "elementsckpt.read(sys.argv[1], mmap=False)"
    assert peak_of(forked, save, script) < factor * size + 16 * MB


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
    "deques": lambda: many("deque", 40_000),
    "defaultdicts": lambda: many("default", 40_000),
    "sets": lambda: scalar({"$tuple": [{"$set": []}] * 40_000}),
    "generators": lambda: many_generators(2_000),
}


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory in /proc")
@pytest.mark.parametrize("name", list(LISTED))
def test_what_is_listed_takes_less_than_a_hundred_times_the_manifest(
    tmp_path, forked, name
):
    save = saved(tmp_path)
    forge(save, lambda content: set_tree(content, LISTED[name]()))
    script = "data = elementsckpt.read(sys.argv[1])"
    assert peak_of(forked, save, script) < 100 * (save / "manifest.json").stat().st_size


@pytest.fixture
def set_limit(tmp_path, monkeypatch):
    """Return a function that leaves so much memory, and not more, to what is loaded."""
    with made_up(tmp_path, monkeypatch) as machine:
        yield machine.leaves


@pytest.fixture
def bomb(tmp_path):
    """A save of zeros, which take no room, with more of them than there is memory."""
    save = saved(tmp_path, {"w": np.zeros(16 * MB, np.uint8)}, compress=1)
    count = elementsckpt.system.memory.memory_bytes() // (16 * MB) + 1
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
    assert sum(x.stat().st_size for x in bomb.iterdir()) < size // 1000
    found = look(bomb)
    for way in ("read", "read all", "read some", "load"):
        assert found[way].startswith("ReadError")
        for part in (f"{size:,}", "left", "keys=", "regex=", "mmap=True"):
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


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory in /proc")
@pytest.mark.parametrize("place", ["after", "before", "within"])
def test_a_manifest_that_is_mostly_a_hole_takes_no_memory(tmp_path, forked, place):
    save = saved(tmp_path)
    file = save / "manifest.json"
    content = file.read_bytes()
    hole = 3 << 30
    with file.open("wb") as opened:
        if place == "after":
            opened.write(content)
            opened.truncate(hole)
        else:
            start = 0 if place == "before" else 200
            opened.write(content[:start])
            opened.seek(hole)
            opened.write(content[start:])
    script = """
save = pathlib.Path(sys.argv[1])
cp = elementsckpt.Checkpoint(save.parent)
cp.agent = elementsckpt.Saveable(["w"])
for path in (save, save.parent):
    for call in (elementsckpt.info, elementsckpt.read, cp.load):
        try:
            raise SystemExit(f"{call(path)} was found")
        except elementsckpt.DamagedError as error:
            assert "REASON" in str(error), error
"""
    reason = "bytes, expected" if place == "after" else "of it is zero"
    assert peak_of(forked, save, script.replace("REASON", reason)) < 32 * MB


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory in /proc")
def test_a_header_that_is_mostly_a_hole_takes_no_memory(tmp_path, forked):
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
    assert peak_of(forked, save, script) < 32 * MB


def test_folders_of_elements_must_fit(tmp_path, set_limit):
    elements = pytest.importorskip("elements")
    theirs = elements.Checkpoint(str(tmp_path / "theirs"))
    theirs.agent = Box({"w": np.zeros(MB, np.uint8)})
    theirs.save()
    (file,) = (tmp_path / "theirs").glob("*/agent.pkl")
    size = file.stat().st_size
    set_limit(3 * size - 1)  # The file, what is cut out of it, and the array.
    with pytest.raises(ReadError, match="does not fit into memory"):
        make(tmp_path / "theirs").load()
    set_limit(3 * size)
    make(tmp_path / "theirs").load()

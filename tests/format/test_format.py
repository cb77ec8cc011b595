"""docs/format.md is enough to read a save, and what it says stays readable for ever."""

import base64
import collections
import json
import pathlib
import re
import struct
import typing

import msgspec
import numpy as np
import pytest
import safetensors.numpy
import xxhash
import zstandard

import elementsckpt
from elementsckpt.format import manifest

from support.boxes import blocks, make
from support.faults import Policy
from support.folders import forge, manifest_of
from support.forgery import set_in

DATA = pathlib.Path(__file__).parents[1] / "data"


class Pair(typing.NamedTuple):
    first: object
    second: object


def numpy_state():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(3, 4)).astype("f4")
    return {
        "params": {"enc/w": shared, "enc/b": np.arange(5, dtype=">i2")},
        "target": {"enc/w": shared},
        "large": rng.integers(0, 255, (2500, 10_000), dtype=np.uint8),
        "wide": rng.normal(size=(3, 1_500_000)),
        "fortran": np.asfortranarray(rng.normal(size=(300, 200))),
        "strided": rng.normal(size=(600, 400))[::2, ::3],
        "levels": rng.integers(0, 3, (400, 7000), np.uint8),
        "sparse": np.asfortranarray(np.eye(300)),
        "record": np.zeros(3, [("a", "<i4"), ("b", ">f8", (2,))]),
        "scalar": np.float32(0.5),
        "empty": np.zeros((0, 3)),
        "list": [1, 2.5, None, True, "é", b"\xff", float("nan"), 1 << 70],
        "text": "é" * 3000,
        "tuple": (1 + 2j, ()),
        "counts": collections.Counter("hello"),
        "pair": Pair([], {1: "one"}),
    }


def write(path, agent, **options):
    savefns = {"agent": lambda: agent}
    return elementsckpt.checkpoint.save(path, savefns, **options).path


def write_again(directory, state):
    """Write a save of which an earlier one holds the larger part; return its folder."""
    cp = make(directory, {**state, "large": state["large"].copy()}, keep=2)
    cp.agent.state["large"][[300, 301, 2499]] += 1
    cp.agent.state["list"] = ["another"]
    cp.save()
    cp.agent.state = state
    report = cp.save()
    assert report.bytes_reused > report.bytes_total // 3
    assert report.bytes_written > 0
    return report.path


class PlainReader:
    """Reads a save by docs/format.md alone, with json, zstandard and NumPy."""

    def __init__(self, folder):
        self.folder = folder
        content = (folder / "manifest.json").read_bytes()
        body, _, tail = content.rpartition(b',\n"digest":')
        assert json.loads(tail.rstrip(b"}\n")) == xxhash.xxh3_128_hexdigest(body)
        self.manifest = json.loads(content)
        assert self.manifest["format"] == "elementsckpt"
        assert self.manifest["version"] == 2

    def read(self, key):
        (entry,) = [x for x in self.manifest["components"] if x["key"] == key]
        self.contents = {
            file: (self.folder / file).read_bytes() for file, *_ in entry["segments"]
        }
        blocks = [self.block(entry, *block) for block in entry["blocks"]]
        trees = [self.tree(tree, blocks) for tree in entry["trees"]]
        return trees[0] if entry["shards"] is None else trees

    def files(self, key):
        (entry,) = [x for x in self.manifest["components"] if x["key"] == key]
        assert entry["shards"] is None
        assert entry["segments"] == entry["blocks"] == entry["trees"] == []
        assert re.fullmatch(r"[A-Za-z0-9_%~-]+\.files", entry["files"]["folder"])
        found = {}
        for path, size, digest in entry["files"]["files"]:
            content = (self.folder / entry["files"]["folder"] / path).read_bytes()
            assert len(content) == size
            assert xxhash.xxh3_128_hexdigest(content) == digest
            found[path] = content
        assert entry["leaf_count"] == len(found)
        assert entry["size_bytes"] == sum(map(len, found.values()))
        return found

    def block(self, entry, segment, offset, size, digest, unpacked=0):
        file, length, start, header = entry["segments"][segment]
        content = self.contents[file]
        assert len(content) == length
        assert xxhash.xxh3_128_hexdigest(content[:start]) == header
        data = content[offset : offset + size]
        assert len(data) == size
        if unpacked:
            data = zstandard.ZstdDecompressor().decompress(data, unpacked)
            assert len(data) == unpacked
        assert xxhash.xxh3_128_hexdigest(data) == digest
        return data

    def tree(self, tree, blocks):
        leaves = [x for group in tree["leaves"] for x in self.leaves(group, blocks)]
        nodes = []

        def at(number):
            return leaves[number] if number >= 0 else nodes[-number - 1]

        for node in tree["nodes"]:
            children = [at(number) for number in node.get("children", [])]
            keys = [self.scalar(key) for key in node.get("keys", [])]
            if node["kind"] in ("list", "deque"):
                nodes.append(children)
            elif node["kind"] == "tuple":
                nodes.append(tuple(children))
            else:
                nodes.append(dict(zip(keys, children, strict=True)))
        return at(tree["root"])

    def leaves(self, group, blocks):
        count = len(group["names"])
        if group["kind"] == "python":
            assert len(group["value"]) == count
            return [self.scalar(code) for code in group["value"]]
        dtype, shape = self.dtype(group["dtype"]), group.get("shape", [])
        size = int(np.prod(shape)) * dtype.itemsize
        block, offset = group.get("block", -1), group.get("offset", 0)
        data = b""
        while block >= 0 and len(data) < offset + count * size:
            data, block = data + blocks[block], block + 1
        order, found = group.get("order", "C"), []
        for start in range(offset, offset + count * size, size) if size else [0]:
            array = np.frombuffer(data[start : start + size], dtype)
            array = array.reshape(shape, order=order)
            is_text = group["kind"] == "str"
            found.append(array.tobytes().decode() if is_text else array)
        return found

    def dtype(self, code):
        if isinstance(code, str):
            return np.dtype(code)
        if "base" in code:
            return np.dtype((self.dtype(code["base"]), tuple(code["shape"])))
        names, types, offsets = zip(*code["fields"], strict=True)
        formats = [self.dtype(x) for x in types]
        spec = {"names": names, "formats": formats, "offsets": offsets}
        return np.dtype({**spec, "itemsize": code["itemsize"]})

    def scalar(self, code):
        if not isinstance(code, dict):
            return code
        ((name, value),) = code.items()
        if name == "$float":
            special = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}
            return special.get(value) or struct.unpack("<d", bytes.fromhex(value))[0]
        if name == "$bytes":
            return base64.b64decode(value)
        if name == "$numpy":
            data = np.frombuffer(bytes.fromhex(value[1]), self.dtype(value[0]))
            return data[0]
        readers = {"$int": lambda x: int(x, 16), "$complex": lambda x: complex(*x)}
        return readers[name](value)


def assert_equal(found, expected):
    if isinstance(expected, Pair):
        expected = expected._asdict()
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_equal(found[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected or (found != found and expected != expected)


@pytest.mark.parametrize("compress", [None, "auto", 3])
def test_a_save_is_read_by_the_text_of_the_format_alone(tmp_path, compress):
    state = numpy_state()
    reader = PlainReader(write(tmp_path / "save", state, compress=compress))
    assert_equal(reader.read("agent"), state)


def test_a_save_with_links_is_read_by_the_text_of_the_format_alone(tmp_path):
    state = numpy_state()
    path = write_again(tmp_path, state)
    names = {file.name.split("-")[1] for file in path.glob("agent-*")}
    assert names == {"000001", "000002"}
    assert_equal(PlainReader(path).read("agent"), state)


@pytest.mark.parametrize("compress", [None, "auto", 3])
def test_shards_are_read_by_the_text_of_the_format_alone(tmp_path, compress):
    shards = [{"x": np.full(5000 * i, i), "i": i} for i in range(10)]
    path = tmp_path / "save"
    savefns = {"replay": lambda: (x for x in shards)}
    elementsckpt.checkpoint.save(path, savefns, compress=compress)
    assert_equal(PlainReader(path).read("replay"), shards)


def test_files_are_read_by_the_text_of_the_format_alone(tmp_path):
    files = {"config.json": b"{}", "a/b/c": bytes(3 << 20), "ü": b"", ".hidden": b"x"}
    savefns = {"policy ü": Policy(files).save}
    elementsckpt.checkpoint.save(tmp_path / "save", savefns)
    assert PlainReader(tmp_path / "save").files("policy ü") == files


def test_leaves_that_differ_in_name_and_content_only_are_one_entry(tmp_path):
    state = {f"layer{i}": {"w": np.full(3, i), "n": i} for i in range(4)}
    path = write(tmp_path / "save", agent=state)
    (entry,) = json.loads((path / "manifest.json").read_bytes())["components"]
    arrays, scalars = entry["trees"][0]["leaves"]
    assert arrays["names"] == [f"layer{i}/w" for i in range(4)]
    assert scalars["names"] == [f"layer{i}/n" for i in range(4)]
    assert scalars["value"] == [0, 1, 2, 3]


def tensors_in(save):
    """Return what the safetensors package finds, file by file."""
    files = sorted(save.glob("*.safetensors"))
    return {file.name: safetensors.numpy.load_file(file) for file in files}


def ranges_of(name, tensors):
    """Return the entries of ranges of a leaf, by the first and the last index."""
    return {
        (int(match[1]), int(match[2])): value
        for key, value in tensors.items()
        if (match := re.fullmatch(rf"{name}\[(\d+):(\d+)\](\.zst)?@\d+", key))
    }


def test_the_safetensors_package_opens_every_segment(tmp_path):
    state = numpy_state()
    path = write(tmp_path / "save", state, compress=None)
    tensors = {}
    for found in tensors_in(path).values():
        assert not tensors.keys() & found.keys()
        tensors |= found
    for name in ("large", "wide", "strided", "levels"):
        np.testing.assert_array_equal(tensors[name], state[name])
    np.testing.assert_array_equal(tensors["params/enc/w"], state["params"]["enc/w"])
    np.testing.assert_array_equal(tensors["fortran"], state["fortran"].T)
    assert tensors["params/enc/b"].dtype == np.uint8, "big-endian has no type there"


def test_the_safetensors_package_opens_every_segment_of_frames(tmp_path):
    state = numpy_state()
    path = write(tmp_path / "save", state)
    (tensors,) = (x for x in tensors_in(path).values() if "sparse.zst@1" in x)
    assert all(x.dtype == np.uint8 for x in tensors.values())
    unpacked = zstandard.decompress(tensors["sparse.zst@1"])
    assert unpacked == state["sparse"].tobytes("F")
    ranges = ranges_of("levels", tensors)
    assert len(ranges) > 1
    for (start, stop), frame in ranges.items():
        rows = state["levels"][start:stop]
        assert zstandard.decompress(frame) == rows.tobytes()
    assert sorted(range(400)) == sorted(n for x in ranges for n in range(*x))


def test_the_safetensors_package_opens_what_is_linked_and_what_is_not(tmp_path):
    state = numpy_state()
    path = write_again(tmp_path, state)
    found = tensors_in(path)
    new = {
        k: v for name, x in found.items() if "-000002-" in name for k, v in x.items()
    }
    (old,) = (x["large@1"] for x in found.values() if "large@1" in x)
    ranges = ranges_of("large", new)
    assert len(ranges) == 2, "each run of blocks that changed is one entry"
    rows = {n for x in ranges for n in range(*x)}
    assert rows >= {300, 301, 2499}
    assert len(rows) < 400
    for (start, stop), value in ranges.items():
        np.testing.assert_array_equal(value, state["large"][start:stop])
    same = [n for n in range(2500) if n not in rows]
    np.testing.assert_array_equal(old[same], state["large"][same])


def test_names_that_segments_cannot_have_are_escaped(tmp_path):
    state = {
        "a/b": np.zeros(1),
        "a": {"b": np.ones(1)},
        "__metadata__": np.full(1, 2.0),
        "": np.full(1, 3.0),
        "\ud800": np.full(1, 4.0),
    }
    path = write(tmp_path / "save", state)
    (file,) = path.glob("*.safetensors")
    tensors = safetensors.numpy.load_file(file)
    real = [value for key, value in tensors.items() if "padding" not in key]
    assert sorted(float(value[0]) for value in real) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("compress", [None, "auto"])
def test_blocks_are_at_most_1_mib_and_data_is_aligned(tmp_path, compress):
    path = write(tmp_path / "save", numpy_state(), compress=compress)
    (entry,) = json.loads((path / "manifest.json").read_bytes())["components"]
    assert all(0 < len(block.content) <= 1 << 20 for block in blocks(path))
    (tree,) = entry["trees"]
    leaves = [leaf for leaf in tree["leaves"] if "block" in leaf]
    first = {leaf["block"] for leaf in leaves if not leaf.get("offset", 0)}
    ends = {}
    for number, (segment, offset, size, _, unpacked) in enumerate(entry["blocks"]):
        if number in first or unpacked:
            assert offset % 64 == 0
        else:  # It goes on where the leaf's block before it ends, so it can be mapped.
            assert ends[number - 1] == (segment, offset)
        ends[number] = segment, offset + size


@pytest.mark.parametrize(
    "field", [{2: (32 << 20) + 1}, {2: 1, 4: (16 << 20) + 1}, {4: -1}, {2: 0}]
)
def test_blocks_of_more_than_the_limit_are_refused(tmp_path, field):
    path = write(tmp_path / "save", {"w": np.ones(3)})
    block = manifest_of(path)["components"][0]["blocks"][0]
    for index, value in field.items():
        block[index] = value
    forge(path, set_in("components", 0, "blocks", 0, block))
    with pytest.raises(elementsckpt.DamagedError, match="blocks"):
        elementsckpt.read(path)


def test_a_newer_version_is_refused_with_both_versions(tmp_path):
    path = write(tmp_path / "save", {"w": np.zeros(3)})
    forge(path, lambda x: x.update(version=7, shape_of_things="to come"))
    with pytest.raises(elementsckpt.VersionError, match=r"version 7.*up to 2"):
        elementsckpt.read(path)


def test_a_version_that_is_a_flipped_bit_is_damage(tmp_path):
    path = write(tmp_path / "save", {"w": np.zeros(3)})
    file = path / "manifest.json"
    file.write_bytes(file.read_bytes().replace(b'"version":2', b'"version":9'))
    with pytest.raises(elementsckpt.DamagedError, match="digest"):
        elementsckpt.read(path)


def test_the_schema_and_the_text_have_the_same_fields():
    text = (DATA.parent.parent / "docs" / "format.md").read_text("utf-8")
    types = manifest.Manifest, manifest.Component, manifest.Tree, manifest.Files
    for struct_type in types:
        for field in struct_type.__struct_fields__:
            assert f"`{field}`" in text or f'"{field}"' in text, field
    for struct_type in (manifest.LeafGroup, manifest.Node):
        for info in msgspec.structs.fields(struct_type):
            assert f"`{info.name}`" in text, info.name

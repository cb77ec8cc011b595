"""Saves changed at random, but with the digests right, and looked at in all ways."""

from __future__ import annotations

import collections
import copy
import datetime
import itertools
import json
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import xxhash
import zstandard

import elementsckpt
from elementsckpt import Checkpoint, CheckpointError, Every, Files, Keep

from support.boxes import Box, LazyStream
from support.folders import sealed, texts_of
from support.strategies import Pair, Point

MANIFEST = "manifest.json"
Choose = Callable[[int], int]  # Returns a number from 0 on that is below another.
Content = dict[str, bytes]  # Content of each file in a folder, by its path.

STRUCTURED = [("a", "<i4"), ("b", ">f8", (2,)), ("c", [("d", "U2")])]


def state() -> dict[Any, Any]:
    """Return a state with leaves and containers of all kinds that need no pickle."""
    shared = np.arange(6.0).reshape(2, 3)
    large, buffer = np.arange(20_000, dtype=np.uint32), np.arange(40.0)
    noted = collections.OrderedDict(a=1)
    noted.note, noted.array = {"x": 2}, np.ones(2)
    return {
        "arrays": [shared, shared.T.copy("K"), np.zeros(2, STRUCTURED)],
        "more": (np.array(["é", ""]), np.zeros((0, 3), ">i2"), np.float32(0.5)),
        "large": large,
        "views": [shared[0], large[50:60], buffer[:30], buffer[30:10:-1]],
        "noted": noted,
        "scalars": [None, True, 1 << 70, float("nan"), 1j, "\ud800", b"\xff", ...],
        "text": ["a" * 2000, b"b" * 2000, bytearray(2000)],
        "sets": {frozenset({1, (2, "x")}), 3},
        ("odd", 1): collections.OrderedDict(a=1, b=[shared]),
        2.5: collections.defaultdict(list, {1: collections.deque([1], 3)}),
        "counter": collections.Counter("hello"),
        "classes": [Pair(1, np.ones(3)), Point(1, {"z": 2})],
        "rng": [
            np.random.Generator(kind(0)) for kind in (np.random.PCG64, np.random.Philox)
        ],
        "old rng": np.random.RandomState(0),
    }


def contents(folder) -> Content:
    """Return what is in a folder."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def name_of(content: Content) -> str:
    """Return the name that a save has where it was written."""
    return json.loads(content[MANIFEST])["name"] if MANIFEST in content else "save"


def write(folder, content: Content) -> None:
    """Make a folder with these files."""
    for name, data in content.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def seeds(folder) -> list[Content]:
    """Return saves to change: of each kind of component and of elements."""
    keep = Keep(latest=None, best=1, metric="return")
    made = []
    for number, compress in enumerate((None, 1)):
        every = Every(1000)
        cp = Checkpoint(folder / str(number), keep, 5, compress=compress, every=every)
        cp.agent = Box(state())
        cp.replay = LazyStream({"x": np.full(9, n), "n": n} for n in range(3))
        cp.files = Files(save=write_some, load=repr)
        metadata = {"a": [1.5, float("inf")], 2: datetime.date.today().isoformat()}
        saved = cp.save(metrics={"return": 1.0}, metadata=metadata, pin="first")
        made.append(contents(saved.path))
    pickled = {"agent": {**state(), "rng": 0, "old rng": 0, "classes": 0, "noted": 0}}
    pickled["agent"]["scalars"][-1] = 0
    made.append({"agent.pkl": pickle.dumps(pickled["agent"]), "done": b""})
    return made


def write_some(folder) -> None:
    write(folder, {"a": b"a" * 100, "x/b": b"b" * 10})


# Changes

KINDS = [
    *("dict", "ordered", "counter", "default", "frozen", "list", "tuple", "deque"),
    *("namedtuple", "dataclass", "generator", "randomstate"),
    *("python", "str", "bytes", "bytearray", "numpy", "jax", "key", "torch"),
    *("function", "pickle", "view"),
]
TYPES = [
    *("|b1", "<f4", ">i8", "<f16", "<U5", "|S0", "|V0", "|O", "<M8[25s]", "bfloat16"),
    {"string": {"coerce": True}},
    {"string": {"coerce": False, "missing": {"$float": "nan"}}},
    {"base": {"string": {"coerce": True}}, "shape": [2]},
    {"fields": [["a", "<f4", 0], ["b", "<f8", 2]], "itemsize": 10, "aligned": False},
]
CODES = [
    {"$int": "0x" + "f" * 40},
    {"$float": "nan"},
    {"$complex": [1.0, 2.0]},
    {"$str": "eda080"},
    {"$bytes": "AAAA"},
    {"$bytearray": "AAAA"},
    {"$ellipsis": None},
    {"$numpy": ["<f4", "00000000"]},
    {"$numpy": [{"string": {"coerce": True}}, "ff" * 16]},
    {"$numpy": ["<U1", "ffffffff"]},
    {"$tuple": [1, 2]},
    {"$set": [1, 2]},
    {"$frozenset": [{"$set": [1]}]},
    {"$dict": [[1, 2], [1, 2]]},
]
NUMBERS = [
    *(0, 1, -1, 2, 7, 64, 255, 1 << 16, 1 << 31, (1 << 53) + 1, (1 << 62) - 1),
    *(1 << 63, -(1 << 63), 10**30, 0.5, 1e308, -0.0),
]
TEXTS = [
    *("", "/", "..", "../../etc/passwd", "a\0b", "\x1b[31m\n", "é\U0001f600"),
    *("a" * 300, "os:system", "builtins:eval", "__class__", "__main__:x"),
    "support.strategies:Point",
    *("C", "F", "max", "parameter", "threefry2x32", "PCG64", "list", "int"),
]
VALUES = [*KINDS, *TYPES, *CODES, *NUMBERS, *TEXTS, None, True, [], [[]], {}, [-1]]
VALUES += [[0, 0, [8]], [0, 8, [-8]], [1, 0, [0, 4]], ["note"], [8, 4]]


def mutate(content: Content, choose: Choose) -> Content:
    """Return a save with some changes, whose digests are right."""
    content = dict(content)
    if MANIFEST not in content:
        name = "agent.pkl"
        return {**content, name: _change_bytes(content[name], choose)}
    document = json.loads(content.pop(MANIFEST))
    for _ in range(1 + choose(3)):
        if choose(4):
            _change_document(document, choose)
        else:
            _change_file(content, choose)
    _correct(document, content)
    head, rest = texts_of(document, lies=not choose(8))
    if not choose(8):
        head = _change_bytes(head, choose)
    if not choose(8):
        rest = _change_bytes(rest, choose)
    return {**content, MANIFEST: sealed(head, rest)}


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each container in a document with each of its keys."""
    stack = [value]
    while stack:
        outer = stack.pop()
        keys = range(len(outer)) if isinstance(outer, list) else list(outer)
        for key in keys:
            yield outer, key
            if isinstance(outer[key], (dict, list)):
                stack.append(outer[key])


def _change_document(document: Any, choose: Choose) -> None:
    places = list(_places(document))
    if not places:
        return
    outer, key = places[choose(len(places))]
    other, other_key = places[choose(len(places))]
    value = outer[key]
    change = choose(8)
    if change == 0:
        del outer[key]
    elif change == 1 and isinstance(outer, list):
        outer.insert(choose(len(outer) + 1), copy.deepcopy(value))
    elif change == 2:
        outer[key] = copy.deepcopy(other[other_key])
    elif change == 3 and isinstance(outer, dict):
        outer[TEXTS[choose(len(TEXTS))]] = outer.pop(key)
    elif change == 4 and isinstance(value, list):
        outer[key] = value * (1 + choose(20))
    elif isinstance(value, int) and choose(2):
        outer[key] = (value + choose(5) - 2) * (-1 if not choose(8) else 1)
    else:
        outer[key] = copy.deepcopy(VALUES[choose(len(VALUES))])


def _change_file(content: Content, choose: Choose) -> None:
    names = sorted(content)
    if names:
        name = names[choose(len(names))]
        content[name] = _change_bytes(content[name], choose)


def _change_bytes(data: bytes, choose: Choose) -> bytes:
    changed = bytearray(data)
    for _ in range(1 + choose(4)):
        at, size = choose(len(changed) + 1), 1 + choose(16)
        change = choose(4)
        if change == 0:
            changed[at : at + 1] = bytes([choose(256)])
        elif change == 1:
            del changed[at : at + size]
        elif change == 2:
            start = choose(len(changed) + 1)
            changed[at:at] = changed[start : start + size]
        else:
            changed[at : at + size] = bytes(choose(256) for _ in range(size))
    return bytes(changed)


def _correct(document: Any, content: Content) -> None:
    """Make sizes and digests what they are now, where a document still has them."""
    components = document.get("components")
    for component in components if isinstance(components, list) else []:
        try:
            files = [content.get(x[0]) for x in component["segments"]]
            for segment, data in zip(component["segments"], files, strict=True):
                if data is not None:
                    segment[1] = len(data)
                    segment[3] = _digest(data[: segment[2]])
            for block in component["blocks"]:
                data = files[block[0]][block[1] : block[1] + block[2]]
                block[3] = _digest(_unpacked(data, *block[4:5]))
            for entry in (component["files"] or {}).get("files", []):
                data = content[f"{component['files']['folder']}/{entry[0]}"]
                entry[1:3] = len(data), _digest(data)
        except Exception:  # It is too much of nonsense already.
            continue


def _unpacked(data: bytes, size: int = 0) -> bytes:
    return zstandard.ZstdDecompressor().decompress(data, size) if size else data


def _digest(data: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(data)


# Looking


def look(folder) -> int:
    """Look at a save in all ways, and save beside it; return how many ways succeeded.

    Raises:
      Exception: what is no `CheckpointError`.
    """
    count = 0
    for way in WAYS:
        try:
            way(folder)
            count += 1
        except CheckpointError:
            continue
    _make(folder.parent, keep=1, fsync=False).save()  # No other save prevents that.
    return count


def _make(directory=None, **options):
    cp = Checkpoint(directory, **options)
    cp.agent = Box(state())
    return cp


def _load_all(folder):
    streams = []
    loadfns = {"agent": use, "replay": streams.append, "files": Files(load=repr).load}
    there = elementsckpt.info(folder).components
    loadfns = {key: load for key, load in loadfns.items() if key in there}
    if loadfns:  # Without any, it is the call that is refused, with a ValueError.
        elementsckpt.checkpoint.load(folder, loadfns)
    for stream in streams:
        use(list(itertools.islice(stream, 1000)))


def _load(folder, **options):
    cp = _make()
    cp.load(folder, **options)
    use(cp.agent.state)


def _look_at_directory(folder):
    cp = _make(folder.parent, keep=Keep(latest=None, metric="return"))
    assert cp.exists()
    repr(cp)
    cp.saves()
    cp.best()


WAYS = [
    lambda folder: repr(elementsckpt.info(folder)),
    lambda folder: use(elementsckpt.read(folder)),
    lambda folder: use(elementsckpt.read(folder, mmap=False)),
    lambda folder: use(elementsckpt.read(folder, ["agent"], "[a-m]")),
    lambda folder: use(elementsckpt.read(folder, verify=False)),
    lambda folder: _load(folder),
    lambda folder: _load(folder, mmap=True),
    lambda folder: _load(folder, regex=".*", strict=False, cast=True),
    lambda folder: _load(folder, rename={"a": "b"}, dry_run=True),
    _load_all,
    _look_at_directory,
]


def use(data: Any) -> None:
    """Use what was loaded, where that takes no time."""
    stack, left = [data], 10_000
    while stack and left:
        item, left = stack.pop(), left - 1
        if isinstance(item, dict):
            stack += item.values()
        elif isinstance(item, (list, tuple, collections.deque)):
            stack += itertools.islice(item, 1000)
        elif isinstance(item, np.random.Generator):
            item.integers(9, size=1000, dtype=np.uint32)
        elif isinstance(item, np.random.RandomState):
            item.bytes(1000)
        elif isinstance(item, np.ndarray) and item.size < 1000:
            item.tobytes()


def choices(data: bytes) -> Choose:
    """Return choices that the bytes decide, and that are 0 when these have ended."""
    left = iter(data)

    def choose(count: int) -> int:
        size = ((count - 1).bit_length() + 7) // 8
        return int.from_bytes([next(left, 0) for _ in range(size)], "big") % count

    return choose

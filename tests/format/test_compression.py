"""Compression: which leaves become zstd frames, and that damage in one is found."""

import re

import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import elementsckpt
from elementsckpt import Checkpoint, DamagedError
from elementsckpt.storage import disk

from support.boxes import Box, LazyStream, Stream, load_agent, make, python
from support.faults import unsynced
from support.folders import (
    HEADERS,
    MB,
    Reads,
    component_of,
    flip,
    forge,
    noise,
    use_small_blocks,
)
from support.strategies import LAYOUTS, assert_same, lay_out, states

safetensors = pytest.importorskip("safetensors.numpy")


def image(size=MB):
    """Return an array that is nearly the same every kB."""
    return np.tile(noise(1, 1000), size // 1000)


def saved(directory, state, **options):
    return make(directory, state, fsync=False, **options).save().path


def is_packed(save):
    """Return whether each block is a frame, in order."""
    return [block[4] > 0 for block in component_of(save)["blocks"]]


def tensors(save):
    """Return what the safetensors package finds in all segments, without dates."""
    found = {}
    for file in save.glob("*.safetensors"):
        found |= safetensors.load_file(file)
    return {
        re.sub(r"(\.zst)?@1$", "", name): x
        for name, x in found.items()
        if not name.startswith("__padding_")
    }


# Which leaves are compressed


def test_weights_are_left_as_they_are(tmp_path):
    w = np.random.default_rng(1).standard_normal((1000, 500)).astype(np.float32)
    path = saved(tmp_path, {"w": w, "half": w.astype(np.float16)})
    assert not any(is_packed(path))
    found = tensors(path)
    assert found.keys() == {"w", "half"}
    assert_same(
        {"w": w, "half": w.astype(np.float16)}, dict(sorted(found.items())[::-1])
    )


COMPRESSIBLE = {
    "zeros": lambda: np.zeros((600, 500), np.float32),
    "images": image,
    "counts": lambda: np.arange(200_000) % 7,
    "Fortran": lambda: np.asfortranarray(np.ones((600, 500))),
    "strided": lambda: np.ones((600, 500))[:, ::2],
    "at the least size": lambda: np.zeros(64 << 10, np.uint8),
    "text": lambda: "all work and no play " * 5000,
    "bytes": lambda: b"all work and no play " * 5000,
}


@pytest.mark.parametrize("name", COMPRESSIBLE)
def test_leaves_that_it_halves_are_compressed(tmp_path, name):
    state = COMPRESSIBLE[name]()
    path = saved(tmp_path, state)
    assert all(is_packed(path))
    report = make(tmp_path / "raw", state, compress=None).save()
    sizes = [sum(x.stat().st_size for x in p.iterdir()) for p in (path, report.path)]
    assert 2 * sizes[0] <= sizes[1]
    assert {x.dtype for x in tensors(path).values()} == {np.dtype(np.uint8)}
    assert_same(state, load_agent(path))


INCOMPRESSIBLE = {
    "small": lambda: np.zeros((64 << 10) - 1, np.uint8),
    "many small": lambda: [np.zeros(1000) for _ in range(500)],
    "noise": lambda: noise(1, 3 * MB),
    "by a third": lambda: noise(1, 3 * MB) & 0x1F,
    "empty": lambda: np.zeros((0, 5)),
}


@pytest.mark.parametrize("name", INCOMPRESSIBLE)
def test_what_is_small_or_not_halved_is_left_as_it_is(tmp_path, name):
    state = INCOMPRESSIBLE[name]()
    path = saved(tmp_path, state)
    assert not any(is_packed(path))
    assert_same(state, load_agent(path))


def test_no_frame_is_larger_than_half_of_its_content(tmp_path):
    rows = np.concatenate([np.zeros(8 * MB, np.uint8), noise(1, 3 * MB)])
    path = saved(tmp_path, rows)
    blocks = component_of(path)["blocks"]
    assert all(not unpacked or 2 * size <= unpacked for *_, size, _, unpacked in blocks)
    assert {block[4] > 0 for block in blocks} == {True, False}
    assert_same(rows, load_agent(path))


def test_each_leaf_is_judged_by_itself(tmp_path):
    path = saved(tmp_path, {"flat": np.zeros(MB, np.uint8), "noise": noise(1, MB)})
    assert sorted(is_packed(path)) == [False, True]
    assert np.array_equal(tensors(path)["noise"], noise(1, MB))


STATE = {
    "w": np.zeros(300_000),
    "n": noise(1, MB),
    "small": [np.arange(9), np.zeros(9)],
}


def test_none_compresses_nothing(tmp_path):
    path = saved(tmp_path, STATE, compress=None)
    assert not any(is_packed(path))
    assert np.array_equal(tensors(path)["w"], STATE["w"])


@pytest.mark.parametrize("level", [1, 3, 19, 22])
def test_a_level_compresses_all(tmp_path, level):
    state = {**STATE, "n": noise(1, 100_000), "w": STATE["w"][:20_000]}
    path = saved(tmp_path, state, compress=level)
    assert all(is_packed(path))
    assert_same(state, load_agent(path))
    frames = [bytes(x) for x in tensors(path).values()]
    contents = {zstandard.decompress(frame) for frame in frames}
    assert state["n"].tobytes() in contents


def test_a_higher_level_is_smaller(tmp_path):
    words = np.random.default_rng(1).choice(np.arange(100, dtype=np.uint8), 300_000)
    state = np.sort(words.reshape(-1, 30))
    sizes = [make(None, state, compress=n).save(tmp_path / str(n)) for n in (1, 19)]
    assert sizes[1].bytes_written < sizes[0].bytes_written


def test_the_functional_form_compresses_too(tmp_path):
    elementsckpt.checkpoint.save(tmp_path / "a", {"agent": lambda: image()})
    elementsckpt.checkpoint.save(
        tmp_path / "b", {"agent": lambda: image()}, compress=None
    )
    assert all(is_packed(tmp_path / "a"))
    assert not any(is_packed(tmp_path / "b"))


BAD = [
    0,
    23,
    -1,
    True,
    False,
    1.5,
    3.0,
    "",
    "zstd",
    "AUTO",
    "3",
    b"auto",
    [3],
    (1, 2),
]


@pytest.mark.parametrize("compress", BAD, ids=repr)
def test_other_arguments_are_refused(tmp_path, compress):
    with pytest.raises(ValueError, match="'auto', None, or a level"):
        Checkpoint(tmp_path, compress=compress)
    with pytest.raises(ValueError, match="compress="):
        elementsckpt.checkpoint.save(tmp_path / "a", {"x": dict}, compress=compress)
    assert list(tmp_path.iterdir()) == []


# Round trips

PROPERTY = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
MANNERS = st.sampled_from(["auto", None, 1, 5])


@pytest.fixture
def round_trip(tmp_path_factory, monkeypatch):
    """Return a function that saves and loads, blocks being small."""
    use_small_blocks(monkeypatch.setattr)
    monkeypatch.setattr(disk, "syscall", unsynced)

    def save_and_load(state, compress, kind=Box):
        cp = Checkpoint(tmp_path_factory.mktemp("save"), compress=compress)
        cp.agent = kind(state)
        cp.save()
        cp.agent.state = None
        cp.load()
        return cp.agent.state

    return save_and_load


@PROPERTY
@given(state=states(), compress=MANNERS)
def test_any_state_comes_back_the_same(round_trip, state, compress):
    assert_same([state], round_trip([state], compress))


DTYPES = ["u1", "<f4", ">f8", "c8", "S5", "<U2", "M8[s]", [("a", "i2"), ("b", ">f4")]]


@PROPERTY
@given(
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(LAYOUTS),
    rows=st.integers(1, 300),
    period=st.sampled_from([1, 7, 100, 10**6]),
    compress=MANNERS,
    kind=st.sampled_from([Box, Stream]),
)
def test_any_array_comes_back_the_same(
    round_trip, dtype, layout, rows, period, compress, kind
):
    size = rows * 20 * np.dtype(dtype).itemsize
    data = (np.arange(size) % period % 128).astype(np.uint8)
    array = lay_out(data.view(dtype).reshape(rows, 4, 5), layout)
    assert_same(
        [array, array.copy()], round_trip([array, array.copy()], compress, kind)
    )


def test_jax_arrays_come_back_the_same(tmp_path):
    jnp = pytest.importorskip("jax.numpy")
    state = {"w": jnp.zeros((600, 500)), "b": jnp.ones(10, jnp.bfloat16)}
    assert all(is_packed(saved(tmp_path, state, compress=1)))
    cp = make(tmp_path)
    cp.load()
    assert_same(state, cp.agent.state)


# A part of it


def test_only_the_frames_of_matched_leaves_are_read(tmp_path, monkeypatch):
    state = {f"layer{n}": {"w": image(), "b": noise(n, 100)} for n in range(8)}
    path = saved(tmp_path, state)
    cp = make(tmp_path, {x: {"w": image(), "b": noise(9, 100)} for x in state})
    reads = Reads()
    monkeypatch.setattr("os.preadv", reads)
    cp.load(path, regex="layer3/w")
    assert 0 < reads.segments < HEADERS
    assert_same(state["layer3"]["w"], cp.agent.state["layer3"]["w"])


def test_packed_shards_are_streamed(tmp_path):
    cp = Checkpoint(tmp_path, compress=1)
    cp.replay = LazyStream([{"x": np.full(50_000, n), "n": n} for n in range(20)])
    cp.save()
    cp.load()
    assert [(set(x["x"]), x["n"]) for x in cp.replay.got] == [
        ({n}, n) for n in range(20)
    ]


def test_components_of_any_manner_are_read_by_key(tmp_path):
    path = saved(tmp_path, {"a": image(), "b": np.arange(5)}, compress=7)
    found = elementsckpt.read(path, regex="a")
    assert_same({"agent": {"a": image()}}, found)


# Damage


@pytest.fixture
def packed(tmp_path):
    """Return a save of two leaves, each of which is one frame."""
    state = {"a": image(500_000), "b": np.arange(100_000, dtype=np.uint8) % 7}
    return saved(tmp_path, state, compress=3)


def frames_of(save):
    """Return file, offset and size of each frame."""
    component = component_of(save)
    files = [save / name for name, *_ in component["segments"]]
    return [(files[n], offset, size) for n, offset, size, *_ in component["blocks"]]


def overwrite(save, number, content, **fields):
    """Put other bytes in the place of a frame and sign a manifest that says so."""
    file = frames_of(save)[number][0]
    offset = file.stat().st_size
    with file.open("ab") as opened:
        opened.write(content)

    def change(manifest):
        component = manifest["components"][0]
        block = component["blocks"][number]
        component["segments"][block[0]][1] = offset + len(content)
        block[1:3] = offset, len(content)
        block[4] = fields.get("unpacked", block[4])

    forge(save, change)


def content_of(save, number):
    file, offset, size = frames_of(save)[number]
    return file.read_bytes()[offset : offset + size]


def assert_right_or_damaged(save):
    """Check that nothing wrong is loaded: there are bits that mean nothing."""
    try:
        found = load_agent(save)
    except DamagedError as error:
        message = str(error)
    else:
        assert_same(image(500_000), found["a"])
        return
    assert "agent/a" in message


def assert_damaged(save, leaf="agent/a"):
    for options in ({}, {"mmap": True}, {"mmap": True, "verify": False}):
        with pytest.raises(DamagedError, match="is damaged between bytes") as error:
            load_agent(save, **options)
        assert leaf in str(error.value)


@pytest.mark.parametrize("where", [0, 3, 4, 5, 6, 0.1, 0.5, 0.9, -1])
def test_a_flipped_byte_is_found(packed, where):
    file, offset, size = frames_of(packed)[0]
    position = where % size if isinstance(where, int) else int(where * size)
    before = file.read_bytes()
    flip(file, offset + position)
    assert before != file.read_bytes()
    assert_right_or_damaged(packed)


@pytest.mark.parametrize("bit", range(8))
def test_no_flipped_bit_changes_what_is_loaded(tmp_path, bit):
    path = saved(tmp_path, np.zeros(70_000, np.uint8), compress=3)
    file, offset, size = frames_of(path)[0]
    good = bytearray(file.read_bytes())
    found = 0
    for position in range(offset, offset + size):
        bad = bytearray(good)
        bad[position] ^= 1 << bit
        file.write_bytes(bad)
        try:
            assert not load_agent(path).any()
        except DamagedError:
            found += 1
    assert found > size // 2


def test_swapped_frames_are_found(packed):
    first, second = (content_of(packed, n) for n in (0, 1))
    size = min(len(first), len(second))
    small = 0 if len(first) == size else 1
    (file, offset, _) = frames_of(packed)[1 - small]
    with file.open("r+b") as opened:
        opened.seek(offset)
        opened.write(content_of(packed, small))
    assert_damaged(packed, "agent/b" if small == 0 else "agent/a")


@pytest.mark.parametrize("cut", [1, 10, 100])
def test_a_truncated_frame_is_found(packed, cut):
    overwrite(packed, 0, content_of(packed, 0)[:-cut])
    assert_damaged(packed)


@pytest.mark.parametrize("change", [1, -1, 1000, -1000])
def test_a_frame_that_holds_more_or_less_is_found(packed, change):
    content = image(500_000)
    other = np.resize(content, content.size + change)
    frame = zstandard.ZstdCompressor(level=19).compress(other)
    overwrite(packed, 0, frame)
    assert_damaged(packed)


@pytest.mark.parametrize("garbage", [b"\0", b"garbage"])
def test_garbage_after_a_frame_is_found(packed, garbage):
    frame = zstandard.ZstdCompressor(level=19).compress(image(500_000))
    overwrite(packed, 0, frame)
    assert_same(image(500_000), load_agent(packed)["a"])
    overwrite(packed, 0, frame + garbage)
    assert_damaged(packed)


@pytest.mark.parametrize("content", [b"\0" * 50, b"(\xb5/\xfd", b"not a frame at all"])
def test_what_is_no_frame_is_found(packed, content):
    overwrite(packed, 0, content)
    assert_damaged(packed)


def test_a_frame_that_needs_a_dictionary_is_found(packed):
    dictionary = zstandard.ZstdCompressionDict(bytes(range(256)) * 8)
    compressor = zstandard.ZstdCompressor(dict_data=dictionary, write_dict_id=True)
    overwrite(packed, 0, compressor.compress(bytes(500_000)))
    assert_damaged(packed)


BOMB = """
import json, pathlib, re, resource, sys
from support.folders import forge
import elementsckpt

def peak_mb():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) / 1024

class Box:
    def save(self): pass
    def load(self, data): pass

cp = elementsckpt.Checkpoint()
cp.agent = Box()
before = peak_mb()
for path in sys.argv[1:]:
    for options in ({}, {"mmap": True}):
        try:
            cp.load(path, **options)
        except elementsckpt.DamagedError:
            print(peak_mb() - before)
"""


def bomb(window_log):
    """Return a frame of a few kB that holds 100 MB."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        1, window_log=window_log
    )
    compressor = zstandard.ZstdCompressor(compression_params=parameters)
    return compressor.compress(bytes(100 * MB))


def test_a_frame_that_holds_much_more_takes_no_memory(tmp_path):
    paths = []
    for window_log in (23, 27, 30):
        path = saved(tmp_path / str(window_log), noise(1, 100_000), compress=3)
        overwrite(path, 0, bomb(window_log), unpacked=100_000)
        paths.append(path)
    child = python(BOMB, *paths)
    assert child.returncode == 0, child.stderr
    grown = [float(x) for x in re.findall(r"[\d.]+", child.stdout)]
    assert len(grown) == 6
    assert max(grown) < 64

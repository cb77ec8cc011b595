"""`mmap=True`: arrays are views of the files, and what cannot be mapped is read."""

import gc
import os
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import elementsckpt
from elementsckpt import Checkpoint, DamagedError
from elementsckpt.storage import disk

from support.boxes import Stream, load_agent, make
from support.faults import unsynced
from support.folders import (
    HEADERS,
    MB,
    flip,
    flip_block,
    noise,
    use_small_blocks,
)
from support.strategies import assert_same, states

LAZY = {"mmap": True, "verify": False}
RAW = {"keep": None, "fsync": False, "compress": None}


def saved(directory, state, **options):
    return make(directory, state, **(RAW | options)).save().path


def is_mapped(array):
    """Tell whether an array's memory is a file in a save."""
    address = array.__array_interface__["data"][0]
    with open("/proc/self/maps") as maps:
        for line in maps:
            begin, _, rest = line.partition("-")
            if int(begin, 16) <= address < int(rest.split()[0], 16):
                return ".safetensors" in line
    return False


# What is mapped


def _arrays():
    return {
        "large": noise(1, 3 * MB, np.float32),
        "small": np.arange(10),
        "one": np.array(5.0),
        "fortran": np.asfortranarray(noise(2, 90_000).reshape(300, 300)),
        "structured": noise(3, 80_000).view([("x", "u1"), ("y", "<u2"), ("z", "u1")]),
        "dates": noise(4, 800).view("M8[s]"),
    }


@pytest.mark.parametrize("verify", [True, False])
def test_arrays_are_mapped_as_they_are(tmp_path, verify):
    path = saved(tmp_path, _arrays())
    state = load_agent(path, mmap=True, verify=verify)
    assert_same(_arrays(), state)
    assert all(map(is_mapped, state.values()))
    assert not any(map(is_mapped, load_agent(path).values()))


def test_large_arrays_are_aligned_for_any_processor(tmp_path):
    state = load_agent(saved(tmp_path, [noise(n, MB + n) for n in range(5)]), **LAZY)
    assert {x.__array_interface__["data"][0] % 64 for x in state} == {0}


def test_read_maps_unless_told_otherwise(tmp_path):
    path = saved(tmp_path, _arrays())
    for options in ({}, LAZY, {"verify": False}, {"regex": "large", **LAZY}):
        found = elementsckpt.read(path, **options)["agent"]
        assert_same(_arrays()["large"], found["large"])
        assert is_mapped(found["large"])
    assert not is_mapped(elementsckpt.read(path, mmap=False)["agent"]["large"])


def test_the_functional_form_maps(tmp_path):
    path = saved(tmp_path, _arrays())
    got = {}
    elementsckpt.checkpoint.load(path, {"agent": got.update}, **LAZY)
    assert_same(_arrays(), got)
    assert is_mapped(got["large"])


def test_a_partial_load_maps_the_matched_leaves(tmp_path):
    path = saved(tmp_path, _arrays())
    cp = make(tmp_path, _arrays())
    cp.load(path, regex="fortran|dates", **LAZY)
    assert_same(_arrays(), cp.agent.state)
    mapped = [name for name, x in cp.agent.state.items() if is_mapped(x)]
    assert mapped == ["fortran", "dates"]


def test_shards_are_mapped(tmp_path):
    cp = Checkpoint(tmp_path, **RAW)
    cp.agent = Stream([{"x": noise(n)} for n in range(5)])
    path = cp.save().path
    for verify in (True, False):
        shards = load_agent(path, Stream, mmap=True, verify=verify)
        assert_same(cp.agent.state, shards)
        assert all(is_mapped(shard["x"]) for shard in shards)


def test_jax_arrays_are_loaded_from_what_is_mapped(tmp_path):
    jax = pytest.importorskip("jax")
    state = {"w": jax.device_put(noise(1, MB)), "key": jax.random.key(1)}
    path = saved(tmp_path, state)
    found = load_agent(path, **LAZY)
    shutil.rmtree(path)
    assert_same(state, found)


# Copy on write


@pytest.mark.parametrize("verify", [True, False])
def test_writing_to_what_is_mapped_changes_no_file(tmp_path, verify):
    path = saved(tmp_path, _arrays())
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    state = load_agent(path, mmap=True, verify=verify)
    for array in state.values():
        array[...] = np.zeros((), array.dtype)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    assert_same(_arrays(), load_agent(path, mmap=True))
    assert not state["large"].any()


def test_what_was_changed_is_saved(tmp_path):
    cp = make(tmp_path, _arrays(), **RAW)
    first = cp.save().path
    cp.load(mmap=True)
    cp.agent.state["large"][5] = 7
    second = cp.save()
    expected = _arrays()
    expected["large"][5] = 7
    assert MB <= second.bytes_written <= 2 * MB
    assert_same(expected, load_agent(second.path))
    assert_same(_arrays(), load_agent(first))


@pytest.mark.parametrize("background", [False, True])
def test_what_is_mapped_is_saved_over_the_save_it_comes_from(tmp_path, background):
    cp = make(tmp_path, _arrays(), fsync=False, background=background)
    cp.save()
    for turn in range(4):
        cp.load(**LAZY)
        cp.agent.state["small"][0] = turn
        path = cp.save().path
    cp.wait()
    expected = _arrays()
    expected["small"][0] = 3
    assert_same(expected, load_agent(path))


@pytest.mark.parametrize("end", ["pruned", "removed"])
def test_what_is_mapped_outlives_its_save(tmp_path, end):
    cp = make(tmp_path, _arrays(), fsync=False)
    path = cp.save().path
    state = load_agent(path, **LAZY)
    if end == "pruned":
        cp.agent.state = 0
        cp.save()
    else:
        shutil.rmtree(path)
    assert not path.exists()
    assert_same(_arrays(), state)


def test_files_are_closed_and_unmapped_when_nobody_holds_an_array(tmp_path):
    path = saved(tmp_path, _arrays())
    state = load_agent(path, mmap=True)
    one = state.pop("small")
    del state
    assert is_mapped(one)
    del one
    gc.collect()
    with open("/proc/self/maps") as maps:
        assert str(path) not in maps.read()
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    open_files = [os.readlink(x) for x in links if os.path.lexists(x)]
    assert not [x for x in open_files if str(path) in x]


# Verification


@pytest.mark.parametrize("name", ["large", "small", "fortran"])
def test_damage_is_found_when_verifying_and_goes_unnoticed_otherwise(tmp_path, name):
    path = saved(tmp_path, {name: _arrays()[name]})
    (file,) = path.glob("*.safetensors")
    flip(file)
    for options in ({}, {"mmap": True}):
        with pytest.raises(DamagedError, match=f"agent/{name}"):
            load_agent(path, **options)
    assert load_agent(path, **LAZY)[name].tobytes() != _arrays()[name].tobytes()


@pytest.mark.parametrize("change", ["header", "shorter", "longer", "gone", "link"])
def test_without_verifying_files_are_still_what_the_manifest_says(tmp_path, change):
    path = saved(tmp_path, {"large": _arrays()["large"]})
    (file,) = path.glob("*.safetensors")
    size = file.stat().st_size
    if change == "header":
        flip(file, 30)
    elif change == "gone":
        file.unlink()
    elif change == "link":
        file.symlink_to(file.rename(tmp_path / "elsewhere"))
    else:
        os.truncate(file, size - 1 if change == "shorter" else size + 1)
    with pytest.raises(DamagedError, match="agent/large"):
        load_agent(path, **LAZY)


def test_without_verifying_only_headers_are_read(tmp_path, reads):
    path = saved(tmp_path, _arrays())
    load_agent(path, **LAZY)
    assert 0 < reads.segments < HEADERS
    reads.bytes.clear()
    load_agent(path, mmap=True)
    assert reads.segments < HEADERS  # It looks at the map instead.
    reads.bytes.clear()
    load_agent(path)
    assert reads.segments > 3 * MB


@pytest.mark.parametrize(
    "load",
    [
        lambda path: load_agent(path, verify=False),
        lambda path: load_agent(path, verify=False, regex=".*"),
        lambda path: elementsckpt.read(path, mmap=False, verify=False),
        lambda path: elementsckpt.checkpoint.load(path, {"agent": print}, verify=False),
    ],
    ids=["load", "partial", "read", "functional"],
)
def test_what_is_read_is_always_verified(tmp_path, load):
    path = saved(tmp_path, 1)
    with pytest.raises(ValueError, match="mmap=True"):
        load(path)


class Odd:
    """Is saved by pickle."""

    def __init__(self, value):
        self.value = value


NOT_ARRAYS = {
    "str": "text" * 50_000,
    "bytes": b"bytes" * 50_000,
    "bytearray": bytearray(b"bytes" * 50_000),
    "small str": "text" * 500,
    "pickle": Odd("text" * 50_000),
}


@pytest.mark.parametrize("name", NOT_ARRAYS)
def test_other_leaves_are_verified_even_without_verifying(tmp_path, name):
    path = saved(tmp_path, NOT_ARRAYS[name])
    load_agent(path, directory=tmp_path, **LAZY)
    flip_block(path, 0)
    with pytest.raises(DamagedError, match="the digest is"):
        load_agent(path, directory=tmp_path, **LAZY)


def test_arrays_in_a_pickle_are_mapped(tmp_path):
    path = saved(tmp_path, Odd(noise(1)))
    found = load_agent(path, directory=tmp_path, **LAZY).value
    assert_same(noise(1), found)
    assert is_mapped(found)


# What cannot be mapped


def test_compressed_leaves_are_read(tmp_path):
    state = {"zeros": np.zeros(MB, np.uint8), "noise": noise(1, MB)}
    path = saved(tmp_path, state, compress="auto")
    for verify in (True, False):
        found = load_agent(path, mmap=True, verify=verify)
        assert_same(state, found)
        assert [is_mapped(x) for x in found.values()] == [False, True]


def test_compressed_leaves_are_verified_even_without_verifying(tmp_path):
    path = saved(tmp_path, np.arange(MB) % 7, compress=1)
    flip_block(path, 3)
    with pytest.raises(DamagedError, match="agent"):
        load_agent(path, **LAZY)


@pytest.mark.parametrize("verify", [True, False])
def test_a_leaf_of_which_a_part_was_written_anew_is_read(tmp_path, verify):
    state = {"ring": noise(1, 6 * MB), "other": noise(2, MB)}
    cp = make(tmp_path, state, **RAW)
    cp.save()
    state["ring"][2 * MB + 5] += 1
    path = cp.save().path
    found = load_agent(path, mmap=True, verify=verify)
    assert_same(state, found)
    assert not is_mapped(found["ring"])
    assert is_mapped(found["other"])


def test_a_leaf_that_is_scattered_is_verified_even_without_verifying(tmp_path):
    cp = make(tmp_path, noise(1, 6 * MB), **RAW)
    cp.save()
    cp.agent.state[2 * MB + 5] += 1
    path = cp.save().path
    flip_block(path, 4)
    with pytest.raises(DamagedError, match="agent"):
        load_agent(path, **LAZY)


def test_a_leaf_whose_blocks_are_in_another_order_is_right(tmp_path):
    rows = noise(1, 4 * MB).reshape(4, MB)
    cp = make(tmp_path, rows, **RAW)
    cp.save()
    for order in ([1, 2, 3, 0], [3, 2, 1, 0], [0, 0, 0, 0]):
        cp.agent.state = rows[order]
        path = cp.save().path
        assert_same(rows[order], load_agent(path, **LAZY))
        assert_same(rows[order], load_agent(path))


def test_leaves_without_bytes_are_no_obstacle(tmp_path):
    state = {"empty": np.zeros((0, 3)), "none": None, "n": 3, "w": noise(1)}
    found = load_agent(saved(tmp_path, state), **LAZY)
    assert_same(state, found)


PROPERTY = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@PROPERTY
@given(state=states(), then=states(), verify=st.booleans(), compress=st.booleans())
def test_any_state_is_mapped_right_after_a_history(
    tmp_path_factory, monkeypatch, state, then, verify, compress
):
    use_small_blocks(monkeypatch.setattr)
    monkeypatch.setattr(disk, "syscall", unsynced)
    options = {"compress": "auto" if compress else None}
    cp = make(tmp_path_factory.mktemp("save"), [state, then], keep=None, **options)
    cp.save()
    cp.agent.state = [then, state]
    path = cp.save().path
    assert_same(cp.agent.state, load_agent(path, mmap=True, verify=verify))

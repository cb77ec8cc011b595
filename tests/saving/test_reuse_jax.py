"""JAX arrays cannot change, so one that was saved before is not even looked at."""

import gc
import sys
import weakref

import numpy as np
import pytest

import elementsckpt
from elementsckpt.saving import component_writer, reuse

from support.boxes import load_agent, make
from support.folders import HEADERS, MB, inodes_of, noise
from support.strategies import assert_same

jax = pytest.importorskip("jax")
RAW = {"keep": None, "fsync": False, "compress": None}


@pytest.fixture
def hashed(monkeypatch):
    """Return a list that gets the size of all that is hashed."""
    sizes = []
    real = elementsckpt.format.digests.digest

    def digest(*parts):
        sizes.extend(memoryview(data).nbytes for data in parts)
        return real(*parts)

    for name, module in list(sys.modules.items()):
        if name.startswith("elementsckpt.") and hasattr(module, "digest"):
            monkeypatch.setattr(module, "digest", digest)
    return sizes


def weights(*seeds):
    return {str(n): jax.device_put(noise(n, MB, np.int32)) for n in seeds}


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("compress", [None, "auto"])
def test_arrays_that_were_saved_before_are_not_hashed_again(
    tmp_path, hashed, compress, background
):
    options = {"keep": None, "fsync": False, "background": background}
    cp = make(tmp_path, weights(1, 2, 3), compress=compress, **options)
    cp.save()
    cp.wait()
    assert sum(hashed) >= 3 * MB
    cp.agent.state |= weights(4)
    for new in (1, 0):
        hashed.clear()
        cp.save()
        cp.wait()
        # What is new, one sample of what is linked, headers and manifest.
        assert sum(hashed) <= (new + 1) * MB + HEADERS
    assert_same(cp.agent.state, load_agent(cp.latest()))


def test_an_equal_array_that_is_another_object_is_found_by_content(tmp_path):
    cp = make(tmp_path, weights(1, 2), **RAW)
    first = cp.save().path
    cp.agent.state = weights(1, 2)
    second = cp.save()
    assert second.bytes_written <= HEADERS
    assert inodes_of(first) == inodes_of(second.path)


def test_the_array_of_another_leaf_is_found_too(tmp_path):
    cp = make(tmp_path, weights(1, 2), **RAW)
    cp.save()
    one, two = cp.agent.state.values()
    cp.agent.state = {"a": two, "b": one}
    report = cp.save()
    assert report.bytes_written <= HEADERS
    assert_same(cp.agent.state, load_agent(report.path))


def test_an_object_in_the_place_of_one_that_is_gone_is_not_taken_for_it(
    tmp_path, monkeypatch
):
    for module in (reuse, component_writer):  # As if all objects had the same address.
        monkeypatch.setattr(module, "id", lambda _: 1, raising=False)
    cp = make(tmp_path, **RAW)
    for seed in range(5):
        cp.agent.state = weights(seed, seed + 1)
        assert_same(cp.agent.state, load_agent(cp.save().path))


@pytest.mark.parametrize("background", [False, True])
def test_arrays_are_not_kept_alive_after_the_save(tmp_path, background):
    cp = make(tmp_path, weights(1), fsync=False, background=background)
    held = weakref.ref(cp.agent.state["1"])
    cp.save()
    cp.wait()
    cp.agent.state = None
    gc.collect()
    assert held() is None


def test_a_donated_array_and_what_came_of_it_are_told_apart(tmp_path):
    cp = make(tmp_path, weights(1), **RAW)
    first = cp.save().path
    old = cp.agent.state["1"]
    expected = np.array(old)
    cp.agent.state = {"1": old + 1}
    old.delete()
    second = cp.save().path
    assert np.array_equal(load_agent(first)["1"], expected)
    assert np.array_equal(load_agent(second)["1"], expected + 1)


def test_small_arrays_share_blocks_and_are_reused(tmp_path):
    state = {str(n): jax.device_put(noise(n, 4000, np.float32)) for n in range(300)}
    cp = make(tmp_path, state, **RAW)
    first = cp.save().path
    second = cp.save()
    assert second.bytes_written == (second.path / "manifest.json").stat().st_size
    assert inodes_of(first) == inodes_of(second.path)


def test_a_damaged_segment_is_written_again_though_its_arrays_are_known(tmp_path):
    cp = make(tmp_path, weights(1, 2), **RAW)
    first = cp.save().path
    (segment,) = first.glob("*.safetensors")
    segment.unlink()
    report = cp.save()
    assert report.bytes_reused == 0
    assert_same(cp.agent.state, load_agent(report.path))

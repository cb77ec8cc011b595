"""Arrays of a few MiB are loaded into huge pages, where the system has them."""

import mmap

import numpy as np
import pytest

from elementsckpt.system import pages

from support.boxes import make
from support.folders import noise

MIB = 1 << 20


def owner(array):
    """Return what owns the memory of an array."""
    while isinstance(array, (np.ndarray, memoryview)):
        array = array.base if isinstance(array, np.ndarray) else array.obj
    return array


@pytest.mark.skipif(not pages._CAN_ASK, reason="needs Linux")
@pytest.mark.parametrize(
    ("size", "is_asked_for"),
    [(2 * MIB - 1, False), (2 * MIB, True), (4 * MIB - 1, True), (4 * MIB, False)],
)
def test_memory_is_asked_for_where_numpy_does_not(size, is_asked_for):
    memory = pages.memory(size)
    assert isinstance(owner(memory), mmap.mmap) is is_asked_for


@pytest.mark.parametrize("size", [1, 2 * MIB, 2 * MIB + 1, 5 * MIB])
def test_memory_is_aligned_and_writable(size):
    memory = pages.memory(size)
    assert (memory.shape, memory.dtype) == ((size,), np.uint8)
    assert memory.__array_interface__["data"][0] % pages.ALIGN == 0
    memory[...] = 1


@pytest.mark.parametrize("lack", ["no such call", "no more mappings"])
def test_other_memory_is_taken_where_the_system_gives_none(monkeypatch, lack):
    def refuse(*_):
        raise OSError("Cannot allocate memory")

    if lack == "no such call":
        monkeypatch.setattr(pages, "_CAN_ASK", False)
    monkeypatch.setattr(mmap, "mmap", refuse)
    assert pages.memory(3 * MIB).size == 3 * MIB


def test_what_is_loaded_into_it_is_right_and_may_be_changed(tmp_path):
    state = {"one": noise(0, 2 * MIB), "other": noise(1, 3 * MIB + 8).view("f8")}
    make(tmp_path, state).save()
    cp = make(tmp_path)
    cp.load()
    for name, array in state.items():
        assert cp.agent.state[name].tobytes() == array.tobytes()
        cp.agent.state[name][...] = 0
    cp.save()
    cp.load()
    assert not any(array.any() for array in cp.agent.state.values())

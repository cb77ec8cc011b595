"""Another library's arrays are added as one module and one line, and do all of it."""

import sys

import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint, MismatchError, ReadError, Value
from elementsckpt.kinds import leaves
from elementsckpt.testing import fingerprints

from support import boxes, cup_kinds, cuparrays

leaves.register(cup_kinds.ARRAY)

NUMBERS = np.arange(6, dtype=np.float32).reshape(2, 3)


class Holder:
    def __init__(self, held):
        self.held = held


def zeros(dtype="float32", shape=(2, 3), device=0):
    return cuparrays.array(np.zeros(shape, dtype), device)


def saved(tmp_path, state):
    boxes.make(tmp_path, state).save()
    return tmp_path


def same(array, device=0, numbers=NUMBERS):
    assert type(array) is cuparrays.ndarray
    np.testing.assert_array_equal(array.get(), numbers, strict=True)
    return array.device.id == device


def test_saves_and_loads(tmp_path):
    x = cuparrays.array(NUMBERS)
    saved(tmp_path, {"x": x, "same": x, "scalar": cuparrays.array(np.int8(3))})
    cp = boxes.make(tmp_path)
    cp.load()
    assert same(cp.agent.state["x"])
    assert cp.agent.state["same"] is cp.agent.state["x"]
    assert same(cp.agent.state["scalar"], numbers=np.array(3, np.int8))


def test_needs_no_pickle(tmp_path):
    assert boxes.make(tmp_path, {"x": zeros()}).save().pickled == ()


@pytest.mark.parametrize("options", [{"regex": "agent/x"}, {"mmap": True}])
def test_loads_where_the_current_one_is(tmp_path, options):
    saved(tmp_path, {"x": cuparrays.array(NUMBERS), "y": zeros()})
    cp = boxes.make(tmp_path, {"x": zeros(device=1), "y": 3})
    cp.load(**options)
    assert same(cp.agent.state["x"], device="regex" in options)


def test_loads_into_a_template(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.tree = Value({"x": cuparrays.array(NUMBERS)})
    cp.save()
    cp = Checkpoint(tmp_path)
    cp.tree = Value({"x": zeros(device=1)})
    cp.load()
    assert same(cp.tree.value["x"], device=1)


def test_is_one_with_arrays_of_other_libraries(tmp_path):
    saved(tmp_path, {"x": NUMBERS, "y": cuparrays.array(NUMBERS)})
    cp = boxes.make(tmp_path, {"x": zeros(), "y": np.zeros((2, 3), np.float32)})
    cp.load(regex=".*")
    assert same(cp.agent.state["x"])
    np.testing.assert_array_equal(cp.agent.state["y"], NUMBERS, strict=True)


@pytest.mark.parametrize("current", [zeros("float16"), zeros(shape=(3, 2))])
def test_refuses_another_form(tmp_path, current):
    saved(tmp_path, {"x": cuparrays.array(NUMBERS)})
    cp = boxes.make(tmp_path, {"x": current})
    with pytest.raises(MismatchError, match=r"saved float32\[2,3\], expected float"):
        cp.load(regex=".*")


def test_casts(tmp_path):
    saved(tmp_path, {"x": cuparrays.array(NUMBERS)})
    cp = boxes.make(tmp_path, {"x": zeros("float64", device=1)})
    cp.load(regex=".*", cast=True)
    assert same(cp.agent.state["x"], device=1, numbers=NUMBERS.astype("float64"))


def test_is_apart_from_what_only_pickle_holds(tmp_path):
    x = cuparrays.array(NUMBERS)
    saved(tmp_path, {"x": x, "holder": Holder(x)})
    cp = boxes.make(tmp_path)
    cp.load(allow_pickle=True)
    assert same(cp.agent.state["x"])
    assert cp.agent.state["holder"].held is cp.agent.state["x"]


def test_has_a_fingerprint():
    x, y = cuparrays.array(NUMBERS), cuparrays.array(NUMBERS * 2)
    first, same, other = (fingerprints.take("k", [a])["k/0"] for a in (x, x, y))
    assert first.matches(same)
    assert not first.matches(other)
    found = fingerprints.difference(x, y)
    assert found == "float32[2,3], 5 of 6 elements by up to 5"


def test_says_where_it_could_not_be_put(tmp_path, monkeypatch):
    saved(tmp_path, {"x": NUMBERS})
    cp = boxes.make(tmp_path, {"x": zeros(device=1)})

    def fail(*args):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(cuparrays, "array", fail)
    with pytest.raises(ReadError, match="current one is, device 1: out of memory"):
        cp.load(regex=".*")


def test_reads_where_the_library_is_not_installed(tmp_path, monkeypatch):
    saved(tmp_path, {"x": cuparrays.array(NUMBERS)})
    monkeypatch.setitem(sys.modules, "support.cuparrays", None)
    data = elementsckpt.read(tmp_path)["agent"]
    np.testing.assert_array_equal(data["x"], NUMBERS, strict=True)
    cp = boxes.make(tmp_path, {"x": np.zeros((2, 3), np.float32)})
    cp.load(regex=".*")
    np.testing.assert_array_equal(cp.agent.state["x"], NUMBERS, strict=True)
    with pytest.raises(ReadError, match="that is not installed here"):
        boxes.make(tmp_path).load()

"""`leaves` lists what a save holds by its manifest, and reads no array."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

import elementsckpt
from elementsckpt import Checkpoint, Files, MismatchError, MissingKeyError, Value

from support.boxes import Box, Stream, make
from support.strategies import PROPERTY, states


def write(folder):
    (folder / "deep").mkdir()
    (folder / "deep" / "weights.bin").write_bytes(b"12345")


class Odd:
    """Only pickle holds it, with its array beside."""

    def __init__(self):
        self.table = np.arange(5000.0)


@pytest.fixture
def save(tmp_path):
    cp = Checkpoint(tmp_path, fsync=False)
    base = np.arange(300, dtype=np.float32)
    cp.agent = Value(
        {
            "w": np.zeros((3, 4), np.float16),
            "jax": jnp.ones((2, 2)),
            "key": jax.random.key(3),
            "odd": Odd(),
            "view": base[::2],
            "other": base[:9],
            "n": 3,
            "text": "t" * 2000,
        }
    )
    cp.step = Value(7)
    cp.replay = Stream([{"x": np.zeros(4)}, {"x": np.ones(4), "y": 2}])
    cp.policy = Files(save=write, load=list)
    return cp.save().path


def test_each_leaf_has_its_kind_form_and_sizes(save):
    found = {leaf.full_name: leaf for leaf in elementsckpt.leaves(save)}
    forms = {x: (y.kind, y.dtype, y.shape, y.size_bytes) for x, y in found.items()}
    assert forms == {
        "agent/w": ("numpy", "float16", (3, 4), 24),
        "agent/jax": ("jax", "float32", (2, 2), 16),
        "agent/key": ("key", "uint32", (2,), 8),
        "agent/odd": ("pickle", None, (), found["agent/odd"].size_bytes),
        "agent/odd/0": ("numpy", "float64", (5000,), 40_000),
        "agent/view": ("view", "float32", (150,), 600),
        "agent/other": ("view", "float32", (9,), 36),
        "agent/view ... other": ("numpy", "uint8", (1196,), 1196),
        "agent/n": ("python", None, (), 0),
        "agent/text": ("str", None, (), 2000),
        "step": ("python", None, (), 0),
        "replay/0/x": ("numpy", "float64", (4,), 32),
        "replay/1/x": ("numpy", "float64", (4,), 32),
        "replay/1/y": ("python", None, (), 0),
        "policy/deep/weights.bin": ("file", None, (), 5),
    }
    assert found["agent/odd"].is_pickled
    assert [found[f"replay/{n}/x"].shard for n in range(2)] == [0, 1]
    assert found["step"].name == ""


def test_no_array_is_read(save, reads):
    elementsckpt.leaves(save)
    assert set(reads.bytes) <= {"manifest.json"}


def test_compression_is_shown(tmp_path):
    cp = make(tmp_path, np.zeros(100_000), compress=3, fsync=False)
    cp.save()
    (leaf,) = elementsckpt.leaves(tmp_path)
    assert leaf.is_compressed
    assert leaf.stored_bytes < leaf.size_bytes == 800_000


def test_a_pattern_matches_names_or_else_full_names(save):
    def names(**options):
        return [x.full_name for x in elementsckpt.leaves(save, **options)]

    assert names(regex="w|n$") == ["agent/w", "agent/n"]
    assert names(regex="replay/1") == ["replay/1/x", "replay/1/y"]
    assert names(regex="x") == ["replay/0/x", "replay/1/x"]
    assert names(keys=["step"]) == ["step"]
    with pytest.raises(MismatchError, match="agent/text"):
        names(regex="agent/texts")
    with pytest.raises(MismatchError, match="not a regular expression"):
        names(regex="(")
    with pytest.raises(MissingKeyError, match="It has 'agent', 'step'"):
        names(keys=["actor"])
    with pytest.raises(ValueError, match="keys is a list"):
        names(keys="agent")


@given(states())
@PROPERTY
def test_any_state_lists_as_many_leaves_as_are_counted(tmp_path_factory, state):
    cp = Checkpoint(tmp_path_factory.mktemp("any"), fsync=False)
    cp.box = Box(state)
    path = cp.save().path
    found = elementsckpt.leaves(path)
    assert len(found) == elementsckpt.info(path).components["box"].leaves
    total = elementsckpt.info(path).components["box"].bytes
    assert sum(x.size_bytes for x in found if x.kind != "view") == total

"""`export` writes files that the real libraries read, bit for bit."""

import json
import os
import subprocess
import sys
import zipfile

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import assume, given

import elementsckpt
from elementsckpt import (
    Checkpoint,
    DamagedError,
    MismatchError,
    MissingKeyError,
    SaveExistsError,
    Value,
    WriteError,
)
from elementsckpt.storage import disk

from support.boxes import Box, environment, make_boxes
from support.folders import flip_block, noise
from support.strategies import PROPERTY, states


@pytest.fixture
def save(tmp_path):
    cp = Checkpoint(tmp_path / "run", fsync=False)
    base = np.arange(60, dtype=np.float32)
    cp.agent = Value(
        {
            "w": np.arange(6.0).reshape(2, 3),
            "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
            "half": np.arange(4, dtype=ml_dtypes.bfloat16),
            "jax": jnp.ones(3),
            "views": [base[::2], base[3:9]],
            "flag": True,
            "big": 2**80,
            "text": "abc",
            "strings": np.array(["a", "b"]),
        }
    )
    cp.step = Value(7)
    return cp.save().path


WANTED = {
    "agent/w": np.arange(6.0).reshape(2, 3),
    "agent/f": np.arange(6.0).reshape(2, 3),
    "agent/jax": np.ones(3, np.float32),
    "agent/views/0": np.arange(0, 60, 2, dtype=np.float32),
    "agent/views/1": np.arange(3, 9, dtype=np.float32),
    "agent/flag": np.array(True),
    "step": np.array(7),
}


def check(found):
    for name, array in WANTED.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_safetensors_reads_its_files(save, tmp_path):
    report = elementsckpt.export(save, tmp_path / "x.safetensors")
    found = safetensors.numpy.load_file(report.path)
    check(found)
    half = found["agent/half"]
    np.testing.assert_array_equal(half.view(np.uint16), _half().view(np.uint16))
    assert report.size_bytes == report.path.stat().st_size
    assert "agent/text" in report.left_out
    assert "agent/strings" in report.left_out
    assert "agent/big" in report.left_out
    assert b"run" not in report.path.read_bytes()  # Nothing tells where it is from.


def _half():
    return np.arange(4, dtype=ml_dtypes.bfloat16)


def test_numpy_reads_npz_files(save, tmp_path):
    report = elementsckpt.export(save, tmp_path / "x.npz")
    with np.load(report.path, allow_pickle=False) as found:
        check(found)
        assert found["agent/strings"].tolist() == ["a", "b"]
        own = json.loads(str(found["__dtypes__"]))
        assert own == {"agent/half": "bfloat16"}
        half = found["agent/half"].view(own["agent/half"])
        np.testing.assert_array_equal(half, _half())
    assert zipfile.ZipFile(report.path).testzip() is None


def test_names_have_no_key_if_one_is_chosen_and_can_be_renamed(save, tmp_path):
    def names(number, **options):
        path = tmp_path / f"{number}.npz"
        elementsckpt.export(save, path, **options)
        with np.load(path) as found:
            return {*found.files} - {"__dtypes__"}

    assert names(1, keys=["agent"], regex="w|f$") == {"w", "f"}
    assert names(2, regex="agent/w", rename={"^agent/": "net."}) == {"net.w"}
    assert names(3, keys=["step"]) == {"step"}


def test_bad_arguments_leave_nothing(save, tmp_path):
    target = tmp_path / "x.npz"
    for error, match, options in [
        (ValueError, "pass format='safetensors' or 'npz'", {"format": "h5"}),
        (MissingKeyError, "actor", {"keys": ["actor"]}),
        (MismatchError, "matches no leaf", {"regex": "none"}),
        (MismatchError, "Several leaves", {"rename": {".*": "same"}}),
        (MismatchError, "Cannot rename", {"rename": {"(": ""}}),
    ]:
        with pytest.raises(error, match=match):
            elementsckpt.export(save, target, **options)
        assert not target.exists()
    with pytest.raises(ValueError, match=r"the suffix '\.bin'"):
        elementsckpt.export(save, tmp_path / "x.bin")
    target.write_text("mine")
    with pytest.raises(SaveExistsError, match="is there already"):
        elementsckpt.export(save, target)
    assert target.read_text() == "mine"
    assert sorted(x.name for x in tmp_path.iterdir()) == ["run", "x.npz"]


def test_damage_and_a_full_disk_leave_nothing(save, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(disk, "syscall", lambda call, *args: _failing(call, args))
        with pytest.raises(WriteError, match="No space left"):
            elementsckpt.export(save, tmp_path / "x.npz")
    flip_block(save, 0, key="agent")
    with pytest.raises(DamagedError, match="agent/"):
        elementsckpt.export(save, tmp_path / "x.safetensors")
    assert [x.name for x in tmp_path.iterdir()] == ["run"]


def _failing(call, args):
    if call is os.fsync:
        raise OSError(28, os.strerror(28))
    return call(*args)


@given(states())
@PROPERTY
def test_any_state_is_exported_as_it_reads(tmp_path_factory, state):
    folder = tmp_path_factory.mktemp("any")
    cp = Checkpoint(folder / "run", fsync=False)
    cp.box = Box({"state": state})
    path = cp.save().path
    leaves = {x.full_name: x for x in elementsckpt.leaves(path)}
    assume(len(leaves) == len(elementsckpt.leaves(path)))  # Names that are unique.
    report = elementsckpt.export(path, folder / "x.npz")
    with np.load(report.path, allow_pickle=False) as found:
        names = {*found.files} - {"__dtypes__"}
        assert names | {*report.left_out} == {*leaves}
        for name in names:
            if leaves[name].dtype is not None:
                assert found[name].shape == leaves[name].shape


SCRIPT = """
import resource, sys, elementsckpt
elementsckpt.export(sys.argv[2], sys.argv[2] + ".npz")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
elementsckpt.export(sys.argv[1], sys.argv[1] + ".npz")
elementsckpt.export(sys.argv[1], sys.argv[1] + ".safetensors")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_its_memory_is_bounded(tmp_path):
    for name, size in (("large", 200), ("small", 1)):
        make_boxes(tmp_path / name, box=noise(1, size << 20), compress=None).save()
    grown_kib = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path / "large", tmp_path / "small"],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert int(grown_kib) <= 64 << 10

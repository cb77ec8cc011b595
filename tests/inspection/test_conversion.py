"""`convert` makes a run of what others wrote, and of saves, whole or not at all."""

import errno
import os
import pickle
from unittest.mock import Mock

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given

import elementsckpt
from elementsckpt import (
    Checkpoint,
    DamagedError,
    Files,
    Keep,
    MismatchError,
    MissingKeyError,
    SaveExistsError,
    SaveNotFoundError,
    Value,
    WriteError,
)

from support.boxes import Box, Stream, make_boxes, printed
from support.folders import flip_block, noise
from support.strategies import PROPERTY, assert_same, states

ARRAYS = {
    "net/w": np.arange(6.0).reshape(2, 3),
    "net/b": np.arange(3, dtype=ml_dtypes.bfloat16),
    "step": np.array(7),
    "none": np.zeros((0, 2), np.int8),
}


def same(found, wanted):
    assert {name: (x.dtype, x.tobytes()) for name, x in found.items()} == {
        name: (x.dtype, x.tobytes()) for name, x in wanted.items()
    }


@pytest.fixture
def run(tmp_path):
    """Return a directory of three saves, with files and shards in each."""
    keep = Keep(latest=None, best=1, metric="return")
    cp = Checkpoint(tmp_path / "run", keep=keep, fsync=False, metadata={"env": "x"})
    cp.step = elementsckpt.Counter()
    cp.frozen = Value({"w": noise(0), "list": [1, "text", np.ones(2)]})
    cp.replay = Stream([{"x": noise(1, 100)}, {"x": noise(2, 100)}])
    cp.files = Files(save=_write_files, load=lambda _: None)
    for number in range(3):
        cp.step.value = number
        pin = "first" if number == 0 else None
        cp.save(metrics={"return": float(-number)}, pin=pin)
    return tmp_path / "run"


def _write_files(folder):
    (folder / "below").mkdir()
    (folder / "below" / "a").write_text("content")
    (folder / "empty").touch()


def test_files_of_safetensors_and_npz_become_a_run(tmp_path):
    safetensors.numpy.save_file(ARRAYS, tmp_path / "a.bin", {"format": "np"})
    np.savez(tmp_path / "b.npz", **ARRAYS)
    np.savez_compressed(tmp_path / "c.npz", **ARRAYS)
    for name, key in ("a.bin", "safetensors"), ("b.npz", "npz"), ("c.npz", "npz"):
        (info,) = elementsckpt.convert(tmp_path / name, tmp_path / name[0])
        assert list(info.components) == [key]
        assert info.step is None
        same(elementsckpt.read(info.path)[key], ARRAYS)
        assert elementsckpt.info(tmp_path / name[0]) == info
        assert elementsckpt.verify(tmp_path / name[0]).is_good
    assert elementsckpt.saves(tmp_path / "a")[0].metadata == {"format": "np"}


def test_a_run_goes_on_from_what_was_converted(tmp_path):
    safetensors.numpy.save_file(ARRAYS, tmp_path / "model")
    elementsckpt.convert(
        tmp_path / "model", tmp_path / "run", keys={"agent": "safetensors"}
    )
    cp = Checkpoint(tmp_path / "run", keep=None, fsync=False)
    cp.agent = Box()
    assert cp.load_or_save()
    same(cp.agent.state, ARRAYS)
    cp.save()
    assert len(elementsckpt.saves(tmp_path / "run")) == 2


def test_names_are_chosen_and_renamed(tmp_path):
    np.savez(tmp_path / "x.npz", **ARRAYS)
    (info,) = elementsckpt.convert(
        tmp_path / "x.npz", tmp_path / "run", regex="net/", rename={"^net/": "model."}
    )
    found = elementsckpt.read(info.path)["npz"]
    assert {*found} == {"model.w", "model.b"}


def test_a_renamed_save_is_a_dict_by_name(run, tmp_path):
    (info,) = elementsckpt.convert(
        run, tmp_path / "new", keys={"net": "frozen"}, rename={"^list/": "items/"}
    )
    assert {x.full_name for x in elementsckpt.leaves(info.path)} == {
        *("net/w", "net/items/0", "net/items/1", "net/items/2")
    }
    template = {"w": np.zeros_like(noise(0)), "items": [0, "", np.zeros(2)]}
    cp = Checkpoint()
    cp.net = Value(template)
    cp.load(tmp_path / "new")
    np.testing.assert_array_equal(cp.net.value["w"], noise(0))


def test_saves_become_saves_with_all_that_they_hold(run, tmp_path):
    before = elementsckpt.saves(run)
    found = elementsckpt.convert(run, tmp_path / "new", all=True)
    assert [x.step for x in found] == [0, 1, 2]
    for old, new in zip(before, found, strict=True):
        assert new.path.parent == tmp_path / "new"
        assert (new.metrics, new.metadata, new.pin) == (
            *(old.metrics, old.metadata, old.pin),
        )
        assert new.components == old.components
        assert elementsckpt.diff(old.path, new.path).is_same
    assert elementsckpt.info(tmp_path / "new@best").step == 0
    usage = elementsckpt.usage(tmp_path / "new")
    assert usage.bytes_on_disk < 2 * usage.saves[0].bytes_written  # Links, as before.
    (newest,) = elementsckpt.convert(run, tmp_path / "one")
    assert newest.step == 2
    (first,) = elementsckpt.convert(f"{run}@pin:first", tmp_path / "two", all=True)
    assert first.step == 0


def test_folders_of_elements_are_sources(tmp_path):
    folder = tmp_path / "old" / "20260101T000000F000000"
    folder.mkdir(parents=True)
    (folder / "agent.pkl").write_bytes(pickle.dumps({"w": np.ones(3)}))
    (folder / "done").touch()
    (info,) = elementsckpt.convert(tmp_path / "old", tmp_path / "new")
    np.testing.assert_array_equal(
        elementsckpt.read(info.path)["agent"]["w"], np.ones(3)
    )


def test_a_damaged_newest_save_gives_way_unless_all_are_wanted(tmp_path, warnings):
    run = tmp_path / "run"
    for number in range(2):
        newest = make_boxes(run, keep=None, box=noise(number)).save().path
    flip_block(newest, 0, key="box")
    elementsckpt.convert(run, tmp_path / "new")
    assert "Loading the older save" in warnings.text
    with pytest.raises(DamagedError):
        elementsckpt.convert(run, tmp_path / "all", all=True)
    assert sorted(x.name for x in tmp_path.iterdir()) == ["new", "run"]


@given(states())
@PROPERTY
def test_any_state_is_converted_as_it_reads(tmp_path_factory, state):
    folder = tmp_path_factory.mktemp("any")
    cp = Checkpoint(folder / "run", fsync=False)
    cp.box = Box({"state": state})
    before = elementsckpt.read(cp.save().path, mmap=False)
    (info,) = elementsckpt.convert(folder / "run", folder / "new")
    assert_same(elementsckpt.read(info.path, mmap=False), before)


# Nothing is left of what fails


def test_bad_arguments_leave_nothing(run, tmp_path):
    safetensors.numpy.save_file(ARRAYS, tmp_path / "model")
    (tmp_path / "text").write_text("hello")
    source, target = tmp_path / "model", tmp_path / "above" / "new"
    here = sorted(x.name for x in tmp_path.iterdir())
    for error, match, place, options in [
        (DamagedError, "begins with b'hello'", tmp_path / "text", {}),
        (SaveNotFoundError, "no save", tmp_path / "typo", {}),
        (MissingKeyError, "'actor'.*'safetensors'", source, {"keys": ["actor"]}),
        (MissingKeyError, "actor", run, {"keys": ["actor"]}),
        (MismatchError, "matches no array", source, {"regex": "torso"}),
        (MismatchError, "torso", run, {"keys": ["frozen"], "regex": "torso"}),
        (MismatchError, "Several leaves", source, {"rename": {".*": "x"}}),
        (MismatchError, "regular expression", source, {"rename": {"(": "x"}}),
        (ValueError, "pass keys=", source, {"keys": "safetensors"}),
        (ValueError, "all=", source, {"all": "yes"}),
    ]:
        with pytest.raises(error, match=match):
            elementsckpt.convert(place, target, **options)
        assert sorted(x.name for x in tmp_path.iterdir()) == here


def test_what_is_there_is_not_touched(run, tmp_path):
    for name, content in ("full", "x"), ("file", None):
        path = tmp_path / name
        if content:
            path.mkdir()
            (path / "mine").write_text(content)
        else:
            path.write_text("mine")
        with pytest.raises(SaveExistsError, match="is not an empty folder"):
            elementsckpt.convert(run, path)
    assert (tmp_path / "full" / "mine").read_text() == "x"
    (tmp_path / "empty").mkdir()
    elementsckpt.convert(run, tmp_path / "empty")
    assert len(elementsckpt.saves(tmp_path / "empty")) == 1


@pytest.mark.parametrize("name", ["run", "x.npz"])
@pytest.mark.parametrize("error", [OSError(28, os.strerror(28)), KeyboardInterrupt()])
def test_a_failure_at_any_call_leaves_nothing(run, tmp_path, inject, error, name):
    np.savez_compressed(tmp_path / "x.npz", **ARRAYS)
    here = sorted(x.name for x in tmp_path.iterdir())
    count = 0
    left = 0

    def counted(call, *args):
        nonlocal count
        count += 1
        if left and count == left:
            raise error
        return call(*args)

    inject(counted)
    elementsckpt.convert(tmp_path / name, tmp_path / "whole", all=True)
    calls, here = count, sorted([*here, "whole"])
    assert calls > 20
    for number in range(1, calls, max(1, calls // 40)):
        count, left = 0, number
        try:
            elementsckpt.convert(tmp_path / name, tmp_path / "new", all=True)
        except (WriteError, KeyboardInterrupt):
            assert sorted(x.name for x in tmp_path.iterdir()) == here
        else:  # What failed was not needed, such as a lock or a hint.
            assert elementsckpt.verify(tmp_path / "new").is_good
            for file in sorted((tmp_path / "new").rglob("*"), reverse=True):
                file.rmdir() if file.is_dir() else file.unlink()
            (tmp_path / "new").rmdir()


@pytest.mark.parametrize("name", ["latest", "2"])
def test_a_failure_at_the_end_leaves_the_empty_folder(run, tmp_path, inject, name):
    target = tmp_path / "new"
    target.mkdir()

    def failing(call, *args):
        is_move = call is os.replace and args[1].parent == target
        if is_move and args[1].name.startswith(name):
            raise OSError(28, os.strerror(28))
        return call(*args)

    inject(failing)
    with pytest.raises(WriteError):
        elementsckpt.convert(run, target, all=True)
    assert list(target.iterdir()) == []
    assert sorted(x.name for x in tmp_path.iterdir()) == ["new", "run"]


def test_a_folder_that_is_there_stays_the_same(run, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    elementsckpt.convert(run, ".", all=True)
    assert len(elementsckpt.saves(".")) == 3
    assert elementsckpt.verify(".").is_good
    names = {x.path.name for x in elementsckpt.saves(".")}
    assert {*os.listdir(".")} == {*names, "latest"}


def test_a_disk_without_room_for_what_is_compressed_is_an_error(tmp_path, monkeypatch):
    make_boxes(tmp_path / "run", box=np.zeros(1000), compress=1).save()
    refused = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(os, "posix_fallocate", Mock(side_effect=refused))
    with pytest.raises(WriteError, match="free space"):
        elementsckpt.convert(tmp_path / "run", tmp_path / "new")
    assert [x.name for x in tmp_path.iterdir()] == ["run"]
    monkeypatch.delattr(os, "posix_fallocate")  # As on macOS.
    elementsckpt.convert(tmp_path / "run", tmp_path / "new")
    (leaf,) = elementsckpt.stats(tmp_path / "new")
    assert (leaf.count, leaf.max) == (1000, 0)


SCRIPT = """
import resource, sys, elementsckpt, pathlib
folder = pathlib.Path(sys.argv[1])
def resident():
    fields = dict(x.split(":") for x in open("/proc/self/status") if "Rss" in x)
    return int(fields["RssAnon"].split()[0])
elementsckpt.convert(folder / "small.npz", folder / "1")
before, peak = resident(), 0
from elementsckpt.storage import disk
call = disk.syscall
def measured(function, *args):
    global peak
    peak = max(peak, resident())
    return call(function, *args)
disk.syscall = measured
for number, name in enumerate(["large.npz", "stored.npz", "model", "run", "packed"]):
    elementsckpt.convert(folder / name, folder / f"new{number}")
print(peak - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc")
@pytest.mark.slow
def test_its_memory_is_bounded(tmp_path):
    large = noise(1, 150 << 20)
    np.savez_compressed(tmp_path / "large.npz", a=large)
    np.savez(tmp_path / "stored.npz", a=large)
    np.savez(tmp_path / "small.npz", a=large[:1000])
    safetensors.numpy.save_file({"a": large}, tmp_path / "model")
    make_boxes(tmp_path / "run", box=large, compress=None).save()
    large[: large.size // 2] = 0  # Half of it remains when it is compressed.
    boxes = {"box": {"large": large, "odd": large[: 3 << 20], "small": large[:9]}}
    make_boxes(tmp_path / "packed", **boxes, compress=1).save()
    del large, boxes
    (grown_kib,) = printed(SCRIPT, tmp_path)
    assert int(grown_kib) <= 64 << 10

"""Folders that the real `elements` package wrote: loaded, resumed, never pruned."""

import contextlib
import functools
import logging
import os
import pickle
import re

import elements
import numpy as np
import pytest

import elementsckpt
from elementsckpt import (
    Checkpoint,
    CheckpointError,
    MissingKeyError,
    PickleError,
    SaveNotFoundError,
)

from support.boxes import Box, LazyStream, make_boxes

STATE = {
    "params": {
        "enc/conv0/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
        "head/bias": np.full(4, 2, np.float64),
    },
    "counters": {"updates": 12, "actions": 10**30},
    "misc": [None, True, 2.5, 1 + 2j, "text", b"bytes", (1, (2,)), {3, 4}],
    "scalars": (np.float32(0.5), np.int64(3), np.bool_(True)),
    "arrays": {
        "empty": np.zeros((0, 3)),
        "scalar": np.array(7),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "bool": np.array([True, False]),
        "text": np.array(["a", "bc"]),
        "complex": np.array([1j]),
        "half": np.ones(2, np.float16),
        "record": np.zeros(2, [("a", "i4"), ("b", "f8")]),
        "time": np.array(["2020-01-01"], "M8[D]"),
    },
    3: "a key that is no text",
}


def same(left, right):
    """Equality of type and value, all the way down."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[k], right[k]) for k in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, np.ndarray):
        return (left.dtype, left.shape, left.tobytes()) == (
            right.dtype,
            right.shape,
            right.tobytes(),
        )
    return left == right


@pytest.fixture
def logdir(tmp_path):
    """A directory in which elements ran to step 120."""
    cp = elements.Checkpoint(elements.Path(str(tmp_path)) / "ckpt", step=120)
    cp.step = elements.Counter(120)
    cp.agent = Box(STATE)
    cp.replay = LazyStream({"i": i, "x": np.full(3, i)} for i in range(5))
    cp.save()
    return tmp_path / "ckpt"


def the_folder(directory):
    (folder,) = (x for x in directory.iterdir() if x.is_dir())
    return folder


def opened(directory=None, **kwargs):
    cp = Checkpoint(directory, **kwargs)
    cp.step, cp.agent, cp.replay = elements.Counter(), Box(), LazyStream()
    return cp


def check(cp):
    assert cp.step == 120
    assert same(cp.agent.state, STATE)
    assert [shard["i"] for shard in cp.replay.got] == [0, 1, 2, 3, 4]


def test_a_folder_of_elements_loads_by_its_path(logdir):
    for path in (the_folder(logdir), logdir):
        cp = opened()
        report = cp.load(str(path))
        check(cp)
        assert report.path == the_folder(logdir)
        assert "agent/params/enc/conv0/kernel" in report.loaded


def test_the_arrays_of_elements_are_writable(logdir):
    cp = opened()
    cp.load(logdir)
    cp.agent.state["params"]["head/bias"] += 1


def test_a_logdir_of_elements_resumes_and_goes_on_in_the_new_format(logdir):
    old = the_folder(logdir)
    before = {x.name: x.read_bytes() for x in old.iterdir()}
    cp = opened(logdir)
    assert cp.exists() is True
    assert cp.latest() == old
    assert cp.load_or_save() is True
    check(cp)
    cp.agent.state = "written by the new format"
    for _ in range(3):
        report = cp.save()
        assert report.path != old
        assert (report.path / "manifest.json").is_file()
        assert (logdir / "latest").read_text() == report.path.name
        assert cp.latest() == report.path
    folders = sorted(x for x in logdir.iterdir() if x.is_dir())
    assert folders == sorted([old, report.path])
    assert {x.name: x.read_bytes() for x in old.iterdir()} == before
    cp = opened(logdir)
    assert cp.load_or_save() is True
    assert cp.agent.state == "written by the new format"
    assert cp.replay.got is not None


def test_an_old_folder_ranks_before_every_new_save_whatever_its_name(logdir):
    old = the_folder(logdir).rename(logdir / "20990101T000000F000000-000000000120")
    (logdir / "latest").write_text(old.name)
    cp = opened(logdir)
    new = cp.save().path
    assert cp.latest() == new
    assert [x.path for x in cp.saves()] == [old, new]
    assert old.is_dir()


def test_the_newest_of_several_old_folders_is_the_one_that_is_resumed(tmp_path):
    theirs = elements.Checkpoint(str(tmp_path), keep=None)
    theirs.agent = Box()
    for value in (1, 2, 3):
        theirs.agent.state = value
        theirs.save()
    cp = Checkpoint(tmp_path)
    cp.agent = Box()
    assert cp.load_or_save() is True
    assert cp.agent.state == 3
    assert len(cp.saves()) == 3
    cp.save()
    assert len(cp.saves()) == 4


def test_an_old_save_serves_as_from_checkpoint(logdir):
    got = {}

    def load(data, regex):
        params = data["params"].items()
        got.update({k: v for k, v in params if re.match(regex, k)})

    for path in (the_folder(logdir), elements.Path(str(logdir))):
        got.clear()
        elementsckpt.checkpoint.load(
            path, {"agent": functools.partial(load, regex="enc/")}
        )
        assert list(got) == ["enc/conv0/kernel"]
        assert elementsckpt.checkpoint.exists(path)


def test_a_regex_selects_leaves_of_an_old_save(logdir):
    cp = Checkpoint()
    cp.agent = Box({"params": {"enc/conv0/kernel": np.zeros((2, 3), np.float32)}})
    report = cp.load(logdir, regex="params/enc/.*")
    assert set(report.loaded) == {"agent/params/enc/conv0/kernel"}
    assert cp.agent.state["params"]["enc/conv0/kernel"][1, 2] == 5


def test_load_with_keys_reads_only_those_of_an_old_save(logdir):
    (the_folder(logdir) / "step.pkl").write_bytes(b"damaged")
    cp = opened()
    cp.load(logdir, keys=["agent"])
    assert same(cp.agent.state, STATE)
    assert (cp.step, cp.replay.got) == (0, None)


def test_a_key_that_an_old_save_lacks_is_an_error_that_lists_its_keys(logdir):
    cp = opened()
    cp.norm = Box()
    with pytest.raises(MissingKeyError) as error:
        cp.load(logdir)
    for part in ("norm", "agent", "replay", "step"):
        assert part in str(error.value)
    assert (cp.step, cp.agent.loads, cp.replay.got) == (0, 0, None)


def test_read_gives_the_states_of_an_old_save(logdir):
    state = elementsckpt.read(logdir)
    assert set(state) == {"step", "agent", "replay"}
    assert state["step"] == 120
    assert same(state["agent"], STATE)
    assert [shard["x"].tolist() for shard in state["replay"]] == [
        [i] * 3 for i in range(5)
    ]
    assert set(elementsckpt.read(logdir, keys=["step"])) == {"step"}


def test_info_tells_of_an_old_save_what_its_folder_tells(logdir):
    info = elementsckpt.info(logdir)
    assert info.path == the_folder(logdir)
    assert info.step == 120
    assert (info.metadata, info.metrics) == ({}, {})
    assert set(info.components) == {"step", "agent", "replay"}
    assert info.components["replay"].shards == 5
    assert info.components["agent"].bytes > 0
    assert info.time.tzinfo is not None


def test_more_than_ten_thousand_old_shards_load_in_numeric_order(tmp_path):
    count = 10_001
    theirs = elements.Checkpoint()
    theirs.replay = LazyStream(range(count))
    theirs.save(str(tmp_path / "old"))
    theirs.load(str(tmp_path / "old"))
    assert list(theirs.replay.got)[1000:1002] == [1000, 10000]
    cp = Checkpoint()
    cp.replay = LazyStream()
    cp.load(tmp_path / "old")
    assert list(cp.replay.got) == list(range(count))


def test_generators_of_an_old_save_are_independent_and_read_late(tmp_path):
    theirs = elements.Checkpoint()
    theirs.one, theirs.two = LazyStream([1, 11]), LazyStream([2, 22])
    theirs.save(str(tmp_path / "old"))
    cp = Checkpoint()
    cp.one, cp.two = LazyStream(), LazyStream()
    cp.load(tmp_path / "old")
    assert (list(cp.one.got), list(cp.two.got)) == ([1, 11], [2, 22])


def test_an_old_folder_without_done_is_not_a_save(logdir, caplog):
    (the_folder(logdir) / "done").unlink()
    cp = opened(logdir)
    assert cp.exists() is False
    assert cp.latest() is None
    for path in (logdir, the_folder(logdir)):
        with pytest.raises(SaveNotFoundError):
            cp.load(path)
    assert cp.load_or_save() is False
    assert cp.agent.loads == 0


def test_an_old_folder_without_done_is_passed_over(tmp_path):
    theirs = elements.Checkpoint(str(tmp_path), keep=None)
    theirs.agent = Box()
    for value in (1, 2):
        theirs.agent.state = value
        theirs.save()
    newest = max(x for x in tmp_path.iterdir() if x.is_dir())
    (newest / "done").unlink()
    cp = Checkpoint(tmp_path)
    cp.agent = Box()
    assert cp.load().fell_back_from is None
    assert cp.agent.state == 1
    cp.save()
    assert newest.is_dir()


def test_a_damaged_new_save_falls_back_to_the_old_folder(logdir, caplog):
    cp = opened(logdir)
    new = cp.save().path
    manifest = new / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:-20])
    with caplog.at_level(logging.WARNING, logger="elementsckpt"):
        report = cp.load()
    check(cp)
    assert report.fell_back_from == new
    assert new.name in caplog.text


# What an old folder may not do.


class Calls:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def by_name(module, name, argument):
    """A pickle that calls a function by its dotted name, as protocol 4 allows."""
    texts = b"".join(
        pickle.SHORT_BINUNICODE + bytes([len(x)]) + x.encode() for x in (module, name)
    )
    argument = pickle.dumps(argument, protocol=2)[2:-1]
    return (
        pickle.PROTO
        + b"\x04"
        + texts
        + pickle.STACK_GLOBAL
        + pickle.MARK
        + argument
        + pickle.TUPLE
        + pickle.REDUCE
        + pickle.STOP
    )


def hostile_pickles(marker):
    create = f"__import__('os').mkdir({str(marker)!r})"
    return {
        "mkdir": pickle.dumps({"a": [Calls(os.mkdir, str(marker))]}),
        "eval": pickle.dumps(Calls(eval, create)),
        "exec": pickle.dumps(Calls(exec, create)),
        "protocol 0": pickle.dumps(Calls(exec, create), protocol=0),
        "compile": pickle.dumps(Calls(compile, create, "", "exec")),
        "import": pickle.dumps(Calls(__import__, "this")),
        "open": pickle.dumps(Calls(open, str(marker), "w")),
        "getattr": pickle.dumps(Calls(getattr, "", "join")),
        "partial": pickle.dumps(functools.partial(os.mkdir, str(marker))),
        "dotted": by_name("numpy", "os.mkdir", str(marker)),
        "numpy load": by_name("numpy", "load", str(marker)),
        "numpy save": by_name("numpy", "ndarray.tofile", str(marker)),
        "runstring": by_name("numpy.testing._private.utils", "runstring", create),
        "a global alone": pickle.dumps(os.system),
        "object array": pickle.dumps(
            np.array([Calls(os.mkdir, str(marker))], dtype=object)
        ),
    }


@pytest.mark.parametrize("name", list(hostile_pickles("")))
def test_a_pickle_that_needs_more_than_arrays_is_refused(logdir, tmp_path, name):
    marker = tmp_path / "code was run"
    file = the_folder(logdir) / "agent.pkl"
    file.write_bytes(hostile_pickles(marker)[name])
    cp = opened()
    with pytest.raises(PickleError) as error:
        cp.load(logdir)
    assert isinstance(error.value, ValueError)
    assert "agent" in str(error.value)
    assert "allow_pickle=True" in str(error.value)
    assert "agent" not in elementsckpt.read(logdir)
    for function in (
        lambda path: elementsckpt.checkpoint.load(path, {"agent": cp.agent.load}),
        lambda path: cp.load(path, allow_pickle=False),
    ):
        with pytest.raises(PickleError):
            function(logdir)
    elementsckpt.info(logdir)
    assert (cp.step, cp.agent.loads, cp.replay.got) == (0, 0, None)
    assert not marker.exists()


def test_a_hostile_shard_is_refused_before_anything_is_loaded(logdir, tmp_path):
    marker = tmp_path / "code was run"
    file = the_folder(logdir) / "replay-0003.pkl"
    file.write_bytes(pickle.dumps(Calls(os.mkdir, str(marker))))
    cp = opened()
    with pytest.raises(PickleError, match="replay"):
        cp.load(logdir)
    assert (cp.step, cp.agent.loads, cp.replay.got) == (0, 0, None)
    assert not marker.exists()


def test_allow_pickle_takes_what_the_restricted_way_refuses(logdir):
    file = the_folder(logdir) / "agent.pkl"
    file.write_bytes(pickle.dumps(Calls(os.path.join, "a", "b")))
    cp = opened()
    cp.load(logdir, allow_pickle=True)
    assert cp.agent.state == os.path.join("a", "b")
    state = elementsckpt.read(logdir, keys=["agent"], allow_pickle=True)
    assert state == {"agent": os.path.join("a", "b")}


def test_what_the_restricted_way_refuses_is_left_out_of_what_is_read(logdir, caplog):
    marker = logdir / "marker"
    folder = the_folder(logdir)
    (folder / "agent.pkl").write_bytes(pickle.dumps(Calls(marker.touch)))
    found = elementsckpt.read(logdir)
    assert {*found} == {"step", "replay"}
    assert "left out: agent. Pass" in caplog.text
    shard = next(folder.glob("replay-*.pkl"))
    shard.write_bytes(pickle.dumps(Calls(marker.touch)))
    assert {*elementsckpt.read(logdir)} == {"step"}
    assert elementsckpt.read(logdir, keys=["agent"], regex="x") == {}
    assert not marker.exists()


@pytest.mark.parametrize("numpy", ["numpy.core", "numpy._core"])
def test_arrays_pickled_by_numpy_1_and_2_load_with_either(logdir, numpy):
    state = {"a": np.arange(3), "b": np.float32(0.5)}
    text = pickle.dumps(state, protocol=3)  # Names are in plain text there.
    text = re.sub(rb"numpy\._?core\.", numpy.encode() + b".", text)
    assert f"{numpy}.multiarray".encode() in text
    (the_folder(logdir) / "agent.pkl").write_bytes(text)
    cp = opened()
    cp.load(logdir)
    assert same(cp.agent.state, state)


DAMAGED_PICKLES = {
    "empty": b"",
    "gibberish": b"gibberish",
    "truncated": pickle.dumps(STATE)[:-50],
    "bytes of a terabyte": b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b".",
    "text of a terabyte": b"\x80\x04\x8d" + (2**40).to_bytes(8, "little") + b".",
    "bytearray of a terabyte": b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".",
    "marks": b"\x80\x04" + b"(" * 100_000 + b".",
    "memo out of range": b"\x80\x04j" + (2**31).to_bytes(4, "little") + b".",
    "memo of nothing": b"\x80\x04\x94.",
    "unknown protocol": b"\x80\xff.",
    "no end": b"\x80\x04N",
    "deep reductions": b"\x80\x04" + b"R" * 1000 + b".",
}


@pytest.mark.parametrize("name", list(DAMAGED_PICKLES))
def test_a_damaged_pickle_is_a_checkpoint_error_that_names_the_file(logdir, name):
    (the_folder(logdir) / "agent.pkl").write_bytes(DAMAGED_PICKLES[name])
    cp = opened()
    with pytest.raises(CheckpointError) as error:
        cp.load(logdir)
    assert "agent" in str(error.value)
    assert (cp.step, cp.agent.loads, cp.replay.got) == (0, 0, None)


def test_a_missing_shard_is_an_error(logdir):
    (the_folder(logdir) / "replay-0002.pkl").unlink()
    cp = opened()
    with pytest.raises(CheckpointError, match="replay"):
        cp.load(logdir)
    assert (cp.step, cp.agent.loads, cp.replay.got) == (0, 0, None)


def test_a_very_deep_pickle_loads_or_is_a_checkpoint_error(logdir):
    deep = pickle.PROTO + b"\x04" + b"]" * 50_000 + b"a" * 49_999 + pickle.STOP
    (the_folder(logdir) / "agent.pkl").write_bytes(deep)
    cp = opened()
    with contextlib.suppress(CheckpointError):
        cp.load(logdir)
    assert type(cp.agent.state) in (list, type(None))


def test_a_dangling_link_in_a_folder_of_elements_is_damage(tmp_path):
    save = tmp_path / "20200101T000000F000000"
    save.mkdir()
    (save / "agent.pkl").symlink_to(tmp_path / "gone")
    (save / "done").write_bytes(b"")
    cp = make_boxes(tmp_path, agent=1)
    calls = [cp.load, cp.load_or_save, lambda: cp.load(save, regex=".*")]
    calls += [lambda: elementsckpt.read(save)]
    for call in calls:
        with pytest.raises(elementsckpt.DamagedError, match=r"agent\.pkl"):
            call()
    assert elementsckpt.info(save).components["agent"].bytes >= 0
    assert cp.agent.loads == 0

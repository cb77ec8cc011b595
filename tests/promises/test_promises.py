"""One test for each promise of docs/guarantees.md that has no file of its own."""

import errno
import itertools
import logging
import os
import shutil
import subprocess
import sys
from datetime import datetime, timezone

import numpy as np
import pytest

import elementsckpt
from elementsckpt.storage import disk

from support.boxes import Box, python
from support.folders import Clock, component_of, forge, manifest_of, sealed, texts_of


def checkpoint(directory, keep=2, background=False, compress="auto", **states):
    manner = {"background": background, "compress": compress}
    cp = elementsckpt.Checkpoint(directory, keep=keep, **manner)
    for key, state in states.items():
        setattr(cp, key, Box(state))
    return cp


def save_and_wait(cp):
    report = cp.save()
    return cp.wait() or report


def flip_last_byte(save, key="agent"):
    component = component_of(save, key)
    number, offset, size = component["blocks"][-1][:3]
    file = save / component["segments"][number][0]
    content = bytearray(file.read_bytes())
    content[offset + size - 1] ^= 1
    file.unlink()
    file.write_bytes(content)


@pytest.mark.parametrize("background", [False, True])
def test_promise_2_only_what_was_written_here_is_removed(tmp_path, background):
    directory = tmp_path / "ckpt"
    cp = checkpoint(directory, keep=1, background=background, agent=np.zeros(3))
    first = cp.save().path
    cp.wait()
    shutil.copytree(first, directory / "backup")
    cp.save(directory / "explicit")
    old = directory / "20200101T000000F000000"
    old.mkdir()
    (old / "agent.pkl").write_bytes(b"")
    (old / "done").write_bytes(b"")
    (directory / "notes.txt").write_text("mine")
    (directory / "mine").mkdir()
    (directory / "20220101T000000F000000").mkdir()
    (directory / "20220101T000000F000000" / "data.bin").write_bytes(b"mine")
    others = {path.name for path in directory.iterdir()} - {first.name}
    newest = cp.save().path
    cp.wait()
    assert {path.name for path in directory.iterdir()} == others | {newest.name}


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("compress", [None, 1])
def test_promise_2_what_people_do_to_a_save_harms_no_other(
    tmp_path, background, compress
):
    noise = np.random.default_rng(0).integers(0, 7, (2, 100_000), np.uint8)
    manner = {"background": background, "compress": compress}
    cp = checkpoint(tmp_path, keep=None, agent={"same": noise[0], "new": 0}, **manner)
    paths = []
    for number in range(5):
        cp.agent.state["new"] = np.full(10, number)
        paths.append(cp.save().path)
        cp.wait()
    first, removed, lost, renamed, newest = paths
    shutil.rmtree(removed)
    for file in lost.glob("*.safetensors"):
        file.unlink()
    renamed.rename(tmp_path / "mine")
    shutil.copytree(newest, tmp_path / "copy")
    cp.agent.state["new"] = np.full(10, 5)
    report = save_and_wait(cp)
    assert report.bytes_reused >= 20_000
    right = {first: 0, tmp_path / "mine": 3, tmp_path / "copy": 4, newest: 4}
    for path, number in {**right, report.path: 5}.items():
        state = elementsckpt.read(path)["agent"]
        assert (state["same"] == noise[0]).all()
        assert (state["new"] == number).all()
    with pytest.raises(elementsckpt.DamagedError):
        elementsckpt.read(lost)


def test_promise_2_what_no_rule_asks_for_is_all_that_is_removed(tmp_path):
    keep = elementsckpt.Keep(latest=1, best=1, metric="return", every=4)
    cp = elementsckpt.Checkpoint(tmp_path, keep=keep)
    cp.step, cp.agent = elementsckpt.Counter(), Box(0)
    for step, score in enumerate([1, 2, 9, 3, 4, 5, 6, 7]):
        cp.step.load(step)
        keys = ["step"] if step == 7 else None
        cp.save(keys=keys, metrics={"return": score}, pin="mine" if step == 1 else None)
    assert [info.step for info in cp.saves()] == [0, 1, 2, 4, 6, 7]


def test_promise_3_order_is_by_sequence(tmp_path):
    cp = checkpoint(tmp_path, keep=None, agent=0)
    paths = []
    for number in range(3):
        cp.agent.state = number
        paths.append(cp.save().path)
    # Names, modification times and the recorded clock all say the reverse.
    for number, path in enumerate(paths):
        new = tmp_path / f"2000010{3 - number}T000000F000000"
        path.rename(new)
        os.utime(new, (1000 - number, 1000 - number))

        def backdate(content, number=number, new=new):
            content["name"] = new.name
            content["time"] = f"2000-01-0{3 - number}T00:00:00+00:00"

        forge(new, backdate)
    again = checkpoint(tmp_path, keep=2, agent=None)
    assert again.load_or_save()
    assert again.agent.state == 2
    assert [info.sequence for info in again.saves()] == [1, 2, 3]
    assert again.save().sequence == 4
    assert [info.sequence for info in again.saves()] == [3, 4]


@pytest.mark.parametrize("compress", [None, 1])
def test_promise_4_a_damaged_newest_save_is_replaced_by_the_newest_good_one(
    tmp_path, caplog, compress
):
    cp = checkpoint(tmp_path, agent=np.zeros(1000), compress=compress)
    good = cp.save().path
    cp.agent.state = np.ones(1000)
    bad = cp.save().path
    flip_last_byte(bad)
    with caplog.at_level(logging.WARNING, "elementsckpt"):
        report = cp.load()
    assert report.path == good
    assert report.fell_back_from == bad
    np.testing.assert_array_equal(cp.agent.state, np.zeros(1000))
    assert str(bad) in caplog.text
    assert "agent" in caplog.text
    assert str(good) in caplog.text


@pytest.mark.parametrize("compress", [None, 1])
def test_promise_4_a_named_save_is_never_substituted(tmp_path, compress):
    cp = checkpoint(tmp_path, agent=np.zeros(1000), compress=compress)
    cp.save()
    bad = cp.save().path
    flip_last_byte(bad)
    with pytest.raises(elementsckpt.DamagedError, match=r"agent-\d+.*holds agent"):
        cp.load(bad)
    assert cp.agent.loads == 0


@pytest.mark.parametrize(
    "fault", ["damage", "pickle", "key", "class", "shards", "files"]
)
@pytest.mark.parametrize("compress", [None, 1])
def test_promise_5_nothing_is_loaded_unless_everything_can_be(
    tmp_path, fault, compress
):
    class Shards(Box):
        def save(self):
            return (np.full(1000, i) for i in range(3))

    states = {"first": np.zeros(3), "last": np.zeros(1000)}
    cp = checkpoint(tmp_path / "own", compress=compress, **states)
    cp.replay = Shards()
    save = cp.save(tmp_path / "save").path
    other = checkpoint(tmp_path / "other", first=1)
    if fault == "damage":
        flip_last_byte(save, "last")
        other.last = Box()
    elif fault == "pickle":
        cp.last.state = {"odd": {np.dtype("f4"): 1}}
        save = cp.save(tmp_path / "pickled").path
        other.last = Box()
    elif fault == "key":
        other.absent = Box()
    elif fault == "class":

        def lie(content):
            content["components"][1]["trees"][0]["leaves"][0]["kind"] = "nothing"

        forge(save, lie)
        other.last = Box()
    elif fault == "files":
        cp.policy = other.policy = elementsckpt.Files(
            save=lambda folder: (folder / "x").write_text("x"), load=pytest.fail
        )
        save = cp.save(tmp_path / "files").path
        (save / "policy.files" / "x").unlink()
    else:
        flip_last_byte(save, "replay")
        other.replay = Shards()
    with pytest.raises(elementsckpt.CheckpointError):
        other.load(save)
    assert other.first.loads == 0
    assert other.first.state == 1


def test_promise_7_a_foreign_save_cannot_name_classes_to_call(tmp_path):
    marker = tmp_path / "code-ran"
    state = {"args": ["touch", str(marker)]}
    save = checkpoint(tmp_path / "theirs", agent=state).save().path
    mine = checkpoint(tmp_path / "mine", agent=None)
    for kind in ("frozen", "dataclass", "namedtuple", "dict"):

        def name_popen(content, kind=kind):
            content["components"][0]["trees"][0]["nodes"][-1].update(
                kind=kind, name="subprocess:Popen"
            )

        forge(save, name_popen)
        mine.load(save)
        assert mine.agent.state == state
        assert not marker.exists()


def test_promise_7_a_foreign_save_imports_nothing(tmp_path):
    state = {"x": 1}
    save = checkpoint(tmp_path / "theirs", agent=state).save().path

    def name_lazy(content):
        content["components"][0]["trees"][0]["nodes"][0].update(
            kind="namedtuple", name="numpy:f2py.anything"
        )

    forge(save, name_lazy)
    script = (
        "import sys, elementsckpt\n"
        "elementsckpt.checkpoint.load(sys.argv[1], {'agent': print})\n"
        "assert 'numpy.f2py' not in sys.modules\n"
    )
    python(script, save, check=True)


SPY = """
import pathlib

class Spy:
    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path({marker!r}),)
"""


def test_promise_7_a_foreign_save_runs_no_code(tmp_path):
    marker = tmp_path / "code-ran"
    scope = {"__name__": "spy"}
    exec(SPY.format(marker=str(marker)), scope)
    cp = checkpoint(
        tmp_path / "theirs", agent={"w": np.zeros(3), "spy": scope["Spy"]()}
    )
    cp.save()
    mine = checkpoint(tmp_path / "mine", agent=None)
    with pytest.raises(elementsckpt.PickleError, match=r"agent/spy.*allow_pickle=True"):
        mine.load(tmp_path / "theirs")
    (found,) = elementsckpt.read(tmp_path / "theirs").values()
    assert list(found) == ["w"]
    elementsckpt.info(tmp_path / "theirs")
    elementsckpt.read(tmp_path / "theirs", regex="w")
    assert not marker.exists()
    assert mine.agent.loads == 0
    mine.load(tmp_path / "theirs", allow_pickle=True)
    assert marker.exists()


def test_promise_7_a_foreign_save_cannot_name_functions_to_call(tmp_path):
    cp = checkpoint(tmp_path / "theirs", agent={"activation": os.path.join})
    save = cp.save().path
    forge(save, lambda x: _leaf(x).update(value=["posix:system"]))
    mine = checkpoint(tmp_path / "mine", agent={"activation": os.path.join})
    with pytest.raises(elementsckpt.PickleError, match="is the function posix"):
        mine.load(save)
    forge(save, lambda x: _leaf(x).update(value=["posixpath:join"]))
    mine.load(save)
    assert mine.agent.state == {"activation": os.path.join}


def _leaf(content):
    return content["components"][0]["trees"][0]["leaves"][0]


def _set(*path):
    *outer, last, value = path

    def change(content):
        for step in outer:
            content = content[step]
        content[last] = value

    return change


LEAF = ("components", 0, "trees", 0, "leaves", 0)
NODE = ("components", 0, "trees", 0, "nodes", 0)
HOSTILE = {
    "huge array": _set(*LEAF, "shape", [1 << 40]),
    "huge product": _set(*LEAF, "shape", [1 << 31] * 8),
    "huge empty array": _set(*LEAF, "shape", [0, 1 << 61]),
    "negative size": _set(*LEAF, "shape", [-1]),
    "many axes": _set(*LEAF, "shape", [1] * 100),
    "block beyond the last": _set(*LEAF, "block", 99),
    "offset beyond the block": _set(*LEAF, "offset", 1 << 50),
    "unknown kind": _set(*LEAF, "kind", "exec"),
    "unknown field": _set(*LEAF, "callback", "exec"),
    "object dtype": _set(*LEAF, "dtype", "|O"),
    "odd dtype": _set(*LEAF, "dtype", {"fields": 7}),
    "module for a dtype": _set(*LEAF, "dtype", "finfo"),
    "more leaves than bytes": _set(*LEAF, "names", ["w"] * 9),
    "more leaves than numbers": _set(*LEAF, "names", []),
    "fewer values than leaves": lambda x: _leaf(x).update(kind="python", value=[]),
    "values that are no list": lambda x: _leaf(x).update(kind="python", value={"a": 1}),
    "child beyond the last": _set(*NODE, "children", [99]),
    "container in itself": _set(*NODE, "children", [-1]),
    "fewer keys than children": _set(*NODE, "keys", []),
    "unknown container": _set(*NODE, "kind", "object"),
    "unhashable key": _set(*NODE, "keys", [{"$set": []}, "b"]),
    "root beyond the last": _set("components", 0, "trees", 0, "root", -9),
    "file outside": _set(
        "components", 0, "segments", 0, 0, "../w-000001-00000.safetensors"
    ),
    "absolute file": _set("components", 0, "segments", 0, 0, "/etc/passwd"),
    "file with NUL": _set(
        "components", 0, "segments", 0, 0, "a\0-000001-00000.safetensors"
    ),
    "larger file": _set("components", 0, "segments", 0, 1, 1 << 40),
    "block beyond the file": _set("components", 0, "blocks", 0, 1, 1 << 40),
    "larger block": _set("components", 0, "blocks", 0, 2, 1 << 24),
    "no segment": _set("components", 0, "segments", []),
    "block of negative size": _set("components", 0, "blocks", 0, 2, -1),
    "block that is no frame": _set("components", 0, "blocks", 0, 4, 812),
    "same block twice": lambda x: x["components"][0]["blocks"].append(
        x["components"][0]["blocks"][0]
    ),
    "many shards": _set("components", 0, "shards", 1 << 40),
    "no components": _set("components", None),
    "other format": _set("format", "zip"),
    "sequence of text": _set("sequence", "1"),
}


FRAME_SIZE = "components", 0, "blocks", 0, 4
HOSTILE_FRAMES = {
    "frame that is no frame": _set(*FRAME_SIZE, 0),
    "frame of a byte less": _set(*FRAME_SIZE, 811),
    "frame of a byte more": _set(*FRAME_SIZE, 813),
    "frame of much more": _set(*FRAME_SIZE, 1 << 24),
    "frame of too much": _set(*FRAME_SIZE, 1 << 40),
    "frame of less than nothing": _set(*FRAME_SIZE, -1),
    "cut frame": _set("components", 0, "blocks", 0, 2, 9),
}


@pytest.mark.parametrize("name", [*HOSTILE, *HOSTILE_FRAMES])
def test_promise_8_hostile_manifests_are_refused(tmp_path, name):
    state = {"w": np.zeros(100), "b": np.ones(3, "f4")}
    compress = 1 if name in HOSTILE_FRAMES else None
    own = checkpoint(tmp_path / "own", agent=state, compress=compress)
    save = own.save(tmp_path / "save").path
    forge(save, (HOSTILE | HOSTILE_FRAMES)[name])
    mine = checkpoint(tmp_path / "mine", agent=None)
    for mmap in (False, True):
        with pytest.raises(elementsckpt.CheckpointError) as caught:
            mine.load(save, mmap=mmap)
        assert "save" in str(caught.value)
        with pytest.raises(elementsckpt.CheckpointError):
            elementsckpt.read(save, mmap=mmap)
    assert mine.agent.loads == 0


def test_promise_8_containers_that_double_do_not_hang(tmp_path):
    save = checkpoint(tmp_path / "own", agent=[[1]]).save(tmp_path / "save").path

    def double(content):
        tree = content["components"][0]["trees"][0]
        nodes = [{"kind": "list", "children": [-n, -n]} for n in range(1, 200)]
        tree["nodes"] = [{"kind": "list", "children": [0]}, *nodes]
        tree["root"] = -200

    forge(save, double)
    loaded = {}
    elementsckpt.checkpoint.load(save, {"agent": lambda data: loaded.update(data=data)})
    assert loaded["data"][0] is loaded["data"][1]
    with pytest.raises(elementsckpt.CheckpointError, match="too many places"):
        elementsckpt.read(save, regex="0")


def test_promise_8_deep_manifests_are_refused(tmp_path):
    save = checkpoint(tmp_path / "own", agent=1).save(tmp_path / "save").path
    deep = "[" * 100_000 + "]" * 100_000
    head, rest = texts_of(manifest_of(save))
    head = head.replace(b'"metadata":{}', b'"metadata":' + deep.encode())
    (save / "manifest.json").write_bytes(sealed(head, rest))
    with pytest.raises(elementsckpt.CheckpointError):
        elementsckpt.info(save)


LOAD = """
import resource, sys
import elementsckpt
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
for path in sys.argv[1:]:
    try:
        elementsckpt.checkpoint.load(path, {"agent": lambda data: None})
    except elementsckpt.CheckpointError as error:
        print(type(error).__name__, *str(error).split())
"""


def test_promise_8_links_and_fifos_are_refused(tmp_path, forked):
    files = []
    for kind, name in itertools.product(
        ("link", "fifo", "folder", "device"),
        ("manifest.json", "agent-000001-00000.safetensors"),
    ):
        cp = checkpoint(None, agent=np.zeros(100))
        # None is beside another, or its segments would have other numbers.
        folder = tmp_path / f"{kind} {name}"
        file = cp.save(folder / "save").path / name
        files.append(file)
        moved = file.rename(folder / "moved")
        if kind == "fifo":
            os.mkfifo(file)
        elif kind == "folder":
            file.mkdir()
        else:
            file.symlink_to(moved if kind == "link" else "/dev/zero")
    saves = [file.parent for file in files]
    found = forked(LOAD, *saves).stdout.splitlines()
    for file, line in zip(files, found, strict=True):
        assert line.startswith("DamagedError")
        assert str(file) in line


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("changed", [0, 1, 4])
def test_promise_10_a_full_disk_costs_the_new_save_only(
    tmp_path, monkeypatch, number, background, changed
):
    noise = np.random.default_rng(0).random((4, 100_000))
    state = {f"x{n}": array for n, array in enumerate(noise)}
    cp = checkpoint(tmp_path / "ckpt", agent=state, background=background)
    old = cp.save().path
    cp.wait()
    noise[:changed] += 1
    before = {path: path.read_bytes() for path in old.iterdir()}

    def full(call, *args):
        if call is os.pwrite:
            raise OSError(number, os.strerror(number))
        return call(*args)

    monkeypatch.setattr(disk, "syscall", full)
    with pytest.raises(elementsckpt.WriteError, match=os.strerror(number)) as caught:
        save_and_wait(cp)
    assert caught.value.errno == number
    assert isinstance(caught.value, OSError)
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in old.iterdir()} == before
    assert sorted(path.name for path in (tmp_path / "ckpt").iterdir()) == sorted(
        ["latest", old.name]
    )
    assert cp.load().path == old
    assert cp.save().sequence == 2


SAVES = """
import sys, numpy, elementsckpt
directory, name = sys.argv[1:]
class Agent:
    def save(self):
        return {"name": name, "number": number, "w": numpy.full(50_000, number)}
    def load(self, data):
        pass
cp = elementsckpt.Checkpoint(directory, keep=2, fsync=False, background=True)
cp.agent = Agent()
print("ready", flush=True)
sys.stdin.readline()
for number in range(30):
    cp.save(metadata={"name": name, "number": number})
    if number == 0:
        print("saving", flush=True)
        sys.stdin.readline()
cp.close()
"""


def test_promise_9_writers_on_one_directory_do_not_corrupt_it(tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SAVES, str(tmp_path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("first", "second", "third")
    ]
    for said in ("ready\n", "saving\n"):  # All have begun before the first one ends.
        for process in processes:
            assert process.stdout.readline() == said
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
    seen = 0
    while any(process.poll() is None for process in processes):
        if elementsckpt.exists(tmp_path):
            check_whole(tmp_path)
            seen += 1
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    told = [line for line in "".join(errors).splitlines() if line]
    assert all("is writing to" in line for line in told)
    assert 2 <= len(told) <= 4  # Again when it is known who the other is.
    assert seen
    paths = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert 2 <= len(paths) <= 6
    for path in paths:
        check_whole(path)


def check_whole(path):
    """Check that all of a save is of one writer and one moment."""
    found = elementsckpt.read(path)["agent"]
    assert (found["w"] == found["number"]).all()
    assert found["name"] in ("first", "second", "third")


def test_promise_9_names_never_collide(tmp_path, monkeypatch):
    Clock(monkeypatch, datetime(2026, 1, 1, tzinfo=timezone.utc))
    first = checkpoint(tmp_path, keep=None, agent=1)
    second = checkpoint(tmp_path, keep=None, agent=2)
    paths = [cp.save().path for _ in range(5) for cp in (first, second)]
    assert len(set(paths)) == 10
    assert [path.name for path in paths] == sorted(path.name for path in paths)
    assert [elementsckpt.read(path)["agent"] for path in paths] == [1, 2] * 5

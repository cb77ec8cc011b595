"""Components that write files themselves: what they write is a part of the save."""

import functools
import os
import shutil
import socket
import stat
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import elementsckpt
from elementsckpt import (
    Checkpoint,
    ComponentError,
    DamagedError,
    Files,
    MismatchError,
    StateError,
)
from elementsckpt.storage import disk

from support.boxes import Box
from support.faults import Policy, contents
from support.folders import Calls, Gate, flip_block, manifest_of, unprivileged
from support.strategies import PROPERTY

STATE = {"config.json": b"{}", "weights/1/a.bin": b"a" * 5000, "empty": b""}


def make(directory=None, state=STATE, **options):
    """Return a checkpoint of a policy that writes files and a box."""
    cp = Checkpoint(directory, **options)
    cp.policy = Policy(dict(state))
    cp.agent = Box({"w": np.arange(3)})
    return cp


def loaded(path):
    """Return what a new policy finds in a save."""
    cp = make(None, {})
    cp.load(path)
    return cp.policy.state


def inodes(save):
    """Return the inode of each file of the policy, by path."""
    folder = save / "policy.files"
    files = [x for x in folder.rglob("*") if x.is_file()]
    return {str(x.relative_to(folder)): x.stat().st_ino for x in files}


def files_are(write):
    """Return a component that writes files in this way, and loads nothing."""
    return Files(save=write, load=lambda folder: None)


# There and back


def test_files_come_back_as_they_were_written(tmp_path):
    cp = make(tmp_path)
    save = cp.save().path
    cp.policy.state = None
    cp.load()
    assert cp.policy.state == STATE
    assert loaded(save) == STATE


NAMES = st.text(min_size=1, max_size=20).filter(
    lambda name: "/" not in name and "\0" not in name and name not in (".", "..")
)
TREES = st.recursive(
    st.binary(max_size=50), lambda below: st.dictionaries(NAMES, below, max_size=4)
)


def flat(tree, prefix=""):
    """Return the content of each file of a tree, by path."""
    if isinstance(tree, bytes):
        return {prefix or "file": tree}
    parts = [
        flat(x, f"{prefix}/{name}" if prefix else name) for name, x in tree.items()
    ]
    return {path: content for part in parts for path, content in part.items()}


def write_all(files, folder):
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


@PROPERTY
@given(first=TREES, second=TREES)
def test_any_tree_of_files_comes_back(first, second):
    first, second = flat(first), flat(second)
    with tempfile.TemporaryDirectory() as directory:
        cp = Checkpoint(directory, keep=2, fsync=False)
        got = []
        for files in (first, second, first):
            write = functools.partial(write_all, files)
            cp.policy = Files(save=write, load=lambda x: got.append(contents(x)))
            cp.save()
            cp.load()
        assert got == [first, second, first]


def test_a_file_larger_than_a_piece_comes_back(tmp_path):
    large = np.random.default_rng(0).bytes(3 * 2**20 + 1)
    cp = make(tmp_path, {"large.bin": large})
    assert loaded(cp.save().path) == {"large.bin": large}


def test_the_function_that_saves_gets_an_empty_folder_in_the_save(tmp_path):
    got = []

    def save(folder):
        got.append(folder)
        assert isinstance(folder, Path)
        assert list(folder.iterdir()) == []
        return "this is ignored"

    cp = Checkpoint(tmp_path)
    cp.policy = Files(save=save, load=got.append)
    path = cp.save().path
    assert got == [path / "policy.files"]


def test_the_functional_form_saves_and_loads_files(tmp_path):
    policy, other = Policy(STATE), Policy({})
    save, load = elementsckpt.checkpoint.save, elementsckpt.checkpoint.load
    key = "a key/with .. anything ü \ud800"
    save(tmp_path / "x", {key: policy.save, "n": lambda: 1})
    load(tmp_path / "x", {key: other.load, "n": lambda n: None})
    assert other.state == STATE


def test_keys_that_differ_in_case_have_folders_that_differ_in_more(tmp_path):
    cp = Checkpoint(tmp_path)
    cp.policy, cp.Policy = Policy({"a": b"1"}), Policy({"a": b"2"})
    path = cp.save().path
    assert len({x.name.casefold() for x in path.glob("*.files")}) == 2
    cp.policy.state = cp.Policy.state = None
    cp.load()
    assert (cp.policy.state, cp.Policy.state) == ({"a": b"1"}, {"a": b"2"})


def test_nothing_written_is_an_empty_folder(tmp_path):
    cp = make(tmp_path, {})
    save = cp.save().path
    assert loaded(save) == {}
    assert (save / "policy.files").is_dir()
    assert elementsckpt.info(save).components["policy"].leaves == 0


def test_reports_count_files_and_their_bytes(tmp_path):
    size = sum(map(len, STATE.values()))
    cp = make(tmp_path)
    report = cp.save(keys=["policy"])
    manifest_bytes = (report.path / "manifest.json").stat().st_size
    assert (report.bytes_total, report.bytes_reused) == (size, 0)
    assert report.bytes_written == size + manifest_bytes
    found = elementsckpt.info(report.path).components["policy"]
    assert (found.bytes, found.leaves, found.shards) == (size, 3, None)
    report = cp.load(keys=["policy"])
    assert sorted(report.loaded) == sorted(f"policy/{name}" for name in STATE)
    assert report.bytes_read == size


def test_read_returns_the_folder(tmp_path):
    save = make(tmp_path).save().path
    found = elementsckpt.read(tmp_path)
    assert found["policy"] == save / "policy.files"
    assert contents(found["policy"]) == STATE


def test_a_copy_of_a_save_is_the_same_save(tmp_path):
    save = make(tmp_path / "run").save().path
    shutil.copytree(save, tmp_path / "copy")
    shutil.rmtree(tmp_path / "run")
    assert loaded(tmp_path / "copy") == STATE


def test_without_write_the_function_is_not_called(tmp_path):
    cp = Checkpoint(tmp_path, write=False)
    cp.policy = files_are(pytest.fail)
    report = cp.save()
    assert (report.bytes_written, report.bytes_total) == (0, 0)
    assert os.listdir(tmp_path) == []


def test_a_dry_run_does_not_call_the_function(tmp_path):
    cp = make(tmp_path)
    cp.save()
    report = cp.load(dry_run=True)
    assert cp.policy.loads == 0
    assert "policy/config.json" in report.loaded


def test_a_load_without_the_key_does_not_read_the_files(tmp_path):
    cp = make(tmp_path)
    shutil.rmtree(cp.save().path / "policy.files")
    report = cp.load(keys=["agent"])
    assert report.loaded == ("agent/w",)
    assert elementsckpt.info(tmp_path).components["policy"].leaves == 3


def test_files_are_loaded_when_all_is_verified(tmp_path):
    cp = make(tmp_path)
    save = cp.save().path
    flip_block(save, 0)
    with pytest.raises(DamagedError, match="agent"):
        cp.load()
    assert cp.policy.loads == 0


def test_regex_and_rename_are_not_for_files(tmp_path):
    cp = make(tmp_path)
    cp.save()
    for options in ({"regex": ".*"}, {"rename": {"a": "b"}}):
        with pytest.raises(
            MismatchError, match=r"'policy' in .* was saved as files.*keys="
        ):
            cp.load(**options)
    with pytest.raises(
        MismatchError, match=r"'policy' in .* was saved as files.*keys="
    ):
        elementsckpt.read(tmp_path, regex=".*")
    assert cp.policy.loads == cp.agent.loads == 0
    assert cp.load(keys=["agent"], regex=".*").loaded == ("agent/w",)


def test_files_are_loaded_as_they_are_where_names_do_not_count(tmp_path):
    cp = make(tmp_path)
    cp.save()
    cp.load(strict=False, cast=True)
    assert (cp.policy.loads, cp.agent.loads) == (1, 1)


# What the folder may not be, nor hold


def make_socket(folder):
    at, here = os.getcwd(), socket.socket(socket.AF_UNIX)
    os.chdir(folder)  # As addresses are short.
    try:
        here.bind("bad")
    finally:
        os.chdir(at)
        here.close()


BAD = {
    "link to a file": lambda x: (x / "bad").symlink_to(x / "good"),
    "link to a folder": lambda x: (x / "bad").symlink_to(x),
    "dangling link": lambda x: (x / "bad").symlink_to("nothing"),
    "pipe": lambda x: os.mkfifo(x / "bad"),
    "socket": make_socket,
    "name": lambda x: open(os.fsencode(x / "bad") + b"\xff", "w").close(),
    "folder's name": lambda x: os.mkdir(os.fsencode(x / "bad") + b"\xff"),
}


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("bad", BAD)
def test_what_cannot_be_saved_is_named_and_leaves_no_trace(
    tmp_path, bad, deep, background
):
    def save(folder):
        (folder / "good").write_text("good")
        below = folder / "below" if deep else folder
        below.mkdir(exist_ok=True)
        BAD[bad](below)

    cp = make(tmp_path, background=background)
    first = cp.save().path
    cp.wait()
    cp.policy = files_are(save)
    name = r"below/bad" if deep else r"\n  bad"
    remedy = "copy the file" if "link" in bad else "rename" if "name" in bad else "remo"
    with pytest.raises(StateError, match=f"{name}.* {remedy}") as caught:
        cp.save()
    assert "good" not in str(caught.value)
    assert "'policy'" in caught.value.__notes__[0]
    assert {x.name for x in tmp_path.iterdir()} == {first.name, "latest"}
    assert loaded(tmp_path) == STATE


def test_everything_that_cannot_be_saved_is_in_one_error(tmp_path):
    def save(folder):
        for number in range(10, 25):
            (folder / f"link{number}").symlink_to("x")

    cp = Checkpoint(tmp_path)
    cp.policy = files_are(save)
    with pytest.raises(StateError, match=r"link10 (.|\n)*link19 (.|\n)*5 more"):
        cp.save()


def replace_by_link(folder):
    shutil.rmtree(folder)
    folder.symlink_to("/")


def replace_by_file(folder):
    shutil.rmtree(folder)
    folder.write_text("file")


@pytest.mark.parametrize("change", [shutil.rmtree, replace_by_link, replace_by_file])
def test_the_folder_must_stay_one(tmp_path, change):
    cp = Checkpoint(tmp_path)
    cp.policy = files_are(change)
    with pytest.raises(StateError, match=r"policy\.files is not a folder any more"):
        cp.save()
    assert os.listdir(tmp_path) == []


def test_the_folder_may_be_replaced_by_another(tmp_path):
    def save(folder):
        write_all(STATE, folder.with_name("mine"))
        folder.with_name("mine").replace(folder)

    cp = Checkpoint(tmp_path)
    cp.policy = files_are(save)
    assert loaded_keys(cp.save().path) == STATE


def loaded_keys(path):
    """Return the files of a save that has nothing else."""
    return contents(elementsckpt.read(path)["policy"])


def test_a_function_that_raises_leaves_no_trace(tmp_path):
    def save(folder):
        (folder / "below").mkdir()
        (folder / "below" / "x").write_text("x")
        (folder / "link").symlink_to(keep)
        (folder / "below").chmod(0o555)
        raise RuntimeError("stop")

    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "file").write_text("not ours")
    cp = Checkpoint(tmp_path / "ckpt")
    cp.policy = files_are(save)
    with pytest.raises(RuntimeError, match="stop") as caught:
        cp.save()
    assert "'policy'" in caught.value.__notes__[0]
    assert os.listdir(tmp_path) == ["keep"]
    assert os.listdir(keep) == ["file"]


@pytest.fixture
def unprivileged_path():
    with unprivileged() as path:
        yield path


def write_and_protect(folder):
    write_all(STATE, folder)
    for below in ("weights/1", "weights", "."):
        (folder / below).chmod(0o555)


def test_folders_without_write_permission_are_removed_all_the_same(unprivileged_path):
    def fail(folder):
        write_and_protect(folder)
        raise RuntimeError("stop")

    cp = Checkpoint(unprivileged_path / "ckpt", keep=1)
    cp.policy = files_are(fail)
    with pytest.raises(RuntimeError, match="stop"):
        cp.save()
    assert os.listdir(unprivileged_path) == []
    cp.policy = files_are(write_and_protect)
    first = cp.save().path
    with pytest.raises(PermissionError):
        (first / "policy.files" / "config.json").write_text("x")
    (first / "policy.files" / "weights").chmod(0o555)
    second = cp.save()
    assert second.bytes_reused > 0
    assert not first.exists()
    shutil.rmtree(second.path)


def test_a_save_to_a_path_that_fails_leaves_no_trace(tmp_path):
    cp = make()
    cp.agent.state = threading.Lock()
    with pytest.raises(StateError):
        cp.save(tmp_path / "x")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("part", ["leaf", "shard"])
def test_a_folder_is_all_of_a_state_or_none_of_it(tmp_path, part):
    files = Policy(STATE)
    state = {"x": files.save()}
    cp = Checkpoint(tmp_path)
    save = (lambda: state) if part == "leaf" else (lambda: iter_of(state["x"]))
    cp.agent = elementsckpt.Saveable(save=save, load=lambda data: None)
    with pytest.raises(StateError, match=r"Files\.save\(\)"):
        cp.save()
    assert os.listdir(tmp_path) == []


def iter_of(value):
    yield value


# Unchanged files are links


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("same_process", [True, False])
def test_a_file_that_did_not_change_is_a_link(tmp_path, same_process, background):
    cp = make(tmp_path, keep=2, background=background)
    first = cp.save().path
    cp.wait()
    if not same_process:
        cp = make(tmp_path, keep=2, background=background)
    cp.policy.state["config.json"] = b"[]"
    second = cp.save()
    second = cp.wait() or second
    old, new = inodes(first), inodes(second.path)
    same = {name for name in STATE if old[name] == new[name]}
    assert same == {"weights/1/a.bin", "empty"}
    assert (second.path / "policy.files" / "weights/1/a.bin").stat().st_nlink == 2
    assert second.bytes_reused >= 5000
    assert second.bytes_written < 5000
    assert loaded(first) == STATE
    assert loaded(second.path) == {**STATE, "config.json": b"[]"}


def test_files_that_are_linked_are_synced_as_they_may_be_in_a_copy(
    tmp_path, monkeypatch
):
    cp = make(tmp_path, keep=2)
    cp.save()
    calls = Calls()
    monkeypatch.setattr(disk, "syscall", calls)
    second = cp.save(keys=["policy"]).path
    assert calls.counts["link"] == len(STATE)
    assert set(inodes(second).values()) <= set(calls.synced)


def test_no_save_needs_another(tmp_path):
    cp = make(tmp_path, keep=1)
    paths = [cp.save().path for _ in range(3)]
    assert [path.exists() for path in paths] == [False, False, True]
    assert loaded(paths[-1]) == STATE


def test_a_file_that_moved_is_a_link(tmp_path):
    cp = make(tmp_path, {"step_1/model.bin": b"model"}, keep=2)
    first = cp.save().path
    cp.policy.state = {"step_2/model.bin": b"model", "copy.bin": b"model"}
    second = cp.save().path
    assert len({*inodes(first).values(), *inodes(second).values()}) == 1
    assert loaded(second) == cp.policy.state


def test_a_save_to_a_path_shares_nothing(tmp_path):
    cp = make(tmp_path / "run")
    cp.save()
    for name in ("a", "b"):
        path = cp.save(tmp_path / name).path
        files = [x for x in path.rglob("*") if x.is_file()]
        assert {x.stat().st_nlink for x in files} == {1}


def test_a_component_that_links_its_files_itself_shares_them(tmp_path):
    def save(folder):
        for path in before.rglob("*.bin"):
            os.link(path, folder / path.name)

    cp = Checkpoint(tmp_path, keep=2)
    cp.policy = files_are(lambda folder: (folder / "a.bin").write_text("a"))
    first = cp.save().path
    before = first / "policy.files"
    cp.policy = files_are(save)
    second = cp.save().path
    assert inodes(first) == inodes(second)
    assert os.listdir(second / "policy.files") == ["a.bin"]


def test_the_name_of_a_link_in_the_making_may_be_taken(tmp_path):
    state = {f".elementsckpt-{number}": b"%d" % number for number in range(3)}
    cp = make(tmp_path, state, keep=2)
    cp.save()
    assert loaded(cp.save().path) == state


def test_where_the_folder_was_ordinary_before_there_is_nothing_to_link(tmp_path):
    cp = make(tmp_path, keep=2)
    cp.agent, cp.policy = Policy(STATE), Box({"w": np.arange(100)})
    cp.save()
    cp.agent, cp.policy = Box({"w": np.arange(100)}), Policy(STATE)
    report = cp.save()
    assert report.bytes_reused == 0
    assert loaded(report.path) == STATE


# Nobody changes what is saved


def test_files_are_read_only_and_otherwise_keep_their_modes(tmp_path):
    modes = {"plain": 0o644, "private": 0o600, "program": 0o755, "all": 0o666}

    def save(folder):
        for name, mode in modes.items():
            (folder / name).write_text(name)
            (folder / name).chmod(mode)
        (folder / "below").mkdir(mode=0o555)

    cp = Checkpoint(tmp_path)
    cp.policy = files_are(save)
    folder = cp.save().path / "policy.files"
    for name, mode in modes.items():
        assert stat.S_IMODE((folder / name).stat().st_mode) == mode & 0o555
    for path in (folder, folder / "below"):  # So that their owner can remove them.
        assert path.stat().st_mode & stat.S_IWUSR


def test_a_file_that_has_another_name_elsewhere_keeps_its_mode(tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("mine")
    mine.chmod(0o644)
    cp = Checkpoint(tmp_path / "ckpt")
    cp.policy = files_are(lambda folder: os.link(mine, folder / "file"))
    cp.save()
    assert stat.S_IMODE(mine.stat().st_mode) == 0o644


def overwrite(folder):
    (folder / "config.json").chmod(0o644)
    (folder / "config.json").write_text("[]")


def replace(folder):
    (folder / "new").write_text("{}")
    (folder / "new").replace(folder / "config.json")


CHANGES = {
    "overwrite": overwrite,
    "replace": replace,
    "remove": lambda folder: (folder / "config.json").unlink(),
    "touch": lambda folder: os.utime(folder / "config.json", (1, 1)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_load_that_changes_the_save_is_an_error(tmp_path, change):
    cp = make(tmp_path)
    cp.save()
    cp.policy = Files(load=CHANGES[change])
    with pytest.raises(DamagedError, match=r"config\.json has changed.*copy") as caught:
        cp.load()
    assert "'policy'" in str(caught.value)


def test_a_save_that_is_pruned_while_its_files_are_loaded_has_not_changed(tmp_path):
    cp = make(tmp_path)
    save = cp.save().path

    def load(folder):
        read = contents(folder)
        make(tmp_path).save()
        assert read == STATE

    cp.policy = Files(load=load)
    assert cp.load().path == save
    assert not save.exists()


def test_a_load_may_leave_other_files_in_the_folder(tmp_path):
    cp = make(tmp_path)
    save = cp.save().path
    cp.policy = Files(load=lambda folder: (folder / "cache").write_text("x"))
    cp.load()
    assert not (save / "policy.files" / "cache").exists()
    assert loaded(save) == STATE


# What is registered


@pytest.mark.parametrize("functions", [{"load": 1}, {"save": 1, "load": print}])
def test_files_takes_functions(functions):
    with pytest.raises(ValueError, match="=1: pass a function that gets a folder"):
        Files(**functions)


def test_an_object_whose_save_needs_a_path_is_told_of_files(tmp_path):
    class Model:
        def save(self, path):
            pass

        def load(self, path):
            pass

    with pytest.raises(ComponentError, match=r"elementsckpt\.Files\(save="):
        Checkpoint(tmp_path).model = Model()


@pytest.mark.parametrize("write", [False, True])
def test_files_without_a_save_function_need_staging(tmp_path, write):
    cp = Checkpoint(tmp_path, write=write)
    cp.policy, cp.agent = Files(load=lambda folder: None), Box(1)
    with pytest.raises(StateError, match=r"'policy'.*cp\.staging\('policy'\).*keys="):
        cp.save()
    assert os.listdir(tmp_path) == []
    cp.save(keys=["agent"])


@pytest.mark.parametrize("options", [{}, {"dry_run": True}, {"regex": ".*"}])
def test_a_folder_is_not_loaded_as_a_state(tmp_path, options):
    make(tmp_path).save()
    cp = Checkpoint(tmp_path)
    cp.agent, cp.policy = Box(), Box()
    with pytest.raises(MismatchError, match=r"'policy'.*is a folder.*Files\(load="):
        cp.load(**options)
    assert cp.agent.loads == cp.policy.loads == 0


@pytest.mark.parametrize("options", [{}, {"dry_run": True}, {"regex": ".*"}])
def test_a_state_is_not_loaded_as_a_folder(tmp_path, options):
    cp = Checkpoint(tmp_path)
    cp.agent, cp.policy = Box(1), Box(2)
    cp.save()
    cp = make(tmp_path)
    with pytest.raises(MismatchError, match=r"'policy'.*is a state.*Files"):
        cp.load(**options)
    assert cp.agent.loads == cp.policy.loads == 0


def test_the_functional_form_tells_folders_from_states(tmp_path):
    save, load = elementsckpt.checkpoint.save, elementsckpt.checkpoint.load
    save(tmp_path / "x", {"files": Policy(STATE).save, "state": lambda: 1})
    got = []
    with pytest.raises(MismatchError, match="'files'"):
        load(tmp_path / "x", {"state": got.append, "files": got.append})
    with pytest.raises(MismatchError, match="'state'"):
        load(tmp_path / "x", {"state": Policy({}).load})
    assert got == []


# Together with the rest


def test_in_the_background_the_function_runs_in_the_calling_thread(
    tmp_path, monkeypatch
):
    gate = Gate()
    monkeypatch.setattr(disk, "syscall", gate)
    ran = []

    def save(folder):
        ran.append(threading.current_thread())
        (folder / "x").write_text("x")

    cp = Checkpoint(tmp_path, background=True)
    cp.policy = files_are(save)
    report = cp.save()
    try:
        assert ran == [threading.current_thread()]
        assert not report.is_finished
        assert report.bytes_total == 1
        assert not cp.exists()
    finally:
        gate.open()
    assert loaded_keys(cp.wait().path) == {"x": b"x"}


def test_a_file_that_changes_before_it_is_read_is_saved_as_it_is_then(tmp_path):
    folders = []

    def save(folder):
        folders.append(folder)
        (folder / "x").write_text("x")

    cp = Checkpoint(tmp_path)
    cp.policy = files_are(save)
    cp.late = elementsckpt.Saveable(
        save=lambda: (folders[0] / "x").write_text("more"), load=lambda data: None
    )
    path = cp.save().path
    cp.load()
    assert contents(path / "policy.files") == {"x": b"more"}
    assert elementsckpt.info(path).components["policy"].bytes == 4


def test_a_save_that_is_made_again_calls_the_function_with_an_empty_folder(
    tmp_path, caplog
):
    found = []

    def save(folder):
        found.append(list(folder.iterdir()))
        (folder / "x").write_text("x")

    array = np.frombuffer(np.random.default_rng(1).bytes(2**20), np.uint8)
    cp = Checkpoint(tmp_path, compress=None)
    cp.agent, cp.policy = Box({"old": array}), files_are(save)
    flip_block(cp.save().path, 0, keep_time=True)
    # It may not stay in a segment that has its old name, and so it is read.
    cp.agent.state = {"new": array}
    report = cp.save()
    assert "again" in caplog.text
    assert set(map(len, found)) == {0}
    assert contents(report.path / "policy.files") == {"x": b"x"}


def test_what_is_pruned_goes_with_all_that_is_in_it(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("mine")
    cp = make(tmp_path / "ckpt", keep=1)
    first = cp.save().path
    (first / "policy.files" / "notes.txt").write_text("mine")
    (first / "policy.files" / "link").symlink_to(outside)
    (first / "policy.files" / "weights").chmod(0o555)
    second = cp.save().path
    assert {x.name for x in (tmp_path / "ckpt").iterdir()} == {second.name, "latest"}
    assert os.listdir(outside) == ["file"]


def test_a_folder_that_no_component_has_keeps_the_save_folder(tmp_path, caplog):
    cp = make(tmp_path, keep=1)
    first = cp.save().path
    (first / "notes").mkdir()
    (first / "notes" / "x").write_text("mine")
    cp.save()
    assert os.listdir(first) == ["notes"]
    assert "not of the save" in caplog.text


def test_the_manifest_lists_files_in_order_of_their_paths(tmp_path):
    save = make(tmp_path).save().path
    (component,) = [x for x in manifest_of(save)["components"] if x["files"]]
    assert component["files"]["folder"] == "policy.files"
    paths = [path for path, *_ in component["files"]["files"]]
    assert paths == sorted(STATE)
    assert component["trees"] == component["segments"] == component["blocks"] == []

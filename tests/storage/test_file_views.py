"""A function that loads files sees those of the save, whole, and nothing else."""

import contextlib
import errno
import os
import shutil
import stat

import pytest

import elementsckpt
from elementsckpt import (
    Checkpoint,
    DamagedError,
    Files,
    ReadError,
    Saveable,
    SaveNotFoundError,
)
from elementsckpt.storage import disk

from support.boxes import Box
from support.faults import Policy, contents, is_link
from support.folders import unprivileged

STATE = {"config.json": b"{}", "weights/1/a.bin": b"a" * 5000, "empty": b""}


def make(directory=None, state=STATE, before=None, **options):
    """Return a checkpoint of files.

    Args:
      directory: The directory.
      state: Contents of the files, by path.
      before: Is called when all is verified, before the files are loaded.
      options: Of the checkpoint.
    """
    cp = Checkpoint(directory, **options)
    if before is not None:
        cp.first = Saveable(save=lambda: 0, load=lambda _: before())
    else:
        cp.first = Box(0)
    cp.policy = Policy(dict(state))
    return cp


def saved(directory, **options):
    return make(directory, **options).save().path


def names_in(directory):
    return sorted(str(x.relative_to(directory)) for x in directory.rglob("*"))


def times_in(save):
    return {x: x.stat().st_mtime_ns for x in [save, *save.rglob("*")]}


# What others do to the save


def add_file(save):
    (save / "policy.files" / "notes").write_text("mine")


def add_more(save):
    folder = save / "policy.files"
    for below in (folder, folder / "weights", folder / "new"):
        below.mkdir(exist_ok=True)
        (below / ".DS_Store").write_text("")
        (below / "link").symlink_to("/")
        os.mkfifo(below / "pipe")


def remove_a_file(save):
    (save / "policy.files" / "config.json").unlink()


def replace_a_file(save):
    remove_a_file(save)
    (save / "policy.files" / "config.json").write_text("[]")


def empty_the_folder(save):
    shutil.rmtree(save / "policy.files")
    (save / "policy.files").mkdir()


def save_again(save):
    make(save.parent, {"config.json": b"new"}, keep=1).save()
    assert not save.exists()


DEEDS = {
    "add a file": add_file,
    "add more": add_more,
    "remove a file": remove_a_file,
    "replace a file": replace_a_file,
    "empty the folder": empty_the_folder,
    "remove the save": shutil.rmtree,
    "another run saves": save_again,
}
ADDS = ["add a file", "add more"]


@pytest.mark.parametrize("deed", ADDS)
def test_what_is_there_before_is_not_seen(tmp_path, deed):
    save = saved(tmp_path)
    DEEDS[deed](save)
    for load in (make(tmp_path, {}), make(None, {})):
        load.load(save)
        assert load.policy.state == STATE


@pytest.mark.parametrize("deed", DEEDS)
def test_what_is_done_when_all_is_verified_is_not_seen(tmp_path, deed):
    save = saved(tmp_path)
    cp = make(tmp_path, {}, lambda: DEEDS[deed](save))
    report = cp.load()
    assert report.path == save
    assert cp.policy.state == STATE


@pytest.mark.parametrize("deed", DEEDS)
def test_what_is_done_while_the_function_runs_is_not_seen(tmp_path, deed):
    def load(folder):
        DEEDS[deed](save)
        seen.append(contents(folder))

    save, seen = saved(tmp_path), []
    cp = make(tmp_path)
    cp.policy = Files(load=load)
    cp.load()
    assert seen == [STATE]


SAVE_AGAIN = """
import sys
import elementsckpt

cp = elementsckpt.Checkpoint(sys.argv[1], keep=1)
cp.first = elementsckpt.Saveable(save=lambda: 0, load=print)
cp.policy = elementsckpt.Files(
    save=lambda folder: (folder / "config.json").write_text("new"), load=print
)
cp.save()
"""


def test_what_another_process_saves_neither_sweeps_nor_changes_it(tmp_path, forked):
    def load(folder):
        result = forked(SAVE_AGAIN, tmp_path)
        assert result.returncode == 0, result.stderr
        assert not save.exists()
        seen.append(contents(folder))

    save, seen = saved(tmp_path), []
    cp = make(tmp_path)
    cp.policy = Files(load=load)
    assert cp.load().path == save
    assert seen == [STATE]
    assert len(list(tmp_path.iterdir())) == 2


def test_the_functional_form_is_given_the_same(tmp_path):
    save = saved(tmp_path)
    add_more(save)
    policy = Policy({})
    load = {"first": lambda _: shutil.rmtree(save), "policy": policy.load}
    elementsckpt.checkpoint.load(tmp_path, load)
    assert policy.state == STATE


def once(number, action):
    """Return what does something before the n-th link, in the place of `syscall`."""
    left = [number]

    def syscall(call, *args):
        left[0] -= is_link(call)
        if left == [0]:
            left[0] = -1
            action()
        return call(*args)

    return syscall


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_save_that_goes_before_it_is_verified_is_replaced_by_the_next(
    tmp_path, monkeypatch, number
):
    save = saved(tmp_path)
    monkeypatch.setattr(disk, "syscall", once(number, lambda: save_again(save)))
    cp = make(tmp_path, {})
    report = cp.load()
    assert report.path != save
    assert report.fell_back_from is None
    assert cp.policy.state == {"config.json": b"new"}
    assert len(list(tmp_path.iterdir())) == 2


def test_a_save_by_its_path_that_goes_before_it_is_verified_is_not_there(
    tmp_path, monkeypatch
):
    save = saved(tmp_path)
    monkeypatch.setattr(disk, "syscall", once(2, lambda: save_again(save)))
    cp = make(tmp_path, {})
    with pytest.raises(SaveNotFoundError):
        cp.load(save)
    assert cp.policy.loads == cp.first.loads == 0


# What the function does to what it gets


def test_nothing_is_copied_and_nothing_is_left(tmp_path):
    def load(folder):
        assert folder.name == "policy.files"
        for name in STATE:
            assert (folder / name).samefile(save / "policy.files" / name)
            assert not (folder / name).stat().st_mode & stat.S_IWUSR
        folders.append(folder)

    save, folders = saved(tmp_path), []
    before, times = names_in(tmp_path), times_in(save)
    cp = make(tmp_path)
    cp.policy = Files(load=load)
    cp.load()
    assert not folders[0].exists()
    assert names_in(tmp_path) == before
    assert times_in(save) == times


def fail(folder):
    raise RuntimeError("stop")


def leave_more(folder):
    (folder / "cache").write_text("x")
    (folder / "weights" / "1").chmod(0o555)
    (folder / "link").symlink_to(folder.parents[2])


@pytest.mark.parametrize("load", [fail, leave_more])
def test_nothing_is_left_whatever_the_function_does(tmp_path, load):
    saved(tmp_path / "ckpt")
    before = names_in(tmp_path)
    cp = make(tmp_path / "ckpt")
    cp.policy = Files(load=load)
    with contextlib.suppress(RuntimeError):
        cp.load()
    assert names_in(tmp_path) == before
    cp = make(tmp_path / "ckpt", {})
    cp.load()
    assert cp.policy.state == STATE


def test_nothing_is_left_if_another_component_fails(tmp_path):
    saved(tmp_path)
    before = names_in(tmp_path)
    cp = make(tmp_path, {}, lambda: fail(None))
    with pytest.raises(RuntimeError):
        cp.load()
    assert names_in(tmp_path) == before


@pytest.mark.parametrize("change", [remove_a_file, replace_a_file])
def test_what_the_function_removes_is_its_own_and_yet_an_error(tmp_path, change):
    save = saved(tmp_path)
    cp = make(tmp_path)
    cp.policy = Files(load=lambda folder: change(folder.parent))
    with pytest.raises(DamagedError, match=r"config\.json has changed") as caught:
        cp.load()
    assert "is damaged" not in str(caught.value)
    cp = make(tmp_path, {})
    assert cp.load().path == save
    assert cp.policy.state == STATE


def test_a_file_that_the_function_writes_to_is_the_save_s(tmp_path):
    def load(folder):
        (folder / "config.json").chmod(0o644)
        (folder / "config.json").write_text("[]")

    saved(tmp_path)
    cp = make(tmp_path)
    cp.policy = Files(load=load)
    with pytest.raises(DamagedError, match=r"so the save is damaged"):
        cp.load()


def test_a_save_in_a_folder_of_files_loads_from_there(tmp_path):
    inner = make(None, {"inner": b"inner"})
    cp = Checkpoint(tmp_path)
    cp.policy = Files(save=inner.save, load=lambda folder: inner.load(folder))
    cp.save()
    inner.policy.state = None
    cp.load()
    assert inner.policy.state == {"inner": b"inner"}


def test_a_link_to_a_save_gives_links_to_its_files(tmp_path):
    def load(folder):
        shutil.rmtree(save)
        assert contents(folder) == STATE
        assert (tmp_path / "far").resolve() in folder.resolve().parents

    save = saved(tmp_path / "far")
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / save.name).symlink_to(save)
    cp = make()
    cp.policy = Files(load=load)
    cp.load(tmp_path / "near" / save.name)
    assert names_in(tmp_path / "near") == [save.name]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_many_components_take_one_file_descriptor(tmp_path):
    def load(folder):
        numbers = os.listdir("/proc/self/fd")
        opened = [os.path.realpath(f"/proc/self/fd/{number}") for number in numbers]
        counts.append(sum(path.startswith(str(tmp_path)) for path in opened))

    counts = []
    for count in (1, 20):
        cp = Checkpoint(tmp_path / str(count))
        for number in range(count):
            cp_files = Files(save=lambda x: (x / "a").write_text("a"), load=load)
            setattr(cp, f"files{number}", cp_files)
        cp.save()
        cp.load()
    assert len(set(counts)) == 1
    assert len(counts) == 21


@pytest.mark.parametrize("options", [{"mmap": True}, {"mmap": True, "verify": False}])
def test_mapping_gives_the_same_files(tmp_path, options):
    save = saved(tmp_path)
    cp = make(tmp_path, {}, lambda: shutil.rmtree(save))
    cp.load(**options)
    assert cp.policy.state == STATE


def test_looking_changes_nothing_on_the_disk(tmp_path, monkeypatch):
    saved(tmp_path)
    monkeypatch.setattr(disk, "syscall", pytest.fail)
    make(tmp_path).load(dry_run=True)
    elementsckpt.read(tmp_path)
    make(tmp_path).load(keys=["first"])


# Processes that die


DIE = """
import os, sys
import elementsckpt

cp = elementsckpt.Checkpoint(sys.argv[1])
cp.policy = elementsckpt.Files(load=lambda folder: os._exit(7))
cp.load(keys=["policy"])
"""


def test_what_a_dead_process_left_is_removed_by_the_next_save(tmp_path, forked):
    save = saved(tmp_path)
    before = names_in(tmp_path)
    assert forked(DIE, tmp_path).returncode == 7
    left = [x for x in tmp_path.iterdir() if x.name.startswith(".")]
    assert len(left) == 1
    cp = make(tmp_path, {}, keep=None)
    assert cp.load().path == save
    assert cp.policy.state == STATE
    new = cp.save().path
    shutil.rmtree(new)
    (tmp_path / "latest").write_text(save.name)
    assert names_in(tmp_path) == before


@pytest.mark.parametrize("number", [2, 3, 7, 10])
def test_death_at_any_call_leaves_what_the_next_save_removes(tmp_path, forked, number):
    script = f"""
import os, sys
from elementsckpt.storage import disk

left = [{number}]

def syscall(call, *args):
    left[0] -= 1
    return call(*args) if left[0] else os._exit(7)

disk.syscall = syscall
import elementsckpt

cp = elementsckpt.Checkpoint(sys.argv[1])
cp.policy = elementsckpt.Files(load=lambda folder: None)
cp.load(keys=["policy"])
"""
    save = saved(tmp_path)
    assert forked(script, tmp_path).returncode == 7
    cp = make(tmp_path, {}, keep=1)
    assert cp.load().path == save
    new = cp.save().path
    assert {x.name for x in tmp_path.iterdir()} == {new.name, "latest"}


# Where no links can be made


def refuse_links(code):
    def syscall(call, *args):
        if is_link(call):
            raise OSError(code, os.strerror(code))
        return call(*args)

    return syscall


def refuse_all(code):
    def syscall(call, *args):
        raise OSError(code, os.strerror(code))

    return syscall


REFUSALS = {
    "rights": refuse_all(errno.EACCES),
    "read-only": refuse_all(errno.EROFS),
    "full": refuse_all(errno.ENOSPC),
    "no links": refuse_links(errno.EOPNOTSUPP),
    "not mine": refuse_links(errno.EPERM),
    "too many": refuse_links(errno.EMLINK),
}


@pytest.fixture(params=REFUSALS)
def no_links(request, monkeypatch):
    """Return what makes links impossible from then on."""
    return lambda: monkeypatch.setattr(disk, "syscall", REFUSALS[request.param])


@pytest.fixture
def no_right(monkeypatch):
    """Return what makes links impossible from then on, in one way."""
    return lambda: monkeypatch.setattr(disk, "syscall", REFUSALS["not mine"])


def test_without_links_the_function_gets_the_folder_of_the_save(tmp_path, no_links):
    save, folders = saved(tmp_path), []
    before = names_in(tmp_path)
    no_links()
    cp = make(tmp_path, {})
    cp.load()
    assert cp.policy.state == STATE
    cp.policy = Files(load=folders.append)
    cp.load()
    assert folders == [save / "policy.files"]
    assert names_in(tmp_path) == before


def test_without_links_what_is_there_before_is_refused(tmp_path, no_links):
    save = saved(tmp_path)
    add_file(save)
    no_links()
    cp = make(tmp_path, {})
    with pytest.raises(
        ReadError, match=r"policy\.files/notes is not of the save.* Rem"
    ):
        cp.load()
    assert cp.first.loads == cp.policy.loads == 0


WITHOUT_LINKS = {
    "add a file": (ReadError, r"notes is not of the save"),
    "add more": (ReadError, r"\.DS_Store is not of the save"),
    "remove a file": (DamagedError, r"config\.json has changed.*save is damaged"),
    "replace a file": (DamagedError, r"config\.json has changed.*save is damaged"),
    "empty the folder": (DamagedError, r"config\.json has changed.*save is damaged"),
    "remove the save": (SaveNotFoundError, r"was removed while 'policy'.*Load again"),
    "another run saves": (SaveNotFoundError, r"was removed while 'policy'"),
}


@pytest.mark.parametrize("deed", DEEDS)
def test_without_links_what_is_done_when_all_is_verified_is_an_error(
    tmp_path, no_right, deed
):
    save = saved(tmp_path)
    cp = make(tmp_path, {}, lambda: DEEDS[deed](save))
    no_right()
    error, message = WITHOUT_LINKS[deed]
    with pytest.raises(error, match=message):
        cp.load()
    assert cp.policy.loads == 0


@pytest.mark.parametrize("deed", DEEDS)
def test_without_links_what_is_done_while_the_function_runs_is_an_error(
    tmp_path, no_right, deed
):
    save = saved(tmp_path)
    cp = make(tmp_path)
    cp.policy = Files(load=lambda folder: DEEDS[deed](save))
    no_right()
    error, message = WITHOUT_LINKS[deed]
    with pytest.raises(error, match=message):
        cp.load()


def test_where_nothing_may_be_written_files_are_loaded_all_the_same(tmp_path):
    with unprivileged() as path:
        save = saved(path / "ckpt")
        (path / "ckpt").chmod(0o555)
        cp = make(path / "ckpt", {})
        cp.load()
        assert cp.policy.state == STATE
        add_file(save)
        with pytest.raises(ReadError, match="Permission denied"):
            cp.load()
        (path / "ckpt").chmod(0o755)
        cp.load()
        assert cp.policy.state == STATE

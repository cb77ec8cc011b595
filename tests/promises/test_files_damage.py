"""Files that components wrote, damaged or forged: an error that names them."""

import errno
import os
import shutil
import tracemalloc

import pytest

import elementsckpt
from elementsckpt import Checkpoint, CheckpointError, DamagedError, Files
from elementsckpt.storage import disk

from support.boxes import Box
from support.faults import Policy, is_link
from support.folders import flip, forge, manifest_of


def state(value):
    """Return contents of files, of which no two values have one in common."""
    return {"a": b"%d" % value * 3000, "x/y/b": b"b%d" % value, "x/c": b"c%d" % value}


def make(directory=None, value=0, **options):
    cp = Checkpoint(directory, **options)
    cp.policy, cp.agent = Policy(state(value)), Box(value)
    return cp


# Damage


def truncate(path):
    os.truncate(path, path.stat().st_size - 1)


def extend(path):
    with path.open("ab") as file:
        file.write(b"x")


def swap_for_folder(path):
    path.unlink()
    path.mkdir()


def swap_for_pipe(path):
    path.unlink()
    os.mkfifo(path)


def swap_for_link(path):
    """Replace a file or a folder by a link to an identical one."""
    path.rename(path.with_name("moved"))
    path.symlink_to(path.with_name("moved"))


FILE_DAMAGES = {
    "flip": flip,
    "flip without a trace": lambda path: flip(path, keep_time=True),
    "truncate": truncate,
    "empty": lambda path: os.truncate(path, 0),
    "extend": extend,
    "remove": lambda path: path.unlink(),
    "folder": swap_for_folder,
    "pipe": swap_for_pipe,
    "link": swap_for_link,
}
DAMAGES = [
    *((name, f"policy.files/{file}") for name in FILE_DAMAGES for file in state(0)),
    *(("link", folder) for folder in ("policy.files/x/y", "policy.files/x")),
    *((name, "policy.files") for name in ("link", "remove all", "file")),
]


def damage(save, name, path):
    if name == "remove all":
        shutil.rmtree(save / path)
    elif name == "file":
        shutil.rmtree(save / path)
        (save / path).write_text("file")
    else:
        FILE_DAMAGES[name](save / path)


@pytest.mark.parametrize(("name", "path"), DAMAGES)
def test_damage_of_any_file_is_an_error_that_names_it(tmp_path, name, path):
    save = make(tmp_path).save().path
    damage(save, name, path)
    for load in (
        lambda: make(tmp_path, 9).load(),
        lambda: make(tmp_path, 9).load(save, dry_run=True),
        lambda: elementsckpt.read(save),
    ):
        with pytest.raises(DamagedError) as caught:
            load()
        assert str(save / path) in str(caught.value)


@pytest.mark.parametrize(("name", "path"), DAMAGES)
def test_a_directory_falls_back_to_the_save_before(tmp_path, name, path, warnings):
    first, second = (make(tmp_path, n, keep=None).save().path for n in (1, 2))
    damage(second, name, path)
    cp = make(tmp_path, 9)
    report = cp.load()
    assert (report.path, report.fell_back_from) == (first, second)
    assert (cp.policy.state, cp.agent.state) == (state(1), 1)
    assert cp.policy.loads == 1
    assert str(second / path) in warnings.text


def test_saves_that_share_a_damaged_file_are_all_damaged(tmp_path):
    paths = [make(tmp_path, n, keep=None).save().path for n in (1, 2, 2)]
    flip(paths[2] / "policy.files" / "a")
    cp = make(tmp_path, 9)
    report = cp.load()
    assert (report.path, report.fell_back_from) == (paths[0], paths[2])
    with pytest.raises(DamagedError, match=r"policy\.files/a"):
        cp.load(paths[1])


@pytest.mark.parametrize("name", ["removed", "a file"])
def test_an_empty_folder_must_be_there(tmp_path, name):
    cp = make(tmp_path)
    cp.policy.state = {}
    folder = cp.save().path / "policy.files"
    folder.rmdir()
    if name == "a file":
        folder.write_text("")
    with pytest.raises(DamagedError, match=r"policy\.files"):
        cp.load()


def test_other_files_in_the_folder_are_ignored(tmp_path):
    cp = make(tmp_path)
    folder = cp.save().path / "policy.files"
    (folder / "link").symlink_to("/")
    os.mkfifo(folder / "x" / "pipe")
    assert len(cp.load(dry_run=True).loaded) == len(state(0)) + 1


def test_without_verifying_only_sizes_are_checked(tmp_path):
    cp = make(tmp_path)
    save = cp.save().path
    options = {"mmap": True, "verify": False}
    flip(save / "policy.files" / "a")
    cp.load(**options)
    assert cp.policy.state != state(0)
    truncate(save / "policy.files" / "x" / "c")
    with pytest.raises(DamagedError, match="x/c"):
        cp.load(**options)


def test_mapping_verifies_files(tmp_path):
    cp = make(tmp_path)
    flip(cp.save().path / "policy.files" / "a")
    with pytest.raises(DamagedError, match=r"policy\.files/a"):
        cp.load(mmap=True)


def test_what_cannot_be_opened_is_no_damage(tmp_path, monkeypatch):
    real = os.open

    def refuse(path, *args, **options):
        if str(path).endswith("policy.files/a"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, *args, **options)

    for value in (1, 2):
        make(tmp_path, value, keep=None).save()
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(elementsckpt.ReadError, match="Permission denied"):
        make(tmp_path, 9).load()


def test_a_save_that_a_component_made_is_no_substitute_for_the_one_it_is_in(tmp_path):
    cp = make(tmp_path)
    cp.policy = Files(save=lambda folder: make(None, 7).save(folder), load=print)
    save = cp.save().path
    inner = save / "policy.files"
    flip(save / "manifest.json")
    for look in (make(None, 9).load, elementsckpt.info, elementsckpt.read):
        with pytest.raises(DamagedError, match=rf"{save.name}/manifest\.json"):
            look(save)
    assert elementsckpt.info(inner).path == inner


# Forged manifests


def entries_of(content):
    (found,) = (x["files"] for x in content["components"] if x["key"] == "policy")
    return found


def add_file(path):
    def change(content):
        entries_of(content)["files"].append([path, 6, "0" * 32])

    return change


def rename(name):
    def change(content):
        entries_of(content)["folder"] = name

    return change


def component(field, value):
    def change(content):
        (found,) = (x for x in content["components"] if x["key"] == "policy")
        found[field] = value

    return change


def set_size(size):
    def change(content):
        entries_of(content)["files"][0][1] = size

    return change


PATHS = {
    "parent": "../secret",
    "parents": "x/../../secret",
    "absolute": "/secret",
    "current": "./a",
    "nothing": "",
    "no name": "x//c",
    "folder": "x/",
    "NUL": "a\0b",
    "twice": "a",
}
FORGED = {
    **{f"path: {name}": add_file(path) for name, path in PATHS.items()},
    "folder: parent": rename(".."),
    "folder: other": rename("../other/policy.files"),
    "folder: absolute": rename("/policy.files"),
    "folder: ending": rename("policy"),
    "folder: hidden": rename(".files"),
    "folder: NUL": rename("a\0.files"),
    "folder: empty": rename(""),
    "size: negative": set_size(-1),
    "size: float": set_size(1.5),
    "with a tree": component("trees", [{"root": 0, "nodes": [], "leaves": []}]),
    "with shards": component("shards", 1),
    "with a segment": component("segments", [["a-000001-00000.safetensors", 9, 9, ""]]),
    "neither": component("files", None),
    "no files": lambda content: entries_of(content).pop("files"),
    "digest": lambda content: entries_of(content)["files"][0].__setitem__(2, "x"),
}


@pytest.mark.parametrize("change", FORGED)
def test_promise_8_hostile_lists_of_files_are_refused(tmp_path, change, monkeypatch):
    save = make(tmp_path / "ckpt").save().path
    for path in (save / "secret", save.parent / "secret", tmp_path / "secret"):
        path.write_text("secret")
    forge(save, FORGED[change])
    opened = []
    real = os.open

    def record(path, *args, **options):
        opened.append(os.fspath(path))
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", record)
    cp = make(None, 9)
    with pytest.raises(DamagedError, match=r"manifest\.json"):
        cp.load(save)
    assert cp.policy.loads == 0
    assert set(opened) <= {str(save / "manifest.json")}


@pytest.mark.parametrize("size", [5999 * 10**9, 1 << 61, 2999, 0])
def test_a_size_that_is_not_the_file_s_is_refused_before_it_is_read(tmp_path, size):
    save = make(tmp_path).save().path
    forge(save, set_size(size))
    tracemalloc.start()
    with pytest.raises(DamagedError, match=rf"3000 bytes, expected {size}"):
        make(None, 9).load(save)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize("name", ["a/b", "x", "missing", "n" * 300, "d/" * 3000 + "e"])
def test_a_path_that_is_no_file_is_refused(tmp_path, name):
    save = make(tmp_path).save().path
    forge(save, add_file(name))
    with pytest.raises(CheckpointError):
        make(None, 9).load(save)


def test_a_file_is_read_piece_by_piece(tmp_path):
    def save(folder):
        with (folder / "large").open("wb") as file:
            file.truncate(64 << 20)

    cp = Checkpoint(tmp_path, keep=2)
    cp.policy = Files(save=save, load=lambda folder: None)
    tracemalloc.start()
    cp.save()
    cp.save()
    cp.load()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20


# Damage is not handed on


@pytest.mark.parametrize("name", [*FILE_DAMAGES])
@pytest.mark.parametrize("background", [False, True])
def test_a_damaged_file_is_not_linked(tmp_path, name, background, warnings):
    cp = make(tmp_path, keep=None, background=background)
    first = cp.save().path
    cp.wait()
    FILE_DAMAGES[name](first / "policy.files" / "a")
    second = cp.save()
    second = cp.wait() or second
    assert "Not reused, but written again" in warnings.text
    assert str(first / "policy.files" / "a") in warnings.text
    again = make(None, 9)
    again.load(second.path)
    assert again.policy.state == state(0)
    # The others are.
    names = [path for path, *_ in entries_of(manifest_of(second.path))["files"]]
    linked = [
        x for x in names if (second.path / "policy.files" / x).stat().st_nlink > 1
    ]
    assert linked == ["x/c", "x/y/b"]
    assert set(os.listdir(second.path / "policy.files")) == {"a", "x"}


def test_an_earlier_folder_that_is_gone_is_written_again(tmp_path, warnings):
    cp = make(tmp_path, keep=None)
    shutil.rmtree(cp.save().path / "policy.files")
    second = cp.save().path
    again = make(None, 9)
    again.load(second)
    assert again.policy.state == state(0)
    assert "Not reused" in warnings.text


def test_a_file_that_is_replaced_while_it_is_linked_is_not_linked(
    tmp_path, monkeypatch
):
    cp = make(tmp_path, keep=None)
    old = cp.save().path / "policy.files" / "a"
    real = disk.syscall

    def replace_before(call, *args):
        if is_link(call) and args[0] == old:
            old.unlink()
            old.write_bytes(b"x" * 3000)
        return real(call, *args)

    monkeypatch.setattr(disk, "syscall", replace_before)
    second = cp.save().path
    assert os.listdir(old.parent) != []
    again = make(None, 9)
    again.load(second)
    assert again.policy.state == state(0)
    assert set(os.listdir(second / "policy.files")) == {"a", "x"}


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_where_there_are_no_modes_files_are_saved_all_the_same(
    tmp_path, monkeypatch, code
):
    real = disk.syscall

    def refuse(call, *args):
        if call is os.fchmod:
            raise OSError(code, os.strerror(code))
        return real(call, *args)

    monkeypatch.setattr(disk, "syscall", refuse)
    cp = make(tmp_path)
    cp.save()
    cp.load()
    assert cp.policy.state == state(0)

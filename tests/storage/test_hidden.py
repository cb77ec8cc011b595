"""What is made under a hidden name appears whole, and leaves nothing in the end."""

import os
import signal
import subprocess
import sys

import pytest

import elementsckpt
from elementsckpt.storage import descriptors, disk, hidden, transfers

from support.boxes import environment

# Makes something, and dies when it is half written.
DIES = """
import os, pathlib, signal, sys
from elementsckpt.storage import hidden, transfers
kind, path = sys.argv[1], pathlib.Path(sys.argv[2])
make = transfers.new_directory if kind == "directory" else hidden.new_file
with make(path) as new:
    if kind == "directory":
        (new / "save").mkdir()
        (new / "save" / "segment").write_bytes(b"half")
    else:
        new.write(b"half")
        new.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def die(kind, path):
    command = [sys.executable, "-c", DIES, kind, str(path)]
    assert subprocess.run(command, env=environment()).returncode == -signal.SIGKILL


@pytest.mark.parametrize("is_there", [False, True])
def test_a_directory_that_a_killed_process_left_is_removed_by_the_next(
    tmp_path, is_there
):
    path = tmp_path / "run"
    if is_there:
        path.mkdir()
    die("directory", path)
    left = [*tmp_path.rglob("*.part")]
    assert [x.name.startswith(".run.") for x in left] == [True]
    with transfers.new_directory(path) as new:
        (new / "whole").mkdir()
    assert sorted(x.name for x in tmp_path.rglob("*")) == ["run", "whole"]


def test_a_file_that_a_killed_process_left_is_removed_by_the_next(tmp_path):
    path = tmp_path / "walker.npz"
    die("file", path)
    assert not path.exists()
    assert len([*tmp_path.iterdir()]) == 1
    hidden.write_file(path, b"whole")
    assert [x.name for x in tmp_path.iterdir()] == ["walker.npz"]
    assert path.read_bytes() == b"whole"


def test_what_another_process_still_makes_stays(tmp_path):
    path = tmp_path / "run"
    with hidden.new_file(path) as one:
        hidden.sweep(path)
        one.write(b"whole")
    assert path.read_bytes() == b"whole"
    with hidden.new_folder(tmp_path / "folder") as folder:
        hidden.sweep(tmp_path / "folder")
        assert folder.is_dir()
    assert not folder.exists()


def test_where_there_are_no_locks_nothing_is_removed(tmp_path, monkeypatch):
    path = tmp_path / "walker.npz"
    die("file", path)
    monkeypatch.setattr(descriptors, "lock", lambda fd: None)
    hidden.write_file(path, b"whole")
    assert len([*tmp_path.iterdir()]) == 2


@pytest.mark.parametrize(
    "name",
    [
        ".run.elementsckpt.part",
        ".run.0123abcd",
        ".run.0123abcd.part",  # Of another program, which downloads.
        ".other.0123abcd.elementsckpt.part",
        "run.0123abcd.elementsckpt.part",
    ],
)
def test_what_only_looks_like_it_stays(tmp_path, name):
    (tmp_path / name).write_bytes(b"mine")
    hidden.write_file(tmp_path / "run", b"whole")
    assert (tmp_path / name).read_bytes() == b"mine"


def test_a_sweep_follows_no_links(tmp_path):
    victim = tmp_path / "victim"
    (victim / "inner").mkdir(parents=True)
    (victim / "inner" / "file").write_bytes(b"mine")
    links = [tmp_path / f".run.0123abc{n}.elementsckpt.part" for n in range(2)]
    links[0].symlink_to(victim)
    links[1].symlink_to(victim / "inner" / "file")
    hidden.write_file(tmp_path / "run", b"whole")
    assert (victim / "inner" / "file").read_bytes() == b"mine"
    assert all(map(os.path.islink, links))
    for link in links:
        hidden.remove(link)
        assert not os.path.lexists(link)
    assert (victim / "inner" / "file").read_bytes() == b"mine"


def test_a_folder_that_is_there_is_not_taken_over(tmp_path, monkeypatch):
    numbers = [b"new!", bytes(4)]
    taken = tmp_path / ".run.00000000.elementsckpt.part"

    def urandom(count):
        taken.mkdir(exist_ok=True)  # After the sweep.
        (taken / "file").write_bytes(b"mine")
        return numbers.pop()

    monkeypatch.setattr(os, "urandom", urandom)
    with hidden.new_folder(tmp_path / "run") as new:
        assert new != taken
    assert (taken / "file").read_bytes() == b"mine"


@pytest.mark.parametrize("error", [elementsckpt.WriteError("no"), KeyboardInterrupt()])
def test_a_new_file_that_is_not_durable_does_not_stay(tmp_path, monkeypatch, error):
    def refuse(path):
        raise error

    monkeypatch.setattr(disk, "sync_folder", refuse)
    with pytest.raises(type(error)), hidden.new_file(tmp_path / "run") as stream:
        stream.write(b"whole")
    assert not [*tmp_path.iterdir()]


def test_what_a_sweep_takes_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    real, seen = descriptors.lock, []

    def lock(fd):
        if not seen:
            seen.append(fd)
            for left in tmp_path.iterdir():
                os.unlink(left)
        return real(fd)

    monkeypatch.setattr(descriptors, "lock", lock)
    with hidden.new_file(tmp_path / "run") as stream:
        stream.write(b"whole")
    assert [x.name for x in tmp_path.iterdir()] == ["run"]


def test_export_and_convert_after_a_death(tmp_path):
    cp = elementsckpt.Checkpoint(tmp_path / "run", fsync=False)
    cp.agent = elementsckpt.Value({"w": 1.0})
    cp.save()
    die("directory", tmp_path / "new")
    die("file", tmp_path / "w.npz")
    elementsckpt.convert(tmp_path / "run", tmp_path / "new")
    elementsckpt.export(tmp_path / "run", tmp_path / "w.npz")
    assert sorted(x.name for x in tmp_path.iterdir()) == ["new", "run", "w.npz"]

"""`pin` and `unpin` change a save's pin: at once or not at all, and nothing else."""

import os
import subprocess
import sys

import pytest

import elementsckpt
from elementsckpt import Keep, SaveNotFoundError, WriteError
from elementsckpt.storage import disk

from support.boxes import environment, load_agent, make, make_boxes
from support.folders import manifest_of


@pytest.fixture
def run(tmp_path):
    cp = make(tmp_path / "run", {"x": 1}, keep=None, fsync=False)
    for _ in range(3):
        cp.save(metrics={"return": 1.0}, metadata={"lr": 3})
    return tmp_path / "run"


def without_pin(save):
    fields = manifest_of(save)
    for name in ("pin", "head_digest", "digest"):
        fields.pop(name)
    return fields


def test_a_pin_is_set_replaced_and_taken(run):
    first = elementsckpt.saves(run)[0].path
    before, time = without_pin(first), (first / "manifest.json").stat().st_mtime_ns
    assert elementsckpt.pin(first, "paper").pin == "paper"
    assert elementsckpt.info(f"{run}@pin:paper").path == first
    assert elementsckpt.pin(f"{run}@pin:paper", "thesis").pin == "thesis"
    assert without_pin(first) == before
    assert (first / "manifest.json").stat().st_mtime_ns == time
    assert load_agent(first) == {"x": 1}
    assert elementsckpt.verify(run).is_good
    elementsckpt.prune(run, Keep(latest=1))
    assert [x.pin for x in elementsckpt.saves(run)] == ["thesis", None]
    assert elementsckpt.unpin(f"{run}@pin:thesis").pin is None
    assert elementsckpt.unpin(first).pin is None
    elementsckpt.prune(run, Keep(latest=1))
    assert len(elementsckpt.saves(run)) == 1


def test_a_name_that_another_save_has_is_refused(run):
    first, second, _ = (info.path for info in elementsckpt.saves(run))
    elementsckpt.pin(first, "paper")
    with pytest.raises(ValueError, match=f"{first} is pinned as 'paper' already"):
        elementsckpt.pin(second, "paper")
    assert [x.pin for x in elementsckpt.saves(run)] == ["paper", None, None]
    assert elementsckpt.pin(first, "paper").pin == "paper"  # It has it itself.
    elementsckpt.unpin(first)
    assert elementsckpt.pin(second, "paper").path == second


def test_a_directory_means_its_newest_save(run):
    assert elementsckpt.pin(run, "last").sequence == 3


@pytest.mark.parametrize("name", ["", "a/b", "best", "latest", 3, None])
def test_a_name_that_is_not_valid_is_refused(run, name):
    with pytest.raises(ValueError, match="name"):
        elementsckpt.pin(run, name)
    with pytest.raises(SaveNotFoundError):
        elementsckpt.pin(run / "none", "paper")


@pytest.mark.parametrize("call", ["open", "pwrite", "_set_time", "fsync", "replace"])
def test_a_disk_that_refuses_leaves_the_save_as_it_was(run, inject, call):
    newest = elementsckpt.saves(run)[-1].path
    before = sorted((x.name, x.read_bytes()) for x in newest.iterdir())

    def refuse(function, *args):
        name = args[0].__name__ if callable(args[0]) else function.__name__
        if name == call:
            raise OSError(28, "No space left on device")
        return function(*args)

    inject(refuse)
    with pytest.raises(WriteError):
        elementsckpt.pin(newest, "paper")
    assert sorted((x.name, x.read_bytes()) for x in newest.iterdir()) == before


SCRIPT = """
import os, sys, elementsckpt
from elementsckpt.storage import disk
def end(function, *args):
    if function is os.replace:
        os._exit(0)
    return function(*args)
disk.syscall = end
elementsckpt.pin(sys.argv[1], "paper")
"""


def test_what_a_dead_process_left_is_replaced_and_goes_with_the_save(run):
    newest = elementsckpt.saves(run)[-1].path
    script = [sys.executable, "-c", SCRIPT, newest]
    subprocess.run(script, env=environment(), check=True)
    assert (newest / ".manifest.json").exists()
    assert elementsckpt.info(newest).pin is None
    assert load_agent(newest) == {"x": 1}
    make_boxes(run, keep=None, agent=1).save()  # Sweeps what is not a save.
    assert elementsckpt.info(newest).path == newest
    assert elementsckpt.pin(newest, "paper").pin == "paper"
    assert not (newest / ".manifest.json").exists()
    subprocess.run([*script[:3], newest], env=environment(), check=True)
    elementsckpt.delete(newest)
    assert not os.path.lexists(newest)


def test_of_two_processes_one_is_refused(run, monkeypatch):
    newest = elementsckpt.saves(run)[-1].path

    def pin_too(function, *args):
        if function is os.replace:
            with monkeypatch.context() as patch:
                patch.setattr(disk, "syscall", before)
                with pytest.raises(WriteError, match="Another process is changing"):
                    elementsckpt.pin(newest, "other")
        return function(*args)

    before = disk.syscall
    monkeypatch.setattr(disk, "syscall", pin_too)
    assert elementsckpt.pin(newest, "paper").pin == "paper"

"""There is no save, one already, or no such component in one."""

from __future__ import annotations

import os

import numpy as np

import elementsckpt
from elementsckpt import (
    Checkpoint,
    Counter,
    Keep,
    MismatchError,
    MissingKeyError,
    Saveable,
    SaveExistsError,
    SaveNotFoundError,
)
from elementsckpt.storage import descriptors, disk

from support.boxes import Box, make

from .table import CHECK, TAKEN, says

# There is no save


@says(SaveNotFoundError, "There is no save in {tmp}: the folder is empty.", CHECK)
def an_empty_directory(tmp, _):
    cp = make(tmp)
    yield
    cp.load()


@says(
    SaveNotFoundError,
    "There is no save in {tmp}/typo: that path was not found ({tmp} is there and holds "
    "mine).",
    CHECK,
)
def a_path_that_is_not_there(tmp, _):
    (tmp / "mine").touch()
    yield
    elementsckpt.read(tmp / "typo")


@says(
    SaveNotFoundError, "There is no save in {tmp}: the folder holds mine, yours.", CHECK
)
def a_folder_of_something_else(tmp, _):
    (tmp / "mine").touch()
    (tmp / "yours").mkdir()
    yield
    elementsckpt.info(tmp)


@says(
    SaveNotFoundError,
    "There is no save in {tmp}/mine: it is a file, and a save is a folder.",
    CHECK,
)
def a_file(tmp, _):
    (tmp / "mine").touch()
    yield
    elementsckpt.load_pytree(tmp / "mine", 0)


@says(
    SaveNotFoundError,
    "There is no save in {tmp}/save: it is a save that was never finished.",
    CHECK,
)
def a_save_that_a_crash_interrupted(tmp, _):
    path = make(state=1).save(tmp / "save").path
    (path / "manifest.json").rename(path / ".manifest.json")
    yield
    make().load(path)


@says(
    SaveNotFoundError,
    "There is no save of step 5 in {tmp}. Choose one of these steps: 1, 2.",
)
def a_step_that_was_not_saved(tmp, _):
    cp = make(tmp, 0, keep=None, step=Counter())
    for cp._step.value in (1, 2):
        cp.save()
    yield
    cp.load(step=5)


@says(
    SaveNotFoundError,
    "There is no save of step 5 in {tmp}. No save there has a step: pass its path "
    "instead.",
)
def a_step_where_there_are_none(tmp, _):
    cp = make(tmp, 0)
    cp.save()
    yield
    cp.delete(step=5)


@says(
    SaveNotFoundError,
    "No save in {tmp} has the name or the pin 'god'; near it are 'good', 'latest', "
    "'best', …. There is no save in {tmp}/god: that path was not found ({tmp} is there "
    "and holds …).",
    CHECK,
)
def a_pin_that_is_not_there(tmp, monkeypatch):
    monkeypatch.chdir(tmp)
    cp = make(tmp, 0)
    cp.save(pin="good")
    yield
    cp.load("god")


@says(
    SaveNotFoundError,
    "No save in {tmp} has a finite metric to be the best by. Load the newest with "
    "load(), or give metrics= to save().",
)
def the_best_where_nothing_was_measured(tmp, _):
    cp = make(tmp, 0, keep=Keep(metric="return"))
    cp.save()
    yield
    cp.load("best")


# There is something already


@says(SaveExistsError, "Cannot save to {tmp}/save: it holds a save already.", TAKEN)
def a_path_with_a_save(tmp, _):
    cp = make(state=1)
    cp.save(tmp / "save")
    yield
    cp.save(tmp / "save")


@says(SaveExistsError, "Cannot save to {tmp}/…: it holds a save already.", TAKEN)
def a_path_of_a_save_that_this_user_may_not_remove(tmp, monkeypatch):
    cp = make(tmp, 1, keep=None)
    path = cp.save().path
    cp.save()
    yield
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    assert cp.delete(path) == []
    cp.save(path)


@says(SaveExistsError, "Cannot save to {tmp}: it holds mine.", TAKEN)
def a_folder_with_files(tmp, _):
    (tmp / "mine").touch()
    yield
    elementsckpt.save_pytree(tmp, 1)


@says(SaveExistsError, "Cannot save to {tmp}/mine: it is a file.", TAKEN)
def a_file_where_to_save(tmp, _):
    (tmp / "mine").touch()
    yield
    elementsckpt.save_pytree(tmp / "mine", 1)


BUSY = (
    "Cannot save to {tmp}/save: another save is being written there. Choose another "
    "path, or wait until it is finished."
)


@says(SaveExistsError, BUSY)
def a_path_to_which_is_being_saved(tmp, _):
    inner = make(state=1)
    outer = Checkpoint()
    outer.nested = Saveable(save=lambda: inner.save(tmp / "save"), load=print)
    yield
    outer.save(tmp / "save")


@says(SaveExistsError, BUSY)
def a_path_to_which_somebody_else_is_faster_to_save(tmp, monkeypatch):
    monkeypatch.setattr(descriptors, "lock", lambda _: False)
    yield
    make(state=1).save(tmp / "save")


def as_it_begins(monkeypatch, path, do):
    """Do something just before the draft of a save to a path is made."""

    def syscall(call, *args):
        if call is os.open and args[0] == path / ".manifest.json":
            monkeypatch.setattr(disk, "syscall", lambda call, *args: call(*args))
            do()
        return call(*args)

    monkeypatch.setattr(disk, "syscall", syscall)


@says(SaveExistsError, "Cannot save to {tmp}/save: it holds a save already.", TAKEN)
def a_path_to_which_somebody_else_has_saved_meanwhile(tmp, monkeypatch):
    path = tmp / "save"
    yield
    as_it_begins(monkeypatch, path, lambda: make(state=1).save(path))
    make(state=2).save(path)


@says(SaveExistsError, BUSY)
def a_path_to_which_two_begin_to_save_at_once(tmp, monkeypatch):
    draft = tmp / "save" / ".manifest.json"
    yield
    as_it_begins(monkeypatch, draft.parent, draft.touch)
    make(state=1).save(draft.parent)


# There is no such component


@says(
    MissingKeyError,
    "{tmp}/… has no 'critic', 'replay'. It has 'agent'. Nothing was loaded. To go on "
    "without what it lacks, call load(keys=['agent']); the next save() has all "
    "that is registered.",
)
def keys_that_the_save_lacks(tmp, _):
    make(tmp, 1).save()
    cp = make(tmp)
    cp.critic, cp.replay = Box(), Box()
    yield
    cp.load()


@says(
    MissingKeyError,
    "{tmp}/… has no 'critic'. It has 'agent'. Nothing was loaded. Load what it has "
    "under another key with load(keys={'critic': 'agent'}), from keys here to those in "
    "the save.",
)
def a_key_that_the_save_has_under_another_name(tmp, _):
    make(tmp, {"w": 1, "b": 2}).save()
    cp = Checkpoint(tmp)
    cp.critic = Box({"w": 1, "b": 2})
    yield
    cp.load()


@says(
    MissingKeyError,
    "Not registered: 'agnet'. Registered are: 'agent'. Register the rest first, or "
    "leave it out of keys=.",
)
def a_key_that_is_not_registered(tmp, _):
    cp = make(tmp, 1)
    yield
    cp.save(keys=["agnet"])


# What is converted


@says(
    MissingKeyError,
    "{tmp}/file.npz has no 'agent'. It has 'npz': pass that in keys=, or leave keys= "
    "out.",
)
def a_file_without_the_component(tmp, _):
    np.savez(tmp / "file.npz", a=np.ones(3))
    yield
    elementsckpt.convert(tmp / "file.npz", tmp / "new", keys=["agent"])


@says(
    MismatchError,
    "regex='b' matches no array of {tmp}/file.npz. The nearest names are 'a'. Correct "
    "it; nothing was written.",
)
def a_file_without_the_array(tmp, _):
    np.savez(tmp / "file.npz", a=np.ones(3))
    yield
    elementsckpt.convert(tmp / "file.npz", tmp / "new", regex="b")


@says(
    SaveExistsError,
    "{tmp} is not an empty folder. Choose another path, or remove it first; it was not "
    "touched.",
)
def a_directory_that_holds_something(tmp, _):
    make(tmp / "run", 1).save()
    yield
    elementsckpt.convert(tmp / "run", tmp)

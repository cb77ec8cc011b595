"""What looks at saves, or tidies them up, finds nothing or may not do it."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import numpy as np

import elementsckpt
from elementsckpt import (
    DamagedError,
    Keep,
    MismatchError,
    MissingKeyError,
    ReadError,
    SaveExistsError,
    SaveNotFoundError,
    Value,
    WriteError,
)
from elementsckpt.cli import main
from elementsckpt.cli.screen import Screen
from elementsckpt.inspection.doctor import examine
from elementsckpt.inspection.values import read_leaf
from elementsckpt.storage import descriptors
from elementsckpt.storage.descriptors import lock
from elementsckpt.storage.files import File

from support.boxes import make
from support.folders import flip_block

from .table import says


def saved(tmp, *, keep=None, **metrics):
    """Make two saves of an agent, of steps 0 and 10."""
    steps = iter([0, 10])
    cp = make(tmp / "run", {"w": np.ones(9)}, keep=keep, step=lambda: next(steps))
    for _ in range(2):
        cp.save(metrics=metrics)
    return tmp / "run"


def written_by_elements(tmp):
    import elements

    cp = elements.Checkpoint(str(tmp / "run"))
    cp.agent = Value({"w": 1})
    cp.save()
    return tmp / "run"


# Addresses


@says(
    SaveNotFoundError,
    "There is no save {tmp}@latest: the folder is empty. Check the path.",
)
def an_address_where_there_is_no_save(tmp, _):
    yield
    elementsckpt.info(f"{tmp}@latest")


@says(
    SaveNotFoundError,
    "There is no save {tmp}/run@latest~5: 1 before {tmp}/run/… are all. Choose a "
    "smaller number after the ~.",
)
def an_address_before_the_first_save(tmp, _):
    run = saved(tmp)
    yield
    elementsckpt.info(f"{run}@latest~5")


@says(
    SaveNotFoundError,
    "There is no save {tmp}/run@newest, and 'newest' is not an address. Choose latest, "
    "best, a step such as 4000, a sequence such as #12, or a pin such as pin:paper, "
    "and perhaps ~N after it for N saves before.",
)
def an_address_that_is_none(tmp, _):
    run = saved(tmp)
    yield
    elementsckpt.info(f"{run}@newest")


@says(
    SaveNotFoundError, "There is no save {tmp}/run@7. Choose one of the nearest: 0, 10."
)
def an_address_of_a_step_that_is_not_there(tmp, _):
    run = saved(tmp)
    yield
    elementsckpt.info(f"{run}@7")


@says(
    SaveNotFoundError,
    "There is no save {tmp}/run@pin:paper. No save there is pinned: choose one by its "
    "step.",
)
def an_address_of_a_pin_that_is_not_there(tmp, _):
    run = saved(tmp)
    yield
    elementsckpt.info(f"{run}@pin:paper")


@says(
    SaveNotFoundError,
    "No save in {tmp}/run records what is best: pass a Checkpoint for it "
    "keep=Keep(metric=...), or choose a save by its step.",
)
def an_address_of_the_best_without_a_ranking(tmp, _):
    run = saved(tmp, loss=1.0)
    yield
    elementsckpt.info(f"{run}@best")


@says(
    SaveNotFoundError,
    "No save in {tmp}/run has a finite metric to be the best by. Choose one by its "
    "step, or the newest by @latest.",
)
def an_address_of_the_best_without_metrics(tmp, _):
    run = saved(tmp)
    yield
    elementsckpt.info(f"{run}@best")


# Leaves


@says(
    DamagedError,
    "{tmp}/run/… was written by elements, and its leaves are in pickles. Load it with "
    "Checkpoint, and save it again.",
)
def leaves_of_a_save_of_elements(tmp, _):
    run = written_by_elements(tmp)
    yield
    elementsckpt.leaves(run)


@says(MissingKeyError, "{tmp}/run/… has no 'actor'. It has 'agent': choose from these.")
def leaves_of_a_component_that_is_not_there(tmp, _):
    run = saved(tmp)
    yield
    elementsckpt.leaves(run, keys=["actor"])


@says(
    MismatchError,
    "regex='agent/v' matches no leaf of {tmp}/run/…. Choose one of the nearest names: "
    "'agent/w'.",
)
def a_pattern_for_leaves_that_matches_none(tmp, _):
    run = saved(tmp)
    yield
    elementsckpt.leaves(run, regex="agent/v")


@says(
    MismatchError,
    "regex='w' matches no leaf of {tmp}/run/… from the start of its name, with or "
    "without the key, but within some names: pass '.*w' for these.",
)
def a_pattern_for_the_end_of_names(tmp, _):
    cp = make(tmp / "run", {"head": {"w": np.ones(9)}})
    cp.save()
    yield
    elementsckpt.leaves(tmp / "run", regex="w")


@says(
    MismatchError,
    "{tmp}/run/… has no leaf with the full name 'w'. Choose one of the nearest names: "
    "'agent/w'.",
)
def a_leaf_by_less_than_its_full_name(tmp, _):
    run = saved(tmp)
    yield
    read_leaf(run, "w")


@says(ValueError, "step is not an array: leave out --npy.")
def a_file_for_what_is_not_an_array(tmp, _):
    cp = elementsckpt.Checkpoint(tmp / "run")
    cp.step = Value(3)
    cp.save()
    options = main.parser(["cat"]).parse_args(
        ["cat", str(tmp / "run"), "step", "--npy"]
    )
    yield
    options.verb.run(options, Screen())


@says(
    DamagedError,
    "{tmp}/run/…/agent-…safetensors is damaged between bytes … and …: the digest is "
    "…, expected …. It holds agent/w. Restore the save from a copy, or choose another.",
)
def statistics_of_a_damaged_leaf(tmp, _):
    run = saved(tmp)
    flip_block(elementsckpt.info(run).path, 0)
    yield
    elementsckpt.stats(run)


# Directories


@says(
    SaveNotFoundError,
    "There is no save in {tmp}: the folder is empty. Check the path.",
)
def the_usage_of_an_empty_directory(tmp, _):
    yield
    elementsckpt.usage(tmp)


@says(
    SaveNotFoundError,
    "There is no save in {tmp}: the folder is empty. Check the path.",
)
def the_saves_of_an_empty_directory(tmp, _):
    yield
    elementsckpt.saves(tmp)


@says(
    SaveNotFoundError,
    "{tmp}/none is not a folder: that path was not found ({tmp} is there and is "
    "empty). Make it first.",
)
def a_directory_to_examine_that_is_not_there(tmp, _):
    yield
    examine(tmp / "none")


@says(ValueError, "timeout_s=-1: pass seconds, from 0 on.")
def a_time_before_now_to_follow(tmp, _):
    yield
    elementsckpt.follow(tmp, timeout_s=-1)


@says(ValueError, "keep=3: pass elementsckpt.Keep(latest=...).")
def rules_that_are_a_number(tmp, _):
    run = saved(tmp)
    yield
    elementsckpt.prune(run, 3)


IS_A_SAVE = (
    "… is a save: pass the directory that it is in, {tmp}/run. To see what the save "
    "holds, call leaves(), or elementsckpt tree."
)


@says(ValueError, IS_A_SAVE)
def an_address_to_list(tmp, _):
    run = saved(tmp)
    yield
    elementsckpt.saves(f"{run}@10")


@says(
    SaveNotFoundError,
    "{tmp}/run/latest is a file: pass the directory of a run, which may come later.",
)
def a_file_to_follow(tmp, _):
    run = saved(tmp)
    yield
    elementsckpt.follow(run / "latest")


@says(
    ValueError,
    "No save in {tmp}/run has a finite 'los' to be the best by, so nothing was "
    "removed. Choose one of 'loss', 'return'.",
)
def a_metric_to_prune_by_that_no_save_has(tmp, _):
    run = saved(tmp, loss=1.0, **{"return": 2.0})
    yield
    elementsckpt.prune(run, Keep(best=1, metric="los"))


@says(
    ValueError,
    "The metric function returns a finite number for no save in {tmp}/run, so nothing "
    "was removed. Pass another one, for metrics such as loss.",
)
def a_metric_function_to_prune_by_that_fails(tmp, _):
    run = saved(tmp, loss=1.0)
    yield
    elementsckpt.prune(run, Keep(best=1, metric=lambda metrics: metrics["los"]))


@says(
    ValueError,
    "{tmp}/run/… is the only complete save, as all others are damaged or gone, so it "
    "is not removed. Make another one first, or remove the folder yourself.",
)
def the_only_save_without_damage_to_delete(tmp, _):
    run = saved(tmp)
    first, second = (info.path for info in elementsckpt.saves(run))
    # Both link to one file, of which the damaged one needs a copy.
    shutil.copytree(first, tmp / "copy")
    shutil.rmtree(first)
    (tmp / "copy").rename(first)
    flip_block(first, 0)
    yield
    elementsckpt.delete(second)


@says(ValueError, IS_A_SAVE)
def a_save_to_prune(tmp, _):
    run = saved(tmp)
    yield
    elementsckpt.prune(elementsckpt.info(run).path, Keep())


@says(
    ValueError,
    "{tmp}/run is a directory of saves: name the one to delete, such as {tmp}/run@10.",
)
def a_directory_to_delete(tmp, _):
    run = saved(tmp)
    yield
    elementsckpt.delete(run)


# Pins


@says(ValueError, "A pin needs a name: pass one, or call unpin().")
def a_pin_without_a_name(tmp, _):
    run = saved(tmp)
    yield
    elementsckpt.pin(run, None)


@says(
    ValueError,
    "{tmp}/run/…, of step 0, is pinned as 'paper' already: choose another name, or "
    "unpin that save first.",
)
def a_pin_that_another_save_has(tmp, _):
    run = saved(tmp)
    elementsckpt.pin(f"{run}@0", "paper")
    yield
    elementsckpt.pin(run, "paper")


@says(
    ValueError,
    "{tmp}/run/… was written by elements, which has no pins: load it, and save it "
    "with Checkpoint.save(pin=...).",
)
def a_pin_for_a_save_of_elements(tmp, _):
    run = written_by_elements(tmp)
    yield
    elementsckpt.pin(run, "paper")


@says(WriteError, "Another process is changing {tmp}/run/…: try again.")
def a_pin_while_another_is_set(tmp, _):
    run = saved(tmp)
    draft = elementsckpt.info(run).path / ".manifest.json"
    draft.touch()
    with File(draft, to_lock=True) as file:
        assert lock(file.fd)
        yield
        elementsckpt.pin(run, "paper")


# Exports


@says(
    ValueError,
    "the suffix '.bin' is not a format that is known: pass format='safetensors' or "
    "'npz'.",
)
def a_suffix_that_is_no_format(tmp, _):
    run = saved(tmp)
    yield
    elementsckpt.export(run, tmp / "x.bin")


@says(
    MismatchError,
    "Cannot rename 'agent/w' by '(' to '': missing ), unterminated subpattern at "
    "position 0. Correct it; nothing was written.",
)
def a_pattern_that_is_not_valid_for_an_export(tmp, _):
    run = saved(tmp)
    yield
    elementsckpt.export(run, tmp / "x.npz", rename={"(": ""})


@says(
    MismatchError,
    "Several leaves would have the name 'same'. Choose some with keys= or regex=, or "
    "rename them; nothing was written.",
)
def two_leaves_of_one_name_in_an_export(tmp, _):
    cp = make(tmp / "run", {"u": 1, "v": 1, "w": 2})
    cp.save()
    yield
    elementsckpt.export(tmp / "run", tmp / "x.npz", rename={".+": "same"})


@says(
    ReadError,
    "Cannot read {tmp}/run/…/agent-000001-00000.safetensors: Permission denied. The "
    "save itself may be fine: check who may read it.",
)
def a_save_to_delete_where_the_other_one_cannot_be_read(tmp, monkeypatch):
    run, real = saved(tmp), os.open

    def refuse(path, *args, **options):
        if str(path).endswith(".safetensors"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    yield
    elementsckpt.delete(f"{run}@latest")


@says(
    WriteError,
    "There is no folder {tmp}/none in which to write x.npz. Make it first, or choose "
    "another place.",
)
def an_export_to_a_folder_that_is_not_there(tmp, _):
    run = saved(tmp)
    yield
    elementsckpt.export(run, tmp / "none" / "x.npz")


@says(
    WriteError,
    "There is no folder {tmp}/none in which to write x.html. Make it first, or choose "
    "another place.",
)
def a_page_in_a_folder_that_is_not_there(tmp, _):
    run = saved(tmp)
    yield
    elementsckpt.write_report(run, tmp / "none" / "x.html")


@says(SaveExistsError, "{tmp}/x.npz is there already: remove it, or choose another.")
def an_export_to_what_is_there(tmp, _):
    run = saved(tmp)
    (tmp / "x.npz").touch()
    yield
    elementsckpt.export(run, tmp / "x.npz")


@says(
    WriteError,
    "Cannot write beside {tmp}/x.npz: another process removes what is made there, 100 "
    "times. Check what that is, or choose another place.",
)
def a_file_that_others_always_remove(tmp, monkeypatch):
    run = saved(tmp)
    yield
    monkeypatch.setattr(descriptors, "lock", lambda fd: False)
    elementsckpt.export(run, tmp / "x.npz")


@says(WriteError, "The disk refused a change to {tmp}/x.npz (No space left on …")
def an_export_to_a_full_disk(tmp, monkeypatch):
    run = saved(tmp)
    full = open

    def fdopen(*_):
        return full("/dev/full", "wb", buffering=0)

    monkeypatch.setattr(os, "fdopen", fdopen)
    yield
    elementsckpt.export(run, Path(tmp) / "x.npz")


@says(
    SaveExistsError,
    "{tmp}/train.py is there already, and is not a page that elementsckpt wrote: "
    "choose another name, or remove it.",
)
def a_page_in_the_place_of_a_file(tmp, _):
    run = saved(tmp)
    (tmp / "train.py").write_text("x = 1")
    yield
    elementsckpt.write_report(run, tmp / "train.py")

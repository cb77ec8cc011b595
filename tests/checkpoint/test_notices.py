"""What would be said at each save is said once, or again if it was right meanwhile."""

import errno
import math
import os
import shutil

import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint, Keep
from elementsckpt.storage import disk

from support import boxes
from support.situations.table import refuse

SAVES = 4


def make(directory, state, **options):
    return boxes.make(directory, state, fsync=False, **options)


def warnings(caplog):
    return [x.getMessage() for x in caplog.records if x.levelname == "WARNING"]


# What goes wrong at each save: a function that arranges it and returns one that saves.


def a_metric_that_is_not_finite(tmp, _):
    cp = make(tmp, 0, keep=Keep(metric="return"), step=elementsckpt.Counter())

    def save(number):
        cp._step.load(number)
        cp.save(metrics={"return": math.nan})

    return save


def a_metric_that_is_missing(tmp, _):
    cp = make(tmp, 0, keep=Keep(metric="return"))
    return lambda number: cp.save(metrics={"loss": number, f"loss{number}": 0})


def a_metric_function_that_fails(tmp, _):
    cp = make(tmp, 0, keep=Keep(metric=lambda metrics: metrics["return"]))
    return lambda number: cp.save(metrics={"loss": number})


def old_saves_that_cannot_be_renamed(tmp, monkeypatch):
    cp = make(tmp, 0)
    cp.save()

    def syscall(function, *args):
        if function is os.replace and args[1].name == f".{args[0].name}":
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return function(*args)

    monkeypatch.setattr(disk, "syscall", syscall)
    return lambda number: cp.save()


def leftovers_that_cannot_be_removed(tmp, monkeypatch):
    cp = make(tmp, 0)
    for number in range(2):
        folder = tmp / f"20201120T041308F93629{number}"
        shutil.copytree(cp.save().path, folder)
        (folder / "manifest.json").rename(folder / ".manifest.json")
    refuse(monkeypatch, os.replace, errno.EROFS, "20201120")
    return lambda number: cp.save()


def files_of_others_in_each_save(tmp, _):
    cp = make(tmp, 0)
    return lambda number: (cp.save().path / ".DS_Store").touch()


def a_file_latest_that_cannot_be_changed(tmp, monkeypatch):
    cp = make(tmp, 0)
    refuse(monkeypatch, os.replace, errno.EACCES, ".latest")
    return lambda number: cp.save()


def a_directory_that_cannot_be_listed_to_prune(tmp, monkeypatch):
    def broken(keep, heads):
        raise RuntimeError("no reason at all")

    cp = make(tmp, 0)
    monkeypatch.setattr("elementsckpt.directory.retention.staying", broken)
    return lambda number: cp.save()


def a_component_that_writes_no_files(tmp, _):
    cp = Checkpoint(tmp, fsync=False)
    cp.policy = elementsckpt.Files(save=str, load=print)
    return lambda number: cp.save()


def a_folder_without_manifest_beside_explicit_saves(tmp, _):
    cp = make(None, 0)
    path = make(tmp, np.arange(9)).save().path
    (path / "manifest.json").unlink()
    return lambda number: cp.save(tmp / f"explicit{number}")


SITUATIONS = (
    a_metric_that_is_not_finite,
    a_metric_that_is_missing,
    a_metric_function_that_fails,
    old_saves_that_cannot_be_renamed,
    leftovers_that_cannot_be_removed,
    files_of_others_in_each_save,
    a_file_latest_that_cannot_be_changed,
    a_directory_that_cannot_be_listed_to_prune,
    a_component_that_writes_no_files,
    a_folder_without_manifest_beside_explicit_saves,
)


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda x: x.__name__)
def test_what_goes_wrong_at_each_save_is_said_once(
    tmp_path, monkeypatch, caplog, situation
):
    save = situation(tmp_path, monkeypatch)
    caplog.clear()
    for number in range(SAVES):
        save(number)
    (said,) = warnings(caplog)
    assert said.endswith("This warning is logged once.")


def test_what_was_right_meanwhile_is_said_again(tmp_path, monkeypatch, caplog):
    cp = make(tmp_path, 0, keep=Keep(metric="return"))
    for value in (math.nan, math.nan, 1.0, math.inf, math.inf, 2.0):
        cp.save(metrics={"return": value})
    cp.save()  # Which is not meant to be ranked.
    assert len(warnings(caplog)) == 2
    caplog.clear()
    for _ in range(2):
        with monkeypatch.context() as patch:
            refuse(patch, os.replace, errno.EACCES, ".latest")
            cp.save()
            cp.save()
        cp.save()
    assert len(warnings(caplog)) == 2


def test_each_run_is_told_for_itself(tmp_path, caplog):
    for name in ("a", "b"):
        cp = make(tmp_path / name, 0, keep=Keep(metric="return"))
        cp.save(metrics={"return": math.nan})
    assert len(warnings(caplog)) == 2


@pytest.mark.parametrize("background", [False, True])
def test_a_save_says_where_its_time_went(tmp_path, caplog, background):
    caplog.set_level("INFO", "elementsckpt")
    cp = make(tmp_path, np.zeros(9), background=background)
    report = cp.save()
    cp.wait()
    (said,) = [x for x in caplog.messages if x.startswith("Saved")]
    assert said.startswith(f"Saved {report.path} in ")

"""Which saves stay, which is the best, and how to name one."""

import contextlib
import logging
import math
import os
import shutil
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import elementsckpt
from elementsckpt import Keep
from elementsckpt.storage import disk

from support import folders


class Box:
    def __init__(self, value=None):
        self.value = value

    def save(self):
        return self.value

    def load(self, data):
        self.value = data


def make(directory, keep=None, **options):
    cp = elementsckpt.Checkpoint(directory, keep=keep, fsync=False, **options)
    cp.step = elementsckpt.Counter()
    cp.box = Box()
    return cp


def save(cp, step, value=None, **about):
    """Save at a step; the box tells the saves apart."""
    cp.step.load(step)
    cp.box.value = step if value is None else value
    return cp.save(**about)


def steps(cp):
    return [info.step for info in cp.saves()]


def loaded(cp, *args, **kwargs):
    cp.load(*args, **kwargs)
    return cp.box.value


# What stays


def test_an_int_keeps_the_newest(tmp_path):
    cp = make(tmp_path, keep=2)
    for step in range(5):
        save(cp, step)
    assert steps(cp) == [3, 4]


def test_what_is_removed_while_a_save_is_committed_does_not_count(
    tmp_path, monkeypatch
):
    cp = make(tmp_path, keep=2)
    save(cp, 0)
    removed = save(cp, 1).path

    def syscall(call, *args):
        if call is os.replace and args[1].name == "manifest.json":
            shutil.rmtree(removed)
        return call(*args)

    monkeypatch.setattr(disk, "syscall", syscall)
    save(cp, 2)
    assert steps(cp) == [0, 2]


def test_none_keeps_all(tmp_path):
    cp = make(tmp_path, keep=None)
    for step in range(5):
        save(cp, step)
    assert steps(cp) == [0, 1, 2, 3, 4]


def test_the_union_of_what_is_asked_for_is_kept(tmp_path):
    cp = make(tmp_path, keep=Keep(latest=2, best=1, metric="return", every=4))
    for step, score in enumerate([5, 1, 9, 2, 3, 1, 0, 2, 1, 1]):
        save(cp, step, metrics={"return": score})
    assert steps(cp) == [0, 2, 4, 8, 9]


def test_the_newest_stays_though_it_is_the_worst(tmp_path):
    cp = make(tmp_path, keep=Keep(latest=0, best=1, metric="return"))
    for step, score in enumerate([3, 2, 1]):
        save(cp, step, metrics={"return": score})
    assert steps(cp) == [0, 2]


def test_less_can_be_better(tmp_path):
    cp = make(tmp_path, keep=Keep(latest=1, best=1, metric="loss", mode="min"))
    for step, loss in enumerate([3, 1, 2, 4]):
        save(cp, step, metrics={"loss": loss})
    assert steps(cp) == [1, 3]
    assert cp.load("best").step == 1


def test_a_metric_can_be_a_function_of_all_of_them(tmp_path):
    keep = Keep(best=1, metric=lambda metrics: metrics["a"] * metrics["b"])
    cp = make(tmp_path, keep=keep)
    for step, (a, b) in enumerate([(1, 9), (4, 4), (9, 1), (0, 0)]):
        save(cp, step, metrics={"a": a, "b": b})
    assert steps(cp) == [1, 3]
    assert cp.load("best").step == 1


def test_of_equal_ones_the_newer_is_better(tmp_path):
    cp = make(tmp_path, keep=Keep(best=1, metric="return"))
    for step in range(3):
        save(cp, step, metrics={"return": 7.0})
    save(cp, 3, metrics={"return": 1.0})
    assert steps(cp) == [2, 3]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_what_is_not_finite_is_never_best_and_is_reported(
    tmp_path, caplog, value, mode
):
    cp = make(tmp_path, keep=Keep(best=1, metric="return", mode=mode))
    save(cp, 0, metrics={"return": 1.0})
    with caplog.at_level(logging.WARNING, "elementsckpt"):
        save(cp, 1, metrics={"return": value})
    assert f"'return' is {value}" in caplog.text
    assert "step 1" in caplog.text
    save(cp, 2, metrics={"return": 0.5})
    assert cp.load("best").step == (0 if mode == "max" else 2)


def test_a_missing_metric_ranks_worst_but_fills_free_places(tmp_path):
    cp = make(tmp_path, keep=Keep(latest=1, best=2, metric="return"))
    save(cp, 0)
    save(cp, 1, metrics={"return": -100.0})
    save(cp, 2)
    assert steps(cp) == [1, 2]
    save(cp, 3, metrics={"return": -200.0})
    assert steps(cp) == [1, 3]
    assert cp.best().name.endswith("-000000000001")


def test_a_function_that_fails_costs_no_save(tmp_path, caplog):
    cp = make(tmp_path, keep=Keep(best=1, metric=lambda metrics: metrics["nope"]))
    with caplog.at_level(logging.WARNING, "elementsckpt"):
        save(cp, 0, metrics={"return": 1.0})
    assert "the metric function failed" in caplog.text
    assert steps(cp) == [0]
    assert cp.best() is None


def test_multiples_of_a_number_of_steps_stay(tmp_path):
    cp = make(tmp_path, keep=Keep(latest=1, every=100))
    for step in [0, 50, 100, 101, 199, 200, 250]:
        save(cp, step)
    assert steps(cp) == [0, 100, 200, 250]


def test_one_save_stays_for_each_interval_of_time(tmp_path, monkeypatch):
    clock = folders.Clock(monkeypatch, datetime(2026, 1, 1, tzinfo=timezone.utc))
    cp = make(tmp_path, keep=Keep(latest=1, every=timedelta(hours=6)))
    for step in range(14):
        save(cp, step)
        clock.now += timedelta(hours=1)
    assert steps(cp) == [0, 6, 12, 13]


def test_a_clock_that_steps_back_does_not_end_what_is_kept(tmp_path, monkeypatch):
    clock = folders.Clock(monkeypatch, datetime(2026, 1, 2, tzinfo=timezone.utc))
    cp = make(tmp_path, keep=Keep(latest=1, every=timedelta(hours=6)))
    save(cp, 0)
    clock.now -= timedelta(days=1)
    for step in range(1, 9):
        save(cp, step)
        clock.now += timedelta(hours=1)
    assert steps(cp) == [0, 1, 7, 8]


def test_a_pinned_save_is_never_pruned_and_has_a_name(tmp_path):
    cp = make(tmp_path, keep=1)
    save(cp, 0, pin="before-finetune")
    for step in range(1, 4):
        save(cp, step)
    assert steps(cp) == [0, 3]
    assert [info.pin for info in cp.saves()] == ["before-finetune", None]
    assert loaded(cp, "before-finetune") == 0
    assert loaded(cp) == 3


def test_the_newest_of_a_pin_is_meant_and_both_stay(tmp_path):
    cp = make(tmp_path, keep=1)
    for step in range(3):
        save(cp, step, pin="good")
    assert steps(cp) == [0, 1, 2]
    assert loaded(cp, "good") == 2


def test_a_pin_comes_before_a_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cp = make(tmp_path / "ckpt", keep=1)
    save(cp, 1, pin="mine")
    save(cp, 2, path="mine")
    assert loaded(cp, "mine") == 1
    assert loaded(cp, "./mine") == 2
    assert loaded(cp, tmp_path / "mine") == 2


@pytest.mark.parametrize("pin", ["", "best", "latest", "a/b", 3])
def test_a_pin_is_a_name(tmp_path, pin):
    with pytest.raises(ValueError, match=r"pin=.*: pass a name without slashes"):
        save(make(tmp_path / "ckpt"), 0, pin=pin)
    assert not (tmp_path / "ckpt").exists()


def test_a_save_to_a_path_takes_no_pin(tmp_path):
    with pytest.raises(ValueError, match="never pruned: leave pin= out"):
        save(make(tmp_path / "ckpt"), 0, path=tmp_path / "own", pin="mine")
    assert not (tmp_path / "own").exists()


def test_a_save_of_some_components_never_costs_the_others(tmp_path):
    cp = make(tmp_path, keep=1)
    save(cp, 0)
    save(cp, 1, keys=["step"])
    save(cp, 2, keys=["step"])
    assert [(x.step, sorted(x.components)) for x in cp.saves()] == [
        (0, ["box", "step"]),
        (2, ["step"]),
    ]
    save(cp, 3)
    assert steps(cp) == [3]


def test_a_component_that_is_not_registered_any_more_keeps_nothing(tmp_path):
    cp = make(tmp_path, keep=1)
    save(cp, 0)
    del cp.box
    cp.save()
    assert [sorted(info.components) for info in cp.saves()] == [["step"]]


KEEPS = st.builds(
    Keep,
    latest=st.none() | st.integers(0, 3),
    best=st.integers(0, 3),
    metric=st.just("m"),
    mode=st.sampled_from(["max", "min"]),
    every=st.none() | st.integers(1, 4),
)
SAVES = st.lists(
    st.tuples(
        st.integers(0, 9),
        st.none() | st.sampled_from([math.nan, math.inf, 0.0, 1.0, 2.0]),
        st.none() | st.sampled_from(["a", "b"]),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=50, deadline=None)
@given(keep=KEEPS, saves=SAVES)
def test_what_stays_is_what_a_simple_model_says(tmp_path_factory, keep, saves):
    cp = make(tmp_path_factory.mktemp("ckpt"), keep=keep)
    model = []
    for number, (step, score, pin) in enumerate(saves):
        metrics = {} if score is None else {"m": score}
        save(cp, step, number, metrics=metrics, pin=pin)
        model.append((number, step, score, pin))
        model = _stay(keep, model)
        found = [elementsckpt.read(x.path, ["box"])["box"] for x in cp.saves()]
        assert found == [number for number, *_ in model]
    best = [x for x in _ranked(keep, model) if _is_finite(x)][:1]
    expected = [number for number, *_ in best]
    path = cp.best()
    found = [] if path is None else [elementsckpt.read(path, ["box"])["box"]]
    assert found == expected


def _is_finite(item):
    return item[2] is not None and math.isfinite(item[2])


def _ranked(keep, model):
    sign = 1 if keep.mode == "max" else -1
    finite = [x for x in model if _is_finite(x)]
    finite.sort(key=lambda x: (sign * x[2], x[0]), reverse=True)
    return finite + [x for x in reversed(model) if not _is_finite(x)]


def _stay(keep, model):
    newest = model if keep.latest is None else model[max(0, len(model) - keep.latest) :]
    kept = [*newest, model[-1], *_ranked(keep, model)[: keep.best]]
    kept += [x for x in model if keep.every and x[1] % keep.every == 0]
    kept += [x for x in model if x[3]]
    return [x for x in model if x in kept]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latest": -1}, "latest=-1: pass how many"),
        ({"latest": 1.0}, "latest=1.0: pass how many"),
        ({"best": True}, "best=True: pass how many"),
        ({"best": 2}, r"best=2 needs metric="),
        ({"mode": "larger"}, "mode='larger': pass 'max' or 'min'"),
        ({"metric": 3}, "metric=3: pass the name of a metric, or a function"),
        ({"every": 0}, "every=0: pass an int"),
        ({"every": 1.5}, r"every=1.5: pass an int.*timedelta"),
        ({"every": timedelta(0)}, "longer than zero"),
    ],
)
def test_a_keep_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Keep(**options)


@pytest.mark.parametrize("keep", [0, -1, 1.5, True, "3"])
def test_keep_is_a_number_or_a_keep(tmp_path, keep):
    with pytest.raises(ValueError, match=r"keep=.*Keep\("):
        elementsckpt.Checkpoint(tmp_path, keep=keep)


# Which save is meant


def test_a_step_names_a_save(tmp_path):
    cp = make(tmp_path)
    for step in range(3):
        save(cp, step)
    assert [loaded(cp, step=step) for step in range(3)] == [0, 1, 2]
    assert loaded(cp, step=np.int64(1)) == 1


def test_the_newest_save_of_a_step_is_meant(tmp_path):
    cp = make(tmp_path)
    save(cp, 5, "first")
    save(cp, 5, "second")
    assert steps(cp) == [5, 5]
    assert loaded(cp, step=5) == "second"


def test_a_step_that_is_not_there_is_an_error_that_lists_the_others(tmp_path):
    cp = make(tmp_path)
    for step in range(0, 1000, 100):
        save(cp, step)
    with pytest.raises(
        FileNotFoundError, match=r"no save of step 7 .*0, 100, 200, \.\."
    ):
        cp.load(step=7)
    assert cp.step == 900


def test_a_step_and_a_path_are_too_much(tmp_path):
    cp = make(tmp_path)
    save(cp, 0)
    with pytest.raises(ValueError, match="either the path or the step"):
        cp.load("latest", step=0)


def test_latest_is_a_name(tmp_path):
    cp = make(tmp_path)
    for step in range(2):
        save(cp, step)
    assert loaded(cp, "latest") == 1


def test_evaluation_finds_the_best_without_knowing_the_metric(tmp_path):
    cp = make(tmp_path, keep=Keep(latest=1, best=1, metric="loss", mode="min"))
    for step, loss in enumerate([3, 1, 2]):
        save(cp, step, metrics={"loss": loss, "return": 0.0})
    evaluation = elementsckpt.Checkpoint(tmp_path)
    evaluation.box = Box()
    assert loaded(evaluation, "best") == 1
    assert evaluation.best() == cp.best()


def test_without_a_ranking_the_best_is_not_guessed(tmp_path):
    cp = make(tmp_path)
    assert cp.best() is None
    save(cp, 0)
    assert cp.best() is None
    with pytest.raises(FileNotFoundError, match=r"No save .* finite metric"):
        cp.load("best")
    save(cp, 1, metrics={"loss": 0.1, "return": 1.0})
    with pytest.raises(
        ValueError, match=r"loss, return: pass keep=Keep\(metric='loss'"
    ):
        cp.best()


def test_a_damaged_best_save_is_not_substituted(tmp_path):
    cp = make(tmp_path, keep=Keep(best=2, metric="return"))
    for step, score in enumerate([1, 3, 2]):
        save(cp, step, np.full(9, step), metrics={"return": score})
    (file,) = cp.best().glob("box-*.safetensors")
    folders.flip(file)
    with pytest.raises(elementsckpt.DamagedError):
        cp.load("best")
    assert cp.step == 2


def test_a_save_that_was_found_damaged_is_neither_counted_nor_removed(tmp_path):
    cp = make(tmp_path, keep=2)
    good = save(cp, 0, np.zeros(99)).path
    bad = save(cp, 1, np.ones(99)).path
    (file,) = bad.glob("box-*.safetensors")
    folders.flip(file)
    resumed = make(tmp_path, keep=2)
    assert resumed.load_or_save()
    assert resumed.step == 0
    new = save(resumed, 1).path
    assert [path.exists() for path in (good, bad, new)] == [True, True, True]
    save(resumed, 2)
    assert [path.exists() for path in (good, bad, new)] == [False, True, True]
    assert resumed.delete(bad) == [bad]


FINDS = {
    "a load": lambda cp, path: cp.load(),
    "a start": lambda cp, path: cp.load_or_save(),
    "a dry run": lambda cp, path: cp.load(dry_run=True),
    "a load by path": lambda cp, path: cp.load(path),
    "a load through a link": lambda cp, path: cp.load(linked(path)),
    "a load by step": lambda cp, path: cp.load(step=1),
}


def linked(path):
    """Return another path to the same save."""
    link = path.parent.parent / "link"
    link.symlink_to(path.parent)
    return link / path.name


@pytest.mark.parametrize("find", FINDS)
@pytest.mark.parametrize("damage", ["data", "all"])
def test_a_save_that_no_load_succeeded_with_stays_too(tmp_path, find, damage):
    cp = make(tmp_path / "ckpt", keep=2)
    saves = [save(cp, step, np.full(99, step)).path for step in range(2)]
    for path in saves if damage == "all" else saves[1:]:
        (file,) = path.glob("box-*.safetensors")
        folders.flip(file)
    resumed = make(tmp_path / "ckpt", keep=2)
    with contextlib.suppress(elementsckpt.DamagedError):
        FINDS[find](resumed, saves[1])
    new = [save(resumed, step, np.full(99, step)).path for step in range(2, 5)]
    assert saves[1].exists()
    assert [path.exists() for path in new] == [False, True, True]


# Removing by hand


def test_prune_does_what_a_save_would(tmp_path):
    cp = make(tmp_path, keep=None)
    for step in range(4):
        save(cp, step)
    other = make(tmp_path, keep=2)
    removed = other.prune()
    assert [path.name[-1] for path in removed] == ["0", "1"]
    assert not any(path.exists() for path in removed)
    assert steps(cp) == [2, 3]
    assert other.prune() == []


def test_delete_removes_all_saves_of_a_step(tmp_path):
    cp = make(tmp_path)
    for step in [0, 1, 1, 2]:
        save(cp, step)
    assert len(cp.delete(step=1)) == 2
    assert steps(cp) == [0, 2]


def test_delete_removes_the_newest_and_latest_follows(tmp_path):
    cp = make(tmp_path)
    for step in range(3):
        save(cp, step)
    path = cp.latest()
    assert cp.delete(path) == [path]
    assert steps(cp) == [0, 1]
    assert (tmp_path / "latest").read_text() == cp.latest().name
    assert loaded(cp) == 1


def test_delete_removes_a_pinned_save_by_its_name(tmp_path):
    cp = make(tmp_path, keep=1)
    save(cp, 0, pin="old")
    save(cp, 1)
    cp.delete("old")
    assert steps(cp) == [1]


def test_delete_removes_a_damaged_save_when_asked(tmp_path):
    cp = make(tmp_path, keep=1)
    path = save(cp, 0).path
    (path / "manifest.json").write_bytes(b"{}")
    save(cp, 1)
    assert path.exists()
    assert cp.delete(path) == [path]
    assert not path.exists()


def test_the_only_complete_save_is_not_deleted(tmp_path):
    cp = make(tmp_path)
    path = save(cp, 0).path
    with pytest.raises(ValueError, match="the only complete save"):
        cp.delete(step=0)
    assert steps(cp) == [0]
    assert path.exists()


def test_delete_needs_to_know_what(tmp_path):
    cp = make(tmp_path)
    save(cp, 0)
    for args in [{}, {"path": cp.latest(), "step": 0}]:
        with pytest.raises(ValueError, match="either the path or the step"):
            cp.delete(**args)
    with pytest.raises(FileNotFoundError, match="no save of step 3"):
        cp.delete(step=3)


def test_a_copy_or_a_foreign_save_is_not_deleted(tmp_path):
    import shutil

    cp = make(tmp_path / "ckpt")
    for step in range(2):
        save(cp, step)
    copy = shutil.copytree(cp.latest(), tmp_path / "ckpt" / "copy")
    foreign = save(cp, 2, path=tmp_path / "own").path
    for path in (copy, foreign):
        with pytest.raises(ValueError, match="was not written as one of the saves"):
            cp.delete(path)
        assert path.exists()


def test_a_directory_is_no_save_to_delete(tmp_path):
    cp = make(tmp_path)
    for step in range(2):
        save(cp, step)
    with pytest.raises(ValueError, match="is a directory of saves"):
        cp.delete(tmp_path)
    assert steps(cp) == [0, 1]


# Steps and runs


def warnings(caplog):
    return [x.getMessage() for x in caplog.records if x.levelno >= logging.WARNING]


def test_a_step_that_goes_back_is_said_once_and_costs_nothing(tmp_path, caplog):
    cp = make(tmp_path, keep=2)
    for step in [100, 200, 50, 60]:
        save(cp, step)
    assert steps(cp) == [50, 60]
    (message,) = warnings(caplog)
    assert "Saving at step 50" in message
    assert "at step 200 of this run" in message


def test_a_run_that_was_not_resumed_is_said_once(tmp_path, caplog):
    save(make(tmp_path, keep=1), 500)
    cp = make(tmp_path, keep=2)
    for step in range(3):
        save(cp, step)
    (message,) = warnings(caplog)
    assert "Saving at step 0" in message
    assert "step 500 of another run" in message
    assert "load_or_save()" in message
    assert steps(cp) == [1, 2]


def test_a_run_that_is_resumed_goes_on_without_a_word(tmp_path, caplog):
    save(make(tmp_path), 500)
    cp = make(tmp_path)
    assert cp.load_or_save()
    save(cp, 501)
    assert warnings(caplog) == []
    first, second = cp.saves()
    assert first.lineage.run == second.lineage.run
    assert second.lineage.loaded_from == str(first.path)


def test_processes_that_do_not_write_say_nothing(tmp_path, caplog):
    save(make(tmp_path), 500)
    save(make(tmp_path, write=False), 0)
    reader = elementsckpt.Checkpoint(tmp_path, write=False)
    reader.step = elementsckpt.Counter()
    reader.load()
    assert warnings(caplog) == []


def test_a_save_at_an_existing_step_loses_nothing(tmp_path):
    cp = make(tmp_path, keep=1)
    save(cp, 5, "first")
    save(cp, 5, "second")
    assert loaded(cp) == "second"
    assert loaded(make(tmp_path)) == "second"


def test_a_component_that_was_forgotten_is_said_and_kept(tmp_path, caplog):
    save(make(tmp_path, keep=1), 1)
    forgetful = elementsckpt.Checkpoint(tmp_path, keep=1)
    forgetful.step = elementsckpt.Counter()
    forgetful.load_or_save()
    (message,) = warnings(caplog)
    assert "of a run with 'box', which is not registered" in message
    for step in (2, 3):
        forgetful.step.load(step)
        forgetful.save()
    assert steps(forgetful) == [1, 3]


def test_a_resume_with_another_configuration_is_said(tmp_path, caplog):
    config = {"seed": 0, "env": {"name": "a", "size": 3}, "gone": 1}
    save(make(tmp_path, metadata=config), 1, metadata={"epoch": 7})
    config = {"seed": 7, "env": {"name": "b", "size": 3}, "new": 2}
    make(tmp_path, metadata=config).load_or_save()
    (message,) = warnings(caplog)
    assert "seed was 0 and is 7" in message
    assert "env.name was 'a' and is 'b'" in message
    assert "size" not in message
    caplog.clear()
    make(tmp_path).load_or_save()
    make(tmp_path, metadata={"seed": 0}).load_or_save()
    assert warnings(caplog) == []


def test_a_metric_by_another_name_is_said(tmp_path, caplog):
    cp = make(tmp_path, keep=Keep(best=1, metric="return"))
    save(cp, 0, metrics={"retrun": 1.0})
    (message,) = warnings(caplog)
    assert "'return' is missing, there is 'retrun'" in message
    caplog.clear()
    save(cp, 1)
    assert warnings(caplog) == []


def test_a_number_is_no_path(tmp_path):
    cp = make(tmp_path)
    save(cp, 3)
    for call in (cp.load, cp.delete):
        with pytest.raises(ValueError, match=r"to load\(step=3\)"):
            call(3)


def test_a_step_can_be_a_function(tmp_path):
    cp = elementsckpt.Checkpoint(tmp_path, keep=None, step=lambda: cp.box.value)
    cp.box = Box(0)
    for cp.box.value in (3, 4):
        cp.save()
    assert steps(cp) == [3, 4]


# Lineage


def test_lineage_tells_where_a_save_comes_from(tmp_path):
    import os
    import socket

    cp = make(tmp_path / "a")
    first = save(cp, 0).path
    second = save(cp, 1).path
    lineage = elementsckpt.info(second).lineage
    assert lineage.parent == str(first)
    assert lineage.loaded_from is None
    assert lineage.host == socket.gethostname()
    assert lineage.pid == os.getpid()
    assert lineage.libraries["numpy"] == np.__version__
    assert elementsckpt.info(first).lineage.parent is None

    fork = make(tmp_path / "b")
    fork.load(second)
    save(fork, 2)
    found = elementsckpt.info(tmp_path / "b").lineage
    assert found.loaded_from == found.parent == str(second)
    assert found.run != lineage.run


def test_a_save_in_the_background_has_its_parent(tmp_path):
    cp = make(tmp_path, background=True)
    first = save(cp, 0).path
    second = save(cp, 1).path
    cp.wait()
    assert elementsckpt.info(second).lineage.parent == str(first)

"""`prune` and `delete` remove saves, and say what stays, why, and what is freed."""

import errno
import os
import shutil

import pytest

import elementsckpt
from elementsckpt import Checkpoint, Keep, SaveNotFoundError
from elementsckpt.inspection import removal
from elementsckpt.storage.local import LocalStore
from elementsckpt.user.notices import Notices

from support.boxes import make_boxes
from support.folders import flip_block, noise


@pytest.fixture
def run(tmp_path):
    """Return a directory of five saves; the first is pinned, the second the best."""
    step = iter(range(0, 50, 10))
    cp = Checkpoint(tmp_path / "run", keep=None, step=lambda: next(step), fsync=False)
    cp.box = elementsckpt.Value(noise(1, 5000))
    for number, value in enumerate([1.0, 9.0, 3.0, 4.0, 5.0]):
        cp.box.value[number] ^= 1
        cp.save(metrics={"return": value}, pin="first" if number == 0 else None)
    return tmp_path / "run"


def steps(directory):
    return [info.step for info in elementsckpt.saves(directory)]


def test_what_stays_has_its_reasons(run):
    keep = Keep(latest=2, best=1, metric="return", every=20)
    plan = elementsckpt.prune(run, keep, dry_run=True)
    assert steps(run) == [0, 10, 20, 30, 40]
    assert {save.step: save.reasons for save in plan.kept} == {
        0: ("every", "pin"),
        10: ("best",),
        20: ("every",),
        30: ("latest",),
        40: ("latest", "every", "component"),
    }
    assert plan.removed == ()
    assert plan.is_dry_run


def test_a_dry_run_tells_what_then_happens(run):
    plan = elementsckpt.prune(run, Keep(latest=1), dry_run=True)
    before = elementsckpt.usage(run).bytes_on_disk
    done = elementsckpt.prune(run, Keep(latest=1))
    assert (plan.removed, plan.kept) == (done.removed, done.kept)
    assert plan.bytes_freed == done.bytes_freed
    assert before - elementsckpt.usage(run).bytes_on_disk == done.bytes_freed
    assert steps(run) == [0, 40]


def test_what_was_not_written_there_or_is_damaged_stays(run):
    first, second = (info.path for info in elementsckpt.saves(run)[:2])
    shutil.copytree(second, run / "copy")
    (second / "manifest.json").write_text("{}")
    report = elementsckpt.prune(run, Keep(latest=1))
    reasons = {save.path: save.reasons for save in report.kept}
    assert reasons[run / "copy"] == ("foreign",)
    assert reasons[second] == ("damaged",)
    assert reasons[first] == ("pin",)


def test_an_explicit_save_stays(tmp_path):
    cp = make_boxes(tmp_path, box=1)
    cp.save(tmp_path / "mine")
    cp.save()
    report = elementsckpt.prune(tmp_path, Keep(latest=1))
    assert {x.path.name: x.reasons for x in report.kept}["mine"] == ("explicit",)


def test_rules_are_needed_and_a_directory(run):
    with pytest.raises(ValueError, match=r"pass elementsckpt\.Keep"):
        elementsckpt.prune(run, 3)
    with pytest.raises(ValueError, match="is a save: pass the directory"):
        elementsckpt.prune(elementsckpt.info(run).path, Keep())
    with pytest.raises(SaveNotFoundError):
        elementsckpt.prune(run.parent, Keep())


def test_delete_removes_one_save_and_points_latest_to_the_newest_left(run):
    plan = elementsckpt.delete(f"{run}@40", dry_run=True)
    assert steps(run)[-1] == 40
    done = elementsckpt.delete(f"{run}@40")
    assert plan.removed == done.removed
    assert plan.bytes_freed == done.bytes_freed > 0
    assert done.kept == ()
    assert steps(run) == [0, 10, 20, 30]
    assert (run / "latest").read_text() == elementsckpt.info(run).path.name
    elementsckpt.delete(elementsckpt.info(f"{run}@pin:first").path)  # Pinned or not.
    assert steps(run) == [10, 20, 30]


def test_delete_takes_no_directory_and_never_the_only_whole_save(run):
    with pytest.raises(ValueError, match="is a directory of saves: name the one"):
        elementsckpt.delete(run)
    for step in (0, 10, 20, 30):
        elementsckpt.delete(f"{run}@{step}")
    with pytest.raises(ValueError, match="the only complete save"):
        elementsckpt.delete(f"{run}@40")
    with pytest.raises(SaveNotFoundError):
        elementsckpt.delete(f"{run}@50")


@pytest.mark.parametrize(
    "metric", ["retrun", "nothing", lambda metrics: metrics["retrun"]]
)
def test_a_metric_that_no_save_has_ranks_none(run, metric):
    keep = Keep(best=2, metric=metric)
    for is_dry_run in (True, False):
        with pytest.raises(ValueError, match=r"nothing was removed\. .*return"):
            elementsckpt.prune(run, keep, is_dry_run)
    assert len(steps(run)) == 5
    elementsckpt.prune(run, Keep(latest=2, metric=metric))  # It ranks nothing here.


def test_a_metric_that_is_never_finite_ranks_none(tmp_path):
    cp = make_boxes(tmp_path, keep=None, box=1)
    for _ in range(3):
        cp.save(metrics={"loss": float("nan"), "return": 1.0})
    with pytest.raises(ValueError, match=r"'loss'.*Choose one of 'return'"):
        elementsckpt.prune(tmp_path, Keep(best=1, metric="loss"))
    assert len(elementsckpt.saves(tmp_path)) == 3


def test_its_text_says_by_what_a_save_is_the_best(run):
    plan = elementsckpt.prune(run, Keep(best=1, metric="return"), dry_run=True)
    assert "best (max return: 9)" in repr(plan)
    assert plan.kept[1].reasons == ("best",)
    assert {*plan.kept[1].to_dict()} == {"path", "step", "sequence", "reasons"}


def test_a_damaged_save_does_not_count_as_kept(run):
    """Its manifest is good, so only its bytes tell."""
    newest = elementsckpt.saves(run)[-1].path
    flip_block(newest, 0, key="box")
    plan = elementsckpt.prune(run, Keep(latest=1), dry_run=True)
    assert {save.step: save.reasons for save in plan.kept} == {
        0: ("pin",),
        30: ("latest", "component"),
        40: ("damaged",),
    }
    done = elementsckpt.prune(run, Keep(latest=1))
    assert (plan.kept, plan.removed) == (done.kept, done.removed)
    assert steps(run) == [0, 30, 40]
    assert elementsckpt.verify(run).newest_good == elementsckpt.saves(run)[1].path


def test_where_all_are_damaged_none_is_pruned(run):
    for save in elementsckpt.saves(run):
        flip_block(save.path, 0, key="box")
    report = elementsckpt.prune(run, Keep(latest=1))
    assert report.removed == ()
    assert report.kept[-1].reasons == ("damaged",)
    assert steps(run) == [0, 10, 20, 30, 40]


def test_pruning_reads_the_newest_save_that_stays_and_only_if_others_go(run, reads):
    elementsckpt.prune(run, Keep(latest=None), dry_run=True)
    assert not {*reads.bytes} - {"manifest.json"}
    elementsckpt.prune(run, Keep(latest=1), dry_run=True)
    assert {*reads.bytes} - {"manifest.json"}


def test_the_only_save_without_damage_is_not_deleted(run):
    flip_block(elementsckpt.saves(run)[-1].path, 0, key="box")
    for step in (0, 10, 20):
        elementsckpt.delete(f"{run}@{step}")
    with pytest.raises(ValueError, match="the only complete save, as all others"):
        elementsckpt.delete(f"{run}@30")
    elementsckpt.delete(f"{run}@40")  # The damaged one may go.
    assert steps(run) == [30]


def test_pruning_plans_anew_if_the_verified_save_has_gone(run):
    plan = removal.plan_prune(run, Keep(latest=1))
    *_, second, damaged, newest = elementsckpt.saves(run)
    flip_block(damaged.path, 0, key="box")
    shutil.rmtree(newest.path)
    report = plan.carry_out()
    assert [x.step for x in report.kept] == steps(run) == [0, 20, 30]
    assert {x.step: x.reasons for x in report.kept}[20] == ("latest", "component")
    assert elementsckpt.verify(run).newest_good == second.path


def test_pruning_takes_only_what_was_planned(run):
    plan = removal.plan_prune(run, Keep(latest=2))
    assert [x.step for x in plan.gone] == [10, 20]
    cp = Checkpoint(run, keep=None, step=lambda: 50, fsync=False)
    cp.box = elementsckpt.Value(noise(2, 5000))
    cp.save()
    elementsckpt.pin(f"{run}@10", "mine")
    plan.carry_out()
    assert steps(run) == [0, 10, 30, 40, 50]


def test_what_was_verified_and_has_not_changed_is_not_read_again(run, reads):
    plans = [removal.plan_prune(run, Keep(latest=1)), removal.plan_delete(f"{run}@0")]
    elementsckpt.pin(f"{run}@10", "mine")
    reads.bytes.clear()
    for plan in plans:
        plan.carry_out()
    assert steps(run) == [10, 40]
    assert not {*reads.bytes} - {"manifest.json"}


def test_two_plans_to_delete_leave_a_save(run):
    for step in (0, 10, 20):
        elementsckpt.delete(f"{run}@{step}")
    first, second = (removal.plan_delete(f"{run}@{step}") for step in (30, 40))
    first.carry_out()
    with pytest.raises(ValueError, match="the only complete save"):
        second.carry_out()
    assert steps(run) == [40]


def test_a_plan_to_delete_and_one_to_prune_leave_a_save(run):
    for step in (0, 10, 20):
        elementsckpt.delete(f"{run}@{step}")
    first, second = removal.plan_delete(f"{run}@40"), removal.plan_prune(run, Keep())
    first.carry_out()
    second.carry_out()
    assert steps(run) == [30]


def test_an_older_save_can_be_the_one_that_stays(run, monkeypatch):
    """What cannot be read may be damaged; so another one is tried."""
    real, newest = os.open, str(elementsckpt.saves(run)[-1].path)

    def refuse(path, *args, **options):
        if str(path).startswith(newest) and str(path).endswith(".safetensors"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    elementsckpt.delete(f"{run}@0")
    for step in (10, 20):
        elementsckpt.delete(f"{run}@{step}")
    with pytest.raises(elementsckpt.ReadError):
        elementsckpt.delete(f"{run}@30")
    assert steps(run) == [30, 40]


def test_what_a_killed_process_left_goes_and_is_told_of(run):
    left = run / ".20260101T000000F000000-000000000050"
    left.mkdir()
    (left / ".manifest.json").touch()
    (left / "box-000006-00000.safetensors").write_bytes(bytes(5000))
    usage = elementsckpt.usage(run)
    assert "1 unfinished save, 5.00 kB" in repr(usage)
    assert "1 unfinished save, 5.00 kB" in repr(
        elementsckpt.prune(run, Keep(latest=None), dry_run=True)
    )
    assert left.exists()
    report = elementsckpt.prune(run, Keep(latest=None))
    assert "1 unfinished save, 5.00 kB, removed" in repr(report)
    assert not left.exists()
    assert "unfinished" not in repr(elementsckpt.usage(run))


def test_what_is_being_written_stays(run):
    draft = LocalStore(run, Notices()).begin(50, fsync=False)
    try:
        report = elementsckpt.prune(run, Keep(latest=1))
        assert "unfinished" not in repr(report)
        assert draft.path.exists()
    finally:
        draft.abandon()

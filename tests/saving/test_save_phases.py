"""Where the time of a save goes, as its report says."""

import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint
from elementsckpt.storage import disk

from support.boxes import Box
from support.folders import Gate

IN_TURN = ["begin", "find", "collect", "flatten", "write", "sync", "commit", "prune"]


def make(tmp_path, **options):
    cp = Checkpoint(tmp_path, **options)
    cp.agent = Box({"w": np.arange(100_000)})
    return cp


def require_sum(report):
    """Require phases that are not negative, and do not count anything twice."""
    assert all(seconds >= 0 for seconds in report.phases.values())
    inside = [seconds for name, seconds in report.phases.items() if name != "wait"]
    assert sum(inside) <= report.seconds


def test_a_save_has_its_phases_in_turn(tmp_path):
    report = make(tmp_path).save()
    assert list(report.phases) == IN_TURN
    require_sum(report)


def test_without_fsync_nothing_is_synced(tmp_path):
    report = make(tmp_path, fsync=False).save()
    assert list(report.phases) == [name for name in IN_TURN if name != "sync"]


def test_without_write_states_are_collected_only(tmp_path):
    report = make(tmp_path, write=False).save()
    assert list(report.phases) == ["begin", "collect", "flatten"]


def test_the_functional_form_has_phases_too(tmp_path):
    report = elementsckpt.checkpoint.save(
        tmp_path / "save", {"agent": lambda: np.arange(9)}
    )
    assert {*report.phases} == {*IN_TURN}
    require_sum(report)


def test_in_the_background_the_report_has_those_so_far(tmp_path, monkeypatch):
    gate = Gate()
    monkeypatch.setattr(disk, "syscall", gate)
    cp = make(tmp_path, background=True)
    begun = cp.save()
    assert list(begun.phases) == ["wait", *IN_TURN[:4], "copy"]
    gate.open()
    done = cp.wait()
    assert list(done.phases) == ["wait", *IN_TURN[:4], "copy", *IN_TURN[4:]]
    assert "write" not in begun.phases, "a report changes"
    require_sum(done)


@pytest.mark.parametrize("final", [False, True])
def test_waiting_for_the_save_before_is_the_first_phase(tmp_path, final):
    cp = make(tmp_path, background=True)
    cp.save()
    report = cp.save_if_due(final=True) if final else cp.save()
    assert next(iter(report.phases)) == "wait"


@pytest.mark.parametrize("background", [False, True])
def test_shards_are_collected_and_written_in_the_same_phases(tmp_path, background):
    cp = Checkpoint(tmp_path, background=background)
    cp.replay = elementsckpt.Saveable(lambda: (np.arange(n) for n in range(9)), print)
    report = cp.save()
    report = cp.wait() or report
    expected = {*IN_TURN, "wait", "copy"} if background else {*IN_TURN, "copy"}
    assert {*report.phases} == expected
    require_sum(report)


def test_a_component_that_saves_has_its_time_in_collect(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def save():
        now[0] += 5
        return np.arange(9)

    cp = Checkpoint(tmp_path)
    cp.slow = elementsckpt.Saveable(save, print)
    report = cp.save()
    assert report.phases == {**dict.fromkeys(IN_TURN, 0.0), "collect": 5.0}
    assert report.seconds == 5.0

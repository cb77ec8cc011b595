"""Where the time of a load went, in its report."""

import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint, Files, Value
from elementsckpt.system import phases

ORDER = ["wait", "find", "open", "compare", "current", "build", "read", "load"]


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when a test says so."""
    now = [100.0]
    monkeypatch.setattr(phases.time, "monotonic", lambda: now[0])

    def advance(seconds):
        now[0] += seconds

    return advance


class Slow:
    """A component that takes its time."""

    def __init__(self, advance):
        self.advance = advance

    def save(self):
        self.advance(3)
        return {"w": np.zeros(3), "n": 1}

    def load(self, data):
        self.advance(5)


def some_phases(report):
    """The phases of a report that took any time, all of which come in one order."""
    assert [x for x in ORDER if x in report.phases] == list(report.phases)
    assert sum(report.phases.values()) <= report.seconds
    return {name: x for name, x in report.phases.items() if x}


def test_a_load_reports_where_its_time_went(tmp_path, clock):
    cp = Checkpoint(tmp_path)
    cp.slow, cp.other = Slow(clock), Slow(clock)
    cp.save()
    report = cp.load()
    assert some_phases(report) == {"load": 10}
    assert report.phases.keys() == set(ORDER) - {"current"}
    assert some_phases(cp.load(regex="w")) == {"current": 6, "load": 10}
    assert some_phases(cp.load(regex="w", dry_run=True)) == {"current": 6}
    cp.other = Value({"w": np.ones(3), "n": 2})
    assert some_phases(cp.load(regex="w")) == {"current": 3, "load": 5}


def test_reading_is_a_phase_of_its_own_in_whatever_needs_it(
    tmp_path, clock, monkeypatch
):
    cp = Checkpoint(tmp_path)
    cp.slow = Slow(clock)
    cp.files = Files(save=lambda x: (x / "a").write_text("b"), load=lambda x: clock(1))
    cp.save()
    read = elementsckpt.loading.decoding.Reader.read

    def read_slowly(self, wants):
        clock(7)
        return read(self, wants)

    monkeypatch.setattr(elementsckpt.loading.decoding.Reader, "read", read_slowly)
    assert some_phases(cp.load()) == {"read": 7, "load": 6}
    report = elementsckpt.checkpoint.load(tmp_path, {"slow": cp.slow.load})
    assert some_phases(report) == {"read": 7, "load": 5}
    assert "wait" not in report.phases


def test_time_spent_on_a_damaged_save_counts(tmp_path, clock):
    cp = Checkpoint(tmp_path, keep=None)
    cp.slow = Slow(clock)
    cp.save()
    newest = cp.save().path
    (segment,) = newest.glob("*.safetensors")
    content = segment.read_bytes()
    segment.unlink()  # The older save has a link to it.
    segment.write_bytes(content[:-1])
    report = cp.load(regex="w")
    assert report.fell_back_from == newest
    assert some_phases(report) == {"current": 6, "load": 5}

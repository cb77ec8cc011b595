"""Seconds by the name of what was done."""

import threading

import pytest

from elementsckpt.system import phases
from elementsckpt.system.phases import Phases


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when a test says so."""
    now = [100.0]
    monkeypatch.setattr(phases.time, "monotonic", lambda: now[0])

    def advance(seconds):
        now[0] += seconds

    return advance


def test_seconds_of_a_phase_are_added_up(clock):
    measured = Phases()
    for _ in range(2):
        with measured("read"):
            clock(3)
    with measured("load"):
        clock(1)
    clock(9)
    assert measured.seconds() == {"read": 6, "load": 1}
    assert list(measured.seconds()) == ["read", "load"]


def test_seconds_of_an_inner_phase_are_not_those_of_the_outer_one(clock):
    measured = Phases()
    with measured("outer"):
        clock(1)
        for _ in range(2):
            with measured("inner"):
                clock(2)
                with measured("innermost"):
                    clock(4)
        clock(1)
    assert measured.seconds() == {"outer": 2, "inner": 4, "innermost": 8}
    assert list(measured.seconds()) == ["outer", "inner", "innermost"]


def test_a_phase_that_raises_counts(clock):
    measured = Phases()

    def fail():
        clock(2)
        raise KeyError

    with pytest.raises(KeyError), measured("outer"), measured("read"):
        fail()
    assert measured.seconds() == {"outer": 0, "read": 2}


def test_another_thread_goes_on_with_the_clock(clock):
    measured = Phases()

    def write():
        with measured("write"):
            clock(2)

    with measured("wait"):
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert measured.seconds() == {"wait": 2, "write": 2}


def test_seconds_that_have_passed_are_those_of_an_inner_phase(clock):
    measured = Phases()
    with measured("write"):
        clock(5)
        measured.passed("sync", 2)
        clock(1)
    assert measured.seconds() == {"write": 4, "sync": 2}

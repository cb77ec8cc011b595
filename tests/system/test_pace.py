"""Helpers give way to the rest of the program, until they are hurried."""

import os
import sys
import threading

import pytest

from elementsckpt.system import pace, threads
from elementsckpt.system.pace import Pace

on_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="threads have no priority of their own"
)


def own_nice(_=None):
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def in_a_thread(call):
    """Make the call in a new thread, and return what it returns."""
    results = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    thread.join(60)
    (result,) = results
    return result


def lead(call, work, at=None):
    """Lead the work in a new thread, and return what that returns."""

    def leader():
        (at or Pace()).lead()
        return threads.run(call, work)

    return in_a_thread(leader)


class Held:
    """Work that no helper ends before the thread that leads it has taken part."""

    def __init__(self):
        self.count = 0
        self._has_led = threading.Event()

    def __call__(self, _):
        self.begin()
        if not threading.current_thread().daemon:
            self._has_led.set()
        assert self._has_led.wait(60), "who leads the work does not take part"
        self.count += 1

    def begin(self):
        """Does nothing but in some tests."""


# Who has which priority


@on_linux
def test_helpers_have_the_lowest_priority_and_who_leads_them_keeps_its_own():
    before = own_nice()

    def leader():
        Pace().lead()
        return threads.run(own_nice, range(50)), own_nice()

    assert in_a_thread(leader) == ([19] * 50, before)
    assert own_nice() == before


def test_without_a_pace_nothing_gives_way(monkeypatch):
    monkeypatch.setattr(os, "setpriority", None)
    assert threads.run(abs, range(50)) == [*range(50)]


def test_what_refuses_a_priority_keeps_nothing_from_being_done(monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "setpriority", refuse)
    assert lead(abs, range(20)) == [*range(20)]


def test_where_threads_have_no_priority_the_process_keeps_its_own(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "setpriority", None)
    assert lead(abs, range(20)) == [*range(20)]


# Until when


def test_when_it_is_hurried_who_leads_the_work_takes_part():
    at, held = Pace(), Held()
    held.begin = at.hurry
    lead(held, range(20), at)
    assert held.count == 20


def test_when_the_interpreter_ends_who_leads_the_work_takes_part(monkeypatch):
    ends, held = threading.Event(), Held()
    held.begin = ends.set
    monkeypatch.setattr(pace, "is_ending", ends.is_set)
    lead(held, range(20))
    assert held.count == 20


def test_when_patience_ends_who_leads_the_work_takes_part(monkeypatch):
    now, held, at = [0.0], Held(), Pace()
    held.begin = lambda: now.__setitem__(0, 1e9)
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    lead(held, range(20), at)
    assert held.count == 20


@on_linux
def test_what_was_hurried_before_gives_no_way():
    at = Pace()
    at.hurry()
    assert lead(own_nice, range(50), at) == [own_nice()] * 50


def test_helpers_that_gave_way_take_no_more_work_when_it_is_hurried(monkeypatch):
    monkeypatch.setattr(pace, "HELPERS", 1)
    at, held, first, ended = Pace(), Held(), [], threading.Event()
    held.begin = at.hurry
    at.end = lambda _: ended.set()

    def work(number):
        first.append(threading.current_thread())
        held(number)
        if threading.current_thread() is not first[0]:
            assert ended.wait(60)

    lead(work, range(50), at)
    assert first.count(first[0]) == 1


# As without a pace


def test_little_needs_no_helper():
    def leader():
        Pace().lead()
        return threads.run(lambda _: threading.get_ident(), [0]), threading.get_ident()

    (worker,), ident = in_a_thread(leader)
    assert worker == ident


def test_where_no_thread_can_start_who_leads_the_work_does_all(monkeypatch):
    monkeypatch.setattr(threads, "start", lambda *_, daemon: False)
    assert lead(abs, range(20)) == [*range(20)]


def test_an_error_of_a_helper_is_raised_where_the_work_is_led():
    def fail(number):
        raise ValueError(number)

    def leader():
        Pace().lead()
        with pytest.raises(ValueError, match=r"^[01]$"):
            threads.run(fail, range(20))
        return threads.run(abs, range(20))

    assert in_a_thread(leader) == [*range(20)]

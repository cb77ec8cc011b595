"""`Every` is due when it says, once, and saving stays within its share of the run."""

import importlib.util
import json
import math
import pathlib
import signal
import sys
import threading
import time
from datetime import timedelta
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elementsckpt import Counter, Every
from elementsckpt.run import schedule

from support.boxes import make, python

LINUX = pathlib.Path("/proc/self/stat").exists()


class Clock:
    """Stands in for `time.monotonic`, and goes on only when it is told to."""

    def __init__(self, now=1000.0):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def resumed(every, fresh):
    """Return the other schedule in the state of the first, through JSON."""
    fresh.load(json.loads(json.dumps(every.save())))
    return fresh


# Arguments

WRONG = [
    ({}, ValueError, "never due"),
    ({"steps": 0}, ValueError, "positive"),
    ({"steps": -5}, ValueError, "positive"),
    ({"steps": 10.0}, TypeError, "integer"),
    ({"steps": "10"}, TypeError, "integer"),
    ({"steps": True}, TypeError, "integer"),
    ({"steps": timedelta(minutes=1)}, TypeError, "integer"),
    ({"seconds": 0}, ValueError, "positive"),
    ({"seconds": -1.0}, ValueError, "positive"),
    ({"seconds": math.nan}, ValueError, "finite"),
    ({"seconds": math.inf}, ValueError, "finite"),
    ({"seconds": timedelta(0)}, ValueError, "positive"),
    ({"seconds": timedelta(seconds=-1)}, ValueError, "positive"),
    ({"seconds": "600"}, TypeError, "timedelta"),
    ({"seconds": True}, TypeError, "timedelta"),
    ({"deadline": 0}, ValueError, "positive"),
    ({"deadline": math.inf}, ValueError, "finite"),
    ({"deadline": "3:45"}, TypeError, "timedelta"),
    ({"overhead": 0}, ValueError, "between 0 and 1"),
    ({"overhead": 1}, ValueError, "between 0 and 1"),
    ({"overhead": 2}, ValueError, "between 0 and 1"),
    ({"overhead": -0.1}, ValueError, "between 0 and 1"),
    ({"overhead": math.nan}, ValueError, "between 0 and 1"),
    ({"overhead": "2%"}, TypeError, "share"),
    ({"overhead": True}, TypeError, "share"),
]


@pytest.mark.parametrize(("arguments", "error", "words"), WRONG)
def test_wrong_arguments_are_named(arguments, error, words):
    with pytest.raises(error, match=words) as caught:
        Every(**arguments)
    for name, value in arguments.items():
        assert f"{name}={value!r}" in str(caught.value)


RIGHT = [
    {"steps": 1},
    {"steps": np.int64(7)},
    {"seconds": 0.5},
    {"seconds": np.float32(2)},
    {"seconds": Fraction(1, 2)},
    {"seconds": timedelta(minutes=10)},
    {"overhead": 0.02},
    {"overhead": np.float64(0.5)},
    {"deadline": 13500},
    {"deadline": timedelta(hours=3, minutes=45)},
    {"steps": 1000, "seconds": 600, "overhead": 0.1, "deadline": 60},
]


@pytest.mark.parametrize("arguments", RIGHT)
def test_repr_shows_what_was_given(arguments):
    shown = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    assert repr(Every(**arguments)) == f"Every({shown})"


def test_steps_come_first_and_the_rest_has_names():
    assert repr(Every(1000)) == "Every(steps=1000)"
    with pytest.raises(TypeError):
        Every(1000, 600)


def test_steps_must_be_told_where_they_count():
    for every in Every(10), Every(10, seconds=5):
        for call in every, every.is_due:
            with pytest.raises(ValueError, match=r"every\(step\).*component"):
                call()
        assert every(3) is True


def test_steps_need_not_be_told_where_they_do_not_count(clock):
    for every in Every(seconds=1), Every(overhead=0.5), Every(deadline=10**9):
        assert every() is True
    assert Every(seconds=1)(17) is True


@pytest.mark.parametrize("kind", [int, np.int32, np.array, Counter, float])
def test_a_step_is_what_int_accepts(kind):
    every = Every(10)
    assert [every(kind(step)) for step in (0, 9, 10, 11)] == [True, False, True, False]


# Steps


@given(
    steps=st.integers(1, 50),
    start=st.integers(-1000, 1000),
    gaps=st.lists(st.integers(0, 120), max_size=50),
)
def test_due_at_the_first_call_and_once_when_multiples_were_passed(steps, start, gaps):
    every, step = Every(steps), start
    assert every(step) is True
    for gap in gaps:
        passed = range(step + 1, step + gap + 1)
        step += gap
        assert every(step) is any(x % steps == 0 for x in passed)


def test_a_step_that_goes_back_begins_anew_and_is_not_due():
    every = Every(10)
    assert [every(step) for step in (0, 10, 20, 34)] == [True] * 4
    assert [every(step) for step in (12, 13, 19)] == [False] * 3
    assert [every(step) for step in (20, 20, 29, 30)] == [True, False, False, True]
    assert [every(step) for step in (20, 30)] == [False, True]


@given(st.lists(st.integers(0, 60), min_size=1, max_size=60), st.integers(1, 20))
def test_whatever_the_steps_the_same_one_is_due_once(path, steps):
    every = Every(steps)
    for step in path:
        every(step)
        assert every(step) is False


def test_a_step_that_is_a_little_late_is_not_due_and_changes_nothing():
    every = Every(10)
    assert [every(step) for step in (0, 30, 29, 30, 31)] == [True, True] + [False] * 3
    assert [every(step) for step in (38, 40)] == [False, True]


# Seconds


def test_seconds_count_from_the_last_time_it_was_due(clock):
    every = Every(seconds=10)
    answers = []
    for clock.now in (0.0, 9.9, 10.0, 10.1, 19.9, 55.0, 64.9, 65.0):
        answers.append(every())
    assert answers == [True, False, True, False, False, True, False, True]


def test_a_timedelta_is_so_many_seconds(clock):
    every = Every(seconds=timedelta(minutes=1))
    assert every()
    clock.now += 59
    assert not every()
    clock.now += 1
    assert every()


def test_of_steps_and_seconds_whichever_comes_first_and_then_both_begin_anew(clock):
    every = Every(100, seconds=10)
    # Step, seconds since the last call, and whether it is due.
    for step, wait, expected in [
        (0, 0, True),
        (99, 9, False),
        (100, 0, True),  # By steps, so the seconds begin anew.
        (101, 9, False),
        (102, 1, True),  # By seconds, and the grid of steps stays.
        (199, 5, False),
        (200, 5, True),  # By both, once.
        (201, 5, False),
    ]:
        clock.now += wait
        assert every(step) is expected, step


# Overhead


def test_a_save_of_c_seconds_is_followed_by_so_many_without_one(clock):
    every = Every(overhead=0.02)
    assert every.is_due()
    clock.now += 4
    every.mark(seconds_blocked=4)
    clock.now += 4 * 49 - 0.001
    assert not every.is_due()
    clock.now += 0.001
    assert every.is_due()


def test_by_itself_it_takes_the_time_until_the_next_call_for_the_cost(clock):
    every = Every(overhead=0.25)
    assert every()
    clock.now += 8
    assert not every()
    clock.now += 23
    assert not every()
    clock.now += 1
    assert every()


def test_steps_are_due_only_when_the_overhead_allows(clock):
    every = Every(10, overhead=0.5)
    every.mark(0, seconds_blocked=100)
    clock.now += 99
    assert not every.is_due(10)
    assert not every.is_due(20)
    clock.now += 1
    assert every.is_due(21)
    every.mark(21, seconds_blocked=1)
    clock.now += 1000
    assert not every.is_due(29)
    assert every.is_due(30)


def test_seconds_are_due_only_when_the_overhead_allows(clock):
    every = Every(seconds=10, overhead=0.5)
    every.mark(seconds_blocked=30)
    clock.now += 29
    assert not every.is_due()
    clock.now += 1
    assert every.is_due()
    every.mark(seconds_blocked=1)
    clock.now += 9
    assert not every.is_due()


costs = st.integers(0, 1000).map(lambda x: x / 8)
turns = st.tuples(costs, costs, st.booleans())  # Training, a save, one by hand?
shares = st.sampled_from([1 / 2, 1 / 4, 1 / 64])  # Exact, as are all times.


@given(shares, st.sampled_from([{}, {"steps": 3}, {"seconds": 9}]), st.lists(turns))
def test_whenever_it_is_due_saving_has_taken_no_more_than_its_share(share, others, run):
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", clock)
        every, begin, blocked = Every(overhead=share, **others), clock.now, 0.0
        for step, (training, cost, by_hand) in enumerate(run):
            clock.now += training
            is_due = every.is_due(step)
            if is_due:
                assert blocked <= share * (clock.now - begin)
            if is_due or by_hand:
                clock.now += cost
                blocked += cost
                every.mark(step, seconds_blocked=cost)


@given(shares, st.lists(st.tuples(costs, costs)))
def test_it_is_due_as_soon_as_the_share_allows(share, run):
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", clock)
        every, allowed = Every(overhead=share), -math.inf
        for training, cost in run:
            clock.now += training
            assert every.is_due() is (clock.now >= allowed)
            if every.is_due():
                clock.now += cost
                every.mark(seconds_blocked=cost)
                allowed = clock.now + cost * (1 / share - 1)


@given(shares, st.lists(st.tuples(costs, costs)))
def test_by_itself_it_stays_within_the_share_too(share, run):
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", clock)
        every, begin, blocked = Every(overhead=share), clock.now, 0.0
        for training, cost in run:
            clock.now += training
            if every():
                assert blocked <= share * (clock.now - begin)
                clock.now += cost
                blocked += cost


# A deadline


@pytest.fixture
def age(monkeypatch):
    """Let the process be as many seconds old as the number returned."""
    age, status = 100.0, b"1 (python) R" + b" 0" * 50  # Begun with the machine.
    monkeypatch.setattr(pathlib.Path, "read_bytes", lambda path: status)
    monkeypatch.setattr(time, "CLOCK_BOOTTIME", 7, raising=False)
    monkeypatch.setattr(time, "clock_gettime", lambda clock: age, raising=False)
    return age


def test_a_deadline_is_due_once_and_counts_from_the_start_of_the_process(clock, age):
    every = Every(deadline=timedelta(seconds=age + 50))
    assert (every(), every(), every.is_past_deadline) == (True, False, False)
    clock.now += 49.9
    assert (every(), every.is_past_deadline) == (False, False)
    clock.now += 0.1
    assert every.is_past_deadline
    assert (every(), every(), every.is_past_deadline) == (True, False, True)
    clock.now += 1e9
    assert (every(), every.is_past_deadline) == (False, True)


def test_a_deadline_that_has_passed_already_is_due_at_the_first_call_alone(clock, age):
    every = Every(deadline=age - 1)
    assert every.is_past_deadline
    assert (every(), every()) == (True, False)


def test_a_deadline_comes_on_top_of_the_rest_and_waits_for_no_overhead(clock, age):
    every = Every(10, overhead=0.01, deadline=age + 50)
    every.mark(0, seconds_blocked=1000)
    clock.now += 49
    assert not every.is_due(11)
    clock.now += 1
    assert every.is_due(11)
    every.mark(11, seconds_blocked=1)
    assert not every.is_due(12)
    assert every.is_past_deadline


def test_a_save_after_the_deadline_meets_it_whyever_it_was_made(clock, age):
    every = Every(10, deadline=age + 50)
    every.mark(0, seconds_blocked=0)
    clock.now += 60
    every.mark(5, seconds_blocked=0)
    assert not every.is_due(6)


def test_without_a_deadline_it_is_never_past():
    assert not Every(1).is_past_deadline


@pytest.mark.skipif(not LINUX, reason="needs /proc")
def test_a_process_is_as_old_as_the_system_says():
    script = """
import time
from elementsckpt.run import schedule
print(time.clock_gettime(time.CLOCK_BOOTTIME) - schedule._process_age())
"""
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    child = python(script)
    after = time.clock_gettime(time.CLOCK_BOOTTIME)
    # Ticks are coarse, and the clocks of a machine may drift apart a little.
    assert before - 1 <= float(child.stdout) <= after, child.stderr


@pytest.mark.skipif(not LINUX, reason="needs /proc")
def test_a_program_may_have_any_name():
    script = """
open("/proc/self/comm", "w").write("a) R 1 (b")
from elementsckpt.run import schedule
assert 0 <= schedule._process_age() < 3600
"""
    child = python(script)
    assert child.returncode == 0, child.stderr


@pytest.mark.parametrize(
    "content", [None, b"", b"1 (python) R 0", b"1 (a) " + b"x " * 50]
)
def test_where_the_system_does_not_tell_a_process_begins_with_the_import(
    clock, monkeypatch, content
):
    def read_bytes(path):
        if content is None:
            raise FileNotFoundError(path)
        return content

    monkeypatch.setattr(pathlib.Path, "read_bytes", read_bytes)
    fresh = importlib.util.module_from_spec(schedule.__spec__)
    fresh.__spec__.loader.exec_module(fresh)
    clock.now += 7
    every = fresh.Every(deadline=10)
    assert not every.is_past_deadline
    clock.now += 3
    assert every.is_past_deadline


# Asking and telling apart


def test_asking_changes_nothing(clock):
    for every in Every(10), Every(10, seconds=5), Every(10, overhead=0.5):
        assert all(every.is_due(0) for _ in range(3))
        every.mark(0, seconds_blocked=0)
        assert not any(every.is_due(9) for _ in range(3))
        assert all(every.is_due(10) for _ in range(3))


def test_a_save_by_hand_is_not_made_again(clock):
    every = Every(10, seconds=5)
    every.mark(10, seconds_blocked=1)
    assert not every(10)
    assert not every(11)
    clock.now += 4
    every.mark(20, seconds_blocked=1)
    clock.now += 4
    assert not every(29)
    assert every(30)


def test_a_save_without_a_step_leaves_the_steps_as_they_were(clock):
    every = Every(10)
    every.mark(10, seconds_blocked=1)
    every.mark(None, seconds_blocked=1)
    assert not every(19)
    assert every(20)


def test_a_cost_that_is_told_counts_instead_of_the_time_until_the_next_call(clock):
    every = Every(overhead=0.5)
    assert every()
    clock.now += 2
    every.mark(seconds_blocked=2)
    clock.now += 1.5
    assert not every()
    clock.now += 0.5
    assert every()


# Resuming


@given(st.integers(1, 20), st.lists(st.integers(0, 50), min_size=2), st.data())
def test_a_schedule_that_is_resumed_goes_on_as_if_nothing_had_happened(
    steps, gaps, data
):
    path = np.cumsum(gaps).tolist()
    stop = data.draw(st.integers(1, len(path) - 1))
    straight, first = Every(steps), Every(steps)
    expected = [straight(step) for step in path]
    answers = [first(step) for step in path[:stop]]
    second = resumed(first, Every(steps))
    assert answers + [second(step) for step in path[stop:]] == expected


def test_seconds_begin_anew_when_it_is_resumed(clock):
    every = Every(seconds=10)
    assert every()
    clock.now += 9
    other = resumed(every, Every(seconds=10))
    clock.now += 9
    assert not other()
    clock.now += 1
    assert other()


def test_the_cost_of_the_last_save_is_kept_when_it_is_resumed(clock):
    every = Every(overhead=0.5)
    every.mark(0, seconds_blocked=30)
    clock.now += 29
    other = resumed(every, Every(overhead=0.1))
    clock.now += 269
    assert not other()
    clock.now += 1
    assert other()


def test_an_older_save_can_be_loaded_by_a_schedule_in_use(clock):
    every = Every(10, overhead=0.5)
    every.mark(10, seconds_blocked=3)
    older = every.save()
    every.mark(20, seconds_blocked=1000)
    every.load(older)
    clock.now += 2
    assert not every(20)
    clock.now += 1
    assert every(20)
    clock.now += 50
    every.load({"step": 10})  # What the last save cost is not known there, but here.
    clock.now += 2
    assert not every(20)
    clock.now += 1
    assert every(20)


def test_a_save_that_is_never_ended_does_not_count_when_it_is_resumed(clock):
    every = Every(overhead=0.5)
    assert every()
    clock.now += 1000
    every.load({"seconds_blocked": 3.0})
    clock.now += 3
    assert every()


def test_another_deadline_counts_when_it_is_resumed(clock, age):
    every = Every(deadline=age + 10)
    clock.now += 10
    assert every()
    other = resumed(every, Every(deadline=age + 10))
    assert not other()
    clock.now += 10
    assert other()


def test_a_save_can_hold_the_schedule_as_it_will_be_after_it():
    every = Every(10)
    assert every(10)
    other = Every(10)
    other.load(every.save(step=Counter(20)))
    assert not other(29)
    assert other(30)
    assert every(20)


def test_what_another_schedule_saved_will_do(clock):
    every = Every(seconds=5)
    assert every(17)
    other = resumed(every, Every(10))
    assert not other(19)
    assert other(20)


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "text",
        {},
        {"step": None, "seconds_blocked": None},
        {"step": "7", "seconds_blocked": "1"},
        {"step": True, "seconds_blocked": True},
        {"step": 1.5, "seconds_blocked": -1.0},
        {"seconds_blocked": math.nan},
        {"seconds_blocked": math.inf},
        {"seconds_blocked": 10**400},
        {"steps": 7, "more": object()},
    ],
)
def test_what_makes_no_sense_is_ignored(clock, data):
    every = Every(10, overhead=0.5)
    every.load(data)
    assert not every.is_due(13)  # It is resumed, all the same.
    assert every.is_due(20)
    assert json.dumps(every.save(20)) == '{"step": 20, "seconds_blocked": null}'


def test_it_can_be_registered(tmp_path):
    cp = make(tmp_path, {})
    cp.every = Every(10)
    assert cp.every(13)
    cp.save()
    other = make(tmp_path, {})
    other.every = Every(10)
    other.load()
    assert not other.every(19)
    assert other.every(20)


# Threads and signals


@pytest.fixture
def switching():
    """Let threads take turns as often as the interpreter can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def run_threads(work, count=4):
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_one_of_the_threads_that_ask_at_once_is_told(switching):
    every, barrier, answers = Every(1), threading.Barrier(4), []

    def work():
        for step in range(500):
            barrier.wait()
            answers.append((step, every(step)))

    run_threads(work)
    assert sorted(step for step, answer in answers if answer) == [*range(500)]


def test_threads_that_share_a_counter_are_told_once_for_each_multiple(switching):
    every, counter, answers = Every(7), Counter(), []
    assert every(counter)

    def work():
        for _ in range(2000):
            counter.increment()
            answers.append(every(counter))

    run_threads(work)
    assert 0 < sum(answers) <= 8000 // 7
    assert not every(counter)


def test_a_signal_handler_may_ask_while_its_thread_is_being_told():
    answers = []

    class Interrupted:
        def __int__(self):
            signal.raise_signal(signal.SIGUSR1)
            return 20

    every = Every(10)
    assert every(0)
    before = signal.signal(signal.SIGUSR1, lambda *_: answers.append(every(20)))
    try:
        answers.append(every(Interrupted()))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert answers == [True, False]

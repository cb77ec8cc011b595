"""An interrupt ends the helper threads, too, and what handles one has them."""

import signal
import threading

import pytest

from elementsckpt.system import threads

from support import library_threads


@pytest.fixture
def release():
    """Return an event that a signal sets, in the main thread, a moment later."""
    event = threading.Event()
    interrupts = [2]

    def ring(*_):
        if interrupts[0]:
            interrupts[0] -= 1
            raise KeyboardInterrupt
        event.set()

    previous = signal.signal(signal.SIGALRM, ring)
    yield event
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)
    event.set()
    library_threads.join()


def test_ctrl_c_leaves_no_helpers_behind(release):
    entered = threading.Event()
    inside = set()

    def work(number):
        if threading.current_thread() is threading.main_thread():
            assert entered.wait(60)
            signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
            signal.raise_signal(signal.SIGINT)
        inside.add(number)
        entered.set()
        release.wait(60)
        inside.discard(number)

    with pytest.raises(KeyboardInterrupt):
        threads.run(work, range(20))
    # Until 3.12 a join() that is interrupted takes its thread for dead.
    assert not inside
    assert not library_threads.running()


def test_ctrl_c_while_helpers_start_leaves_none_behind(release, monkeypatch):
    start = threading.Thread.start
    entered = threading.Event()
    inside = set()

    def interrupted(thread):
        start(thread)
        assert entered.wait(60)
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        signal.raise_signal(signal.SIGINT)

    def work(number):
        inside.add(number)
        entered.set()
        release.wait(60)
        inside.discard(number)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        threads.run(work, range(20))
    assert not inside
    assert not library_threads.running()


def test_a_helper_that_starts_when_an_interrupt_has_ended_the_work_does_nothing(
    monkeypatch,
):
    start, late, done = threading.Thread.start, [], []

    def interrupted(thread):
        late.append(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt) as kept:
        threads.run(done.append, range(20))
    (thread,) = late
    start(thread)
    thread.join()
    assert (done, kept.type) == ([], KeyboardInterrupt)


def test_an_interrupt_that_threading_turns_into_another_error_is_one(monkeypatch):
    def interrupted(thread):
        try:
            raise KeyboardInterrupt
        finally:  # As where it comes just when a condition has released its lock.
            raise RuntimeError("release unlocked lock")

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        threads.run(abs, range(20))


def test_what_handles_an_interrupt_works_where_no_thread_can_start(monkeypatch):
    def refused(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert threads.run(abs, range(-5, 0)) == [5, 4, 3, 2, 1]

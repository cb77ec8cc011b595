"""What goes wrong in the background is logged at once and raised once, later."""

import errno
import itertools
import logging
import os
import signal
import threading

import pytest

import elementsckpt
from elementsckpt import Checkpoint, SaveNotFoundError, WriteError
from elementsckpt.storage import disk

from support.boxes import Box, load_agent, make, visible
from support.faults import Fails, unsynced
from support.folders import Gate, noise, use_small_blocks
from support.strategies import assert_same


@pytest.fixture
def log(caplog):
    """Return the log of this library."""
    caplog.set_level(logging.DEBUG, "elementsckpt")
    return caplog


class Full:
    """A disk that is full for saves in the background until `free` is called."""

    def __init__(self):
        self.caller = threading.current_thread()
        self.is_full = True

    def free(self):
        self.is_full = False

    def __call__(self, call, *args):
        thread = threading.current_thread()
        is_background = thread is not self.caller and not thread.daemon
        if self.is_full and is_background and call is os.open:
            raise OSError(errno.ENOSPC, "injected")
        return unsynced(call, *args)


@pytest.fixture
def failed(tmp_path, inject):
    """Return a checkpoint with one good save, whose second one fails."""
    cp = make(tmp_path / "ckpt", 1, background=True, keep=None)
    cp.save()
    cp.wait()
    full = Full()
    inject(full)
    cp.agent.state = noise(1)
    assert not cp.save().is_finished
    cp.load(dry_run=True)  # Waits, and leaves the error for later.
    full.free()
    return cp


def errors(log):
    return [x for x in log.records if x.levelno >= logging.ERROR]


# Where it is raised


def test_wait_raises_it_once(failed):
    with pytest.raises(WriteError, match="injected") as error:
        failed.wait()
    assert error.value.errno == errno.ENOSPC
    assert any("in the background" in note for note in error.value.__notes__)
    assert failed.wait() is None
    failed.close()


def test_promise_6_a_failure_in_the_background_is_raised_once_and_costs_one_save(
    failed,
):
    saves = failed.agent.saves
    with pytest.raises(WriteError, match="injected"):
        failed.save()
    assert failed.agent.saves == saves
    failed.save()
    assert failed.wait().is_finished
    failed.load()
    assert_same(noise(1), failed.agent.state)


def test_close_raises_it_once(failed):
    with pytest.raises(WriteError, match="injected"):
        failed.close()
    failed.close()
    failed.save()
    assert failed.wait().is_finished


def test_the_end_of_a_with_block_raises_it(failed):
    with pytest.raises(WriteError, match="injected"), failed:
        pass
    assert failed.wait() is None


def test_an_error_in_a_with_block_is_not_hidden_by_it(failed, log):
    with pytest.raises(RuntimeError, match="mine") as error, failed:
        raise RuntimeError("mine")
    assert error.value.__cause__ is None
    assert failed.wait() is None


def test_a_with_block_waits_for_the_save(tmp_path):
    with make(tmp_path, noise(1), background=True) as cp:
        path = cp.save().path
    assert (path / "manifest.json").exists()


def test_a_with_block_that_fails_still_finishes_the_save(tmp_path):
    cp = make(tmp_path, noise(1), background=True)
    with pytest.raises(ZeroDivisionError), cp:
        1 // (cp.save().bytes_written)
    assert cp.exists()


@pytest.mark.parametrize("verb", ["load", "load_or_save"])
def test_loading_takes_the_older_save_and_leaves_the_error_for_later(failed, verb):
    getattr(failed, verb)()
    assert failed.agent.state == 1
    with pytest.raises(WriteError, match="injected"):
        failed.wait()


def test_it_is_logged_at_once(tmp_path, inject, log):
    inject(Full())
    cp = make(tmp_path, noise(1), background=True)
    cp.save()
    assert not cp.exists()
    with pytest.raises(SaveNotFoundError):
        cp.load()  # Waits, and leaves the error for later.
    assert ["injected" in x.getMessage() for x in errors(log)] == [True]
    with pytest.raises(WriteError):
        cp.wait()
    assert len(errors(log)) == 1


def test_the_save_before_it_is_untouched_and_no_trace_is_left(failed):
    with pytest.raises(WriteError):
        failed.wait()
    path = failed.latest()
    assert visible(path.parent) == [path.name, "latest"]
    failed.load()
    assert failed.agent.state == 1


# Each call fails


@pytest.mark.parametrize("staging_bytes", [0, None])
@pytest.mark.parametrize("sticky", [False, True])
def test_any_call_may_fail(tmp_path, monkeypatch, inject, log, sticky, staging_bytes):
    use_small_blocks(monkeypatch.setattr)
    outcomes = set()
    for n in itertools.count(1):
        inject(unsynced)
        cp = make(tmp_path / str(n), background=True, staging_bytes=staging_bytes)
        cp.agent.state = old = [noise(seed, 2000) for seed in range(6)]
        cp.save()
        cp.wait()
        cp.agent.state = new = [*old[2:], noise(9, 2000)]
        log.clear()
        fault = Fails(n, OSError(errno.ENOSPC, "injected"), sticky=sticky)
        inject(fault)
        outcome = attempt(cp)
        inject(unsynced)
        outcomes.add(outcome)
        assert len(errors(log)) == (outcome == "later")
        assert cp.wait() is None
        found = load_agent(cp.latest())
        # Of a disk that refuses even to take it back, the save may be there.
        is_new = outcome == "saved" or (sticky and len(found) == len(new))
        assert_same(new if is_new else old, found)
        cp.agent.state = new
        cp.save()
        path = cp.wait().path
        assert_same(new, load_agent(path))
        assert visible(path.parent) == [path.name, "latest"]
        if fault.count < n:
            break
    assert outcomes == {"at once", "later", "saved"}


def attempt(cp):
    """Save; return when it failed, if it did."""
    try:
        cp.save()
    except WriteError:
        return "at once"
    try:
        report = cp.wait()
    except WriteError:
        return "later"
    assert report.is_finished
    return "saved"


# One save at a time


def test_save_returns_a_report_that_wait_completes(tmp_path, gate):
    cp = make(tmp_path, noise(1), background=True, step=7)
    begun = cp.save(metadata={"a": 1})
    assert not begun.is_finished
    assert (begun.bytes_written, begun.bytes_reused) == (0, 0)
    assert begun.bytes_total == 100_000
    gate.open()
    done = cp.wait()
    assert done.is_finished
    assert (done.path, done.step, done.sequence) == (begun.path, 7, begun.sequence)
    files = sum(x.stat().st_size for x in done.path.iterdir())
    assert done.bytes_written == files
    assert elementsckpt.info(done.path).metadata == {"a": 1}
    assert cp.wait() is None


def test_a_save_not_in_the_background_is_finished(tmp_path):
    cp = make(tmp_path, 1)
    assert cp.save().is_finished
    assert cp.wait() is None
    cp.close()


def test_without_write_there_is_nothing_to_wait_for(tmp_path):
    cp = make(tmp_path, noise(1), background=True, write=False)
    assert cp.save().is_finished
    assert cp.wait() is None
    assert list(tmp_path.iterdir()) == []


class Witness(Box):
    """Notes at each save how many saves are in the directory."""

    def __init__(self, directory):
        super().__init__(1)
        self.directory = directory
        self.seen = []

    def save(self):
        self.seen.append(len([*self.directory.glob("*/manifest.json")]))
        return super().save()


def test_the_next_save_waits_for_the_one_before(tmp_path, gate):
    cp = Checkpoint(tmp_path, background=True, keep=None)
    cp.agent = Witness(tmp_path)
    cp.save()
    threading.Timer(0.1, gate.open).start()
    for _ in range(4):
        cp.save()
    cp.wait()
    assert cp.agent.seen == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("verb", ["load", "load_or_save"])
def test_loading_waits_for_the_save_in_flight(tmp_path, gate, verb):
    cp = make(tmp_path, "new", background=True)
    path = cp.save().path
    cp.agent.state = "changed"
    threading.Timer(0.1, gate.open).start()
    loaded = getattr(cp, verb)()
    assert loaded is True or loaded.path == path
    assert cp.agent.state == "new"
    assert cp.wait().is_finished


def test_the_first_load_or_save_saves_in_the_background(tmp_path, gate):
    cp = make(tmp_path, 1, background=True)
    assert cp.load_or_save() is False
    assert cp.saves() == []
    gate.open()
    cp.wait()
    assert cp.load_or_save() is True


def test_a_save_in_flight_is_not_seen_by_others(tmp_path, gate):
    make(tmp_path, "old").save()
    cp = make(tmp_path, "new", background=True)
    cp.save()
    other = make(tmp_path)
    other.load()
    assert other.agent.state == "old"
    assert [x.path for x in other.saves()] == [other.latest()]
    gate.open()
    cp.wait()
    other.load()
    assert other.agent.state == "new"


def test_keep_and_latest_are_as_without_background(tmp_path):
    cp = make(tmp_path, background=True, keep=3)
    paths = []
    for value in range(6):
        cp.agent.state = value
        paths.append(cp.save().path.name)
    cp.wait()
    assert visible(tmp_path) == [*paths[-3:], "latest"]
    assert (tmp_path / "latest").read_text() == paths[-1]


def test_explicit_paths_are_saved_in_the_background_too(tmp_path, gate):
    cp = make(None, noise(1), background=True)
    report = cp.save(tmp_path / "mine")
    assert not report.is_finished
    assert not elementsckpt.checkpoint.exists(tmp_path / "mine")
    gate.open()
    assert cp.wait().path == tmp_path / "mine"
    cp.load(tmp_path / "mine")


def test_another_thread_may_save_and_wait(tmp_path):
    cp = make(tmp_path, keep=None, background=True)
    problems = []

    def save():
        try:
            for _ in range(5):
                cp.save()
                cp.wait()
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=save) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert [x.sequence for x in cp.saves()] == [*range(1, 21)]


# Ctrl-C


@pytest.mark.parametrize("verb", ["wait", "close", "save", "load"])
def test_an_interrupt_while_waiting_keeps_the_save(tmp_path, gate, verb):
    cp = make(tmp_path, "state", background=True)
    path = cp.save().path

    def call():
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        getattr(cp, verb)()

    with pytest.raises(KeyboardInterrupt):
        call()
    gate.open()
    assert cp.wait().path == path
    cp.load()
    assert cp.agent.state == "state"


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interrupt_as_the_thread_starts_makes_the_save_whole_or_absent(
    tmp_path, gate, monkeypatch, when
):
    cp = make(tmp_path, "old", background=True)
    cp.save()
    gate.open()
    old = cp.wait().path
    start = threading.Thread.start

    def interrupted(thread):
        if when == "after":
            start(thread)
        raise KeyboardInterrupt

    cp.agent.state = "new"
    slow = Gate()
    monkeypatch.setattr(disk, "syscall", slow)
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cp.save()
    monkeypatch.setattr(threading.Thread, "start", start)
    if when == "after":  # Nobody has taken it from the thread that writes it.
        assert len([*tmp_path.glob("*/.manifest.json")]) == 1
        slow.open()
        path = cp.wait().path
        assert (load_agent(path), cp.latest()) == ("new", path)
    else:
        assert cp.wait() is None
        assert visible(tmp_path) == [old.name, "latest"]
    slow.open()
    cp.save()
    path = cp.wait().path
    assert visible(tmp_path) == [path.name, "latest"]
    assert load_agent(path) == "new"

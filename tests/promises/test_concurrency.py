"""Threads, signal handlers, forks, processes and clocks: each save stays whole."""

import concurrent.futures
import contextlib
import errno
import fcntl
import itertools
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint, SaveExistsError, WriteError, checkpoint
from elementsckpt.directory.listing import Directory
from elementsckpt.run import background, saver
from elementsckpt.storage import descriptors, disk, drafts, files, folders, removal

from support.boxes import Box, environment, make, make_boxes, python, visible
from support.deadlines import deadline
from support.faults import unsynced, use_one_thread
from support.folders import Clock, Gate, manifest_of
from support.numbered import make as make_numbered
from support.numbered import number_in, number_of

NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


@pytest.fixture(autouse=True)
def no_hang():
    """Turn waiting for ever into a failure."""
    with deadline(120):
        yield


@pytest.fixture
def told(caplog):
    """Return a function that returns what was logged, except of runs that meet."""
    return lambda: [x for x in caplog.messages if "another run" not in x]


def at_once(*calls):
    """Call functions in threads of their own, at once; return their results."""
    start = threading.Barrier(len(calls))

    def begin(call):
        start.wait()
        return call()

    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(begin, calls))


# Threads


def saving(cp, own, numbers):
    """Return a function that saves numbers and returns them with their reports."""

    def save():
        reports = []
        for number in numbers:
            own.number = number
            reports.append((number, cp.save()))
        return reports

    return save


def check_all_whole(directory, reports):
    """Check that each save of a directory is the one that its caller asked for."""
    assert {report.path: number for number, report in reports} == {
        found.path: number_of(found.path) for found in Checkpoint(directory).saves()
    }
    assert visible(directory) == sorted(
        ["latest", *(report.path.name for _, report in reports)]
    )


@pytest.mark.parametrize("is_background", [False, True])
def test_threads_that_share_an_object_each_get_their_own_save(tmp_path, is_background):
    own = threading.local()
    cp = make_numbered(tmp_path, lambda: own.number, background=is_background)
    calls = [saving(cp, own, range(start, start + 4)) for start in (0, 10, 20)]
    reports = [*itertools.chain(*at_once(*calls))]
    cp.close()
    check_all_whole(tmp_path, reports)
    assert [found.sequence for found in cp.saves()] == [*range(1, 13)]


@pytest.mark.parametrize("is_background", [False, True])
def test_objects_that_share_a_directory_each_make_whole_saves(
    tmp_path, is_background, told
):
    own = threading.local()
    options = {"background": is_background}
    cps = [make_numbered(tmp_path, lambda: own.number, **options) for _ in range(3)]
    calls = [saving(cp, own, [n, n + 10, n + 20]) for n, cp in enumerate(cps)]
    reports = [*itertools.chain(*at_once(*calls))]
    for cp in cps:
        cp.close()
    check_all_whole(tmp_path, reports)
    assert told() == []


def test_objects_that_share_a_directory_may_remove_each_others_saves(tmp_path):
    own = threading.local()
    cps = [make_numbered(tmp_path, lambda: own.number, keep=2) for _ in range(3)]
    calls = [saving(cp, own, range(n, n + 50, 10)) for n, cp in enumerate(cps)]
    paths = {x.path: n for n, x in itertools.chain(*at_once(*calls))}
    left = Checkpoint(tmp_path).saves()
    assert len(left) >= 2
    assert [paths[found.path] for found in left] == [
        number_of(found.path) for found in left
    ]
    own.number = 99
    cps[0].save()
    assert len(cps[0].saves()) == 2
    assert number_of(tmp_path) == 99


@pytest.mark.parametrize("who", ["threads", "handler"])
def test_first_saves_at_once_are_not_taken_for_two_processes(
    tmp_path, monkeypatch, told, who
):
    opened = descriptors.open_folder
    cps = [make(tmp_path, n, keep=None) for n in range(2)]
    both = threading.Barrier(2, timeout=60)
    saves = iter([cps[1].save])

    def open_folder(path):
        if who == "threads":
            both.wait()
        else:
            next(saves, int)()
        return opened(path)

    monkeypatch.setattr(descriptors, "open_folder", open_folder)
    at_once(*(cp.save for cp in cps)) if who == "threads" else cps[0].save()
    assert len(cps[0].saves()) == 2
    assert told() == []


def test_readers_in_threads_see_one_save_at_a_time_and_go_forward(tmp_path, inject):
    inject(unsynced)
    saved = itertools.count(1)
    cp = make_numbered(tmp_path, lambda: last[0], keep=1, background=True)
    last = [next(saved)]
    cp.save()
    cp.wait()
    is_over = threading.Event()

    def save():
        try:
            for last[0] in itertools.islice(saved, 30):
                cp.save()
            cp.close()
        finally:
            is_over.set()

    def read():
        yield from iter(lambda: number_in(some(tmp_path)), None)

    def load():
        loaded = {}
        reader = make_numbered(tmp_path, loaded=loaded)
        while True:
            reader.load(keys=["agent", "replay"])
            yield number_in(loaded)

    def until_over(numbers):
        found = [next(numbers)]
        while not is_over.is_set():
            found.append(next(numbers))
        return [*found, next(numbers)]

    def some(path):
        return elementsckpt.read(path, ["agent", "replay"])

    calls = [save, lambda: until_over(read()), lambda: until_over(load())]
    for found in at_once(*calls)[1:]:
        assert found == sorted(found)
        assert found[-1] == 31


def test_an_object_loads_in_one_thread_while_it_saves_in_another(tmp_path, inject):
    inject(unsynced)
    own, loaded = threading.local(), {}
    cp = make_numbered(tmp_path, lambda: own.number, loaded, keep=1, background=True)
    own.number = 0
    cp.save()

    def load():
        found = []
        for _ in range(10):
            cp.load()
            found.append(number_in(loaded))
        return found

    found, _ = at_once(load, saving(cp, own, range(1, 11)))
    assert found == sorted(found)
    cp.load()
    assert number_in(loaded) == 10


# Two saves of one number, which writers make that do not know of each other


@pytest.fixture
def tied(tmp_path, inject, monkeypatch):
    """Return two checkpoints that have each made a save, of the same number."""
    both = threading.Barrier(2, timeout=60)

    def commit_together(call, *args):
        if call is os.replace and args[1].name == "manifest.json":
            both.wait()
        return unsynced(call, *args)

    cps = [make(tmp_path, number, keep=None) for number in range(2)]
    inject(commit_together)
    reports = at_once(*(cp.save for cp in cps))
    inject(unsynced)
    assert [report.sequence for report in reports] == [1, 1]
    return cps


def test_readers_agree_on_the_newest_of_two_saves_of_one_number(tmp_path, forked, tied):
    newest = max(found.path for found in tied[0].saves())
    fresh, loading = Checkpoint(tmp_path), make(tmp_path)
    assert elementsckpt.info(tmp_path).path == newest
    for cp in (*tied, fresh):
        assert cp.latest() == cp.saves()[-1].path == newest
    assert loading.load().path == newest
    assert loading.agent.state == elementsckpt.read(tmp_path)["agent"]
    assert loading.agent.state == elementsckpt.read(newest)["agent"]
    script = "import sys, elementsckpt; print(elementsckpt.info(sys.argv[1]).path)"
    assert forked(script, tmp_path).stdout == f"{newest}\n"


@pytest.mark.parametrize("writer", [0, 1])
def test_the_next_save_is_after_both_saves_of_one_number(tmp_path, tied, writer):
    cp = make(tmp_path, 7, keep=1)
    for which in (tied[writer], cp):
        report = which.save()
        assert [x.latest() for x in (*tied, cp)] == [report.path] * 3
    assert report.sequence == 3
    assert [found.path for found in cp.saves()] == [report.path]


# Signal handlers, which run between any two lines


class Interrupts:
    """Calls a function before one line that this thread runs, in some files.

    Args:
      line: How many lines to run before.
      call: The function.
      results: Gets what it returns.
    """

    FILES = frozenset(x.__file__ for x in (background, checkpoint, saver, threading))

    def __init__(self, line, call, results):
        self.lines = 0
        self._line = line
        self._call = call
        self._results = results

    def __enter__(self):
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_):
        sys.settrace(None)

    def _enter(self, frame, event, _):
        return self._step if frame.f_code.co_filename in self.FILES else None

    def _step(self, frame, event, _):
        if event == "line":
            if self.lines == self._line:
                self._results.append(self._call())
            self.lines += 1
        return self._step


@pytest.mark.parametrize("verb", ["save", "load", "wait", "close"])
@pytest.mark.parametrize("is_background", [False, True])
def test_a_handler_may_save_at_any_line(tmp_path, inject, verb, is_background):
    inject(unsynced)
    for line in itertools.count():
        cp = make(tmp_path / str(line), line, keep=None, background=is_background)
        reports = [cp.save()]
        with Interrupts(line, cp.save, reports) as interrupts:
            result = getattr(cp, verb)()
        if verb == "save":
            reports.append(result)
        cp.close()
        assert {x.path for x in reports} == {x.path for x in cp.saves()}
        for report in reports:
            assert elementsckpt.read(report.path) == {"agent": line}
        if line >= interrupts.lines:
            break
    assert line > 4


class Nested(Box):
    """A component whose own `save` saves others with the same object."""

    def __init__(self, cp):
        super().__init__("outer")
        self.cp = cp
        self.report = None

    def save(self):
        self.report = self.cp.save(keys=["other"])
        return super().save()


@pytest.mark.parametrize("is_background", [False, True])
def test_a_component_may_save_others_while_it_is_saved(tmp_path, is_background):
    with Checkpoint(tmp_path, keep=None, background=is_background) as cp:
        cp.other = Box("other")
        cp.nested = Nested(cp)
        outer = cp.save()
    assert cp.nested.report.is_finished
    assert cp.latest() == outer.path
    assert [found.path for found in cp.saves()] == [cp.nested.report.path, outer.path]
    whole = {"other": "other", "nested": "outer"}
    assert elementsckpt.read(outer.path) == whole
    assert elementsckpt.read(cp.nested.report.path) == {"other": "other"}


def test_a_save_in_a_signal_handler_does_not_reach_into_the_one_it_interrupts(
    tmp_path, inject, monkeypatch
):
    use_one_thread(monkeypatch.setattr)
    first, second = np.random.default_rng(0).integers(0, 256, (2, 100_000), np.uint8)
    other = make_boxes(tmp_path / "other", agent=second)
    rung = []

    def ring(call, *args):
        if call is os.pwrite and len(args[1]) == 100_000 and not rung:
            rung.append(call)
            signal.raise_signal(signal.SIGUSR1)
        return call(*args)

    previous = signal.signal(signal.SIGUSR1, lambda *_: other.save())
    try:
        inject(ring)
        path = make_boxes(tmp_path / "ckpt", agent=first).save().path
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert rung
    assert (elementsckpt.read(path, mmap=False)["agent"] == first).all()
    assert (elementsckpt.read(tmp_path / "other")["agent"] == second).all()


# Forks: in scripts, as a process with threads should not fork, and this one has some

START = """
import os, pathlib, signal, sys, threading
import elementsckpt
from support.boxes import Box, make
from elementsckpt import Checkpoint, Counter, Every
from elementsckpt.storage import disk
from support.folders import Gate

directory = pathlib.Path(sys.argv[1])

def fork(child):
    "Run a function in a forked process, which ends with it; return its exit status."
    pid = os.fork()
    if not pid:
        signal.alarm(60)  # If it waits for ever.
        try:
            child()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def while_held(lock, child):
    "Fork while another thread holds a lock."
    inside, over = threading.Event(), threading.Event()
    def hold():
        with lock:
            inside.set()
            over.wait()
    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    status = fork(child)
    over.set()
    thread.join()
    return status
"""

HELD = {
    "a checkpoint": """
cp = make(directory, 1)
def child():
    cp.save()
    cp.load()
    cp.wait()
sys.exit(while_held(cp._engine.saver.lock, child))
""",
    "a checkpoint that saves": """
class Slow(Box):
    def save(self):
        inside.set()
        over.wait()
        return "parent"

inside, over = threading.Event(), threading.Event()
cp = Checkpoint(directory, background=True, keep=None)
cp.slow = Slow()
thread = threading.Thread(target=cp.save)
thread.start()
inside.wait()

def child():
    over.set()
    assert not cp.save().is_finished  # It is a save of its own, not one within another.
    assert cp.wait().is_finished

status = fork(child)
over.set()
thread.join()
cp.close()
assert len(cp.saves()) == 2
sys.exit(status)
""",
    "a schedule": """
every = Every(seconds=1000)
def child():
    assert every()
    every.mark(1)
sys.exit(while_held(every._lock, child))
""",
    "a counter": """
counter = Counter()
def child():
    counter.increment()
    assert counter == 1
sys.exit(while_held(counter.lock, child))
""",
    "arenas": """
cp = make(directory, bytes(10_000), background=True)
def child():
    cp.save()
    cp.wait()
sys.exit(while_held(cp._engine.saver._memory._lock, child))
""",
}


@pytest.mark.parametrize("what", HELD)
def test_a_forked_child_waits_for_no_thread_of_its_parent(tmp_path, forked, what):
    child = forked(START + HELD[what], tmp_path)
    assert child.returncode == 0, child.stderr


END = """
disk.syscall = gate = Gate()
cp = make(directory, "parent", background=True)
cp.save()
pid = os.fork()
if not pid:
    signal.alarm(60)
    {end}
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
assert not cp.exists()
gate.open()
assert cp.wait().is_finished
sys.exit(status)
"""


@pytest.mark.parametrize(
    "end",
    [
        "sys.exit(0)",
        "cp.close(); sys.exit(0)",
        "with cp: sys.exit(0)",
        "del cp; os._exit(0)",
    ],
)
def test_a_forked_child_ends_and_leaves_the_save_to_its_parent(tmp_path, forked, end):
    child = forked(START + END.format(end=end), tmp_path)
    assert child.returncode == 0, child.stderr
    assert elementsckpt.read(tmp_path) == {"agent": "parent"}
    assert len(visible(tmp_path)) == 2


UNWINDS = {
    "save": """
class Forks(Box):
    def save(self):
        self.pid = os.fork()
        if not self.pid:
            raise SystemExit(0)
        os.waitpid(self.pid, 0)
        return "parent"

cp = Checkpoint(directory, background="background" in sys.argv)
cp.agent = Forks()
cp.save()
cp.close()
""",
    "staging": """
cp = Checkpoint(directory, background="background" in sys.argv)
cp.agent = elementsckpt.Files(load=print)
with cp.staging("agent") as folder:
    pid = os.fork()
    if not pid:
        (folder / "file").write_text("parent")
        raise SystemExit(0)
    os.waitpid(pid, 0)
cp.close()
""",
}


@pytest.mark.parametrize("mode", ["foreground", "background"])
@pytest.mark.parametrize("verb", UNWINDS)
def test_a_forked_child_that_leaves_the_save_by_an_exception_removes_nothing(
    tmp_path, forked, verb, mode
):
    child = forked(START + UNWINDS[verb], tmp_path, mode)
    assert child.returncode == 0, child.stderr
    state = elementsckpt.read(tmp_path)["agent"]
    assert state == "parent" or (state / "file").read_text() == "parent"


ORPHAN = """
to_child = os.pipe()

class Killed(Box):
    def save(self):
        pid = os.fork()
        if not pid:
            os.close(to_child[1])
            print("forked", flush=True)
            os.read(to_child[0], 1)  # Returns when all who could write have ended.
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)

cp = make(directory, 1)
cp.save()
cp.killed = Killed()
cp.save()
"""


def test_the_death_of_a_process_frees_what_its_children_inherited(tmp_path, told):
    read, write = os.pipe()
    script = ORPHAN.replace("os.pipe()", str((read, write)))
    command = [sys.executable, "-c", START + script, tmp_path]
    with subprocess.Popen(
        command,
        env=environment(),
        stdout=subprocess.PIPE,
        pass_fds=(read, write),
    ) as process:
        assert process.stdout.readline() == b"forked\n"
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
        (draft,) = (x for x in tmp_path.iterdir() if (x / ".manifest.json").exists())
        make(tmp_path, 2, keep=None).save()
        assert not draft.exists()
        assert told() == []
    os.close(read)
    os.close(write)  # Which ends the child.


# Processes


@pytest.fixture
def processes(tmp_path):
    """Return a function that starts processes which save numbers when it returns."""
    begun = []

    def start(*arguments):
        for first, count, keep in arguments:
            script = ["-m", "support.numbered", tmp_path, first, count, keep]
            process = subprocess.Popen(
                [sys.executable, *map(str, script)],
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            begun.append(process)
        for process in begun:
            process.stdin.write("\n")
            process.stdin.flush()
        return begun

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def reports_of(process):
    """Return number by path of the saves that a process made without an error."""
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert "rror" not in errors
    lines = [line.split(" ", 1) for line in output.splitlines()]
    return {pathlib.Path(path): int(number) for number, path in lines}


def test_processes_that_share_a_directory_each_make_whole_saves(tmp_path, processes):
    reports = {}
    for process in processes((0, 6, 0), (10, 6, 0), (20, 6, 0)):
        reports |= reports_of(process)
    assert len(reports) == 18
    saves = Checkpoint(tmp_path).saves()
    assert reports == {found.path: number_of(found.path) for found in saves}
    for first in (0, 10, 20):
        mine = [reports[x.path] for x in saves if reports[x.path] // 10 == first // 10]
        assert mine == [*range(first, first + 6)]
    assert visible(tmp_path) == sorted(["latest", *(path.name for path in reports)])
    assert (tmp_path / "latest").read_text() in {path.name for path in reports}


MULTIPROCESSING = """
import multiprocessing, sys, threading
from support import numbered

if __name__ == "__main__":
    directory, method = sys.argv[1:]
    context = multiprocessing.get_context(method)
    cp = numbered.make(directory, int, background=True)
    cp.save()
    cp.wait()
    processes = [
        context.Process(target=numbered.save, args=(directory, first, 3))
        for first in (10, 20)
    ]
    for process in processes:
        process.start()
    cp.save()
    cp.close()
    for process in processes:
        process.join()
        assert process.exitcode == 0
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_of_multiprocessing_each_make_whole_saves(tmp_path, method):
    child = python(MULTIPROCESSING, tmp_path, method)
    assert child.returncode == 0, child.stderr
    numbers = [number_of(found.path) for found in Checkpoint(tmp_path).saves()]
    assert sorted(numbers) == [0, 0, 10, 11, 12, 20, 21, 22]


def test_processes_that_share_a_directory_may_remove_each_others_saves(
    tmp_path, processes
):
    reports = {}
    for process in processes((0, 8, 1), (10, 8, 2), (20, 8, 3)):
        reports |= reports_of(process)
    left = [found.path for found in Checkpoint(tmp_path).saves()]
    assert reports[left[-1]] in (7, 17, 27)
    assert [number_of(path) for path in left] == [reports[path] for path in left]
    last = make_numbered(tmp_path, lambda: 99, keep=1).save().path
    assert visible(tmp_path) == [last.name, "latest"]
    assert [x.name for x in tmp_path.iterdir() if x.name[0] == "."] == []


def test_a_reader_of_another_process_sees_one_save_at_a_time_and_goes_forward(
    tmp_path, processes
):
    make_numbered(tmp_path, lambda: 0).save()
    (process,) = processes((1, 25, 1))
    found = []
    while process.poll() is None:
        found.append(number_in(elementsckpt.read(tmp_path, ["agent", "replay"])))
    assert found == sorted(found)
    assert number_of(tmp_path) == 25
    assert len(reports_of(process)) == 25


def test_a_save_slower_than_two_others_stays_and_is_the_newest(tmp_path):
    class Slow(Box):
        def save(self):
            for number in range(2):
                other = make_boxes(tmp_path, agent=number)
                other.save()
            return self.state

    cp = Checkpoint(tmp_path, keep=1, fsync=False)
    cp.agent = Slow("slow")
    report = cp.save()
    assert report.path.exists()
    assert report.sequence == manifest_of(report.path)["sequence"] == 3
    again = make_boxes(tmp_path, agent=None)
    assert again.load().path == report.path
    assert [info.path for info in again.saves()] == [report.path]


# Saves that come and go while a directory is listed


@pytest.mark.parametrize("moment", ["listed", "found"])
@pytest.mark.parametrize("verb", ["load", "read", "info", "saves", "latest", "exists"])
def test_a_save_that_goes_while_it_is_listed_is_neither_damaged_nor_missed(
    tmp_path, monkeypatch, caplog, moment, verb
):
    trainer = make(tmp_path, "old", keep=1)
    trainer.save()
    trainer.agent.state = "new"
    listed, opened, left = folders.folders_in, files.File.__init__, [trainer.save]

    def folders_in(path):
        found = listed(path)
        if moment == "listed" and left:
            left.pop()()
        return found

    def open_file(self, path, **options):
        if moment == "found" and left and str(path).endswith("manifest.json"):
            left.pop()()
        opened(self, path, **options)

    cp = make(tmp_path)
    monkeypatch.setattr(folders, "folders_in", folders_in)
    monkeypatch.setattr(files.File, "__init__", open_file)
    caplog.clear()
    if verb == "load":
        assert cp.load().fell_back_from is None
        assert cp.agent.state == "new"
    elif verb == "read":
        assert elementsckpt.read(tmp_path) == {"agent": "new"}
    elif verb == "info":
        assert elementsckpt.info(tmp_path).sequence == 2
    elif verb == "saves":
        assert [found.sequence for found in cp.saves()] == [2]
    elif verb == "latest":
        assert cp.latest() == trainer.latest()
    else:
        assert cp.exists()
    assert left == []
    assert caplog.messages == []


def test_a_named_save_that_goes_while_it_is_opened_is_not_found(tmp_path, monkeypatch):
    trainer = make(tmp_path, "old", keep=1)
    path = trainer.save().path
    opened, left = files.File.__init__, [trainer.save]

    def open_file(self, path, **options):
        if left:
            left.pop()()
        opened(self, path, **options)

    monkeypatch.setattr(files.File, "__init__", open_file)
    with pytest.raises(elementsckpt.SaveNotFoundError, match=path.name):
        elementsckpt.info(path)


def test_a_save_that_is_being_removed_is_none(tmp_path, inject):
    cp = make(tmp_path, 1, keep=None)
    paths = [cp.save().path for _ in range(2)]
    looks = []

    def look(call, *args):
        result = unsynced(call, *args)
        if call is os.replace and args[0] == paths[1]:
            looks.append([found.path for found in Checkpoint(tmp_path).saves()])
        return result

    inject(look)
    cp.delete(paths[1])
    assert looks == [paths[:1]]


# Sweeps by one writer of what another one makes


class Sweeper(threading.Thread):
    """Removes what dead processes left in a directory, with a pause in the midst."""

    def __init__(self, directory):
        super().__init__()
        self._directory = Directory(directory)
        self._paused, self._resumed = threading.Event(), threading.Event()

    def run(self):
        self._directory.sweep(self._directory.look())

    def pause(self):
        if threading.current_thread() is self:
            self._paused.set()
            self._resumed.wait()

    def begin(self):
        self.start()
        self._paused.wait()

    def end(self):
        self._resumed.set()
        self.join()


def test_a_sweep_that_is_slow_to_lock_removes_no_save_that_is_complete_by_then(
    tmp_path, inject, monkeypatch
):
    sweeper, lock = Sweeper(tmp_path), descriptors.lock

    def commit_in_the_pause(call, *args):
        if call is os.replace and args[1].name == "manifest.json":
            sweeper.begin()
        return unsynced(call, *args)

    inject(commit_in_the_pause)
    monkeypatch.setattr(descriptors, "lock", lambda fd: sweeper.pause() or lock(fd))
    path = make(tmp_path, 1).save().path
    sweeper.end()
    assert elementsckpt.read(path) == {"agent": 1}


def test_a_sweep_of_an_empty_folder_removes_no_draft_that_is_in_it_by_then(
    tmp_path, inject, monkeypatch
):
    sweeper, listed = Sweeper(tmp_path), removal.names_in

    def begin_in_the_pause(call, *args):
        if call is os.open and args[0].name == ".manifest.json":
            sweeper.begin()
        elif call is os.replace and args[0].name == f".{args[1].name}":
            sweeper.end()
        return unsynced(call, *args)

    def names_in(path):
        names = listed(path)
        sweeper.pause()
        return names

    inject(begin_in_the_pause)
    monkeypatch.setattr(removal, "names_in", names_in)
    path = make(tmp_path, 1).save().path
    assert path.name == visible(tmp_path)[0]
    assert elementsckpt.read(path) == {"agent": 1}


def test_who_looks_whether_a_draft_is_locked_does_not_take_it_away(
    tmp_path, inject, monkeypatch
):
    looks = []

    def look(call, *args):
        result = call(*args)
        if call is os.open and args[0].name == ".manifest.json":
            looks.append(os.open(args[0], os.O_RDONLY))
            fcntl.flock(looks[0], fcntl.LOCK_EX)
        return result

    inject(look)
    monkeypatch.setattr(drafts.time, "sleep", lambda _: os.close(looks.pop()))
    for path in (None, tmp_path / "path"):
        assert (
            elementsckpt.read(make(tmp_path / "run", 1).save(path).path)["agent"] == 1
        )
        assert not looks


@pytest.mark.parametrize("lock", ["held", "freed"])
@pytest.mark.parametrize("removed", ["draft", "folder"])
def test_a_sweep_before_the_lock_does_not_lose_the_save(
    tmp_path, inject, lock, removed
):
    swept = []

    def sweep(call, *args):
        result = call(*args)
        if call is os.open and args[0].name == ".manifest.json" and not swept:
            draft = args[0]
            fd = os.open(draft, os.O_RDONLY)
            fcntl.flock(fd, fcntl.LOCK_EX)
            os.unlink(draft)
            if removed == "folder":
                os.rmdir(draft.parent)
            swept.append(fd)
            if lock == "freed":
                os.close(fd)
        return result

    inject(sweep)
    report = make_boxes(tmp_path, agent=7).save()
    if lock == "held":
        os.close(swept[0])
    visible = {path.name for path in tmp_path.iterdir() if path.name[0] != "."}
    assert visible == {"latest", report.path.name}
    cp = make_boxes(tmp_path, agent=None)
    assert cp.load().path == report.path
    assert cp.agent.state == 7


@pytest.mark.parametrize("before", [os.mkdir, os.open, os.replace, disk._link])
@pytest.mark.parametrize("background", [False, True])
def test_a_save_outlives_sweeps_of_others(tmp_path, inject, before, background):
    old, done = make_boxes(tmp_path, agent=np.arange(100)).save().path, []

    def sweep(call, *args):
        result = call(*args)
        if call is before and not done:
            done.append(args)
            directory = Directory(tmp_path)
            directory.sweep(directory.look())
        return result

    inject(sweep)
    with make_boxes(tmp_path, agent=np.arange(100), background=background) as cp:
        path = cp.save().path
    assert done
    assert not old.exists()
    cp = make_boxes(tmp_path, agent=None)
    assert cp.load().path == path
    assert cp.agent.state.tolist() == list(range(100))


# One path for several


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize("state", [1, b"bytes" * 99])
def test_a_save_to_a_path_that_another_one_has_just_finished_leaves_it_whole(
    tmp_path, inject, is_there, state
):
    path, faster = tmp_path / "save", make(state=state)
    if is_there:
        path.mkdir()

    def save_in_the_pause(call, *args):
        if call is os.open and args[0] == path / ".manifest.json":
            inject(unsynced)
            faster.save(path)
        return unsynced(call, *args)

    inject(save_in_the_pause)
    with pytest.raises(SaveExistsError, match="it holds a save already"):
        make(state=2).save(path)
    assert elementsckpt.read(path) == {"agent": state}
    assert ".manifest.json" not in os.listdir(path)


def test_of_two_drafts_at_one_path_that_begin_at_once_one_is_refused(tmp_path, inject):
    path, others = tmp_path / "save", []

    def begin_in_the_pause(call, *args):
        if call is os.open and args[0] == path / ".manifest.json":
            inject(unsynced)
            others.append(drafts.begin_at(path, fsync=False))
        return unsynced(call, *args)

    inject(begin_in_the_pause)
    with pytest.raises(SaveExistsError, match="another save is being written there"):
        make(state=2).save(path)
    others[0].abandon()
    assert os.listdir(path) == []


# Clocks


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch, NOON)


def test_saves_of_one_microsecond_have_names_of_their_own(tmp_path, clock, inject):
    inject(unsynced)
    cps = [make(tmp_path, n, keep=None) for n in range(3)]
    threads = at_once(*(lambda cp=cp: [cp.save() for _ in range(4)] for cp in cps))
    ours = [make(tmp_path, n, keep=None).save() for n in range(3)]
    reports = [*itertools.chain(*threads), *ours]
    assert {report.path for report in reports} == {x.path for x in cps[0].saves()}
    assert len(reports) == 15
    assert cps[0].latest() == ours[-1].path


def test_a_name_that_another_writer_takes_is_left_to_it(tmp_path, clock, inject):
    other, left = make(tmp_path, "other", keep=None), []

    def beaten(call, *args):
        if call is os.mkdir and not left:
            left.append(None)
            left[0] = other.save()
        return unsynced(call, *args)

    tmp_path.rmdir()
    tmp_path.mkdir()
    inject(beaten)
    report = make(tmp_path, "mine", keep=None).save()
    assert report.path.name == "20260101T120000F000001"
    assert left[0].path.name == "20260101T120000F000000"
    assert elementsckpt.read(left[0].path) == {"agent": "other"}
    assert elementsckpt.read(report.path) == {"agent": "mine"}
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [left[0].path.name, report.path.name, "latest"]


@pytest.mark.parametrize("keep", [1, 3, elementsckpt.Keep(every=timedelta(hours=1))])
def test_a_clock_that_steps_back_changes_no_order(tmp_path, clock, keep):
    cp = make(tmp_path, keep=keep)
    for cp.agent.state in range(6):
        report = cp.save()
        clock.now -= timedelta(days=1)
        assert cp.latest() == report.path
        assert cp.saves()[-1].path == report.path
        again = make(tmp_path, keep=keep)
        again.load()
        assert again.agent.state == cp.agent.state
    sequences = [found.sequence for found in cp.saves()]
    assert sequences == sorted(sequences)
    assert sequences[-1] == 6


def test_time_zones_change_neither_names_nor_order_nor_times(
    tmp_path, clock, monkeypatch
):
    cp = make(tmp_path, keep=None)
    zones = ["UTC", "America/New_York", "Pacific/Auckland", "Europe/Berlin"]
    for zone in zones:
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        cp.save()
        clock.now += timedelta(minutes=1)
    monkeypatch.undo()
    time.tzset()
    saves = cp.saves()
    assert [found.sequence for found in saves] == [1, 2, 3, 4]
    assert [x.path.name for x in saves] == [
        f"20260101T120{minute}00F000000" for minute in range(4)
    ]
    assert [x.time for x in saves] == [NOON + timedelta(minutes=n) for n in range(4)]


# The file `latest`, which writers share


def test_writers_that_update_latest_at_once_say_nothing(tmp_path, inject, told):
    both = threading.Barrier(2, timeout=1)

    def rename_together(call, *args):
        if call is os.replace and args[1] == tmp_path / "latest":
            # If one finds that the other is ahead, it renames nothing.
            with contextlib.suppress(threading.BrokenBarrierError):
                both.wait()
        return unsynced(call, *args)

    cps = [make(tmp_path, n, keep=None) for n in range(2)]
    inject(rename_together)
    reports = at_once(*(cp.save for cp in cps))
    assert told() == []
    names = {report.path.name for report in reports}
    assert (tmp_path / "latest").read_text() in names
    assert visible(tmp_path) == sorted([*names, "latest"])


# A directory that vanishes or may not be written


@pytest.mark.parametrize("is_moved", [False, True])
def test_a_run_goes_on_when_its_directory_is_gone(tmp_path, is_moved):
    path, away = tmp_path / "ckpt", tmp_path / "away"
    numbers = []
    cp = make_numbered(path, lambda: numbers[-1], keep=2)
    for numbers[:] in [[1], [2]]:
        cp.save()
    path.rename(away) if is_moved else shutil.rmtree(path)
    assert not cp.exists()
    assert cp.saves() == []
    with pytest.raises(elementsckpt.SaveNotFoundError, match="not found"):
        cp.load()
    for numbers[:] in [[3], [4]]:
        report = cp.save()
        assert cp.latest() == report.path
        assert number_of(path) == numbers[0]
    assert len(cp.saves()) == 2
    if is_moved:
        assert number_of(away) == 2
        assert len(elementsckpt.Checkpoint(away).saves()) == 2


@pytest.mark.parametrize("is_moved", [False, True])
def test_a_directory_that_goes_costs_the_save_in_the_background_only(
    tmp_path, inject, is_moved
):
    path, gate = tmp_path / "ckpt", Gate()
    inject(gate)
    numbers = [1]
    cp = make_numbered(path, lambda: numbers[-1], background=True)
    gone = cp.save().path
    path.rename(tmp_path / "away") if is_moved else shutil.rmtree(path)
    gate.open()
    with pytest.raises(WriteError, match=gone.name) as error:
        cp.wait()
    assert error.value.errno == errno.ENOENT
    numbers.append(2)
    cp.save()
    cp.close()
    assert number_of(path) == 2
    if is_moved:
        numbers.append(3)
        make_numbered(tmp_path / "away", lambda: numbers[-1]).save()
        assert number_of(tmp_path / "away") == 3
        assert len(visible(tmp_path / "away")) == 2


def test_a_writer_lock_is_of_the_directory_that_is_there_now(tmp_path, forked, caplog):
    path, away = tmp_path / "ckpt", tmp_path / "away"
    cp = make(path, 1)
    cp.save()
    path.rename(away)
    cp.save()
    script = (
        "import sys, elementsckpt; cp = elementsckpt.Checkpoint(sys.argv[1]); "
        "cp.step = elementsckpt.Counter(); cp.save()"
    )
    assert "is writing to" in forked(script, path).stderr
    assert forked(script, away).stderr.count("is writing to") == 0


def test_reading_changes_nothing_in_a_directory(tmp_path, inject):
    trainer = make_numbered(tmp_path, lambda: 1, keep=elementsckpt.Keep(None))
    path = trainer.save(metrics={"return": 1.0}).path
    before = {x: x.stat().st_mtime_ns for x in [tmp_path, *tmp_path.rglob("*")]}

    def refuse(call, *args):
        raise AssertionError(f"{call.__name__}{args}")

    inject(refuse)
    for folder in (path, tmp_path):
        folder.chmod(0o555)
    loaded = {}
    keep = elementsckpt.Keep(None, metric="return")
    with make_numbered(tmp_path, loaded=loaded, keep=keep) as cp:
        cp.load(keys=["agent", "replay"])
        cp.load(dry_run=True)
        cp.load(regex=".*", keys=["agent"], mmap=True, dry_run=True)
        assert cp.latest() == cp.best() == cp.saves()[0].path == path
    assert number_in(loaded) == number_of(path) == number_of(tmp_path) == 1
    assert elementsckpt.info(tmp_path).sequence == 1
    for folder in (tmp_path, path):
        folder.chmod(0o755)
    after = {x: x.stat().st_mtime_ns for x in [tmp_path, *tmp_path.rglob("*")]}
    assert after == before

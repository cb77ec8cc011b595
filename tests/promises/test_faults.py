"""The process dies, the disk refuses, the power fails: at every call of a save."""

import ast
import contextlib
import errno
import itertools
import os
import pathlib
import pickle
import random
import shutil
import signal
import subprocess
import sys
import zlib

import numpy as np
import pytest

import elementsckpt
from elementsckpt import CheckpointError, WriteError
from elementsckpt.storage import descriptors, disk, files
from elementsckpt.system import threads
from elementsckpt.system.threads import start

from support.boxes import environment, make_boxes
from support.deadlines import deadline
from support.faults import (
    ALL,
    ESSENTIAL,
    PLAIN,
    TWOFOLD,
    Again,
    Background,
    BackgroundExplicit,
    BackgroundFull,
    BackgroundPrunes,
    Broken,
    Explicit,
    ExplicitAgain,
    Fails,
    FilesAgain,
    FilesBackground,
    FilesSweeps,
    First,
    Graveyard,
    Interjects,
    Packs,
    Prunes,
    Records,
    Stages,
    Sweeps,
    Twice,
    WritesShort,
    assert_tidy,
    contents,
    copy_with_links,
    is_link,
    make,
    resumed,
    saves_again,
    tree,
    unsynced,
    use_one_thread,
    use_small_segments,
    value_of,
)
from support.folders import folder_in_memory
from support.medium import Create, Link, Medium, Remove, Rename, Sync, Write

CODES = errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EMFILE, errno.EROFS, errno.EINTR
LINKING = Again, Prunes, Packs, Background, BackgroundPrunes, FilesAgain, Stages


@pytest.fixture(autouse=True)
def small_segments(monkeypatch):
    use_small_segments(monkeypatch.setattr)
    use_one_thread(monkeypatch.setattr)


@pytest.fixture
def calls(request):
    """Return the numbers of the calls to take, of which the first is 1.

    It is one call in six, another for each test, as tests share most of them; and all
    with `--every-call`.
    """
    if request.config.getoption("every_call"):
        return itertools.count(1)
    return itertools.count(1 + zlib.crc32(request.node.name.encode()) % 6, 6)


@pytest.fixture(scope="module")
def graveyard():
    with Graveyard() as process:
        yield process


@pytest.fixture
def memory_path(tmp_path):
    """Return a folder that is in memory where there is one: power never fails here."""
    with folder_in_memory(tmp_path) as path:
        yield path


@pytest.fixture(scope="module")
def templates():
    """Return a folder for situations that are prepared, once for all tests."""
    with folder_in_memory() as path:
        yield path


@pytest.fixture
def fresh(memory_path, templates):
    """Return a function that prepares a situation in a folder of its own."""
    numbers = itertools.count()

    def prepared(kind):
        template = templates / kind.__name__
        if not template.exists():
            template.mkdir()
            kind(template).prepare()
        situation = kind(memory_path / str(next(numbers)))
        copy_with_links(template, situation.root)
        return situation

    return prepared


@pytest.fixture(autouse=True)
def no_hang():
    """Turn waiting for ever into a failure."""
    with deadline(60):
        yield


@pytest.fixture
def inject(monkeypatch):
    """Return a function that puts a fault into the place of `disk.syscall`."""
    real = disk.syscall

    def put(fault):
        monkeypatch.setattr(disk, "syscall", fault or real)
        return fault

    return put


# The process dies


@pytest.mark.parametrize("when", ["before", "half"])
@pytest.mark.parametrize("kind", PLAIN)
def test_promise_1_death_at_any_call_leaves_the_old_or_the_new_save(
    kind, when, fresh, graveyard, inject, calls
):
    inject(unsynced)
    for n in calls:
        situation = fresh(kind)
        died = graveyard.dies(situation, n, when)
        value = resumed(situation)
        if not died:
            assert value == situation.new
            assert_tidy(situation)
            break
        assert value in (situation.old, situation.new)
        saves_again(situation)
        shutil.rmtree(situation.root)
    assert n > (5 if when == "half" else 20)


@pytest.mark.parametrize("kind", TWOFOLD)
def test_promise_1_what_is_there_before_any_call_is_the_old_or_the_new_save(
    kind, fresh, inject, memory_path, calls
):
    # That is what a death leaves, without a process for each of so many calls.
    situation = fresh(kind)
    medium = Medium(situation.root)
    events = record(situation, inject)
    chosen = next(calls)
    for n, event in enumerate([*halved(events), None], 1):
        left = kind(memory_path / f"left{n}")
        if event is None or (n >= chosen and not isinstance(event, Sync)):
            chosen = next(calls)
            medium.lose_power(left.root, keeps=lambda _: True)
            value = resumed(left)
            assert value in (situation.old, situation.new)
            if event is not None:
                saves_again(left)
        if event is not None:
            medium.take(event)
    assert value == situation.new
    assert_tidy(left)
    assert contents(left.root) == contents(situation.root)


def halved(events):
    """Return events of which each write is in two halves."""
    for event in events:
        if not isinstance(event, Write):
            yield event
            continue
        inode, data, offset = event
        half = len(data) // 2
        yield Write(inode, data[:half], offset)
        yield Write(inode, data[half:], offset + half)


def test_deaths_in_a_row_leave_the_old_save_or_the_new(fresh, graveyard, inject):
    inject(unsynced)
    situation = fresh(Again)
    for n in (20, 10, 15, 5):
        assert graveyard.dies(situation, n, "before")
        assert resumed(situation) in (situation.old, situation.new)
    saves_again(situation)


@pytest.mark.parametrize(
    "order", [sorted, lambda x: sorted(x)[::-1]], ids=["up", "down"]
)
def test_an_unfinished_save_is_told_by_its_draft_to_the_last(order, tmp_path, inject):
    names = [
        ".manifest.json",
        "b-000001-00000.safetensors",
        "a-000001-00000.safetensors",
    ]
    situation = Explicit(tmp_path)
    situation.directory.mkdir(parents=True)
    for name in order(names):
        (situation.directory / name).touch()
    removed = [x.path.name for x in record(situation, inject) if isinstance(x, Remove)]
    assert set(names) <= set(removed)
    assert [name for name in removed if name in names][-1] == ".manifest.json"


# The disk refuses


@pytest.mark.parametrize(
    ("kind", "sticky", "is_alone"),
    [
        *((kind, False, True) for kind in ESSENTIAL),
        *((kind, True, True) for kind in (Sweeps, ExplicitAgain, Background)),
        *((kind, True, True) for kind in (FilesAgain, FilesSweeps, Stages)),
        *((kind, True, False) for kind in (First, Again)),
    ],
)
def test_a_failure_at_any_call_costs_at_most_the_new_save(
    kind, sticky, is_alone, fresh, inject, caplog, monkeypatch, calls
):
    if not is_alone:
        monkeypatch.setattr(threads, "start", start)
    for n, code in zip(calls, itertools.cycle(CODES)):
        situation = fresh(kind)
        before = tree(situation.root)
        cp = situation.checkpoint()
        fault = inject(Fails(n, OSError(code, os.strerror(code)), sticky=sticky))
        caplog.clear()
        error = None
        try:
            situation.save(cp)
        except WriteError as caught:
            error = caught
        inject(unsynced)
        if fault.count < n:
            break
        assert value_of(cp) == situation.new  # The components are untouched.
        assert cp.agent.loads == cp.step.loads == cp.replay.loads == 0
        value = resumed(situation)
        if error is None:
            # It was about a link, for want of which more is written, or about `latest`
            # or the removal of something old.
            if not is_link(fault.failed[0]):
                assert "WARNING" in {record.levelname for record in caplog.records}
            assert value == situation.new
        else:
            assert error.errno == code
            is_above = fault.failed[0] is os.fsync  # Perhaps a folder above.
            assert is_above or str(situation.root) in str(error)
            assert value in (situation.old, situation.new if sticky else situation.old)
            left = tree(situation.root)
            if not sticky:
                assert left <= before
            if not sticky and not issubclass(kind, (Sweeps, ExplicitAgain)):
                assert left == before
        if value != situation.new:  # In this process, then as in another one.
            situation.save(cp)
            assert resumed(situation) == situation.new
            assert_tidy(situation)
        if error is None or sticky:
            saves_again(situation)
        shutil.rmtree(situation.root)
    assert n > 20


@pytest.mark.parametrize("code", [errno.EPERM, errno.EMLINK, errno.EXDEV, errno.ENOSYS])
@pytest.mark.parametrize("kind", [Again, Background, Packs, Twice, FilesAgain])
def test_without_links_everything_is_written(kind, code, fresh, inject):
    def refuse(call, *args):
        if is_link(call):
            raise OSError(code, os.strerror(code))
        return unsynced(call, *args)

    situation = fresh(kind)
    inject(refuse)
    report = situation.save(situation.checkpoint())
    assert report.bytes_reused == 0
    assert resumed(situation) == situation.new
    assert_tidy(situation)
    saves_again(situation)


def wait(cp):
    cp.wait()


def save(cp):
    cp.save()


def close(cp):
    cp.close()


def leave(cp):
    with cp:
        pass


@pytest.mark.parametrize("ask", [wait, save, close, leave])
def test_promise_6_a_failure_in_the_background_is_raised_by_what_comes_next(
    ask, fresh, inject, caplog, calls
):
    surfaced = 0
    for n in calls:
        situation = fresh(Background)
        before = tree(situation.root)
        cp = situation.checkpoint()
        fault = inject(Fails(n, OSError(errno.EIO, "injected")))
        caplog.clear()
        try:
            cp.save()
        except WriteError:  # It was about the folder: the thread had not begun.
            inject(unsynced)
            assert tree(situation.root) == before
            continue
        cp._engine.saver.join()
        failed = fault.count >= n and any(
            x.levelname == "ERROR" for x in caplog.records
        )
        inject(unsynced)
        if failed:  # At once, in the log.
            surfaced += 1
            assert tree(situation.root) == before
            with pytest.raises(WriteError, match="injected") as caught:
                ask(cp)
            assert "background" in str(getattr(caught.value, "__notes__", "background"))
            assert tree(situation.root) == before  # A `save` that raises does nothing.
            assert resumed(situation) == situation.old
        else:
            ask(cp)
        ask(cp)  # It is raised once.
        cp.wait()
        assert value_of(cp) == situation.new
        assert cp.agent.loads == cp.step.loads == cp.replay.loads == 0
        if fault.count < n:
            break
        saves_again(situation)
        shutil.rmtree(situation.root)
    assert surfaced > 2


@pytest.mark.parametrize("code", CODES)
def test_the_first_call_tells_why_the_disk_refuses(code, fresh, inject):
    situation = fresh(Again)
    inject(Fails(1, OSError(code, os.strerror(code)), sticky=True))
    with pytest.raises(WriteError, match=os.strerror(code)) as caught:
        situation.save(situation.checkpoint())
    assert isinstance(caught.value, OSError)
    assert caught.value.errno == code


def test_a_directory_that_is_a_link_to_nowhere_is_an_error(tmp_path):
    (tmp_path / "ckpt").symlink_to(tmp_path / "not_mounted")
    signal.alarm(5)  # It would look for a free name for ever.
    with pytest.raises(CheckpointError):
        make(tmp_path / "ckpt", 1).save()


@pytest.mark.parametrize("kind", PLAIN)
def test_short_writes_are_continued(kind, fresh, inject):
    situation = fresh(kind)
    fault = inject(WritesShort())
    situation.save(situation.checkpoint())
    assert fault.count > 50
    assert resumed(situation) == situation.new
    assert_tidy(situation)


def test_a_write_error_keeps_its_errno_through_pickle(tmp_path, inject):
    def full(call, *args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    inject(full)
    with pytest.raises(elementsckpt.WriteError) as caught:
        make_boxes(tmp_path, agent=1).save()
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is elementsckpt.WriteError
    assert again.errno == caught.value.errno == errno.ENOSPC
    assert str(again) == str(caught.value)


# A component raises


class Interrupted(Exception):
    pass


ERRORS = [Interrupted("stop"), KeyboardInterrupt(), SystemExit(3), GeneratorExit()]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("kind", PLAIN)
def test_a_component_that_raises_leaves_no_trace(kind, error, fresh, inject):
    inject(unsynced)
    situation = fresh(kind)
    before = tree(situation.root)
    cp = situation.checkpoint()
    cp.broken = Broken(error)
    with pytest.raises(type(error)) as caught:
        situation.save(cp)
    assert caught.value is error
    assert tree(situation.root) <= before
    assert resumed(situation) == situation.old
    del cp.broken
    situation.save(cp)
    assert resumed(situation) == situation.new
    assert_tidy(situation)


class RaisesLater:
    """A component whose generator raises after some shards."""

    def __init__(self, count, error):
        self.count, self.error = count, error

    def save(self):
        for index in range(self.count):
            yield {"x": np.full(100, index)}
        raise self.error

    def load(self, data):
        raise AssertionError(data)


@pytest.mark.parametrize("error", [Interrupted("stop"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 9])
@pytest.mark.parametrize("kind", [Again, Background, BackgroundFull])
def test_a_generator_that_raises_leaves_no_trace(kind, count, error, fresh, inject):
    inject(unsynced)
    situation = fresh(kind)
    before = tree(situation.root)
    cp = situation.checkpoint()
    cp.stream = RaisesLater(count, error)
    with pytest.raises(type(error)) as caught:
        situation.save(cp)
    assert caught.value is error
    assert tree(situation.root) == before
    assert resumed(situation) == situation.old
    saves_again(situation)


@pytest.mark.parametrize("kind", [Again, Background, FilesAgain, Stages])
def test_an_interrupt_at_any_call_leaves_the_old_save_or_the_new(
    kind, fresh, inject, calls
):
    for n in calls:
        situation = fresh(kind)
        cp = situation.checkpoint()
        fault = inject(Fails(n, KeyboardInterrupt()))
        try:
            situation.save(cp)
        except KeyboardInterrupt:
            pass
        else:
            break
        inject(unsynced)
        assert resumed(situation) in (situation.old, situation.new)
        # In the process that was interrupted.
        assert situation.save(cp).path.is_dir()
        assert resumed(situation) == situation.new
        assert_tidy(situation)
        shutil.rmtree(situation.root)
    assert fault.count < n


# Others change the directory meanwhile


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", [Again, Background, FilesBackground, Stages])
def test_another_writer_at_any_call_harms_no_save(kind, when, fresh, inject, calls):
    for n in calls:
        situation = fresh(kind)

        values = []

        def save_another(situation=situation, values=values):
            values.append(resumed(situation))
            with situation.checkpoint(5) as cp:
                cp.save()
            assert resumed(situation) == 5

        fault = inject(Interjects(n, save_another, when))
        possible = {5, situation.new}
        try:
            situation.save(situation.checkpoint())
        except WriteError:  # The other one pruned it when it was not durable yet.
            assert values == [situation.new]
            possible = {5}
        inject(unsynced)
        if fault.count < n:
            break
        assert resumed(situation) in possible
        saves_again(situation)
        shutil.rmtree(situation.root)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", [Again, Background, FilesBackground, Stages])
def test_a_directory_removed_at_any_call_harms_no_later_save(
    kind, when, fresh, inject, calls
):
    for n in calls:
        situation = fresh(kind)
        cp = situation.checkpoint()
        signal.alarm(5)

        def remove(root=situation.root):
            shutil.rmtree(root)

        fault = inject(Interjects(n, remove, when))
        with contextlib.suppress(CheckpointError):
            situation.save(cp)
        inject(unsynced)
        if fault.count < n:
            break
        assert resumed(situation) in (None, situation.new)
        situation.save(cp)
        assert resumed(situation) == situation.new
        assert_tidy(situation)
        shutil.rmtree(situation.root)


# The power fails


def record(situation, inject, **options):
    """Make the save and return its calls."""
    fault = inject(Records())
    situation.save(situation.checkpoint(**options))
    inject(unsynced)
    return fault.events


@pytest.mark.parametrize("kind", [First, *LINKING, Explicit, BackgroundExplicit])
def test_promise_1_the_order_of_writes_is_kept(kind, fresh, inject):
    situation = fresh(kind)
    medium = Medium(situation.root)
    events = record(situation, inject)
    renames = [x for x in events if isinstance(x, Rename)]
    (commit,) = [x for x in renames if x.target.name == "manifest.json"]
    middle = events.index(commit)
    linked = {x.target for x in events[:middle] if isinstance(x, Link)}
    assert bool(linked) == (kind in LINKING)
    for event in events[:middle]:
        # Of all that is there, only the links that the save made itself may go.
        assert not isinstance(event, Remove) or event.path in linked
        medium.take(event)
    save = commit.source.parent
    # All that the manifest relies on is durable before it has its name ...
    made = [x.path for x in events[:middle] if isinstance(x, Create) and x.is_folder]
    inside = {save, *(path for path in made if save in path.parents)}
    folders = {medium.names[path]: path for path in inside}
    here = {medium.names[path] for path in medium.names if save in path.parents}
    files = here & {x.inode for x in events[:middle] if isinstance(x, Write)}
    assert len(files) >= 3
    for inode in folders.keys() | files:
        folder = folders.get(inode)
        touched = [
            n for n, x in enumerate(events[:middle]) if touches(x, inode, folder)
        ]
        assert Sync(inode) in events[max(touched) : middle]
    # ... and so are the names of the folders made ...
    outside = {path.parent for path in made if path not in inside}
    assert outside
    for folder in outside:
        inode = medium.names[folder]
        touched = [n for n in range(middle) if touches(events[n], inode, folder)]
        assert Sync(inode) in events[max(touched) : middle]
    # ... and that name, before anything else.
    assert events[middle + 1] == Sync(medium.names[save])


def touches(event, inode, folder):
    """Tell whether the event changes the file, or the names in the folder."""
    if folder is None:
        return isinstance(event, Write) and event.inode == inode
    if isinstance(event, (Link, Rename)):
        return event.target.parent == folder
    return isinstance(event, (Create, Remove)) and event.path.parent == folder


@pytest.mark.parametrize("kind", LINKING)
def test_saves_keep_most_of_what_did_not_change_in_place(kind, fresh, inject):
    situation = fresh(kind)
    before = {x.stat().st_ino: x.read_bytes() for x in files_in(situation.directory)}
    events = record(situation, inject)
    links = [x.target for x in events if isinstance(x, Link)]
    removed = [x.path for x in events if isinstance(x, Remove)]
    assert len(links) >= 3
    if "Background" not in kind.__name__:  # Which lets go before it knows all.
        assert not set(links) & set(removed), "a link was made in vain"
    found = {x.stat().st_ino: x.read_bytes() for x in files_in(situation.directory)}
    kept = before.keys() & found.keys()
    assert kept
    assert all(found[inode] == before[inode] for inode in kept)


def files_in(directory):
    return [x for x in directory.rglob("*.safetensors") if x.is_file()]


@pytest.mark.parametrize("kind", [Again, Background, FilesAgain])
def test_promise_1_what_was_not_synced_is_not_linked(kind, tmp_path, inject):
    situation = kind(tmp_path)
    situation.checkpoint(1, background=False, fsync=False).save()
    events = record(situation, inject)
    assert not any(isinstance(event, Link) for event in events)
    assert any(isinstance(event, Sync) for event in events)
    assert resumed(situation) == situation.new


def test_what_was_synced_is_linked_without_a_sync(tmp_path, inject):
    situation = Again(tmp_path)
    situation.prepare()
    events = record(situation, inject, fsync=False)
    assert any(isinstance(event, Link) for event in events)
    assert not any(isinstance(event, Sync) for event in events)


def test_without_fsync_nothing_is_synced(fresh, inject):
    events = record(fresh(Prunes), inject, fsync=False)
    assert not any(isinstance(event, Sync) for event in events)


KEEPS = {
    "nothing": lambda kind, dice: False,
    "names": lambda kind, dice: kind == "name",
    "some": lambda kind, dice: dice.random() < 0.5,
}
# Calls before which nothing can be left that is not left before a later one, too.
SAME = {"nothing": (Create, Write, Rename, Link, Remove), "names": Write, "some": ()}


@pytest.mark.parametrize("keeps", KEEPS)
@pytest.mark.parametrize("kind", ALL)
def test_promise_1_power_loss_at_any_call_leaves_the_old_or_the_new_save(
    kind, keeps, fresh, inject, memory_path, calls
):
    situation = fresh(kind)
    medium = Medium(situation.root)
    events = record(situation, inject)
    dice = random.Random(f"{kind} {keeps}")
    if keeps == "nothing":  # Few calls are left of these.
        calls = itertools.count(1)
    chosen = set(itertools.takewhile(lambda n: n <= len(events), calls))
    for n, event in enumerate([*events, None], 1):
        if event is None or (n in chosen and not isinstance(event, SAME[keeps])):
            left = kind(memory_path / f"left{n}")
            medium.lose_power(left.root, lambda x: KEEPS[keeps](x, dice))
            possible = {situation.old, situation.new}
            if event is None:  # save() has returned.
                possible = {situation.new}
            assert resumed(left) in possible
            shutil.rmtree(left.root)
        if event is not None:
            medium.take(event)


@pytest.mark.parametrize("kind", PLAIN)
def test_saving_goes_on_after_power_loss(kind, fresh, inject, memory_path, calls):
    situation = fresh(kind)
    medium = Medium(situation.root)
    dice = random.Random(kind.__name__)
    chosen = next(calls)
    for n, event in enumerate(record(situation, inject), 1):
        medium.take(event)
        if n < chosen:
            continue
        chosen = next(calls)
        left = kind(memory_path / f"left{n}")
        medium.lose_power(left.root, lambda _: dice.random() < 0.5)
        if not isinstance(left, Explicit):
            with left.checkpoint(9) as cp:
                cp.save()
            assert resumed(left) == 9
        shutil.rmtree(left.root)


# The seam has no holes


CHANGES = {
    *("pwrite", "pwritev", "write", "writev", "sendfile", "copy_file_range"),
    *("truncate", "ftruncate", "posix_fallocate", "fsync", "fdatasync", "sync"),
    *("rename", "renames", "replace", "link", "symlink", "unlink", "remove"),
    *("mkdir", "makedirs", "rmdir", "removedirs", "mkfifo", "mknod", "utime"),
    *("chmod", "chown", "fchmod", "fchown", "setxattr", "removexattr"),
}


def source(module):
    return pathlib.Path(module.__file__).read_text(encoding="utf-8")


def test_disk_makes_every_change_through_the_seam():
    # That other modules make none is for test_layering to say.
    module = ast.parse(source(disk) + source(descriptors) + source(files))
    calls = [node for node in ast.walk(module) if isinstance(node, ast.Call)]
    through = {
        argument
        for call in calls
        if ast.unparse(call.func) in ("_change", "syscall")
        for argument in call.args
    }
    found = {
        node
        for node in ast.walk(module)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "os"
    }
    changes = {node for node in found if node.attr in CHANGES}
    expected = {"pwrite", "fsync", "replace", "link", "unlink"}
    assert {node.attr for node in changes} >= expected
    names = {x.id for x in through if isinstance(x, ast.Name)}
    inside = {
        node
        for function in ast.walk(module)
        if isinstance(function, ast.FunctionDef) and function.name in names
        for node in ast.walk(function)
    }
    assert changes <= through | inside
    # What makes a change is only ever handed to the seam.
    called = {call.func.id for call in calls if isinstance(call.func, ast.Name)}
    assert not names & called - {"call"}
    for call in calls:
        if ast.unparse(call.func) in ("Descriptor", "super().__init__"):
            opener, _, flags, *_ = map(ast.unparse, call.args)
            if opener != "syscall":
                assert flags in ("_LOCK if to_lock else _READ", "FOLDER")
        assert ast.unparse(call.func) not in ("open", "os.open")


AUDIT = """
import os, pathlib, sys, threading
from support import faults
from elementsckpt.storage import disk

sys.dont_write_bytecode = True
inside = threading.local()
seen, outside = [], []

def syscall(call, *args, real=disk.syscall):
    inside.now = True
    try:
        return real(call, *args)
    finally:
        inside.now = False

WRITES = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
EVENTS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink"}
EVENTS |= {"os.truncate", "os.chmod", "os.chown", "os.utime", "os.setxattr"}

def hook(event, args):
    if event in EVENTS or (event == "open" and args[2] & WRITES):
        (seen if getattr(inside, "now", False) else outside).append((event, args))

disk.syscall = syscall
faults.use_small_segments()
situations = [kind(pathlib.Path(sys.argv[1]) / kind.__name__) for kind in faults.ALL]
for situation in situations:
    situation.root.mkdir()
    situation.prepare()
sys.addaudithook(hook)
for situation in situations:
    situation.save(situation.checkpoint())
if outside:
    sys.exit(f"outside the seam: {outside}")
print(*sorted({event for event, _ in seen}))
"""


def test_no_save_changes_the_disk_outside_the_seam(memory_path):
    result = subprocess.run(
        [sys.executable, "-c", AUDIT, str(memory_path)],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [
        *("open", "os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename"),
        "os.rmdir",
    ]

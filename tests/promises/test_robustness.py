"""What a reviewer broke: each claim fails without the fix that was made for it."""

import collections
import contextlib
import errno
import fcntl
import gc
import json
import logging
import os
import pickle
import shutil
import signal
import sys
import threading
import types

import numpy as np
import pytest
import xxhash

import elementsckpt
from elementsckpt import Checkpoint
from elementsckpt.format.sizes import Sizes
from elementsckpt.storage import disk
from elementsckpt.system import threads

from support import library_threads
from support.boxes import Box, Stream, python, visible

LOGGER = "elementsckpt"


def make(directory=None, keep=1, background=False, compress="auto", **states):
    """Return a checkpoint of boxes; it syncs nothing."""
    manner = {"fsync": False, "background": background, "compress": compress}
    cp = Checkpoint(directory, keep=keep, **manner)
    for key, state in states.items():
        setattr(cp, key, Box(state))
    return cp


def counting(directory):
    """Return a checkpoint whose saves have no segments."""
    cp = Checkpoint(directory, keep=None, fsync=False)
    cp.step = elementsckpt.Counter()
    return cp


def rewrite(save, **fields):
    """Change fields of a manifest and sign it, as somebody would who forges one."""
    file = save / "manifest.json"
    content = json.loads(file.read_bytes()) | fields
    del content["digest"]
    body = json.dumps(content).encode()[:-1]
    digest = xxhash.xxh3_128_hexdigest(body).encode()
    file.write_bytes(body + b',\n"digest":"%s"}\n' % digest)


def sequence_of(save):
    return json.loads((save / "manifest.json").read_bytes())["sequence"]


def run_limited(script, *args):
    """Run a script that sets limits of its own process; returns what it prints."""
    result = python(script, *args)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


@pytest.fixture
def inject(monkeypatch):
    """Return a function that puts something into the place of `disk.syscall`."""
    return lambda fault: monkeypatch.setattr(disk, "syscall", fault)


@pytest.fixture
def warnings(caplog):
    """Return the log, with the warnings of this library in it."""
    caplog.set_level(logging.WARNING, LOGGER)
    return caplog


# Values


@pytest.mark.parametrize("wanted", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("saved_as", ["numpy", "torch"])
@pytest.mark.torch
@pytest.mark.torch
def test_cast_converts_values_for_torch_components(tmp_path, saved_as, wanted):
    torch = pytest.importorskip("torch")
    saved = np.array([1, 2, 3], np.int32)
    saved = torch.from_numpy(saved) if saved_as == "torch" else saved
    make(tmp_path, agent={"w": saved}).save()
    cp = make(tmp_path, agent={"w": torch.zeros(3, dtype=getattr(torch, wanted))})
    cp.load(cast=True)
    loaded = cp.agent.state["w"]
    assert loaded.dtype == getattr(torch, wanted)
    assert loaded.tolist() == [1, 2, 3]


BFLOAT16 = "bfloat16"
CASTS = [
    ("int8", "uint8", False),
    ("float32", "int32", False),
    ("complex64", "float32", False),
    (BFLOAT16, "int32", False),
    ("uint8", "int8", True),
    ("int32", "float32", True),
    ("int32", BFLOAT16, True),
    ("float64", "float32", True),
    ("float32", BFLOAT16, True),
    (BFLOAT16, "float32", True),
    ([("x", "f4")], [("y", "f4")], False),
    ([("x", "f4"), ("y", "f4")], [("y", "f4"), ("x", "f4")], False),
    ([("x", "f4")], [("x", "f4"), ("y", "f4")], False),
    ([("x", "f4")], [("x", "i4")], False),
    ([("x", "f4")], "float32", False),
    ("float32", [("x", "f4")], False),
]


@pytest.mark.parametrize(("saved", "wanted", "allowed"), CASTS)
def test_cast_allows_what_numpy_calls_the_same_kind(tmp_path, saved, wanted, allowed):
    def dtype(spec):
        if spec == BFLOAT16:
            return np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
        return np.dtype(spec)

    make(tmp_path, agent={"w": np.ones(3, dtype(saved))}).save()
    cp = make(tmp_path, agent={"w": np.zeros(3, dtype(wanted))})
    if not allowed:
        with pytest.raises(elementsckpt.MismatchError, match="agent/w: saved"):
            cp.load(cast=True)
        assert cp.agent.loads == 0
        return
    cp.load(cast=True)
    assert cp.agent.state["w"].dtype == dtype(wanted)
    assert cp.agent.state["w"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("compress", [None, 1])
def test_a_byte_that_a_thread_toggles_never_damages_a_save(
    tmp_path, background, compress
):
    array = np.random.default_rng(0).integers(0, 7, 8 << 20, np.uint8)
    cp = make(tmp_path, replay=array, background=background, compress=compress)
    done = threading.Event()

    def toggle():
        while not done.is_set():
            for _ in range(1000):
                array[5 << 20] ^= 1

    thread = threading.Thread(target=toggle)
    thread.start()
    try:
        for _ in range(8):
            cp.save()
            cp.wait()
            make(tmp_path, replay=None).load()
    finally:
        done.set()
        thread.join()


def test_a_dict_in_2000_places_stays_one_dict(tmp_path):
    shared = {f"x{n}": float(n) for n in range(1000)}
    make(tmp_path, agent=[shared] * 2000).save()
    cp = make(tmp_path, agent=None)
    report = cp.load()
    assert len(cp.agent.state) == 2000
    assert cp.agent.state[0] == shared
    assert all(item is cp.agent.state[0] for item in cp.agent.state)
    assert sorted(report.loaded) == sorted(f"agent/0/{name}" for name in shared)


def test_leaves_in_too_many_places_are_not_called_damage(tmp_path):
    shared = {f"x{n}": float(n) for n in range(1000)}
    make(tmp_path, agent=[shared] * 2000).save()
    cp = make(tmp_path, agent=[dict.fromkeys(shared, 0.0)])
    with pytest.raises(elementsckpt.MismatchError, match="without regex"):
        cp.load(regex="0/.*")
    assert cp.agent.loads == 0


@pytest.mark.skipif(np.__version__ < "2", reason="StringDType is NumPy 2's")
@pytest.mark.parametrize("options", [{}, {"na_object": None}, {"na_object": np.nan}])
def test_strings_of_variable_length_load_partially(tmp_path, options):
    dtype = np.dtypes.StringDType(**options)
    names = np.array(["a", "long enough to be on the heap"], dtype)
    make(tmp_path, agent={"names": names, "w": np.ones(3)}).save()
    current = {"names": np.array(["", ""], dtype), "w": np.zeros(3)}
    cp = make(tmp_path, agent=current)
    report = cp.load(regex="names")
    assert report.loaded == ("agent/names",)
    assert cp.agent.state["names"].tolist() == names.tolist()
    assert cp.agent.state["names"].dtype == dtype
    assert cp.agent.state["w"] is current["w"]


def test_online_loads_into_target_and_stays_itself(tmp_path):
    saved = {"online": {"w": np.ones(3)}, "target": {"w": np.full(3, 2.0)}}
    make(tmp_path, agent=saved).save()
    current = {"online": {"w": np.zeros(3)}, "target": {"w": np.zeros(3)}}
    cp = make(tmp_path, agent=current)
    report = cp.load(regex="online", rename={"^online": "target"})
    assert report.loaded == ("agent/target/w",)
    assert cp.agent.state["target"]["w"].tolist() == [1, 1, 1]
    assert cp.agent.state["online"] is current["online"]
    assert current["online"]["w"].tolist() == [0, 0, 0]


def test_partial_loads_keep_the_objects_they_do_not_touch(tmp_path):
    def state(value):
        return {
            "params": {"w": np.full(3, value)},
            "rng": np.random.default_rng(int(value)),
            "legacy": np.random.RandomState(int(value)),
            "cache": collections.OrderedDict(k=[1, 2]),
        }

    make(tmp_path, agent=state(1.0)).save()
    current = state(0.0)
    cp = make(tmp_path, agent=current)
    cp.load(regex="params/.*")
    assert cp.agent.state["params"]["w"].tolist() == [1, 1, 1]
    for untouched in ("rng", "legacy", "cache"):
        assert cp.agent.state[untouched] is current[untouched]


# Damage, and what is not damage


def flipped(content, position, bit):
    return (
        content[:position] + bytes([content[position] ^ bit]) + content[position + 1 :]
    )


def test_any_flipped_bit_in_the_newest_manifest_falls_back(tmp_path, warnings):
    cp = counting(tmp_path)
    paths = []
    for _ in range(3):
        cp.step.increment()
        paths.append(cp.save().path)
    file = paths[-1] / "manifest.json"
    content = file.read_bytes()
    flips = {(position, 1 << position % 8) for position in range(len(content))}
    for name in (b'"version":', b'"sequence":'):
        digit = content.index(name) + len(name)
        flips |= {(digit, 1 << n) for n in range(8)}
    wrong = []
    for position, bit in sorted(flips):
        file.write_bytes(flipped(content, position, bit))
        warnings.clear()
        again = counting(tmp_path)
        around = content[max(position - 20, 0) : position + 2]
        try:
            report = again.load()
            if (again.step.value, report.fell_back_from) != (2, paths[-1]):
                wrong.append((around, bit, report))
            elif str(paths[-1]) not in warnings.text:
                wrong.append((around, bit, "no warning"))
        except elementsckpt.CheckpointError as error:
            wrong.append((around, bit, error))
    assert not wrong


def test_saves_after_a_damaged_one_are_newer_than_all(tmp_path):
    cp = counting(tmp_path)
    first, _, newest = [cp.save().path for _ in range(3)]
    content = (newest / "manifest.json").read_bytes()
    digit = content.index(b'"sequence":') + len(b'"sequence":')
    for bit in range(8):
        damaged = flipped(content, digit, 1 << bit)
        (newest / "manifest.json").write_bytes(damaged)
        again = counting(tmp_path)
        again.step.value = 10 + bit
        report = again.save()
        assert report.sequence > 3
        assert counting(tmp_path).load().path == report.path
        shutil.rmtree(report.path)
    assert sequence_of(first) == 1


def test_a_newest_save_of_a_later_version_is_not_replaced_by_an_older(tmp_path):
    cp = counting(tmp_path)
    newest = [cp.save().path for _ in range(3)][-1]
    rewrite(newest, version=9)
    again = counting(tmp_path)
    with pytest.raises(elementsckpt.VersionError, match="version 9"):
        again.load()
    with pytest.raises(elementsckpt.VersionError):
        again.load_or_save()
    assert again.save().sequence == 4


def test_a_failing_current_state_does_not_make_a_save_damaged(tmp_path, warnings):
    class Breaks(Box):
        def save(self):
            raise ValueError("not built yet")

    Point = collections.namedtuple("Point", "x y")
    theirs = make(tmp_path, keep=2, agent=Point(0, 0))
    theirs.save()
    theirs.agent.state = Point(1, 2)
    newest = theirs.save().path
    cp = Checkpoint()
    cp.agent = Breaks()
    report = cp.load(tmp_path)
    assert report.path == newest
    assert report.fell_back_from is None
    assert cp.agent.state == {"x": 1, "y": 2}
    assert list(report.plain) == ["agent"]
    assert "not built yet" in warnings.text


LIMITED_MEMORY = """
import resource, sys
import numpy as np
import elementsckpt

source, spare, mmap = sys.argv[1], int(sys.argv[2]) << 20, sys.argv[3] == "True"
cp = elementsckpt.Checkpoint()
cp.agent = elementsckpt.Saveable(["state"])
cp.agent.state = None
loads = []
cp.agent.load = loads.append
with open("/proc/self/statm") as file:
    size = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + spare,) * 2)
try:
    cp.load(source, mmap=mmap)
    print("loaded")
except Exception as error:
    print(type(error).__name__, error, file=sys.stderr)
    print(type(error).__name__)
"""
needs_statm = pytest.mark.skipif(
    not os.path.exists("/proc/self/statm"), reason="needs the size of the process"
)


@needs_statm
@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("compress", [None, 1])
def test_too_little_memory_is_not_damage(tmp_path, mmap, compress):
    cp = make(tmp_path, keep=2, agent={"state": np.zeros(3)}, compress=compress)
    cp.save()
    cp.agent.state = {"state": np.zeros(40 << 20, np.uint8)}
    cp.save()
    assert run_limited(LIMITED_MEMORY, tmp_path, 24, mmap) == ["ReadError"]


@needs_statm
@pytest.mark.parametrize(
    "spare", [24, 70]
)  # Too little to read, too little to unpickle.
def test_too_little_memory_is_not_damage_of_what_elements_wrote(tmp_path, spare):
    for day, size in ((1, 3), (2, 40 << 20)):
        folder = tmp_path / f"2020010{day}T000000F000000"
        folder.mkdir()
        state = {"state": np.zeros(size, np.uint8)}
        (folder / "agent.pkl").write_bytes(pickle.dumps(state))
        (folder / "done").write_bytes(b"")
    assert run_limited(LIMITED_MEMORY, tmp_path, spare, False) == ["ReadError"]


@pytest.mark.parametrize("fault", ["pickle", "jax"])
def test_a_shard_that_cannot_be_built_stops_all_loads(tmp_path, fault):
    shards = [{"x": np.zeros(3)}, {"x": np.zeros(3)}]
    error = elementsckpt.PickleError
    cp = make(tmp_path, agent=1)
    cp.replay = Stream(shards)
    if fault == "pickle":
        shards.append({"x": lambda: 0})
        cp.save()
    else:
        jax = pytest.importorskip("jax")
        error = elementsckpt.MismatchError
        jax.config.update("jax_enable_x64", True)
        try:
            shards.append({"x": jax.numpy.zeros(3, "float64")})
            cp.save()
        finally:
            jax.config.update("jax_enable_x64", False)
    mine = make(agent=0)
    mine.replay = Stream()
    with pytest.raises(error, match="replay"):
        mine.load(tmp_path)
    assert mine.agent.loads == mine.replay.loads == 0
    assert mine.agent.state == 0


def test_all_functions_agree_on_the_newest_save(tmp_path):
    cp = make(tmp_path, keep=3, agent=0)
    paths = []
    for number in range(3):
        cp.agent.state = number
        paths.append(cp.save().path)
    file = paths[-1] / "manifest.json"
    file.write_bytes(file.read_bytes()[:-10])
    again = make(tmp_path, agent=None)
    assert again.latest() == paths[1]
    assert elementsckpt.info(tmp_path).path == paths[1]
    assert again.load().path == paths[1]
    assert again.saves()[-1].path == paths[1]
    assert again.agent.state == 1


def test_all_functions_refuse_a_newest_save_of_a_later_version(tmp_path):
    cp = make(tmp_path, keep=3, agent=0)
    newest = [cp.save().path for _ in range(3)][-1]
    rewrite(newest, version=9)
    again = make(tmp_path, agent=None)
    for call in (again.load, again.latest, lambda: elementsckpt.info(tmp_path)):
        with pytest.raises(elementsckpt.VersionError, match="version 9"):
            call()


def test_a_class_that_is_gone_comes_back_as_a_dict_and_says_so(tmp_path, warnings):
    module = types.ModuleType("gone_module")
    sys.modules["gone_module"] = module
    try:
        exec(
            "from typing import NamedTuple\nclass P(NamedTuple):\n  x: int",
            vars(module),
        )
        make(tmp_path, agent={"p": [module.P(3)]}).save()
    finally:
        del sys.modules["gone_module"]
    cp = make(tmp_path, agent=None)
    report = cp.load()
    assert cp.agent.state == {"p": [{"x": 3}]}
    assert report.plain == {"agent/p/0": "gone_module:P"}
    assert "gone_module:P" in warnings.text
    assert "agent/p/0" in warnings.text


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("fault", ["truncated", "gone"])
@pytest.mark.parametrize("compress", [None, 1])
def test_errors_about_a_segment_name_the_leaf(tmp_path, mmap, fault, compress):
    cp = make(tmp_path, agent={"w": np.zeros(100_000)}, compress=compress)
    save = cp.save().path
    (segment,) = save.glob("agent-*.safetensors")
    if fault == "gone":
        segment.unlink()
    else:
        os.truncate(segment, segment.stat().st_size // 2)
    with pytest.raises(elementsckpt.DamagedError, match="agent/w"):
        make(tmp_path, agent=None).load(mmap=mmap)


def test_a_write_error_keeps_its_errno_through_pickle(tmp_path, inject):
    def full(call, *args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    inject(full)
    with pytest.raises(elementsckpt.WriteError) as caught:
        make(tmp_path, agent=1).save()
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is elementsckpt.WriteError
    assert again.errno == caught.value.errno == errno.ENOSPC
    assert str(again) == str(caught.value)


# Ctrl-C


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


def test_a_save_in_a_signal_handler_does_not_reach_into_the_one_it_interrupts(
    tmp_path, inject, monkeypatch
):
    monkeypatch.setattr(threads, "_THREADS", 1)
    first, second = np.random.default_rng(0).integers(0, 256, (2, 100_000), np.uint8)
    other = make(tmp_path / "other", agent=second)
    rung = []

    def ring(call, *args):
        if call is os.pwrite and len(args[1]) == 100_000 and not rung:
            rung.append(call)
            signal.raise_signal(signal.SIGUSR1)
        return call(*args)

    previous = signal.signal(signal.SIGUSR1, lambda *_: other.save())
    try:
        inject(ring)
        path = make(tmp_path / "ckpt", agent=first).save().path
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert rung
    assert (elementsckpt.read(path, mmap=False)["agent"] == first).all()
    assert (elementsckpt.read(tmp_path / "other")["agent"] == second).all()


# Other processes and people


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
    report = make(tmp_path, agent=7).save()
    if lock == "held":
        os.close(swept[0])
    visible = {path.name for path in tmp_path.iterdir() if path.name[0] != "."}
    assert visible == {"latest", report.path.name}
    cp = make(tmp_path, agent=None)
    assert cp.load().path == report.path
    assert cp.agent.state == 7


@pytest.mark.parametrize("before", [os.mkdir, os.open, os.replace, disk._link])
@pytest.mark.parametrize("background", [False, True])
def test_a_save_outlives_sweeps_of_others(tmp_path, inject, before, background):
    old, done = make(tmp_path, agent=np.arange(100)).save().path, []

    def sweep(call, *args):
        result = call(*args)
        if call is before and not done:
            done.append(args)
            elementsckpt.directory.listing.Directory(tmp_path).sweep()
        return result

    inject(sweep)
    with make(tmp_path, agent=np.arange(100), background=background) as cp:
        path = cp.save().path
    assert done
    assert not old.exists()
    cp = make(tmp_path, agent=None)
    assert cp.load().path == path
    assert cp.agent.state.tolist() == list(range(100))


@pytest.mark.parametrize("refused", [os.unlink, os.rmdir, os.replace])
@pytest.mark.parametrize("background", [False, True])
def test_a_cleanup_that_fails_only_warns(
    tmp_path, inject, warnings, refused, background
):
    cp = make(tmp_path, agent=np.zeros(3), background=background)
    old = cp.save().path
    cp.wait()

    def refuse(call, *args):
        if call is refused and old.name in str(args[0]):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return call(*args)

    inject(refuse)
    cp.agent.state = np.ones(3)
    report = cp.save()
    cp.wait()
    assert old.name in warnings.text
    again = make(tmp_path, agent=None)
    assert again.load().path == report.path
    assert again.agent.state.tolist() == [1, 1, 1]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", [os.replace, os.unlink, os.rmdir])
@pytest.mark.parametrize("background", [False, True])
def test_an_old_save_may_vanish_under_the_cleanup(
    tmp_path, inject, step, when, background
):
    cp = make(tmp_path, agent=np.zeros(3), background=background)
    old = cp.save().path
    cp.wait()
    vanished = []

    def vanish():
        for folder in tmp_path.glob(f"*{old.name}"):
            shutil.rmtree(folder)
        vanished.append(old)

    def interleave(call, *args):
        is_step = call is step and old.name in str(args[0]) and not vanished
        if is_step and when == "before":
            vanish()
        result = call(*args)
        if is_step and when == "after":
            vanish()
        return result

    inject(interleave)
    report = cp.save()
    cp.wait()
    assert vanished
    assert make(tmp_path, agent=None).load().path == report.path
    assert {p.name for p in tmp_path.iterdir()} == {"latest", report.path.name}


@pytest.mark.parametrize("change", [False, True])
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_old_save_may_vanish_when_it_is_linked(
    tmp_path, inject, when, change, background
):
    noise = np.random.default_rng(0).integers(0, 256, (3, 100_000), np.uint8)
    cp = make(tmp_path, agent={"a": noise[:2], "b": noise[2]}, background=background)
    old = cp.save().path
    cp.wait()
    vanished = []

    def interleave(call, *args):
        is_link = call is disk._link and not vanished
        if is_link and when == "before":
            vanished.append(shutil.rmtree(old))
        result = call(*args)
        if is_link and when == "after":
            vanished.append(shutil.rmtree(old))
        return result

    inject(interleave)
    noise[2] += change
    report = cp.save()
    cp.wait()
    assert vanished
    again = make(tmp_path, agent=None)
    assert again.load().path == report.path
    assert (again.agent.state["a"] == noise[:2]).all()
    assert (again.agent.state["b"] == noise[2]).all()
    assert {p.name for p in tmp_path.iterdir()} == {"latest", report.path.name}


def test_a_directory_that_cannot_be_listed_any_more_only_warns(
    tmp_path, inject, warnings, monkeypatch
):
    def refuse(path):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    def revoke(call, *args):
        result = call(*args)
        if call is os.replace and args[1].name == "latest":
            monkeypatch.setattr(os, "scandir", refuse)
        return result

    cp = make(tmp_path, agent=1)
    cp.save()
    inject(revoke)
    path = cp.save().path
    monkeypatch.undo()
    assert str(path) in warnings.text
    assert make(tmp_path, agent=None).load().path == path


def test_a_save_slower_than_two_others_stays_and_is_the_newest(tmp_path):
    class Slow(Box):
        def save(self):
            for number in range(2):
                other = make(tmp_path, agent=number)
                other.save()
            return self.state

    cp = Checkpoint(tmp_path, keep=1, fsync=False)
    cp.agent = Slow("slow")
    report = cp.save()
    assert report.path.exists()
    assert report.sequence == sequence_of(report.path) == 3
    again = make(tmp_path, agent=None)
    assert again.load().path == report.path
    assert [info.path for info in again.saves()] == [report.path]


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_save_that_fails_early_leaves_no_folders(tmp_path, inject, depth):
    path = tmp_path / "a" / "b" / "save"
    refused = [path.parent.parent, path.parent, path][depth]

    def full(call, *args):
        if call is os.mkdir and args[0] == refused:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return call(*args)

    inject(full)
    with pytest.raises(elementsckpt.WriteError):
        make(agent=1).save(path)
    assert list(tmp_path.iterdir()) == []


def test_files_that_people_put_into_a_save_stay_where_they_were(tmp_path, warnings):
    cp = make(tmp_path, agent=np.zeros(3))
    old = cp.save().path
    (old / "notes.txt").write_text("mine")
    newest = cp.save().path
    assert [file.name for file in old.iterdir()] == ["notes.txt"]
    assert (old / "notes.txt").read_text() == "mine"
    assert str(old) in warnings.text
    cp.save()
    assert (old / "notes.txt").read_text() == "mine"
    assert not newest.exists()


def test_a_save_that_was_moved_and_linked_back_is_found_and_stays(tmp_path):
    directory, elsewhere = tmp_path / "ckpt", tmp_path / "archive"
    save = make(directory, agent=5).save().path
    shutil.move(save, elsewhere)
    save.symlink_to(elsewhere)
    cp = make(directory, agent=None)
    assert cp.load_or_save()
    assert cp.agent.state == 5
    for _ in range(3):
        cp.save()
    assert save.is_symlink()
    assert elementsckpt.info(elsewhere).sequence == 1
    assert elementsckpt.info(directory).sequence == 4
    assert (elsewhere / "manifest.json").exists()


@pytest.mark.parametrize("sequence", [(1 << 52) - 1, 1 << 52, (1 << 53) - 1])
def test_a_copy_with_a_huge_sequence_does_not_stop_the_run(tmp_path, sequence):
    same = np.random.default_rng(0).bytes(200_000)
    cp = make(tmp_path, keep=2, agent=(0, same))
    copy = tmp_path / "copy"
    shutil.copytree(cp.save().path, copy)
    rewrite(copy, sequence=sequence)
    for number in range(1, 4):
        cp.agent.state = (number, same, np.full(3, number))
        path = cp.save().path
        again = make(tmp_path, agent=None)
        again.load(path)
        assert again.agent.state[:2] == (number, same)
        again.load()
        assert again.agent.state[:2] == (number, same)


# Odd paths


def test_a_file_in_the_path_is_no_raw_error(tmp_path):
    (tmp_path / "file").write_text("mine")
    assert_unusable(tmp_path / "file" / "ckpt")
    assert_unusable(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_name_that_is_too_long_is_no_raw_error(tmp_path):
    assert_unusable(tmp_path / ("x" * 300))


def assert_unusable(path):
    """Check that all that touches the path raises an error of this library."""
    cp = make(path, agent=1)
    repr(cp)
    calls = [cp.load, cp.save, cp.load_or_save]
    calls += [lambda: cp.save(path / "save"), lambda: cp.load(path / "save")]
    calls += [lambda: elementsckpt.info(path), lambda: elementsckpt.read(path)]
    for call in calls:
        with pytest.raises(elementsckpt.CheckpointError):
            call()
    for question in (cp.exists, cp.latest, cp.saves):
        with contextlib.suppress(elementsckpt.CheckpointError):
            assert not question()
    assert cp.agent.loads == 0


def test_a_huge_sparse_manifest_is_damage(tmp_path):
    save = tmp_path / "20200101T000000F000000"
    save.mkdir()
    with open(save / "manifest.json", "wb") as file:
        file.truncate(8 << 30)
    cp = make(tmp_path, agent=1)
    for call in (cp.load, cp.load_or_save, lambda: cp.load(save)):
        with pytest.raises(elementsckpt.DamagedError, match="8589934592 bytes"):
            call()
    assert cp.latest() is None
    assert cp.saves() == []
    cp.save()
    assert cp.load().fell_back_from is None


def test_a_dangling_link_in_a_folder_of_elements_is_damage(tmp_path):
    save = tmp_path / "20200101T000000F000000"
    save.mkdir()
    (save / "agent.pkl").symlink_to(tmp_path / "gone")
    (save / "done").write_bytes(b"")
    cp = make(tmp_path, agent=1)
    calls = [cp.load, cp.load_or_save, lambda: cp.load(save, regex=".*")]
    calls += [lambda: elementsckpt.read(save)]
    for call in calls:
        with pytest.raises(elementsckpt.DamagedError, match=r"agent\.pkl"):
            call()
    assert elementsckpt.info(save).components["agent"].bytes >= 0
    assert cp.agent.loads == 0


def test_a_group_that_a_pattern_lacks_is_a_mismatch(tmp_path):
    cp = make(tmp_path, agent={"x": np.zeros(3)})
    cp.save()
    with pytest.raises(elementsckpt.MismatchError, match="rename"):
        cp.load(rename={"^x": r"\3"})
    assert cp.agent.loads == 0


@pytest.mark.parametrize("keep", [2.0, 0, True, -1, "2"])
def test_keep_is_a_number_of_saves(tmp_path, keep):
    with pytest.raises(ValueError, match="keep="):
        Checkpoint(tmp_path, keep=keep)


# Many


MANY_SEGMENTS = """
import resource, sys
import numpy as np
import elementsckpt
from elementsckpt.format.sizes import Sizes

resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
elementsckpt.Checkpoint._SIZES = Sizes(segment=100_000, segments=1000)
manner = {"fsync": False, "compress": None, "background": bool(sys.argv[3])}
cp = elementsckpt.Checkpoint(sys.argv[1], **manner)
cp.agent = elementsckpt.Saveable(["state"])
cp.agent.state = [np.full(1 << 16, n, np.uint16) for n in range(400)]
for _ in range(2):  # The second time they are linked.
    report = cp.save()
    report = cp.wait() or report
    assert len(list(report.path.glob("*.safetensors"))) == 400
    cp.agent.state = None
    cp.load(mmap=sys.argv[2] == "True")
    assert all((x == n).all() for n, x in enumerate(cp.agent.state))
assert report.bytes_reused > report.bytes_written
print(len(cp.agent.state))
"""


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("background", ["", "background"])
def test_400_segments_need_few_file_descriptors(tmp_path, mmap, background):
    assert run_limited(MANY_SEGMENTS, tmp_path, mmap, background) == ["400"]


def test_segments_of_many_small_leaves_open_elsewhere(tmp_path, monkeypatch):
    safetensors = pytest.importorskip("safetensors")
    limit = Sizes().segment_leaves
    monkeypatch.setattr(Checkpoint, "_SIZES", Sizes(segment_leaves=10_000))
    state = {f"layer/{n:06d}": np.full(1, n, np.float32) for n in range(30_000)}
    path = make(tmp_path, agent=state).save().path
    names = []
    for file in sorted(path.glob("*.safetensors")):
        with safetensors.safe_open(str(file), "np") as opened:
            found = [x for x in opened.keys() if not x.startswith("__")]  # noqa: SIM118
        assert len(found) <= 10_000
        size = int.from_bytes(file.read_bytes()[:8], "little")
        assert size / len(found) * limit < 100_000_000
        names += found
    assert sorted(names) == [f"{name}@1" for name in sorted(state)]
    cp = make(tmp_path, agent=None)
    cp.load()
    assert cp.agent.state == state
    gc.collect()


def test_a_link_to_a_save_that_is_not_there_never_means_a_fresh_start(tmp_path):
    cp = make(tmp_path / "ckpt", agent=1)
    path = cp.save().path
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "unmounted")
    with pytest.raises(elementsckpt.DamagedError, match="link to a folder that is not"):
        make(tmp_path / "ckpt", agent=2).load_or_save()


def test_metadata_that_speaks_of_a_sequence_does_not_mislead(tmp_path):
    cp = make(tmp_path, keep=None, agent=1)
    old = cp.save(metadata={"sequence": 900}).path
    manifest = old / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:-5])
    cp.agent.state = 2
    assert cp.save().sequence == 2
    report = cp.load()
    assert report.fell_back_from is None
    assert cp.agent.state == 2


# Space


@pytest.mark.parametrize("background", [False, True])
def test_what_does_not_fit_is_refused_before_it_is_written(
    tmp_path, monkeypatch, background
):
    cp = make(tmp_path, background=background, compress=None, agent=np.zeros(9))
    cp.save()
    cp.wait()
    real = os.statvfs(tmp_path)
    free = real.f_frsize * 10

    def little(path):
        return types.SimpleNamespace(
            f_frsize=real.f_frsize, f_bfree=10, f_bavail=10, f_blocks=real.f_blocks
        )

    monkeypatch.setattr(os, "statvfs", little)
    written = []
    original = disk.syscall

    def record(call, *args):
        written.extend([len(args[1])] if call is os.pwrite else [])
        return original(call, *args)

    monkeypatch.setattr(disk, "syscall", record)
    cp.agent.state = np.random.default_rng(0).random(1_000_000)
    with pytest.raises(OSError, match=rf"needs 8,\d+,\d+ bytes.*{free:,} are free"):
        save_and_wait(cp)
    assert not written
    assert visible(tmp_path) == visible_saves(cp)
    cp.agent.state = np.zeros(99)
    save_and_wait(cp)


def save_and_wait(cp):
    cp.save()
    cp.wait()


def visible_saves(cp):
    return sorted(["latest", *(info.path.name for info in cp.saves())])

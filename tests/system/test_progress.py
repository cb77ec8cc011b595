"""How far loads and what looks at saves are, as a callback is told."""

import itertools
import threading

import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint, DamagedError, Files, Saveable, Value
from elementsckpt.system import renderers
from elementsckpt.system.progress import STEP_BYTES, Meter

COUNT, SIZE = 4, 3_000_000  # Arrays, and their elements of 8 bytes.
RANDOM = np.random.default_rng(0)  # Which does not compress.
WORKS = {
    "load": lambda cp, path: cp.load(),
    "load, mapped": lambda cp, path: cp.load(mmap=True),
    "load_or_save": lambda cp, path: cp.load_or_save(),
    "read": lambda cp, path: elementsckpt.read(path),
    "verify": lambda cp, path: elementsckpt.verify(path),
    "stats": lambda cp, path: elementsckpt.stats(path, regex="w"),
    "diff": lambda cp, path: elementsckpt.diff(f"{path.parent}@latest~1", path),
    "export": lambda cp, path: elementsckpt.export(path, path.parent / "x.npz"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a checkpoint of two saves, which the tests only read."""
    cp = Checkpoint(tmp_path_factory.mktemp("run") / "ckpt", keep=None, fsync=False)
    cp.agent = Value({f"w{n}": RANDOM.random(SIZE) for n in range(COUNT)})
    cp.files = Files(
        save=lambda path: (path / "f").write_bytes(bytes(9_000_000)),
        load=lambda path: None,
    )
    cp.save()
    for array in cp.agent.value.values():
        array += 1
    cp.save()
    return cp


def path_of(cp):
    return cp.latest()


def told(call, *arguments):
    """Call a function and return the `Progress` that it told."""
    found = []
    with elementsckpt.progress(found.append):
        call(*arguments)
    return found


@pytest.mark.parametrize("work", WORKS)
def test_a_callback_hears_the_start_each_32_mb_and_the_end(run, work, tmp_path):
    found = told(WORKS[work], run, path_of(run))
    (path_of(run).parent / "x.npz").unlink(missing_ok=True)
    done = [progress.bytes_done for progress in found]
    (total,) = {progress.bytes_total for progress in found}
    assert {progress.work for progress in found} == {
        "load" if work.startswith("load") else work
    }
    assert total >= COUNT * SIZE * 8
    assert done[0] == 0
    assert done[-1] == total
    steps = [b - a for a, b in itertools.pairwise(done)]
    assert min(steps) >= 0
    assert max(steps) <= STEP_BYTES
    assert [x.is_finished for x in found] == [False] * (len(found) - 1) + [True]
    assert found == sorted(found, key=lambda x: x.seconds)


def test_a_save_tells_nothing(tmp_path):
    cp = Checkpoint(tmp_path, fsync=False)
    cp.agent = Value({"w": np.ones(SIZE)})
    assert told(cp.save) == []


def test_wait_tells_how_far_the_save_in_the_background_is(tmp_path):
    cp = Checkpoint(tmp_path, background=True, fsync=False)
    cp.agent = Value({f"w{n}": np.ones(SIZE) * n for n in range(COUNT)})
    total = cp.save().bytes_total
    found = told(cp.wait)
    assert {progress.work for progress in found} == {"wait"}
    assert {progress.bytes_total for progress in found} == {total}
    assert found[-1].is_finished
    assert len(found) > total / STEP_BYTES
    assert [x.bytes_total for x in told(cp.wait)] == [0, 0]  # There is no other save.


def test_wait_sees_what_the_other_thread_has_written(tmp_path, monkeypatch):
    """It is told while the thread is held up behind its first segment."""
    from elementsckpt.saving.segment_writer import SegmentWriter

    go, write = threading.Event(), SegmentWriter.write
    late = []

    def hold(self, index):
        if late:
            assert go.wait(60)
        late.append(index)
        write(self, index)

    def note(progress):
        seen.append(progress.bytes_done)
        if 0 < progress.bytes_done < progress.bytes_total:
            go.set()

    seen = []
    monkeypatch.setattr("elementsckpt.system.pace.HELPERS", 1)
    monkeypatch.setattr(SegmentWriter, "write", hold)
    monkeypatch.setattr("elementsckpt.system.threads._THREADS", 1)
    cp = Checkpoint(tmp_path, background=True, fsync=False)
    cp.agent = Value({f"w{n}": np.ones(SIZE) * n for n in range(COUNT)})
    cp.save()
    with elementsckpt.progress(note):
        cp.wait()
    assert go.is_set()


def test_part_of_a_save_has_the_total_of_that_part(run):
    found = told(lambda: run.load(keys=["agent"], regex="w1"))
    assert {progress.bytes_total for progress in found} == {SIZE * 8}


def test_shards_are_verified_and_read(tmp_path):
    def shards():
        for number in range(3):
            yield np.full(SIZE, float(number))

    cp = Checkpoint(tmp_path, fsync=False)
    cp.replay = Saveable(shards, lambda found: [None for _ in found])
    cp.save()
    found = told(cp.load)
    assert {progress.bytes_total for progress in found} == {2 * 3 * SIZE * 8}


def test_an_older_save_keeps_the_total(tmp_path):
    cp = Checkpoint(tmp_path, keep=None, fsync=False)
    cp.agent = Saveable(lambda: RANDOM.random(SIZE * count), print)
    count = 1
    cp.save()
    count = 2
    newest = cp.save().path
    (segment,) = [x for x in newest.iterdir() if x.suffix == ".safetensors"]
    content = bytearray(segment.read_bytes())
    content[-1] ^= 1
    segment.chmod(0o600)
    segment.write_bytes(content)
    found = []
    with elementsckpt.progress(found.append):
        state = elementsckpt.read(tmp_path, mmap=False)["agent"]
    assert len(state) == SIZE
    assert {progress.bytes_total for progress in found} == {2 * SIZE * 8}
    done = [progress.bytes_done for progress in found]
    assert done == sorted(done)


@pytest.mark.parametrize("error", [DamagedError("mine"), KeyError("mine"), SystemExit])
@pytest.mark.parametrize("work", WORKS)
def test_what_a_callback_raises_ends_the_work(run, work, error):
    """Also what damage raises, for which a load would try the next save."""
    calls = []

    def refuse(progress):
        calls.append(progress)
        if progress.bytes_done:
            raise error

    kind = error if isinstance(error, type) else type(error)
    with pytest.raises(kind) as info, elementsckpt.progress(refuse):
        WORKS[work](run, path_of(run))
    assert isinstance(error, type) or info.value is error
    assert len([x for x in calls if x.bytes_done]) == 1
    assert not (path_of(run).parent / "x.npz").exists()


def test_what_a_callback_raises_ends_waiting_and_not_the_save(tmp_path):
    def refuse(progress):
        raise KeyError

    cp = Checkpoint(tmp_path, background=True, fsync=False)
    cp.agent = Value({"w": np.ones(SIZE)})
    cp.save()
    with pytest.raises(KeyError), elementsckpt.progress(refuse):
        cp.wait()
    assert cp.wait().is_finished


def test_an_error_of_the_work_is_told_nothing_of(tmp_path, run):
    found = []
    with elementsckpt.progress(found.append), pytest.raises(elementsckpt.MismatchError):
        elementsckpt.stats(path_of(run), regex="none")
    assert not any(progress.is_finished for progress in found)


def test_a_callback_runs_in_the_thread_of_the_caller(run):
    threads = set()
    with elementsckpt.progress(lambda _: threads.add(threading.get_ident())):
        elementsckpt.read(path_of(run), mmap=False)
    assert threads == {threading.get_ident()}


def test_the_innermost_block_counts(run):
    outer, inner = [], []
    path = path_of(run)
    with elementsckpt.progress(outer.append):
        with elementsckpt.progress(inner.append):
            elementsckpt.verify(path)
        with elementsckpt.progress(None):
            elementsckpt.verify(path)
        assert outer == []
        elementsckpt.verify(path)
    assert len(outer) >= len(inner) - 1 > 1


def test_a_block_is_of_its_own_thread(run):
    found = []
    with elementsckpt.progress(found.append):
        thread = threading.Thread(target=elementsckpt.verify, args=[path_of(run)])
        thread.start()
        thread.join()
    assert found == []


def test_a_callback_must_be_a_function():
    block = elementsckpt.progress(3)
    with pytest.raises(ValueError, match="callback=3: pass a function"):
        block.__enter__()


def test_what_threads_count_is_told_while_the_caller_waits():
    meter, found = Meter("load"), []
    with elementsckpt.progress(found.append), meter:
        meter.begin(3 * STEP_BYTES)
        thread = threading.Thread(target=meter.add, args=[2 * STEP_BYTES])
        thread.start()
        thread.join()
        assert len(found) == 1
        meter.tell()
        assert [x.bytes_done for x in found] == [0, STEP_BYTES, 2 * STEP_BYTES]
    meter.add(1)  # As a generator that outlives the load may.
    assert len(found) == 5


@pytest.mark.parametrize(
    ("value", "kind"), [("0", None), ("log", "_Log"), ("", "_Log"), ("other", "_Log")]
)
def test_the_variable_chooses(monkeypatch, caplog, value, kind):
    caplog.set_level("INFO", "elementsckpt")
    monkeypatch.setenv("ELEMENTSCKPT_PROGRESS", value)
    found = renderers.default()
    assert (found and type(found).__name__) == kind


def test_nothing_is_counted_for_a_log_that_is_off(caplog, run, monkeypatch):
    caplog.set_level("WARNING", "elementsckpt")
    assert renderers.default() is None
    monkeypatch.setattr(Meter, "_call", lambda *_, **__: pytest.fail("told"))
    elementsckpt.verify(path_of(run))


def test_a_line_is_logged_each_30_seconds(caplog):
    caplog.set_level("INFO", "elementsckpt")
    log = renderers.default()
    for second in range(0, 100, 10):
        log(elementsckpt.Progress("load", second * 10**7, 10**9, float(second), False))
    log(elementsckpt.Progress("load", 10**9, 10**9, 100.0, True))
    assert [record.levelname for record in caplog.records] == ["INFO"] * 3
    assert caplog.messages[0] == "load: 30 %, 300 MB of 1.00 GB in 30.0 s"


def test_a_child_that_was_forked_tells_for_itself(run, forked):
    script = f"""
import os, elementsckpt
found = []
with elementsckpt.progress(found.append):
    pid = os.fork()
    elementsckpt.verify({str(path_of(run))!r})
    if not pid:
        os._exit(0 if found[-1].is_finished else 1)
print(os.waitpid(pid, 0)[1], found[-1].is_finished)
"""
    assert forked(script).stdout.split() == ["0", "True"]

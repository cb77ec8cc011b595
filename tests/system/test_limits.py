"""A job may have less memory than the machine: control groups, and `ulimit -v`."""

import errno
import mmap
import os
import pickle
import resource
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zstandard

import elementsckpt
from elementsckpt import Checkpoint, ReadError
from elementsckpt.system import memory, threads

from support import jobs
from support.boxes import Box, make, make_boxes, printed, python
from support.folders import MB, noise

FIRST = "35 31 0:31 / {top} rw,relatime shared:9 - cgroup cgroup rw,memory"
SECOND = "41 31 0:38 / {top} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
LIMITS = {
    "version 1": (["4:cpu,memory:/a/b/c", "0::/"], FIRST, "memory.limit_in_bytes"),
    "version 2": (["0::/a/b/c"], SECOND, "memory.max"),
    "a container": (
        ["4:memory:/docker/7f/a/b/c"],
        FIRST.replace(" / ", " /docker/7f "),
        "memory.limit_in_bytes",
    ),
    "a namespace": (["0::/a/b/c"], SECOND, "memory.max"),
}


@pytest.fixture
def linux(tmp_path, monkeypatch):
    with jobs.made_up(tmp_path, monkeypatch) as made:
        yield made


@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize("group", ["a/b/c", "a/b", "a", "."])
def test_a_limit_counts_wherever_it_is_above_the_process(linux, kind, group):
    own, mount, name = LIMITS[kind]
    linux.is_in(own, mount)
    for other in ("a/b/c", "a/b", "a", "."):
        linux.set(other, {name: "max" if "max" in name else (1 << 63) - 4096})
    linux.set("a/b/c/d", {name: 1})  # Of somebody else.
    linux.set("b", {name: 1})
    assert memory.memory_bytes() > 500 * MB
    held = "anon" if name == "memory.max" else "total_rss"
    linux.set(group, {name: 500 * MB}, **{held: 100 * MB})
    assert memory.memory_bytes() == 500 * MB
    assert memory.left_bytes() == 400 * MB
    cp = Checkpoint(background=True)
    assert cp._engine.saver._memory.limit_bytes == 500 * MB // 8


def test_the_least_of_both_versions_counts(linux):
    linux.is_in(["4:memory:/a", "0::/b"], FIRST, SECOND)
    linux.set("a", {"memory.limit_in_bytes": 300 * MB}, total_rss=10 * MB)
    linux.set("b", {"memory.max": 400 * MB}, anon=150 * MB)
    assert memory.memory_bytes() == 300 * MB
    assert memory.left_bytes() == 250 * MB


def test_what_can_be_taken_back_is_left(linux):
    linux.is_in(["0::/a"], SECOND)
    held = {"anon": 100 * MB, "shmem": 30 * MB}
    linux.set("a", {"memory.max": 500 * MB}, file=300 * MB, **held)
    linux.has(MemTotal=900 * MB, SwapFree=0, AnonPages=0, Cached=800 * MB)
    assert memory.left_bytes() == 370 * MB
    linux.has(MemTotal=900 * MB, SwapFree=50 * MB, AnonPages=500 * MB, Shmem=200 * MB)
    assert memory.left_bytes() == 250 * MB
    linux.has(MemTotal=900 * MB, SwapFree=0, AnonPages=900 * MB, SUnreclaim=MB)
    assert memory.left_bytes() == 0


def test_what_a_group_has_not_heard_of_counts(linux):
    linux.is_in(["0::/a/b"], SECOND)
    linux.set("a", {"memory.max": 500 * MB}, anon=100 * MB)
    linux.uses(300 * MB)
    assert memory.left_bytes() == 200 * MB
    linux.uses(30 * MB)
    assert memory.left_bytes() == 400 * MB


def test_where_processes_are_slowed_down_there_is_less_to_stage(linux):
    linux.is_in(["0::/a"], SECOND)
    linux.set("a", {"memory.max": "max", "memory.high": 400 * MB}, anon=399 * MB)
    cp = Checkpoint(background=True)
    assert cp._engine.saver._memory.limit_bytes == 50 * MB
    assert memory.left_bytes() == 400 * MB  # Nobody is killed there.


@pytest.mark.parametrize(
    ("own", "mount"),
    [
        ([], ""),
        (["0::/a"], ""),
        (["4:memory:/a", "1:name=systemd:/a"], SECOND),
        (["0::/../../other"], SECOND),
        (["0::/elsewhere/a"], SECOND.replace(" / ", " /here ")),
        (["0::/a"], SECOND.replace("cgroup2 cgroup2", "tmpfs cgroup2")),
    ],
)
def test_what_is_not_seen_is_no_limit(linux, own, mount):
    linux.is_in(own, mount)
    linux.set("a", {"memory.max": MB, "memory.limit_in_bytes": MB})
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert memory.memory_bytes() == memory.left_bytes() == size


def test_without_proc_the_memory_is_that_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_PROC", tmp_path)
    jobs.forget()
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert memory.memory_bytes() == memory.left_bytes() == size
    jobs.forget()


# With limits of the kernel

LOADS = """
import sys
import elementsckpt

path, *verbs = sys.argv[1:]
cp = elementsckpt.Checkpoint(path)
cp.agent = elementsckpt.Saveable(["state"])
cp.agent.state = None
calls = {
    "load": cp.load_or_save,
    "read": lambda: elementsckpt.read(path, mmap=False),
    "selected": lambda: elementsckpt.read(path, regex=".*", mmap=False),
    "mapped": lambda: elementsckpt.read(path, mmap=True),
}
for verb in verbs:
    try:
        calls[verb]()
        print("done")
    except elementsckpt.CheckpointError as error:
        print(verb, type(error).__name__, *str(error).split())
"""


def test_in_a_small_job_a_load_that_cannot_fit_is_refused(tmp_path):
    make(tmp_path, {"state": np.zeros(100 * MB, np.uint8)}, compress=1).save()
    verbs = "load", "read", "selected", "mapped"
    with jobs.job(100 * MB) as start:
        child = start(LOADS, tmp_path, *verbs)
    assert child.returncode == 0, child.stderr
    for verb, line in zip(verbs, child.stdout.splitlines(), strict=True):
        assert line.startswith(f"{verb} ReadError")
        assert f"{100 * MB:,}" in line
    with jobs.job(300 * MB) as start:
        assert start(LOADS, tmp_path, "load").stdout == "done\n"


ELEMENTS = """
import sys
import elementsckpt

try:
    elementsckpt.read(sys.argv[1])
except elementsckpt.ReadError as error:
    print("refused")
"""


def test_in_a_small_job_a_folder_of_elements_that_cannot_fit_is_refused(tmp_path):
    elements = pytest.importorskip("elements")
    cp = elements.Checkpoint(str(tmp_path / "ckpt"))
    cp.agent = Box({"w": np.zeros(80 * MB, np.uint8)})
    cp.save()
    with jobs.job(200 * MB) as start:
        child = start(ELEMENTS, tmp_path / "ckpt")
    assert (child.returncode, child.stdout) == (0, "refused\n"), child.stderr


GROWS = """
import sys
import numpy as np
import elementsckpt

size, count = map(int, sys.argv[2:])
cp = elementsckpt.Checkpoint(sys.argv[1], fsync=False)
cp.replay = elementsckpt.Saveable(
    save=lambda: (np.full(size, n % 7, np.uint8) for n in range(count)), load=list
)
try:
    (cp.save if not cp.exists() else cp.load)()
    print("done")
except elementsckpt.ReadError as error:
    print("refused")
"""


@pytest.mark.parametrize("size", [MB // 10, 10 * MB])
def test_in_a_small_job_a_generator_that_grows_too_much_is_refused(tmp_path, size):
    count = 120 * MB // size
    with jobs.job(120 * MB) as start:
        assert start(GROWS, tmp_path, size, count).stdout == "done\n"
        child = start(GROWS, tmp_path, size, count)
    assert (child.returncode, child.stdout) == (0, "refused\n"), child.stderr


SAVES = """
import sys
import numpy as np
import elementsckpt

options = {"staging_bytes": int(sys.argv[2])} if sys.argv[2:] else {}
cp = elementsckpt.Checkpoint(sys.argv[1], background=True, fsync=False, **options)
cp.agent = elementsckpt.Saveable(["state"])
cp.agent.state = np.tile(np.random.default_rng(0).bytes(1000), 100_000)
cp.save()
cp.wait()
print("done")
"""


@pytest.mark.parametrize("staging_bytes", [(), (1 << 40,)])
def test_in_a_small_job_a_save_in_the_background_takes_no_more_than_there_is(
    tmp_path, staging_bytes
):
    with jobs.job(200 * MB) as start:
        child = start(SAVES, tmp_path, *staging_bytes)
    assert (child.returncode, child.stdout) == (0, "done\n"), child.stderr


LIMITED = """
import resource, sys
import numpy as np
import elementsckpt

options = {"background": True, "staging_bytes": 1 << 30, "fsync": False}
cp = elementsckpt.Checkpoint(sys.argv[1], **options)
cp.agent = elementsckpt.Saveable(["state"])
cp.agent.state = np.arange(40 << 17)
kind = getattr(resource, sys.argv[2])
for spare in [megabytes << 20 for megabytes in (6, 9, 17, 24, 33, 40)]:
    with open("/proc/self/statm") as file:
        pages = file.read().split()
    size = int(pages[0 if kind == resource.RLIMIT_AS else 5]) * resource.getpagesize()
    resource.setrlimit(kind, (size + spare, resource.RLIM_INFINITY))
    cp.agent.state += 1
    report = cp.save()
    cp.agent.state += 1  # Too late to be in that save.
    cp.wait()
    resource.setrlimit(kind, (resource.RLIM_INFINITY,) * 2)
    assert elementsckpt.read(report.path)["agent"]["state"][7] == cp.agent.state[7] - 1
print("done")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads sizes in /proc")
@pytest.mark.parametrize("kind", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_where_memory_is_limited_what_cannot_be_copied_is_written_at_once(
    tmp_path, kind
):
    child = python(LIMITED, tmp_path, kind)
    assert (child.returncode, child.stdout) == (0, "done\n"), child.stderr


def test_what_the_system_does_not_map_is_written_at_once(tmp_path, monkeypatch):
    made = mmap.mmap

    def refuse(fd, *args, **options):
        if fd == -1:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return made(fd, *args, **options)

    monkeypatch.setattr(mmap, "mmap", refuse)
    state = {"w": noise(0, 3 * MB)}
    cp = make(tmp_path, state, background=True)
    report = cp.save()
    state["w"][:] = 0
    cp.wait()
    assert np.array_equal(
        elementsckpt.read(report.path)["agent"]["w"], noise(0, 3 * MB)
    )


def test_what_finds_no_memory_beside_others_is_done_alone():
    def call(number):
        if threading.current_thread() is not threading.main_thread():
            raise MemoryError
        return 2 * number

    assert threads.run(call, range(50)) == list(range(0, 100, 2))

    def fail(_):
        raise MemoryError

    with pytest.raises(MemoryError):
        threads.run(fail, range(5))


class NoMemory:
    """What zstd is where it gets no memory."""

    def __init__(self, **options):
        pass

    def fail(self, *_):
        raise zstandard.ZstdError("cannot work: Allocation error : not enough memory")

    compress = stream_reader = fail


def in_a_new_thread(call):
    """Return what a call returns in a thread that has no compressors yet."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def test_what_cannot_be_compressed_is_stored_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(zstandard, "ZstdCompressor", NoMemory)
    cp = make(tmp_path, {"w": np.zeros(MB)}, compress=9)
    report = in_a_new_thread(cp.save)
    assert report.bytes_written > 8 * MB
    assert not elementsckpt.read(report.path)["agent"]["w"].any()


def test_too_little_memory_to_decompress_is_not_damage(tmp_path, monkeypatch):
    cp = make(tmp_path, {"w": np.zeros(MB)}, keep=2, compress=1)
    cp.save()
    cp.save()
    monkeypatch.setattr(zstandard, "ZstdDecompressor", NoMemory)
    with pytest.raises(ReadError, match="does not fit into memory"):
        in_a_new_thread(cp.load)


def test_limits_of_the_process_bound_what_is_staged(monkeypatch):
    def getrlimit(kind):
        return (800 * MB if kind == resource.RLIMIT_AS else -1), -1

    monkeypatch.setattr(resource, "getrlimit", getrlimit)
    jobs.forget()
    assert Checkpoint(background=True)._engine.saver._memory.limit_bytes == 100 * MB
    jobs.forget()


LIMITED_MEMORY = """
import resource, sys
import numpy as np
import elementsckpt

source, spare = sys.argv[1], int(sys.argv[2]) << 20
manners = [{"mmap": word == "mapped"} for word in sys.argv[3:]]
cp = elementsckpt.Checkpoint()
cp.agent = elementsckpt.Saveable(["state"])
cp.agent.state = None
loads = []
cp.agent.load = loads.append
with open("/proc/self/statm") as file:
    size = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + spare,) * 2)
for manner in manners:
    try:
        cp.load(source, **manner)
        print("loaded")
    except Exception as error:
        print(type(error).__name__, error, file=sys.stderr)
        print(type(error).__name__)
"""
needs_statm = pytest.mark.skipif(
    not os.path.exists("/proc/self/statm"), reason="needs the size of the process"
)


@needs_statm
@pytest.mark.parametrize("compress", [None, 1])
def test_too_little_memory_is_not_damage(tmp_path, compress):
    cp = make_boxes(tmp_path, keep=2, agent={"state": np.zeros(3)}, compress=compress)
    cp.save()
    cp.agent.state = {"state": np.zeros(40 << 20, np.uint8)}
    cp.save()
    found = printed(LIMITED_MEMORY, tmp_path, 24, "read", "mapped")
    assert found == ["ReadError", "ReadError"]


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
    assert printed(LIMITED_MEMORY, tmp_path, spare, "read") == ["ReadError"]

"""Few files are open at a time: whatever a save has, and whoever else reads."""

import errno
import gc
import itertools
import os
import sys

import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint, Value
from elementsckpt.storage import disk

from support.boxes import LazyStream, make, printed
from support.faults import (
    Fails,
    FilesAgain,
    FilesBackground,
    copy_with_links,
    unsynced,
    use_small_segments,
)

pytestmark = pytest.mark.skipif(
    not os.path.isdir("/proc/self/fd"), reason="counts the files that are open"
)
LIMIT = 128
SETUP = """
import gc, os, resource, sys, threading
import numpy as np
import elementsckpt
from elementsckpt import Checkpoint, Saveable

from support.faults import use_sizes

_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (128, most))
use_sizes(segment=100_000)
options = {"fsync": False, "compress": None}
directory = sys.argv[1]


class Box:
    def __init__(self, state=None):
        self.state = state

    def save(self):
        return self.state

    def load(self, data):
        self.state = data


class Stream(Box):
    def save(self):
        yield from self.state


def array(number):
    return np.full(40_000, number, np.uint16)


def checkpoint(kind, components, arrays, filled=False):
    cp = Checkpoint(directory, **options)
    for n in range(components):
        state = [array(n + i) for i in range(arrays)] if filled else None
        setattr(cp, f"c{n}", kind(state))
    return cp


def check(states):
    for n, state in enumerate(states):
        for i, found in enumerate(state):
            assert (found == n + i).all(), (n, i)


def states(cp):
    return [cp._components[f"c{n}"].value.state for n in range(len(list(cp)))]


def count():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))
"""
# Of each, what is saved once, and what is then loaded in both manners.
SCRIPTS = {
    "components": """
checkpoint(Box, 300, 1, True).save()

def load(mmap):
    cp = checkpoint(Box, 300, 1)
    cp.load(mmap=mmap)
    check(states(cp))
""",
    "segments": """
checkpoint(Box, 3, 100, True).save()

def load(mmap):
    cp = checkpoint(Box, 3, 100)
    cp.load(mmap=mmap)
    cp.load(mmap=mmap)
    check(states(cp))
""",
    "generators": """
checkpoint(Stream, 3, 100, True).save()

def load(mmap):
    kept = [checkpoint(Stream, 3, 100) for _ in range(3)]
    for cp in kept:
        cp.load(mmap=mmap)
    for cp in kept:
        check(states(cp))
""",
    "threads": """
checkpoint(Box, 40, 5, True).save()

def load(mmap):
    errors = []

    def work():
        try:
            for _ in range(2):
                cp = checkpoint(Box, 40, 5)
                cp.load(mmap=mmap)
                check(states(cp))
                check(elementsckpt.read(directory, mmap=mmap).values())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
""",
    "theirs": """
checkpoint(Box, 40, 5, True).save()

def load(mmap):
    theirs = [open("/dev/null") for _ in range(100)]
    check(elementsckpt.read(directory, mmap=mmap).values())
    for file in theirs:
        file.close()
""",
}
LEFT = """
for mmap in (False, True):
    before = count()
    load(mmap)
    print(count() - before)
"""


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_has_more_files_than_may_be_open_loads(tmp_path, forked, name):
    child = forked(SETUP + SCRIPTS[name] + LEFT, tmp_path)
    assert child.returncode == 0, child.stderr
    read, mapped = map(int, child.stdout.split())
    assert read <= 0
    assert mapped <= (LIMIT // 2 if sys.version_info < (3, 13) else 0)


@pytest.fixture
def no_collector():
    """Let nothing be freed that holds itself."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def open_files():
    return len(os.listdir("/proc/self/fd"))


def test_a_generator_that_is_not_read_keeps_no_file_open(tmp_path, no_collector):
    cp = Checkpoint(tmp_path)
    cp.replay = LazyStream([np.zeros(9), np.ones(9)])
    cp.save()
    before = open_files()
    cp.load()
    assert open_files() == before + 1
    cp.replay.got = None
    assert open_files() == before
    for read in (0, 1, 2):
        cp.load()
        for _ in range(read):
            next(cp.replay.got)
        assert open_files() == before + 1
        cp.replay.got.close() if read else setattr(cp.replay, "got", None)
        assert open_files() == before


def test_what_is_mapped_needs_no_file_when_it_is_gone(tmp_path, no_collector):
    cp = Checkpoint(tmp_path, compress=None)
    cp.agent = Value({"w": np.zeros(9)})
    cp.save()
    before = open_files()
    for _ in range(3):
        state = elementsckpt.read(tmp_path)["agent"]
        assert not state["w"].any()
        del state
        assert open_files() == before


@pytest.mark.parametrize("verb", ["load", "read"])
def test_a_load_that_fails_keeps_no_file_open(tmp_path, no_collector, verb):
    path = make(tmp_path, {"w": np.zeros(9)}).save().path
    (file,) = path.glob("*.safetensors")
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[:-1] + b"x")
    before = open_files()
    calls = {
        "load": make(tmp_path).load,
        "read": lambda: elementsckpt.read(path, mmap=False),
    }
    errors = []
    for _ in range(3):
        try:
            calls[verb]()
        except elementsckpt.DamagedError as error:
            errors.append(error)
        assert open_files() == before
    assert len(errors) == 3


@pytest.mark.parametrize(
    ("kind", "sticky"),
    [(FilesAgain, False), (FilesAgain, True), (FilesBackground, True)],
)
def test_a_save_that_fails_keeps_no_file_open(
    tmp_path, monkeypatch, no_collector, kind, sticky
):
    use_small_segments(monkeypatch.setattr)
    template = kind(tmp_path / "template")
    template.root.mkdir()
    template.prepare()
    errors = []
    for n in itertools.count(1):
        monkeypatch.setattr(disk, "syscall", unsynced)
        situation = kind(tmp_path / str(n))
        copy_with_links(template.root, situation.root)
        cp = situation.checkpoint()
        fault = Fails(n, OSError(errno.EIO, os.strerror(errno.EIO)), sticky=sticky)
        monkeypatch.setattr(disk, "syscall", fault)
        before = open_files()
        try:
            situation.save(cp)
        except elementsckpt.WriteError as error:
            errors.append(error)
        if fault.count < n:
            break
        cp.close()  # It holds the directory.
        assert open_files() == before, n
    assert len(errors) > 10


MANY_SEGMENTS = """
import resource, sys
import numpy as np
import elementsckpt

from support.faults import use_sizes

resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
use_sizes(segment=100_000, segments=1000)
manner = {"fsync": False, "compress": None, "background": bool(sys.argv[2])}
cp = elementsckpt.Checkpoint(sys.argv[1], **manner)
cp.agent = elementsckpt.Saveable(["state"])
cp.agent.state = [np.full(1 << 16, n, np.uint16) for n in range(400)]

def load(mmap):
    cp.agent.state = None
    cp.load(mmap=mmap)
    assert all((x == n).all() for n, x in enumerate(cp.agent.state))

for _ in range(2):  # The second time they are linked.
    report = cp.save()
    report = cp.wait() or report
    assert len(list(report.path.glob("*.safetensors"))) == 400
    load(mmap=True)
    load(mmap=False)
assert report.bytes_reused > report.bytes_written
print(len(cp.agent.state))
"""


@pytest.mark.parametrize("background", ["", "background"])
def test_400_segments_need_few_file_descriptors(tmp_path, background):
    assert printed(MANY_SEGMENTS, tmp_path, background) == ["400"]

"""Faults for the seam of `elementsckpt.storage.disk`, and saves to inject them into.

Every change of the disk goes through `disk.syscall`, so replacing this one function
makes the n-th change fail, write short, or be the last thing that the process does.
As a program, this module forks a child for each line it reads that makes a save and
dies in it: a process without threads may fork, and a pytest process has threads.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import traceback
from types import MappingProxyType, SimpleNamespace

import numpy as np

import elementsckpt
from elementsckpt import Checkpoint, Files, WriteError
from elementsckpt.format.sizes import Sizes
from elementsckpt.storage import disk
from elementsckpt.system import threads

from support.boxes import Box, Stream, environment
from support.medium import Create, Link, Mode, Remove, Rename, Sync, Write

DIED = 70
BLOCK_BYTES = 2048


def use_sizes(setattr=setattr, **sizes):
    """Make the sizes of blocks and segments other ones than those for users."""
    setattr(Checkpoint, "_SIZES", Sizes(**sizes))


def use_small_segments(setattr=setattr, block_bytes=BLOCK_BYTES, **others):
    """Make saves of a few kB have several segments of several blocks."""
    sizes = {
        "block": block_bytes,
        "small": block_bytes // 2,
        "segment": 3 * block_bytes,
        "arena": block_bytes,
        "shards": block_bytes,  # The stream below is flushed once before its end.
    }
    use_sizes(setattr, **sizes | others)


def use_one_thread(setattr=setattr):
    """Have the system refuse helper threads, so that calls come in one order."""
    setattr(threads, "start", lambda *_, daemon: False)


# A save whose values tell which one it is


def make(directory, value=0, **options):
    """Return a checkpoint of three components whose state tells its value."""
    cp = Checkpoint(directory, step=value, **options)
    cp.agent, cp.step = Box(agent_state(value)), Box(value)
    cp.replay = Stream([{"x": x} for x in shards(value)])
    return cp


class Policy(Files):
    """A component whose state is the content of files, by path.

    It writes them by way of `disk`, so that faults reach it and the medium sees it.
    """

    def __init__(self, state):
        super().__init__(save=self.write, load=self.read)
        self.state = state
        self.loads = 0

    def write(self, folder):
        for name, content in self.state.items():
            path = folder / name
            for parent in reversed(path.relative_to(folder).parents):
                if not (folder / parent).exists():
                    disk.make_folder(folder / parent)
            file = disk.create(path)
            try:
                disk.write(file.fd, content, 0, path=path)
            finally:
                file.close()

    def read(self, folder):
        self.state = contents(folder)
        self.loads += 1


def contents(folder):
    """Return what is in the files in a folder, by path."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(x.relative_to(folder)): x.read_bytes() for x in files}


def files(value):
    """Return contents of files, of which different values share some."""
    return {
        "same": bytes(range(256)) * 20,
        "deep/same": b"same",
        "deep/config.json": b'{"value": %d}' % value,
        "weights": b"%d" % value * 3000,
    }


def agent_state(value):
    """Return arrays of which different values share all, most, a quarter or nothing."""
    noise = np.random.default_rng(0).random((10, BLOCK_BYTES // 4), np.float32)
    table, fleeting = noise[2:6], noise[6:10]
    table[value % 4, 7] = value
    fleeting[1:, 7] = value
    return {
        "same": noise[:2],
        "table": table,
        "fleeting": fleeting,
        "constant": np.full(600, value, np.float32),  # It is compressed.
        "n": np.arange(value),
    }


def shards(value):
    """Return shards, of which those in the first block are always the same."""
    return [np.full(100, i if i < 2 else value + i) for i in range(4)]


def value_of(cp):
    """Return the value whose state the checkpoint holds; it must be whole."""
    value = cp.step.state
    expected = agent_state(value)
    assert list(cp.agent.state) == list(expected)
    for key, array in expected.items():
        assert np.array_equal(cp.agent.state[key], array), key
    loaded = [shard["x"] for shard in cp.replay.state]
    assert np.array_equal(loaded, shards(value))
    if "policy" in cp:
        assert cp.policy.state == files(value)
    return value


def files_of(save):
    """Return the paths of the files and folders that belong in a save folder."""
    content = json.loads((save / "manifest.json").read_bytes())
    found = {"manifest.json"}
    for item in content["components"]:
        found |= {x[0] for x in item["segments"]}
        if item["files"]:
            folder = pathlib.PurePath(item["files"]["folder"])
            for path, *_ in item["files"]["files"]:
                found |= {str(folder / path), *map(str, (folder / path).parents)}
    return found - {"."}


# Faults, each in the place of `disk.syscall`


def is_link(call):
    """Tell whether the call gives a file a second name."""
    return call is disk._link


def unsynced(call, *args):
    """Make a call, but sync nothing: that shows only when the power fails."""
    return None if call is os.fsync else call(*args)


class Counts:
    """Counts the calls and makes them one at a time, syncing nothing."""

    def __init__(self):
        self.count = 0
        self.lock = threading.RLock()

    def __call__(self, call, *args):
        with self.lock:
            self.count += 1
            return self.make(call, *args)

    def make(self, call, *args):
        return unsynced(call, *args)


class Fails(Counts):
    """Raises an error at the n-th call, and at all later ones if it sticks."""

    def __init__(self, n, error, *, sticky=False):
        super().__init__()
        self.n, self.error, self.sticky = n, error, sticky
        self.failed = []  # The calls.

    def make(self, call, *args):
        if self.count == self.n or (self.sticky and self.count > self.n):
            self.failed.append(call)
            raise self.error
        return super().make(call, *args)


class FailsAfterCommit(Counts):
    """Raises an error at the first sync after a manifest got its name."""

    def __init__(self, syscall):
        super().__init__()
        self.syscall = syscall
        self.is_committed = False

    def make(self, call, *args):
        if self.is_committed and call is os.fsync:
            self.is_committed = False
            raise OSError(errno.EIO, "injected")
        result = self.syscall(call, *args)
        if call is os.replace and args[1].name == "manifest.json":
            self.is_committed = True
        return result


class WritesShort(Counts):
    """Writes only a part of what it is given, of a different length each time."""

    def make(self, call, *args):
        if call is os.pwrite:
            fd, data, offset = args
            args = fd, data[: 1 + (self.count * 7919) % len(data)], offset
        return super().make(call, *args)


class Interjects(Counts):
    """Does something else just before the n-th call, or just after it."""

    def __init__(self, n, action, when):
        super().__init__()
        self.n, self.action, self.when = n, action, when

    def make(self, call, *args):
        if call is os.fsync:
            self.count -= 1
        if call is os.fsync or self.count != self.n:
            return super().make(call, *args)
        result = super().make(call, *args) if self.when == "after" else None
        disk.syscall = unsynced  # Else its threads would wait for this one.
        in_another_thread(self.action)
        disk.syscall = self
        return super().make(call, *args) if self.when == "before" else result


def in_another_thread(action):
    """Do something as another process would: without what this thread has at hand."""
    errors = []

    def work():
        try:
            action()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


class Dies(Counts):
    """Ends the process before the n-th call, or half through the n-th write.

    As calls are made one at a time, dying after one is dying before the next.
    """

    def __init__(self, n, when):
        super().__init__()
        self.n, self.when = n, when

    def make(self, call, *args):
        # What was not synced shows only when the power fails.
        if call is os.fsync or (self.when == "half" and call is not os.pwrite):
            self.count -= 1
        elif self.count == self.n:
            if self.when == "half":
                fd, data, offset = args
                call(fd, data[: len(data) // 2], offset)
            os._exit(DIED)
        return super().make(call, *args)


class Records(Counts):
    """Makes a list of the calls, of which nothing more has to be looked up."""

    def __init__(self):
        super().__init__()
        self.events = []

    def make(self, call, *args):
        if call is os.fsync:
            event = Sync(os.fstat(args[0]).st_ino)
        elif call is os.pwrite:
            event = Write(os.fstat(args[0]).st_ino, bytes(args[1]), args[2])
        result = super().make(call, *args)
        if call is os.open:
            event = Create(args[0], os.fstat(result).st_ino)
        elif call is os.mkdir:
            event = Create(args[0], os.stat(args[0]).st_ino, is_folder=True)
        elif call is os.replace:
            event = Rename(*args)
        elif is_link(call):
            event = Link(*args)
        elif call in (os.unlink, os.rmdir):
            event = Remove(args[0])
        elif call is os.fchmod:
            event = Mode(os.fstat(args[0]).st_ino)
        self.events.append(event)  # Fails if it is a call that is not known here.
        return result


# Situations: what was there, and the save to be interrupted


class Situation:
    """A save, with what was there before it.

    The values of the saves that were there before are up to 3, the new one has 7.

    Args:
      root: A folder that exists and is empty.
    """

    old = None  # Value of the newest save that was there.
    new = 7
    options = MappingProxyType({})  # Of the checkpoint object.

    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.directory = self.root / "ckpt"

    def prepare(self):
        """Make what was there before."""

    def checkpoint(self, value=new, keep=1, **options):
        """Return a new checkpoint object, as another process would have it."""
        return make(self.directory, value, keep=keep, **{**self.options, **options})

    def save(self, cp):
        """Make the save that is going to be interrupted."""
        report = cp.save()
        return cp.wait() or report


class First(Situation):
    """Nothing is there, nor are the directory and its parent."""

    def __init__(self, root):
        super().__init__(root)
        self.directory = self.root / "run" / "ckpt"


class Again(Situation):
    """An earlier save is there, which the new one replaces."""

    old = 1

    def prepare(self):
        self.checkpoint(self.old, background=False).save()


class Prunes(Situation):
    """Several earlier saves are there."""

    old = 3

    def prepare(self):
        for value in (2, 3):
            self.checkpoint(value, keep=None, background=False).save()


class Sweeps(Situation):
    """An earlier save is there, and what processes that died have left."""

    old = 2

    def prepare(self):
        save = self.checkpoint(self.old, background=False).save().path

        def name(number):
            return save.name[:-1] + str(number)

        unfinished = self.directory / name(20)
        shutil.copytree(save, unfinished)
        (unfinished / "manifest.json").rename(unfinished / ".manifest.json")
        shutil.copytree(unfinished, self.directory / f".{name(21)}")
        shutil.copytree(save, self.directory / f".{name(22)}")
        (self.directory / f".{name(23)}").mkdir()
        begun = self.directory / f".{name(24)}"
        begun.mkdir()
        (begun / ".manifest.json").touch()
        (self.directory / ".latest").write_text("half a na")


class Abandons(Again):
    """The save fails because of a component and is made once more without it."""

    def save(self, cp):
        cp.broken = Broken(RuntimeError("broken"))
        try:
            super().save(cp)
        except RuntimeError:
            del cp.broken
            return super().save(cp)


class TakesBack(Again):
    """The save fails when its manifest has its name, and is made once more."""

    def save(self, cp):
        syscall = disk.syscall
        disk.syscall = FailsAfterCommit(syscall)
        try:
            super().save(cp)
        except WriteError:
            disk.syscall = syscall
            return super().save(cp)


class Explicit(Situation):
    """The save goes to a path, whose parent is not there."""

    def __init__(self, root):
        super().__init__(root)
        self.directory = self.root / "exports" / "best"

    def checkpoint(self, value=Situation.new, **options):
        return make(None, value, **{**self.options, **options})

    def save(self, cp):
        report = cp.save(self.directory)
        return cp.wait() or report


class ExplicitAgain(Explicit):
    """The path holds a save that a process which died has left unfinished."""

    def prepare(self):
        self.save(self.checkpoint(1, background=False))
        manifest = self.directory / "manifest.json"
        manifest.rename(manifest.with_name(".manifest.json"))


class ExplicitAbandons(Abandons, Explicit):
    """The save to a path fails because of a component and is made once more."""

    old = None

    def prepare(self):
        self.directory.mkdir(parents=True)


class ExplicitTakesBack(TakesBack, Explicit):
    """The save to a path fails when its manifest has its name, and is made again."""

    old = None

    def prepare(self):
        self.directory.mkdir(parents=True)


class Background(Again):
    """A thread does what is left when everything is copied."""

    options = MappingProxyType({"background": True})


class BackgroundFull(Again):
    """As there is no room for copies, only the commit is left to the thread."""

    options = MappingProxyType({"background": True, "staging_bytes": 0})


class BackgroundPrunes(Prunes):
    """A thread makes the save and removes those that were there."""

    options = MappingProxyType({"background": True})


class BackgroundExplicit(Explicit):
    """A thread makes a save to a path."""

    options = MappingProxyType({"background": True})


class BackgroundTakesBack(TakesBack):
    """The thread fails when the manifest has its name; another save is made."""

    options = MappingProxyType({"background": True})


class Packs(Again):
    """Everything is compressed, here and in the save that was there."""

    options = MappingProxyType({"compress": 1})


class Twice(Again):
    """One object makes the save twice: it remembers what the first one holds."""

    def save(self, cp):
        super().save(cp)
        return super().save(cp)


class BackgroundTwice(Twice):
    """One object makes the save twice in the background."""

    options = MappingProxyType({"background": True})


class WithFiles:
    """A component writes files itself, of which the save that was there has some."""

    def checkpoint(self, value=Situation.new, **options):
        cp = super().checkpoint(value, **options)
        cp.policy = Policy(files(value))
        return cp


class FilesFirst(WithFiles, First):
    pass


class FilesAgain(WithFiles, Again):
    pass


class FilesSweeps(WithFiles, Sweeps):
    pass


class FilesExplicitAgain(WithFiles, ExplicitAgain):
    pass


class FilesBackground(WithFiles, Background):
    pass


class FilesTakesBack(WithFiles, TakesBack):
    pass


class FilesAbandons(WithFiles, Abandons):
    pass


class Stages(WithFiles, Again):
    """Files are written in a block."""

    def save(self, cp):
        with cp.staging("policy") as folder:
            cp.policy.write(folder)
        return cp.wait() or SimpleNamespace(path=folder.parent)


class BackgroundStages(Stages):
    """A thread does what is left when the block has ended."""

    options = MappingProxyType({"background": True})


ESSENTIAL = (
    *(First, Again, Prunes, Sweeps, Explicit, ExplicitAgain, Packs),
    *(Background, BackgroundFull),
    *(FilesAgain, FilesSweeps, FilesBackground, Stages, BackgroundStages),
)
# What others do, together: only `make soak` lets each of these calls fail once more.
PLAIN = *ESSENTIAL, FilesFirst, FilesExplicitAgain
TWOFOLD = (  # One object saves twice.
    *(Abandons, TakesBack, ExplicitAbandons, ExplicitTakesBack),
    *(BackgroundTakesBack, BackgroundTwice, FilesTakesBack, FilesAbandons),
)
ALL = *PLAIN, *TWOFOLD


# What is left


def resumed(situation):
    """Return the value that a new process finds; None if there is no save."""
    cp = situation.checkpoint(-1)
    if isinstance(situation, Explicit):
        if not elementsckpt.checkpoint.exists(situation.directory):
            return None
        cp.load(situation.directory)
    elif not cp.exists():
        return None
    else:
        assert cp.load_or_save()
    assert {getattr(cp, key).loads for key in cp} == {1}
    return value_of(cp)


def saves_again(situation):
    """Check that the next save works and that it leaves nothing but saves."""
    if isinstance(situation, Explicit):
        if not elementsckpt.checkpoint.exists(situation.directory):
            situation.save(situation.checkpoint())
        assert resumed(situation) == situation.new
    else:
        with situation.checkpoint(9) as cp:
            cp.save()
        assert resumed(situation) == 9
    assert_tidy(situation)


def assert_tidy(situation):
    """Check that nothing is there but whole saves and `latest`."""
    saves = [situation.directory]
    if not isinstance(situation, Explicit):
        saves = [x.path for x in situation.checkpoint().saves()]
        names = {save.name for save in saves}
        assert set(os.listdir(situation.directory)) == {*names, "latest"}
        assert (situation.directory / "latest").read_text() == saves[-1].name
    for save in saves:
        assert set(map(str, tree(save))) == files_of(save)
    top = situation.directory.relative_to(situation.root).parts[0]
    assert os.listdir(situation.root) == [top]


def tree(root):
    """Return the paths below a folder."""
    return {path.relative_to(root) for path in root.rglob("*")}


def copy_with_links(source, target):
    """Copy a folder; files that share their bytes do so in the copy, too."""
    copies = {}

    def copy(file, new):
        inode = os.stat(file).st_ino
        if inode in copies:
            os.link(copies[inode], new)
        else:
            copies[inode] = shutil.copy2(file, new)

    shutil.copytree(source, target, copy_function=copy)


# Components and processes that fail


class Broken:
    """A component that cannot be saved."""

    def __init__(self, error):
        self.error = error

    def save(self):
        raise self.error

    def load(self, data):
        raise AssertionError(data)


class Graveyard:
    """A process that forks one child for each save that is to be interrupted."""

    def __enter__(self):
        # A library's threads would make it a process that should not fork.
        single = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "support.faults"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(**single),
            text=True,
        )
        return self

    def __exit__(self, *_):
        self.process.communicate()

    def dies(self, situation, n, when):
        """Make the save in a child; returns whether it died at the n-th call.

        False means that it ran through, with fewer calls than that.
        """
        order = [type(situation).__name__, str(situation.root), n, when]
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        status = int(self.process.stdout.readline())
        assert status in (0, DIED), f"the save failed by itself at call {n}, {when}"
        return status == DIED


def serve():
    use_small_segments()
    use_one_thread()  # So this process may fork, too.
    with tempfile.TemporaryDirectory() as root:
        warm_up(FilesAgain(root))
    gc.freeze()  # Else a collection in a child would copy all pages.
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            die(*json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def warm_up(situation):
    """Import what is imported when it is needed, once and not in each child."""
    situation.prepare()
    saves_again(situation)


def die(name, root, n, when):
    try:
        situation = {kind.__name__: kind for kind in ALL}[name](root)
        disk.syscall = Dies(n, when)
        situation.save(situation.checkpoint())
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


if __name__ == "__main__":
    serve()

"""Components to save and load, and a process to do it in: what many tests share."""

import os
import pathlib
import subprocess
import sys

import elementsckpt
from elementsckpt import Checkpoint

ROOT = pathlib.Path(elementsckpt.__file__).resolve().parents[1]


class Box:
    """A component that holds any state and counts its saves and loads."""

    def __init__(self, state=None):
        self.state = state
        self.saves = self.loads = 0

    def save(self):
        self.saves += 1
        return self.state

    def load(self, data):
        self.state = data
        self.loads += 1


class Stream(Box):
    """A box whose state is a list, saved shard by shard."""

    def save(self):
        yield from self.state

    def load(self, data):
        super().load(list(data))


class LazyStream:
    """Saves a stream and keeps what load() is given, as it is."""

    def __init__(self, shards=()):
        self.shards = shards
        self.got = None

    def save(self):
        yield from self.shards

    def load(self, data):
        self.got = data


def make(directory=None, state=None, **options):
    """Return a checkpoint of one box, its agent."""
    cp = Checkpoint(directory, **options)
    cp.agent = Box(state)
    return cp


def visible(directory):
    """Return the sorted names in a directory, but for hidden ones."""
    return sorted(x.name for x in directory.iterdir() if not x.name.startswith("."))


def python(script, *arguments, flags=(), **options):
    """Run a script in a new process that imports the package under test."""
    return subprocess.run(
        [sys.executable, *flags, "-c", script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        **options,
    )

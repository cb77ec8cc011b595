"""What many tests share: components, a process, a look into the files of a save."""

import json
import os
import pathlib
import subprocess
import sys
import typing

import zstandard

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


class Lazy:
    """A component with a state dict, which it gives out as it is."""

    def __init__(self, state):
        self.state = state

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


def make(directory=None, state=None, **options):
    """Return a checkpoint of one box, its agent."""
    cp = Checkpoint(directory, **options)
    cp.agent = Box(state)
    return cp


def make_boxes(directory=None, keep=1, background=False, compress="auto", **states):
    """Return a checkpoint of a box for each key, with its state; it syncs nothing."""
    manner = {"fsync": False, "background": background, "compress": compress}
    cp = Checkpoint(directory, keep=keep, **manner)
    for key, state in states.items():
        setattr(cp, key, Box(state))
    return cp


def load_agent(path, kind=Box, directory=None, **options):
    """Return the state of the agent of a save, as a new checkpoint loads it.

    Args:
      path: The save.
      kind: Class of the component that loads it.
      directory: Of the new checkpoint, which trusts the pickles of saves in it.
      options: As for `load`.
    """
    cp = Checkpoint(directory)
    cp.agent = kind()
    cp.load(path, **options)
    return cp.agent.state


def visible(directory):
    """Return the sorted names in a directory, but for hidden ones."""
    return sorted(x.name for x in directory.iterdir() if not x.name.startswith("."))


def environment(**variables):
    """Return the environment of a process that imports the package and `support`."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return {**os.environ, "PYTHONPATH": path, **variables}


def python(script, *arguments, flags=(), **options):
    """Run a script in a new process that imports the package under test."""
    return subprocess.run(
        [sys.executable, *flags, "-c", script, *map(str, arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        **options,
    )


def printed(script, *arguments):
    """Run a script as `python` does; return the words that it prints."""
    result = python(script, *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


class Range(typing.NamedTuple):
    """Bytes in a file of a save that nobody may change.

    Attributes:
      file: The file.
      key: Component that they are of, or "manifest".
      start: Where they begin.
      end: Where they end.
      content: Content of a block; None if they are something else.
    """

    file: pathlib.Path
    key: str
    start: int
    end: int
    content: bytes | None = None


def protected(save):
    """Return the ranges of a save that digests protect; others are padding or dead."""
    manifest = save / "manifest.json"
    ranges = [Range(manifest, "manifest", 0, manifest.stat().st_size)]
    for item in json.loads(manifest.read_bytes())["components"]:
        files = [save / name for name, *_ in item["segments"]]
        for file, (_, _, start, _) in zip(files, item["segments"], strict=True):
            ranges.append(Range(file, item["key"], 0, start))
    return ranges + blocks(save)


def blocks(save):
    """Return the ranges of a save that are blocks, with their contents."""
    ranges = []
    for item in json.loads((save / "manifest.json").read_bytes())["components"]:
        files = [save / name for name, *_ in item["segments"]]
        contents = [memoryview(file.read_bytes()) for file in files]
        for number, start, size, _, unpacked in item["blocks"]:
            file = files[number]
            content = bytes(contents[number][start : start + size])
            if unpacked:
                content = zstandard.decompress(content)
            ranges.append(Range(file, item["key"], start, start + size, content))
    return ranges


def block_with(save, content):
    """Return the only block of a save that holds these bytes."""
    (found,) = (block for block in blocks(save) if content in block.content)
    return found


def damage(block):
    """Change a byte in the middle of a block, in place."""
    position = (block.start + block.end) // 2
    content = bytearray(block.file.read_bytes())
    content[position] ^= 1
    block.file.write_bytes(content)

"""Saves of which every part tells their number; as a script, a process that saves.

    python -m support.numbered <directory> <first number> <count> <keep>

It begins when it can read a line, and prints number and path of each save.
"""

from __future__ import annotations

import sys

import numpy as np

import elementsckpt
from elementsckpt import Checkpoint, Files, Saveable

SAME = np.random.default_rng(0).bytes(100_000)  # Which all saves share.


def make(directory, number=int, loaded=None, **options):
    """Return a checkpoint of a state, a generator and files.

    Args:
      directory: Where it saves.
      number: Returns the number that a save is to have, each time.
      loaded: Gets what is loaded, by key.
      options: As for `Checkpoint`.
    """
    loaded = {} if loaded is None else loaded

    def write(folder):
        (folder / "same").write_bytes(SAME)
        (folder / "number").write_text(str(number()))

    def state():
        return {"same": np.frombuffer(SAME, np.uint8), "w": np.full(30_000, number())}

    def shards():
        yield from ({"w": np.full(1000, number()), "i": i} for i in range(3))

    cp = Checkpoint(directory, **{"fsync": False, "keep": None, **options})
    cp.agent = Saveable(save=state, load=lambda x: loaded.update(agent=x))
    cp.replay = Saveable(save=shards, load=lambda x: loaded.update(replay=list(x)))
    cp.policy = Files(save=write, load=lambda x: loaded.update(policy=files_in(x)))
    return cp


def files_in(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def number_of(path):
    """Return the number of the save at a path, or of the newest in a directory."""
    states = elementsckpt.read(path, mmap=False)
    return number_in(states | {"policy": files_in(states["policy"])})


def number_in(states):
    """Return the one number of states by key; they must be whole."""
    numbers = set()
    if "agent" in states:
        assert states["agent"]["same"].tobytes() == SAME
        numbers |= {*states["agent"]["w"].tolist()}
    if "replay" in states:
        assert [shard["i"] for shard in states["replay"]] == [0, 1, 2]
        numbers |= {x for shard in states["replay"] for x in shard["w"].tolist()}
    if "policy" in states:
        assert states["policy"]["same"] == SAME
        numbers |= {int(states["policy"]["number"])}
    (number,) = numbers
    return number


def save(directory, first, count, **options):
    """Save so many numbers; print number and path of each save."""
    numbers = []
    with make(directory, lambda: numbers[-1], background=True, **options) as cp:
        for number in range(first, first + count):
            numbers.append(number)
            print(number, cp.save().path, flush=True)


def main(directory, first, count, keep):
    sys.stdin.readline()
    save(directory, int(first), int(count), keep=int(keep) or None)


if __name__ == "__main__":
    main(*sys.argv[1:])

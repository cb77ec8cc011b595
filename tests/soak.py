"""Kill saving processes and corrupt saves, at random, for as long as you like.

    python tests/soak.py --minutes 5 --seed 1

Kills: a process saves a growing replay without pause and says so after each save that
is finished, in the background or not, compressed or not. It is killed with SIGKILL at
random moments and started again. No save of which it had said so may be lost, every
resume must be whole, and nothing else may pile up.

Corruption: random bytes of random files of a save are changed, cut off, swapped or
removed; the save has compressed data and links to what earlier ones wrote. Loading
gives the right data or a CheckpointError, never anything else. A save after it, which
finds the damaged one and could reuse what is in it, is whole.

It prints its seeds; the same seed makes the same random choices, though a process is
never killed at quite the same moment twice. It exits with 1 at the first failure and
leaves the directory there to be looked at.
"""

from __future__ import annotations

import argparse
import collections
import json
import logging
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings

import numpy as np

import elementsckpt
from elementsckpt import Checkpoint, CheckpointError, DamagedError

SHARD_BYTES = 40_000
MOST_SHARDS = 200  # Then a new directory is begun.
TABLE = np.random.default_rng(0).random((6, 1 << 16))  # 3 MiB.


# The run: everything in it follows from its step


class Agent:
    """Parameters: large arrays that change or not, many small ones, scalars."""

    def __init__(self):
        self.step = 0

    def save(self):
        return agent_state(self.step)

    def load(self, data):
        require(same(data, agent_state(int(data["step"]))), "the agent is not whole")
        self.step = int(data["step"])


class Replay:
    """A stream that grows by a shard each step."""

    def __init__(self):
        self.length = 0

    def save(self):
        for index in range(self.length):
            yield shard(index)

    def load(self, data):
        self.length = 0
        for found in data:
            require(same(found, shard(self.length)), "a shard is not whole")
            self.length += 1


def agent_state(step):
    rng = np.random.default_rng(step)
    layers = {f"layer{n}": rng.random((9, n + 1)) for n in range(20)}
    table = TABLE.copy()
    table[step % len(table)] = step  # The others are what they were.
    return {
        "step": step,
        "w": rng.random((300, 300)),
        "table": table,
        "few": rng.integers(0, 2, (400, 300)),  # It is compressed.
        "layers": layers,
        "name": "ünï",
    }


def shard(index):
    rng = np.random.default_rng(index)
    return {"x": rng.integers(0, 256, SHARD_BYTES, np.uint8), "index": index}


def same(left, right):
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(
            same(left[key], right[key]) for key in left
        )
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right)
    return type(left) is type(right) and left == right


def require(condition, message):
    if not condition:
        raise AssertionError(message)


def make(directory=None, **options):
    cp = Checkpoint(directory, **options)
    cp.agent, cp.replay = Agent(), Replay()
    return cp


def resume(cp):
    """Load the newest save; returns its step, after checking all of it."""
    require(cp.load_or_save(), "there is no save")
    require(cp.agent.step == cp.replay.length, "components are of different saves")
    return cp.agent.step


def work(directory, options):
    """Save without pause, and say so after each save that is finished, until killed."""
    cp = make(directory, **options)
    if begin(cp):
        require(cp.agent.step == cp.replay.length, "components are of different saves")
    cp.wait()
    while True:
        step = cp.agent.step
        report = cp.save(metadata={"step": step})
        cp.agent.step += 1
        cp.replay.length += 1
        report = cp.wait() or report
        # One write of less than a page: it is in the pipe whole or not at all.
        line = json.dumps([report.sequence, step]) + "\n"
        os.write(1, line.encode())


def begin(cp):
    """Load or save, again if another process removed what was being loaded."""
    while True:
        newest = cp.latest()
        try:
            return cp.load_or_save()
        except DamagedError:
            if newest is not None and newest.exists():
                raise


# Kills


class Kills:
    """One directory, and the processes that save into it one after the other."""

    def __init__(self, root, rng):
        self.root, self.rng = root, rng
        self.figures = collections.Counter()
        self.begin()

    def begin(self):
        self.directory = self.root / f"run{self.figures['directories']}"
        self.figures["directories"] += 1
        self.keep = self.rng.choice([1, 1, 2, 3])
        self.confirmed = 0, 0

    def once(self):
        """Let one or two processes save for a while, kill them and look."""
        count = 1 if self.rng.random() < 0.8 else 2
        processes = [self.start() for _ in range(count)]
        # A few die while they resume, the others while or after they save.
        if self.rng.random() < 0.9:
            for process in processes:
                process.stdout.read(1)
        time.sleep(self.rng.expovariate(10))
        for process in processes:
            process.send_signal(signal.SIGKILL)
        for process in processes:
            output, errors = process.communicate()
            require(b"Traceback" not in errors, f"it failed: {errors.decode()}")
            require(process.returncode == -signal.SIGKILL, "it ended by itself")
            lines = output.decode().split("\n")[:-1]
            # The first byte of the first line has been read above.
            said = [json.loads("[" + line.lstrip("[")) for line in lines]
            self.figures["saves"] += len(said)
            self.confirmed = max([self.confirmed, *map(tuple, said)])
        self.figures["kills"] += count
        self.check(alone=count == 1)

    def start(self):
        options = {
            "keep": self.keep,
            "fsync": self.rng.random() < 0.5,
            "background": self.rng.random() < 0.5,
            "compress": self.rng.choice(["auto", "auto", None, 1]),
        }
        order = ["--work", str(self.directory), json.dumps(options)]
        return subprocess.Popen(
            [sys.executable, __file__, *order],
            bufsize=0,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def check(self, *, alone):
        sequence, step = self.confirmed
        cp = make(self.directory, keep=self.keep, fsync=False)
        saves = cp.saves()
        newest = saves[-1].sequence if saves else 0
        require(newest >= sequence, f"save {sequence} is lost; the newest is {newest}")
        if not saves:
            return
        found = resume(cp)
        if alone:
            require(found >= step, f"step {step} is lost; the newest is {found}")
        self.figures["resumes"] += 1
        self.figures["unfinished"] += sum(
            (path / ".manifest.json").exists() for path in self.directory.iterdir()
        )
        cp.save()
        names = {save.path.name for save in cp.saves()}
        require(len(names) <= self.keep, f"there are {len(names)} saves")
        require(
            set(os.listdir(self.directory)) == {*names, "latest"},
            f"there is more than saves: {os.listdir(self.directory)}",
        )
        self.confirmed = cp.saves()[-1].sequence, found
        if found > MOST_SHARDS:
            shutil.rmtree(self.directory)
            self.begin()


# Corruption


class Corruption:
    """One save, copied and corrupted again and again."""

    def __init__(self, root, rng):
        self.root, self.rng = root, rng
        self.figures = collections.Counter()
        self.directory = root / "good"
        for step in range(5, 8):
            cp = make(self.directory, keep=3, fsync=False)
            cp.agent.step = cp.replay.length = step
            report = cp.save()
        require(report.bytes_reused > 0, "nothing was reused")
        self.copy = root / "bad"
        self.bad = self.copy / report.path.name

    def once(self):
        """Corrupt a copy and load it in one of several ways."""
        shutil.copytree(self.directory, self.copy)
        for _ in range(self.rng.choice([1, 1, 1, 2, 5])):
            self.corrupt()
        # Damage that leaves no trace in the files' times is found only after a while.
        if (self.bad / "manifest.json").exists():
            os.utime(self.bad / "manifest.json", (0, 0))
        self.figures["corruptions"] += 1
        self.figures[self.look()] += 1
        self.save_again()
        shutil.rmtree(self.copy)

    def save_again(self):
        """Save after the corrupted one, which may hold what is to be saved."""
        background = self.rng.random() < 0.5
        cp = make(self.copy, keep=None, fsync=False, background=background)
        step = cp.agent.step = cp.replay.length = self.rng.choice([7, 8])
        report = cp.save()
        report = cp.wait() or report
        self.figures["reused"] += report.bytes_reused > 0
        cp.agent.step = cp.replay.length = 0
        require(cp.load().path == report.path, "the save is not the newest")
        require((cp.agent.step, cp.replay.length) == (step, step), "it is another")

    def look(self):
        way = self.rng.choice(["load", "mmap", "partly", "read", "info"])
        cp = make()
        try:
            if way == "read":
                states = elementsckpt.read(self.bad)
                require(same(states["agent"], agent_state(7)), "read: the agent")
                right = [shard(index) for index in range(7)]
                require(all(map(same, states["replay"], right)), "read: the shards")
            elif way == "info":
                require(len(elementsckpt.info(self.bad).components) == 2, "info")
            elif way == "partly":
                cp.agent.step = 7  # What is not loaded is as it was.
                cp.load(self.bad, keys=["agent"], regex="layers/|step")
            else:
                cp.load(self.bad, mmap=way == "mmap")
                require((cp.agent.step, cp.replay.length) == (7, 7), way)
        except CheckpointError:
            return "refused"
        return "right all the same"

    def corrupt(self):
        rng = self.rng
        files = sorted(self.bad.iterdir())
        if not files:
            return
        file = rng.choice(files)
        size = file.stat().st_size
        start = rng.randrange(size + 1)
        length = min(size - start, rng.choice([1, 2, 8, 64, 4096, 1 << 20]))
        kind = rng.choice(
            ["bytes", "bytes", "bit", "zeros", "cut", "grow", "move", "gone"]
        )
        self.figures[kind] += 1
        if kind == "gone":
            file.unlink()
        elif kind == "cut":
            os.truncate(file, start)
        elif kind == "grow":
            with file.open("ab") as stream:
                stream.write(rng.randbytes(length))
        elif kind == "move":
            other = rng.choice(files)
            content = other.read_bytes()
            other.write_bytes(file.read_bytes())
            file.write_bytes(content)
        else:
            content = bytearray(file.read_bytes())
            if kind == "bit" and start < size:
                content[start] ^= 1 << rng.randrange(8)
            elif kind == "bytes":
                content[start : start + length] = rng.randbytes(length)
            elif kind == "zeros":
                content[start : start + length] = bytes(length)
            file.write_bytes(content)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().getrandbits(32)
    )
    parser.add_argument(
        "--directory", type=pathlib.Path, help="default: a temporary one"
    )
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        directory, options = args.work
        work(directory, json.loads(options))
    logging.disable(
        logging.CRITICAL
    )  # That damaged saves are reported is no news here.
    warnings.simplefilter("error")
    root = pathlib.Path(tempfile.mkdtemp(prefix="soak-", dir=args.directory))
    print(f"seed {args.seed}, {args.minutes:g} minutes, in {root}", flush=True)
    seconds = 60 * args.minutes
    for kind, share in ((Kills, 0.7), (Corruption, 0.3)):
        folder = root / kind.__name__.lower()
        folder.mkdir()
        soak = kind(folder, random.Random(f"{args.seed} {kind.__name__}"))
        end = time.monotonic() + share * seconds
        while time.monotonic() < end:
            soak.once()
        counts = ", ".join(f"{count} {name}" for name, count in soak.figures.items())
        print(f"{kind.__name__}: {counts}", flush=True)
    shutil.rmtree(root)
    print("all was well")


if __name__ == "__main__":
    main()

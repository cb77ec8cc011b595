"""A run whose whole state follows from its step and from who runs it."""

from __future__ import annotations

import logging
import os
import warnings

import numpy as np

from elementsckpt import Checkpoint, Files

from support.faults import contents, files_of

SMALL_ROW, LARGE_ROW = 512, 16 << 10  # Bytes; for blocks of 2 KiB, and for real ones.
_ROWS = 4  # Of the replay, each step.
_EPISODES = 20
_NOISE = np.random.default_rng(0).integers(0, 256, (64, LARGE_ROW), np.uint8)


def require(condition, message):
    """Raise if something does not hold, also where assertions are off."""
    if not condition:
        raise AssertionError(message)


class Run:
    """Components as those of real runs, which compute nothing and can be checked.

    Arrays are changed in place, the replay is the filled part of a buffer, episodes
    come from a generator and the policy writes files.

    Args:
      writer: Number that tells its states from those of other runs.
      step: The step that it is at.
      row_bytes: Size of a row of the replay; everything grows with it.
    """

    def __init__(self, writer=0, step=0, *, row_bytes=SMALL_ROW):
        self.row_bytes = row_bytes
        self.go_to(writer, step)

    def go_to(self, writer, step):
        """Be another run, or at another step."""
        self.writer, self.step = writer, step
        self.agent = self._agent()
        self.replay = self._rows(0, _ROWS * step)
        self.length = len(self.replay)
        first = max(0, step - _EPISODES)
        self.episodes = [self._episode(x) for x in range(first, step)]
        self.policy = self._policy()

    def _agent(self):
        rng = np.random.default_rng((self.writer, self.step))
        table = _NOISE[:, : self.row_bytes].copy()
        table[self.step % len(table)] = self.writer  # The others are what they were.
        layers = {f"layer{n}": rng.random((9, n + 1)) for n in range(20)}
        return {
            "writer": self.writer,
            "step": self.step,
            "weights": rng.random(self.row_bytes, np.float32),
            "table": table,
            "bits": rng.integers(0, 2, 16 * self.row_bytes, np.uint8),  # Compressed.
            "name": "ünï",
            **layers,
        }

    def _rows(self, start, stop):
        indices = np.arange(start, stop)
        rows = _NOISE[indices % len(_NOISE), : self.row_bytes].copy()
        rows[:, :8] = (2 * indices + self.writer)[:, None].view(np.uint8)
        return rows

    def _episode(self, index):
        rewards = np.arange(5 + index % 7) * (self.writer + 1.5)
        return {"index": index, "rewards": rewards}

    def _policy(self):
        return {
            "config.json": b'{"writer": %d, "step": %d}' % (self.writer, self.step),
            "deep/same": _NOISE[0, : self.row_bytes].tobytes(),
            "deep/er/weights": b"%d %d" % (self.writer, self.step // 4) * 1000,
        }

    def __int__(self):
        return self.step  # For `step=` of a Checkpoint.

    @property
    def metrics(self):
        """What `Keep` ranks by: neither rising nor falling, and never the same."""
        return {"score": self.step * 2654435761 % 1_000_003}

    def advance(self):
        """Go on by a step, in place; a save in the background may be under way."""
        self.step += 1
        for key, new in self._agent().items():
            if isinstance(new, np.ndarray):
                np.copyto(self.agent[key], new)
            else:
                self.agent[key] = new
        if self.length == len(self.replay):
            self.replay = np.resize(self.replay, (2 * self.length + 64, self.row_bytes))
        start, self.length = self.length, self.length + _ROWS
        self.replay[start : self.length] = self._rows(start, self.length)
        self.episodes = [*self.episodes, self._episode(self.step - 1)][-_EPISODES:]
        self.policy = self._policy()

    def check(self):
        """Check that all components are of the same step of the same run.

        Returns:
          The step.
        """
        expected = Run(
            self.agent["writer"], self.agent["step"], row_bytes=self.row_bytes
        )
        require(self.step == expected.step, "the step is of another save")
        require(same(self.agent, expected.agent), "the agent is not whole")
        rows = self.replay[: self.length]
        require(same(rows, expected.replay), "the replay is not whole")
        require(same(self.episodes, expected.episodes), "the episodes are not whole")
        require(self.policy == expected.policy, "the files are not whole")
        return self.step

    # Components

    def checkpoint(self, directory=None, **options):
        """Return a checkpoint object of this run."""
        cp = Checkpoint(directory, step=self, **options)
        cp.step = _Part(lambda: self.step, self._load_step)
        cp.agent = _Part(lambda: self.agent, self._load_agent)
        cp.replay = _Part(lambda: self.replay[: self.length], self._load_replay)
        cp.episodes = _Part(lambda: (x for x in self.episodes), self._load_episodes)
        cp.policy = Files(save=self._write_policy, load=self._load_policy)
        return cp

    def _load_step(self, data):
        self.step = data

    def _load_agent(self, data):
        self.agent = data
        self.writer = data["writer"]

    def _load_replay(self, data):
        self.replay, self.length = data, len(data)

    def _load_episodes(self, data):
        self.episodes = list(data)

    def _write_policy(self, folder):
        for name, content in self.policy.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    def _load_policy(self, folder):
        self.policy = contents(folder)


class _Part:
    """A component of two functions."""

    def __init__(self, save, load):
        self.save, self.load = save, load


class Warnings(list):
    """What the library warns of from now on; warnings by Python become errors."""

    def __init__(self):
        super().__init__()
        warnings.simplefilter("error")
        handler = logging.Handler(logging.WARNING)
        handler.emit = lambda record: self.append(record.getMessage())
        logging.getLogger("elementsckpt").addHandler(handler)


def same(left, right):
    """Tell whether two states are the same, types and dtypes included."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(
            same(left[key], right[key]) for key in left
        )
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right)
    return left == right


def check_tidy(directory, saves):
    """Check that a directory holds these saves, these what belongs, and that is all."""
    names = {save.path.name for save in saves}
    found = set(os.listdir(directory)) - {"latest"}
    require(found == names, f"there is more or less than saves: {found ^ names}")
    for save in saves:
        found = {str(x.relative_to(save.path)) for x in save.path.rglob("*")}
        odd = found ^ files_of(save.path)
        require(not odd, f"{save.path} has too much or too little: {odd}")

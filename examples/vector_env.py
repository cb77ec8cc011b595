"""Gymnasium vector environments, in this process or in workers of their own.

python examples/vector_env.py              # Run it again: it resumes, in mid-episode.
python examples/vector_env.py --workers

What the environments hold is saved by hand: each is wrapped in one that has it as an
attribute, which a vector environment can get and set in workers, too.
"""

import collections
import sys

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import RecordEpisodeStatistics
from gymnasium.wrappers.utils import RunningMeanStd

import elementsckpt

ENVS, STEPS, SAVE_EVERY = 4, 2400, 600
WORKERS = "--workers" in sys.argv
LOGDIR = "logdir/vector_workers" if WORKERS else "logdir/vector"

GAME = ["state", "_np_random"]  # What step() and reset() of this game change.
# Wrappers' numbers are all saved, with those that they were made with; but for clocks
# and times, which differ from process to process.
NUMBERS = (int, float, list, collections.deque, np.generic, np.ndarray)
CLOCKS = ("episode_start_time", "time_queue")


def layers(env):
    """Yield the attributes of all wrappers, and of the running means in them."""
    while isinstance(env, (gymnasium.Wrapper, gymnasium.vector.VectorWrapper)):
        found = vars(env)
        yield found
        yield from (vars(x) for x in found.values() if isinstance(x, RunningMeanStd))
        env = env.env


def get_numbers(env):
    return [
        {k: v for k, v in x.items() if isinstance(v, NUMBERS) and k not in CLOCKS}
        for x in layers(env)
    ]


def set_numbers(env, saved):
    for layer, numbers in zip(layers(env), saved, strict=True):
        layer.update(numbers)


class Resumable(gymnasium.Wrapper):
    """Goes around all other wrappers, so that the episode can be got and set."""

    @property
    def episode(self):
        game = vars(self.unwrapped)
        return {name: game[name] for name in GAME}, get_numbers(self.env)

    @episode.setter
    def episode(self, saved):
        game, numbers = saved
        vars(self.unwrapped).update(game)
        set_numbers(self.env, numbers)


def get_state(envs):
    """Return what environments hold, and the wrappers around all of them."""
    return list(envs.unwrapped.call("episode")), get_numbers(envs)


def set_state(envs, saved):  # After a reset.
    episodes, numbers = saved
    envs.unwrapped.set_attr("episode", episodes)
    set_numbers(envs, numbers)


def make_env():
    return Resumable(RecordEpisodeStatistics(gymnasium.make("CartPole-v1")))


def features(obs):
    return np.concatenate([obs, obs**2, np.ones_like(obs[:, :1])], axis=1)


class ActorCritic:
    """A linear policy and a linear value, which learn from each step."""

    def __init__(self, envs):
        self.envs = envs
        self.obs, _ = envs.reset(seed=0)
        self.policy, self.value = np.zeros((4, 2)), np.zeros(9)
        self.rng = np.random.default_rng(0)

    def train(self):
        odds = np.exp(self.obs @ self.policy)
        probs = odds / odds.sum(1, keepdims=True)
        actions = (self.rng.random(ENVS) < probs[:, 1]).astype(int)
        obs, reward, ended, cut, _ = self.envs.step(actions)
        now, following = features(self.obs), features(obs) * ~(ended | cut)[:, None]
        error = reward + (0.95 * following - now) @ self.value
        self.value += 0.02 * error @ now
        score = np.eye(2)[actions] - probs
        self.policy += 0.05 * self.obs.T @ (error[:, None] * score)
        self.obs = obs

    def save(self):
        return {key: value for key, value in vars(self).items() if key != "envs"}

    def load(self, state):
        vars(self).update(state)


if __name__ == "__main__":  # Workers import this file.
    # In the default mode, a vector environment remembers which episodes have ended, and
    # resets them in the next step. In this one, all there is is in the environments.
    make = (
        gymnasium.vector.AsyncVectorEnv if WORKERS else gymnasium.vector.SyncVectorEnv
    )
    envs = make([make_env] * ENVS, autoreset_mode=AutoresetMode.SAME_STEP)
    cp = elementsckpt.Checkpoint(LOGDIR, keep=3, every=elementsckpt.Every(SAVE_EVERY))
    cp.step, cp.agent = elementsckpt.Counter(), ActorCritic(envs)
    cp.envs = elementsckpt.Saveable(
        lambda: get_state(envs), lambda saved: set_state(envs, saved)
    )
    if cp.load_or_save():
        print("Resumed at step", int(cp.step))
    while cp.step < STEPS:
        cp.agent.train()
        cp.step.increment()
        if cp.save_if_due():
            lengths = np.concatenate(envs.call("length_queue"))
            print(f"Step {int(cp.step)}: episodes of {lengths.mean():.0f} steps")
    cp.save_if_due(final=True)
    envs.close()

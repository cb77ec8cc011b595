"""Gymnasium vector environments, in this process or in workers of their own.

python examples/vector_env.py              # Run it again: it resumes, in mid-episode.
python examples/vector_env.py --workers

`Environment` saves them with all of their wrappers, wherever they are in an episode.
"""

import sys

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import RecordEpisodeStatistics

import elementsckpt

ENVS, STEPS, SAVE_EVERY = 4, 2400, 600
WORKERS = "--workers" in sys.argv
LOGDIR = "logdir/vector_workers" if WORKERS else "logdir/vector"


def make_env():
    return RecordEpisodeStatistics(gymnasium.make("CartPole-v1"))


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
    make = (
        gymnasium.vector.AsyncVectorEnv if WORKERS else gymnasium.vector.SyncVectorEnv
    )
    envs = make([make_env] * ENVS, autoreset_mode=AutoresetMode.SAME_STEP)
    cp = elementsckpt.Checkpoint(LOGDIR, keep=3, every=elementsckpt.Every(SAVE_EVERY))
    cp.step, cp.agent = elementsckpt.Counter(), ActorCritic(envs)
    cp.envs = elementsckpt.Environment(envs)
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

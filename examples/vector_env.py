"""Gymnasium vector environments, in this process or in workers of their own.

python examples/vector_env.py              # Run it again: it resumes, in mid-episode.
python examples/vector_env.py --workers

What the environments hold is saved by hand: each is wrapped in one that has it as an
attribute, which a vector environment can get and set in workers, too.
"""

import sys

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

import elementsckpt

ENVS, STEPS, SAVE_EVERY = 4, 6000, 1000
WORKERS = "--workers" in sys.argv
LOGDIR = "logdir/vector_workers" if WORKERS else "logdir/vector"


class Resumable(gymnasium.Wrapper):
    """Goes around what make() returns, so that its episode can be saved."""

    @property
    def episode(self):
        game = self.unwrapped
        return {
            "state": game.state,
            "steps": self.env._elapsed_steps,  # Of the TimeLimit that make() adds.
            "steps_beyond_terminated": game.steps_beyond_terminated,
            "rng": game.np_random.bit_generator.state,
        }

    @episode.setter
    def episode(self, saved):
        game = self.unwrapped
        game.state = saved["state"]
        self.env._elapsed_steps = saved["steps"]
        game.steps_beyond_terminated = saved["steps_beyond_terminated"]
        game.np_random.bit_generator.state = saved["rng"]


def make_env():
    return Resumable(gymnasium.make("CartPole-v1"))


def features(obs):
    return np.concatenate([obs, obs**2, np.ones_like(obs[:, :1])], axis=1)


class ActorCritic:
    """A linear policy and a linear value, which learn from each step."""

    def __init__(self, envs):
        self.envs = envs
        self.obs, _ = envs.reset(seed=0)
        self.policy, self.value = np.zeros((4, 2)), np.zeros(9)
        self.rng = np.random.default_rng(0)
        self.lengths, self.finished = np.zeros(ENVS, int), []

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
        self.lengths += 1
        self.finished += self.lengths[ended | cut].tolist()
        self.lengths[ended | cut] = 0
        self.obs = obs

    def save(self):
        state = {key: value for key, value in vars(self).items() if key != "envs"}
        return {"agent": state, "episodes": list(self.envs.call("episode"))}

    def load(self, data):
        vars(self).update(data["agent"])
        self.envs.set_attr("episode", data["episodes"])  # After the reset in __init__.


if __name__ == "__main__":  # Workers import this file.
    # In the default mode, a vector environment remembers which episodes have ended, and
    # resets them in the next step. In this one, all there is is in the environments.
    make = (
        gymnasium.vector.AsyncVectorEnv if WORKERS else gymnasium.vector.SyncVectorEnv
    )
    envs = make([make_env] * ENVS, autoreset_mode=AutoresetMode.SAME_STEP)
    cp = elementsckpt.Checkpoint(LOGDIR, keep=3, every=elementsckpt.Every(SAVE_EVERY))
    cp.step, cp.training = elementsckpt.Counter(), ActorCritic(envs)
    if cp.load_or_save():
        print("Resumed at step", int(cp.step))
    while cp.step < STEPS:
        cp.training.train()
        cp.step.increment()
        if cp.save_if_due():
            length = np.mean(cp.training.finished[-50:])
            print(f"Step {int(cp.step)}: episodes of {length:.0f} steps")
    cp.save_if_due(final=True)
    envs.close()

"""Dopamine's way: iterations of objects with state dicts. Run it again: it resumes."""

import gymnasium
import numpy as np

import elementsckpt

LOGDIR, ITERATIONS, EPISODES, CAPACITY = "logdir/dopamine", 4, 12, 1000


class Checkpointable:
    def to_state_dict(self):
        return vars(self)  # All there is, so nothing is forgotten.

    def from_state_dict(self, state):
        vars(self).update(state)


class Agent(Checkpointable):  # Q-learning that is linear in random Fourier features.
    def __init__(self):
        self.rng, self.weights = np.random.default_rng(0), np.zeros((128, 2))
        self.phases = self.rng.uniform(0, 2 * np.pi, 128)
        self.waves = self.rng.normal(size=(4, 128)) * [[0.5], [0.5], [4.0], [0.7]]

    def features(self, obs):
        return np.cos(obs @ self.waves + self.phases) / 8

    def act(self, obs, epsilon):
        best = (self.features(obs) @ self.weights).argmax()
        return int(self.rng.integers(2) if self.rng.random() < epsilon else best)

    def train(self, obs, action, reward, terminal, next_obs):
        future = (self.features(next_obs) @ self.weights).max(-1, keepdims=True)
        target = reward + 0.95 * (1 - terminal) * future
        errors = (target - self.features(obs) @ self.weights) * (action == [0, 1])
        self.weights += 0.05 * self.features(obs).T @ errors


class Replay(Checkpointable):  # A circular buffer of transitions.
    def __init__(self):
        self.rng, self.add_count = np.random.default_rng(0), 0
        self.rows = np.zeros((CAPACITY, 11))

    def to_state_dict(self):  # A save looks only at the rows that are new.
        return vars(self) | {"rows": elementsckpt.Ring(self.rows, self.add_count)}

    def add(self, *transition):
        self.rows[self.add_count % CAPACITY] = np.hstack(transition)
        self.add_count += 1

    def sample(self, size):
        index = self.rng.integers(min(self.add_count, CAPACITY), size=size)
        return np.split(self.rows[index], [4, 5, 6, 7], axis=1)


def play(agent, replay=None):  # One episode; trains if there is a buffer.
    env, total, done = gymnasium.make("CartPole-v1", max_episode_steps=100), 0.0, False
    obs, _ = env.reset(seed=replay.add_count if replay else 0)
    while not done:
        action = agent.act(obs, epsilon=0.2 if replay else 0.0)
        next_obs, reward, terminal, truncated, _ = env.step(action)
        if replay:
            replay.add(obs, action, reward, terminal, next_obs)
            agent.train(*replay.sample(32))
        obs, total, done = next_obs, total + reward, terminal or truncated
    return total


cp = elementsckpt.Checkpoint(LOGDIR, keep=None)
cp.step, cp.agent, cp.replay = elementsckpt.Counter(), Agent(), Replay()
cp.load_or_save()
while cp.step < ITERATIONS:
    returns = [play(cp.agent, cp.replay) for _ in range(EPISODES)]
    cp.step.increment()
    cp.save(metrics={"return": np.mean(returns)})
    print(f"Iteration {int(cp.step)}: mean return {np.mean(returns):.0f}")
# Restored as a dict, without the objects, and into copies, beside a run that goes on.
assert (elementsckpt.read(LOGDIR)["replay"]["rows"] == cp.replay.rows).all()
curve = [play(cp.copy_of("agent", step=n)) for n in range(ITERATIONS + 1)]
assert curve[-1] > 5 * curve[0], curve

"""Stable-Baselines3: one callback saves and resumes a model of any algorithm.

python examples/sb3_callback.py dqn    # Run it again: it resumes.
python examples/sb3_callback.py ppo    # Or sac.

It saves between two rollouts, when all that was collected has been learned from. What
the environments hold is saved by hand: each has an attribute `episode` to get and set.
"""

import operator
import sys
import types

import gymnasium
import numpy as np
import torch
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

import elementsckpt

torch.set_num_threads(1)  # The networks are too small for more.


# What models of all algorithms have of these.
NAMES = ["num_timesteps", "_episode_num", "_n_updates", "_n_calls", "action_noise"]
NAMES += ["_current_progress_remaining", "ep_info_buffer", "ep_success_buffer"]
NAMES += ["_last_obs", "_last_episode_starts", "_last_original_obs", "exploration_rate"]


class SaveAndResume(BaseCallback):
    """Pass it to `learn`, with the number of steps that the whole run should have."""

    def __init__(self, cp):
        super().__init__()
        self.cp, cp.training, cp.rng = cp, self, elementsckpt.GlobalRNG()

    def _on_training_start(self):
        self.cp.load_or_save()

    def _on_rollout_start(self):
        self.cp.save_if_due()

    def _on_step(self):
        return True

    def save(self):
        model, (_, tensors) = self.model, self.model._get_torch_save_params()
        buffer = vars(model).get("replay_buffer", types.SimpleNamespace())
        kinds = (np.ndarray, dict, int)  # The rest of a buffer is how it was made.
        return {
            "parameters": model.get_parameters(),  # Those of optimizers, too.
            "tensors": {name: operator.attrgetter(name)(model) for name in tensors},
            "attributes": {x: vars(model)[x] for x in NAMES if x in vars(model)},
            "buffer": {k: v for k, v in vars(buffer).items() if isinstance(v, kinds)},
            "actions_rng": model.action_space.np_random.bit_generator.state,
            "episodes": model.env.get_attr("episode"),
        }

    def load(self, data):
        model = self.model
        model.set_parameters(data["parameters"])
        for name, tensor in data["tensors"].items():
            operator.attrgetter(name)(model).data.copy_(tensor)
        vars(model).update(data["attributes"])
        if data["buffer"]:
            vars(model.replay_buffer).update(data["buffer"])
        model.action_space.np_random.bit_generator.state = data["actions_rng"]
        for index, episode in enumerate(data["episodes"]):
            model.env.set_attr("episode", episode, index)


class Resumable(gymnasium.Wrapper):
    """A game of classic control whose episode and random numbers can be saved."""

    @property
    def episode(self):
        game, steps = (
            self.unwrapped,
            self.env._elapsed_steps,
        )  # The latter of TimeLimit.
        return game.state, steps, game.np_random.bit_generator.state

    @episode.setter
    def episode(self, saved):
        self.unwrapped.state, self.env._elapsed_steps, rng = saved
        self.unwrapped.steps_beyond_terminated = None
        self.unwrapped.np_random.bit_generator.state = rng


name = sys.argv[1] if len(sys.argv) > 1 else "dqn"
algorithm, game, settings = {
    "ppo": (PPO, "CartPole-v1", {"n_steps": 128}),
    "dqn": (DQN, "CartPole-v1", {"learning_starts": 200, "buffer_size": 2000}),
    "sac": (SAC, "Pendulum-v1", {"learning_starts": 900, "buffer_size": 2000}),
}[name]
envs = DummyVecEnv([lambda: Resumable(gymnasium.make(game))] * 2)
model = algorithm("MlpPolicy", envs, seed=0, device="cpu", **settings)
cp = elementsckpt.Checkpoint(
    f"logdir/sb3_{name}",
    keep=2,
    step=lambda: model.num_timesteps,
    every=elementsckpt.Every(256),
)
model.learn(1024, SaveAndResume(cp))
cp.save_if_due(final=True)
print(f"{name} has made {model.num_timesteps} steps and {model._n_updates} updates")

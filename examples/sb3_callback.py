"""Stable-Baselines3: one callback saves and resumes a model of any algorithm.

python examples/sb3_callback.py dqn    # Run it again: it resumes.
python examples/sb3_callback.py ppo    # Or sac.
python examples/sb3_callback.py ppo --workers    # Environments in processes.

It saves between two rollouts, when all that was collected has been learned from, also
if a signal asks it to end. Episodes go on where they were.
"""

import operator
import sys
import types

import numpy as np
import torch
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

import elementsckpt

# What models of all algorithms have of these.
NAMES = ["num_timesteps", "_episode_num", "_n_updates", "_n_calls", "action_noise"]
NAMES += ["_current_progress_remaining", "ep_info_buffer", "ep_success_buffer"]
NAMES += ["_last_obs", "_last_episode_starts", "_last_original_obs", "exploration_rate"]
NAMES += ["_last_lstm_states"]


class SaveAndResume(BaseCallback):
    """Pass it to `learn`, with the number of steps that the whole run should have."""

    def __init__(self, cp):
        super().__init__()
        self.cp, self.is_over = cp, False

    def _on_training_start(self):
        self.cp.training = Training(self.model)
        self.cp.envs = elementsckpt.Environment(self.model.env)
        self.cp.rng = elementsckpt.GlobalRNG()
        self.cp.load_or_save()

    def _on_rollout_start(self):
        self.is_over = self.cp.preempted
        self.cp.save_if_due(final=self.is_over)

    def _on_step(self):
        return not self.is_over  # False ends `learn`, with a step that nobody needs.

    def _on_training_end(self):
        if not self.is_over:
            self.cp.save_if_due(final=True)


class Training:
    """What a model of any algorithm holds between two rollouts."""

    def __init__(self, model):
        self.model = model

    def save(self):
        model, (_, tensors) = self.model, self.model._get_torch_save_params()
        return {
            "parameters": model.get_parameters(),  # Those of optimizers, too.
            "tensors": {name: operator.attrgetter(name)(model) for name in tensors},
            "attributes": {x: vars(model)[x] for x in NAMES if x in vars(model)},
            "buffer": get_replay(model),
        }

    def load(self, data):
        model = self.model
        model.set_parameters(data["parameters"])
        for name, tensor in data["tensors"].items():
            operator.attrgetter(name)(model).data.copy_(tensor)
        vars(model).update(data["attributes"])
        if data["buffer"]:
            vars(model.replay_buffer).update(data["buffer"])


def get_replay(model):
    """Return what a replay buffer holds; a save looks only at the rows that are new."""
    buffer = vars(model).get("replay_buffer", types.SimpleNamespace())
    kinds = (np.ndarray, dict, int)  # The rest of a buffer is how it was made.
    found = {k: v for k, v in vars(buffer).items() if isinstance(v, kinds)}
    # `pos` begins anew each time around, so this counts the steps, each of a row. They
    # are not the rows of a buffer that was filled by others, and an optimized one has
    # another row written before its step. Such a buffer is saved as it is.
    added, size = model.num_timesteps // model.n_envs, found.get("buffer_size")
    if found.get("optimize_memory_usage") or added % (size or 1) != found.get("pos"):
        return found
    is_ring = {
        k: isinstance(v, np.ndarray) and len(v) == size for k, v in found.items()
    }
    return {
        k: elementsckpt.Ring(v, added) if is_ring[k] else v for k, v in found.items()
    }


ALGORITHMS = {
    "ppo": (PPO, "CartPole-v1", {"n_steps": 128}),
    "dqn": (DQN, "CartPole-v1", {"learning_starts": 200, "buffer_size": 600}),
    "sac": (SAC, "Pendulum-v1", {"learning_starts": 900, "buffer_size": 2000}),
}


def main(name="dqn", place=""):
    algorithm, game, settings = ALGORITHMS[name]
    kind = SubprocVecEnv if place == "--workers" else DummyVecEnv
    envs = make_vec_env(game, 2, vec_env_cls=kind)
    model = algorithm("MlpPolicy", envs, seed=0, device="cpu", **settings)
    cp = elementsckpt.Checkpoint(
        f"logdir/sb3_{name}{place}",
        keep=2,
        step=lambda: model.num_timesteps,
        every=elementsckpt.Every(256),
    )
    cp.watch_signals()
    model.learn(1024, SaveAndResume(cp))
    print(f"{name} has made {model.num_timesteps} steps, {model._n_updates} updates")


if __name__ == "__main__":  # Workers of a SubprocVecEnv import this file.
    torch.set_num_threads(1)  # The networks are too small for more.
    main(*sys.argv[1:])

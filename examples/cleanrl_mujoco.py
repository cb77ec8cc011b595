"""PPO for continuous actions in torch in one file, as CleanRL writes it, on MuJoCo.

Run it again: it resumes, in the middle of episodes, with MuJoCo's state and that of all
wrappers as they were. Each environment has seven of these, some with statistics.
"""

import dataclasses
import random

import gymnasium
import numpy as np
import torch
from gymnasium import wrappers
from torch import nn
from torch.distributions import Normal

import elementsckpt

torch.set_num_threads(1)  # The networks are too small for more.


@dataclasses.dataclass
class Args:
    env: str = "Hopper-v5"
    seed: int = 1
    iterations: int = 6
    save_every: int = 2
    num_envs: int = 2
    num_steps: int = 128
    minibatches: int = 4
    epochs: int = 4
    learning_rate: float = 3e-4
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip: float = 0.2


def make_env():
    env = gymnasium.make(args.env)
    env = wrappers.FlattenObservation(env)
    env = wrappers.RecordEpisodeStatistics(env)
    env = wrappers.ClipAction(env)
    env = wrappers.NormalizeObservation(env)
    env = wrappers.TransformObservation(env, lambda x: np.clip(x, -10, 10), None)
    env = wrappers.NormalizeReward(env, gamma=args.gamma)
    return wrappers.TransformReward(env, lambda x: float(np.clip(x, -10, 10)))


def layer(inputs, outputs, scale=2**0.5):
    linear = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(linear.weight, scale)
    nn.init.zeros_(linear.bias)
    return linear


class Agent(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        hidden = [layer(inputs, 64), nn.Tanh(), layer(64, 64), nn.Tanh()]
        self.mean = nn.Sequential(*hidden, layer(64, outputs, 0.01))
        self.log_std = nn.Parameter(torch.zeros(outputs))
        hidden = [layer(inputs, 64), nn.Tanh(), layer(64, 64), nn.Tanh()]
        self.critic = nn.Sequential(*hidden, layer(64, 1, 1.0))

    def policy(self, obs):
        return Normal(self.mean(obs), self.log_std.exp())


def tensor(array):
    return torch.tensor(array, dtype=torch.float32)


args = Args()
random.seed(args.seed)
torch.manual_seed(args.seed)
np.random.seed(args.seed)
envs = gymnasium.vector.SyncVectorEnv([make_env] * args.num_envs)
agent = Agent(envs.single_observation_space.shape[0], envs.single_action_space.shape[0])
optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)
iteration = elementsckpt.Counter()
now = elementsckpt.Saveable(["obs", "done"])
now.obs = tensor(envs.reset(seed=args.seed)[0])
now.done = torch.zeros(args.num_envs)

cp = elementsckpt.Checkpoint(
    "logdir/cleanrl_mujoco",
    keep=2,
    every=elementsckpt.Every(args.save_every),
    metadata=args,
)
cp.step, cp.agent, cp.optimizer, cp.now = iteration, agent, optimizer, now
cp.envs = elementsckpt.Environment(envs)
cp.rng = elementsckpt.GlobalRNG()
if cp.load_or_save():
    print("Resumed at iteration", int(iteration))

while iteration < args.iterations:
    rate = args.learning_rate * (1 - int(iteration) / args.iterations)
    optimizer.param_groups[0]["lr"] = rate

    rollout = []
    for _ in range(args.num_steps):
        with torch.no_grad():
            policy = agent.policy(now.obs)
            action, value = policy.sample(), agent.critic(now.obs).flatten()
        logprob = policy.log_prob(action).sum(1)
        obs, reward, ended, cut, _ = envs.step(action.numpy())
        rollout.append((now.obs, action, logprob, value, tensor(reward), now.done))
        now.obs, now.done = tensor(obs), tensor(ended | cut)

    obs, actions, logprobs, values, rewards, dones = map(
        torch.stack, zip(*rollout, strict=True)
    )
    with torch.no_grad():
        following, is_over, advantage = agent.critic(now.obs).flatten(), now.done, 0.0
        advantages = torch.zeros_like(rewards)
        for t in reversed(range(args.num_steps)):
            error = rewards[t] + args.gamma * following * (1 - is_over) - values[t]
            decay = args.gamma * args.gae_lambda * (1 - is_over)
            advantages[t] = advantage = error + decay * advantage
            following, is_over = values[t], dones[t]
    returns = advantages + values
    batch = [x.flatten(0, 1) for x in (obs, actions, logprobs, advantages, returns)]

    for _ in range(args.epochs):
        order = np.random.permutation(len(batch[0]))
        for indices in np.array_split(order, args.minibatches):
            obs, actions, logprobs, advantages, returns = (x[indices] for x in batch)
            ratio = (agent.policy(obs).log_prob(actions).sum(1) - logprobs).exp()
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
            clipped = ratio.clamp(1 - args.clip, 1 + args.clip)
            gain = torch.min(ratio * advantages, clipped * advantages).mean()
            error = (agent.critic(obs).flatten() - returns).square().mean()
            loss = 0.25 * error - gain
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimizer.step()

    iteration.increment()
    if cp.save_if_due(metrics={"reward": rewards.mean()}):
        print(f"Iteration {int(iteration)}: mean reward {rewards.mean():.3f}, saved")
cp.save_if_due(final=True)

"""PPO in torch in one file, as CleanRL writes it. Run it again: it resumes.

A save is made between iterations, in the middle of episodes: what the program holds
then is in six components.
"""

import dataclasses
import random

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import RecordEpisodeStatistics
from torch import nn
from torch.distributions import Categorical

import elementsckpt

torch.set_num_threads(1)  # The networks are too small for more.


@dataclasses.dataclass
class Args:
    seed: int = 1
    iterations: int = 12
    save_every: int = 3
    num_envs: int = 4
    num_steps: int = 64
    minibatches: int = 4
    epochs: int = 4
    learning_rate: float = 2.5e-3
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip: float = 0.2
    entropy: float = 0.01


def make_env():
    return RecordEpisodeStatistics(gymnasium.make("CartPole-v1"))


def layer(inputs, outputs, scale=2**0.5):
    linear = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(linear.weight, scale)
    nn.init.zeros_(linear.bias)
    return linear


class Agent(nn.Module):
    def __init__(self):
        super().__init__()
        hidden = [layer(4, 64), nn.Tanh(), layer(64, 64), nn.Tanh()]
        self.actor = nn.Sequential(*hidden, layer(64, 2, 0.01))
        hidden = [layer(4, 64), nn.Tanh(), layer(64, 64), nn.Tanh()]
        self.critic = nn.Sequential(*hidden, layer(64, 1, 1.0))


args = Args()
random.seed(args.seed)
torch.manual_seed(args.seed)
np.random.seed(args.seed)
envs = gymnasium.vector.SyncVectorEnv(
    [make_env] * args.num_envs, autoreset_mode=AutoresetMode.SAME_STEP
)
agent = Agent()
optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)
iteration = elementsckpt.Counter()
now = elementsckpt.Saveable(["obs", "done"])
now.obs = torch.tensor(envs.reset(seed=args.seed)[0])
now.done = torch.zeros(args.num_envs)

cp = elementsckpt.Checkpoint(
    "logdir/cleanrl_ppo",
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
            policy = Categorical(logits=agent.actor(now.obs))
            action, value = policy.sample(), agent.critic(now.obs).flatten()
        obs, reward, ended, cut, _ = envs.step(action.numpy())
        done, reward = ended | cut, torch.tensor(reward, dtype=torch.float32)
        logprob = policy.log_prob(action)
        rollout.append((now.obs, action, logprob, value, reward, now.done))
        now.obs, now.done = torch.tensor(obs), torch.tensor(done, dtype=torch.float32)

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
            policy = Categorical(logits=agent.actor(obs))
            ratio = (policy.log_prob(actions) - logprobs).exp()
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
            clipped = ratio.clamp(1 - args.clip, 1 + args.clip)
            gain = torch.min(ratio * advantages, clipped * advantages).mean()
            error = (agent.critic(obs).flatten() - returns).square().mean()
            loss = 0.25 * error - gain - args.entropy * policy.entropy().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimizer.step()

    iteration.increment()
    length = float(np.concatenate(envs.call("length_queue")).mean())
    if cp.save_if_due(metrics={"length": length}):
        print(f"Iteration {int(iteration)}: episodes of {length:.0f} steps, saved")
cp.save_if_due(final=True)

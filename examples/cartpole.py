"""A DQN on CartPole that can be killed at any moment and loses nothing it saved.

    python examples/cartpole.py --logdir logdir/cartpole              # train
    python examples/cartpole.py --logdir logdir/cartpole              # and again: resume
    python examples/cartpole.py --logdir logdir/cartpole --eval-only
    python examples/cartpole.py --logdir logdir/acrobot --task Acrobot-v1 \
        --from-checkpoint logdir/cartpole/ckpt --from-checkpoint-regex "params/hidden.*"
    python examples/cartpole.py --check-resume     # prove that resuming is bit-identical

The lines that have to do with checkpoints all begin with `cp`. Everything that is not
derived from the command line is in one of the four components, so a resumed run is the
uninterrupted run, bit for bit, also in the middle of an episode.
"""

import argparse
import pathlib
import tempfile
import time
from collections import deque
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax

import elementsckpt

jax.config.update("jax_platforms", "cpu")  # The network is too small to gain from more.

CHUNK = 50  # Environment steps between two calls of the learner.
UPDATES = 25  # Gradient steps in such a call.
BATCH = 128
CAPACITY = 20_000
WARMUP = 1_000
DISCOUNT = 0.99
RATE = 5e-4
TARGET_RATE = 0.01
HIDDEN = 64
SOLVED = {"CartPole-v1": 475.0, "Acrobot-v1": -90.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--logdir", type=pathlib.Path, default="logdir/cartpole")
    parser.add_argument("--task", choices=SOLVED, default="CartPole-v1")
    parser.add_argument("--steps", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=int, default=1_000)
    parser.add_argument("--from-checkpoint", type=pathlib.Path)
    parser.add_argument("--from-checkpoint-regex")
    parser.add_argument("--eval-only", action="store_true")
    parser.add_argument("--check-resume", action="store_true")
    args = parser.parse_args()
    if args.check_resume:
        check_resume(args)
    elif args.eval_only:
        evaluate_only(args)
    else:
        train(args, args.logdir, args.steps)


def train(args, logdir: pathlib.Path, steps: int, solved: float | None = None):
    step = elementsckpt.Counter()
    env = Env(args.task, args.seed)
    agent = Agent(env.observation_size, env.actions, args.seed)
    replay = Replay(env.observation_size, args.seed)

    cp = elementsckpt.Checkpoint(logdir / "ckpt", keep=3)
    cp.step = step
    cp.env = env
    cp.agent = agent
    cp.replay = replay
    cp.load_or_save()
    t0 = time.time()
    print("start", step)
    while step < steps:
        epsilon = max(0.05, 1.0 - int(step) / 8000)
        for _ in range(CHUNK):
            replay.add(env.step(agent.act(env.observation, epsilon)))
        step.increment(CHUNK)
        if step >= WARMUP:
            agent.update(replay.sample(UPDATES))
        if int(step) % args.save_every < CHUNK:
            cp.save()
            score = evaluate(agent, args.task)
            print(f"{int(step):6d} recent {np.mean(env.returns):6.1f} greedy {score:6.1f} t {time.time()-t0:.1f}", flush=True)
            if score >= SOLVED[args.task]:
                break
    return cp

def evaluate(agent, task: str, episodes: int = 20, seed: int = 10_000) -> float:
    envs = [Env(task, seed + i) for i in range(episodes)]
    while running := [env for env in envs if not env.returns]:
        actions = agent.greedy(np.stack([env.observation for env in envs]))
        for env, action in zip(envs, actions):
            if not env.returns:
                env.step(action)
    return float(np.mean([env.returns[0] for env in envs]))


class Agent:
    def __init__(self, inputs: int, outputs: int, seed: int):
        key, init = jax.random.split(jax.random.key(seed))
        params = network(init, inputs, outputs)
        self.state = {
            "params": params,
            "target": params,
            "opt": OPTIMIZER.init(params),
            "key": key,
        }

    def act(self, observation, epsilon: float) -> int:
        action, self.state["key"] = explore(
            self.state["params"], observation, epsilon, self.state["key"]
        )
        return int(action)

    def greedy(self, observations):
        return np.asarray(greedy(self.state["params"], observations))

    def update(self, batches):
        self.state = update(self.state, batches)

    def save(self):
        return self.state

    def load(self, state):
        self.state = state


OPTIMIZER = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(RATE))


def network(key, inputs, outputs):
    sizes = {
        "input": (inputs, HIDDEN),
        "hidden0": (HIDDEN, HIDDEN),
        "hidden1": (HIDDEN, HIDDEN),
        "output": (HIDDEN, outputs),
    }
    init = jax.nn.initializers.he_uniform()
    keys = jax.random.split(key, len(sizes))
    return {
        name: {"kernel": init(k, size), "bias": jnp.zeros(size[1])}
        for k, (name, size) in zip(keys, sizes.items())
    }


def values(params, x):
    for name in ("input", "hidden0", "hidden1"):
        x = jax.nn.relu(x @ params[name]["kernel"] + params[name]["bias"])
    return x @ params["output"]["kernel"] + params["output"]["bias"]


@jax.jit
def greedy(params, observations):
    return values(params, observations).argmax(-1)


@jax.jit
def explore(params, observation, epsilon, key):
    key, coin, choice = jax.random.split(key, 3)
    q = values(params, observation)
    action = jnp.where(
        jax.random.uniform(coin) < epsilon,
        jax.random.randint(choice, (), 0, q.shape[-1]),
        q.argmax(-1),
    )
    return action, key


@jax.jit
def update(state, batches):
    def loss(params, target, batch):
        best = values(params, batch["following"]).argmax(-1)
        future = pick(values(target, batch["following"]), best)
        goal = batch["reward"] + DISCOUNT * (1 - batch["terminal"]) * future
        guess = pick(values(params, batch["observation"]), batch["action"])
        return optax.huber_loss(guess, jax.lax.stop_gradient(goal)).mean()

    def body(carry, batch):
        params, target, opt = carry
        grads = jax.grad(loss)(params, target, batch)
        changes, opt = OPTIMIZER.update(grads, opt)
        params = optax.apply_updates(params, changes)
        target = optax.incremental_update(params, target, TARGET_RATE)
        return (params, target, opt), None

    carry = state["params"], state["target"], state["opt"]
    (params, target, opt), _ = jax.lax.scan(body, carry, batches)
    return {"params": params, "target": target, "opt": opt, "key": state["key"]}


def pick(q, action):
    return jnp.take_along_axis(q, action[:, None], -1)[:, 0]


class Replay:
    def __init__(self, inputs: int, seed: int):
        self.rng = np.random.default_rng(seed)
        self.count = 0
        self.rows = {
            "observation": np.zeros((CAPACITY, inputs), np.float32),
            "action": np.zeros(CAPACITY, np.int32),
            "reward": np.zeros(CAPACITY, np.float32),
            "following": np.zeros((CAPACITY, inputs), np.float32),
            "terminal": np.zeros(CAPACITY, np.float32),
        }

    def add(self, transition):
        for name, value in transition.items():
            self.rows[name][self.count % CAPACITY] = value
        self.count += 1

    def sample(self, updates):
        index = self.rng.integers(0, min(self.count, CAPACITY), (updates, BATCH))
        return {name: rows[index] for name, rows in self.rows.items()}

    def save(self):
        return {"rng": self.rng, "count": self.count, "rows": self.rows}

    def load(self, state):
        self.rng, self.count, self.rows = state["rng"], state["count"], state["rows"]


class Env:
    def __init__(self, task, seed):
        self.env = gymnasium.make(task).unwrapped
        self.limit = gymnasium.spec(task).max_episode_steps
        self.observation_size = self.env.observation_space.shape[0]
        self.actions = int(self.env.action_space.n)
        self.returns = deque(maxlen=20)
        self.reset(seed=seed)

    def reset(self, seed=None):
        self.observation, _ = self.env.reset(seed=seed)
        self.length, self.total = 0, 0.0

    def step(self, action):
        observation = self.observation
        following, reward, terminal, _, _ = self.env.step(action)
        self.observation = following
        self.length += 1
        self.total += reward
        if terminal or self.length >= self.limit:
            self.returns.append(self.total)
            self.reset()
        return {
            "observation": observation,
            "action": action,
            "reward": reward,
            "following": following,
            "terminal": terminal,
        }

    def save(self):
        return {
            "physics": self.env.state,
            "rng": self.env.np_random,
            "observation": self.observation,
            "length": self.length,
            "total": self.total,
            "returns": list(self.returns),
        }

    def load(self, state):
        self.env.state = state["physics"]
        self.env.np_random = state["rng"]
        self.observation = state["observation"]
        self.length = state["length"]
        self.total = state["total"]
        self.returns = deque(state["returns"], maxlen=20)


if __name__ == "__main__":
    main()

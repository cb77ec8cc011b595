r"""A DQN that can be killed at any moment and goes on from its last save.

    python examples/cartpole.py --logdir logdir/cartpole    # train
    python examples/cartpole.py --logdir logdir/cartpole    # the same again: resume
    python examples/cartpole.py --logdir logdir/cartpole --eval-only
    python examples/cartpole.py --logdir logdir/acrobot --task Acrobot-v1 \
        --from-checkpoint logdir/cartpole/ckpt --from-checkpoint-regex "params/hidden.*"
    python examples/cartpole.py --check-resume              # prove that nothing is lost

The few lines with `cp` are all there is to checkpoints. What a run is, beyond its
command line, is in four components, each with a `save` and a `load`: so a resumed run
is the uninterrupted one bit for bit, even if it was stopped in mid-episode.
"""

import argparse
import pathlib
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax

import elementsckpt

jax.config.update("jax_platforms", "cpu")  # The network is too small for anything else.

GOAL = {"CartPole-v1": 450.0, "Acrobot-v1": -100.0}  # Mean return of 20 episodes.
HIDDEN = 64
CHUNK = 50  # Environment steps from one call of the learner to the next.
UPDATES = 25  # Gradient steps in such a call.
BATCH = 64
CAPACITY = 50_000
WARMUP = 1_000
LOOKAHEAD = 8  # Rewards that are summed before the target network is asked.
DISCOUNT = 0.99
TARGET_RATE = 0.01
OPTIMIZER = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(1e-3))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--logdir", type=pathlib.Path, help="default: logdir/<task>")
    parser.add_argument("--task", choices=list(GOAL), default="CartPole-v1")
    parser.add_argument("--steps", type=int, help="default: 60000; 4000 for the check")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=int, default=1000, metavar="STEPS")
    parser.add_argument("--from-checkpoint", type=pathlib.Path, metavar="PATH")
    parser.add_argument("--from-checkpoint-regex", default=".*", metavar="REGEX")
    parser.add_argument("--eval-only", action="store_true")
    parser.add_argument("--check-resume", action="store_true")
    args = parser.parse_args()
    if args.logdir is None:
        args.logdir = pathlib.Path("logdir") / args.task
    if args.steps is None:
        args.steps = 4000 if args.check_resume else 60_000
    if args.check_resume:
        sys.exit(check_resume(args))
    elif args.eval_only:
        evaluate_only(args)
    else:
        train(args, args.logdir, args.steps, GOAL[args.task])


def train(
    args: argparse.Namespace, logdir: pathlib.Path, steps: int, goal: float
) -> elementsckpt.Checkpoint:
    step = elementsckpt.Counter()
    env = Env(args.task, args.seed)
    agent = Agent(env.inputs, env.actions, args.seed)
    replay = Replay(env.inputs, args.seed)

    keep = elementsckpt.Keep(latest=3, best=1, metric="return", every=2000)
    cp = elementsckpt.Checkpoint(logdir / "ckpt", keep=keep)
    cp.step = step
    cp.env = env
    cp.agent = agent
    cp.replay = replay
    if args.from_checkpoint and not cp.exists():
        regex = args.from_checkpoint_regex
        report = cp.load(args.from_checkpoint, keys=["agent"], regex=regex)
        print(f"Loaded {len(report.loaded)} leaves of {report.path.name}:")
        print(*(f"  {name}" for name in report.loaded), sep="\n")
    if cp.load_or_save():
        print(f"Resumed at step {int(step)}, {env.length} steps into an episode.")
    else:
        print(f"Started {args.task} with seed {args.seed}.")

    def solved() -> bool:
        return env.score() >= goal and evaluate(agent, args.task) >= goal

    done = solved()
    while step < steps and not done:
        epsilon = max(0.05, 1 - int(step) / 8000)
        for _ in range(CHUNK):
            replay.add(env.step(agent.act(env.observation, epsilon)))
        step.increment(CHUNK)
        if step >= WARMUP:
            agent.update(replay.sample(UPDATES))
        if int(step) % args.save_every < CHUNK or step >= steps:
            cp.save(metrics={"return": env.score()})
            done = solved()
            print(f"Step {int(step):6d}  mean return {env.score():6.1f}  saved")
    if done:
        print(f"Solved: greedy return {evaluate(agent, args.task):.1f}.")
    return cp


def evaluate_only(args: argparse.Namespace) -> None:
    env = Env(args.task, args.seed)
    agent = Agent(env.inputs, env.actions, args.seed)

    cp = elementsckpt.Checkpoint()
    cp.agent = agent
    report = cp.load(args.from_checkpoint or args.logdir / "ckpt", keys=["agent"])
    score = evaluate(agent, args.task)
    print(f"Agent of step {report.step}: greedy return {score:.1f}.")


def evaluate(agent: "Agent", task: str, episodes: int = 20) -> float:
    """Return the mean greedy return, the same for the same parameters."""
    envs = [Env(task, seed=10_000 + index) for index in range(episodes)]
    while any(not env.returns for env in envs):
        actions = agent.greedy(np.stack([env.observation for env in envs]))
        for env, action in zip(envs, actions, strict=True):
            if not env.returns:
                env.step(int(action))
    return float(np.mean([env.returns[0] for env in envs]))


def check_resume(args: argparse.Namespace) -> int:
    """Train without and with a stop half way, and compare all there is."""
    never, half = float("inf"), args.steps // 2
    with tempfile.TemporaryDirectory() as folder:
        straight, halves = pathlib.Path(folder, "straight"), pathlib.Path(folder, "two")
        print(f"One run of {args.steps} steps.")
        whole = train(args, straight, args.steps, never)
        print(
            f"\nOne that stops after {half} steps, and new objects that load its save."
        )
        stopped = train(args, halves, half, never)
        loaded = train(args, halves, half, never)
        print("\nNew objects again, which load the save and go on.")
        resumed = train(args, halves, args.steps, never)
    for moment, one, two in ("load", stopped, loaded), ("end", whole, resumed):
        expected, found = everything(one), everything(two)
        for name in sorted(expected.keys() | found.keys()):
            if expected.get(name) != found.get(name):
                print(f"\nThe first leaf that differs after the {moment}: {name}")
                return 1
    print(f"\nAll {len(expected)} leaves are identical, after the load and at the end.")
    return 0


def everything(cp: elementsckpt.Checkpoint) -> dict[str, Any]:
    states = {key: getattr(cp, key).save() for key in cp}
    return {name[1:]: bits(leaf) for name, leaf in leaves(states)}


def leaves(state: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if hasattr(state, "_asdict"):
        state = state._asdict()
    if isinstance(state, (list, tuple, deque)):
        state = dict(enumerate(state))
    if not isinstance(state, dict):
        yield name, state
    else:
        for key, value in state.items():
            yield from leaves(value, f"{name}/{key}")


def bits(leaf: Any) -> Any:
    if isinstance(leaf, np.random.Generator):
        return leaf.bit_generator.state
    kind = type(leaf), getattr(leaf, "dtype", None)
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    array = np.asarray(leaf)
    return kind, array.shape, array.tobytes()


class Agent:
    """Double DQN; its state is a dict of JAX arrays, one of them a typed key."""

    def __init__(self, inputs: int, actions: int, seed: int) -> None:
        key, init = jax.random.split(jax.random.key(seed))
        params = network(init, inputs, actions)
        opt = OPTIMIZER.init(params)
        self.state = {"params": params, "target": params, "opt": opt, "key": key}

    def act(self, observation: np.ndarray, epsilon: float) -> int:
        action, self.state["key"] = explore(
            self.state["params"], observation, epsilon, self.state["key"]
        )
        return int(action)

    def greedy(self, observations: np.ndarray) -> np.ndarray:
        return np.asarray(exploit(self.state["params"], observations))

    def update(self, batches: dict[str, np.ndarray]) -> None:
        self.state = learn(self.state, batches)

    def save(self) -> dict[str, Any]:
        return self.state

    def load(self, state: dict[str, Any]) -> None:
        self.state = state


def network(key: jax.Array, inputs: int, actions: int) -> dict[str, Any]:
    sizes = {
        "input": (inputs, HIDDEN),
        "hidden0": (HIDDEN, HIDDEN),
        "hidden1": (HIDDEN, HIDDEN),
        "output": (HIDDEN, actions),
    }
    init = jax.nn.initializers.he_uniform()
    keys = jax.random.split(key, len(sizes))
    return {
        name: {"kernel": init(key, size), "bias": jnp.zeros(size[1])}
        for key, (name, size) in zip(keys, sizes.items(), strict=True)
    }


def values(params: dict[str, Any], x: jax.Array) -> jax.Array:
    for name in ("input", "hidden0", "hidden1"):
        x = jax.nn.relu(x @ params[name]["kernel"] + params[name]["bias"])
    return x @ params["output"]["kernel"] + params["output"]["bias"]


@jax.jit
def exploit(params, observations):
    return values(params, observations).argmax(-1)


@jax.jit
def explore(params, observation, epsilon, key):
    key, coin, choice = jax.random.split(key, 3)
    scores = values(params, observation)
    anything = jax.random.randint(choice, (), 0, scores.size)
    best = scores.argmax()
    return jnp.where(jax.random.uniform(coin) < epsilon, anything, best), key


@jax.jit
def learn(state, batches):
    """Take one gradient step per batch, all in one call."""

    def loss(params, target, batch):
        chosen = values(params, batch["following"]).argmax(-1)
        future = pick(values(target, batch["following"]), chosen)
        goal = batch["reward"] + batch["discount"] * future
        guess = pick(values(params, batch["observation"]), batch["action"])
        return optax.huber_loss(guess, jax.lax.stop_gradient(goal)).mean()

    def step(carry, batch):
        params, target, opt = carry
        grads = jax.grad(loss)(params, target, batch)
        changes, opt = OPTIMIZER.update(grads, opt)
        params = optax.apply_updates(params, changes)
        target = optax.incremental_update(params, target, TARGET_RATE)
        return (params, target, opt), None

    carry = state["params"], state["target"], state["opt"]
    (params, target, opt), _ = jax.lax.scan(step, carry, batches)
    return {"params": params, "target": target, "opt": opt, "key": state["key"]}


def pick(scores: jax.Array, actions: jax.Array) -> jax.Array:
    return jnp.take_along_axis(scores, actions[:, None], -1)[:, 0]


class Replay:
    """A ring of transitions in the order in which they happened."""

    def __init__(self, inputs: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.count = 0
        self.rows = {
            "observation": np.zeros((CAPACITY, inputs), np.float32),
            "action": np.zeros(CAPACITY, np.int32),
            "reward": np.zeros(CAPACITY, np.float32),
            "following": np.zeros((CAPACITY, inputs), np.float32),
            "terminal": np.zeros(CAPACITY, bool),
            "last": np.zeros(CAPACITY, bool),
        }

    def add(self, transition: dict[str, Any]) -> None:
        for name, value in transition.items():
            self.rows[name][self.count % CAPACITY] = value
        self.count += 1

    def sample(self, updates: int) -> dict[str, np.ndarray]:
        """Draw batches of transitions that span up to LOOKAHEAD steps each."""
        oldest = max(0, self.count - CAPACITY)
        first = self.rng.integers(oldest, self.count, (updates, BATCH, 1))
        steps = first + np.arange(LOOKAHEAD)
        window = steps % CAPACITY
        # The span ends with the episode, at the newest transition, or at its full size.
        ends = self.rows["last"][window] | (steps == self.count - 1)
        ends[..., -1] = True
        span = ends.argmax(-1)[..., None]
        start, end = window[..., 0], np.take_along_axis(window, span, -1)[..., 0]
        powers = DISCOUNT ** np.arange(LOOKAHEAD + 1, dtype=np.float32)
        within = np.arange(LOOKAHEAD) <= span
        return {
            "observation": self.rows["observation"][start],
            "action": self.rows["action"][start],
            "reward": (self.rows["reward"][window] * powers[:-1] * within).sum(-1),
            "following": self.rows["following"][end],
            "discount": powers[span[..., 0] + 1] * ~self.rows["terminal"][end],
        }

    def save(self) -> dict[str, Any]:
        return {"rng": self.rng, "count": self.count, "rows": self.rows}

    def load(self, state: dict[str, Any]) -> None:
        self.rng, self.count, self.rows = state["rng"], state["count"], state["rows"]


class Env:
    """A gymnasium task that resets itself, and can be saved in mid-episode."""

    def __init__(self, task: str, seed: int) -> None:
        self.env: Any = gymnasium.make(task).unwrapped
        self.limit = gymnasium.spec(task).max_episode_steps
        self.inputs = self.env.observation_space.shape[0]
        self.actions = int(self.env.action_space.n)
        self.returns: deque[float] = deque(maxlen=20)
        self.reset(seed)

    def reset(self, seed: int | None = None) -> None:
        self.observation, _ = self.env.reset(seed=seed)
        self.length, self.total = 0, 0.0

    def step(self, action: int) -> dict[str, Any]:
        observation = self.observation
        self.observation, reward, terminal, _, _ = self.env.step(action)
        self.length += 1
        self.total += float(reward)
        transition = {
            "observation": observation,
            "action": action,
            "reward": reward,
            "following": self.observation,
            "terminal": terminal,
            "last": terminal or self.length == self.limit,
        }
        if transition["last"]:
            self.returns.append(self.total)
            self.reset()
        return transition

    def score(self) -> float:
        """Return the mean return of the last episodes."""
        return float(np.mean(self.returns)) if self.returns else -float("inf")

    def save(self) -> dict[str, Any]:
        return {
            "physics": self.env.state,
            "rng": self.env.np_random,
            "observation": self.observation,
            "length": self.length,
            "total": self.total,
            "returns": self.returns,
        }

    def load(self, state: dict[str, Any]) -> None:
        self.env.state = state["physics"]
        self.env.np_random = state["rng"]
        self.observation = state["observation"]
        self.length = state["length"]
        self.total = state["total"]
        self.returns = state["returns"]


if __name__ == "__main__":
    main()

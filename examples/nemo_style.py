"""NeMo RL's way: workers write files, the top k are kept. Run it again: it resumes."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from safetensors.numpy import load_file, save_file

import elementsckpt

LOGDIR, STEPS, PERIOD, TOP_K, WORKERS = "logdir/nemo", 200, 20, 3, 2
DIGITS = np.eye(10)
PROMPTS = np.random.default_rng(0).permutation(np.indices((10, 10)).reshape(2, 100).T)
TRAIN, VALIDATION = PROMPTS[:75], PROMPTS[75:]  # Which of two digits is the larger?


class Policy:
    def __init__(self):
        self.weights = np.zeros((20, 10))

    def probs(self, prompts):
        logits = DIGITS[prompts].reshape(-1, 20) @ self.weights
        probs = np.exp(logits - logits.max(1, keepdims=True))
        return probs / probs.sum(1, keepdims=True)

    def save_pretrained(self, folder):
        save_file({"weights": self.weights}, folder / "model.safetensors")

    def load_pretrained(self, folder):  # From however many shards there are.
        shards = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
        self.weights = np.concatenate([shard["weights"] for shard in shards])


def train(policy, rng):  # GRPO: an answer is good if it is better than its group.
    prompts = np.repeat(rng.choice(TRAIN, 16), 16, axis=0)
    probs = policy.probs(prompts)
    answers = (rng.random((256, 1)) > probs.cumsum(1)[:, :-1]).sum(1)
    rewards = (answers == prompts.max(1)).reshape(16, 16)
    advantages = (rewards - rewards.mean(1, keepdims=True)).reshape(256, 1)
    errors = advantages * (DIGITS[answers] - probs)
    policy.weights += 0.15 * DIGITS[prompts].reshape(256, 20).T @ errors
    return len(prompts)


def validate(policy):  # Returns the expected reward.
    return policy.probs(VALIDATION)[np.arange(25), VALIDATION.max(1)].mean()


if __name__ == "__main__":  # Workers import this file, too.
    policy, info = Policy(), {"consumed_samples": 0, "rewards": {}}
    keep = elementsckpt.Keep(latest=1, best=TOP_K, metric="val:reward")
    cp = elementsckpt.Checkpoint(LOGDIR, keep)
    cp.step = elementsckpt.Counter()
    cp.rng = elementsckpt.Value(np.random.default_rng(0))
    cp.info = elementsckpt.Saveable(save=lambda: info, load=info.update)
    cp.policy = elementsckpt.Files(
        save=policy.save_pretrained, load=policy.load_pretrained
    )
    cp.load_or_save()
    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")) as pool:
        while cp.step < STEPS:
            for _ in range(PERIOD):
                info["consumed_samples"] += train(policy, cp.rng.value)
            cp.step.increment(PERIOD)
            metrics = {"val:reward": float(validate(policy))}
            info["rewards"][int(cp.step)] = metrics["val:reward"]
            with cp.staging("policy", metrics=metrics, metadata=info) as folder:
                files = [folder / f"model-{n}.safetensors" for n in range(WORKERS)]
                rows = np.array_split(policy.weights, WORKERS)
                list(pool.map(save_file, [{"weights": x} for x in rows], files))
            print(f"Step {int(cp.step)}: {metrics}")

    # The best are left, and the newest, whose metadata is read without its policy.
    training = elementsckpt.info(cp.latest()).metadata
    assert training["consumed_samples"] == STEPS * 256
    rewards = training["rewards"]
    best = sorted(rewards, key=rewards.get)[-TOP_K:]
    assert {save.step for save in cp.saves()} == {*best, STEPS}
    cp.load(cp.best(), keys=["policy"])
    assert validate(policy) == rewards[best[-1]] > 0.6

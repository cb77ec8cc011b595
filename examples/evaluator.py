"""An evaluator in a process of its own, which follows a training run.

    python evaluator.py train &
    python evaluator.py evaluate

Either may start first, and either may be killed and started again.
"""

import sys

import numpy as np

import elementsckpt

LOGDIR, STEPS = "logdir/followed", 2000
TARGET = np.linspace(-1, 1, 8)  # What the policy is to find.


class Policy:
    def __init__(self):
        self.params = {"w": np.zeros(8)}

    def improve(self, rng):
        trial = self.params["w"] + rng.normal(scale=0.1, size=8)
        if score(trial) > score(self.params["w"]):
            self.params = {"w": trial}

    def save(self):
        return {"params": self.params}

    def load(self, data):
        self.params = data["params"]


def score(weights):
    return -float(np.square(weights - TARGET).sum())


def train():
    cp = elementsckpt.Checkpoint(LOGDIR, keep=2)
    cp.step, cp.policy = elementsckpt.Counter(), Policy()
    cp.rng = np.random.default_rng(0)
    cp.load_or_save()
    while cp.step < STEPS:
        cp.policy.improve(cp.rng)
        cp.step.increment()
        if cp.step % 100 == 0:
            cp.save()


def evaluate():
    cp = elementsckpt.Checkpoint()  # Without a directory: it only loads.
    cp.policy = Policy()
    for info in elementsckpt.follow(LOGDIR, timeout_s=600, poll_s=0.1):
        try:
            cp.load(info.path, keys=["policy"])
        except elementsckpt.SaveNotFoundError:
            continue  # The run has removed it meanwhile; there is a newer one.
        print(f"Step {info.step:5}: {score(cp.policy.params['w']):8.4f}", flush=True)
        if info.step == STEPS:
            return


if __name__ == "__main__":
    {"train": train, "evaluate": evaluate}[sys.argv[1]]()

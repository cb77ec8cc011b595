"""A client that treats its checkpoint as DreamerV3 does, run with both packages.

The script below is one text. It runs once with the import of elements and once with
that line replaced, and must tell the same story.
"""

import json
import shutil
import subprocess
import sys

import pytest

import elementsckpt

from support.boxes import environment, visible

IMPORT = "from elements import Checkpoint, checkpoint"
REPLACED = "from elementsckpt import Checkpoint, checkpoint"

SCRIPT = '''
from elements import Checkpoint, checkpoint

import json
import multiprocessing
import os
import re
import sys
import threading
from functools import partial as bind

import elements
import numpy as np


def same_shapes(left, right):
    assert left.keys() == right.keys(), (left.keys(), right.keys())
    for key in left:
        assert left[key].shape == right[key].shape, key
        assert left[key].dtype == right[key].dtype, key


class Agent:
    """Parameters in a flat dict, trained by a compiled function that donates them."""

    def __init__(self, seed, actions=4):
        import jax

        self.jax = jax
        self.place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        rng = np.random.default_rng(seed)
        shapes = {
            "enc/conv0/kernel": (3, 3, 8),
            "enc/conv0/bias": (8,),
            "dyn/gru/kernel": (64, 192),
            "pol/out/kernel": (64, actions),
            "opt/state/step": (),
        }
        self.params = self.put({
            key: rng.normal(size=shape).astype(np.float32)
            for key, shape in shapes.items()
        })
        self.policy_params = self.copies()
        self.n_updates = elements.Counter()
        self.n_batches = elements.Counter()
        self.n_actions = elements.Counter()
        self.train_lock = threading.Lock()
        self.policy_lock = threading.Lock()
        grow = lambda params: {k: v * 1.5 + 1 for k, v in params.items()}
        self.update = jax.jit(grow, donate_argnums=0)

    def put(self, params):
        return {k: self.jax.device_put(v, self.place) for k, v in params.items()}

    def copies(self):
        return {k: v.copy() for k, v in self.params.items() if re.search("enc|pol", k)}

    def train(self):
        with self.train_lock:
            self.params = self.update(self.params)
        self.n_updates.increment()
        with self.n_batches.lock:
            self.n_batches.value += 1
        self.n_actions.increment(16)

    def save(self):
        with self.train_lock:
            params = {}
            for key in self.params:
                params.update(self.jax.device_get({key: self.params[key]}))
        assert params
        counters = {
            "updates": int(self.n_updates),
            "batches": int(self.n_batches),
            "actions": int(self.n_actions),
        }
        return {"params": params, "counters": counters}

    def load(self, data, regex=None):
        params = data["params"]
        assert params
        with self.train_lock, self.policy_lock:
            with self.n_updates.lock:
                self.n_updates.value = int(data["counters"]["updates"])
            with self.n_batches.lock:
                self.n_batches.value = int(data["counters"]["updates"])
            with self.n_actions.lock:
                self.n_actions.value = int(data["counters"]["actions"])
            if regex:
                params = {k: v for k, v in params.items() if re.match(regex, k)}
                [self.params[k].delete() for k in params]
                self.params.update(self.put(params))
            else:
                same_shapes(self.params, params)
                [x.delete() for x in self.params.values()]
                self.params = self.put(params)
            [x.delete() for x in self.policy_params.values()]
            self.policy_params = self.copies()

    def numbers(self):
        params = self.jax.device_get(self.params)
        return {k: [list(v.shape), float(v.sum())] for k, v in sorted(params.items())}

    def counts(self):
        return [int(x) for x in (self.n_updates, self.n_batches, self.n_actions)]


class Replay:
    """Writes its own files; the checkpoint holds nothing but the moment."""

    def __init__(self, directory):
        self.directory = elements.Path(directory)
        self.directory.mkdir()
        self.items = []
        self.given = []

    def add(self, item):
        self.items.append(item)

    def save(self):
        (self.directory / "items.json").write(json.dumps(self.items))
        return None

    def load(self, data=None, directory=None, amount=None):
        self.given.append(repr(data))
        self.items = json.loads((self.directory / "items.json").read())


class Limiter:
    def __init__(self):
        self.value = np.int64(0)

    def save(self):
        return {"value": self.value, "nested": [self.value, None]}

    def load(self, data):
        self.value = data["value"]
        self.type = type(data["value"]).__name__


def settings():
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_transfer_guard", "disallow")


def train(logdir, steps, seed, from_checkpoint=None, regex=None):
    step = elements.Counter()
    agent = Agent(seed)
    replay = Replay(logdir / "replay")
    cp = Checkpoint(logdir / "ckpt")
    cp.step = step
    cp.agent = agent
    cp.replay = replay
    if from_checkpoint:
        checkpoint.load(from_checkpoint, dict(agent=bind(agent.load, regex=regex)))
    cp.load_or_save()
    story = {
        "start": int(step), "numbers": agent.numbers(), "counts": agent.counts(),
        "given": replay.given, "items": list(replay.items),
    }
    while step < steps:
        replay.add(int(step))
        agent.train()
        step.increment()
        if int(step) % 3 == 0:
            cp.save()
            cp.save(logdir / f"checkpoint_{step.value}.ckpt")
    story["end"] = int(step), agent.counts(), agent.numbers()
    return story


def parallel_replay(logdir):
    """The replay process of a parallel run: saves from a thread, ends without exit."""
    replay = Replay(logdir / "replay_process")
    limiter = Limiter()
    cp = Checkpoint(logdir / "parallel" / "replay")
    cp.replay = replay
    cp.limiter = limiter
    cp.load_or_save()
    replay.add(7)
    limiter.value += 5

    def loop():
        for _ in range(3):
            cp.save()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    thread.join()
    os._exit(0)


def parallel_logger(logdir):
    cp = Checkpoint(logdir / "parallel" / "logger")
    cp.step = elements.Counter(11)
    cp.load_or_save()
    os._exit(0)


def eval_only(from_checkpoint, seed):
    agent = Agent(seed)
    cp = Checkpoint()
    cp.agent = agent
    cp.load(from_checkpoint, keys=["agent"])
    return agent


def main():
    logdir = elements.Path(sys.argv[1])
    phase = sys.argv[2]
    story = {}
    if phase == "begin":
        context = multiprocessing.get_context("spawn")
        children = [
            context.Process(target=target, args=(logdir,), daemon=True)
            for target in (parallel_replay, parallel_logger)
        ]
        [child.start() for child in children]
        settings()
        result = {}
        work = lambda: result.update(train(logdir, 8, seed=0))
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join()
        story["train"] = result
        [child.join() for child in children]
        story["children"] = [child.exitcode for child in children]
        print(json.dumps(story), file=sys.stderr, flush=True)
        os._exit(0)

    settings()
    story["resumed"] = train(logdir, 10, seed=1)
    source = str(logdir / "checkpoint_3.ckpt")
    evaluated = eval_only(source, seed=2)
    story["evaluated"] = evaluated.numbers(), evaluated.counts()
    # device_put may alias what load was given: later loads must not reach it.
    eval_only(str(logdir / "checkpoint_6.ckpt"), seed=3)
    again = Checkpoint()
    again.agent = evaluated
    again.save(logdir / "evaluated.ckpt")
    story["evaluated still"] = evaluated.numbers(), evaluated.counts()
    story["transfer"] = train(
        logdir.parent / (logdir.name + "_transfer"), 4, seed=4,
        from_checkpoint=source, regex="enc/|dyn/",
    )
    try:
        eval_only(source + ".nope", seed=2)
    except Exception as error:
        story["missing"] = "raised"
    cp = Checkpoint(logdir / "parallel" / "replay")
    cp.replay = Replay(logdir / "replay_process")
    cp.limiter = Limiter()
    cp.load_or_save()
    story["replay"] = cp.replay.items, cp.replay.given
    story["limiter"] = int(cp.limiter.value), cp.limiter.type
    cp = Checkpoint(logdir / "parallel" / "logger")
    cp.step = elements.Counter()
    cp.load_or_save()
    story["logger"] = int(cp.step)
    print(json.dumps(story), file=sys.stderr, flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
'''


def run(tmp_path, replaced, logdir, phase):
    """Run one phase of the script in a process; return the story it tells."""
    assert SCRIPT.count(IMPORT) == 1
    text = SCRIPT.replace(IMPORT, REPLACED) if replaced else SCRIPT
    script = tmp_path / f"{'elementsckpt' if replaced else 'elements'}_main.py"
    script.write_text(text)
    child = subprocess.run(
        [sys.executable, str(script), str(logdir), phase],
        env=environment(JAX_PLATFORMS="cpu"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stdout + child.stderr
    return json.loads(child.stderr.splitlines()[-1])


@pytest.fixture(scope="module")
def begun_by_elements(tmp_path_factory):
    """Return a logdir that elements wrote, and the story; each test takes a copy."""
    folder = tmp_path_factory.mktemp("begun")
    return folder / "logdir", run(folder, False, folder / "logdir", "begin")


def test_dreamerv3_tells_the_same_story_with_either_package(
    tmp_path, begun_by_elements
):
    story = {}
    for replaced in (False, True):
        logdir = tmp_path / f"logdir{replaced}"
        if replaced:
            begun = run(tmp_path, replaced, logdir, "begin")
        else:
            written, begun = begun_by_elements
            shutil.copytree(written, logdir)
        resumed = run(tmp_path, replaced, logdir, "resume")
        story[replaced] = begun, resumed
    assert story[True] == story[False]
    begun, resumed = story[True]
    assert begun["train"]["start"] == 0
    assert begun["train"]["given"] == []
    assert begun["children"] == [0, 0]
    assert resumed["resumed"]["start"] == 6
    assert resumed["resumed"]["counts"] == [6, 6, 96]
    assert resumed["resumed"]["given"] == ["None"]
    assert resumed["resumed"]["items"] == [0, 1, 2, 3, 4, 5]
    assert resumed["evaluated"] == resumed["evaluated still"]
    assert resumed["missing"] == "raised"
    assert resumed["replay"] == [[7], ["None"]]
    assert resumed["limiter"] == [5, "int64"]
    assert resumed["logger"] == 11

    ckpt = tmp_path / "logdirTrue" / "ckpt"
    latest = (ckpt / "latest").read_text()
    assert visible(ckpt) == sorted([latest, "latest"])
    assert (ckpt / latest / "manifest.json").is_file()
    for step in (3, 6, 9):
        path = tmp_path / "logdirTrue" / f"checkpoint_{step}.ckpt"
        assert elementsckpt.info(path).step == step


def test_dreamerv3_goes_on_from_a_logdir_that_elements_wrote(
    tmp_path, begun_by_elements
):
    logdir = tmp_path / "logdir"
    shutil.copytree(begun_by_elements[0], logdir)
    old = (logdir / "ckpt" / "latest").read_text()
    story = run(tmp_path, True, logdir, "resume")
    assert story["resumed"]["start"] == 6
    assert story["resumed"]["counts"] == [6, 6, 96]
    assert story["resumed"]["items"] == [0, 1, 2, 3, 4, 5]
    assert story["resumed"]["end"][0] == 10
    assert story["evaluated"] == story["evaluated still"]
    assert story["limiter"] == [5, "int64"]
    assert (logdir / "ckpt" / old / "done").is_file()
    new = (logdir / "ckpt" / "latest").read_text()
    assert (logdir / "ckpt" / new / "manifest.json").is_file()

"""The examples are short, prove what they say, and go on where they were killed."""

import ast
import collections
import importlib.util
import itertools
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import types

import numpy as np
import pytest

import elementsckpt
from elementsckpt import Checkpoint

from support.boxes import ROOT, environment
from support.faults import contents
from support.forks import Forks

STYLES = [[path] for path in sorted((ROOT / "examples").glob("*_style.py"))]
PROGRAMS = [
    [ROOT / "examples" / name, *arguments]
    for name, *arguments in (
        ("compiled_training.py",),
        ("compiled_training.py", "--chunked"),
        ("vector_env.py",),
        ("vector_env.py", "--workers"),
        ("sb3_callback.py", "dqn"),
        ("sb3_callback.py", "ppo"),
        ("sb3_callback.py", "sac"),
        ("sb3_callback.py", "ppo", "--workers"),
        ("cleanrl_ppo.py",),
        ("cleanrl_mujoco.py",),
    )
]
# Examples of which `make environments` has what they need.
SIMULATED = {"cleanrl_mujoco"}
# What tells how long episodes took, as environments and models note it.
TIMES = {"t", "t_start", "episode_times", "episode_start_time", "time_queue"}
COMMIT = 3  # Which is in the midst of each of them.

# Runs an example, or kills it.
RUN = """
import os, runpy, signal, sys
from elementsckpt.storage import disk

commits = 0

def syscall(call, *args):
    global commits
    commits += call is os.replace and args[1].name == "manifest.json"
    if commits == COMMIT:
        os.killpg(0, signal.SIGKILL)
    return call(*args)

verb, *sys.argv[:] = sys.argv[1:]
if verb == "kill":
    disk.syscall = syscall
runpy.run_path(sys.argv[0], run_name="__main__")
""".replace("COMMIT", str(COMMIT))


class Runner:
    """Runs examples, each time in a process that is forked from one."""

    def __init__(self, folder):
        # Compiling takes most of the time of those that use JAX.
        jax = {
            "JAX_PLATFORMS": "cpu",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        names = {x for path, *_ in [*STYLES, *PROGRAMS] for x in imported(path)}
        names = {x for x in names if is_installed(x)} | {"elementsckpt.engine"}
        names |= {"torch._dynamo"} if "torch" in names else set()  # By any optimizer.
        flags = ["-W", "error", "-W", "ignore:This process:DeprecationWarning"]
        self.forks = Forks(folder, *names, flags=flags, **jax)

    def run(self, verb, folder, example):
        """Run an example in a folder; returns how it ended."""
        folder.mkdir(exist_ok=True)
        return self.forks.run(RUN, verb, *example, cwd=folder)

    def finish(self, folder, example):
        """Run an example to its end; returns the saves that are there then."""
        done = self.run("finish", folder, example)
        assert done.returncode == 0, done
        assert "which is not registered" not in done.stdout + done.stderr
        (directory,) = (folder / "logdir").iterdir()
        return Checkpoint(directory).saves()


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    runner = Runner(tmp_path_factory.mktemp("runner"))
    with runner.forks:
        yield runner


def described(saves):
    """Return all that saves hold, but for times and names, to be compared."""
    return [
        (save.step, save.metrics, save.metadata, bits(elementsckpt.read(save.path)))
        for save in saves
    ]


def bits(state):
    if isinstance(state, np.random.Generator):
        state = state.bit_generator.state
    if isinstance(state, dict):
        return {
            key: bits(item) for key, item in state.items() if not is_accidental(key)
        }
    if isinstance(state, np.ndarray) and state.dtype == object:
        state = state.tolist()
    if isinstance(state, (list, tuple, collections.deque)):
        return [bits(item) for item in state]
    if isinstance(state, pathlib.Path):
        return contents(state)
    if isinstance(state, (np.ndarray, np.generic)):
        return state.dtype, state.shape, state.tobytes()
    return state


def is_accidental(key):
    """Return whether two runs differ in what has this name, whatever they do.

    These are times, a graph of objects with times in it, generators that are neither
    seeded nor drawn from, which spaces and workers have, and memory in which MuJoCo
    works, of which it does not set all.
    """
    name = str(key)
    is_time = name.rpartition("/")[2] in TIMES | {"#graph"}
    parts = "space/_np_random", "unwrapped/data", "generators"
    return is_time or any(part in name for part in parts)


def imported(example):
    """Return the names of the modules that an example imports."""
    nodes = list(ast.walk(ast.parse(example.read_text("utf-8"))))
    names = {
        x.name for node in nodes if isinstance(node, ast.Import) for x in node.names
    }
    return names | {node.module for node in nodes if isinstance(node, ast.ImportFrom)}


def is_installed(name):
    return importlib.util.find_spec(name.partition(".")[0]) is not None


def identity(example):
    return " ".join([example[0].stem, *example[1:]])


def marks(example):
    is_simulated = example[0].stem in SIMULATED
    return [pytest.mark.environments] if is_simulated else []


@pytest.fixture(
    params=[pytest.param(x, marks=marks(x), id=identity(x)) for x in STYLES + PROGRAMS]
)
def example(request):
    if request.param[0].stem in SIMULATED:
        pytest.importorskip("mujoco")
    for name in imported(request.param[0]):
        if not is_installed(name):
            pytest.skip(f"{name.partition('.')[0]} is not installed")
    return request.param


@pytest.mark.parametrize("example", STYLES, ids=identity)
def test_an_example_has_at_most_80_lines(example):
    assert len(example[0].read_text("utf-8").splitlines()) <= 80


def test_an_example_that_was_killed_in_a_save_ends_as_if_it_had_not(
    example, runner, tmp_path
):
    expected = runner.finish(tmp_path / "whole", example)
    killed = tmp_path / "killed"
    assert runner.run("kill", killed, example).returncode == -signal.SIGKILL
    resumed = runner.finish(killed, example)
    assert described(resumed) == described(expected)
    # And what is at its end stays there.
    assert runner.finish(killed, example) == resumed


def functions(example):
    """Return what an example defines, without running it."""
    return types.SimpleNamespace(**runpy.run_path(str(ROOT / "examples" / example)))


def signal_at(steps):
    """Return a callback that sends this process a signal at a step of the training."""
    count = itertools.count(1)

    def called(_locals, _globals):
        if next(count) == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return True

    return called


@pytest.mark.torch
@pytest.mark.parametrize("optimized", [False, True])
def test_a_replay_of_stable_baselines_is_rings_if_its_rows_can_be_counted(optimized):
    stable = pytest.importorskip("stable_baselines3")
    from stable_baselines3.common import env_util

    get_replay = functions("sb3_callback.py").get_replay
    envs = env_util.make_vec_env("CartPole-v1", 2)
    manner = {"handle_timeout_termination": not optimized}
    model = stable.DQN(
        *("MlpPolicy", envs),
        buffer_size=60,
        optimize_memory_usage=optimized,
        replay_buffer_kwargs=manner,
        device="cpu",
    )
    model.learn(100)
    found = get_replay(model)
    rings = {k: x for k, x in found.items() if type(x) is elementsckpt.Ring}
    rows = model.num_timesteps // 2
    assert rows > model.replay_buffer.buffer_size  # It has gone around.
    assert {x.added for x in rings.values()} == (set() if optimized else {rows})
    assert ("observations" in rings) is not optimized
    model.replay_buffer.pos += 1  # As if it was filled by others, too.
    assert elementsckpt.Ring not in map(type, get_replay(model).values())


@pytest.mark.torch
@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
def test_a_model_that_a_signal_stopped_in_a_rollout_goes_on(tmp_path, algorithm):
    pytest.importorskip("stable_baselines3")
    from stable_baselines3.common import callbacks, env_util, vec_env

    example = functions("sb3_callback.py")
    cls, game, _ = example.ALGORITHMS[algorithm]
    of_ppo, of_dqn = {"n_steps": 16, "batch_size": 32}, {"learning_starts": 20}
    settings = of_ppo if algorithm == "ppo" else of_dqn

    def learn(folder, signalled=0):
        envs = env_util.make_vec_env(game, 2)
        envs = vec_env.VecNormalize(vec_env.VecFrameStack(envs, 3))
        model = cls("MlpPolicy", envs, seed=0, device="cpu", **settings)
        every = elementsckpt.Every(steps=50)
        with Checkpoint(folder, 1, lambda: model.num_timesteps, every=every) as cp:
            cp.watch_signals()
            signals = callbacks.ConvertCallback(signal_at(signalled))
            model.learn(128, [example.SaveAndResume(cp), signals])
        return cp.saves()

    straight = learn(tmp_path / "straight")
    assert learn(tmp_path / "stopped", signalled=21)[-1].step in (48, 64)
    assert described(learn(tmp_path / "stopped")) == described(straight)


def test_an_evaluator_follows_a_run_that_is_killed_and_resumed(tmp_path):
    def start(mode):
        command = [sys.executable, str(ROOT / "examples" / "evaluator.py"), mode]
        output = subprocess.PIPE if mode == "evaluate" else None
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment(), stdout=output, text=True
        )

    evaluator = start("evaluate")  # There is no directory yet.
    trainer = start("train")
    lines = [evaluator.stdout.readline()]
    trainer.kill()
    trainer.wait()
    assert start("train").wait() == 0
    lines += evaluator.communicate()[0].splitlines()
    assert evaluator.returncode == 0
    steps = [int(line.split()[1].rstrip(":")) for line in lines]
    assert steps == sorted({*steps})
    assert steps[-1] == 2000
    scores = [float(line.split()[-1]) for line in lines]
    assert scores == sorted(scores)
    assert scores[-1] > -0.1

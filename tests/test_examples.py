"""The examples are short, prove what they say, and go on where they were killed."""

import ast
import importlib.util
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest
from boxes import ROOT
from faults import contents

import elementsckpt
from elementsckpt import Checkpoint

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
        ("cleanrl_ppo.py",),
    )
]
COMMIT = 3  # Which is in the midst of each of them.

KILLED = """
import os, runpy, signal, sys
from elementsckpt import disk

commits = 0

def syscall(call, *args):
    global commits
    commits += call is os.replace and args[1].name == "manifest.json"
    if commits == COMMIT:
        os.killpg(0, signal.SIGKILL)
    return call(*args)

disk.syscall = syscall
sys.argv[:] = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
""".replace("COMMIT", str(COMMIT))


def run(*command, cwd):
    """Run Python in a folder, as the leader of its own group of processes."""
    cwd.mkdir(exist_ok=True)
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    env = {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
    # All runs of an example share what JAX compiles, which takes most of their time.
    env["JAX_COMPILATION_CACHE_DIR"] = str(cwd.parent / "compiled")
    env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    return subprocess.run(
        [sys.executable, "-W", "error", *map(str, command)],
        cwd=cwd,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(example, folder):
    """Run an example to its end; returns the saves that are there then."""
    done = run(*example, cwd=folder)
    assert done.returncode == 0, done.stdout
    (directory,) = (folder / "logdir").iterdir()
    return Checkpoint(directory).saves()


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
        return {key: bits(item) for key, item in state.items()}
    if isinstance(state, (list, tuple)):
        return [bits(item) for item in state]
    if isinstance(state, pathlib.Path):
        return contents(state)
    if isinstance(state, (np.ndarray, np.generic)):
        return state.dtype, state.shape, state.tobytes()
    return state


def imported(example):
    """Return the names of the packages that an example imports."""
    nodes = list(ast.walk(ast.parse(example.read_text("utf-8"))))
    names = [
        x.name for node in nodes if isinstance(node, ast.Import) for x in node.names
    ]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


def identity(example):
    return " ".join([example[0].stem, *example[1:]])


@pytest.fixture(params=[*STYLES, *PROGRAMS], ids=identity)
def example(request):
    for name in imported(request.param[0]):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    return request.param


@pytest.mark.parametrize("example", STYLES, ids=identity)
def test_an_example_has_at_most_80_lines(example):
    assert len(example[0].read_text("utf-8").splitlines()) <= 80


def test_an_example_that_was_killed_in_a_save_ends_as_if_it_had_not(example, tmp_path):
    expected = finish(example, tmp_path / "whole")
    killed = run("-c", KILLED, *example, cwd=tmp_path / "killed")
    assert killed.returncode == -signal.SIGKILL, killed.stdout
    resumed = finish(example, tmp_path / "killed")
    assert described(resumed) == described(expected)
    # And what is at its end stays there.
    assert finish(example, tmp_path / "killed") == resumed

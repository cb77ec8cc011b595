"""What type checkers say of programs that use the package."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = """
from typing import Any

import elementsckpt
from elementsckpt import Checkpoint, Counter, Saveable, Value


class Agent:
    def act(self) -> int:
        return 1

    def save(self) -> Any: ...

    def load(self, data: Any) -> None: ...


class Run(Checkpoint):
    agent: Agent
    step: Counter


def declared(cp: Run) -> int:
    cp.agent = Agent()
    cp.agnet = Agent()  # wrong
    cp.agnet.act()  # wrong
    cp.agent.actt()  # wrong
    cp.agent = 3  # wrong
    cp.step.increment()
    cp.load(keys={"agent": "params"}, regex={"agent": "a"}, rename={"agent": {"a": ""}})
    cp.load(keys=["agent"], regex="a", rename={"a": "b"})
    cp.load_or_sav()  # wrong
    return cp.agent.act()


with Run("logdir") as run:
    run.agnet  # wrong
    declared(run)


def undeclared(cp: Checkpoint) -> Any:
    cp.agent = Agent()
    cp.state = Value(3)
    cp.buffer = Saveable(["pos"], of=cp.agent)
    cp.norm = Saveable(lambda: 3, print)
    return cp.agent.act() + cp.state.value


with Checkpoint("logdir") as plain:
    undeclared(plain)
    undeclared(run)
    plain.step.increment()
    declared(plain)  # wrong

elementsckpt.testing.check_resume
elementsckpt.tesing  # wrong
"""


def test_only_what_a_subclass_declares_is_an_attribute_of_its_objects(tmp_path):
    pytest.importorskip("mypy")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    # In a process of its own, as mypy allows itself a deeper recursion, and there where
    # its configuration and its cache are.
    command = [sys.executable, "-m", "mypy", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == ""
    found = re.findall(r"^.*?:(\d+): error: ", done.stdout, re.M)
    lines = PROGRAM.splitlines()
    wrong = [number for number, line in enumerate(lines, 1) if "# wrong" in line]
    assert sorted({int(number) for number in found}) == wrong, done.stdout

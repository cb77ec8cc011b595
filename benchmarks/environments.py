"""Rows about environments: what it costs to take one apart, and to fill one."""

from __future__ import annotations

import copy
import importlib
import importlib.util
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

from elementsckpt import Environment

from .cases import Case, Row, Sample, Setting, Target, milliseconds

CALLS = 20  # In a round; the median counts.
NOTE = (
    "What a save takes until the state is data, and a load from data to the state, "
    "without reading and writing it. The comparison before a load is a part of it."
)


def cartpole(_: Setting) -> Row:
    return row("a CartPole", made("CartPole-v1"), ["gymnasium"], 0.5, 0.5)


def ant(_: Setting) -> Row:
    needed = ["gymnasium", "mujoco"]
    return row("an Ant of MuJoCo", made("Ant-v5"), needed, 2, 4)


def pong(_: Setting) -> Row:
    needed = ["gymnasium", "ale_py"]
    return row("a Pong of ALE", made("ALE/Pong-v5", "ale_py"), needed, 1, 1)


def ants_in_workers(_: Setting) -> Row:
    def make() -> Any:
        vector = importlib.import_module("gymnasium.vector")
        one = made("Ant-v5")
        return vector.AsyncVectorEnv([one] * 8, context="forkserver")

    return row("8 Ants in workers", make, ["gymnasium", "mujoco"], 50, 60)


def made(name: str, library: str = "") -> Callable[[], Any]:
    """Return what makes an environment of Gymnasium."""
    return partial(_make, name, library)


def _make(name: str, library: str) -> Any:
    gymnasium = importlib.import_module("gymnasium")
    if library:
        gymnasium.register_envs(importlib.import_module(library))
    return gymnasium.make(name)


def row(
    what: str,
    make: Callable[[], Any],
    needed: list[str],
    capture_ms: float,
    restore_ms: float,
) -> Row:
    cases: dict[str, Case | None] = {"capture": None, "restore": None}
    if all(importlib.util.find_spec(name) for name in needed):
        env = make()
        env.reset(seed=0)
        for _ in range(5):
            env.step(env.action_space.sample())
        component = Environment(env)
        state = copy.deepcopy(component.save())
        cases["capture"] = called(component.save)
        cases["restore"] = called(partial(component.load, state))
    return Row(
        f"state of {what}",
        NOTE,
        cases,
        [
            Target("capture", None, capture_ms),
            Target("restore", None, restore_ms),
        ],
    )


def called(call: Callable[[], object]) -> Case:
    """Return the case that measures a short call, by many of them."""

    def case(_: object) -> Sample:
        return {"ms": median(milliseconds(call) for _ in range(CALLS))}

    return case

"""Stable-Baselines3's `SubprocVecEnv`: its environments are in worker processes.

Its `DummyVecEnv` and its wrappers are in Python as a whole, and need nothing.
"""

from __future__ import annotations

from typing import Any

from .families import Given, Part, Refused, Unfit
from .workers import Workers


def _save(envs: Any, parts: Given | None) -> dict[str, Any]:
    if envs.closed:
        raise Refused("a SubprocVecEnv that is closed")
    if envs.waiting:
        raise Refused(
            "a SubprocVecEnv with a step under way",
            remedy="Save before step_async() or after step_wait().",
        )
    return {"workers": _workers(envs).save(parts)}


def _check(envs: Any, saved: dict[str, Any], parts: Given | None) -> None:
    if envs.closed:
        raise Unfit("it is closed")
    if envs.waiting:
        raise Unfit("a step is under way")
    _workers(envs).check(saved["workers"], parts)


def _load(envs: Any, _saved: dict[str, Any], _parts: Given | None) -> None:
    _workers(envs).load([()] * len(envs.remotes))


def _workers(envs: Any) -> Workers:
    return Workers(
        envs.remotes,
        envs.processes,
        request=lambda name, arguments: ("env_method", (name, arguments, {})),
        result=lambda answer: answer,
    )


PARTS = {
    "stable_baselines3.common.vec_env:SubprocVecEnv": Part(
        _save,
        _load,
        _check,
        rank=2,
        attributes=True,
        skipped=frozenset({"remotes", "work_remotes", "processes"}),
        takes_parts=True,
    )
}

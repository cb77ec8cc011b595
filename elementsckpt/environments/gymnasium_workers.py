"""Gymnasium's `AsyncVectorEnv`: its environments are in worker processes.

Its `SyncVectorEnv` is in Python as a whole, and needs nothing.
"""

from __future__ import annotations

import sys
from typing import Any

from .families import Given, Part, Refused, Unfit
from .workers import STEPS, Answer, Workers

_UNDER_WAY = "an AsyncVectorEnv with a step under way"
_REMEDY = "Save before step_async() or after step_wait()."


def _save(envs: Any, parts: Given | None) -> dict[str, Any]:
    if envs.closed:
        raise Refused("an AsyncVectorEnv that is closed")
    if not _is_idle(envs):
        raise Refused(_UNDER_WAY, remedy=_REMEDY)
    return {"workers": _workers(envs).save(parts)}


def _check(envs: Any, saved: dict[str, Any], parts: Given | None) -> None:
    if envs.closed:
        raise Unfit("it is closed")
    if not _is_idle(envs):
        raise Unfit("a step is under way")
    _workers(envs).check(saved["workers"], parts)


def _load(envs: Any, _saved: dict[str, Any], _parts: Given | None) -> None:
    # What the program holds is loaded already: each worker gets its observation of it,
    # for the steps that set what its loop holds.
    iterate = sys.modules["gymnasium.vector.utils"].iterate
    observations = iterate(envs.observation_space, envs.observations)
    _workers(envs).load([(x,) for x in observations], then=[("step", None)] * STEPS)


def _is_idle(envs: Any) -> bool:
    return bool(envs._state.value == "default")


def _workers(envs: Any) -> Workers:
    return Workers(
        envs.parent_pipes,
        envs.processes,
        request=lambda name, arguments: ("_call", (name, arguments, {})),
        result=_result,
    )


def _result(answer: tuple[Any, bool]) -> Answer:
    found, is_good = answer
    return found if is_good else Answer(problems=("it was shut down by an error",))


PARTS = {
    "gymnasium.vector:AsyncVectorEnv": Part(
        _save,
        _load,
        _check,
        rank=2,
        attributes=True,
        skipped=frozenset({"parent_pipes", "processes", "error_queue", "env_fns"}),
        takes_parts=True,
    )
}

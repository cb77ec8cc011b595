"""Environments that are played again, as what they hold cannot be reached.

A recording has what can be reached of the environment before its last reset, the
arguments of that, and the actions since. To load is to put back the first and to do the
rest again; what the steps return has to be the same.
"""

from __future__ import annotations

import copy
import importlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import MismatchError
from ..format.digests import digest
from ..kinds import references
from ..user.hints import listed
from . import actions, names, objects, snapshots
from .capturing import Capture
from .families import Given, Part, Parts, Refused

gymnasium: Any = importlib.import_module("gymnasium")
_PLAIN = (type(None), bool, int, float, complex, str, bytes, np.generic)


class Recorded(gymnasium.Wrapper):  # type: ignore[misc]
    """A wrapper that lets an environment be saved whose simulator cannot be.

        env = elementsckpt.Recorded(gymnasium.make("LunarLander-v3"))
        cp.env = elementsckpt.Environment(env)

    It keeps the actions since the last reset. A load plays these again, which takes as
    long as the episode so far, and raises an error if a step returns another
    observation, reward or end than it did: the environment then depends on more than
    its actions and generators, or the program drew from its generators. It can be
    below other wrappers, and needs to be the only way to its environment.
    """

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self._start: Any = None
        self._call: Any = None
        self._actions: list[Any] = []
        self._results: list[int] = []
        self._outlived: list[str] = []  # Attributes that are the same after a reset.

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Keep what the environment is, and reset it."""
        self._call = None
        start = copy.deepcopy(_save_reachable(self.env, {}))
        before = _worlds(self.env)
        call = {"seed": seed, "options": copy.deepcopy(options)}
        result = self.env.reset(seed=seed, options=options)
        after = _worlds(self.env)
        self._outlived = sorted(x for x in before if before[x] is after.get(x))
        self._start, self._call, self._actions = start, call, []
        self._results = [_digest(result[:1])]
        return result  # type: ignore[no-any-return]

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step, and keep the action."""
        call, self._call = self._call, None  # As long as it is under way.
        kept = copy.deepcopy(action)
        result = self.env.step(action)
        self._actions.append(kept)
        self._results.append(_digest(result[:4]))
        self._call = call
        return result  # type: ignore[no-any-return]


def save(env: Any, parts: Given) -> dict[str, Any]:
    """Return the recording, and what can be reached now."""
    if env._call is None and env._start is not None:
        raise Refused(
            "a Recorded environment in which reset() or step() raised an error",
            remedy="Call reset().",
        )
    if env._outlived:
        raise Refused(
            f"a Recorded environment, of which reset() keeps {listed(env._outlived)}, "
            f"whose state is not in Python",
            remedy="It cannot be played again: save when an episode has ended, without "
            "it, and begin a new one after a load.",
        )
    return {
        "start": env._start,
        "call": env._call,
        "actions": actions.pack(env._actions),
        "results": np.array(env._results, np.uint64),
        "now": _save_reachable(env.env, parts),
    }


def check(env: Any, data: Any, parts: Given) -> None:
    """Refuse the recording of another environment.

    Raises:
      Unfit: it is one.
    """
    first = data["now"] if data["start"] is None else data["start"]
    _check_reachable(env.env, first, parts)
    played = sum(run["count"] for run in data["actions"])
    if len(data["results"]) != (0 if data["start"] is None else played + 1):
        raise ValueError("a recording with more or fewer results than actions")


def load(env: Any, data: Any, parts: Given) -> None:
    """Play the recording again.

    The global generators stay as they are.

    Raises:
      MismatchError: a step did not return what it had returned.
    """
    kept = random.getstate(), np.random.get_state()
    env._call, env._start = None, data["start"]
    env._actions, env._results = [], []
    try:
        if data["start"] is not None:
            _play(env, data, parts)
        _check_reachable(env.env, data["now"], parts).load()
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
    env._call = data["call"]


def _play(env: Any, data: Any, parts: Given) -> None:
    _check_reachable(env.env, data["start"], parts).load()
    env.reset(**data["call"])
    env._start = data["start"]
    results = data["results"].tolist()
    for at, action in enumerate(actions.unpack(data["actions"])):
        if env._results[-1] != results[at]:
            break
        env.step(action)
    if env._results != results:
        at = len(env._results) - 1
        raise MismatchError(
            f"Played again, {names.chain(env)} is not what it was saved as: "
            f"{f'step {at}' if at else 'reset()'} of {len(results) - 1} returned "
            f"something else. It depends on more than its actions and the generators "
            f"that can be reached, or the program drew from these. Call reset(): the "
            f"episode cannot go on."
        )


# What can be reached


def _save_reachable(env: Any, parts: Given) -> dict[str, Any]:
    """Return the state of an environment without the attributes that are refused."""
    left: dict[str, list[str]] = {}
    known = Parts(parts)
    for owner in _chain(env):
        if known.has(type(owner)):
            continue
        found = [x for x, y in _attributes(owner) if not _is_reachable(y, known)]
        left.setdefault(objects.name_of(type(owner)), []).extend(found)
    state = snapshots.capture(env, _without(env, left, parts))
    return {"left": left, "state": state}


def _worlds(env: Any) -> dict[str, Any]:
    """Return worlds of Box2D by the name of their attribute.

    Gymnasium's BipedalWalker and CarRacing keep theirs from episode to episode, with
    traces of those before in it (Gymnasium #728).
    """
    return {
        name: value
        for owner in _chain(env)
        for name, value in objects.of(owner).attributes(owner).items()
        if objects.name_of(type(value)).endswith(":b2World")
    }


def _check_reachable(env: Any, data: Any, parts: Given) -> Any:
    return snapshots.check(env, data["state"], _without(env, data["left"], parts))


def _without(env: Any, left: dict[str, list[str]], parts: Given) -> Parts:
    """Return the parts by which these attributes are left alone."""
    found = Parts(parts)
    own = {objects.name_of(type(owner)): type(owner) for owner in _chain(env)}
    for name, attributes in left.items():
        cls = own.get(name) or references.find(name)
        if isinstance(cls, type):
            found.leave(cls, frozenset(attributes))
    return found


class _Probe(Capture):
    """A walk that ends at the first refusal."""

    def refuse(self, number: int, error: Refused) -> None:
        raise error


def _is_reachable(value: Any, parts: Parts) -> bool:
    if isinstance(value, _PLAIN):
        return True
    try:
        _Probe(parts).walk(value)
    except Refused:
        return False
    return True


def _chain(env: Any) -> Iterator[Any]:
    """Yield an environment, and those that it wraps."""
    seen: set[int] = set()
    while env is not None and id(env) not in seen:
        seen.add(id(env))
        yield env
        link = objects.link_of(env)
        env = None if link is None else vars(env)[link]


def _attributes(owner: Any) -> list[tuple[str, Any]]:
    link = objects.link_of(owner)
    own = objects.of(owner).attributes(owner)
    return [(name, value) for name, value in own.items() if name != link]


def _digest(value: Any) -> int:
    return int(digest(b"".join(_content(value)))[:16], 16)


def _content(value: Any) -> Iterator[bytes]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield f"{key!r}:".encode()
            yield from _content(item)
    elif isinstance(value, (list, tuple)):
        yield f"{len(value)}:".encode()
        for item in value:
            yield from _content(item)
    elif hasattr(value, "__array__") and not isinstance(value, np.generic):
        array = np.asarray(value)
        yield f"{array.dtype.str}{array.shape}:".encode()
        yield from [array.tobytes()] if not array.dtype.hasobject else []
    else:
        text = repr(value) if isinstance(value, _PLAIN) else type(value).__name__
        yield f"{text};".encode()


PARTS = {
    f"{__name__}:Recorded": Part(
        save,
        load,
        check,
        rank=3,
        attributes=True,
        skipped=frozenset(
            {"env", "_start", "_call", "_actions", "_results", "_outlived"}
        ),
        takes_parts=True,
    )
}

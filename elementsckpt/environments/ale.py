"""The Arcade Learning Environment.

An ALE state lacks one thing: the action that sticks. With sticky actions, a frame
repeats the last action by chance, and only the emulator knows which one that is. The
random generator is in the state, so it can be told for how many of the next frames that
will be. If there are any, a save plays these, which shows what the action does and does
not replace it, keeps a digest, and puts the state back. A load gives one action after
the other, until one does the same.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any

import numpy as np

from ..errors import MismatchError
from ..format.digests import digest
from .families import Part, Refused, Unfit

_CHANCE = "repeat_action_probability"
# A Mersenne Twister as text: its words and a position. The emulator's is the last one.
_GENERATOR = re.compile(rb"(?:\d+ ){624}\d+")
_DRAWS = 1000  # Drawn at once.
_MOST_DRAWS = 1_000_000  # A generator whose words are 0 draws nothing else.


def save(ale: Any) -> dict[str, Any]:
    """Return the emulator's state, and what its next frames do if an action sticks."""
    if ale.getBool("sound_obs"):
        raise Refused(
            "an ALE with sound_obs, whose sound is not in its state",
            remedy="Make it without sound_obs.",
        )
    state = _state(ale)
    frames = _stuck(state, ale.getFloat(_CHANCE))
    after = ""
    if frames:
        try:
            after = _play(ale, frames)
        finally:  # An interrupt leaves the game where it was, too.
            _restore(ale, state)
    return {
        "state": np.frombuffer(state, np.uint8),
        "frames": frames,
        "after": after,
        "game": _game(ale),
        "chance": ale.getFloat(_CHANCE),
    }


def check(ale: Any, data: Any) -> None:
    """Refuse the state of another game.

    Raises:
      Unfit: it is one, or actions stick with another probability.
    """
    if data["game"] != _game(ale):
        raise Unfit(f"saved with the game {data['game']}; here it is {_game(ale)}")
    chance = ale.getFloat(_CHANCE)
    if data["chance"] != chance:
        raise Unfit(f"saved with {_CHANCE}={data['chance']}; here it is {chance}")
    _ale_state(data["state"].tobytes())
    if data["frames"] != _stuck(data["state"].tobytes(), chance):
        raise ValueError("other frames than the generator in the state says")


def load(ale: Any, data: Any) -> None:
    """Set the emulator's state, and the action that sticks if it will matter.

    Raises:
      MismatchError: no action does what the saved one did.
    """
    state, frames = data["state"].tobytes(), data["frames"]
    _restore(ale, state)
    if not frames:
        return
    _play(ale, frames)  # The frame after these takes the action that it is given.
    for action in dict.fromkeys([*ale.getMinimalActionSet(), *ale.getLegalActionSet()]):
        ale.act(action)
        _restore(ale, state)
        if _play(ale, frames) == data["after"]:
            _restore(ale, state)
            return
    raise MismatchError(
        "No action of this ALE sticks as the saved one did. Call reset(): the episode "
        "cannot go on."
    )


def save_env(env: Any) -> None:
    """Refuse what nothing can tell: how far the paddle was turned that sticks."""
    if getattr(env, "continuous", False) and env.ale.getFloat(_CHANCE):
        raise Refused(
            "an Atari environment with continuous and sticky actions, and the one that "
            "sticks is not in its state",
            remedy="Make it with repeat_action_probability=0, or without continuous.",
        )


def _state(ale: Any) -> bytes:
    return ale.cloneState(include_rng=True).serialize()  # type: ignore[no-any-return]


def _ale_state(state: bytes) -> Any:
    return sys.modules["ale_py"].ALEState(state)


def _restore(ale: Any, state: bytes) -> None:
    ale.restoreState(_ale_state(state))


def _game(ale: Any) -> str:
    path: str = ale.getString("rom_file")
    return os.path.basename(path).removesuffix(".bin")


def _stuck(state: bytes, chance: float) -> int:
    """Return for how many of the next frames the last action is repeated."""
    if not 0 < chance < 1:
        return 0
    found = _GENERATOR.findall(state)
    if not found:
        raise Refused("an ALE of a version that keeps its generator in another form")
    *words, position = map(int, found[-1].split())
    bits: Any = np.random.MT19937(0)
    bits.state = {
        "bit_generator": "MT19937",
        "state": {"key": np.array(words, np.uint32), "pos": position},
    }
    for frames in range(0, _MOST_DRAWS, _DRAWS):
        # Every other number is drawn for the second player.
        sticks = bits.random_raw(2 * _DRAWS)[::2] / 2**32 < chance
        if not sticks.all():
            return frames + int(np.argmin(sticks))
    raise Refused(f"an ALE whose action sticks for {_MOST_DRAWS} frames or more")


def _play(ale: Any, frames: int) -> str:
    """Play frames in which the last action is repeated; return a digest of them."""
    states = []
    for _ in range(frames):
        ale.act(0)
        states.append(_state(ale))
    return digest(b"".join(states))


PARTS = {
    "ale_py:ALEInterface": Part(save, load, check, rank=1),
    "ale_py.env:AtariEnv": Part(save_env, attributes=True),
}

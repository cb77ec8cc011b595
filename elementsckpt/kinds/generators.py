"""Random generators of NumPy and Python ⇄ their states.

NumPy trusts a state: it reads at the position in the state, and fills a pool of the
size in the state. So a state from a file must look like one that NumPy made.
"""

from __future__ import annotations

import _random
import math
import random
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

NAMES = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")
_ENDS = {"pos": 624, "buffer_pos": 4}  # The largest valid positions.
_SEED = frozenset({"entropy", "spawn_key", "pool_size", "n_children_spawned"})
# NumPy's work on a seed grows with the square of these.
_MOST_POOL = 64
_MOST_BITS = 4096


def kind_of(value: Any) -> str | None:
    """Return "generator" or "randomstate", or None for anything else."""
    # NumPy imports this module on first use, which takes a while.
    module = sys.modules.get("numpy.random")
    if module is None or type(value) not in (module.Generator, module.RandomState):
        return None
    is_legacy = type(value) is module.RandomState
    bits = value._bit_generator if is_legacy else value.bit_generator
    if type(bits).__name__ not in NAMES:
        return None
    if is_legacy:
        return "randomstate"
    seed = _seed_of(bits)
    return "generator" if seed is None or _is_small(seed) else None


def _seed_of(bits: Any) -> Any:
    """Return the state of the seed, or None if the seed is not one of NumPy's."""
    seed = bits.seed_seq
    return seed.state if type(seed) is np.random.SeedSequence else None


def states_of(generator: Any) -> dict[str, Any]:
    """Return the state of a generator; for `spawn`, a Generator's seed has one, too."""
    if isinstance(generator, np.random.RandomState):
        return {"state": generator.get_state(legacy=False)}
    bits = generator.bit_generator
    return {"state": bits.state, "seed": _seed_of(bits)}


def generator(state: Any, seed: Any) -> np.random.Generator:
    """Return a Generator with these states; the state of the seed may be None.

    Raises:
      ValueError, TypeError, KeyError: no Generator has these states.
    """
    bits = _bit_generator(state, seed_sequence(seed))
    _check(state, bits.state)
    bits.state = state
    return np.random.Generator(bits)


def randomstate(state: Any) -> np.random.RandomState:
    """Return a RandomState with this state.

    Raises:
      ValueError, TypeError, KeyError: no RandomState has this state.
    """
    rng = np.random.RandomState(_bit_generator(state, 0))
    _check(state, rng.get_state(legacy=False))
    rng.set_state(state)
    return rng


_PYTHON_VERSION = 3  # Version of the states of `random` since Python 3.2.


def python_state(source: Any) -> dict[str, Any]:
    """Return the state of a `random.Random`, or of `random`, with words in an array."""
    _, words, gauss = source.getstate()
    return {"state": np.array(words, np.uint32), "gauss": gauss}


def set_python_state(generator: random.Random, state: Any) -> None:
    """Set a state that `python_state` returned.

    Raises:
      ValueError, TypeError, KeyError, IndexError, AttributeError: it is not such a
        state; the generator has not changed.
    """
    words = tuple(state["state"].tolist())
    generator.setstate((_PYTHON_VERSION, words, state["gauss"]))


def _bit_generator(state: Any, seed: Any) -> Any:
    name = state["bit_generator"]
    if name not in NAMES:
        raise ValueError(f"no bit generator of NumPy's: {name!r}")
    return getattr(np.random, name)(seed)


def seed_sequence(state: Any) -> np.random.SeedSequence:
    if state is None:
        return np.random.SeedSequence(0)
    if type(state) is not dict or state.keys() != _SEED or not _is_small(state):
        raise ValueError("not the state of a seed sequence")
    return np.random.SeedSequence(**state)


def _is_small(seed: Any) -> bool:
    bits = _bits(seed["entropy"]) + _bits(seed["spawn_key"])
    size = seed["pool_size"]
    return type(size) is int and size <= _MOST_POOL and bits <= _MOST_BITS


def _bits(entropy: Any) -> float:
    """Return the size in bits of the entropy of a seed."""
    if isinstance(entropy, (int, np.integer)):
        return max(32, int(entropy).bit_length())
    if isinstance(entropy, np.ndarray) and entropy.dtype.kind in "iu":
        return 8.0 * entropy.nbytes
    if isinstance(entropy, (list, tuple)) and all(isinstance(x, int) for x in entropy):
        return sum(map(_bits, entropy))
    return math.inf


def _check(state: Any, like: Any) -> None:
    """Refuse a state that does not have the form of another one."""
    if type(state) is not dict or state.keys() != like.keys():
        raise ValueError("not the state of a generator")
    for name, expected in like.items():
        found = state[name]
        if type(expected) is dict:
            _check(found, expected)
            continue
        if type(found) is not type(expected):
            raise ValueError(f"a generator whose {name} is a {type(found).__name__}")
        if type(expected) is np.ndarray:
            if (found.dtype, found.shape) != (expected.dtype, expected.shape):
                raise ValueError(f"a generator whose {name} is another array")
        elif name in _ENDS and not 0 <= found <= _ENDS[name]:
            raise ValueError(f"a generator at position {found} of {_ENDS[name]}")


# The same states as arrays of words, which are small leaves; a seed has none.


def words_of(bits: Any) -> np.ndarray:
    """Return the state of a bit generator as an array: two words for each number."""
    words: list[Any] = []
    for value in _numbers(bits.state):
        if isinstance(value, np.ndarray):
            words += value.tolist()
        else:
            words += (value & _WORD, value >> 64)
    return np.array(words, np.uint64)


def state_of_words(words: Any, like: Any) -> Any:
    """Return the state that `words_of` returned, for a bit generator of this type.

    Args:
      words: The words.
      like: The state of another one.

    Raises:
      ValueError, TypeError, IndexError: no bit generator has this state.
    """
    if type(words) is not np.ndarray or words.dtype != np.uint64:
        raise ValueError("no words of a generator")
    found = iter(words.tolist())
    state = _with_numbers(like, found)
    if next(found, None) is not None:
        raise ValueError("too many words of a generator")
    _check(state, like)
    return state


_WORD = (1 << 64) - 1


def _numbers(state: Any) -> list[Any]:
    """Return the numbers in a state, in one order."""
    found = []
    for value in state.values():
        if type(value) is dict:
            found += _numbers(value)
        elif type(value) is not str:
            found.append(value)
    return found


def _with_numbers(like: Any, words: Iterator[Any]) -> Any:
    state = {}
    for name, value in like.items():
        if type(value) is dict:
            state[name] = _with_numbers(value, words)
        elif isinstance(value, np.ndarray):
            found = [next(words, 0) for _ in range(value.size)]
            state[name] = np.array(found, np.uint64).astype(value.dtype)
        elif type(value) is str:
            state[name] = value
        else:
            state[name] = next(words, 0) | next(words, 0) << 64
    return state


def set_bits(bits: Any, state: Any, seed: Any) -> bool:
    """Set the state of a bit generator and its seed; False if it keeps its seed."""
    try:
        bits.__setstate__((state, seed))
    except (TypeError, ValueError):  # NumPy 1 cannot set an existing one's seed.
        bits.state = state
    return bits.seed_seq is seed


def python_words(generator: Any) -> np.ndarray:
    """Return the words of a `random.Random`, without what it keeps as an attribute."""
    words = _random.Random.getstate(generator)
    return np.array(words, np.uint32)


def set_python_words(generator: Any, words: Any) -> None:
    """Set the words that `python_words` returned.

    Raises:
      ValueError, TypeError, AttributeError: they are none; nothing has changed.
    """
    if type(words) is not np.ndarray or words.dtype != np.uint32:
        raise ValueError("no words of a generator")
    _random.Random.setstate(generator, tuple(words.tolist()))

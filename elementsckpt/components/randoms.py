"""Random generators that are registered themselves: a load sets their state in place.

Generators of torch do not need this: they have `get_state` and `set_state`.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import MismatchError
from ..kinds import generators
from ..user import attributes


def owner_of(value: Any) -> Any:
    """Return the object that saves and loads a random generator; None for others."""
    if attributes.is_instance(value, random.Random):
        # SystemRandom has no state, and other subclasses may have more state.
        found = getattr(type(value), "getstate", None)
        is_known = found is random.Random.getstate
        return PythonRandom(value) if is_known else None
    # NumPy imports this module on first use, which takes a while.
    module = sys.modules.get("numpy.random")
    if module is None:
        return None
    if attributes.is_instance(value, module.RandomState):
        return NumpyRandomState(value)
    if attributes.is_instance(value, module.BitGenerator):
        return NumpyBits(value)
    is_generator = attributes.is_instance(value, module.Generator)
    return NumpyGenerator(value) if is_generator else None


class PythonRandom:
    """A generator of the module `random`."""

    def __init__(self, generator: random.Random) -> None:
        self._generator = generator

    def save(self) -> dict[str, Any]:
        """Return its state, with its hundreds of numbers in an array."""
        return generators.python_state(self._generator)

    def load(self, data: Mapping[str, Any]) -> None:
        """Set its state."""
        try:
            generators.set_python_state(self._generator, data)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            _require(False, data, self._generator)


class NumpyBits:
    """A bit generator, from which generators elsewhere draw."""

    def __init__(self, bits: np.random.BitGenerator) -> None:
        self.bits: Any = bits

    def save(self) -> np.random.Generator:
        """Return a generator with these bits; a save stores its state."""
        return np.random.Generator(self.bits)

    def load(self, data: np.random.Generator) -> None:
        """Set its state and that of its seed, so that it also spawns as before."""
        bits = attributes.get(data, "bit_generator")
        _require(type(bits) is type(self.bits), data, self.save())
        self.set(bits)

    def set(self, bits: Any) -> None:
        """Set its state, and that of its seed."""
        try:
            self.bits.__setstate__((bits.state, bits.seed_seq))
        except (TypeError, ValueError):  # NumPy 1 cannot set an existing one's seed.
            self.bits.state = bits.state


class NumpyGenerator(NumpyBits):
    """A generator, and the bit generator that it draws from."""

    def __init__(self, generator: np.random.Generator) -> None:
        super().__init__(generator.bit_generator)
        self._generator = generator

    def set(self, bits: Any) -> None:
        """Set its state, and that of its seed."""
        super().set(bits)
        if self.bits.seed_seq is not bits.seed_seq:
            type(self._generator).__init__(self._generator, bits)
            self.bits = bits


class NumpyRandomState:
    """A `numpy.random.RandomState`."""

    def __init__(self, generator: np.random.RandomState) -> None:
        self._generator = generator

    def save(self) -> np.random.RandomState:
        """Return the generator; a save stores its state."""
        return self._generator

    def load(self, data: np.random.RandomState) -> None:
        """Set its state to the saved one."""
        _require(isinstance(data, np.random.RandomState), data, self._generator)
        own: Any = self._generator
        other: Any = data
        _require(type(other._bit_generator) is type(own._bit_generator), other, own)
        own.set_state(other.get_state(legacy=False))


def _require(fits: bool, saved: Any, registered: Any) -> None:
    if not fits:
        raise MismatchError(
            f"A {_described(saved)} was saved, and it is loaded into a "
            f"{_described(registered)}. Register a generator like the one that was "
            f"saved; this one has not changed."
        )


def _described(value: Any) -> str:
    bits = attributes.get(value, "bit_generator")
    if bits is None:
        bits = attributes.get(value, "_bit_generator")
    name = type(value).__name__
    return name if bits is None else f"{name} of {type(bits).__name__}"

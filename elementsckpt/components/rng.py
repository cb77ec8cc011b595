"""Random generators as components: those of a program, and the global ones.

Generators of torch have `get_state` and `set_state`, so they need no owner.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import MismatchError, reason
from ..kinds import generators
from ..user import attributes
from ..user.arguments import shown

_logger = logging.getLogger("elementsckpt")
# Errors from something that is not a state; RuntimeError is torch's.
_NO_STATE = (ValueError, TypeError, LookupError, AttributeError, RuntimeError)


class GlobalRNG:
    """The global generators of `random`, NumPy and torch, as a component.

    Register it if the program, or a library that it calls, draws from
    `random.random()`, `np.random.normal()` or `torch.rand()`:

        cp.rng = elementsckpt.GlobalRNG()

    Torch's generators are saved if torch is imported, and those of CUDA devices if CUDA
    is initialized. Generators that a program makes itself, such as
    `np.random.default_rng()`, and JAX keys belong to the components that use them.

    It is saved and loaded after all other components, as they may draw numbers. This
    library draws none itself.
    """

    def save(self) -> dict[str, Any]:
        """Return the states of the generators, by library."""
        state = {
            "random": generators.python_state(random),
            "numpy": np.random.get_state(legacy=False),
        }
        torch = sys.modules.get("torch")
        if hasattr(torch, "get_rng_state"):  # Not while torch is being imported.
            state["torch"] = _save_torch(torch)
        return state

    def load(self, data: Mapping[str, Any]) -> None:
        """Set the states of the generators.

        If states of torch were saved, torch is imported. If torch is not installed, or
        the number of CUDA devices has changed, a warning is logged.

        Raises:
          MismatchError: the data is not such states; no generator has changed.
        """
        python, numpy = global_generators(data)
        if "torch" in data:
            with _refusing(data):
                _load_torch(data["torch"])
        _load_numpy(numpy)
        random.setstate(python.getstate())


def global_generators(data: Mapping[str, Any]) -> tuple[random.Random, Any]:
    """Return generators of `random` and NumPy with the states that were saved.

    Raises:
      MismatchError: the data is not such states.
    """
    with _refusing(data):
        python = random.Random()
        generators.set_python_state(python, data["random"])
        return python, generators.randomstate(data["numpy"])


@contextlib.contextmanager
def _refusing(data: Any) -> Iterator[None]:
    """Refuse data from which no generator could be set."""
    try:
        yield
    except _NO_STATE as error:
        why = f" ({reason(error)})" if isinstance(error, ValueError) else ""
        raise MismatchError(
            f"Saved is {shown(data)}, and a GlobalRNG loads states of global "
            f"generators{why}. Register what it was saved from; they have not changed."
        ) from error


def last(functions: Mapping[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """Return functions that save or load components, those of `GlobalRNG` last.

    Saving and loading other components may draw random numbers.
    """

    def is_global(item: tuple[str, Callable[..., Any]]) -> bool:
        return attributes.is_instance(attributes.get(item[1], "__self__"), GlobalRNG)

    return dict(sorted(functions.items(), key=is_global))


def _load_numpy(like: Any) -> None:
    own: Any = np.random
    state = like.get_state(legacy=False)
    if type(own.get_bit_generator()).__name__ != state["bit_generator"]:
        own.set_bit_generator(like._bit_generator)
    own.set_state(state)


def _save_torch(torch: Any) -> dict[str, Any]:
    state = {"cpu": torch.get_rng_state().numpy()}
    if torch.cuda.is_initialized():
        state["cuda"] = [x.numpy() for x in torch.cuda.get_rng_state_all()]
    return state


def _load_torch(state: Mapping[str, Any]) -> None:
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        _logger.warning("The state of torch's generators is not restored: %s", error)
        return
    torch.set_rng_state(torch.tensor(state["cpu"]))
    if "cuda" in state:
        _load_cuda(torch, state["cuda"])


def _load_cuda(torch: Any, states: Sequence[Any]) -> None:
    count = torch.cuda.device_count()
    if count != len(states):
        _logger.warning(
            "The generators of %d CUDA devices were saved, and there are %d now: those "
            "of the first %d are restored.",
            *(len(states), count, min(len(states), count)),
        )
    for device, state in zip(range(count), states, strict=False):
        torch.cuda.set_rng_state(torch.tensor(state), device)


# Generators of a program


def owner_of(value: Any) -> Any:
    """Return the object that saves and loads a random generator; None for others."""
    if attributes.is_instance(value, random.Random):
        # SystemRandom has no state, and other subclasses may have more state.
        found = getattr(type(value), "getstate", None)
        is_known = found is random.Random.getstate
        return PythonRandom(value) if is_known else None
    # NumPy imports this module on first use, which takes a while.
    module = sys.modules.get("numpy.random")
    for name, owner in _NUMPY.items():
        if module and attributes.is_instance(value, getattr(module, name)):
            return owner(value)
    return None


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
        generators.set_bits(self.bits, bits.state, bits.seed_seq)


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
        self._generator: Any = generator

    def save(self) -> Any:
        """Return the generator; a save stores its state."""
        return self._generator

    def load(self, data: Any) -> None:
        """Set its state to the saved one."""
        own = self._generator
        _require(isinstance(data, np.random.RandomState), data, own)
        _require(type(data._bit_generator) is type(own._bit_generator), data, own)
        own.set_state(data.get_state(legacy=False))


_NUMPY = {
    "RandomState": NumpyRandomState,
    "BitGenerator": NumpyBits,
    "Generator": NumpyGenerator,
}


def _require(fits: bool, saved: Any, registered: Any) -> None:
    if not fits:
        raise MismatchError(
            f"A {_described(saved)} was saved, and it is loaded into a "
            f"{_described(registered)}. Register a generator like the one that was "
            f"saved; this one has not changed."
        )


def _described(value: Any) -> str:
    bits = attributes.get(value, "bit_generator")
    bits = attributes.get(value, "_bit_generator", bits)
    name = type(value).__name__
    return name if bits is None else f"{name} of {type(bits).__name__}"

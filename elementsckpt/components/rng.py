"""The global random state of a process, as a component."""

from __future__ import annotations

import importlib
import logging
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import MismatchError, reason
from ..kinds import generators
from ..user import attributes
from ..user.arguments import shown

_logger = logging.getLogger("elementsckpt")
# Errors from something that is not a state; RuntimeError is torch's.
_NO_STATE = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError),
)


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
        try:
            like = random.Random()
            generators.set_python_state(like, data["random"])
            numpy = generators.randomstate(data["numpy"])  # Checks the state.
            if "torch" in data:
                _load_torch(data["torch"])
        except _NO_STATE as error:
            why = f" ({reason(error)})" if isinstance(error, ValueError) else ""
            raise MismatchError(
                f"Saved is {shown(data)}, and a GlobalRNG loads states of global "
                f"generators{why}. Register what it was saved from; they have not "
                f"changed."
            ) from error
        _load_numpy(numpy)
        random.setstate(like.getstate())


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

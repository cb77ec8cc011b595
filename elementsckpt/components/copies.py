"""Copies of components, for `Checkpoint.copy_of`."""

from __future__ import annotations

import copy
from typing import Any

from ..errors import ComponentError, reason
from ..kinds import jax_arrays
from ..user import attributes
from .files import Files
from .registry import Registry
from .rng import GlobalRNG
from .wrappers import Saveable


def register(registry: Registry, key: str, value: Any) -> None:
    """Register a copy of a component, to load a save into the copy.

    Raises:
      ComponentError: the component cannot be copied.
    """
    why_not = _why_not(value)
    if why_not is not None:
        raise ComponentError(
            f"{key!r} is made of {why_not}. Use "
            f"elementsckpt.read(path, keys=[{key!r}])."
        )
    try:
        with jax_arrays.unchecked():
            setattr(registry, key, copy.deepcopy(value))
    except Exception as error:
        raise ComponentError(
            f"{key!r} cannot be copied: {reason(error)}. Make another "
            f"{type(value).__name__}, register it with a Checkpoint() of its own, "
            f"and load(path, keys=[{key!r}])."
        ) from error


def _why_not(value: Any) -> str | None:
    """Return what a component refers to if its state is elsewhere, or None."""
    if attributes.is_instance(value, GlobalRNG):
        return "the global generators of the process: loading a copy would set them"
    if attributes.is_instance(value, Files) or (
        attributes.is_instance(value, Saveable) and not value.is_of_attributes
    ):
        return "functions, which load into what they belong to, not into a copy"
    return None

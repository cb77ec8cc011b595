"""Components that are values: what they are now says what they can become."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from . import attributes, overlay, pytrees, specs
from .errors import StateError
from .manifest import display
from .overlay import Selection


class Value:
    """Makes a component of a value that cannot change itself: any pytree.

        cp.state = Value(train_state)
        cp.load_or_save()
        cp.state.value = train_step(cp.state.value, batch)

    NamedTuples, dataclasses, modules of Equinox, states of Flax and Optax and whatever
    else JAX can flatten: only the leaves are saved, by the names of their fields. When
    it is loaded, the value of then is the template. Names, shapes and element types
    must be its own, or nothing is loaded and one error lists all that differ. Each leaf
    becomes what its counterpart is: a NumPy array, a JAX array of the same sharding, a
    tensor on the same device, or a Python number, if it holds the same. A leaf may be a
    `jax.ShapeDtypeStruct`, with or without sharding, in whose place comes an array.
    What is static, such as `pytree_node=False` and `static=True`, and functions stay
    those of the template.

    Args:
      value: The first value.

    Attributes:
      value: The value now. Loading sets it to a new one and changes nothing in the old.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    def save(self) -> Any:
        """Return the leaves, in nested dicts, lists and tuples.

        Raises:
          StateError: a leaf has a shape and no elements, or the value holds itself.
        """
        with _refusing_depth():
            return pytrees.plain(self.value)

    def load(self, data: Any) -> None:
        """Set the value to one with these leaves.

        Args:
          data: What `save` returned, or a value like this one.

        Raises:
          MismatchError: leaves do not fit; the message names them.
          StateError: as for `save`.
        """
        with _refusing_depth():
            given = pytrees.flatten(pytrees.plain(data))
        saved = [
            (display(name), number, specs.spec_of(leaf, kind))
            for number, (name, leaf, kind) in enumerate(
                zip(given.names, given.values, given.kinds, strict=True)
            )
        ]
        plan = overlay.plan(template(self), saved, Selection(), "")
        values = dict(enumerate(given.values))
        overlay.decide(plan, values)
        overlay.refuse(
            "what load() was given",
            plan.problems,
            plan.missing,
            plan.unexpected,
            "Load into a value like the one that was saved.",
        )
        self.value = overlay.apply(plan, values, "")


def of_functions(loadfns: Mapping[str, Callable[[Any], Any]]) -> dict[str, Value]:
    """Return the values of which these are the `load`, by key."""
    owners = {key: attributes.get(x, "__self__") for key, x in loadfns.items()}
    return {key: x for key, x in owners.items() if attributes.is_instance(x, Value)}


def template(value: Value) -> pytrees.Flat:
    """Return the value taken apart, for saved leaves to be put in it."""
    with _refusing_depth():
        return pytrees.flatten(value.value)


@contextlib.contextmanager
def _refusing_depth() -> Iterator[None]:
    try:
        yield
    except RecursionError as error:
        raise StateError(
            "The value is nested too deeply, or holds itself. Make it flatter, for "
            "example with lists instead of linked objects."
        ) from error


class NnxState(Value):
    """The state of a module, an optimizer or random numbers of Flax NNX.

    Args:
      module: The object, which is changed in place.
    """

    def __init__(self, module: Any) -> None:
        self._module = module

    @property
    def value(self) -> Any:
        """All variables, by their paths."""
        return sys.modules["flax.nnx"].state(self._module)

    @value.setter
    def value(self, state: Any) -> None:
        sys.modules["flax.nnx"].update(self._module, state)


def is_nnx(value: Any) -> bool:
    """Tell whether the value is an object of Flax NNX that has a state."""
    nnx = sys.modules.get("flax.nnx")
    base = getattr(nnx, "Pytree", None) or getattr(nnx, "Object", None)
    return base is not None and attributes.is_instance(value, base)

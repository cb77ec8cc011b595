"""Components that are values: the current value is the template of what is loaded."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..errors import StateError
from ..format.manifest import Tree, escape
from ..kinds import jax_arrays, leaves
from ..kinds.python_kinds import FUNCTION
from ..state import matching, pytrees, replacing, saved_tree, skeletons, static_parts
from ..state.flattening import ValueState
from ..state.plain import Keys, Plain, plain
from ..state.selection import Selection
from ..user import attributes
from .forms import Form

_NOTHING: Any = object()
_PLACES_TOLD = 3  # In a message.
_logger = logging.getLogger("elementsckpt")


class Value:
    """A component that holds a value which cannot change itself: any pytree.

        cp.state = Value(train_state)
        cp.load_or_save()
        cp.state.value = train_step(cp.state.value, batch)

    The value may hold NamedTuples, dataclasses, modules of Equinox, states of Flax and
    Optax and whatever else JAX can flatten. A save has only the leaves, by the names of
    their fields.

    A load takes the current value as its template. Names, shapes and element types must
    match it. If they do not, nothing is loaded, and one error lists all differences.
    Each loaded leaf becomes what the leaf of the template is: a NumPy array, a JAX
    array of the same sharding, a tensor on the same device. Python's numbers and weakly
    typed arrays have no element type of their own: they are replaced by the saved leaf,
    as an array if it was one, else as a Python number. A `jax.ShapeDtypeStruct`, with
    or without sharding, is replaced by an array.

    Static parts, such as `pytree_node=False` and `static=True`, and functions stay
    those of the template. Arrays that partials and methods are bound to are leaves,
    except in static fields. The first save warns of arrays that code holds and that are
    not leaves. Attributes beside the fields are saved with them, or are static if only
    pickle could hold them. Data of typed keys, as `io_callback` passes it, is saved as
    keys if the object was made with keys. The first save that does not fit the value
    that the object was made with logs a warning.

    Without a template, a load returns what was saved, with classes, static fields and
    functions. These are pickled, so a load needs the run's own directory or
    `allow_pickle=True`. A save has them if they could be pickled: by name if they can
    be imported or are at the top level of the program, which has to define them again;
    other functions with their code, if they need no data of the program besides
    globals. If a save of a `Value()` lacks them, it logs a warning.

    Args:
      value: The first value. Without it, `value` is None until it is set or loaded.

    Attributes:
      value: The current value. A load sets a new one, and leaves the old one unchanged.
    """

    _form: Form | None = None
    _has_template = True
    # The outline of the last save, its skeleton, and why there is none.
    _known: tuple[list[Any], str, str] = [], "", ""
    _told: frozenset[tuple[str, str]] = frozenset()

    def __init__(self, value: Any = _NOTHING) -> None:
        self._has_template = value is not _NOTHING
        self.value: Any = value if self._has_template else None
        self._form = _form_of(value) if self._has_template else None

    def __getstate__(self) -> dict[str, Any]:
        # An outline may hold objects that cannot be pickled.
        return {name: x for name, x in vars(self).items() if name != "_known"}

    def _static_parts(self) -> Iterable[tuple[str, list[Any]]]:
        """Return static code of the object that holds the value."""
        return ()

    def save(self) -> Any:
        """Return the leaves, in nested dicts, lists and tuples.

        Raises:
          StateError: a leaf has a shape and no elements, a module of Flax is bound to
            its variables, or the value holds itself.
        """
        found = _plain(self)
        list(found.static_parts())  # Raises the errors.
        return found.state

    def load(self, data: Any) -> None:
        """Set the value to a new one with these leaves.

        Args:
          data: A state that `save` returned, or a value like this one.

        Raises:
          MismatchError: leaves do not fit; the message names them.
          StateError: as for `save`.
        """
        if is_empty(self):
            self.value = data
            return
        with _refusing_depth():
            given = pytrees.flatten(plain(data).state)
        saved = [
            (escape(name), number, given.spec(number))
            for number, name in enumerate(given.names)
        ]
        plan = matching.plan(
            template(self),
            saved,
            Selection(),
            "",
            lambda: zip(map(escape, given.names), itertools.count(), given.keys()),
        )
        values = dict(enumerate(given.values))
        matching.decide(plan, values)
        matching.refuse(
            "what load() was given",
            plan.problems,
            plan.missing,
            plan.unexpected,
            "Load into a value like the one that was saved.",
        )
        places, others = _whole(plan, given)
        self.value = replacing.apply(plan, values, "", places=places, others=others)


def _whole(
    plan: matching.Plan, given: pytrees.Flat
) -> tuple[Mapping[int, int], Mapping[int, Mapping[str, Any]]]:
    """Return the containers that are loaded whole, and the attributes of some."""
    structure = replacing.describe(given.root, given.nodes, len(given.names))
    places = replacing.find_whole(plan, structure, is_part=False)
    others = {
        now: given.others(~then) or {}
        for now, then in places.items()
        if plan.flat.others(~now) is not None
    }
    return places, others


def of_pytree(pytree: Any) -> Value:
    """Return a value that is saved once, to be loaded into a template."""
    value = Value()  # Without a form, as its structure never changes.
    value.value, value._has_template = pytree, True
    return value


def is_empty(value: Value) -> bool:
    """Return whether there is neither a value nor a template, so any value fits."""
    return not value._has_template and value.value is None


def is_pytree(value: Any) -> bool:
    """Return whether a `Value` suits it: an array, or a container of a known class."""
    kind = leaves.PLAIN.get(type(value)) or leaves.kind_of(value)
    if kind is FUNCTION:
        return False
    opened = pytrees.open_node(value, by_name=True)
    return not kind.is_opaque if opened is None else not opened.is_code


def values_of(
    functions: Mapping[str, Callable[..., Any]], method: Callable[..., Any]
) -> dict[str, Value]:
    """Return the values that these methods belong to, by key.

    Args:
      functions: Functions by key; others than this method are left out.
      method: `Value.save` or `Value.load`.
    """
    return {
        key: function.__self__  # type: ignore[attr-defined]
        for key, function in functions.items()
        if attributes.get(function, "__func__") is method
    }


def template(value: Value) -> pytrees.Flat:
    """Return the value, flattened, as the template of a load."""
    flat = flatten(value.value)
    keys = _keys(value)
    for number, name in enumerate(flat.names if keys else ()):
        if name in keys:
            flat.values[number] = jax_arrays.as_keys(flat.values[number], *keys[name])
            flat.kinds[number] = leaves.kind_of(flat.values[number])
    return flat


def state_of(value: Value) -> ValueState:
    """Return the parts of the value that a save has."""
    found = _plain(value)
    check = functools.partial(_check, value, found, _renew(value, found))
    return ValueState(found.state, None if found.is_whole else value._known[1], check)


def _plain(value: Value) -> Plain:
    with _refusing_depth():
        return plain(value.value, _keys(value))


def _keys(value: Value) -> Keys:
    """Return which leaves were typed keys when the object was made."""
    return {} if value._form is None else value._form.keys


def _renew(value: Value, found: Plain) -> list[tuple[str, list[Any]]]:
    """Make a new skeleton if the structure has changed, and return the static parts.

    Static parts belong to the structure, so they are looked at only if it changes.
    """
    if found.is_whole or _are_same(value._known[0], found.outline):
        return []
    static = [*value._static_parts(), *found.static_parts()]
    value._known = found.outline, *skeletons.dump(value.value)
    return static


def _are_same(outline: list[Any], other: list[Any]) -> bool:
    try:
        return bool(outline == other)
    except Exception:  # Static fields may raise when they are compared.
        return False


def _check(
    value: Value,
    found: Plain,
    static: list[tuple[str, list[Any]]],
    key: str,
    saved: Tree,
) -> None:
    """Warn, once, if the saved tree will not fit or something is not saved."""
    if value._form is not None:
        value._form.check(key, saved)
    if not found.is_whole:
        _, skeleton, why_not = value._known
        if skeleton and not value._has_template:
            return  # It has the static parts and the code, so nothing is lost.
        _tell_of_skeleton(value, key, why_not)
    for name, others in _untold(value, "attributes", found.unsaved):
        _logger.warning(
            "%s has attributes beside what it holds that only pickle could save, "
            "%s: they are neither saved nor loaded. If they are part of the "
            "state, hold them in fields, or as arrays and numbers.",
            saved_tree.full_name(key, name),
            ", ".join(others),
        )
    for name, code in _untold(value, "code", found.code):
        hidden = static_parts.arrays_in_code(code)
        if hidden:
            _logger.warning(
                "%s is code that holds arrays%s: they are neither saved nor "
                "loaded. If they are part of the state, bind them with "
                "functools.partial, or hold them in the value beside it.",
                saved_tree.full_name(key, name),
                _listed(hidden),
            )
    for name, parts in _untold(value, "static", static):
        hidden = static_parts.arrays_in_static(parts)
        if hidden:
            _logger.warning(
                "%s is static and holds arrays%s: they are neither saved nor "
                "loaded. If they are part of the state, hold them in the value where "
                "they are not static.",
                saved_tree.full_name(key, name),
                _listed(hidden),
            )


def _tell_of_skeleton(value: Value, key: str, why: str) -> None:
    """Warn, once, if only a template can load the save; log it if there is one."""
    for _, said in _untold(value, "skeleton", [("", why)] if why else []):
        _logger.log(
            logging.DEBUG if value._has_template else logging.WARNING,
            "%r is saved without its classes, static fields and functions: %s. No "
            "Value() without a template can load it. Give the one that loads it a "
            "template, or define such functions at the top level of a module or of the "
            "program, and hold data in fields.",
            key,
            said,
        )


def _untold(
    value: Value, what: str, found: Iterable[tuple[str, Any]]
) -> Iterator[tuple[str, Any]]:
    """Yield the items whose names were not reported yet."""
    for name, part in found:
        if (what, name) not in value._told:
            value._told |= {(what, name)}
            yield name, part


def _listed(places: Sequence[str]) -> str:
    """Return the places of arrays as a part of a sentence."""
    named = [x for x in places if x]
    text = f", in {' and '.join(named[:_PLACES_TOLD])}" if named else ""
    more = len(named) - _PLACES_TOLD
    return f"{text} and {more} more" if more > 0 else text


def flatten(value: Any) -> pytrees.Flat:
    """Flatten a tree.

    Raises:
      StateError: it is nested too deeply, or holds itself.
    """
    with _refusing_depth():
        return pytrees.flatten(value)


@contextlib.contextmanager
def _refusing_depth() -> Iterator[None]:
    try:
        yield
    except RecursionError as error:
        raise StateError(
            "The value is nested too deeply, or holds itself. Make it flatter, for "
            "example with lists instead of linked objects."
        ) from error


def _form_of(value: Any) -> Form | None:
    try:
        return Form(pytrees.flatten(value))
    except Exception:  # It cannot be saved, and save() raises the error.
        return None


class NnxState(Value):
    """The state of a module, an optimizer or random numbers of Flax NNX.

    Args:
      module: The object, which is changed in place.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self._form = _form_of(self.value)

    def _static_parts(self) -> Iterable[tuple[str, list[Any]]]:
        return static_parts.static_parts_of_nnx(self._module).items()

    @property
    def value(self) -> Any:
        """All variables of the object, by path."""
        return sys.modules["flax.nnx"].state(self._module)

    @value.setter
    def value(self, state: Any) -> None:
        sys.modules["flax.nnx"].update(self._module, state)

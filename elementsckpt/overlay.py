"""Partial loading: put saved leaves in the place of current ones, by name.

The component needs to know nothing about it: it gets its own current state with the
matched leaves replaced.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from msgspec import Struct

from . import containers, dtypes, jax_arrays, leaves, scalars, torch_tensors, tree
from .errors import MismatchError
from .manifest import Leaves, display


class Spec(NamedTuple):
    """What two leaves must have in common for one to replace the other.

    Attributes:
      kind: "array", "key", or the Python type of anything else.
      dtype: Element type of an array, generator of a key.
      shape: Sizes of the axes.
    """

    kind: str
    dtype: Any = None
    shape: tuple[int, ...] = ()

    def __str__(self) -> str:
        if self.kind not in ("array", "key"):
            return self.kind
        name = str(self.dtype) if self.kind == "array" else f"key<{self.dtype}>"
        return f"{name}[{','.join(map(str, self.shape))}]"


class Selection(Struct, frozen=True):
    """Which leaves to load.

    Attributes:
      regex: Matches the names of leaves, from their start; None matches all.
      rename: Pattern to replacement, for the saved names that matched.
      strict: Whether a matched leaf that only one side has is an error.
      cast: Whether dtypes may differ, within NumPy's same-kind casting.
    """

    regex: str | None = None
    rename: Mapping[str, str] | None = None
    strict: bool = True
    cast: bool = False

    def __post_init__(self) -> None:
        for pattern in [self.regex or "", *(self.rename or {})]:
            try:
                re.compile(pattern)
            except (re.error, TypeError) as error:
                raise MismatchError(
                    f"{pattern!r} is not a regular expression: {error}."
                ) from error

    @property
    def is_whole(self) -> bool:
        """Whether a component's state is simply replaced."""
        return self.regex is None and not self.rename and self.strict and not self.cast

    def matches(self, name: str) -> bool:
        """Tell whether the leaf of this name is selected."""
        return self.regex is None or re.match(self.regex, name) is not None

    def renamed(self, name: str) -> str:
        """Return the name under which a saved leaf is loaded."""
        for pattern, replacement in (self.rename or {}).items():
            try:
                name = re.sub(pattern, replacement, name)
            except (re.error, IndexError, TypeError) as error:
                raise MismatchError(
                    f"rename {pattern!r} to {replacement!r} fails on {name!r}: {error}."
                ) from error
        return name


class Plan(Struct):
    """What loading a component partially comes to; names have no key.

    Attributes:
      flat: The component's current state.
      replace: Leaf number in `flat` and saved number.
      problems: What does not fit, by name.
      castable: Whether `cast=True` would make some of it fit.
    """

    flat: tree.Flat
    replace: list[tuple[int, int]] = []
    loaded: list[str] = []
    missing: list[str] = []
    unexpected: list[str] = []
    problems: dict[str, str] = {}
    castable: bool = False
    renamed: dict[str, str] = {}


def plan(
    flat: tree.Flat,
    saved: Sequence[tuple[str, int, Spec]],
    selection: Selection,
    key: str,
) -> Plan:
    """Match saved leaves with current ones.

    Args:
      flat: The component's current state, flattened without aliases.
      saved: Name, number and spec of the saved leaves.
      selection: Which of them to load.
      key: The component's key, for errors.

    Raises:
      MismatchError: two saved leaves are renamed to the same name.
    """
    result = Plan(flat)
    chosen = _choose(saved, selection, key, result)
    current: dict[str, list[int]] = {}
    for number, name in enumerate(flat.names):
        current.setdefault(display(name), []).append(number)
    for name, sources in chosen.items():
        targets = current.pop(name, [])
        if not targets:
            result.unexpected.append(name)
        elif len(targets) != len(sources):
            result.problems[name] = (
                f"{len(sources)} saved leaves have this name and {len(targets)} "
                f"current ones"
            )
        else:
            for target, source in zip(targets, sources, strict=True):
                _match(name, target, source, selection, result)
    known = {name for name, _, _ in saved}
    result.missing = [x for x in current if selection.matches(x) and x not in known]
    return result


def _choose(
    saved: Sequence[tuple[str, int, Spec]],
    selection: Selection,
    key: str,
    result: Plan,
) -> dict[str, list[tuple[int, Spec]]]:
    chosen: dict[str, list[tuple[int, Spec]]] = {}
    origins: dict[str, str] = {}
    for name, number, spec in saved:
        if not selection.matches(name):
            continue
        new = selection.renamed(name)
        if origins.setdefault(new, name) != name:
            raise MismatchError(
                f"rename gives {key}/{origins[new]} and {key}/{name} the same name "
                f"{key}/{new}. Make the pattern or the regex more specific; nothing "
                f"was loaded."
            )
        if new != name:
            result.renamed[name] = new
        chosen.setdefault(new, []).append((number, spec))
    return chosen


def _match(
    name: str,
    target: int,
    source: tuple[int, Spec],
    selection: Selection,
    result: Plan,
) -> None:
    number, saved = source
    expected = spec_of(result.flat.values[target], result.flat.kinds[target])
    if saved == expected or (selection.cast and _can_cast(saved, expected)):
        result.replace.append((target, number))
        result.loaded.append(name)
    else:
        result.problems[name] = f"saved {saved}, expected {expected}"
        result.castable = result.castable or _can_cast(saved, expected)


def apply(plan: Plan, values: Mapping[int, Any]) -> Any:
    """Return the current state with the planned leaves replaced.

    Args:
      plan: What to replace.
      values: Saved leaves by number, arrays as NumPy arrays.
    """
    flat = plan.flat
    built: dict[int, Any] = {}
    for target, number in plan.replace:
        built[target] = _fit(flat.values[target], flat.kinds[target], values[number])

    def current(number: int) -> Any:
        return flat.values[number] if number >= 0 else flat.containers[-number - 1]

    for number, node in enumerate(flat.nodes):
        # A container in which nothing is replaced stays the object that it is.
        if any(child in built for child in node.children):
            children = [built.get(n, current(n)) for n in node.children]
            cls = type(flat.containers[number])
            built[-number - 1] = containers.put_together(node, children, cls)
    return built.get(flat.root, current(flat.root))


_LONG_NAME = 200


def nearest(regex: str, names: Iterable[str], count: int = 5) -> list[str]:
    """Return the names that look most like a pattern that matched none."""
    import difflib  # Here, as it takes a while and is for errors only.

    short = (name for name in names if len(name) <= _LONG_NAME)
    some = itertools.islice(short, 2000)  # Comparing takes time.
    return difflib.get_close_matches(regex, some, count, cutoff=0.0)


# Leaves


def spec_of(value: Any, kind: str) -> Spec:
    """Return the spec of a current leaf."""
    if kind == "key":
        return Spec("key", jax_arrays.implementation(value), tuple(value.shape))
    if kind == "torch":
        return Spec("array", _dtype(torch_tensors.code(value)), tuple(value.shape))
    if kind == "jax" or _is_number(value):
        return Spec("array", value.dtype, tuple(value.shape))
    if kind == "numpy":
        try:
            dtypes.encode(value.dtype)
        except dtypes.UnknownDtypeError:
            return Spec("pickle")
        return Spec("array", value.dtype, value.shape)
    return Spec(kind if kind in ("pickle", "function") else type(value).__name__)


def _is_number(value: Any) -> bool:
    return isinstance(value, np.generic) and not isinstance(value, np.character)


def specs_of_saved(group: Leaves) -> list[Spec]:
    """Return the spec of each leaf of a saved group.

    Raises:
      ValueError, TypeError, KeyError: the manifest describes no such leaves.
    """
    if group.kind == "python":
        return [spec_of(scalars.decode(code), "python") for code in group.value]
    if group.kind == "key":
        spec = Spec("key", group.value, group.shape[:-1])
    elif group.kind in leaves.ARRAYS:
        spec = Spec("array", _dtype(group.dtype), group.shape)
    else:
        spec = Spec(group.kind)
    return [spec] * len(group.names)


def _dtype(code: Any) -> Any:
    """Return the dtype, or its name where torch has it and NumPy has not."""
    try:
        return dtypes.decode(code)
    except ImportError:
        return code


def _can_cast(saved: Spec, expected: Spec) -> bool:
    if (saved.kind, saved.shape) != ("array", expected.shape):
        return False
    if expected.kind != "array":
        return False
    kinds = [_kind(spec.dtype) for spec in (saved, expected)]
    if set(kinds) & set("VUS"):  # NumPy would mix up fields and cut off text.
        return False
    if all(len(kind) == 1 for kind in kinds):  # Both are NumPy's own.
        return np.can_cast(saved.dtype, expected.dtype, "same_kind")
    # NumPy takes any conversion to or from the others for one of the same kind.
    before, after = (_RANKS.find(kind[0]) for kind in kinds)
    return 0 <= before <= after


_RANKS = "buifc"  # Kinds, each of which may be cast to those after it.


def _kind(dtype: Any) -> str:
    """Return NumPy's letter for the kind of a dtype, and a "+" if it is not NumPy's."""
    name = str(dtype)
    if name.startswith(("bfloat", "float")):
        kind = "f"
    else:
        kind = name[0] if name.startswith(("int", "uint")) else ""
    is_own = isinstance(dtype, np.dtype) and dtype.type.__module__ == "numpy"
    return str(dtype.kind) if is_own else f"{kind or '?'}+"


def _fit(current: Any, kind: str, value: Any) -> Any:
    """Return a saved leaf as what the current one is."""
    if kind == "key":
        return jax_arrays.like_key(current, _host(value))
    if kind not in ("jax", "torch", "numpy") and not _is_number(current):
        return value
    array = _host(value)
    if kind == "numpy" and array.dtype.hasobject and array.dtype.kind == "O":
        return array
    wanted = dtypes.decode(torch_tensors.code(current)) if kind == "torch" else None
    array = array.astype(wanted or current.dtype, order="K", copy=False)
    if kind == "torch":
        return torch_tensors.like(current, array)
    if kind == "jax":
        return jax_arrays.like(current, array)
    return array if kind == "numpy" else array[()]


def _host(value: Any) -> np.ndarray:
    """Return an array of any kind as a NumPy array."""
    kind = leaves.kind_of(value)
    if kind in ("jax", "key"):
        (array,) = jax_arrays.fetch([value])
        return array
    return torch_tensors.fetch(value) if kind == "torch" else np.asarray(value)

"""Whether a leaf can replace another one, and the conversion that this needs."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..kinds import leaves
from ..kinds.jax_arrays import KEY_SIZES
from ..kinds.kind import Kind, Spec
from ..kinds.python_kinds import NUMBERS
from ..user import attributes


class _StandIn(Kind):
    """A spec, as a leaf."""

    def spec(self, value: Any) -> Spec:
        return value  # type: ignore[no-any-return]


_STAND_IN = _StandIn()


def stand_in(value: Any, kind: Kind) -> tuple[Spec, Kind]:
    """Return an object that has only the spec of a leaf, and its kind."""
    spec = kind.spec(value)
    # The library may narrow what a weakly typed leaf takes; other leaves exist already.
    return spec if spec.weak else spec._replace(maker=None), _STAND_IN


def problem(expected: Spec) -> str | None:
    """Return why no leaf can replace a current leaf of this spec, or None."""
    maker = expected.maker
    return None if maker is None else maker.narrowing(expected.dtype)


# Conversion


def takes(saved: Spec, expected: Spec) -> bool:
    """Return whether a current leaf without a type of its own takes the saved type.

    Weakly typed arrays and numbers of Python take any number of their shape. A bool of
    Python takes an array of one bool, as compiled functions return it.

    Args:
      saved: The spec of the saved leaf.
      expected: The spec of the current leaf.
    """
    if expected.kind == "bool":
        return saved.kind == "array" and _number_type(saved) is bool
    if not expected.weak or saved.shape != expected.shape:
        return False
    if saved.kind != "array":
        return _number_type(saved) is not None
    maker = expected.maker or saved.maker
    is_narrowed = maker is not None and maker.narrowing(saved.dtype) is not None
    return _kind(saved.dtype)[0] in _RANKS and not is_narrowed


def can_cast(saved: Spec, expected: Spec) -> bool:
    """Return whether a saved leaf fits with `cast=True`."""
    if {saved.kind, expected.kind} == {"array", "key"}:
        return _is_data(saved, expected) or _is_data(expected, saved)
    if not saved.kind == expected.kind == "array" or saved.shape != expected.shape:
        return False
    kinds = [_kind(spec.dtype) for spec in (saved, expected)]
    if set(kinds) & set("VUS"):  # NumPy would mix up fields and cut off text.
        return False
    if all(len(kind) == 1 for kind in kinds):  # Both are NumPy's own.
        return np.can_cast(saved.dtype, expected.dtype, "same_kind")
    # NumPy regards all casts to or from other libraries' types as same-kind.
    before, after = (_RANKS.find(kind[0]) for kind in kinds)
    return 0 <= before <= after


def _is_data(array: Spec, key: Spec) -> bool:
    """Return whether an array may be the data of keys, such as legacy keys."""
    if (array.kind, key.kind, str(array.dtype)) != ("array", "key", "uint32"):
        return False
    return array.shape == (*key.shape, KEY_SIZES.get(key.dtype))


_RANKS = "buifc"  # Each kind may be cast to those after it.


def _kind(dtype: Any) -> str:
    """Return NumPy's letter for the kind of a dtype; a "+" marks other libraries'."""
    if isinstance(dtype, np.dtype) and dtype.type.__module__ == "numpy":
        return str(dtype.kind)
    name = str(dtype).removeprefix("b")  # As in "bfloat16".
    is_number = name.startswith(("float", "int", "uint", "complex"))
    return f"{name[0] if is_number else '?'}+"


_BY_KIND = {"b": bool, "u": int, "i": int, "f": float, "c": complex}


def may_be_exact(saved: Spec, expected: Spec) -> bool:
    """Return whether a saved number may fit without loss, depending on its value.

    One of the two is a number of Python; the other may be an array without axes.
    """
    if saved.kind == expected.kind:
        return False
    before, after = _number_type(saved), _number_type(expected)
    if before in NUMBERS and after in NUMBERS:
        return NUMBERS.index(before) <= NUMBERS.index(after)
    return before is after is bool


def _number_type(spec: Spec) -> Any:
    """Return the Python type of a number with this spec, or None."""
    if spec.kind != "array":
        return next((x for x in (bool, *NUMBERS) if x.__name__ == spec.kind), None)
    return None if spec.shape else _BY_KIND.get(_kind(spec.dtype)[0])


def is_exact(number: Any, expected: Spec) -> bool:
    """Return whether a number can be converted to the expected type without loss."""
    if type(number) not in (bool, *NUMBERS):
        number = leaves.kind_of(number).numbers(number).item()
    try:
        with np.errstate(all="ignore"):
            other = _number_type(expected)(number)
            if expected.kind == "array":
                other = np.asarray(other).astype(expected.dtype).item()
    except OverflowError:
        return False
    return bool(other == number) or repr(other) == repr(number)  # NaN.


def device_key(current: Any, kind: Kind) -> Any:
    """Return type and place of a current leaf; leaves with equal keys can be shared."""
    current, kind = kind.unwrapped(current)
    dtype = attributes.get(current, "dtype")
    return type(current), dtype, kind.device_key(current)


def fit(current: Any, kind: Kind, value: Any, taken: Spec | None = None) -> Any:
    """Return a saved leaf, converted to the kind, type and place of a current one.

    Args:
      current: The current leaf.
      kind: The kind of the current leaf.
      value: The saved leaf.
      taken: The spec of the saved leaf if the current one takes its type.
    """
    if type(current) is type(value) is np.ndarray and value.dtype == current.dtype:
        return value  # The most frequent case.
    current, kind = kind.unwrapped(current)
    found = leaves.kind_of(value)
    device = kind.device_key(current) if found is kind else None
    if device is not None and device_key(value, kind) == device_key(current, kind):
        return value  # Other objects may hold it, too.
    return kind.fit(current, value, found, taken)

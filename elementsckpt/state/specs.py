"""What one leaf must be for another to take its place, and making it so."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..format import dtypes, scalars
from ..format.manifest import Leaves
from ..kinds import jax_arrays, leaves, torch_tensors
from ..user import attributes


class Spec(NamedTuple):
    """What two leaves must have in common for one to replace the other.

    Attributes:
      kind: "array", "key", or the Python type of anything else.
      dtype: Element type of an array, generator of a key.
      shape: Sizes of the axes.
      weak: Whether it is a number, or an array of them, that takes the type of what it
        is combined with, as JAX has it; None if its library has no such types. They
        need not have this in common.
    """

    kind: str
    dtype: Any = None
    shape: tuple[int, ...] = ()
    weak: bool | None = None

    def is_like(self, other: Spec) -> bool:
        """Tell whether leaves of the one can take the place of those of the other."""
        return self[:3] == other[:3]

    def __str__(self) -> str:
        if self.kind not in ("array", "key"):
            return self.kind
        name = str(self.dtype) if self.kind == "array" else f"key<{self.dtype}>"
        return f"{name}[{','.join(map(str, self.shape))}]"


def spec_of(value: Any, kind: str) -> Spec:
    """Return the spec of a current leaf, or of what stands for it."""
    if kind == "spec":
        return value  # type: ignore[no-any-return]
    is_jax = _is_jax(value, kind)
    if is_jax and jax_arrays.is_key(value):
        return Spec("key", jax_arrays.implementation(value), tuple(value.shape))
    if kind == "torch":
        return Spec("array", _dtype(torch_tensors.code(value)), tuple(value.shape))
    if is_jax:
        return Spec("array", value.dtype, tuple(value.shape), bool(value.weak_type))
    if _is_number(value):
        return Spec("array", value.dtype, ())
    if kind == "numpy":
        try:
            dtypes.encode(value.dtype)
        except dtypes.UnknownDtypeError:
            return Spec("pickle")
        return Spec("array", value.dtype, value.shape)
    if type(value) in _NUMBERS:
        return Spec(type(value).__name__, weak=True)
    return Spec(kind if kind in ("pickle", "function") else type(value).__name__)


def _is_number(value: Any) -> bool:
    cls = type(value)
    return issubclass(cls, np.generic) and not issubclass(cls, np.character)


def stand_in(value: Any, kind: str) -> tuple[Any, str]:
    """Return what stands for a leaf whose spec is all that counts, and its kind."""
    spec = spec_of(value, kind)
    if spec.weak and _is_jax(value, kind):  # Takes what JAX can hold.
        return jax_arrays.abstract(spec.shape, spec.dtype, weak=True), "pickle"
    return spec, "spec"


def specs_of_saved(group: Leaves) -> list[Spec]:
    """Return the spec of each leaf of a saved group.

    Raises:
      ValueError, TypeError, KeyError: the manifest describes no such leaves.
    """
    if group.kind == "python":
        return [spec_of(scalars.decode(code), "python") for code in group.value]
    if group.kind == "key":
        spec = Spec("key", group.value, group.shape[:-1])
    elif group.kind in leaves.SAVED_ARRAYS:
        weak = bool(group.value) if group.kind == "jax" else None
        spec = Spec("array", _dtype(group.dtype), group.shape, weak)
    else:
        spec = Spec(group.kind)
    return [spec] * len(group.names)


def _dtype(code: Any) -> Any:
    """Return the dtype, or its name where torch has it and NumPy has not."""
    try:
        return dtypes.decode(code)
    except ImportError:
        return code


def problem(value: Any, kind: str) -> str | None:
    """Say why nothing can become what a current leaf is, or return None."""
    if _is_jax(value, kind) and kind != "key" and jax_arrays.narrows(value.dtype):
        return "which JAX would silently make 32 bits wide: set jax_enable_x64"
    return None


def _is_jax(value: Any, kind: str) -> bool:
    return kind in ("jax", "key") or (
        kind == "pickle" and jax_arrays.is_abstract(value)
    )


def misplaced(current: Any, kind: str) -> str | None:
    """Return the sharding that an abstract leaf has and cannot have, or None."""
    return jax_arrays.misplaced(current) if _is_jax(current, kind) else None


def where(current: Any, kind: str) -> str | None:
    """Say where an array of JAX or torch is; None for any other leaf."""
    current, kind = _unwrap(current, kind)
    if _is_jax(current, kind):
        return str(current.sharding or "the default device")
    return str(current.device) if kind == "torch" else None


# Conversion


def takes(saved: Spec, current: Any, kind: str) -> bool:
    """Tell whether a current leaf has no type of its own and takes that of a saved one.

    Weakly typed arrays and numbers of Python take any number of their shape; a bool of
    Python takes an array of one, which is what becomes of it in a compiled function.

    Args:
      saved: The spec of the saved leaf.
      current: The current leaf.
      kind: Its kind.
    """
    expected = spec_of(current, kind)
    if expected.kind == "bool":
        return saved.kind == "array" and _number_type(saved) is bool
    if not expected.weak or saved.shape != expected.shape:
        return False
    if saved.kind != "array":
        return _number_type(saved) is not None
    becomes_jax = _is_jax(current, kind) or saved.weak is not None
    is_narrowed = becomes_jax and jax_arrays.narrows(saved.dtype)
    return _kind(saved.dtype)[0] in _RANKS and not is_narrowed


def can_cast(saved: Spec, expected: Spec) -> bool:
    """Tell whether `cast=True` makes one fit the other."""
    if {saved.kind, expected.kind} == {"array", "key"}:
        return _is_data(saved, expected) or _is_data(expected, saved)
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


def _is_data(array: Spec, key: Spec) -> bool:
    """Tell whether an array may be the data of keys: such as legacy keys are."""
    if (array.kind, key.kind, str(array.dtype)) != ("array", "key", "uint32"):
        return False
    return array.shape == (*key.shape, jax_arrays.KEY_SIZES.get(key.dtype))


_RANKS = "buifc"  # Kinds, each of which may be cast to those after it.


def _kind(dtype: Any) -> str:
    """Return NumPy's letter for the kind of a dtype, and a "+" if it is not NumPy's."""
    name = str(dtype)
    if name.startswith(("bfloat", "float")):
        kind = "f"
    else:
        kind = name[0] if name.startswith(("int", "uint", "complex")) else ""
    is_own = isinstance(dtype, np.dtype) and dtype.type.__module__ == "numpy"
    return str(dtype.kind) if is_own else f"{kind or '?'}+"


_NUMBERS = (int, float, complex)  # Each may become those after it.
_BY_KIND = {"b": bool, "u": int, "i": int, "f": float, "c": complex}


def may_be_exact(saved: Spec, expected: Spec) -> bool:
    """Tell whether it depends on a number whether one can become the other.

    One of the two is a number of Python, the other may be an array without axes.
    """
    if saved.kind == expected.kind:
        return False
    before, after = _number_type(saved), _number_type(expected)
    if before in _NUMBERS and after in _NUMBERS:
        return _NUMBERS.index(before) <= _NUMBERS.index(after)
    return before is after is bool


def _number_type(spec: Spec) -> Any:
    """Return Python's type for such a number, or None."""
    if spec.kind != "array":
        return next((x for x in (bool, *_NUMBERS) if x.__name__ == spec.kind), None)
    return None if spec.shape else _BY_KIND.get(_kind(spec.dtype)[0])


def is_exact(number: Any, expected: Spec) -> bool:
    """Tell whether a number can become what is expected and lose nothing."""
    number = _item(number)
    try:
        with np.errstate(all="ignore"):
            other = _number_type(expected)(number)
            if expected.kind == "array":
                other = np.asarray(other).astype(expected.dtype).item()
    except OverflowError:
        return False
    return bool(other == number) or repr(other) == repr(number)  # NaN.


def _item(number: Any) -> Any:
    return number if type(number) in (bool, *_NUMBERS) else _host(number).item()


def place_of(current: Any, kind: str) -> Any:
    """Return what a saved leaf becomes and where; one for two places is shared."""
    current, kind = _unwrap(current, kind)
    place: Any = None
    if kind == "torch":
        place = current.device, torch_tensors.traits(current)
    elif _is_jax(current, kind):
        place = jax_arrays.place_of(current)
    return type(current), attributes.get(current, "dtype"), place


def fit(current: Any, kind: str, value: Any, taken: Spec | None = None) -> Any:
    """Return a saved leaf as what the current one is.

    Args:
      current: The current leaf.
      kind: Its kind.
      value: The saved leaf.
      taken: Its spec, if the current one takes its type.
    """
    if kind == "numpy" and type(value) is np.ndarray and value.dtype == current.dtype:
        return value  # Most, so at once.
    current, kind = _unwrap(current, kind)
    is_like = kind in _PLACED and leaves.kind_of(value) == kind
    if is_like and place_of(value, kind) == place_of(current, kind):
        return value  # Which something else may hold, too.
    if taken is not None:
        return _take(current, kind, value, taken)
    if _is_jax(current, kind):
        is_weak = getattr(current, "weak_type", False)
        array = _host(value)
        if not jax_arrays.is_key(current):
            array = _cast(array, current.dtype)
        return jax_arrays.like(current, array, weak=is_weak)
    if kind not in ("torch", "numpy") and not _is_number(current):
        is_number = type(current) in (bool, *_NUMBERS)
        return type(current)(_item(value)) if is_number else value
    if kind == "torch":
        return torch_tensors.like(current, _torch_elements(current, value))
    array = _host(value)
    if kind == "numpy" and array.dtype.hasobject and array.dtype.kind == "O":
        return array
    array = _cast(array, current.dtype)
    return array if kind == "numpy" else array[()]


_PLACED = frozenset({"jax", "key", "torch"})


def _torch_elements(current: Any, value: Any) -> np.ndarray:
    """Return a saved leaf as elements of the dtype of a current tensor."""
    wanted = _dtype(torch_tensors.code(current))
    if leaves.kind_of(value) == "torch" or not isinstance(wanted, np.dtype):
        other = value if leaves.kind_of(value) == "torch" else _host(value)
        return torch_tensors.fetch_as(current, other)
    return _cast(_host(value), wanted)


def _unwrap(current: Any, kind: str) -> tuple[Any, str]:
    """Return what key data is, and any other leaf as it is."""
    if type(current) is not jax_arrays.KeyData:
        return current, kind
    return current.data, leaves.kind_of(current.data)


def _take(current: Any, kind: str, value: Any, saved: Spec) -> Any:
    """Return a saved number as it was, an array where the current one is, if JAX's."""
    if not _is_jax(current, kind) or saved.kind != "array":
        return value
    is_weak = saved.weak
    if is_weak is None:  # Who saved it may have had it from JAX.
        is_weak = saved.dtype == current.dtype
    return jax_arrays.like(current, _host(value), weak=is_weak)


def _cast(array: np.ndarray, dtype: Any) -> np.ndarray:
    with np.errstate(all="ignore"):  # What the caller finds by it is not here.
        return array.astype(dtype, order="K", copy=False)


def _host(value: Any) -> np.ndarray:
    """Return an array of any kind as a NumPy array."""
    kind = leaves.kind_of(value)
    if kind in ("jax", "key"):
        (array,) = jax_arrays.fetch([value])
        return array
    return torch_tensors.numbers(value) if kind == "torch" else np.asarray(value)

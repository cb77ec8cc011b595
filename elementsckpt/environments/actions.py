"""Actions ⇄ arrays: those of the same form, one after the other, are one array each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

Form = tuple[Any, ...]
_INT64 = range(-(2**63), 2**63)


def pack(actions: Sequence[Any]) -> list[dict[str, Any]]:
    """Return actions as plain data: numbers, arrays, and containers of these."""
    return [_run(form, list(run)) for form, run in itertools.groupby(actions, _form)]


def unpack(data: Sequence[dict[str, Any]]) -> Iterator[Any]:
    """Yield the actions."""
    for run in data:
        for at in range(run["count"]):
            yield _build(run["form"], iter(run["columns"]), at)


def _form(action: Any) -> Form:
    cls = type(action)
    if cls is np.ndarray and not action.dtype.hasobject:
        return "array", action.dtype.str, action.shape
    if isinstance(action, np.generic):
        return "scalar", action.dtype.str
    if cls is dict:
        return "dict", *((key, _form(item)) for key, item in action.items())
    if cls in (list, tuple):
        return cls.__name__, *map(_form, action)
    is_number = cls in (bool, float) or (cls is int and action in _INT64)
    return ("number", cls.__name__) if is_number else ("other",)


def _run(form: Form, actions: list[Any]) -> dict[str, Any]:
    columns = zip(*map(_leaves, actions), strict=True)
    kinds = list(_kinds(form))
    return {
        "count": len(actions),
        "form": _plain(form),
        "columns": [
            list(column) if kind == "other" else np.array(column)
            for kind, column in zip(kinds, columns, strict=True)
        ],
    }


def _leaves(action: Any) -> Iterator[Any]:
    if type(action) is dict:
        action = list(action.values())
    if type(action) in (list, tuple):
        for item in action:
            yield from _leaves(item)
    else:
        yield action


def _kinds(form: Form) -> Iterator[str]:
    kind, *inside = form
    if kind in ("list", "tuple"):
        for item in inside:
            yield from _kinds(item)
    elif kind == "dict":
        for _, item in inside:
            yield from _kinds(item)
    else:
        yield kind


def _plain(form: Form) -> list[Any]:
    return [
        _plain(x) if type(x) is tuple and x and type(x[0]) is str else _numbers(x)
        for x in form
    ]


def _numbers(item: Any) -> Any:
    return list(item) if type(item) is tuple else item


def _build(form: Sequence[Any], columns: Iterator[Any], at: int) -> Any:
    kind, *inside = form
    if kind == "dict":
        return {key: _build(item, columns, at) for key, item in inside}
    if kind in ("list", "tuple"):
        found = [_build(item, columns, at) for item in inside]
        return found if kind == "list" else tuple(found)
    value = next(columns)[at]
    if kind == "array":
        return np.array(value)
    return value.item() if kind == "number" else value

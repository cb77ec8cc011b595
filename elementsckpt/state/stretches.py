"""Arrays of structured dtypes → groups of one form within a stretch of the state.

There may be as many of these dtypes as arrays. In a group for each in all of the state,
what is side by side there would be in as many places of the save, and a change of it
would change all blocks. A stretch ends where the content of a leaf says so, so an
insertion, or a change, moves no end but those near to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xxhash

from ..format import dtypes

_MEAN_BYTES = 2 << 20


def divide(
    alike: Sequence[Sequence[int]], values: Sequence[np.ndarray]
) -> Iterator[tuple[int, list[int]]]:
    """Yield a mark of their form, and the numbers, of the arrays of each group.

    Args:
      alike: Numbers of the arrays, each time of equal dtype, shape and strides.
      values: The arrays by number.
    """
    parts = _of_one_form(alike, values)
    forms = np.repeat(np.arange(len(parts)), [*map(len, parts)])
    numbers = np.concatenate(parts)
    places = np.argsort(numbers)  # As they come in the state.
    numbers, forms = numbers[places], forms[places]
    found = _stretches([values[n] for n in numbers.tolist()])
    marks = found * len(parts) + forms
    order = np.argsort(marks, kind="stable")
    ends = np.flatnonzero(np.diff(marks[order])) + 1
    for some in np.split(order, ends):
        yield int(forms[some[0]]), numbers[some].tolist()


def _of_one_form(
    alike: Sequence[Sequence[int]], values: Sequence[np.ndarray]
) -> list[Sequence[int]]:
    """Return numbers of arrays of one form, as equal dtypes may be described otherwise.

    The order is that of the forms: in that of the state, all would be in other places
    if the first array is another one.
    """
    described = dtypes.Descriptions()
    found: dict[Any, Sequence[int]] = {}
    for place, numbers in enumerate(alike):
        first, known = values[numbers[0]], [values[number].dtype for number in numbers]
        texts = {*map(described.text, {id(x): x for x in known}.values())}
        for text in texts:
            some = numbers
            if len(texts) > 1:
                pairs = zip(numbers, known, strict=True)
                some = [number for number, x in pairs if described.text(x) == text]
            found[text, first.shape, first.strides, place] = some
    return [found[form] for form in sorted(found)]


def _stretches(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return the number of the stretch that each array is in, int64[n]."""
    sizes = np.array([array.nbytes for array in arrays])
    ends = np.array(_hashes(arrays), np.uint64) % _MEAN_BYTES < sizes
    return np.cumsum(ends) - ends


def _hashes(arrays: Sequence[Any]) -> list[int]:
    try:
        return list(map(xxhash.xxh3_64_intdigest, arrays))
    except (TypeError, ValueError, BufferError):  # Some are scattered.
        return [xxhash.xxh3_64_intdigest(array.tobytes()) for array in arrays]

"""Numbers, times and names as people read them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime

from ..errors import one_line
from .outline import shortened

_UNITS = ["B", "kB", "MB", "GB", "TB", "PB", "EB"]
_MOST_OF_VALUE = 40  # Characters: as many as the state of a random generator has.
_BARS = "▁▂▃▄▅▆▇█"
_AGES = [("year", 31_557_600), ("day", 86_400), ("h", 3600), ("min", 60), ("s", 1)]


def size(size_bytes: int) -> str:
    """Return a number of bytes with three digits, in units of 1000."""
    number, unit = float(size_bytes), 0
    while number >= 999.5 and unit < len(_UNITS) - 1:
        number, unit = number / 1000, unit + 1
    digits = 0 if not unit else max(0, 2 - int(math.log10(number)))
    text = f"{number:.{digits}f}"
    return f"{text} {_UNITS[unit]}"


def step(value: int | None) -> str:
    """Return a step in full, with its thousands apart; "-" for None."""
    return "-" if value is None else f"{value:,}"


def number(value: float | None) -> str:
    """Return a number with four digits, before the point in full; "-" for None."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10**16 else f"{value:.4g}"
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e9 else f"{value:.4g}"


def share(value: float | None) -> str:
    """Return a share of one as percent; what is not zero is not shown as zero."""
    if value is None:
        return "-"
    percent = 100 * value
    if 0 < percent < 0.01:
        return "<0.01 %"
    return f"{percent:.3g} %" if percent < 99.995 else "100 %"


def seconds(value: float) -> str:
    """Return a duration, with three digits."""
    if value < 1:
        return f"{1000 * value:.{0 if value >= 0.0995 else 1}f} ms"
    if value < 100:
        return f"{value:.{2 if value < 9.995 else 1}f} s"
    return age(value)


def age(value: float) -> str:
    """Return how long ago something was, in its largest unit."""
    for unit, size_s in _AGES:
        count = int(value // size_s)
        if count >= 1:
            return (
                f"{count} {unit}{'s' if unit in ('day', 'year') and count > 1 else ''}"
            )
    return "now"


def time(value: datetime) -> str:
    """Return a point in time, in UTC, to the second."""
    return f"{value:%Y-%m-%d %H:%M:%S} UTC"


def count(number: int, noun: str) -> str:
    """Return a number with its noun, such as "1 leaf" and "2 leaves"."""
    if number == 1:
        return f"1 {noun}"
    plural = {"leaf": "leaves", "directory": "directories"}.get(noun, f"{noun}s")
    return f"{number:,} {plural}"


def metrics(values: Mapping[str, float]) -> str:
    """Return metrics by name on one line."""
    return ", ".join(f"{one_line(x)} {number(y)}" for x, y in values.items())


def form(dtype: str | None, shape: tuple[int, ...], kind: str) -> str:
    """Return the form of a leaf, such as "float32[8,8]"."""
    if dtype is None:
        return one_line(kind)
    return f"{one_line(dtype)}[{','.join(map(str, shape))}]"


def value(found: object) -> str:
    """Return a scalar as a table shows it: of a long one its start and its end."""
    return shortened(one_line(repr(found)), _MOST_OF_VALUE)


def bars(counts: Sequence[int]) -> str:
    """Return a histogram as a character for each count; "" without any element."""
    most = max(counts, default=0)
    if not most:
        return ""
    return "".join(
        " " if not count else _BARS[(count * len(_BARS) - 1) // most]
        for count in counts
    )

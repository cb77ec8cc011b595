"""Which saves stay, and which is the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal

from msgspec import Struct

from ..errors import reason
from ..format import manifest
from ..format.manifest import Head
from ..user.arguments import is_integer, shown
from ..user.notices import Notices

Metric = str | Callable[[Mapping[str, float]], float]


class Keep(Struct, frozen=True):
    """Rules for which saves stay when a new one is made: those that any rule keeps.

    The newest save and pinned saves stay in any case.

    Args:
      latest: How many of the newest saves to keep; None for all.
      best: How many of the best saves by `metric` to keep. A save that lacks the
        metric, or has one that is not finite, is worse than all others. Of equal saves
        the newer is better.
      metric: Name of one of the `metrics` given to `save`, or a function that takes
        them all and returns a number.
      mode: "max" if more is better, "min" if less is.
      every: Which saves to keep for ever: an int for those at multiples of so many
        steps, a timedelta for one in each period of this length.

    Raises:
      ValueError: an argument is not valid.

    Source: NeMo RL's keep_top_k, Orbax's max_to_keep and keep_period, united.
    """

    latest: int | None = 1
    best: int = 0
    metric: Metric | None = None
    mode: Literal["max", "min"] = "max"
    every: int | timedelta | None = None

    def __post_init__(self) -> None:
        if self.latest is not None:
            _check_count("latest", self.latest)
        _check_count("best", self.best)
        mode: Any = self.mode
        if not isinstance(mode, str) or mode not in ("max", "min"):
            raise ValueError(f"mode={shown(mode)}: pass 'max' or 'min'.")
        is_metric = isinstance(self.metric, str) or callable(self.metric)
        if self.metric is not None and not is_metric:
            raise ValueError(
                f"metric={shown(self.metric)}: pass the name of a metric, or a "
                f"function that takes the metrics and returns a number."
            )
        if self.best and self.metric is None:
            raise ValueError(
                f"best={self.best} needs metric=, by which to rank: pass "
                f"metric='return', for example."
            )
        _check_every(self.every)


def ranking(keep: Keep) -> tuple[str, Literal["max", "min"]] | None:
    """Return the name of the metric and the mode, for the manifest."""
    return (keep.metric, keep.mode) if isinstance(keep.metric, str) else None


def warn(
    keep: Keep, metrics: Mapping[str, float], step: int | None, notices: Notices
) -> None:
    """Warn about a save that can never be the best."""
    if keep.metric is None or not metrics:  # A save without metrics is not ranked.
        return
    found = _why_never_best(keep, metrics)
    if found is None:
        notices.settle("metric")
        return
    which = "this save" if step is None else f"the save at step {step}"
    notices.warn("metric", "%s: %s is never the best.", found, which)


def _why_never_best(keep: Keep, metrics: Mapping[str, float]) -> str | None:
    try:
        value = _value(keep, metrics)
    except Exception as error:
        return f"the metric function failed ({reason(error)})"
    name = repr(keep.metric) if isinstance(keep.metric, str) else "the metric"
    if value is None:
        return f"{name} is missing, there is {', '.join(map(repr, metrics))}"
    return None if math.isfinite(value) else f"{name} is {value}"


def _value(keep: Keep, metrics: Mapping[str, float]) -> float | None:
    """Return the metric of a save, or None if the save lacks it."""
    found: Any
    if callable(keep.metric):
        found = keep.metric(metrics)
    else:
        found = metrics.get(keep.metric or "")
    try:
        return None if found is None else float(found)
    except OverflowError:  # An int that is too long.
        return math.inf


def _check_count(name: str, count: Any) -> None:
    if not is_integer(count) or count < 0:
        raise ValueError(
            f"{name}={shown(count)}: pass how many saves to keep, from 0 on."
        )


def _check_every(every: Any) -> None:
    if isinstance(every, timedelta):
        if every <= timedelta(0):
            raise ValueError(f"every={shown(every)}: pass a time longer than zero.")
    elif every is not None and (not is_integer(every) or every < 1):
        raise ValueError(
            f"every={shown(every)}: pass an int, for multiples of so many steps, or a "
            f"datetime.timedelta."
        )


def checked(keep: Any) -> Keep:
    """Return `keep=` of a Checkpoint as a Keep.

    Raises:
      ValueError: it is not one, nor a number from 1 on, nor None.
    """
    if isinstance(keep, Keep):
        return keep
    if keep is not None and (not is_integer(keep) or keep < 1):
        raise ValueError(
            f"keep={shown(keep)}: pass the number of newest saves to keep, None for "
            f"all, or elementsckpt.Keep(latest=..., best=..., metric=..., every=...)."
        )
    return Keep(latest=keep)


def staying(keep: Keep, heads: Sequence[Head]) -> list[bool]:
    """Return for each save whether it stays; the arguments are those of `reasons`."""
    return [bool(found) for found in reasons(keep, heads)]


def reasons(keep: Keep, heads: Sequence[Head]) -> list[list[str]]:
    """Return for each save why it stays: "latest", "best", "every", "pin", "component".

    For each component that the run had at the last save, the newest save with that
    component stays. So a save of some components never costs the others.

    Args:
      keep: The rules.
      heads: Heads of the saves, oldest first.
    """
    newest = len(heads) if keep.latest is None else max(keep.latest, 1)
    newest_with = {mark: n for n, head in enumerate(heads) for mark in head.marks()}
    wanted = set(map(manifest.key_id, heads[-1].keys)) if heads else set()
    stays = {
        "latest": set(range(len(heads))[-newest:]),
        "best": set(_ranked(keep, heads)[: keep.best]),
        "every": set(_spread(keep.every, heads)),
        "pin": {n for n, head in enumerate(heads) if head.pin is not None},
        "component": {n for mark, n in newest_with.items() if mark in wanted},
    }
    return [
        [why for why, numbers in stays.items() if n in numbers]
        for n in range(len(heads))
    ]


def best(keep: Keep, heads: Sequence[Head]) -> int | None:
    """Return the index of the best save, or None if none has a finite metric."""
    ranked = _ranked(keep, heads)
    if not ranked or _score(keep, heads[ranked[0]]) is None:
        return None
    return ranked[0]


def recorded(heads: Sequence[Head]) -> Keep | None:
    """Return the ranking in the newest save that records one, or None."""
    rankings = [head.ranking for head in heads if head.ranking is not None]
    if not rankings:
        return None
    metric, mode = rankings[-1]
    return Keep(metric=metric, mode=mode)


def _ranked(keep: Keep, heads: Sequence[Head]) -> list[int]:
    """Return the indices of the saves, the best first."""

    def rank(number: int) -> tuple[float, int]:
        score = _score(keep, heads[number])
        return (-math.inf if score is None else score), number

    return sorted(range(len(heads)), key=rank, reverse=True)


def _score(keep: Keep, head: Head) -> float | None:
    """Return the score of a save, higher is better; None if it is never the best."""
    from . import records  # `Keep` alone does without it.

    try:
        value = _value(keep, records.decode_metrics(head.metrics))
    except Exception:  # A save must not fail because of its rank.
        return None
    if value is None or not math.isfinite(value):
        return None
    return value if keep.mode == "max" else -value


def _spread(every: int | timedelta | None, heads: Sequence[Head]) -> Iterable[int]:
    """Yield the indices of the saves to keep for ever."""
    if every is None:
        return
    last = None
    for number, head in enumerate(heads):
        if not isinstance(every, timedelta):
            if head.step is not None and head.step % every == 0:
                yield number
        # If the clock was set back, a new period begins.
        elif last is None or not timedelta(0) <= head.time - last < every:
            yield number
            last = head.time

"""The power fails at any moment, and the disk keeps what it likes of what is new."""

from __future__ import annotations

import collections
import copy
import pathlib
import shutil
import tempfile

from elementsckpt.storage import disk

from support.faults import (
    ALL,
    Explicit,
    Records,
    resumed,
    unsynced,
    use_one_thread,
    use_small_segments,
)
from support.medium import Medium

from .processes import call
from .run import require

_CHANCES = 0.02, 0.2, 0.5, 0.8, 0.98  # Of a change to be kept.
_LIMIT_S = 1800


def power(root, rng, *, rounds, kinds):
    """Let the power fail before and after each call of saves of all kinds.

    Args:
      root: An empty folder.
      rng: Source of chance.
      rounds: How often for each call.
      kinds: How many kinds of saves; None for all.

    Returns:
      The figures, in words.
    """
    # In memory where it can be, as the power never fails in fact.
    memory = pathlib.Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else root) as folder:
        arguments = pathlib.Path(folder), rng, rounds, ALL[:kinds]
        (counts,) = call(_attack, *arguments, limit_s=_LIMIT_S)
    return (
        f"{counts['kinds']} kinds of saves lost power {counts['losses']:,} times, at "
        f"each of {counts['calls']:,} calls; what was not synced was kept or lost by "
        f"chance, each write and each name by itself. What was there before was found "
        f"{counts['old']:,} times and the new save {counts['new']:,} times, whole, and "
        f"always when it was finished. {counts['again']:,} times a save was made on "
        f"what was left, and loaded."
    )


def _attack(report, root, rng, rounds, kinds):
    use_small_segments()
    use_one_thread()
    counts = collections.Counter(kinds=len(kinds))
    for kind in kinds:
        situation = kind(root / "run")
        situation.root.mkdir()
        disk.syscall = unsynced
        situation.prepare()
        before = Medium(situation.root)
        disk.syscall = records = Records()
        situation.save(situation.checkpoint())
        disk.syscall = unsynced
        counts["calls"] += len(records.events)
        for _ in range(rounds):
            _lose(
                kind(root / "left"), copy.deepcopy(before), records.events, rng, counts
            )
        shutil.rmtree(situation.root)
    report(counts)


def _lose(left, medium, events, rng, counts):
    chance = rng.choice(_CHANCES)
    for n in range(len(events) + 1):
        medium.lose_power(left.root, lambda _: rng.random() < chance)
        value = resumed(left)
        possible = {left.old, left.new} if n < len(events) else {left.new}
        require(value in possible, f"{left} has {value} after call {n}")
        counts["new" if value == left.new else "old"] += 1
        counts["losses"] += 1
        if not isinstance(left, Explicit) and rng.random() < 0.2:
            with left.checkpoint(9) as cp:
                cp.save()
            require(resumed(left) == 9, f"{left} cannot go on after call {n}")
            counts["again"] += 1
        if n < len(events):
            medium.take(events[n])
        shutil.rmtree(left.root)

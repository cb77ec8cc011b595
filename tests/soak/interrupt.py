"""Ctrl-C at each place where Python handles it, in what a checkpoint does."""

from __future__ import annotations

import collections

from faults import use_small_segments
from interrupts import VERBS, Attack

from .processes import call

_AT_ONCE = 200  # Places that one process is interrupted at.
_GAP = 200  # Places to a second interrupt, at most.
_LIMIT_S = 600


def interrupt(root, rng, *, every):
    """Interrupt each verb at its places, and at most of them twice.

    Args:
      root: A folder.
      rng: Source of chance, for when the second interrupt comes.
      every: 1 for each place, 2 for every other, and so on.

    Returns:
      The figures, in words.
    """
    figures = collections.Counter()
    for number, name in enumerate(VERBS):
        folder = root / str(number)
        folder.mkdir()
        (count,) = call(_count, folder, name, limit_s=_LIMIT_S)
        figures["verbs"] += 1
        figures["places"] += count
        single = [[place] for place in range(0, count, every)]
        double = [[x, x + rng.randint(1, _GAP)] for (x,) in single]
        for chosen in (single, double):
            for start in range(0, len(chosen), _AT_ONCE):
                some = chosen[start : start + _AT_ONCE]
                folder = root / f"{number}-{len(chosen[0])}-{start}"
                folder.mkdir()
                call(_attack, folder, name, some, limit_s=_LIMIT_S)
        figures["interrupts"] += len(single)
        figures["twice"] += len(double)
    return (
        f"{figures['verbs']} ways to save, load, wait and close have "
        f"{figures['places']:,} places at which Python handles Ctrl-C. "
        f"{figures['interrupts']:,} times it came there once, {figures['twice']:,} "
        f"times again while that was dealt with. Each time the old save or the new one "
        f"was found, whole, and the next save in that process worked and left nothing "
        f"else; no file stayed open or locked, and none was closed twice."
    )


def _count(report, root, name):
    use_small_segments()
    attack = Attack(root, name)
    attack.run()  # It may import something.
    report(attack.run())


def _attack(report, root, name, chosen):
    use_small_segments()
    attack = Attack(root, name)
    for places in chosen:
        attack.run(*places)

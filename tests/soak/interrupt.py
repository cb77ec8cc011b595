"""Ctrl-C at each place where Python handles it, in what a checkpoint does."""

from __future__ import annotations

import collections
import os
import sys

from support.faults import use_small_segments
from support.folders import folder_in_memory
from support.interrupts import HOLDING, VERBS, Attack

from .processes import Process, call

_AT_ONCE = 100  # Places that one process is interrupted at.
_GAP = 200  # Places to a second interrupt, at most.
_AGAIN = 5  # One place in so many has one.
_ELSEWHERE = 20  # And so many where nothing is opened, locked, or handed over.
_LIMIT_S = 1200


def interrupt(root, rng, *, every, verbs):
    """Interrupt each verb at its places, and at some of them twice.

    Args:
      root: A folder.
      rng: Source of chance, for when the second interrupt comes.
      every: 1 for each place, 2 for every other, and so on.
      verbs: How many of them, or None for all.

    Returns:
      The figures, in words.
    """
    figures = collections.Counter()
    running = []
    with folder_in_memory(root) as memory:
        for number, (name, modules, chosen) in enumerate(
            _chosen(memory, rng, every, verbs)
        ):
            figures[len(chosen[0])] += len(chosen)
            if len(running) == os.cpu_count():
                running.pop(0).end()
            args = memory / str(number), name, modules, chosen
            running.append(Process(_attack, *args, limit_s=_LIMIT_S))
        for process in running:
            process.end()
    return (
        f"{figures[1]:,} times Ctrl-C came at a place where Python handles it, in "
        f"{verbs or len(VERBS)} ways to save, load, wait and close, and "
        f"{figures[2]:,} times once more while that was dealt with. Each time the old "
        f"save or the new one was found, whole, and the next save in that process "
        f"worked and left nothing else; no file stayed open or locked, and none was "
        f"closed twice."
    )


def _chosen(memory, rng, every, verbs):
    """Yield verbs, the modules to look at, and places to interrupt them at."""
    names = rng.sample(sorted(VERBS), verbs or len(VERBS))
    for number, name in enumerate(names):
        for modules, step in ((HOLDING, every), (None, every * _ELSEWHERE)):
            folder = memory / f"count-{number}-{step}"
            (count,) = call(_count, folder, name, modules, limit_s=_LIMIT_S)
            places = range(rng.randrange(step), count, step)
            once = [[place] for place in places]
            twice = [[x, x + rng.randint(1, _GAP)] for x in places[::_AGAIN]]
            if sys.version_info < (3, 11):  # A with statement can lose its end.
                twice = []
            for chosen in (once, twice):
                for start in range(0, len(chosen), _AT_ONCE):
                    yield name, modules, chosen[start : start + _AT_ONCE]


def _count(report, root, name, modules):
    attack = _begun(root, name, modules)
    attack.run()  # It may import something.
    report(attack.run())


def _attack(report, root, name, modules, chosen):
    attack = _begun(root, name, modules)
    for places in chosen:
        attack.run(*places)


def _begun(root, name, modules):
    use_small_segments()
    root.mkdir()
    return Attack(root, name, modules=modules)

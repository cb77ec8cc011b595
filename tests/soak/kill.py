"""Processes that save without pause are killed at random moments."""

from __future__ import annotations

import collections
import shutil
import time

from elementsckpt import Keep

from support.faults import use_small_segments

from .processes import Process
from .run import LARGE_ROW, SMALL_ROW, Run, Warnings, check_tidy, require

_MOST_STEPS = 150  # Then a new directory is begun.
_EVERY = 40
_KEEP = Keep(latest=2, best=1, metric="score", every=_EVERY)


def kill(root, rng, *, lives):
    """Begin a process that resumes and saves again and again, kill it, and so on.

    Each checks what the one before has left.

    Args:
      root: An empty folder.
      rng: Source of chance.
      lives: How many processes to kill.

    Returns:
      The figures, in words.
    """
    counts = collections.Counter()
    directory = None
    while counts["killed"] < lives:
        if directory is None or directory.step > _MOST_STEPS:
            if directory is not None:
                shutil.rmtree(directory.path)
            counts["directories"] += 1
            directory = _Directory(root / f"run{counts['directories']}", rng)
        _live(directory, rng, counts)
    return (
        f"{counts['killed']:,} processes that saved without pause were killed at "
        f"random. Of {counts['confirmed']:,} saves that `wait()` had confirmed, none "
        f"was lost. {counts['resumed']:,} lived to resume from what the one before "
        f"left, each from a whole save and none from an older one; in "
        f"{counts['unfinished']:,} cases that was an unfinished save, too, of which "
        f"the next save left nothing."
    )


class _Directory:
    """A directory, and what is known of it.

    Attributes:
      sequence: Of the newest save that was confirmed.
      step: Step of the newest save that was confirmed.
      score: The best of those that were confirmed.
    """

    def __init__(self, path, rng):
        self.path = path
        self.row_bytes = rng.choice([SMALL_ROW, SMALL_ROW, LARGE_ROW])
        self.sequence = self.step = 0
        self.score = -1


def _live(directory, rng, counts):
    """Let a process live for a while and take note of what it said."""
    options = {
        "fsync": rng.random() < 0.5,
        "compress": rng.choice(["auto", "auto", None, 1]),
        "staging_bytes": rng.choice([None, None, 0]),
    }
    process = Process(_save_without_pause, directory, options)
    if rng.random() < 0.8:  # Else it may die while it resumes.
        process.read()
        process.read()
    time.sleep(rng.expovariate(8))
    process.kill()
    counts["killed"] += 1
    for value in process.end():
        if "unfinished" in value:
            counts["resumed"] += 1
            counts["unfinished"] += value["unfinished"] > 0
        else:
            counts["confirmed"] += 1
            directory.sequence, directory.step = value["sequence"], value["step"]
            directory.score = max(directory.score, value["score"])


def _save_without_pause(report, directory, options):
    warnings = Warnings()
    if directory.row_bytes == SMALL_ROW:
        use_small_segments()
    run = Run(row_bytes=directory.row_bytes)
    cp = run.checkpoint(directory.path, keep=_KEEP, background=True, **options)
    before = cp.saves()
    _check_kept(before, directory)
    unfinished = _unfinished(directory.path)
    cp.load_or_save()
    require(run.check() >= directory.step, "a step is lost")
    report({"unfinished": unfinished})
    is_first = True
    while True:
        run.advance()
        step, metrics = run.step, run.metrics
        cp.save(metrics=metrics)
        run.advance()  # While the thread writes.
        saved = cp.wait()
        report({"sequence": saved.sequence, "step": step, **metrics})
        if is_first:
            _check_tidy(cp, before, directory)
            require(not warnings, f"it warned: {warnings}")
            is_first = False


def _unfinished(directory):
    """Return how many folders are there that are no saves."""
    return sum(
        path.name.startswith(".") or (path / ".manifest.json").exists()
        for path in (directory.iterdir() if directory.exists() else [])
        if path.is_dir()
    )


def _check_kept(saves, directory):
    """Check that no save is lost that was confirmed and is to be kept."""
    newest = max((save.sequence for save in saves), default=0)
    require(newest >= directory.sequence, f"save {directory.sequence} is lost")
    best = max((save.metrics.get("score", -1) for save in saves), default=-1)
    require(best >= directory.score, f"the best save, {directory.score}, is lost")


def _check_tidy(cp, before, directory):
    """Check what stays after a save, and that all of it is whole."""
    saves = cp.saves()
    check_tidy(directory.path, saves)
    seen = {save.sequence: save for save in [*before, *saves]}
    expected = set(sorted(seen)[-2:])
    expected.add(max(seen, key=lambda x: (seen[x].metrics.get("score", -1), x)))
    expected |= {x for x in seen if seen[x].step % _EVERY == 0}
    found = {save.sequence for save in saves}
    require(found == expected, f"kept are {found}, not {expected}")
    for save in saves:
        old = Run(row_bytes=directory.row_bytes)
        old.checkpoint().load(save.path)
        require(old.check() == save.step, "a save is of another step than it says")

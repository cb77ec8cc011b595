"""Two processes save to one directory, and a third one loads what is there."""

from __future__ import annotations

import collections
import random
import time

import elementsckpt
from elementsckpt import CheckpointError, Keep, WriteError

from support.faults import use_small_segments

from .processes import Process, call
from .run import Run, Warnings, check_tidy, require, same

_WRITERS = 2
_LIFE_S = 5  # Of a writer, on average, before it is killed and another one begun.
_KEEPS = 1, 1, 2, Keep(latest=2, best=1, metric="score")
_SAVES = 10  # Reported together.
# What the other one is a reason for: it saves here, too, and prunes what is reused.
_WARNINGS = "is writing to", "Saving at step", "Not reused, but written again"


def race(root, rng, *, minutes):
    """Let two processes save and be killed now and then, while a third one loads.

    Args:
      root: An empty folder.
      rng: Source of chance.
      minutes: For how long.

    Returns:
      The figures, in words.
    """
    directory = root / "ckpt"
    call(_save_alone, directory)
    counts = collections.Counter()
    end = time.monotonic() + 60 * minutes
    limit_s = round(60 * minutes) + 60
    reader = Process(_read, directory, rng.getrandbits(64), end, limit_s=limit_s)
    writers = [_begin(directory, number, rng) for number in range(_WRITERS)]
    while time.monotonic() < end and not reader.has_ended:
        left = max(0, end - time.monotonic())
        time.sleep(min(left, rng.expovariate(_WRITERS / _LIFE_S)))
        number = rng.randrange(_WRITERS)
        _end(writers[number], counts)
        writers[number] = _begin(directory, number, rng)
    for writer in writers:
        _end(writer, counts)
    (found,) = map(collections.Counter, reader.end())
    call(_save_alone, directory)
    return (
        f"{_WRITERS} processes saved to one directory for {minutes:g} minutes and were "
        f"killed {counts['killed']:,} times. Of {counts['saved']:,} saves, the other "
        f"process pruned {counts['pruned']:,} before they could be looked at, and the "
        f"others were whole; {counts['refused']:,} more ended with a WriteError, for "
        f"the same reason. A third process loaded meanwhile: {found['loaded']:,} times "
        f"one save of the directory, all of it. Asked for a save by its path, it got "
        f"that, {found['named']:,} times, or was told that it is gone, "
        f"{found['gone']:,} times."
    )


def _save_alone(report, directory):
    """Resume and save with nobody else there."""
    run = Run()
    cp = run.checkpoint(directory)
    cp.load_or_save()
    run.check()
    cp.save()
    check_tidy(directory, cp.saves())
    require(len(cp.saves()) == 1, "more saves are kept than one")


# Writing


def _begin(directory, number, rng):
    options = {"keep": rng.choice(_KEEPS), "fsync": rng.random() < 0.3}
    return Process(_write, directory, number, options, limit_s=600)


def _end(writer, counts):
    writer.kill()
    for values in writer.end():
        counts.update(values)
    counts["killed"] += 1


def _write(report, directory, number, options):
    warnings = Warnings()
    use_small_segments()
    run = Run()
    cp = run.checkpoint(directory, background=True, **options)
    _load(run, cp, directory)
    run.go_to(number, run.step)  # The save may be of the other one.
    counts = collections.Counter()
    while True:
        run.advance()
        try:
            cp.save(metrics=run.metrics)
            run.advance()  # While the thread writes.
            saved = cp.wait()
        except WriteError as error:  # The other one has removed what was not durable.
            require(isinstance(error.__cause__, FileNotFoundError), f"{error}")
            counts["refused"] += 1
            continue
        counts["saved"] += 1
        found = Run()
        is_there = _load(found, found.checkpoint(), saved.path)
        counts["pruned"] += not is_there
        require(not is_there or found.writer == number, "it is of another process")
        odd = [x for x in warnings if not any(known in x for known in _WARNINGS)]
        require(not odd, f"it warned: {odd}")
        if counts["saved"] == _SAVES:
            report(counts)
            counts.clear()


def _load(run, cp, path, **options):
    """Load a save, or the newest of the directory; tell whether a save was there."""
    try:
        report = cp.load(path, **options)
    except CheckpointError as error:
        require(not path.exists(), f"{path} is damaged: {error}")
        return False
    require(run.check() == report.step, "it is of another step than it says")
    return True


# Reading


def _read(report, directory, seed, end):
    warnings = Warnings()
    use_small_segments()
    rng = random.Random(seed)
    counts = collections.Counter()
    sequence = 0
    while time.monotonic() < end:
        way = rng.choice(["load", "mmap", "read", "info", "named"])
        run = Run()
        if way == "named":
            for save in run.checkpoint(directory).saves():
                is_there = _load(run, run.checkpoint(), save.path)
                counts["named" if is_there else "gone"] += 1
            continue
        if way == "info":
            found = elementsckpt.info(directory).sequence
            require(found >= sequence, f"save {found} is newest after {sequence}")
            sequence = found
        elif way == "read":
            _read_states(directory)
        else:
            _load(run, run.checkpoint(), directory, mmap=way == "mmap")
        counts["loaded"] += 1
        require(not warnings, f"it warned: {warnings}")
    report(counts)


def _read_states(directory):
    keys = ["step", "agent", "replay", "episodes"]
    states = elementsckpt.read(directory, keys)
    expected = Run(states["agent"]["writer"], states["step"])
    require(same(states["agent"], expected.agent), "the agent is not whole")
    require(same(states["replay"], expected.replay), "the replay is not whole")
    require(same(states["episodes"], expected.episodes), "the episodes are not whole")

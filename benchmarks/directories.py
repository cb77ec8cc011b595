"""Rows about directories with very many saves: what the others cost one save."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import elementsckpt

from . import fresh, tracing
from .cases import Case, Row, Sample, Setting, Target, timed
from .replay import checkpoint as single
from .small import counted
from .states import State, noise, tiny

BATCH = 50  # Saves that one directory gets, so that none pays for very many others.
NUMBERS = 10, 500, 3_000
RANKED = elementsckpt.Keep(latest=None, best=1, metric=fresh.METRIC)
ROOT = Path(__file__).parent.parent


def fill(directory: Path, others: int, state: State) -> Path:
    """Save a state in a directory with so many other saves of it, and return where.

    The others are made elsewhere and moved, which leaves each whole.
    """
    directory.mkdir()
    for start in range(0, others, BATCH):
        elsewhere = directory.with_name(f"{directory.name}-{start}")
        cp = checkpoint(elsewhere, state)
        for number in range(start, min(others, start + BATCH)):
            made = cp.save(metrics={fresh.METRIC: number}).path
            made.rename(directory / made.name)
        shutil.rmtree(elsewhere)
    return going_on(directory, state).save(metrics={fresh.METRIC: others}).path


def going_on(directory: Path, state: State) -> elementsckpt.Checkpoint:
    """Return an object that has loaded what is there, as one that saves should."""
    cp = checkpoint(directory, state)
    if cp.exists():
        cp.load()
    return cp


def checkpoint(
    directory: Path, state: State, **options: Any
) -> elementsckpt.Checkpoint:
    """Return an object that keeps all saves, and ranks them by a metric."""
    options = {"keep": RANKED, "fsync": False} | options
    return single(directory, lambda: state, **options)


def newest(setting: Setting) -> Row:
    state, size = tiny(setting.divisor)
    one, many = setting.folder / "one", setting.folder / "many"
    siblings = 1_000 // setting.divisor
    fill(one, 0, state)
    fill(many, siblings, state)

    def asking(verb: str) -> Case:
        command = [sys.executable, "-m", fresh.__name__, verb, str(one), str(many)]

        def case(_: Path) -> Sample:
            sample: Sample = json.loads(subprocess.check_output(command, cwd=ROOT))
            if "KiB" in sample:  # The newest manifests of both differ by some bytes.
                sample["KiB of each"] = round(sample.pop("KiB") / siblings, 3)
            return sample

        return case

    limits = {"CPU ms": 100, "KiB of each": 8}
    return Row(
        f"a new process asks a directory of {siblings:,} saves of {size}",
        "What it takes to load the newest, or to ask for what is there. Imports do not "
        "count: the same is asked of a directory with one save before. KiB are read of "
        "each save: what is read in all, less what is read there.",
        {verb: asking(verb) for verb in fresh.VERBS},
        [
            Target(verb, None, limit, measure)
            for verb in fresh.VERBS
            for measure, limit in limits.items()
        ],
    )


def siblings(setting: Setting) -> Row:
    count = 1_000 // setting.divisor
    directory = setting.folder / "many"
    state = noise(1, 1, 8)
    last = fill(directory, count, state)
    others = [
        x.name for x in directory.iterdir() if x.name not in (last.name, "latest")
    ]

    def asking(ask: Callable[[elementsckpt.Checkpoint], Any]) -> Case:
        def case(folder: Path) -> Sample:
            call = partial(ask, checkpoint(directory, state))
            sample = timed(lambda _: call())(folder)
            if tracing.note():
                return sample
            calls = tracing.traced(partial(ask, checkpoint(directory, state)))
            named = sum(any(x in call.text for x in others) for call in calls)
            listings = tracing.summary(calls)["listings"]
            return {**sample, "calls on others": named, "listings": listings}

        return case

    asked: dict[str, Case | None] = {
        "load(path)": asking(lambda cp: cp.load(last)),
        "exists()": asking(lambda cp: cp.exists()),
        "latest()": asking(lambda cp: cp.latest()),
    }
    limits = {"calls on others": 0, "listings": 1}
    return Row(
        f"one save among {count:,} others",
        "A new object of their directory is asked for the newest, which is small. "
        f"{tracing.note()}",
        asked,
        [Target(x, None, limits[y], y) for x in asked for y in limits],
    )


def numbered(setting: Setting) -> Row:
    state = noise(1, 1, 8)

    def saving(count: int) -> Case:
        directory = setting.folder / str(count)
        fill(directory, count - 1, state)
        cp = single(directory, lambda: state, keep=None, fsync=False)
        cp.load()
        return counted(cp.save, lambda: None)

    counts = [max(NUMBERS[0], count // setting.divisor) for count in NUMBERS]
    names = {count: f"after {count:,} others" for count in counts}
    return Row(
        "a small save into a directory that keeps all",
        "Of one object, again and again; the disk confirms nothing (`fsync=False`). A "
        f"listing is one call, however long. {tracing.note()}",
        {name: saving(count) for count, name in names.items()},
        [Target(names[counts[-1]], names[counts[0]], 1.0, "calls")],
    )

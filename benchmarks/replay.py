"""Rows about a replay buffer: what changed is written, and what compresses."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import elementsckpt

from . import raw
from .cases import Case, Row, Sample, Setting, Target, loading, timed
from .states import FRAME_BYTES, Replay, State, game_frames, large, size_bytes, weights

SAVES = 200
CHANGED = {"0 %": 0.0, "1 %": 0.01, "10 %": 0.1, "100 %": 1.0}


def replay(setting: Setting) -> Row:
    buffer = Replay(round(2e9 / FRAME_BYTES) // setting.divisor)
    state = buffer.save()
    cp = checkpoint(setting.folder / "replay", buffer.save)
    cp.save()
    rings = checkpoint(setting.folder / "rings", buffer.save_rings)
    behind = checkpoint(setting.folder / "behind", buffer.save_rings, background=True)
    image, target = state["image"], np.ones_like(state["image"])
    copy = partial(raw.copy, [image], [target], threads=1)

    def saved_rings(_: Path) -> elementsckpt.Checkpoint:
        rings.save()  # What the other cases have changed.
        return rings

    elements = setting.peers["elements"]
    return Row(
        f"replay of {size_bytes(state) / 1e9:.1f} GB, part of it changed",
        "A ring buffer of frames, actions and rewards, all random bits. Only the first "
        "save has no save before it in its directory. A `Ring` says which rows are "
        "new; `blocked` is how long its save in the background holds up the caller. "
        "Copying and hashing alone are of the same bytes in memory.",
        {
            "first save": written(lambda folder: checkpoint(folder, buffer.save)),
            **{
                f"{name} changed": written(
                    lambda _: cp, before=partial(buffer.overwrite, fraction)
                )
                for name, fraction in CHANGED.items()
            },
            "1 % changed, of a Ring": written(
                saved_rings, before=partial(buffer.overwrite, 0.01)
            ),
            "1 % changed, of a Ring, blocked": blocked_by(behind, buffer),
            "copying the array": timed(lambda _: copy()),
            "0 % changed, unchecked": unchecked(written(lambda _: cp)),
            "hashing alone": timed(lambda _: raw.digest(state)),
            "elements": elements and timed(partial(elements.save, state)),
        },
        [
            Target("1 % changed", "first save", 0.2),
            Target("1 % changed", "first save", 0.03, "MB written"),
            Target("1 % changed, of a Ring", "first save", 0.05),
            Target("1 % changed, of a Ring, blocked", "copying the array", 0.05),
        ],
    )


def blocked_by(cp: elementsckpt.Checkpoint, buffer: Replay) -> Case:
    """Return the case that measures how long a save in the background blocks."""

    def case(folder: Path) -> Sample:
        cp.save()  # What the other cases have changed.
        cp.wait()
        buffer.overwrite(0.01)
        sample = timed(lambda _: cp.save())(folder)
        report = cp.wait()
        assert report is not None
        return {"ms": sample["ms"], "MB written": report.bytes_written / 1e6}

    return case


def scattered(setting: Setting) -> Row:
    buffer = Replay(round(2e9 / FRAME_BYTES) // setting.divisor)
    state = buffer.save()
    size = size_bytes(state)
    cp = checkpoint(setting.folder / "many", buffer.save, fsync=False)
    cp.save()
    written = []
    for _ in range(SAVES):
        buffer.overwrite(0.01)
        written.append(cp.save().bytes_written)
    once = checkpoint(setting.folder / "once", buffer.save, fsync=False)
    facts = {"% written by the mean save": 100 * sum(written) / SAVES / size}

    def case(cp: elementsckpt.Checkpoint, facts: Sample) -> Case:
        save = cp.latest()
        assert save is not None
        files = sum(path.is_file() for path in save.rglob("*"))
        load = loading(partial(loaded_from, save), state)
        return lambda folder: {**load(folder), "files": files, **facts}

    many, fresh = f"load after {SAVES} saves", "load of one save"
    once.save()
    return Row(
        f"{SAVES} saves of a replay of {size / 1e9:.1f} GB, 1 % changed each time",
        "The oldest rows are overwritten, so what the newest save holds was written by "
        "a hundred saves. It is loaded, and so is the only save of a directory.",
        {many: case(cp, facts), fresh: case(once, {})},
        [
            Target(many, None, 80, "files"),
            Target(many, None, 1.6, "% written by the mean save"),
            Target(many, fresh, 1.1),
        ],
    )


def compress_frames(setting: Setting) -> Row:
    state = {"image": game_frames(45_000 // setting.divisor)}
    return Row(
        f"compression of frames, {size_bytes(state) / 1e6:.0f} MB",
        "Frames made for this: 8 x 8 tiles of 16 textures; from frame to frame one "
        "tile in 20 changes, and one pixel in 50 has a random color.",
        {
            "save, compress=None": stored(state, None),
            "save, compress='auto'": stored(state, "auto"),
            "load, compress=None": brought_back(state, None, setting.folder),
            "load, compress='auto'": brought_back(state, "auto", setting.folder),
        },
    )


def compress_weights(setting: Setting) -> Row:
    state, size = large(setting.divisor, weights)
    return Row(
        f"compression of parameters, {size}",
        "Normally distributed float32, which compression would not halve: the "
        "difference is what it costs to find that out.",
        {
            "save, compress=None": stored(state, None),
            "save, compress='auto'": stored(state, "auto"),
        },
    )


def checkpoint(
    directory: Path, save: Callable[[], State], **options: Any
) -> elementsckpt.Checkpoint:
    """Return the checkpoint of one component, whose state is what `save` returns."""
    cp = elementsckpt.Checkpoint(directory, **options)
    cp.state = elementsckpt.Saveable(save=save, load=lambda _: None)
    return cp


def written(
    make: Callable[[Path], elementsckpt.Checkpoint],
    before: Callable[[], object] = tuple,
) -> Case:
    """Return the case that measures a save, and the bytes that it reports."""

    def case(folder: Path) -> Sample:
        cp = make(folder)
        before()
        reports: list[elementsckpt.SaveReport] = []

        def save(_: Path) -> elementsckpt.SaveReport:
            reports.append(cp.save())
            return reports[-1]

        sample = timed(save)(folder)
        return {**sample, "MB written": reports[-1].bytes_written / 1e6}

    return case


def unchecked(case: Case) -> Case:
    """Return the case with segments linked as they are."""
    never = mock.patch("elementsckpt.saving.earlier_save.CHECK_EVERY", sys.maxsize)
    return never(case)


def stored(state: State, compress: str | None) -> Case:
    """Return the case that measures a save, and the size of its folder."""

    def case(folder: Path) -> Sample:
        cp = checkpoint(folder, lambda: state, compress=compress)
        sample = timed(lambda _: cp.save())(folder)
        sizes = [x.stat().st_size for x in folder.rglob("*") if x.is_file()]
        return {**sample, "MB stored": sum(sizes) / 1e6}

    return case


def brought_back(state: State, compress: str | None, folder: Path) -> Case:
    """Save, and return the case that loads it."""
    directory = folder / str(compress)
    checkpoint(directory, lambda: state, compress=compress).save()

    return loading(partial(loaded_from, directory), state)


def loaded_from(path: Path) -> State:
    loaded: State = {}
    elementsckpt.checkpoint.load(path, {"state": loaded.update})
    return loaded

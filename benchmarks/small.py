"""Rows about small saves: what each costs before the first byte is written."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import elementsckpt

from . import raw, tracing
from .cases import Case, Row, Sample, Setting, Target, timed

COMPONENTS = 500, 1_000, 2_000
SMALL = (
    "A save also syncs a manifest, and the removal of the save before it; these "
    "calls alone, without the library, took 1.7 to 2.6 times as long as the raw "
    "write. The library adds 2 ms of Python, 3 for seven components: little where a "
    "sync takes 4 ms, and as much as the raw write where one takes 0.2 ms."
)


class Changing:
    """A checkpoint of components that are one array each, all of which can change."""

    def __init__(
        self, directory: Path, count: int, size_bytes: int, **options: Any
    ) -> None:
        bits = np.random.default_rng(0).integers
        self.arrays = [bits(0, 256, size_bytes, np.uint8) for _ in range(count)]
        self.checkpoint = elementsckpt.Checkpoint(directory, **options)
        for number, array in enumerate(self.arrays):
            state = {"array": array}
            component = elementsckpt.Saveable(
                save=partial(dict[str, np.ndarray], state), load=lambda _: None
            )
            setattr(self.checkpoint, f"component{number:04d}", component)

    def change(self) -> None:
        for array in self.arrays:
            array += 1


def small(setting: Setting, count: int, size_bytes: int, at_most: float) -> Row:
    size_bytes //= setting.divisor
    ours = Changing(setting.folder / "elementsckpt", count, size_bytes)
    plural = "components" if count > 1 else "component"
    limits = {"fsyncs": 8, "calls": 100, "listings": 2, "made in vain": 0}
    return Row(
        f"durable save of {count} {plural} of {size_bytes / 1000:g} KB",
        "Into the directory of the save before, which it replaces; all is changed. Raw "
        "is one file with the same bytes in a new folder, with fsync of the file, its "
        "folder and the folder above. What is in vain was made by a save and removed "
        f"by it again. {tracing.note()}",
        {
            "raw": timed(partial(raw.write_new_folder, ours.arrays)),
            "elementsckpt": counted(ours.checkpoint.save, ours.change),
        },
        [
            Target("elementsckpt", "raw", at_most, why=SMALL),
            *(Target("elementsckpt", None, *x[::-1]) for x in limits.items()),
        ],
    )


def counted(call: Callable[[], object], before: Callable[[], object]) -> Case:
    """Return the case that measures a call, and then counts what it asks of files."""

    def case(folder: Path) -> Sample:
        before()
        sample = timed(lambda _: call())(folder)
        before()
        return {**sample, **tracing.counts(call)}

    return case


def components(setting: Setting) -> Row:
    counts = [count // setting.divisor for count in COMPONENTS]

    def per_component(count: int) -> Case:
        ours = Changing(setting.folder / str(count), count, 32, fsync=False)

        def case(folder: Path) -> Sample:
            ours.change()
            sample = timed(lambda _: ours.checkpoint.save())(folder)
            return {**sample, "ms per component": sample["ms"] / count}

        return case

    names = {count: f"{count:,} components" for count in counts}
    return Row(
        "save of very many components",
        "Each is 32 bytes, and all are changed; the disk confirms nothing "
        "(`fsync=False`). Linear is: for each the same.",
        {name: per_component(count) for count, name in names.items()},
        [Target(names[counts[-1]], names[counts[0]], 1.2, "ms per component")],
    )
